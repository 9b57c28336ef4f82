//! The HTTP face: health, metrics, where to connect, the demo's files, and the door for WebSocket upgrades.
//!
//! The router is axum's; the accept loop ([`Server`]) is ours, because connections need a cap, deadlines and a graceful
//! stop. Nothing here knows rooms: an upgrade request is handed, checked but otherwise as it came, to the [`Upgrades`]
//! that the node gives, which leads to the same door that every other carrier uses.

mod assets;
pub mod error;
mod guard;
mod router;
mod server;
mod socket;
mod state;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use error::RefusedUpgrade;
pub use server::{BindError, Server};
pub use state::{
    Connect, ConnectInfo, Readiness, Route, State, Upgrade, Upgrades, WebTransportInfo,
};

/// The HTTP listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// TCP address and port for HTTP and WebSocket; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Open connections, WebSockets included. One more is answered with 503. A connection costs a file descriptor and
    /// about 10 KiB before its session costs more.
    pub connections_max: usize,
    /// How long a client may take to send the head of a request, and how long a kept connection may idle.
    #[serde(with = "crate::units::duration")]
    pub header_timeout: Duration,
    /// How long a client may take for the TLS handshake.
    #[serde(with = "crate::units::duration")]
    pub handshake_timeout: Duration,
    /// How long a write may make no progress before the connection is closed. The bound on what a peer that reads
    /// nothing can hold.
    #[serde(with = "crate::units::duration")]
    pub write_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 8080).into(),
            connections_max: 10_000,
            header_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
        }
    }
}
