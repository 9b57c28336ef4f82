//! WebTransport: our own QUIC endpoint, sessions by `wtransport`, one QUIC connection per session.
//!
//! This file is the front door: it bounds what strangers may hold (handshakes under way, time to finish them), sends QUIC
//! Retry when many are half-open, and yields the requests that may become links. What a link does afterwards is in
//! `webtransport/link.rs`.
//!
//! The page sees no HTTP status of a refusal, so a refusal here is for wrong paths, wrong origins and floods; everything
//! else is accepted and answered with ERROR on the control channel.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::timeout;
use wtransport::endpoint::{IncomingSessionFuture, SessionRequest};

use super::keys::Keys;
use super::tls::Tls;
use super::{Carrier, End, Link, Peer, udp};
use crate::shutdown::Scope;

mod client;
mod halves;
mod link;
mod streams;

pub(super) use client::connect;
pub(super) use link::LinkSender;

/// The one path that is served. A document is named in OPEN, never in the URL.
const PATH: &str = "/";

/// Requests that wait for the node to take them. When full, handshakes wait, and those that wait too long are dropped.
const REQUESTS_MAX: usize = 256;

/// Streams that carry no document: the CONNECT request and the control channel.
const N_STREAMS_RESERVED: u32 = 2;

/// Unidirectional streams of a peer: HTTP/3 control, the two of QPACK, and what browsers open to grease.
const N_UNI_STREAMS: u32 = 8;

/// The buffer of datagrams each way, in bytes. When it is full the oldest goes: presence is a hint.
const DATAGRAM_BUFFER_BYTES: usize = 64 * 1024;

/// Bytes of packets kept for all connection attempts that were not looked at yet.
const INCOMING_BUFFER_BYTES_MAX: u64 = 16 << 20;

/// Connection attempts that were not looked at yet. Above it, first packets are ignored without an answer.
const INCOMING_MAX: usize = 4_096;

/// How long the endpoint waits for its connections to drain when it stops.
const DRAIN_WAIT: Duration = Duration::from_secs(1);

/// The WebTransport listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The UDP address to listen on. Port 0 picks a free one.
    pub listen: SocketAddr,
    /// How long a client has from its first packet to its CONNECT request.
    #[serde(with = "crate::units::duration")]
    pub handshake_timeout: Duration,
    /// How long a client has from then to its control stream, and that any stream has to name its channel.
    #[serde(with = "crate::units::duration")]
    pub first_stream_timeout: Duration,
    /// The silence after which a connection is dropped. Keep-alives are sent at a third of it.
    #[serde(with = "crate::units::duration")]
    pub idle_timeout: Duration,
    /// Handshakes under way above which every new address must first prove itself (QUIC Retry: one round trip more).
    pub retry_above: usize,
    /// Handshakes under way above which new ones are refused.
    pub n_handshakes_max: usize,
    /// Bytes of the UDP socket's buffer each way. The kernel may give less; then one WARN says how to raise it.
    #[serde(with = "crate::units::size")]
    pub udp_buffer_bytes: usize,
    /// Bytes that a connection may hold of what was written and not yet acknowledged. With the session's outbox this
    /// bounds the memory of a slow reader; below 256 KiB it bounds the speed on long paths.
    #[serde(with = "crate::units::size")]
    pub send_window_bytes: u32,
    /// Bytes that a client may have in flight on one stream before the session reads them.
    #[serde(with = "crate::units::size")]
    pub stream_receive_window_bytes: u32,
    /// Bytes that a client may have in flight on all its streams.
    #[serde(with = "crate::units::size")]
    pub receive_window_bytes: u32,
    /// Streams that a client may have open at first. Each costs about 140 bytes whether used or not; the session raises it
    /// as documents open.
    pub n_streams_initial: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 4433)),
            handshake_timeout: Duration::from_secs(10),
            first_stream_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            retry_above: 500,
            n_handshakes_max: 4_096,
            udp_buffer_bytes: 8 << 20,
            send_window_bytes: 1 << 20,
            stream_receive_window_bytes: 256 << 10,
            receive_window_bytes: 2 << 20,
            n_streams_initial: 16,
        }
    }
}

/// Why the listener could not start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process has the port.
    #[error(
        "UDP {address} is taken by another process: stop it, or choose another address (--webtransport ADDR)"
    )]
    AddressInUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The system refused for another reason.
    #[error("cannot listen on UDP {address}: {source}")]
    Io {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A setting is out of the range that QUIC allows.
    #[error("webtransport.{setting} is out of range")]
    Setting {
        /// The setting.
        setting: &'static str,
    },
}

/// Why a request did not become a link. Nothing could be said to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// The client opened no control stream in time.
    #[error("the client opened no control stream in time")]
    NoControlStream,
    /// The connection ended before.
    #[error("the connection ended: {detail}")]
    Lost {
        /// How, for the log.
        detail: String,
    },
}

/// What a refused client is answered. Pages cannot see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 403: the origin may not.
    Forbidden,
    /// 404: there is nothing at that path.
    NotFound,
    /// 429: too many connections from there.
    TooMany,
}

/// A listening endpoint. Dropping it does not stop it: the scope does.
#[derive(Debug)]
pub struct Listener {
    requests: mpsc::Receiver<Request>,
    endpoint: quinn::Endpoint,
    address: SocketAddr,
}

impl Listener {
    /// Binds the socket and begins to take handshakes. Everything runs in `scope`; when it stops, the endpoint closes all
    /// its connections.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(config: &Config, tls: &Tls, keys: &Keys, scope: &Scope) -> Result<Self, BindError> {
        let address = config.listen;
        let io = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::AddressInUse { address },
            _ => BindError::Io { address, source },
        };
        let server = server_config(config, tls)?;
        let socket = udp::bind(address, config.udp_buffer_bytes).map_err(io)?;
        let endpoint = quinn::Endpoint::new(
            endpoint_config(keys),
            Some(server),
            socket,
            Arc::new(quinn::TokioRuntime),
        )
        .map_err(io)?;
        let address = endpoint.local_addr().map_err(io)?;
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let door = Door {
            endpoint: endpoint.clone(),
            requests: sender,
            config: Arc::new(config.clone()),
            half_open: HalfOpen::default(),
            scope: scope.clone(),
        };
        scope.spawn(door.run());
        Ok(Self {
            requests,
            endpoint,
            address,
        })
    }

    /// The address that it listens on.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Connections open now, in any state.
    pub fn n_connections(&self) -> usize {
        self.endpoint.open_connections()
    }

    /// The next client that has sent its CONNECT request; `None` when the scope has stopped. Wrong paths were refused.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn accept(&mut self) -> Option<Request> {
        self.requests.recv().await
    }
}

/// A client that asks for a session. Dropping it ends the connection without an answer.
pub struct Request {
    /// Who the client says it is. Check `origin` before accepting.
    pub peer: Peer,
    session: Box<SessionRequest>,
    config: Arc<Config>,
    scope: Scope,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Request {
    /// Accepts the session and waits for the client's control stream.
    ///
    /// # Errors
    /// See [`AcceptError`]; the connection is closed then.
    pub async fn accept(self) -> Result<Link, AcceptError> {
        let first_stream_wait = self.config.first_stream_timeout;
        // Boxed, like the other futures of a request: it holds the whole request, some 6 KiB.
        let accepted = timeout(first_stream_wait, Box::pin(self.session.accept()));
        let connection = accepted
            .await
            .map_err(|_| AcceptError::NoControlStream)?
            .map_err(|error| AcceptError::Lost {
                detail: error.to_string(),
            })?;
        let (receiver, sender) = link::start(
            connection,
            link::Options {
                end: End::Server,
                first_frame_wait: first_stream_wait,
                n_streams: self.config.n_streams_initial,
            },
            &self.scope,
        );
        match timeout(first_stream_wait, sender.control_opened()).await {
            Ok(true) => Ok(Link {
                receiver,
                sender: super::Sender {
                    kind: super::SenderKind::WebTransport(sender),
                },
                peer: self.peer,
            }),
            Ok(false) => Err(AcceptError::Lost {
                detail: "closed before the control stream".to_owned(),
            }),
            Err(_) => Err(AcceptError::NoControlStream),
        }
    }

    /// Answers with an HTTP status and ends the connection.
    pub async fn refuse(self, refusal: Refusal) {
        let answered = Box::pin(async {
            match refusal {
                Refusal::Forbidden => self.session.forbidden().await,
                Refusal::NotFound => self.session.not_found().await,
                Refusal::TooMany => self.session.too_many_requests().await,
            }
        });
        // A client that does not acknowledge its refusal is not waited for.
        let _ = timeout(super::CLOSE_WAIT, answered).await;
    }
}

/// Handshakes under way. A guard counts one.
#[derive(Debug, Clone, Default)]
struct HalfOpen(Arc<AtomicUsize>);

impl HalfOpen {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn begin(&self) -> HalfOpenGuard {
        self.0.fetch_add(1, Ordering::Relaxed);
        HalfOpenGuard(self.clone())
    }
}

#[derive(Debug)]
struct HalfOpenGuard(HalfOpen);

impl Drop for HalfOpenGuard {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The task that takes connection attempts.
struct Door {
    endpoint: quinn::Endpoint,
    requests: mpsc::Sender<Request>,
    config: Arc<Config>,
    half_open: HalfOpen,
    scope: Scope,
}

impl Door {
    async fn run(self) {
        loop {
            let incoming = tokio::select! {
                biased;
                () = self.scope.stopping() => break,
                incoming = self.endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else { break };
            let n_half_open = self.half_open.count();
            if n_half_open >= self.config.n_handshakes_max {
                incoming.refuse();
            } else if n_half_open >= self.config.retry_above && incoming.may_retry() {
                // It fails only for an attempt that was retried already, which `may_retry` excludes.
                let _ = incoming.retry();
            } else {
                self.begin(incoming);
            }
        }
        self.endpoint.close(quinn::VarInt::from_u32(0), b"");
        let _ = timeout(DRAIN_WAIT, self.endpoint.wait_idle()).await;
    }

    fn begin(&self, incoming: quinn::Incoming) {
        let guard = self.half_open.begin();
        let wait = self.config.handshake_timeout;
        let address = canonical(incoming.remote_address());
        let session = IncomingSessionFuture::with_quic_incoming(incoming);
        let (requests, config, scope) = (
            self.requests.clone(),
            self.config.clone(),
            self.scope.clone(),
        );
        self.scope.spawn(async move {
            let _guard = guard;
            let handshake = async {
                let session = session.await.map_err(|error| error.to_string())?;
                let request = Request {
                    peer: peer_of(&session, address),
                    session: Box::new(session),
                    config,
                    scope: scope.clone(),
                };
                if request.peer.path != PATH {
                    request.refuse(Refusal::NotFound).await;
                    return Err("wrong path".to_owned());
                }
                requests
                    .send(request)
                    .await
                    .map_err(|_| "not accepting".to_owned())
            };
            tokio::select! {
                () = scope.stopping() => {}
                ended = timeout(wait, handshake) => match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(reason)) => tracing::debug!(%address, reason, "handshake failed"),
                    Err(_) => tracing::debug!(%address, "handshake took too long"),
                },
            }
        });
    }
}

fn peer_of(session: &SessionRequest, address: SocketAddr) -> Peer {
    let (path, query) = match session.path().split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (session.path(), None),
    };
    Peer {
        carrier: Carrier::WebTransport,
        address,
        origin: session.origin().map(str::to_owned),
        host: Some(session.authority().to_owned()),
        path: path.to_owned(),
        query,
    }
}

/// An IPv4 client of a dual-stack socket shows as IPv4, so that limits by prefix see it as one.
fn canonical(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = address.ip().to_canonical();
    SocketAddr::new(ip, address.port())
}

fn endpoint_config(keys: &Keys) -> quinn::EndpointConfig {
    let reset = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, keys.stateless_reset());
    let mut config = quinn::EndpointConfig::new(Arc::new(reset));
    let id_key = keys.connection_id();
    config.cid_generator(move || {
        Box::new(quinn_proto::HashedConnectionIdGenerator::from_key(id_key))
    });
    config
}

fn server_config(config: &Config, tls: &Tls) -> Result<quinn::ServerConfig, BindError> {
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls.quic())
        .expect("ring has the cipher suite of QUIC's first packets");
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    server
        .transport_config(Arc::new(transport_config(config)?))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(u64::from(config.receive_window_bytes))
        .incoming_buffer_size_total(INCOMING_BUFFER_BYTES_MAX);
    Ok(server)
}

/// The transport parameters, for both ends (the client end of tests and the load test uses the defaults).
fn transport_config(config: &Config) -> Result<quinn::TransportConfig, BindError> {
    let idle = config.idle_timeout;
    let idle_timeout = quinn::IdleTimeout::try_from(idle).map_err(|_| BindError::Setting {
        setting: "idle_timeout",
    })?;
    if config.idle_timeout.is_zero() {
        return Err(BindError::Setting {
            setting: "idle_timeout",
        });
    }
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(config.n_streams_initial.into())
        .max_concurrent_uni_streams(N_UNI_STREAMS.into())
        .max_idle_timeout(Some(idle_timeout))
        .keep_alive_interval(Some(idle / 3))
        .stream_receive_window(config.stream_receive_window_bytes.into())
        .receive_window(config.receive_window_bytes.into())
        .send_window(config.send_window_bytes.into())
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES);
    Ok(transport)
}
