//! A node of one's own, and clients that speak the native protocol to it.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytes::Bytes;
use syncline::auth::Mode;
use syncline::config::Config;
use syncline::ids::{Epoch, NodeId, SessionId};
use syncline::node::Node;
use syncline::protocol::awareness::{AwarenessUpdate, Builder};
use syncline::protocol::message::{
    Access, ClientControl, ClientDocument, Credential, Hello, Open, Opened, Refusal, ServerControl,
    ServerDocument, VERSION, Welcome, encoding,
};
use syncline::protocol::position::Position;
use syncline::protocol::yjs::Message;
use syncline::session::{self, Context, Door, Present};
use syncline::shutdown::Scope;
use syncline::transport::tls::CertificateHash;
use syncline::transport::{Link, Received, Writer, dial, memory};
use tempfile::TempDir;
use tokio::time::timeout;
use yrs::updates::decoder::Decode;
use yrs::{Doc, GetString, ReadTxn, StateVector, Text, Transact, Update};

/// The most that any step of a test may take; a bound against hanging, not a measure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Awaits something that has to come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not come within {PATIENCE:?}"),
    }
}

/// Waits until a condition holds, looking again after every short pause.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let mut pause = tokio::time::interval(Duration::from_millis(5));
    soon(what, async {
        while !holds() {
            pause.tick().await;
        }
    })
    .await;
}

/// A configuration of free ports over a data directory.
pub(crate) fn config(data: &Path) -> Config {
    let mut config = Config {
        data: data.to_owned(),
        ..Config::default()
    };
    config.store = syncline::config::StoreUrl::sqlite_in(data);
    // This process is no server.
    config.worker.program = env!("CARGO_BIN_EXE_syncline").into();
    config.http.listen = "127.0.0.1:0".parse().unwrap();
    config.webtransport.listen = "127.0.0.1:0".parse().unwrap();
    config
}

/// A node in this process, with a data directory that goes with it.
pub(crate) struct Server {
    pub(crate) node: Node,
    pub(crate) data: TempDir,
}

impl Server {
    /// A fresh one.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A fresh one with a changed configuration.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let data = TempDir::new().unwrap();
        let mut config = config(data.path());
        change(&mut config);
        Self {
            node: Node::start(config).await.unwrap(),
            data,
        }
    }

    /// Stops it and starts another on the same data.
    pub(crate) async fn restart(self) -> Self {
        let Self { node, data } = self;
        node.stop().await;
        Self {
            node: Node::start(config(data.path())).await.unwrap(),
            data,
        }
    }

    /// A client's end of a link within the process, served by the node's rooms.
    pub(crate) fn serve(&self, door: Door, scope: &Scope) -> Link {
        let context = Arc::new(Context {
            config: session::Config::default(),
            registry: self.node.registry().clone(),
            auth: Mode::Development,
            node: NodeId::random(),
            metrics: self.node.metrics().clone(),
            scope: scope.clone(),
            n_sessions: AtomicUsize::new(0),
            present: Present::default(),
        });
        let (ours, theirs) = memory::pair();
        scope.spawn(session::accept(context, ours, door));
        theirs
    }

    /// A stock client that holds nothing, within the process, in a document.
    pub(crate) async fn enter_stock(&self, document: &str, scope: &Scope) -> (Link, Writer) {
        let door = Door::Yjs {
            document: document.into(),
        };
        let link = self.serve(door, scope);
        let mut writer = link.sender.open(1).await.unwrap();
        let step1 = Message::SyncStep1(Bytes::from_static(&[0])).encode();
        writer.write(&[step1]).await.unwrap();
        (link, writer)
    }

    /// The base of WebSocket addresses.
    pub(crate) fn ws(&self) -> String {
        format!("ws://{}", self.node.http_address())
    }
}

/// Which way a client comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    WebSocket,
    WebTransport,
}

/// Both ways.
pub(crate) const WAYS: [Way; 2] = [Way::WebSocket, Way::WebTransport];

/// A client's end of one native session.
pub(crate) struct Session {
    pub(crate) link: Link,
    pub(crate) control: Writer,
    pub(crate) welcome: Option<Welcome>,
    waiting: VecDeque<Received>,
    _scope: Scope,
}

impl Session {
    /// Connects without a word.
    pub(crate) async fn dial(server: &Server, way: Way) -> Self {
        let scope = Scope::new();
        let link = match way {
            Way::WebSocket => {
                let url = format!("{}/ws", server.ws());
                dial::websocket(&url, &dial::Options::default(), &scope)
                    .await
                    .unwrap()
            }
            Way::WebTransport => {
                let url = format!("https://{}/", server.node.webtransport_address());
                let hash: CertificateHash = server.node.certificate_hash();
                dial::webtransport(&url, hash, &dial::Options::default(), &scope)
                    .await
                    .unwrap()
            }
        };
        Self::over(link, scope).await
    }

    async fn over(link: Link, scope: Scope) -> Self {
        let control = link.sender.open(0).await.unwrap();
        Self {
            link,
            control,
            welcome: None,
            waiting: VecDeque::new(),
            _scope: scope,
        }
    }

    /// Connects and says HELLO.
    pub(crate) async fn connect(server: &Server, way: Way) -> Self {
        Self::dial(server, way).await.hello().await
    }

    /// Says HELLO over a link.
    pub(crate) async fn greet(link: Link, scope: Scope) -> Self {
        Self::over(link, scope).await.hello().await
    }

    /// Connects as one who comes back.
    pub(crate) async fn return_from(server: &Server, way: Way, previous: SessionId) -> Self {
        let session = Self::dial(server, way).await;
        session.hello_after(Some(previous)).await
    }

    async fn hello(self) -> Self {
        self.hello_after(None).await
    }

    async fn hello_after(mut self, previous_session: Option<SessionId>) -> Self {
        let hello = Hello {
            versions: vec![VERSION],
            features: vec![],
            credential: Credential::None,
            client_name: "test".into(),
            client_version: "1".into(),
            previous_session,
        };
        self.say(&ClientControl::Hello(hello)).await;
        match self.control_message().await {
            ServerControl::Welcome(welcome) => self.welcome = Some(welcome),
            other => panic!("WELCOME was due, {other:?} came"),
        }
        self
    }

    pub(crate) async fn say(&mut self, message: &ClientControl) {
        self.control.write(&[message.encode()]).await.unwrap();
    }

    /// The next thing from the server; `None` when it has closed the session.
    pub(crate) async fn received(&mut self) -> Option<Received> {
        if let Some(waiting) = self.waiting.pop_front() {
            return Some(waiting);
        }
        soon("a message", self.link.receiver.recv())
            .await
            .expect("the server keeps the framing")
    }

    /// The next message on one channel; what comes on others waits. Datagrams are passed over.
    async fn frame(&mut self, wanted: u32) -> Option<Bytes> {
        let mut others = VecDeque::new();
        let found = loop {
            match self.received().await {
                Some(Received::Frame { channel, bytes }) if channel == wanted => break Some(bytes),
                Some(Received::Ended { channel }) if channel == wanted => break None,
                Some(Received::Datagram { .. }) => {}
                Some(other) => others.push_back(other),
                None => break None,
            }
        };
        others.append(&mut self.waiting);
        self.waiting = others;
        found
    }

    /// The next message on the control channel, heartbeats answered and passed over.
    pub(crate) async fn control_message(&mut self) -> ServerControl {
        loop {
            let bytes = self.frame(0).await.expect("the session is open");
            match ServerControl::decode(&bytes).unwrap().unwrap() {
                ServerControl::Ping(bytes) => self.say(&ClientControl::Pong(bytes)).await,
                message => return message,
            }
        }
    }

    /// Opens a document and reads the answer.
    pub(crate) async fn try_open(&mut self, channel: u32, open: Open) -> Result<Document, Refusal> {
        let mut writer = self.link.sender.open(channel).await.unwrap();
        writer
            .write(&[ClientDocument::Open(open).encode()])
            .await
            .unwrap();
        let mut replaced_by = None;
        loop {
            let bytes = self.frame(channel).await.expect("the channel is answered");
            match ServerDocument::decode(&bytes).unwrap().unwrap() {
                ServerDocument::Opened(opened) => {
                    return Ok(Document {
                        channel,
                        writer,
                        opened,
                        sequence: 0,
                        doc: Doc::new(),
                    });
                }
                ServerDocument::Replaced(epoch) => replaced_by = Some(epoch),
                ServerDocument::Closed(refusal) => {
                    let mismatch = syncline::protocol::close::ErrorCode::EpochMismatch;
                    assert_eq!(refusal.code == mismatch, replaced_by.is_some());
                    return Err(refusal);
                }
                other => panic!("OPENED was due, {other:?} came"),
            }
        }
    }

    /// Opens a document for a client that holds nothing, takes what is there, and answers with an empty SYNC.
    pub(crate) async fn open(&mut self, channel: u32, name: &str) -> Document {
        let mut document = self
            .try_open(channel, open(name, u64::from(channel)))
            .await
            .unwrap();
        let missing = document.opened.update.clone();
        document.apply(&missing);
        document.sync(Bytes::from_static(&[0, 0])).await;
        document
    }

    /// The next message of a document.
    pub(crate) async fn document_message(&mut self, document: &Document) -> ServerDocument {
        let bytes = self
            .frame(document.channel)
            .await
            .expect("the channel is open");
        ServerDocument::decode(&bytes).unwrap().unwrap()
    }

    /// Reads until DURABLE covers a sequence, applying what others wrote.
    pub(crate) async fn durable(&mut self, document: &mut Document, sequence: u64) {
        loop {
            match self.document_message(document).await {
                ServerDocument::Durable(up_to) if up_to >= sequence => return,
                ServerDocument::Update { update, .. } => document.apply(&update),
                ServerDocument::Rejected { text, .. } => panic!("rejected: {text}"),
                _ => {}
            }
        }
    }

    /// Reads until the document's text is as wanted.
    pub(crate) async fn text(&mut self, document: &mut Document, wanted: &str) {
        while document.text() != wanted {
            if let ServerDocument::Update { update, .. } = self.document_message(document).await {
                document.apply(&update);
            }
        }
    }
}

/// An OPEN of a client that holds nothing.
pub(crate) fn open(name: &str, client: u64) -> Open {
    Open {
        document: name.into(),
        epoch: None,
        client,
        state_vector: Bytes::from_static(&[0]),
        position: None,
        access: Access::Write,
        encodings: vec![encoding::YJS_V1],
    }
}

/// A client's copy of an open document.
pub(crate) struct Document {
    pub(crate) channel: u32,
    pub(crate) writer: Writer,
    pub(crate) opened: Opened,
    pub(crate) sequence: u64,
    pub(crate) doc: Doc,
}

impl Document {
    pub(crate) fn epoch(&self) -> Epoch {
        self.opened.epoch
    }

    pub(crate) fn position(&self) -> Position {
        self.opened.position.clone()
    }

    pub(crate) async fn send(&mut self, message: ClientDocument) {
        self.writer.write(&[message.encode()]).await.unwrap();
    }

    /// Sends an edit; its sequence.
    pub(crate) async fn update(&mut self, update: Bytes) -> u64 {
        self.sequence += 1;
        let sequence = self.sequence;
        self.send(ClientDocument::Update { sequence, update }).await;
        sequence
    }

    /// Sends what the server lacks; its sequence.
    pub(crate) async fn sync(&mut self, update: Bytes) -> u64 {
        self.sequence += 1;
        let sequence = self.sequence;
        self.send(ClientDocument::Sync { sequence, update }).await;
        sequence
    }

    /// Appends text to the copy; the edit as bytes.
    pub(crate) fn edit(&self, text: &str) -> Bytes {
        append(&self.doc, text)
    }

    /// Appends text and sends the edit; its sequence.
    pub(crate) async fn write(&mut self, text: &str) -> u64 {
        let update = self.edit(text);
        self.update(update).await
    }

    pub(crate) fn apply(&self, update: &Bytes) {
        apply(&self.doc, update);
    }

    pub(crate) fn text(&self) -> String {
        text(&self.doc)
    }
}

/// Appends text to the one text of a document; the edit as bytes.
pub(crate) fn append(doc: &Doc, text: &str) -> Bytes {
    let root = doc.get_or_insert_text("text");
    let before = doc.transact().state_vector();
    {
        let mut transaction = doc.transact_mut();
        let end = root.len(&transaction);
        root.insert(&mut transaction, end, text);
    }
    doc.transact().encode_diff_v1(&before).into()
}

/// The awareness update of one entry.
pub(crate) fn shows(client: u64, clock: u64, state: &str) -> Bytes {
    let mut builder = Builder::default();
    builder.push(client, clock, Some(state));
    builder.finish().unwrap()
}

/// Takes an update into a document; empty bytes are none.
pub(crate) fn apply(doc: &Doc, update: &Bytes) {
    if !update.is_empty() {
        let update = Update::decode_v1(update).unwrap();
        doc.transact_mut().apply_update(update).unwrap();
    }
}

/// Everything in a document as one update.
pub(crate) fn everything(doc: &Doc) -> Bytes {
    doc.transact()
        .encode_state_as_update_v1(&StateVector::default())
        .into()
}

pub(crate) fn text(doc: &Doc) -> String {
    let root = doc.get_or_insert_text("text");
    root.get_string(&doc.transact())
}

/// The next presence of one client id, by datagram or stream; nobody else's may come.
pub(crate) async fn presence_of(session: &mut Session, on: u32, client: u64) -> Option<String> {
    loop {
        let bytes = match session.received().await.expect("the session is open") {
            Received::Datagram { channel, bytes } if channel == on => bytes,
            Received::Frame { channel, bytes } if channel == on => {
                match ServerDocument::decode(&bytes).unwrap().unwrap() {
                    ServerDocument::Presence(bytes) => bytes,
                    _ => continue,
                }
            }
            _ => continue,
        };
        let update = AwarenessUpdate::decode(&bytes).unwrap();
        if let Some(entry) = update.entries().next() {
            assert_eq!(entry.client, client);
            return entry.state().map(str::to_owned);
        }
    }
}
