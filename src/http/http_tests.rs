//! The HTTP face over real sockets: routes, guard, headers, upgrades, the cap, deadlines and the stop.

use std::sync::Mutex;

use tokio::io::{AsyncBufReadExt, BufReader};

use super::*;
use crate::http::{
    Connect, ConnectInfo, Readiness, RefusedUpgrade, Route, Upgrade, Upgrades, WebTransportInfo,
};
use crate::telemetry::Metrics;

/// Records what it is handed, and echoes what the upgraded connection sends.
#[derive(Debug, Default)]
struct Recorder {
    seen: Mutex<Vec<(Route, Option<String>)>>,
    scope: Scope,
}

impl Upgrades for Recorder {
    fn upgrade(&self, upgrade: Upgrade) -> Result<hyper::Response<()>, RefusedUpgrade> {
        let mut request = upgrade.request;
        if !request.headers().contains_key("upgrade") {
            return Err(RefusedUpgrade::NotWebSocket);
        }
        assert!(upgrade.peer.ip().is_loopback());
        let query = request.uri().query().map(str::to_owned);
        self.seen.lock().unwrap().push((upgrade.route, query));
        let upgraded = hyper::upgrade::on(&mut request);
        self.scope.spawn(async move {
            let mut stream = TokioIo::new(upgraded.await.unwrap());
            let mut bytes = [0; 4];
            while stream.read_exact(&mut bytes).await.is_ok() {
                stream.write_all(&bytes).await.unwrap();
            }
        });
        let response = hyper::Response::builder()
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", "websocket");
        Ok(response.body(()).unwrap())
    }
}

struct Running {
    address: SocketAddr,
    state: State,
    upgrades: Arc<Recorder>,
    scope: Scope,
}

async fn start_with(config: Config) -> Running {
    let upgrades = Arc::new(Recorder::default());
    let state = State {
        metrics: Arc::new(Metrics::new()),
        readiness: Readiness::starting(),
        connect: Connect::default(),
        upgrades: upgrades.clone(),
    };
    let scope = Scope::new();
    let server = Server::bind(&config, auth::Mode::Development, None)
        .await
        .unwrap();
    let address = server.address();
    server.serve(state.clone(), &scope);
    Running {
        address,
        state,
        upgrades,
        scope,
    }
}

fn free_port() -> Config {
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        ..Config::default()
    }
}

async fn start() -> Running {
    start_with(free_port()).await
}

/// One answer, lower-cased head and body apart.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends a request with these further headers, reads until the server closes.
    async fn ask(&self, request_line: &str, headers: &str) -> Answer {
        let mut stream = self.connect().await;
        let request = format!("{request_line} HTTP/1.1\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        read_answer(stream).await
    }

    /// The same with `Host: localhost`.
    async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), "host: localhost\r\n")
            .await
    }
}

async fn read_answer(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head[9..12].parse().unwrap(),
        head: head.to_ascii_lowercase(),
        body: body.into(),
    }
}

#[tokio::test]
async fn health_readiness_and_metrics() {
    let server = start().await;
    let health = server.ask("GET /healthz", "host: 10.0.0.7:8080\r\n").await;
    assert_eq!((health.status, &*health.body), (200, "ok\n"));

    let starting = server.get("/readyz").await;
    assert_eq!(starting.status, 503);
    assert_eq!(starting.body, "starting: the node is starting\n");
    server.state.readiness.clear("starting");
    assert_eq!(server.get("/readyz").await.status, 200);
    server
        .state
        .readiness
        .block("store", "the store does not answer");
    assert!(
        server
            .get("/readyz")
            .await
            .body
            .contains("the store does not answer")
    );

    server.state.metrics.joins.inc();
    let metrics = server.get("/metrics").await;
    assert!(
        metrics.head.contains("application/openmetrics-text"),
        "{}",
        metrics.head
    );
    assert!(metrics.body.contains("syncline_room_joins_total 1\n"));
    assert!(metrics.body.contains("syncline_http_connections 1\n"));
    assert!(server.state.metrics.http_requests.get(["2xx"]) >= 2);
}

#[tokio::test]
async fn connect_tells_where_and_follows_the_certificate() {
    let server = start().await;
    let answer = server.get("/v1/connect").await;
    assert!(
        answer.head.contains("cache-control: no-store"),
        "{}",
        answer.head
    );
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(r#"{{"webtransport":null,"websocket":"/ws","version":"{version}"}}"#);
    assert_eq!(answer.body, expected);

    server.state.connect.set(ConnectInfo {
        webtransport: Some(WebTransportInfo {
            url: "https://127.0.0.1:4433/".into(),
            certificate_hashes: vec!["aGFzaA==".into()],
        }),
        ..ConnectInfo::default()
    });
    let answer = server.get("/v1/connect").await;
    assert!(
        answer.body.contains(
            r#""webtransport":{"url":"https://127.0.0.1:4433/","certificateHashes":["aGFzaA=="]}"#
        ),
        "{}",
        answer.body
    );
}

#[tokio::test]
async fn foreign_names_are_refused_everywhere_but_at_health() {
    let server = start().await;
    for path in [
        "/",
        "/readyz",
        "/metrics",
        "/v1/connect",
        "/ws",
        "/yjs/a",
        "/nothing",
    ] {
        let rebound = server
            .ask(&format!("GET {path}"), "host: evil.com\r\n")
            .await;
        assert_eq!(rebound.status, 421, "{path}");
        let cross = "host: localhost\r\norigin: http://evil.com\r\n";
        assert_eq!(
            server.ask(&format!("GET {path}"), cross).await.status,
            403,
            "{path}"
        );
    }
    let no_host = server.ask("GET /metrics", "").await;
    assert_eq!(no_host.status, 400);
    let absolute = server
        .ask("GET http://evil.com/metrics", "host: localhost\r\n")
        .await;
    assert_eq!(absolute.status, 421);
    assert!(server.upgrades.seen.lock().unwrap().is_empty());
    assert!(
        server
            .state
            .metrics
            .handshakes_refused
            .get(["foreign_host"])
            >= 7
    );
    assert!(
        server
            .state
            .metrics
            .handshakes_refused
            .get(["foreign_origin"])
            >= 7
    );
}

#[tokio::test]
async fn pages_of_another_loopback_port_may_read_the_api() {
    let server = start().await;
    let headers = "host: localhost:8080\r\norigin: http://localhost:5173\r\n";
    for path in ["/v1/connect", "/healthz", "/readyz"] {
        let answer = server.ask(&format!("GET {path}"), headers).await;
        assert!(
            answer
                .head
                .contains("access-control-allow-origin: http://localhost:5173"),
            "{}",
            answer.head
        );
        assert!(answer.head.contains("vary: origin"), "{}", answer.head);
    }
    let page = server.ask("GET /", headers).await;
    assert!(!page.head.contains("access-control"), "{}", page.head);
    let preflight = server
        .ask(
            "OPTIONS /v1/connect",
            &format!("{headers}access-control-request-method: GET\r\n"),
        )
        .await;
    assert_eq!(preflight.status, 204);
    assert!(
        preflight
            .head
            .contains("access-control-allow-methods: get, post")
    );
    let foreign = server
        .ask(
            "GET /healthz",
            "host: localhost\r\norigin: http://evil.com\r\n",
        )
        .await;
    assert_eq!(foreign.status, 200);
    assert!(!foreign.head.contains("access-control"), "{}", foreign.head);
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let server = start().await;
    for path in ["/", "/v1/connect", "/v1/nothing", "/healthz"] {
        let answer = server.get(path).await;
        for header in [
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "referrer-policy: no-referrer",
            "content-security-policy: default-src 'self'",
            "connect-src 'self' ws: wss: https://127.0.0.1:*",
        ] {
            assert!(answer.head.contains(header), "{path}: {}", answer.head);
        }
    }
}

#[tokio::test]
async fn unknown_paths_and_methods() {
    let server = start().await;
    let host = "host: localhost\r\n";
    assert_eq!(server.get("/v1/nothing").await.status, 404);
    assert_eq!(server.get("/nothing.js").await.status, 404);
    assert_eq!(server.ask("POST /v1/connect", host).await.status, 405);
    assert_eq!(server.ask("DELETE /anything", host).await.status, 405);
    let head = server.ask("HEAD /healthz", host).await;
    assert_eq!((head.status, &*head.body), (200, ""));
    let page = server
        .ask("GET /notes/today", &format!("{host}accept: text/html\r\n"))
        .await;
    assert_eq!(page.status, 200);
    assert!(
        page.head.contains("content-type: text/html; charset=utf-8"),
        "{}",
        page.head
    );
}

/// Upgrades, and returns the connection once the server said 101.
async fn upgraded(server: &Running, target: &str) -> BufReader<TcpStream> {
    let mut stream = BufReader::new(server.connect().await);
    let request = format!(
        "GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut status = String::new();
    stream.read_line(&mut status).await.unwrap();
    assert!(status.contains(" 101 "), "{status}");
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).await.unwrap();
    }
    stream
}

#[tokio::test]
async fn an_upgrade_is_handed_over_as_it_came() {
    let server = start().await;
    let mut first = upgraded(&server, "/ws").await;
    let _second = upgraded(&server, "/yjs/a%2Fb/100%?token=x%20y").await;
    assert_eq!(
        *server.upgrades.seen.lock().unwrap(),
        [
            (Route::Native, None),
            (
                Route::Yjs {
                    document: "a%2Fb/100%".into()
                },
                Some("token=x%20y".into())
            ),
        ]
    );
    first.write_all(b"ping").await.unwrap();
    let mut echo = [0; 4];
    first.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"ping");

    let plain = server.get("/ws").await;
    assert_eq!(plain.status, 426);
    assert!(plain.head.contains("upgrade: websocket"), "{}", plain.head);
    assert_eq!(
        server
            .state
            .metrics
            .handshakes_refused
            .get(["not_websocket"]),
        1
    );
}

#[tokio::test]
async fn one_connection_beyond_the_cap_is_told_and_upgraded_ones_count() {
    let server = start_with(Config {
        connections_max: 2,
        ..free_port()
    })
    .await;
    let held = upgraded(&server, "/ws").await;
    let _held = upgraded(&server, "/ws").await;
    let answer = server.get("/healthz").await;
    assert_eq!(answer.status, 503);
    assert!(answer.head.contains("retry-after: "), "{}", answer.head);
    assert!(
        answer.body.contains("too many connections"),
        "{}",
        answer.body
    );
    assert_eq!(server.state.metrics.http_refused.get(["too_many"]), 1);
    assert_eq!(server.state.metrics.http_connections.get(), 2);
    drop(held);
    // The place is free as soon as the server has seen the close; each try waits for a whole answer.
    while server.get("/healthz").await.status != 200 {}
}

#[tokio::test]
async fn a_client_that_sends_no_request_is_closed() {
    let server = start_with(Config {
        header_timeout: Duration::from_millis(50),
        ..free_port()
    })
    .await;
    let mut silent = server.connect().await;
    silent.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).await.unwrap();
}

#[tokio::test]
async fn a_stop_closes_idle_connections_and_leaves_upgraded_ones() {
    let server = start().await;
    let mut session = upgraded(&server, "/ws").await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();

    assert!(server.scope.stop(Duration::from_secs(5)).await);
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
    session.write_all(b"ping").await.unwrap();
    let mut echo = [0; 4];
    session.read_exact(&mut echo).await.unwrap();
}

#[tokio::test]
async fn a_bad_address_is_explained() {
    let server = start().await;
    let taken = Config {
        listen: server.address,
        ..Config::default()
    };
    let error = Server::bind(&taken, auth::Mode::Development, None)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("taken by another program; "),
        "{error}"
    );

    let exposed = Config {
        listen: "0.0.0.0:0".parse().unwrap(),
        ..Config::default()
    };
    let error = Server::bind(&exposed, auth::Mode::Development, None)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("bind a loopback address"),
        "{error}"
    );
}

/// A certificate for localhost and a client that trusts it.
fn tls_pair() -> (Arc<ServerConfig>, tokio_rustls::TlsConnector) {
    use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring::default_provider};

    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client).into())
}

#[tokio::test]
async fn with_tls_a_silent_handshake_ends_and_a_proper_one_is_served() {
    let (tls, connector) = tls_pair();
    let config = Config {
        handshake_timeout: Duration::from_millis(100),
        ..free_port()
    };
    let server = Server::bind(&config, auth::Mode::Development, Some(tls))
        .await
        .unwrap();
    assert_eq!(server.scheme(), "https");
    let address = server.address();
    let metrics = Arc::new(Metrics::new());
    let state = State {
        metrics: metrics.clone(),
        readiness: Readiness::default(),
        connect: Connect::default(),
        upgrades: Arc::new(Recorder::default()),
    };
    let scope = Scope::new();
    server.serve(state, &scope);

    let mut silent = TcpStream::connect(address).await.unwrap();
    assert_eq!(silent.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(metrics.http_refused.get(["tls_timeout"]), 1);

    let stream = TcpStream::connect(address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let mut stream = connector.connect(name, stream).await.unwrap();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut status = [0; 15];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200 OK");
}
