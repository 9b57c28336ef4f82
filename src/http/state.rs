//! What the node gives to the HTTP face: shared handles, and the callback for upgrades.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;

use super::error::RefusedUpgrade;
use crate::telemetry::Metrics;

/// Everything that the routes use. Cheap to clone.
#[derive(Debug, Clone)]
pub struct State {
    /// For `/metrics`, and to count requests.
    pub metrics: Arc<Metrics>,
    /// For `/readyz`.
    pub readiness: Readiness,
    /// For `/v1/connect`.
    pub connect: Connect,
    /// For `/ws` and `/yjs/{document}`.
    pub upgrades: Arc<dyn Upgrades>,
}

/// The door for WebSocket upgrades; the node implements it by `transport::websocket` and `session::accept`.
pub trait Upgrades: fmt::Debug + Send + Sync + 'static {
    /// Answers one upgrade request at once: with the `101` (whose connection the implementation awaits in a task of its
    /// own scope), or a refusal. `Host` and `Origin` are checked already; whether the request is a proper WebSocket
    /// handshake is not.
    fn upgrade(&self, upgrade: Upgrade) -> Result<hyper::Response<()>, RefusedUpgrade>;
}

/// A request for a WebSocket.
#[derive(Debug)]
pub struct Upgrade {
    /// The request as it came, without its (empty) body. `hyper::upgrade::on` yields its connection.
    pub request: hyper::Request<()>,
    /// The other end of the TCP connection.
    pub peer: SocketAddr,
    /// Which dialect the path asks for.
    pub route: Route,
}

/// The dialects that are reached by a path of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/ws`: the native protocol, multiplexed.
    Native,
    /// `/yjs/{document}`: y-websocket. The document is the rest of the path, without what a URL parser encoded; not checked further.
    Yjs {
        /// The document's name as the client wrote it.
        document: String,
    },
}

/// Whether the node can serve, and why not. The node sets it; `/readyz` shows it. Clones are the same handle.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<RwLock<BTreeMap<&'static str, String>>>);

impl Readiness {
    /// A handle that is not ready, because the node is starting.
    pub fn starting() -> Self {
        let readiness = Self::default();
        readiness.block("starting", "the node is starting");
        readiness
    }

    /// Names a reason why the node is not ready, or changes its words. The text is public: no paths, no secrets.
    pub fn block(&self, reason: &'static str, text: impl Into<String>) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(reason, text.into());
    }

    /// Takes a reason away. The node is ready when none is left.
    pub fn clear(&self, reason: &'static str) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(reason);
    }

    /// The reasons why the node is not ready, by name; empty when it is ready.
    pub fn reasons(&self) -> Vec<(&'static str, String)> {
        let reasons = self.0.read().unwrap_or_else(PoisonError::into_inner);
        reasons
            .iter()
            .map(|(name, text)| (*name, text.clone()))
            .collect()
    }
}

/// What `/v1/connect` answers now. The node sets it, again whenever the certificate is renewed. Clones are one handle.
#[derive(Debug, Clone, Default)]
pub struct Connect(Arc<RwLock<Arc<ConnectInfo>>>);

impl Connect {
    /// Replaces the answer.
    pub fn set(&self, info: ConnectInfo) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(info);
    }

    /// The answer now.
    pub fn get(&self) -> Arc<ConnectInfo> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Where a client finds the carriers; the answer of `GET /v1/connect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConnectInfo {
    /// The WebTransport listener, when there is one.
    pub webtransport: Option<WebTransportInfo>,
    /// The path of the native WebSocket, relative to this server.
    pub websocket: String,
    /// The version of the server.
    pub version: String,
}

impl Default for ConnectInfo {
    fn default() -> Self {
        Self {
            webtransport: None,
            websocket: "/ws".into(),
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }
}

/// How to reach the WebTransport listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WebTransportInfo {
    /// `https://HOST:PORT/`.
    pub url: String,
    /// base64 of the SHA-256 of the certificate's DER, for `serverCertificateHashes`; empty when the certificate is one
    /// that browsers trust by themselves.
    pub certificate_hashes: Vec<String>,
}
