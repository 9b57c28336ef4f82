//! The accept loop: a cap on connections, deadlines, plain or TLS, and a graceful stop.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::Config;
use super::error::{RETRY_AFTER_S, TOO_MANY};
use super::router::{PeerAddress, router};
use super::socket::Socket;
use super::state::State;
use crate::auth;
use crate::shutdown::Scope;

/// The largest head of a request, in bytes. Room for a long token in the query.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// The most headers of a request. Browsers send about twenty.
const HEADERS_MAX: usize = 100;

/// How long the accept loop rests when the system has no more file descriptors; each try would fail at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many connections beyond the cap may be told so at one time; more are closed without a word.
const N_REFUSALS_MAX: usize = 64;

/// How long telling it may take.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the HTTP listener could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address is reachable by other machines, and there is no authentication.
    #[error("http: {0}")]
    Exposed(#[from] auth::ExposedError),
    /// Another program has the port.
    #[error(
        "http: {address} is taken by another program; stop it, or choose another address with --http"
    )]
    Taken {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// The system refused for another reason.
    #[error("http: cannot listen on {address}: {source}; choose another address with --http")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A bound listener that does not accept yet.
#[derive(Debug)]
pub struct Server {
    config: Config,
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
}

impl Server {
    /// Binds the configured address. With `tls`, every connection must speak TLS.
    pub async fn bind(
        config: &Config,
        mode: auth::Mode,
        tls: Option<Arc<ServerConfig>>,
    ) -> Result<Self, BindError> {
        let address = config.listen;
        auth::check_listen(mode, address)?;
        let refused = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::Taken { address },
            _ => BindError::Listen { address, source },
        };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener
            .local_addr()
            .map_err(|source| BindError::Listen { address, source })?;
        Ok(Self {
            config: config.clone(),
            listener,
            address,
            tls,
        })
    }

    /// The address that was bound, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Accepts until the scope stops. Then no connection is accepted, requests under way are answered, and the tasks
    /// end; upgraded connections belong to whoever took them.
    pub fn serve(self, state: State, scope: &Scope) {
        let connections = Arc::new(Connections {
            places: Arc::new(Semaphore::new(self.config.connections_max)),
            refusals: Arc::new(Semaphore::new(N_REFUSALS_MAX)),
            router: router(state.clone()),
            http1: http1_builder(&self.config),
            config: self.config,
            tls: self.tls.map(TlsAcceptor::from),
            state,
            scope: scope.clone(),
        });
        scope.spawn(accept_loop(self.listener, connections));
    }
}

fn http1_builder(config: &Config) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    builder
}

/// What every connection needs.
struct Connections {
    config: Config,
    /// One permit an open connection.
    places: Arc<Semaphore>,
    /// One permit a connection that is being told that there is no place.
    refusals: Arc<Semaphore>,
    router: Router,
    http1: http1::Builder,
    tls: Option<TlsAcceptor>,
    state: State,
    scope: Scope,
}

async fn accept_loop(listener: TcpListener, connections: Arc<Connections>) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = connections.scope.stopping() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => connections.start(stream, peer),
            // The client went away between its SYN and our accept.
            Err(error) if is_of_the_peer(&error) => tracing::debug!(%error, "accept a connection"),
            Err(error) => {
                tracing::warn!(%error, "accept a connection; raise the limit on open files if this repeats");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

impl Connections {
    fn start(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let Ok(permit) = self.places.clone().try_acquire_owned() else {
            self.refuse(stream);
            return;
        };
        // Edits are small and should not wait for company.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "set TCP_NODELAY");
        }
        let place = (permit, self.state.metrics.http_connections.hold());
        let socket = Socket::new(stream, self.config.write_timeout, place);
        let this = self.clone();
        self.scope.spawn(async move {
            match &this.tls {
                // The place is taken during the handshake too: a silent client holds it until the deadline.
                Some(acceptor) => this.serve_tls(acceptor, socket, peer).await,
                None => this.serve_http(socket, peer).await,
            }
        });
    }

    async fn serve_tls(&self, acceptor: &TlsAcceptor, socket: Socket<TcpStream>, peer: SocketAddr) {
        let done = tokio::select! {
            biased;
            () = self.scope.stopping() => return,
            done = timeout(self.config.handshake_timeout, acceptor.accept(socket)) => done,
        };
        match done {
            Ok(Ok(stream)) => self.serve_http(stream, peer).await,
            Ok(Err(error)) => {
                self.state.metrics.http_refused.inc(["tls_failed"]);
                tracing::debug!(%peer, %error, "complete a TLS handshake");
            }
            Err(_elapsed) => self.state.metrics.http_refused.inc(["tls_timeout"]),
        }
    }

    /// Serves requests until either side closes, the connection is upgraded, or the scope stops.
    async fn serve_http<S>(&self, stream: S, peer: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = TowerToHyperService::new(self.router.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(PeerAddress(peer));
            router.call(request)
        });
        let connection = self
            .http1
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = self.scope.stopping() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            // Resets and timeouts: news to nobody.
            tracing::debug!(%peer, %error, "serve a connection");
        }
    }

    /// Says 503 to a connection beyond the cap. With TLS it is closed without a word: a handshake is what we cannot
    /// afford now.
    fn refuse(&self, mut stream: TcpStream) {
        self.state.metrics.http_refused.inc(["too_many"]);
        if self.tls.is_some() {
            return;
        }
        let Ok(permit) = self.refusals.clone().try_acquire_owned() else {
            return;
        };
        self.scope.spawn(async move {
            let answer = format!(
                "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\n\
                 content-length: {}\r\nretry-after: {RETRY_AFTER_S}\r\nconnection: close\r\n\r\n{TOO_MANY}\n",
                TOO_MANY.len() + 1,
            );
            let tell = async {
                stream.write_all(answer.as_bytes()).await?;
                stream.shutdown().await?;
                // Closing with the request unread would reset the connection before the answer is read.
                let mut request = [0; 1024];
                while stream.read(&mut request).await? > 0 {}
                io::Result::Ok(())
            };
            if !matches!(timeout(REFUSAL_TIMEOUT, tell).await, Ok(Ok(()))) {
                tracing::debug!("a connection beyond the cap did not read its refusal");
            }
            drop(permit);
        });
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
