//! WebSocket: the carrier for networks without UDP, and the one that other servers' clients speak.
//!
//! The upgrade is checked by hand on a `hyper` request, since the dialects need what ready-made extractors hide: the
//! offered subprotocols, the raw path, refusals with our own texts. Afterwards one task reads the socket into the
//! session's queue, and writers share the write half: a WebSocket is one stream, so what one channel writes waits for what
//! another is writing, by 256 KiB at most.
//!
//! Ping and pong frames are answered by `tungstenite` and count as nothing. Compression is not offered.

use std::net::SocketAddr;

use hyper::header::{
    CONNECTION, HOST, HeaderMap, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::dial::{DialError, Options as DialOptions, Url};
use super::{Carrier, End, Link, Peer, Sender, SenderKind};
use crate::protocol::frame::{Caps, FRAGMENT_BYTES_MAX};
use crate::shutdown::Scope;

mod link;

pub(super) use link::LinkSender;

/// What is read from the socket at once. Small, since it is held for every idle client.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// What is gathered before the socket is written without a flush.
const WRITE_BUFFER_BYTES: usize = 128 * 1024;

/// A fragment with its type, its flag and the channel number.
const MULTIPLEXED_BYTES_MAX: usize = FRAGMENT_BYTES_MAX + 32;

/// What lies around the content of a y-protocols message: a document name of an envelope, types and lengths.
const ENVELOPE_BYTES_MAX: usize = 4 * 1024;

/// How frames lie in WebSocket messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// The native protocol: `varUint channel`, then one message or fragment. The limits of the message types hold.
    Multiplexed,
    /// Other servers' protocols: each message is one frame of channel 1, of at most 64 MiB (an initial sync is one
    /// message). Its content is the dialect's to judge.
    Single,
}

impl Framing {
    /// The largest WebSocket message that an end accepts. It is refused as soon as its length is known.
    fn message_bytes_max(self, end: End) -> usize {
        match (self, end) {
            (Self::Multiplexed, _) => MULTIPLEXED_BYTES_MAX,
            (Self::Single, End::Server) => Caps::TO_SERVER.sync + ENVELOPE_BYTES_MAX,
            (Self::Single, End::Client) => Caps::TO_CLIENT.sync,
        }
    }
}

/// Why a request is no WebSocket handshake. The text may be shown to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    /// Not a GET.
    #[error("a WebSocket handshake is a GET request")]
    Method,
    /// `Upgrade: websocket` or `Connection: upgrade` is missing.
    #[error("this address speaks WebSocket: connect with a WebSocket client")]
    NotWebSocket,
    /// Another version than 13.
    #[error("only WebSocket version 13 is supported")]
    Version,
    /// `Sec-WebSocket-Key` is missing or is not 16 bytes in base64.
    #[error("the Sec-WebSocket-Key header is missing or malformed")]
    Key,
    /// The connection cannot be taken over (HTTP/2, or a proxy in the process).
    #[error("this connection cannot be upgraded")]
    NotUpgradable,
}

impl UpgradeError {
    /// The HTTP status of the refusal. With [`UpgradeError::Version`] and [`UpgradeError::NotWebSocket`] send
    /// [`UpgradeError::headers`] too.
    pub const fn status(self) -> u16 {
        match self {
            Self::Method => 405,
            Self::NotWebSocket | Self::Version => 426,
            Self::Key | Self::NotUpgradable => 400,
        }
    }

    /// The headers that belong to the refusal: `(name, value)`.
    pub const fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Method => &[("allow", "GET")],
            Self::NotWebSocket | Self::Version => {
                &[("upgrade", "websocket"), ("sec-websocket-version", "13")]
            }
            Self::Key | Self::NotUpgradable => &[],
        }
    }
}

/// A checked handshake. Answer it with [`Handshake::accept`], or refuse it (wrong origin, no right) with a response of
/// your own.
#[derive(Debug)]
pub struct Handshake {
    /// Who the client says it is.
    pub peer: Peer,
    /// The subprotocols that the client offers, in its order. A token may be among them: never log them.
    pub subprotocols: Vec<String>,
    accept_key: String,
    on_upgrade: OnUpgrade,
}

/// An answered handshake: becomes a link once the response has gone out.
#[derive(Debug)]
pub struct Upgrade {
    peer: Peer,
    framing: Framing,
    on_upgrade: OnUpgrade,
}

/// The connection ended before the response had gone out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the connection ended during the WebSocket handshake: {detail}")]
pub struct LostError {
    detail: String,
}

/// Checks that a request is a WebSocket handshake. `address` is the client's.
///
/// # Errors
/// See [`UpgradeError`].
pub fn handshake<B>(
    request: &mut Request<B>,
    address: SocketAddr,
) -> Result<Handshake, UpgradeError> {
    if request.method() != Method::GET {
        return Err(UpgradeError::Method);
    }
    let headers = request.headers();
    if !has_token(headers, UPGRADE, "websocket") || !has_token(headers, CONNECTION, "upgrade") {
        return Err(UpgradeError::NotWebSocket);
    }
    if headers
        .get(SEC_WEBSOCKET_VERSION)
        .map(HeaderValue::as_bytes)
        != Some(b"13")
    {
        return Err(UpgradeError::Version);
    }
    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .filter(|key| is_key(key.as_bytes()))
        .ok_or(UpgradeError::Key)?;
    let accept_key = derive_accept_key(key.as_bytes());
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let peer = Peer {
        carrier: Carrier::WebSocket,
        address,
        origin: headers.get(ORIGIN).and_then(text),
        host: headers.get(HOST).and_then(text),
        path: request.uri().path().to_owned(),
        query: request.uri().query().map(str::to_owned),
    };
    let subprotocols = tokens(headers, SEC_WEBSOCKET_PROTOCOL)
        .map(str::to_owned)
        .collect();
    let on_upgrade = request
        .extensions_mut()
        .remove::<OnUpgrade>()
        .ok_or(UpgradeError::NotUpgradable)?;
    Ok(Handshake {
        peer,
        subprotocols,
        accept_key,
        on_upgrade,
    })
}

impl Handshake {
    /// The `101` response to send, and what becomes the link when it has gone out. `subprotocol` is echoed; it should be
    /// one of those offered (browsers abort otherwise, and also when they offered some and none is echoed).
    pub fn accept(self, framing: Framing, subprotocol: Option<&str>) -> (Response<()>, Upgrade) {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        let accept_key = HeaderValue::try_from(self.accept_key).expect("base64 is header text");
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept_key);
        // What a client offered came in as header text, so only a caller's own invention can be left out here.
        if let Some(Ok(value)) = subprotocol.map(HeaderValue::from_str) {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, value);
        }
        let upgrade = Upgrade {
            peer: self.peer,
            framing,
            on_upgrade: self.on_upgrade,
        };
        (response, upgrade)
    }
}

impl Upgrade {
    /// Waits until the response has gone out and gives the link. Its task runs in `scope`.
    ///
    /// # Errors
    /// [`LostError`] when the connection ended first.
    pub async fn link(self, scope: &Scope) -> Result<Link, LostError> {
        let upgraded = self.on_upgrade.await.map_err(|error| LostError {
            detail: error.to_string(),
        })?;
        let io: Io = Box::new(TokioIo::new(upgraded));
        let config = config(self.framing, End::Server);
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        let (receiver, sender) = link::start(socket, self.framing, End::Server, scope);
        Ok(Link {
            receiver,
            sender: Sender {
                kind: SenderKind::WebSocket(sender),
            },
            peer: self.peer,
        })
    }
}

/// Bytes both ways. Boxed, since the server's comes boxed from `hyper` and the client's is a test's.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

type Io = Box<dyn Duplex>;

fn config(framing: Framing, end: End) -> WebSocketConfig {
    let bytes_max = framing.message_bytes_max(end);
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(Some(bytes_max))
        .max_frame_size(Some(bytes_max))
}

/// The comma-separated values of a header that may come in several lines.
fn tokens(headers: &HeaderMap, name: hyper::header::HeaderName) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

fn has_token(headers: &HeaderMap, name: hyper::header::HeaderName, wanted: &str) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted))
}

/// Whether it is the base64 of 16 bytes: 22 digits and two paddings.
fn is_key(key: &[u8]) -> bool {
    let Some((digits, b"==")) = key.split_last_chunk::<2>() else {
        return false;
    };
    digits.len() == 22
        && digits
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

/// The client's end.
pub(super) async fn connect(
    url: &Url,
    options: &DialOptions,
    scope: &Scope,
) -> Result<Link, DialError> {
    let failed = |error: &dyn std::fmt::Display| DialError::Connect {
        detail: error.to_string(),
    };
    let mut request = url
        .text
        .as_str()
        .into_client_request()
        .map_err(|error| failed(&error))?;
    let mut header = |name, value: &str| {
        let value = HeaderValue::from_str(value).map_err(|error| failed(&error))?;
        request.headers_mut().insert(name, value);
        Ok(())
    };
    if let Some(origin) = &options.origin {
        header(ORIGIN, origin)?;
    }
    if !options.subprotocols.is_empty() {
        header(SEC_WEBSOCKET_PROTOCOL, &options.subprotocols.join(", "))?;
    }
    let config = config(options.framing, End::Client);
    let opening = async {
        let stream = TcpStream::connect(url.authority())
            .await
            .map_err(|error| failed(&error))?;
        stream.set_nodelay(true).map_err(|error| failed(&error))?;
        let address = stream.peer_addr().map_err(|error| failed(&error))?;
        let io: Io = Box::new(stream);
        let opened = tokio_tungstenite::client_async_with_config(request, io, Some(config)).await;
        match opened {
            Ok((socket, _)) => Ok((socket, address)),
            Err(tungstenite::Error::Http(response)) => Err(DialError::Refused {
                status: Some(response.status().as_u16()),
                detail: response.status().to_string(),
            }),
            Err(error) => Err(failed(&error)),
        }
    };
    let (socket, address) = timeout(options.timeout, opening)
        .await
        .map_err(|_| DialError::TimedOut)??;
    let (receiver, sender) = link::start(socket, options.framing, End::Client, scope);
    Ok(Link {
        receiver,
        sender: Sender {
            kind: SenderKind::WebSocket(sender),
        },
        peer: Peer {
            carrier: Carrier::WebSocket,
            address,
            origin: None,
            host: Some(url.authority()),
            path: url.path.clone(),
            query: url.query.clone(),
        },
    })
}
