//! Group commit across documents: an fsync costs the same for one row as for a thousand, so the rows of all rooms share
//! it (STORAGE.md, section 5).
//!
//! One task. While it commits batch n, batch n + 1 gathers in the queue. Batches are committed in the order in which
//! their rows were submitted, so a mark that moved to a sequence has everything below it too.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::shutdown::Scope;
use crate::telemetry::Metrics;

use super::journal::{Journal, Segment};
use super::{AppendOutcome, DocStore, DurableMark, LogRow};

/// What a row costs in memory besides its update: the row itself, its key, the queue's place for it.
const ROW_OVERHEAD_BYTES: usize = 256;

/// When a batch is committed, and what happens when it cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long the first row of a batch waits for company. It is part of the time until "saved" of a
    /// lone edit, and saves most fsyncs when several people type. 5 ms.
    #[serde(with = "crate::units::duration")]
    pub gather: Duration,
    /// A batch is committed at once when this many rows wait. 256.
    pub gather_rows: usize,
    /// A batch is committed at once when this many bytes of updates wait. 64 KiB.
    #[serde(with = "crate::units::size")]
    pub gather_bytes: usize,
    /// The most rows of one transaction when more wait (after an outage): fewer fsyncs, still a short lock. 1,024.
    pub batch_rows_max: usize,
    /// The most bytes of one transaction, one submission excepted. 1 MiB.
    #[serde(with = "crate::units::size")]
    pub batch_bytes_max: usize,
    /// At this many unsaved bytes in memory [`Committer::has_room`] says no, and edits are refused until it says yes
    /// again. 64 MiB.
    #[serde(with = "crate::units::size")]
    pub unsaved_bytes_max: usize,
    /// The pause after the first failed commit; it doubles with each. 50 ms.
    #[serde(with = "crate::units::duration")]
    pub retry_min: Duration,
    /// The longest pause between attempts, in milliseconds. 2 s.
    #[serde(with = "crate::units::duration")]
    pub retry_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            gather: Duration::from_millis(5),
            gather_rows: 256,
            gather_bytes: 64 * 1024,
            batch_rows_max: 1_024,
            batch_bytes_max: 1024 * 1024,
            unsaved_bytes_max: 64 * 1024 * 1024,
            retry_min: Duration::from_millis(50),
            retry_max: Duration::from_secs(2),
        }
    }
}

/// The handle. Clones are the same committer.
#[derive(Debug, Clone)]
pub struct Committer {
    shared: Arc<Shared>,
}

/// What the committer has done so far, and how it stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommitterStats {
    /// Transactions that succeeded.
    pub n_commits: u64,
    /// Rows in them.
    pub n_rows: u64,
    /// Rows among them that the store refused for good.
    pub n_refused: u64,
    /// Transactions that failed and were tried again.
    pub n_failures: u64,
    /// How long the last successful transaction took, in microseconds.
    pub last_commit_us: u64,
    /// Rows that are submitted and not committed.
    pub unsaved_rows: u64,
    /// What they take in memory.
    pub unsaved_bytes: usize,
    /// Whether the last transaction failed: nothing is acknowledged at present.
    pub is_failing: bool,
}

/// The committer stopped before everything was committed. What is left is in the journal, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{n_rows} edits are not in the store yet")]
pub struct Unflushed {
    /// How many rows are left.
    pub n_rows: u64,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    metrics: Arc<Metrics>,
    // A std mutex: pushes and takes only, never across an await.
    queue: Mutex<Queue>,
    wake: Notify,
    progress: watch::Sender<Progress>,
    unsaved_bytes: AtomicUsize,
    n_commits: AtomicU64,
    n_rows: AtomicU64,
    n_refused: AtomicU64,
    n_failures: AtomicU64,
    last_commit_us: AtomicU64,
    is_failing: AtomicBool,
}

/// Unbounded by itself: bounded by the callers, who submit nothing while `has_room` says no.
#[derive(Debug, Default)]
struct Queue {
    submissions: VecDeque<Submission>,
    n_rows: usize,
    n_bytes: usize,
    n_submitted: u64,
    // Somebody waits for everything up to here: no gathering.
    flush_to: u64,
}

#[derive(Debug)]
struct Submission {
    rows: Vec<LogRow>,
    n_bytes: usize,
    segment: Option<Segment>,
    mark: Arc<DurableMark>,
    at: Instant,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    // Rows that are committed or refused for good, ever.
    n_settled: u64,
    has_ended: bool,
}

/// Rows of one transaction, and whose they are.
#[derive(Debug, Default)]
struct Batch {
    rows: Vec<LogRow>,
    n_bytes: usize,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    n_rows: usize,
    last: u64,
    segment: Option<Segment>,
    mark: Arc<DurableMark>,
}

impl Committer {
    /// Starts the task in `scope`. Without a journal there is nothing to release, and what is not committed when the
    /// process dies is lost; tests do that.
    pub fn start(
        config: Config,
        store: Arc<dyn DocStore>,
        journal: Option<Arc<Journal>>,
        metrics: Arc<Metrics>,
        scope: &Scope,
    ) -> Self {
        let shared = Arc::new(Shared {
            config,
            metrics,
            queue: Mutex::default(),
            wake: Notify::new(),
            progress: watch::Sender::new(Progress::default()),
            unsaved_bytes: AtomicUsize::new(0),
            n_commits: AtomicU64::new(0),
            n_rows: AtomicU64::new(0),
            n_refused: AtomicU64::new(0),
            n_failures: AtomicU64::new(0),
            last_commit_us: AtomicU64::new(0),
            is_failing: AtomicBool::new(false),
        });
        let worker = Worker {
            shared: Arc::clone(&shared),
            store,
            journal,
            scope: scope.clone(),
        };
        scope.spawn(worker.run());
        Self { shared }
    }

    /// Hands over rows of one room, journalled in `segment`, ascending and above everything submitted with `mark`
    /// before. Never blocks and never fails: the mark tells when they are committed. Ask [`Committer::has_room`] first.
    pub fn submit(&self, rows: Vec<LogRow>, segment: Option<Segment>, mark: &Arc<DurableMark>) {
        if rows.is_empty() {
            return;
        }
        for row in &rows {
            mark.submit(row.sequence);
        }
        let n_bytes = rows.iter().map(cost).sum();
        self.shared.unsaved_bytes.fetch_add(n_bytes, Relaxed);
        let config = &self.shared.config;
        let mut queue = self.shared.queue();
        let was_empty = queue.submissions.is_empty();
        let was_due = queue.is_due(config);
        queue.n_rows += rows.len();
        queue.n_bytes += n_bytes;
        queue.n_submitted += rows.len() as u64;
        queue.submissions.push_back(Submission {
            rows,
            n_bytes,
            segment,
            mark: Arc::clone(mark),
            at: Instant::now(),
        });
        if was_empty || (!was_due && queue.is_due(config)) {
            self.shared.wake.notify_one();
        }
    }

    /// Whether more may be submitted: the unsaved bytes are below their bound.
    pub fn has_room(&self) -> bool {
        self.unsaved_bytes() < self.shared.config.unsaved_bytes_max
    }

    /// What is submitted and not committed takes so many bytes in memory.
    pub fn unsaved_bytes(&self) -> usize {
        self.shared.unsaved_bytes.load(Relaxed)
    }

    /// Waits until everything that was submitted before is committed, without gathering further. Waits as long as the
    /// store fails; an error only when the committer was stopped first.
    pub async fn flush(&self) -> Result<(), Unflushed> {
        let target = {
            let mut queue = self.shared.queue();
            queue.flush_to = queue.n_submitted;
            queue.flush_to
        };
        self.shared.wake.notify_one();
        let mut progress = self.shared.progress.subscribe();
        let reached = progress
            .wait_for(|progress| progress.n_settled >= target || progress.has_ended)
            .await
            .map_or(0, |progress| progress.n_settled);
        if reached >= target {
            Ok(())
        } else {
            Err(Unflushed {
                n_rows: target - reached,
            })
        }
    }

    /// How it stands. The figures are read one by one, not at one instant.
    pub fn stats(&self) -> CommitterStats {
        let shared = &self.shared;
        let n_submitted = shared.queue().n_submitted;
        let n_settled = shared.progress.borrow().n_settled;
        CommitterStats {
            n_commits: shared.n_commits.load(Relaxed),
            n_rows: shared.n_rows.load(Relaxed),
            n_refused: shared.n_refused.load(Relaxed),
            n_failures: shared.n_failures.load(Relaxed),
            last_commit_us: shared.last_commit_us.load(Relaxed),
            unsaved_rows: n_submitted.saturating_sub(n_settled),
            unsaved_bytes: self.unsaved_bytes(),
            is_failing: shared.is_failing.load(Relaxed),
        }
    }
}

fn cost(row: &LogRow) -> usize {
    row.update.len() + ROW_OVERHEAD_BYTES
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Whether the next batch need not wait for company.
    fn is_due(&self, config: &Config) -> bool {
        let n_taken = self.n_submitted - self.n_rows as u64;
        self.n_rows >= config.gather_rows
            || self.n_bytes >= config.gather_bytes
            || n_taken < self.flush_to
    }

    fn take(&mut self, config: &Config) -> Batch {
        let mut batch = Batch::default();
        while let Some(next) = self.submissions.front() {
            let fits = batch.rows.len() + next.rows.len() <= config.batch_rows_max
                && batch.n_bytes + next.n_bytes <= config.batch_bytes_max;
            // A submission is never split: its mark moves once. The first is taken whatever its size.
            if !batch.rows.is_empty() && !fits {
                break;
            }
            if let Some(next) = self.submissions.pop_front() {
                batch.push(next);
            }
        }
        self.n_rows -= batch.rows.len();
        self.n_bytes -= batch.n_bytes;
        batch
    }
}

impl Batch {
    fn push(&mut self, submission: Submission) {
        self.n_bytes += submission.n_bytes;
        self.parts.push(Part {
            n_rows: submission.rows.len(),
            last: submission.rows.last().map_or(0, |row| row.sequence),
            segment: submission.segment,
            mark: submission.mark,
        });
        self.rows.extend(submission.rows);
    }
}

struct Worker {
    shared: Arc<Shared>,
    store: Arc<dyn DocStore>,
    journal: Option<Arc<Journal>>,
    scope: Scope,
}

impl Worker {
    async fn run(self) {
        while let Some(batch) = self.next_batch().await {
            let Some(outcome) = self.commit(&batch.rows).await else {
                tracing::warn!(
                    n_rows = batch.rows.len(),
                    "stopped before these edits were committed; the journal has them"
                );
                break;
            };
            self.settle(batch, &outcome);
        }
    }

    /// Waits for rows and for their company. When the scope stops it hands out what is left, then `None`.
    async fn next_batch(&self) -> Option<Batch> {
        let config = &self.shared.config;
        let gather = config.gather;
        loop {
            let is_stopping = self.scope.is_stopping();
            let due_at = {
                let mut queue = self.shared.queue();
                match queue.submissions.front().map(|first| first.at + gather) {
                    None if is_stopping => return None,
                    None => None,
                    Some(due_at)
                        if is_stopping || queue.is_due(config) || due_at <= Instant::now() =>
                    {
                        return Some(queue.take(config));
                    }
                    Some(due_at) => Some(due_at),
                }
            };
            tokio::select! {
                biased;
                () = self.scope.stopping() => {}
                // Rows arrived, or enough of them, or somebody waits for a flush.
                () = self.shared.wake.notified() => {}
                () = wait_until(due_at) => {}
            }
        }
    }

    /// Commits, trying the same rows with the same keys until it works. `None` when the scope stopped first.
    async fn commit(&self, rows: &[LogRow]) -> Option<AppendOutcome> {
        let config = &self.shared.config;
        let mut pause = config.retry_min;
        let mut n_failures = 0_u64;
        loop {
            let started = Instant::now();
            // Never cancelled: a statement that is given up may still commit.
            let error = match self.store.append(rows).await {
                Ok(outcome) => {
                    self.note_success(rows.len(), &outcome, started.elapsed(), n_failures);
                    return Some(outcome);
                }
                Err(error) => error,
            };
            n_failures += 1;
            self.shared.n_failures.fetch_add(1, Relaxed);
            self.shared.metrics.commit_failures.inc();
            self.shared.is_failing.store(true, Relaxed);
            // Every doubling: an outage of an hour is a dozen lines, not two thousand.
            if n_failures.is_power_of_two() {
                tracing::warn!(n_rows = rows.len(), n_failures, %error, "commit edits; trying again");
            }
            tokio::select! {
                biased;
                () = self.scope.stopping() => return None,
                () = sleep(jittered(pause)) => {}
            }
            pause = (pause * 2).min(config.retry_max);
        }
    }

    fn note_success(&self, n: usize, outcome: &AppendOutcome, took: Duration, n_failures: u64) {
        let shared = &self.shared;
        shared.metrics.commits.inc();
        shared.metrics.committed_rows.add(n as u64);
        shared.metrics.commit_latency.observe(took);
        shared.n_commits.fetch_add(1, Relaxed);
        shared.n_rows.fetch_add(n as u64, Relaxed);
        shared
            .n_refused
            .fetch_add(outcome.refused.len() as u64, Relaxed);
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        shared.last_commit_us.store(took_us, Relaxed);
        shared.is_failing.store(false, Relaxed);
        if n_failures > 0 {
            tracing::info!(n_rows = n, n_failures, "the store takes edits again");
        }
    }

    /// Tells the rooms and lets the journal go.
    fn settle(&self, batch: Batch, outcome: &AppendOutcome) {
        let mut refused = outcome.refused.iter().peekable();
        let mut end = 0;
        for part in batch.parts {
            end += part.n_rows;
            let mut is_refused = false;
            while let Some(row) = refused.next_if(|row| row.index < end) {
                is_refused = true;
                let key = &batch.rows[row.index].key;
                tracing::info!(document = %key, why = %row.why, "an edit was not stored");
            }
            if is_refused {
                part.mark.replace();
            } else {
                part.mark.advance(part.last);
            }
            if let (Some(journal), Some(segment)) = (&self.journal, part.segment) {
                journal.release(segment, part.n_rows);
            }
        }
        self.shared.unsaved_bytes.fetch_sub(batch.n_bytes, Relaxed);
        self.shared
            .progress
            .send_modify(|progress| progress.n_settled += batch.rows.len() as u64);
    }
}

impl Drop for Worker {
    /// However the task ends, nobody waits for it in vain.
    fn drop(&mut self) {
        self.shared
            .progress
            .send_modify(|progress| progress.has_ended = true);
    }
}

async fn wait_until(due_at: Option<Instant>) {
    match due_at {
        Some(due_at) => sleep_until(due_at).await,
        None => std::future::pending().await,
    }
}

/// Between half of the pause and all of it, so that many nodes do not come back to a database in step.
fn jittered(pause: Duration) -> Duration {
    let mut bytes = [0; 2];
    // Without randomness the pause is whole; it is a pause all the same.
    let share = match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => 0.5 + f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX) / 2.0,
        Err(_) => 1.0,
    };
    pause.mul_f64(share)
}

#[cfg(test)]
#[path = "committer_tests.rs"]
mod tests;
