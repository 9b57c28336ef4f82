//! The one assembly: build every part from the configuration, bind, run, stop in order.
//!
//! Start: data directory, store, journal and its replay, committer, rooms, sessions; then the listeners, so that whoever
//! connects finds a server that knows everything that anybody saw before. Stop, in the other order: no new connections;
//! sessions are told to go and may hear their last acknowledgements; rooms end; the committer is flushed; the store is
//! closed. What does not end in time is in the journal, and replayed at the next start.

use std::fs;
use std::future::Future;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tracing::{debug, info, warn};

use crate::auth::{self, Mode, host};
use crate::clock;
use crate::config::Config;
use crate::doc::worker::Pool;
use crate::http::{self, ConnectInfo, RefusedUpgrade, Route, Upgrade, WebTransportInfo};
use crate::ids::{NodeId, Origin};
use crate::room::{Parts, Registry, Workers};
use crate::session::{self, Context, Door, Present};
use crate::shutdown::Scope;
use crate::store::{self, Committer, DataDir, DocStore, Journal};
use crate::telemetry::Metrics;
use crate::transport::keys::{KeyError, Keys};
use crate::transport::tls::{CertificateHash, Tls, TlsError};
use crate::transport::websocket::{self, Framing};
use crate::transport::webtransport::{self, Listener, Refusal, Request};

/// How long each stage of stopping may take. The whole stays below the 10 s after which container runtimes kill.
const STOP_STAGE: Duration = Duration::from_secs(2);

/// How often gauges that nobody moves by hand are read.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// Why the node could not start. Each says what is wrong and how to mend it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] store::data_dir::DataDirError),
    /// The database.
    #[error(transparent)]
    Store(#[from] store::OpenError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] store::journal::OpenError),
    /// What the last run with a store in memory left behind cannot be removed.
    #[error(
        "the directory journal-memory in the data directory cannot be removed ({0}): remove it by hand"
    )]
    JournalOfMemory(io::Error),
    /// What the last incarnation left in the journal.
    #[error(transparent)]
    Replay(#[from] store::replay::ReplayError),
    /// The keys of the QUIC endpoint, or the node's id.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The node's id could not be kept.
    #[error("the file {path} cannot be read or written ({source}): give this user access to it")]
    NodeId {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A listener would be open to the network without authentication.
    #[error("webtransport: {0}")]
    Exposed(#[from] auth::ExposedError),
    /// The HTTP listener.
    #[error(transparent)]
    Http(#[from] http::BindError),
    /// The WebTransport listener.
    #[error("webtransport: {0}")]
    WebTransport(#[from] webtransport::BindError),
}

/// A running server.
#[derive(Debug)]
pub struct Node {
    config: Config,
    scopes: Scopes,
    readiness: http::Readiness,
    http_address: SocketAddr,
    http_scheme: &'static str,
    webtransport_address: SocketAddr,
    metrics: Arc<Metrics>,
    registry: Registry,
    tls: Tls,
    committer: Committer,
    store: Arc<dyn DocStore>,
    /// Held until everything else is gone.
    _data: DataDir,
}

/// The stages of stopping, in order.
#[derive(Debug, Default)]
struct Scopes {
    /// Listeners and HTTP requests.
    doors: Scope,
    /// Client sessions.
    sessions: Scope,
    /// Rooms.
    rooms: Scope,
    /// The committer, and the QUIC endpoint under the sessions.
    ground: Scope,
}

/// Runs a server until `stop` resolves, telling the person who started it where everything is.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), Error> {
    let node = Node::start(config).await?;
    node.announce();
    stop.await;
    info!("stopping");
    node.stop().await;
    info!("stopped");
    Ok(())
}

impl Node {
    /// Builds and binds everything. When it returns, every listener is up.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let mode = Mode::Development;
        let metrics = Arc::new(Metrics::new());
        let scopes = Scopes::default();
        let data = DataDir::open(&config.data)?;
        let tls = Tls::load(&config.tls, data.path(), clock::unix_millis() / 1_000)?;
        auth::check_listen(mode, config.webtransport.listen)?;
        let https = (!tls.is_development()).then(|| tls.https());
        let server = http::Server::bind(&config.http, mode, https).await?;
        let keys = Keys::load_or_create(&data.path().join("keys"))?;
        let listener = Listener::bind(&config.webtransport, &tls, &keys, &scopes.ground)?;

        let store = store::open(config.store.as_str()).await?;
        let origin = Origin::random();
        let journal_dir = if config.store.is_memory() {
            data.journal_of_memory().map_err(Error::JournalOfMemory)?
        } else {
            data.journal()
        };
        let (journal, left) = Journal::open(config.journal.clone(), &journal_dir, origin)?;
        let report = store::replay(&journal, left, &*store).await?;
        if report.n_rows > 0 {
            info!(
                rows = report.n_rows,
                "edits of the last run went from the journal into the store"
            );
        }
        let journal = Arc::new(journal);
        let committer = Committer::start(
            config.committer.clone(),
            store.clone(),
            Some(journal.clone()),
            metrics.clone(),
            &scopes.ground,
        );
        let workers = Pool::start(
            config.worker.clone(),
            data.quarantine(),
            metrics.clone(),
            &scopes.rooms,
        );
        let collector = Workers::new(workers, config.room.compaction.spare, metrics.clone());
        let registry = Registry::new(Parts {
            config: config.room.clone(),
            limits: config.document,
            store: store.clone(),
            journal,
            committer: committer.clone(),
            collector: Arc::new(collector),
            origin,
            metrics: metrics.clone(),
            scope: scopes.rooms.clone(),
        });
        let context = Arc::new(Context {
            config: config.session.clone(),
            registry: registry.clone(),
            auth: mode,
            node: node_id(data.path())?,
            metrics: metrics.clone(),
            scope: scopes.sessions.clone(),
            n_sessions: AtomicUsize::new(0),
            present: Present::default(),
        });

        let http_address = server.address();
        let http_scheme = server.scheme();
        let webtransport_address = listener.local_address();
        let readiness = http::Readiness::default();
        let connect = http::Connect::default();
        connect.set(connect_info(webtransport_address, &tls));
        let renewed = connect.clone();
        scopes
            .doors
            .spawn(tls.clone().keep_fresh(scopes.doors.clone(), move |tls| {
                renewed.set(connect_info(webtransport_address, tls));
            }));
        scopes
            .doors
            .spawn(welcome(listener, context.clone(), scopes.doors.clone()));
        scopes.doors.spawn(sample(
            metrics.clone(),
            committer.clone(),
            scopes.doors.clone(),
        ));
        let state = http::State {
            metrics: metrics.clone(),
            readiness: readiness.clone(),
            connect,
            upgrades: Arc::new(WebSockets {
                context,
                links: scopes.ground.clone(),
            }),
        };
        server.serve(state, &scopes.doors);
        Ok(Self {
            config,
            scopes,
            readiness,
            http_address,
            http_scheme,
            webtransport_address,
            metrics,
            registry,
            tls,
            committer,
            store,
            _data: data,
        })
    }

    /// Where HTTP and WebSocket listen.
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Where WebTransport listens (UDP).
    pub fn webtransport_address(&self) -> SocketAddr {
        self.webtransport_address
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The open documents.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Where documents are kept.
    pub fn store(&self) -> &Arc<dyn DocStore> {
        &self.store
    }

    /// The hash of the certificate in use, for clients that pin it.
    pub fn certificate_hash(&self) -> CertificateHash {
        self.tls.hash()
    }

    /// Says where everything is: for people on standard error, for programs one line on standard output.
    fn announce(&self) {
        let http = self.http_address;
        let base = format!("{}://{}", self.http_scheme, named(http));
        let websocket = base.replacen("http", "ws", 1);
        let webtransport = self.webtransport_address;
        let store = self.config.store.redacted();
        let data = fs::canonicalize(&self.config.data).unwrap_or_else(|_| self.config.data.clone());
        // Not a log: the words with which the program greets whoever started it. A closed pipe is theirs to close.
        let _ = writeln!(
            io::stderr(),
            "\n  Syncline {version}\n\n\
             \x20 demo          {base}/\n\
             \x20 WebTransport  https://{webtransport}/\n\
             \x20 y-websocket   new WebsocketProvider('{websocket}/yjs', 'my-document', ydoc)\n\
             \x20 data          {data}  ({store})\n\n\
             \x20 Authentication is off: everybody who reaches this server may read and edit everything.\n\
             \x20 Therefore it listens on loopback only, and answers only to loopback Host and Origin.\n",
            version = env!("CARGO_PKG_VERSION"),
            data = data.display(),
        );
        let mut out = io::stdout().lock();
        let _ = writeln!(
            out,
            "ready http={http} webtransport={webtransport} store={store}"
        );
        let _ = out.flush();
    }

    /// Stops everything, in order; see the module's header.
    pub async fn stop(self) {
        self.readiness.block("stopping", "the node is stopping");
        let sessions_wait = self.config.session.drain + STOP_STAGE;
        if !self.scopes.doors.stop(STOP_STAGE).await {
            warn!("some HTTP requests did not end in time");
        }
        if !self.scopes.sessions.stop(sessions_wait).await {
            warn!("some sessions did not end in time");
        }
        self.scopes.rooms.stop(STOP_STAGE).await;
        match tokio::time::timeout(STOP_STAGE, self.committer.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => {
                warn!(
                    bytes = self.committer.unsaved_bytes(),
                    "not everything could be committed; the next start replays the journal"
                );
            }
        }
        self.scopes.ground.stop(STOP_STAGE).await;
        self.store.close().await;
    }
}

/// The loopback name that browsers and people like, where the address allows it.
fn named(address: SocketAddr) -> String {
    if address.ip() == std::net::Ipv4Addr::LOCALHOST {
        format!("localhost:{}", address.port())
    } else {
        address.to_string()
    }
}

fn connect_info(address: SocketAddr, tls: &Tls) -> ConnectInfo {
    ConnectInfo {
        webtransport: Some(WebTransportInfo {
            url: format!("https://{address}/"),
            certificate_hashes: tls
                .hashes_to_pin()
                .iter()
                .map(|hash| hash.base64())
                .collect(),
        }),
        ..ConnectInfo::default()
    }
}

/// Takes WebTransport sessions until the doors close.
async fn welcome(mut listener: Listener, context: Arc<Context>, doors: Scope) {
    loop {
        let request = tokio::select! {
            biased;
            () = doors.stopping() => return,
            request = listener.accept() => request,
        };
        let Some(request) = request else {
            return;
        };
        let scope = context.scope.clone();
        scope.spawn(admit(request, context.clone()));
    }
}

async fn admit(request: Request, context: Arc<Context>) {
    if let Err(error) = host::check(request.peer.host.as_deref(), request.peer.origin.as_deref()) {
        debug!(peer = %request.peer.address, %error, "refuse a WebTransport session");
        context.metrics.handshakes_refused.inc(["origin"]);
        request.refuse(Refusal::Forbidden).await;
        return;
    }
    match request.accept().await {
        Ok(link) => session::accept(context, link, Door::Native).await,
        Err(error) => {
            debug!(%error, "accept a WebTransport session");
            context.metrics.handshakes_refused.inc(["incomplete"]);
        }
    }
}

/// Turns WebSocket upgrades into sessions.
#[derive(Debug)]
struct WebSockets {
    context: Arc<Context>,
    /// Where the links' own tasks run: until after the sessions', whose last words they carry.
    links: Scope,
}

impl http::Upgrades for WebSockets {
    fn upgrade(&self, mut upgrade: Upgrade) -> Result<hyper::Response<()>, RefusedUpgrade> {
        let context = self.context.clone();
        if context.scope.is_stopping() {
            return Err(RefusedUpgrade::Stopping);
        }
        let (door, framing) = match upgrade.route {
            Route::Native => (Door::Native, Framing::Multiplexed),
            Route::Yjs { document } => (Door::Yjs { document }, Framing::Single),
        };
        let handshake = websocket::handshake(&mut upgrade.request, upgrade.peer)
            .map_err(|_| RefusedUpgrade::NotWebSocket)?;
        let (response, upgrading) = handshake.accept(framing, None);
        let scope = context.scope.clone();
        let links = self.links.clone();
        scope.spawn(async move {
            match upgrading.link(&links).await {
                Ok(link) => session::accept(context, link, door).await,
                Err(error) => debug!(%error, "upgrade a WebSocket"),
            }
        });
        Ok(response)
    }
}

/// Reads gauges until the doors close.
async fn sample(metrics: Arc<Metrics>, committer: Committer, doors: Scope) {
    loop {
        tokio::select! {
            () = doors.stopping() => return,
            () = tokio::time::sleep(SAMPLE_EVERY) => {}
        }
        metrics.unsaved_bytes.set(committer.unsaved_bytes() as u64);
    }
}

/// The id of this node, kept for as long as its data directory lives.
fn node_id(data: &Path) -> Result<NodeId, Error> {
    let path = data.join("node-id");
    let failed = |source| Error::NodeId {
        path: path.display().to_string(),
        source,
    };
    match fs::read(&path) {
        Ok(bytes) => NodeId::from_slice(&bytes).ok_or_else(|| {
            failed(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is damaged; delete it",
            ))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = NodeId::random();
            fs::write(&path, id.as_bytes()).map_err(failed)?;
            Ok(id)
        }
        Err(error) => Err(failed(error)),
    }
}
