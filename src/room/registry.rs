//! Which documents are open on this node, and the way in.
//!
//! Opening is single-flight: two first-openers of one document share one load, never two live copies. Whoever has a
//! [`Handle`] holds a lease, and a room retires only under the registry's lock with no lease out, so a retiring room
//! cannot race a new member.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OnceCell, Semaphore, mpsc};
use tracing::warn;

use super::actor::{Actor, Request};
use super::backlog::Backlog;
use super::compaction::{Collector, Compactor, tail};
use super::config::Config;
use super::event::{Event, Join};
use super::member::{Closing, Mailbox, MemberId};
use super::state::State;
use crate::doc::{Document, DocumentLimits};
use crate::ids::{DocumentKey, Epoch, Origin};
use crate::protocol::close::ErrorCode;
use crate::shutdown::Scope;
use crate::store::compaction::draw_generation;
use crate::store::{Committer, DocStore, DocumentState, DurableMark, Journal, Loaded};
use crate::telemetry::Metrics;

/// What a registry is made of.
#[derive(Debug)]
pub struct Parts {
    /// The knobs of every room.
    pub config: Config,
    /// The bounds of every document.
    pub limits: DocumentLimits,
    /// Where documents are read from.
    pub store: Arc<dyn DocStore>,
    /// Where edits are written before they are relayed.
    pub journal: Arc<Journal>,
    /// What commits them.
    pub committer: Committer,
    /// What shrinks documents when they are compacted.
    pub collector: Arc<dyn Collector>,
    /// This incarnation of this node.
    pub origin: Origin,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where rooms run.
    pub scope: Scope,
}

/// The open documents of a node. Cheap to clone; clones are the same registry.
#[derive(Debug, Clone)]
pub struct Registry(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) config: Config,
    pub(super) limits: DocumentLimits,
    pub(super) store: Arc<dyn DocStore>,
    pub(super) journal: Arc<Journal>,
    pub(super) committer: Committer,
    pub(super) collector: Arc<dyn Collector>,
    /// One for each compaction that may run now.
    pub(super) compactions: Arc<Semaphore>,
    pub(super) origin: Origin,
    /// The highest sequence that any room which closed gave out: see [`Inner::count_from`].
    sequence_floor: AtomicU64,
    pub(super) metrics: Arc<Metrics>,
    pub(super) scope: Scope,
    rooms: Mutex<HashMap<DocumentKey, Arc<Slot>>>,
    next_member: AtomicU64,
}

/// The place of one document: being opened, or open.
#[derive(Debug, Default)]
pub(super) struct Slot {
    room: OnceCell<mpsc::Sender<Request>>,
    leases: AtomicUsize,
}

/// Why a document cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The document was deleted.
    #[error("the document was deleted")]
    Deleted,
    /// The document is closed while somebody looks into what is wrong with it.
    #[error("the document is in quarantine")]
    Quarantined,
    /// The store did not answer or answered wrongly.
    #[error("load the document: {0}")]
    Store(#[from] crate::store::LoadError),
    /// What is stored is not a document.
    #[error("read the stored document: {0}")]
    Document(#[from] crate::doc::LoadError),
    /// The node is stopping.
    #[error("the server is stopping")]
    Stopping,
}

/// The room is gone: it was replaced, or the node stops. Its members were told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the room is closed")]
pub struct Closed;

/// The way to one open room. Holds a lease: the room stays while a handle lives.
#[derive(Debug)]
pub struct Handle {
    sender: mpsc::Sender<Request>,
    metrics: Arc<Metrics>,
    _lease: Lease,
}

/// Keeps a room from retiring.
#[derive(Debug)]
struct Lease {
    slot: Arc<Slot>,
    key: DocumentKey,
    node: Arc<Inner>,
}

impl Lease {
    fn take(node: &Arc<Inner>, key: &DocumentKey) -> Self {
        let mut rooms = node.lock();
        let slot = rooms.entry(key.clone()).or_default().clone();
        // Under the lock, so that it cannot race `Inner::remove_if_unused`.
        slot.leases.fetch_add(1, Ordering::Relaxed);
        Self {
            slot,
            key: key.clone(),
            node: node.clone(),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let before = self.slot.leases.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "a lease is given back once");
        // An opening that failed or was given up leaves no empty place behind.
        if before == 1 && !self.slot.room.initialized() {
            self.node.remove_if_unused(&self.key, &self.slot);
        }
    }
}

impl Registry {
    /// A registry without rooms.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            compactions: Arc::new(Semaphore::new(parts.config.compaction.at_once.max(1))),
            collector: parts.collector,
            sequence_floor: AtomicU64::new(0),
            config: parts.config,
            limits: parts.limits,
            store: parts.store,
            journal: parts.journal,
            committer: parts.committer,
            origin: parts.origin,
            metrics: parts.metrics,
            scope: parts.scope,
            rooms: Mutex::default(),
            next_member: AtomicU64::new(1),
        }))
    }

    /// An id for a member that is about to join.
    pub fn next_member(&self) -> MemberId {
        MemberId(self.0.next_member.fetch_add(1, Ordering::Relaxed))
    }

    /// An empty mailbox with the bounds of this node.
    pub fn mailbox(&self) -> Arc<Mailbox> {
        Arc::new(Mailbox::new(self.0.config.outbox.clone()))
    }

    /// How many documents are open.
    pub fn n_open(&self) -> usize {
        self.0.lock().len()
    }

    /// Opens a document, or joins those who are opening it or have it open.
    pub async fn open(&self, key: &DocumentKey) -> Result<Handle, OpenError> {
        let inner = &self.0;
        if inner.scope.is_stopping() {
            return Err(OpenError::Stopping);
        }
        loop {
            let lease = Lease::take(inner, key);
            let sender = lease
                .slot
                .room
                .get_or_try_init(|| start(inner, key, &lease.slot))
                .await?
                .clone();
            if sender.is_closed() {
                // Its task ended between our look and our lease.
                inner.remove(key, &lease.slot);
                continue;
            }
            return Ok(Handle {
                sender,
                metrics: inner.metrics.clone(),
                _lease: lease,
            });
        }
    }
}

/// Loads a document and starts its room.
async fn start(
    inner: &Arc<Inner>,
    key: &DocumentKey,
    slot: &Arc<Slot>,
) -> Result<mpsc::Sender<Request>, OpenError> {
    let loaded = inner.store.load(key, Epoch::random()).await?;
    match loaded.state {
        DocumentState::Live | DocumentState::ReadOnly => {}
        DocumentState::Deleted => return Err(OpenError::Deleted),
        DocumentState::Quarantined => return Err(OpenError::Quarantined),
    }
    let generation = draw_generation();
    let document = read(inner, &loaded, generation)?;
    if document.n_unready() > 0 {
        warn!(document = %key, rows = document.n_unready(), "stored edits wait for edits that are not stored");
    }
    inner.metrics.documents_loaded.inc();
    let now = tokio::time::Instant::now().into_std();
    let durable = inner.count_from(&document, loaded.version);
    let backlog = Backlog::new(
        loaded.rows.len() as u64,
        loaded.rows.iter().map(|row| row.update.len() as u64).sum(),
        loaded.snapshot.map_or(0, |snapshot| snapshot.len() as u64),
        now,
    );
    let state = State::new(
        inner.config.clone(),
        document,
        loaded.epoch,
        inner.origin,
        now,
    )
    .counting_from(durable);
    let (sender, inbox) = mpsc::channel(inner.config.inbox_max.max(1));
    let actor = Actor {
        key: key.clone(),
        state,
        inbox,
        mailboxes: HashMap::new(),
        mark: Arc::new(DurableMark::new(durable)),
        slot: slot.clone(),
        node: inner.clone(),
        empty_since: now,
        merges_counted: 0,
        bytes_counted: 0,
        compactor: Compactor::new(backlog, generation, 1),
        gone: Vec::new(),
        last_word: Closing::new(
            ErrorCode::Internal,
            "the document failed on the server; what was acknowledged is safe",
        ),
    };
    inner.scope.spawn(actor.run());
    Ok(sender)
}

/// The document that was loaded. When the log is not a plain continuation of the snapshot (a row below the position that
/// the snapshot gives to readers, or one that hangs on something missing), no position of before can be trusted: it gets
/// one that nobody has (STORAGE.md, ST44).
fn read(
    inner: &Inner,
    loaded: &Loaded,
    generation: Origin,
) -> Result<Document, crate::doc::LoadError> {
    let load = |folded| {
        let snapshot = loaded.snapshot.clone();
        Document::load(inner.limits, snapshot, folded, tail(&loaded.rows))
    };
    let is_late = loaded
        .rows
        .iter()
        .any(|row| row.sequence <= loaded.folded.get(row.origin));
    let mut document = None;
    if !is_late {
        document = Some(load(loaded.folded.clone())?);
    }
    match document {
        Some(document) if document.n_unready() == 0 => Ok(document),
        _ => {
            let mut folded = loaded.folded.clone();
            folded.advance(generation, 1);
            load(folded)
        }
    }
}

impl Inner {
    /// The sequence after which a room counts on. Usually the position has it; when this node's origin was dropped from a
    /// snapshot by another node, no sequence that this process ever gave out is given out again (ST44).
    fn count_from(&self, document: &Document, version: u64) -> u64 {
        match document.position().get(self.origin) {
            0 if version > 0 => self.sequence_floor.load(Ordering::Relaxed),
            sequence => sequence,
        }
    }

    /// A room that closes gave out sequences up to this one. Before its place in the registry is free.
    pub(super) fn gave_out(&self, sequence: u64) {
        self.sequence_floor.fetch_max(sequence, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DocumentKey, Arc<Slot>>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place away if nobody holds a lease on it. True when it is gone.
    pub(super) fn remove_if_unused(&self, key: &DocumentKey, slot: &Arc<Slot>) -> bool {
        let mut rooms = self.lock();
        if slot.leases.load(Ordering::Relaxed) > 0 {
            return false;
        }
        remove_same(&mut rooms, key, slot);
        true
    }

    /// Takes a place away whoever holds a lease: they are told that the room is closed, and open anew.
    pub(super) fn remove(&self, key: &DocumentKey, slot: &Arc<Slot>) {
        remove_same(&mut self.lock(), key, slot);
    }
}

/// Another room may stand in the place already.
fn remove_same(rooms: &mut HashMap<DocumentKey, Arc<Slot>>, key: &DocumentKey, slot: &Arc<Slot>) {
    if let Entry::Occupied(entry) = rooms.entry(key.clone())
        && Arc::ptr_eq(entry.get(), slot)
    {
        entry.remove();
    }
}

impl Handle {
    /// Asks to be let in. The answer, [`super::Out::Opened`] or [`super::Out::Closed`], comes through the mailbox.
    pub async fn join(&self, join: Join, mailbox: Arc<Mailbox>) -> Result<(), Closed> {
        self.send(Request::Join(join, mailbox)).await
    }

    /// Hands the room an event of a member. Waits while the room's inbox is full, which makes the member's session stop
    /// reading.
    pub async fn tell(&self, event: Event) -> Result<(), Closed> {
        self.send(Request::Event(event)).await
    }

    async fn send(&self, request: Request) -> Result<(), Closed> {
        match self.sender.try_send(request) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Closed),
            Err(mpsc::error::TrySendError::Full(request)) => {
                self.metrics.room_inbox_full.inc();
                self.sender.send(request).await.map_err(|_| Closed)
            }
        }
    }
}
