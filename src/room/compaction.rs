//! Compaction: the rows of a document become a snapshot and history segments (STORAGE.md, section 7).
//!
//! [`Job`] does one, from reading to committing; it knows the store and the document, no room, so any node can do it and a
//! test can stop it anywhere. [`Compactor`] is a room's side: when to start one, and what it found. What is heavy runs in
//! a task of its own, a bounded number at a time on a node; the room goes on meanwhile.

use std::fmt::Debug;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::task::{JoinHandle, yield_now};
use tracing::{debug, warn};

use super::backlog::{Backlog, not_in_the_past};
use super::registry::Inner;
use crate::clock;
use crate::doc::{
    self, ContentSum, Digest, Document, DocumentLimits, ScanError, ScanLimits, Scanned,
    StateVector, TailUpdate, scan,
};
use crate::ids::{DocumentKey, Epoch, Origin};
use crate::protocol::position::Position;
use crate::store::{
    self, CompactError, CompactOutcome, Compaction, DocStore, DocumentState, LogRow,
    compaction::fold, segment,
};
use crate::units;

/// When documents are compacted, and how many at once.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Committed rows in the log at which a document is compacted. A load applies them one by one, and history segments
    /// pack well at about this size.
    pub rows: u64,
    /// Rows below which a document is not compacted for any other reason: a snapshot is written whole each time.
    pub rows_min: u64,
    /// The part of the snapshot's size that the rows may have before the document is compacted: one in so many.
    pub snapshot_share: u64,
    /// Bytes of rows below which `snapshot_share` does not count, or a new document would be compacted all the time.
    #[serde(with = "units::size")]
    pub bytes_min: usize,
    /// How old `rows_min` rows in the log may get.
    #[serde(with = "units::duration")]
    pub age: Duration,
    /// Compactions that run at once on a node; others wait. Each holds a document a few times over in memory.
    pub at_once: usize,
    /// After a failure, the time until the next try.
    #[serde(with = "units::duration")]
    pub retry: Duration,
    /// How long a document is not collected, only merged, once two workers failed over it: each try may cost a worker's
    /// whole time limit.
    #[serde(with = "units::duration")]
    pub spare: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rows: 1_000,
            rows_min: 64,
            snapshot_share: 4,
            bytes_min: 64 << 10,
            age: Duration::from_secs(120),
            at_once: 2,
            retry: Duration::from_secs(10),
            spare: Duration::from_secs(3_600),
        }
    }
}

/// A [`Collector`]'s answer, boxed so that it can be used as `dyn`.
pub type Collecting<'a> = Pin<Box<dyn Future<Output = Option<Bytes>> + Send + 'a>>;

/// What shrinks a merged document: integrates it and drops what deleted content held.
pub trait Collector: Debug + Send + Sync + 'static {
    /// The same document, smaller. Its result is verified before it replaces anything. `None` when it could not: the
    /// merged bytes stand in.
    fn collect<'a>(&'a self, document: &'a DocumentKey, merged: Bytes) -> Collecting<'a>;
}

/// Collects nothing: every snapshot is the merged bytes. For tests and benches of the rest.
#[derive(Debug, Clone, Copy, Default)]
pub struct MergeOnly;

impl Collector for MergeOnly {
    fn collect<'a>(&'a self, _: &'a DocumentKey, _: Bytes) -> Collecting<'a> {
        Box::pin(async { None })
    }
}

/// One compaction of one document.
#[derive(Debug)]
pub struct Job {
    /// Where the document is.
    pub store: Arc<dyn DocStore>,
    /// What shrinks it.
    pub collector: Arc<dyn Collector>,
    /// The document.
    pub key: DocumentKey,
    /// The history that the caller knows; another one in the store is left alone.
    pub epoch: Epoch,
    /// The bounds of documents.
    pub limits: DocumentLimits,
    /// The origin whose sequences must be remembered (ST44).
    pub own: Origin,
    /// A place that no row has, for what is no row: an origin of `store::compaction::draw_generation`, and a number of it that was not offered before.
    pub generation: (Origin, u64),
}

/// What became of a [`Job`].
#[derive(Debug)]
pub enum Outcome {
    /// The document has a new snapshot.
    Done(Box<Compacted>),
    /// Somebody else changed the document meanwhile; nothing was changed.
    Raced,
    /// There was nothing that could be folded: the rows and their bytes that were found.
    Nothing(u64, u64),
}

/// A new snapshot.
#[derive(Debug)]
pub struct Compacted {
    /// Its version.
    pub version: u64,
    /// Its bytes, walked.
    pub snapshot: Scanned,
    /// The place of what is in it and is no row; `None` when it holds nothing but the rows.
    pub generation: Option<(Origin, u64)>,
    /// Rows that left the log.
    pub n_rows: u64,
    /// Rows that were read and stay, since they hang on something that is missing.
    pub n_rows_left: u64,
    /// The bytes of those.
    pub n_bytes_left: u64,
    /// Whether the merged bytes stand in for a collected document.
    pub stood_in: bool,
}

/// Why a document was not compacted. What is stored is whole all the same, before or after.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompactionError {
    /// The document could not be read from the store.
    #[error(transparent)]
    Load(#[from] store::LoadError),
    /// What is stored is not a document.
    #[error("read the stored document: {0}")]
    Document(#[from] doc::LoadError),
    /// Bytes of our own are not an update.
    #[error("walk the merged document: {0}")]
    Malformed(#[from] ScanError),
    /// The new snapshot lacks something of what it should replace. Nothing was committed.
    #[error("the merged document lacks something; nothing was changed")]
    Lossy,
    /// The store did not say that it is done; perhaps it is.
    #[error(transparent)]
    Store(#[from] CompactError),
    /// The task ended by a defect.
    #[error("the compaction ended by a defect")]
    Died,
}

impl Job {
    /// Reads, merges, collects, verifies, commits. May be dropped anywhere: the store does all or nothing.
    pub async fn run(&self) -> Result<Outcome, CompactionError> {
        let loaded = self.store.load(&self.key, self.epoch).await?;
        let is_ours = loaded.epoch == self.epoch
            && matches!(loaded.state, DocumentState::Live | DocumentState::ReadOnly);
        if !is_ours || loaded.rows.is_empty() {
            return Ok(Outcome::Nothing(0, 0));
        }
        let before = loaded.snapshot.as_ref().map(walk).transpose()?;
        let mut document = Document::load(
            self.limits,
            loaded.snapshot.clone(),
            loaded.folded.clone(),
            tail(&loaded.rows),
        )?;
        yield_now().await;
        let merged = walk(&document.full())?;
        yield_now().await;
        let collected = self
            .collector
            .collect(&self.key, merged.bytes().clone())
            .await
            .and_then(|bytes| self.verified(&bytes, &document, &merged));
        let stood_in = collected.is_none();
        let snapshot = collected.unwrap_or(merged);

        // The last look, at the very bytes: whatever leaves the log or the old snapshot must be in the new one.
        let held = self.held(snapshot.bytes())?;
        let lacks_before = before.as_ref().is_some_and(|before| held.has_news(before));
        if lacks_before || held.state_vector() != document.state_vector() {
            return Err(CompactionError::Lossy);
        }
        let mut rows = Vec::with_capacity(loaded.rows.len());
        let mut left = (0, 0);
        for row in loaded.rows {
            let update = walk(&row.update)?;
            // What hangs on something that is missing is in no merge: it stays.
            if held.has_news(&update) {
                left.0 += 1;
                left.1 += row.update.len() as u64;
                continue;
            }
            rows.push(row);
        }
        if rows.is_empty() {
            return Ok(Outcome::Nothing(left.0, left.1));
        }
        let has_growth = document.has_news(&snapshot);
        let known = before.map(|before| before.state_vector());
        let digest = digest(&self.key, &loaded.digest, known, &mut document, &held)?;
        drop((held, document));
        yield_now().await;

        let keys: Vec<_> = rows.iter().map(|row| (row.origin, row.sequence)).collect();
        let folding = fold(&loaded.folded, &keys, self.own, has_growth, self.generation);
        let compaction = Compaction {
            key: self.key.clone(),
            epoch: self.epoch,
            base_version: loaded.version,
            snapshot: snapshot.bytes().clone(),
            folded: folding.folded,
            digest,
            rows: keys,
            segments: segment::seal(&rows),
            time_ms: clock::unix_millis(),
        };
        match self.store.compact(&compaction).await? {
            CompactOutcome::Raced => Ok(Outcome::Raced),
            CompactOutcome::Done { version } => Ok(Outcome::Done(Box::new(Compacted {
                version,
                snapshot,
                generation: folding.is_new_generation.then_some(self.generation),
                n_rows: rows.len() as u64,
                n_rows_left: left.0,
                n_bytes_left: left.1,
                stood_in,
            }))),
        }
    }

    /// A collected document, if it is the same one: equal state vector, and every deletion of the merged one.
    fn verified(&self, bytes: &Bytes, document: &Document, merged: &Scanned) -> Option<Scanned> {
        let collected = walk(bytes).ok()?;
        let held = self.held(bytes).ok()?;
        let is_same = held.n_unready() == 0
            && held.state_vector() == document.state_vector()
            && !held.has_news(merged);
        if !is_same {
            warn!(document = %self.key, "a collected document is not the one that was given; the merged bytes stand in");
        }
        is_same.then_some(collected)
    }

    fn held(&self, snapshot: &Bytes) -> Result<Document, doc::LoadError> {
        Document::load(
            self.limits,
            Some(snapshot.clone()),
            Position::new(),
            Vec::new(),
        )
    }
}

/// The digest of what a snapshot stands for, carried as its metadata, since collecting removes content: what was summed up
/// before, and every unit that the snapshot before did not `know`, once, however many rows brought it.
fn digest(
    key: &DocumentKey,
    before: &Bytes,
    known: Option<StateVector>,
    document: &mut Document,
    snapshot: &Document,
) -> Result<Bytes, ScanError> {
    let mut sum = match (&known, Digest::decode(before)) {
        (None, _) => ContentSum::new(),
        (Some(_), Ok(digest)) => digest.content(),
        (Some(_), Err(cause)) => {
            // It stays as it is, so that `verify` finds it.
            warn!(document = %key, %cause, "read the digest of the snapshot before");
            return Ok(before.clone());
        }
    };
    sum.add(&walk(&document.diff(&known.unwrap_or_default()))?);
    Ok(Bytes::copy_from_slice(&snapshot.digest(sum).encode()))
}

fn walk(bytes: &Bytes) -> Result<Scanned, ScanError> {
    scan(bytes, &ScanLimits::stored())
}

/// Rows as a document takes them.
pub(super) fn tail(rows: &[LogRow]) -> Vec<TailUpdate> {
    rows.iter()
        .map(|row| TailUpdate {
            origin: row.origin,
            sequence: row.sequence,
            bytes: row.update.clone(),
        })
        .collect()
}

#[derive(Debug)]
struct Running {
    task: JoinHandle<Option<Result<Outcome, CompactionError>>>,
    since: Instant,
    /// What was logged after the start: it may be in the log after the compaction.
    n_rows: u64,
    n_bytes: u64,
}

/// A room's side of compaction.
#[derive(Debug)]
pub(super) struct Compactor {
    backlog: Backlog,
    running: Option<Running>,
    /// The origin of what is in snapshots and is no row, drawn for this room.
    generation: Origin,
    n_generations: u64,
    rows_counted: u64,
    tried_to_close: bool,
}

impl Compactor {
    /// For a room whose document was loaded with this much in the log. `n_generations` places of `generation` are used.
    pub(super) fn new(backlog: Backlog, generation: Origin, n_generations: u64) -> Self {
        Self {
            backlog,
            running: None,
            generation,
            n_generations,
            rows_counted: 0,
            tried_to_close: false,
        }
    }

    /// Whether one is under way.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Rows were logged.
    pub(super) fn logged(&mut self, n_rows: u64, n_bytes: u64, now: Instant) {
        self.tried_to_close = false;
        self.backlog.logged(n_rows, n_bytes, now);
        if let Some(running) = &mut self.running {
            running.n_rows += n_rows;
            running.n_bytes += n_bytes;
        }
    }

    /// Starts one if it is due. At most one of a room runs.
    pub(super) fn start_if_due(
        &mut self,
        node: &Arc<Inner>,
        key: &DocumentKey,
        epoch: Epoch,
        n_uncommitted: u64,
        now: Instant,
    ) {
        let config = &node.config.compaction;
        if !self.is_running() && self.backlog.is_due(config, n_uncommitted, now) {
            self.start(node, key, epoch, now);
        }
    }

    /// Whether a room that wants to close has to wait: it compacts first, once, when that is worth it.
    pub(super) fn holds_open(
        &mut self,
        node: &Arc<Inner>,
        key: &DocumentKey,
        epoch: Epoch,
        now: Instant,
    ) -> bool {
        let is_worth_it = self.backlog.is_worth_closing(&node.config.compaction, now);
        if !self.is_running() && !self.tried_to_close && is_worth_it {
            self.tried_to_close = true;
            self.start(node, key, epoch, now);
        }
        self.is_running()
    }

    fn start(&mut self, node: &Arc<Inner>, key: &DocumentKey, epoch: Epoch, now: Instant) {
        self.n_generations += 1;
        let job = Job {
            store: node.store.clone(),
            collector: node.collector.clone(),
            key: key.clone(),
            epoch,
            limits: node.limits,
            own: node.origin,
            generation: (self.generation, self.n_generations),
        };
        let (slots, scope) = (node.compactions.clone(), node.scope.clone());
        let task = node.scope.spawn(async move {
            tokio::select! {
                biased;
                () = scope.stopping() => None,
                outcome = async {
                    // Never closed, so a slot comes.
                    let _slot = slots.acquire().await;
                    job.run().await
                } => Some(outcome),
            }
        });
        self.running = Some(Running {
            task,
            since: now,
            n_rows: 0,
            n_bytes: 0,
        });
    }

    /// Waits for the one that runs; for ever when none does. Cancel safe. What it found is in the backlog then; the rest
    /// is for the room.
    pub(super) async fn finished(
        &mut self,
        node: &Arc<Inner>,
        key: &DocumentKey,
    ) -> Option<Box<Compacted>> {
        let Some(running) = &mut self.running else {
            return pending().await;
        };
        let ended = (&mut running.task).await;
        let running = self.running.take()?;
        let now = super::actor::now();
        let outcome = match ended {
            Ok(Some(outcome)) => outcome,
            // The node stops: the room hears of it itself.
            Ok(None) => return None,
            Err(_) => Err(CompactionError::Died),
        };
        let metrics = &node.metrics;
        metrics.compaction_latency.observe(now - running.since);
        let after = |n_rows, n_bytes| (n_rows + running.n_rows, n_bytes + running.n_bytes);
        match outcome {
            Ok(Outcome::Done(compacted)) => {
                metrics.compactions.inc(["done"]);
                metrics.compacted_rows.add(compacted.n_rows);
                if compacted.stood_in {
                    metrics.compactions_merged.inc();
                }
                debug!(document = %key, rows = compacted.n_rows, bytes = compacted.snapshot.bytes().len(),
                    version = compacted.version, "compacted");
                let rest = after(compacted.n_rows_left, compacted.n_bytes_left);
                let snapshot_bytes = compacted.snapshot.bytes().len() as u64;
                self.backlog.compacted(rest, snapshot_bytes, running.since);
                Some(compacted)
            }
            Ok(Outcome::Nothing(n_rows, n_bytes)) => {
                metrics.compactions.inc(["nothing"]);
                // Rows that cannot be folded are not tried again before there are others.
                self.backlog.found(after(n_rows, n_bytes), now);
                self.backlog.put_off(now + node.config.compaction.retry);
                None
            }
            Ok(Outcome::Raced) => {
                metrics.compactions.inc(["raced"]);
                None
            }
            Err(cause) => {
                metrics.compactions.inc(["failed"]);
                warn!(document = %key, %cause, "compact; trying again later");
                self.backlog.put_off(now + node.config.compaction.retry);
                None
            }
        }
    }

    /// When the room should look again whether one is due.
    pub(super) fn next_wake(
        &self,
        config: &Config,
        now: Instant,
        recheck: Duration,
    ) -> Option<Instant> {
        if self.is_running() {
            return None;
        }
        let due = self.backlog.next_look(config, now)?;
        Some(not_in_the_past(due, now, recheck))
    }

    /// Brings the node's count of rows in logs up to date; `is_open` is false when the room closes.
    pub(super) fn count(&mut self, node: &Inner, is_open: bool) {
        let n_rows = if is_open { self.backlog.n_rows() } else { 0 };
        node.metrics.live_rows.moved(self.rows_counted, n_rows);
        self.rows_counted = n_rows;
    }
}

#[cfg(test)]
#[path = "compaction_tests.rs"]
mod tests;
