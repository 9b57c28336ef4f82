//! The server's worker processes: a few, each asked one thing at a time, started when needed, replaced when they fail.
//!
//! Each worker has a task that owns its process and takes requests from one bounded queue; a request that finds the queue
//! full is refused, since whoever asks (compaction) can as well ask later. What a worker found is never believed: its
//! ranges have to fit the document, and the collected document is computed from the raw bytes here.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout};

use super::Config;
use super::child::{Failure, Processes, Worker};
use super::quarantine::{Kept, keep};
use super::wire::{Answer, REQUEST_BYTES_MAX, Refusal, Request, Task};
use crate::doc::collect::{CollectError, check, check_ranges, collect};
use crate::doc::delete_index::delete_only_update;
use crate::doc::scan::{ScanError, ScanLimits, Scanned, scan};
use crate::shutdown::Scope;
use crate::telemetry::metrics::Metrics;

/// Bytes of a request besides its update.
const REQUEST_OVERHEAD_BYTES: usize = 16;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// As many requests wait as may. Ask again later.
    #[error("{max} requests wait for a worker already")]
    Busy {
        /// How many may wait.
        max: usize,
    },
    /// The server stops.
    #[error("the workers are being stopped")]
    Stopped,
    /// The input is larger than a worker takes.
    #[error("the document is larger than the {max} bytes that workers take")]
    TooLarge {
        /// The limit, in bytes.
        max: usize,
    },
    /// The input is not a well-formed update. No worker was asked.
    #[error("the document is malformed: {0}")]
    Malformed(#[from] ScanError),
    /// The input is nothing that workers can do. No worker was asked.
    #[error("the document cannot be collected: {0}")]
    Uncollectable(CollectError),
    /// A worker said no, and lives.
    #[error("a worker refused: {0}")]
    Refused(Refusal),
    /// A worker failed over the request and was replaced.
    #[error(transparent)]
    Failed(Failure),
}

impl WorkerError {
    /// Whether a worker failed and the document may be at fault, so that asking again and again with it would cost worker
    /// after worker. Not so when the pool was busy or stopped, no worker could be started, or no worker is made for such a
    /// document, which costs nothing to find out.
    pub fn blames_document(&self) -> bool {
        match self {
            Self::Busy { .. }
            | Self::Stopped
            | Self::TooLarge { .. }
            | Self::Uncollectable(_)
            | Self::Refused(Refusal::Unsupported)
            | Self::Failed(Failure::Start(_)) => false,
            Self::Malformed(_) | Self::Refused(_) | Self::Failed(_) => true,
        }
    }
}

/// A document without the content of what is deleted, verified.
#[derive(Clone, Debug)]
pub struct Collected {
    /// The collected document: for [`Document::adopt`](crate::doc::Document::adopt), and the next snapshot.
    pub update: Scanned,
    /// What the input did not say is deleted, as a delete-only update. By the time that it is adopted some of it may be
    /// known, so what `adopt` says is what has to be relayed.
    pub growth: Option<Bytes>,
}

/// Handle of the worker processes. Cheap to clone; clones are the same pool.
#[derive(Clone, Debug)]
pub struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    quarantine: PathBuf,
    metrics: Arc<Metrics>,
    scope: Scope,
    queue: Mutex<VecDeque<Job>>,
    /// As many permits as there are jobs in the queue.
    queued: Semaphore,
    processes: Processes,
    next_id: AtomicU64,
}

#[derive(Debug)]
struct Job {
    document: String,
    request: Request,
    reply: oneshot::Sender<Result<Answer, WorkerError>>,
}

impl Pool {
    /// A pool of workers, of which none is started yet. Its tasks end with the scope, and the processes with them.
    pub fn start(
        config: Config,
        quarantine: PathBuf,
        metrics: Arc<Metrics>,
        scope: &Scope,
    ) -> Self {
        let n_workers = config.n_workers.max(1);
        let shared = Arc::new(Shared {
            config,
            quarantine,
            metrics,
            scope: scope.clone(),
            queue: Mutex::default(),
            queued: Semaphore::new(0),
            processes: Processes::default(),
            next_id: AtomicU64::new(1),
        });
        for _ in 0..n_workers {
            let slot = Slot::new(shared.clone());
            scope.spawn(slot.run());
        }
        Self { shared }
    }

    /// Collects a whole document. `document` names it in logs. What is admitted to the document meanwhile does not matter.
    pub async fn collect(&self, document: &str, update: Bytes) -> Result<Collected, WorkerError> {
        let raw = self.scanned(update).await?;
        match self
            .ask(document, Task::Collect, raw.bytes().clone())
            .await?
        {
            Answer::Collected { deletes, .. } => {
                let input = raw.bytes().clone();
                let checked = spawn_blocking(move || collected(&raw, &deletes)).await;
                match checked.map_err(|_| WorkerError::Stopped)? {
                    Ok(collected) => Ok(collected),
                    Err(error) => {
                        let failure = Failure::WrongAnswer(error.to_string());
                        self.shared.note_failure(document, &failure);
                        self.shared.quarantine(document, input).await;
                        Err(WorkerError::Failed(failure))
                    }
                }
            }
            _ => unreachable!("the slot checked that the answer is to the request"),
        }
    }

    /// A hash of everything visible in a whole document: equal for equal content, whatever its history.
    pub async fn visible(&self, document: &str, update: Bytes) -> Result<[u8; 16], WorkerError> {
        let raw = self.scanned(update).await?;
        match self
            .ask(document, Task::Visible, raw.bytes().clone())
            .await?
        {
            Answer::Visible { hash, .. } => Ok(hash),
            _ => unreachable!("the slot checked that the answer is to the request"),
        }
    }

    /// How many requests wait for a worker now.
    pub fn n_waiting(&self) -> usize {
        self.shared.queue().len()
    }

    /// The ids of the worker processes that run now, for whoever measures their memory.
    pub fn processes(&self) -> Vec<u32> {
        self.shared.processes.ids()
    }

    /// Walks the input before a worker is bothered with it; off the runtime, since it may be large.
    async fn scanned(&self, update: Bytes) -> Result<Scanned, WorkerError> {
        let max = REQUEST_BYTES_MAX - REQUEST_OVERHEAD_BYTES;
        if update.len() > max {
            return Err(WorkerError::TooLarge { max });
        }
        let scanned = spawn_blocking(move || {
            let raw = scan(&update, &ScanLimits::stored())?;
            check(&raw).map_err(WorkerError::Uncollectable)?;
            Ok(raw)
        });
        scanned.await.map_err(|_| WorkerError::Stopped)?
    }

    async fn ask(&self, document: &str, task: Task, update: Bytes) -> Result<Answer, WorkerError> {
        let shared = &self.shared;
        let (reply, replied) = oneshot::channel();
        let request = Request {
            id: shared.next_id.fetch_add(1, Relaxed),
            task,
            update,
        };
        {
            let mut queue = shared.queue();
            if shared.scope.is_stopping() {
                return Err(WorkerError::Stopped);
            }
            let max = shared.config.queue_max;
            if queue.len() >= max {
                return Err(WorkerError::Busy { max });
            }
            queue.push_back(Job {
                document: document.to_owned(),
                request,
                reply,
            });
        }
        shared.queued.add_permits(1);
        replied.await.unwrap_or(Err(WorkerError::Stopped))
    }
}

/// The collected document from the ranges that a worker found.
fn collected(raw: &Scanned, deletes: &Bytes) -> Result<Collected, CollectError> {
    let found = scan(deletes, &ScanLimits::stored())?;
    let (mut ranges, mut growth) = check_ranges(raw, &found)?;
    let update = collect(raw, &mut ranges)?;
    let update = scan(&update, &ScanLimits::stored())?;
    let same = raw.sections().len() == update.sections().len()
        && raw
            .sections()
            .iter()
            .zip(update.sections())
            .all(|(a, b)| (a.client, a.clock, a.end) == (b.client, b.clock, b.end));
    if !same {
        return Err(CollectError::WrongRanges);
    }
    Ok(Collected {
        update,
        growth: (!growth.is_empty()).then(|| delete_only_update(&mut growth)),
    })
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, VecDeque<Job>> {
        // Nothing under this lock panics halfway.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_failure(&self, document: &str, failure: &Failure) {
        self.metrics.workers_failed.inc([failure.reason()]);
        tracing::warn!(document, %failure, "a CRDT worker failed");
    }

    async fn quarantine(self: &Arc<Self>, document: &str, input: Bytes) {
        let shared = self.clone();
        let kept = spawn_blocking(move || keep(&shared.quarantine, &shared.config, &input)).await;
        match kept {
            Ok(Ok(Kept::New(path))) => {
                self.metrics.quarantined.inc();
                tracing::warn!(document, path = %path.display(), "the input of a CRDT worker is kept for study");
            }
            Ok(Ok(Kept::Known(path))) => {
                tracing::warn!(document, path = %path.display(), "a CRDT worker failed over the same input again");
            }
            Ok(Ok(Kept::Full)) => {
                tracing::warn!(document, directory = %self.quarantine.display(), "the quarantine is full; empty it after a look");
            }
            Ok(Err(error)) => {
                tracing::error!(document, directory = %self.quarantine.display(), %error, "write to the quarantine");
            }
            Err(_) => {}
        }
    }
}

/// The task of one worker.
#[derive(Debug)]
struct Slot {
    shared: Arc<Shared>,
    worker: Option<Worker>,
    /// Failures in a row.
    n_failures: u32,
    /// No process is started before.
    not_before: Instant,
}

impl Slot {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            worker: None,
            n_failures: 0,
            not_before: Instant::now(),
        }
    }

    async fn run(mut self) {
        let shared = self.shared.clone();
        let work = async {
            while let Some(job) = self.next_job().await {
                self.answer(job).await;
            }
        };
        tokio::select! {
            biased;
            () = shared.scope.stopping() => {}
            () = work => {}
        }
        // Those who wait learn it by their dropped replies; a process that is asked something is killed as it is dropped.
        shared.queue().clear();
        if let Some(worker) = self.worker.take() {
            drop(worker);
        }
    }

    /// Waits for a job; lets the process go when none comes for long.
    async fn next_job(&mut self) -> Option<Job> {
        let shared = self.shared.clone();
        let permit = if self.worker.is_some() {
            match timeout(shared.config.idle, shared.queued.acquire()).await {
                Ok(permit) => permit,
                Err(_) => {
                    if let Some(worker) = self.worker.take() {
                        worker.dismiss().await;
                    }
                    shared.queued.acquire().await
                }
            }
        } else {
            shared.queued.acquire().await
        };
        permit.ok()?.forget();
        shared.queue().pop_front()
    }

    async fn answer(&mut self, job: Job) {
        if job.reply.is_closed() {
            return;
        }
        let shared = self.shared.clone();
        let is_used = self.worker.is_some();
        let mut asked = self.ask(&job.request).await;
        if let Err(failure @ Failure::Died(_)) = &asked
            && is_used
        {
            // It may have been about to die anyway (by the kernel's or an operator's hand, or of what it did before): a
            // document is blamed only for a worker that was started for it.
            shared.note_failure(&job.document, failure);
            self.worker = None;
            self.back_off();
            asked = self.ask(&job.request).await;
        }
        let result = match asked {
            Ok(Answer::Refused { why, .. }) => {
                self.n_failures = 0;
                if why != Refusal::Unsupported {
                    tracing::warn!(document = job.document, %why, "a CRDT worker refused");
                    shared
                        .quarantine(&job.document, job.request.update.clone())
                        .await;
                }
                Err(WorkerError::Refused(why))
            }
            Ok(answer) => {
                self.n_failures = 0;
                Ok(answer)
            }
            Err(failure) => {
                self.worker = None;
                self.back_off();
                shared.note_failure(&job.document, &failure);
                if !matches!(failure, Failure::Start(_)) {
                    shared
                        .quarantine(&job.document, job.request.update.clone())
                        .await;
                }
                Err(WorkerError::Failed(failure))
            }
        };
        // Whoever asked may be gone.
        drop(job.reply.send(result));
    }

    fn back_off(&mut self) {
        let Config {
            restart_backoff,
            restart_backoff_max,
            ..
        } = self.shared.config;
        let doubled = 1_u32 << self.n_failures.min(16);
        let pause = restart_backoff.saturating_mul(doubled);
        self.not_before = Instant::now() + pause.min(restart_backoff_max).max(Duration::ZERO);
        self.n_failures = self.n_failures.saturating_add(1);
    }

    async fn ask(&mut self, request: &Request) -> Result<Answer, Failure> {
        let Shared {
            config,
            metrics,
            scope,
            processes,
            ..
        } = &*self.shared;
        // One that died while nobody asked is no document's fault.
        if self.worker.as_mut().is_some_and(Worker::has_ended) {
            self.worker = None;
        }
        let worker = match &mut self.worker {
            Some(worker) => worker,
            none => {
                sleep_until(self.not_before).await;
                none.insert(Worker::start(config, processes, scope).await?)
            }
        };
        metrics.worker_requests.inc();
        let answer = worker.ask(request, config.request_timeout).await?;
        let fits = match (request.task, &answer) {
            (Task::Collect, Answer::Collected { id, .. })
            | (Task::Visible, Answer::Visible { id, .. })
            | (_, Answer::Refused { id, .. }) => *id == request.id,
            _ => false,
        };
        if fits {
            Ok(answer)
        } else {
            worker.end().await;
            Err(Failure::WrongAnswer("it is to another question".into()))
        }
    }
}
