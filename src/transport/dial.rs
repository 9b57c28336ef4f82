//! The clients' ends of the carriers, for tests and the load test: the same [`Link`] as the server's, with the roles
//! turned round. A client opens its channels with [`super::Sender::open`], control first.

use std::time::Duration;

use hyper::Uri;

use super::tls::CertificateHash;
use super::{Link, websocket, webtransport};
use crate::shutdown::Scope;

/// Why a server could not be reached or would not have us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The URL is not of the kind that this carrier takes.
    #[error("{url:?} is not a URL of the form {wanted}")]
    Url {
        /// What was given.
        url: String,
        /// What it should look like.
        wanted: &'static str,
    },
    /// No connection came about.
    #[error("cannot connect: {detail}")]
    Connect {
        /// Why, for a person.
        detail: String,
    },
    /// The server answered and refused.
    #[error("the server refused: {detail}")]
    Refused {
        /// The HTTP status, where the carrier shows it.
        status: Option<u16>,
        /// What it said.
        detail: String,
    },
    /// Nothing came about in time.
    #[error("the server did not answer in time")]
    TimedOut,
}

/// How to dial.
#[derive(Debug, Clone)]
pub struct Options {
    /// The `Origin` to claim, as a page would.
    pub origin: Option<String>,
    /// The WebSocket subprotocols to offer, for example a token.
    pub subprotocols: Vec<String>,
    /// How frames lie in WebSocket messages.
    pub framing: websocket::Framing,
    /// How long the whole handshake may take.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            origin: None,
            subprotocols: Vec::new(),
            framing: websocket::Framing::Multiplexed,
            timeout: Duration::from_secs(10),
        }
    }
}

/// The parts of a URL.
#[derive(Debug, Clone)]
pub(super) struct Url {
    /// The whole.
    pub(super) text: String,
    /// Brackets of an IPv6 address included.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: String,
    pub(super) query: Option<String>,
}

impl Url {
    fn parse(text: &str, scheme: &str, wanted: &'static str) -> Result<Self, DialError> {
        let error = || DialError::Url {
            url: text.to_owned(),
            wanted,
        };
        let uri: Uri = text.parse().map_err(|_| error())?;
        if uri.scheme_str() != Some(scheme) {
            return Err(error());
        }
        Ok(Self {
            text: text.to_owned(),
            host: uri.host().ok_or_else(error)?.to_owned(),
            port: uri.port_u16().ok_or_else(error)?,
            path: uri.path().to_owned(),
            query: uri.query().map(str::to_owned),
        })
    }

    /// Host and port.
    pub(super) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// Connects over WebSocket to `ws://HOST:PORT/PATH`. The link's tasks run in `scope`.
///
/// # Errors
/// See [`DialError`].
pub async fn websocket(url: &str, options: &Options, scope: &Scope) -> Result<Link, DialError> {
    let url = Url::parse(url, "ws", "ws://HOST:PORT/PATH")?;
    websocket::connect(&url, options, scope).await
}

/// Connects over WebTransport to `https://HOST:PORT/`, whose certificate has this hash. The link's tasks run in `scope`.
///
/// # Errors
/// See [`DialError`].
pub async fn webtransport(
    url: &str,
    certificate: CertificateHash,
    options: &Options,
    scope: &Scope,
) -> Result<Link, DialError> {
    let url = Url::parse(url, "https", "https://HOST:PORT/")?;
    // Boxed, since a handshake of QUIC, TLS and HTTP/3 is a large future.
    Box::pin(webtransport::connect(&url, certificate, options, scope)).await
}
