//! Pairs of links over real loopback sockets (and memory), for the tests of this folder.

use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::keys::Keys;
use super::tls::{self, Tls};
use super::websocket::{self, Framing};
use super::webtransport::{self, Listener};
use super::{Link, Received, Receiver, Writer, dial, memory};
use crate::clock;
use crate::shutdown::Scope;

/// No test waits this long when it passes.
const PATIENCE: Duration = Duration::from_secs(20);

/// The first frame of every pair, a PING.
pub(super) const FIRST: &[u8] = &[4, 0, 0, 0, 0, 0, 0, 0, 0];

/// Fails instead of hanging.
pub(super) async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it comes soon")
}

/// A message of a type with `n_bytes` of content, numbered.
pub(super) fn message(kind: u8, number: u8, n_bytes: usize) -> Bytes {
    let mut bytes = vec![number; n_bytes + 1];
    bytes[0] = kind;
    bytes.into()
}

/// The next frame; panics on anything else.
pub(super) async fn frame(receiver: &mut Receiver) -> (u32, Bytes) {
    match soon(receiver.recv()).await.unwrap() {
        Some(Received::Frame { channel, bytes }) => (channel, bytes),
        other => panic!("not a frame: {other:?}"),
    }
}

/// The next frame of any channel, past ends of others; `None` when the link is over.
pub(super) async fn frame_or_end(receiver: &mut Receiver) -> Option<(u32, Bytes)> {
    loop {
        match soon(receiver.recv()).await.unwrap() {
            Some(Received::Frame { channel, bytes }) => return Some((channel, bytes)),
            Some(Received::Ended { .. }) => {}
            Some(other) => panic!("not a frame: {other:?}"),
            None => return None,
        }
    }
}

/// Two ends whose control channel is open: the client's first frame was written and read.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) server: Link,
    pub(super) client: Link,
    pub(super) client_control: Writer,
    _guard: Option<Server>,
}

async fn pair(mut server: Link, client: Link, control: Writer, guard: Option<Server>) -> Pair {
    assert_eq!(
        frame(&mut server.receiver).await,
        (0, Bytes::from_static(FIRST))
    );
    Pair {
        server,
        client,
        client_control: control,
        _guard: guard,
    }
}

async fn open_control(client: &Link) -> Writer {
    let mut control = client.sender.open(0).await.unwrap();
    control.write(&[Bytes::from_static(FIRST)]).await.unwrap();
    control
}

pub(super) async fn memory_pair() -> Pair {
    let (server, client) = memory::pair();
    let control = open_control(&client).await;
    pair(server, client, control, None).await
}

/// A WebTransport or WebSocket server; what it needs lives as long as it.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) scope: Scope,
    pub(super) url: String,
    pub(super) tls: Option<Tls>,
    _data: Option<TempDir>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.scope.request_stop();
    }
}

pub(super) fn now_s() -> u64 {
    clock::unix_millis() / 1000
}

/// A configuration for tests: any port, small buffers (a clamp by the kernel would be a WARN).
pub(super) fn config() -> webtransport::Config {
    webtransport::Config {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        udp_buffer_bytes: 64 * 1024,
        ..webtransport::Config::default()
    }
}

pub(super) fn webtransport_server(config: &webtransport::Config) -> (Listener, Server) {
    let data = tempfile::tempdir().unwrap();
    // Made twelve days ago: one day is left, less an hour.
    let tls = Tls::load(&tls::Config::default(), data.path(), now_s() - 12 * 86_400).unwrap();
    let keys = Keys::load_or_create(&data.path().join("keys")).unwrap();
    let scope = Scope::new();
    let listener = Listener::bind(config, &tls, &keys, &scope).unwrap();
    let server = Server {
        scope,
        url: format!("https://{}/", listener.local_address()),
        tls: Some(tls),
        _data: Some(data),
    };
    (listener, server)
}

/// A client of that server whose control channel is open.
pub(super) async fn webtransport_client(
    server: &Server,
    options: &dial::Options,
) -> Result<(Link, Writer), dial::DialError> {
    let hash = server.tls.as_ref().unwrap().hash();
    let client = dial::webtransport(&server.url, hash, options, &server.scope).await?;
    let control = open_control(&client).await;
    Ok((client, control))
}

pub(super) async fn webtransport_pair_with(config: &webtransport::Config) -> Pair {
    let (mut listener, server) = webtransport_server(config);
    let options = dial::Options::default();
    let (accepted, dialled) = soon(async {
        tokio::join!(
            async { listener.accept().await.unwrap().accept().await.unwrap() },
            webtransport_client(&server, &options),
        )
    })
    .await;
    let (client, control) = dialled.unwrap();
    pair(accepted, client, control, Some(server)).await
}

pub(super) async fn webtransport_pair() -> Pair {
    webtransport_pair_with(&config()).await
}

/// An HTTP server that upgrades everything, echoing the first subprotocol offered.
pub(super) async fn websocket_server(framing: Framing) -> (mpsc::Receiver<Link>, Server) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let scope = Scope::new();
    let (sender, links) = mpsc::channel(4);
    let accept_scope = scope.clone();
    scope.spawn(async move {
        loop {
            let (stream, peer) = tokio::select! {
                accepted = listener.accept() => accepted.unwrap(),
                () = accept_scope.stopping() => return,
            };
            stream.set_nodelay(true).unwrap();
            let (sender, scope) = (sender.clone(), accept_scope.clone());
            let service = service_fn(move |mut request: Request<Incoming>| {
                let (sender, scope) = (sender.clone(), scope.clone());
                async move {
                    let handshake = match websocket::handshake(&mut request, peer) {
                        Ok(handshake) => handshake,
                        Err(error) => {
                            let refusal = Response::builder().status(error.status());
                            return Ok::<_, Infallible>(refusal.body(error.to_string()).unwrap());
                        }
                    };
                    let subprotocol = handshake.subprotocols.first().cloned();
                    let (response, upgrade) = handshake.accept(framing, subprotocol.as_deref());
                    let link_scope = scope.clone();
                    scope.spawn(async move {
                        let link = upgrade.link(&link_scope).await.unwrap();
                        sender.send(link).await.unwrap();
                    });
                    Ok(response.map(|()| String::new()))
                }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            accept_scope.spawn(connection);
        }
    });
    let server = Server {
        scope,
        url: format!("ws://{address}/ws?a=b"),
        tls: None,
        _data: None,
    };
    (links, server)
}

pub(super) async fn websocket_pair() -> Pair {
    let (mut links, server) = websocket_server(Framing::Multiplexed).await;
    let client = dial::websocket(&server.url, &dial::Options::default(), &server.scope)
        .await
        .unwrap();
    let control = open_control(&client).await;
    let accepted = soon(links.recv()).await.unwrap();
    pair(accepted, client, control, Some(server)).await
}
