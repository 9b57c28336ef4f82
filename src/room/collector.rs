//! Collecting in worker processes, and the documents over which workers fail.
//!
//! A document can be made such that no worker survives it. Its room relays, logs and merges bytes all the same, so nobody
//! who edits notices; but every try costs a worker and perhaps its whole time limit. So after two failures the document
//! is flagged: in the metrics, in the log, and it is only merged for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::compaction::{Collecting, Collector};
use crate::doc::worker::{Pool, WorkerError};
use crate::ids::DocumentKey;
use crate::telemetry::Metrics;

/// Failures after which a document is flagged. The first may be chance: an operator's hand, a machine out of memory.
const FAILURES_MAX: u32 = 2;

/// Collects by a pool of workers.
#[derive(Debug)]
pub struct Workers {
    pool: Pool,
    spare: Duration,
    metrics: Arc<Metrics>,
    /// Documents that failed within the last `spare`: as many as workers had time to fail over.
    failed: Mutex<HashMap<DocumentKey, Failed>>,
}

#[derive(Debug, Clone, Copy)]
struct Failed {
    n: u32,
    last: Instant,
}

impl Failed {
    fn is_flagged(self) -> bool {
        self.n >= FAILURES_MAX
    }
}

impl Workers {
    /// `spare` is how long a document is left alone after two failures.
    pub fn new(pool: Pool, spare: Duration, metrics: Arc<Metrics>) -> Self {
        Self {
            pool,
            spare,
            metrics,
            failed: Mutex::default(),
        }
    }

    async fn try_collect(&self, document: &DocumentKey, merged: Bytes) -> Option<Bytes> {
        if self.is_flagged(document) {
            return None;
        }
        match self.pool.collect(&document.to_string(), merged).await {
            Ok(collected) => {
                self.worked(document);
                Some(collected.update.bytes().clone())
            }
            Err(error) if error.blames_document() => {
                self.failed_over(document, &error);
                None
            }
            Err(error) => {
                debug!(%document, %error, "collect; the merged bytes stand in");
                None
            }
        }
    }

    fn is_flagged(&self, document: &DocumentKey) -> bool {
        let now = Instant::now();
        let mut failed = self.lock();
        failed.retain(|_, failed| now.duration_since(failed.last) < self.spare);
        self.count(&failed);
        failed
            .get(document)
            .is_some_and(|failed| failed.is_flagged())
    }

    fn worked(&self, document: &DocumentKey) {
        if self.lock().remove(document).is_some() {
            info!(%document, "the document could be collected again");
        }
    }

    fn failed_over(&self, document: &DocumentKey, error: &WorkerError) {
        let mut failed = self.lock();
        let entry = failed.entry(document.clone()).or_insert(Failed {
            n: 0,
            last: Instant::now(),
        });
        entry.n += 1;
        entry.last = Instant::now();
        if entry.is_flagged() {
            warn!(%document, %error, spared_s = self.spare.as_secs(), "workers failed over this document again: it is flagged, \
                  and only merged for a while; editing goes on");
        } else {
            warn!(%document, %error, "a worker failed over this document; the merged bytes stand in");
        }
        self.count(&failed);
    }

    fn count(&self, failed: &HashMap<DocumentKey, Failed>) {
        let n_flagged = failed.values().filter(|failed| failed.is_flagged()).count();
        self.metrics.flagged_documents.set(n_flagged as u64);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DocumentKey, Failed>> {
        // Nothing under this lock panics halfway.
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Workers {
    fn collect<'a>(&'a self, document: &'a DocumentKey, merged: Bytes) -> Collecting<'a> {
        Box::pin(self.try_collect(document, merged))
    }
}
