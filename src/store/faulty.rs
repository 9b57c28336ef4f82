//! Faults as a wrapper around any store: what a test needs to see how the rest behaves when the database is slow, down,
//! full, or has done what it was asked to and could not say so.
//!
//! The knobs are shared: keep a clone of the `Arc<Store>` and turn them while the node runs.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use tokio::sync::watch;

use crate::ids::{DocumentKey, Epoch};

use super::{
    AppendError, AppendOutcome, CompactError, CompactOutcome, Compaction, DeleteError, DocStore,
    Failure, ListedSegment, LoadError, Loaded, LogRow, RecreateError, StoreFuture,
};

/// A store with knobs in front of it. Without a knob turned it is the inner store.
#[derive(Debug)]
pub struct Store {
    inner: Arc<dyn DocStore>,
    n_fail_appends: AtomicU64,
    n_lose_replies: AtomicU64,
    n_fail_loads: AtomicU64,
    n_fail_compactions: AtomicU64,
    n_lose_compactions: AtomicU64,
    disk_full: AtomicBool,
    held: watch::Sender<bool>,
    held_compactions: watch::Sender<bool>,
    n_appends: AtomicU64,
    n_loads: AtomicU64,
    n_compactions: AtomicU64,
}

impl Store {
    /// In front of a store.
    pub fn new(inner: Arc<dyn DocStore>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            n_fail_appends: AtomicU64::new(0),
            n_lose_replies: AtomicU64::new(0),
            n_fail_loads: AtomicU64::new(0),
            n_fail_compactions: AtomicU64::new(0),
            n_lose_compactions: AtomicU64::new(0),
            disk_full: AtomicBool::new(false),
            held: watch::Sender::new(false),
            held_compactions: watch::Sender::new(false),
            n_appends: AtomicU64::new(0),
            n_loads: AtomicU64::new(0),
            n_compactions: AtomicU64::new(0),
        })
    }

    /// In front of an empty memory store.
    pub fn memory() -> Arc<Self> {
        Self::new(Arc::new(super::memory::Store::new()))
    }

    /// The next `n` appends fail and store nothing.
    pub fn fail_appends(&self, n: u64) {
        self.n_fail_appends.store(n, SeqCst);
    }

    /// The next `n` appends are stored, and report a failure all the same: the outcome is unknown to the caller.
    pub fn lose_replies(&self, n: u64) {
        self.n_lose_replies.store(n, SeqCst);
    }

    /// The next `n` loads fail.
    pub fn fail_loads(&self, n: u64) {
        self.n_fail_loads.store(n, SeqCst);
    }

    /// The next `n` compactions fail and change nothing.
    pub fn fail_compactions(&self, n: u64) {
        self.n_fail_compactions.store(n, SeqCst);
    }

    /// The next `n` compactions are done, and report a failure all the same.
    pub fn lose_compactions(&self, n: u64) {
        self.n_lose_compactions.store(n, SeqCst);
    }

    /// Compactions that begin from now on wait until [`Store::release_compactions`].
    pub fn hold_compactions(&self) {
        self.held_compactions.send_replace(true);
    }

    /// Lets the waiting compactions go on.
    pub fn release_compactions(&self) {
        self.held_compactions.send_replace(false);
    }

    /// How many compactions were asked for, failed ones included.
    pub fn n_compactions(&self) -> u64 {
        self.n_compactions.load(SeqCst)
    }

    /// While true, every append and every compaction fails for want of space.
    pub fn set_disk_full(&self, full: bool) {
        self.disk_full.store(full, SeqCst);
    }

    /// Appends that begin from now on wait until [`Store::release_appends`].
    pub fn hold_appends(&self) {
        self.held.send_replace(true);
    }

    /// Lets the waiting appends go on.
    pub fn release_appends(&self) {
        self.held.send_replace(false);
    }

    /// How many appends were asked for, failed ones included.
    pub fn n_appends(&self) -> u64 {
        self.n_appends.load(SeqCst)
    }

    /// How many loads were asked for, failed ones included.
    pub fn n_loads(&self) -> u64 {
        self.n_loads.load(SeqCst)
    }
}

/// Takes one from a countdown; false when it stands at zero.
fn take(countdown: &AtomicU64) -> bool {
    countdown
        .fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1))
        .is_ok()
}

impl DocStore for Store {
    fn load<'a>(
        &'a self,
        key: &'a DocumentKey,
        epoch_if_new: Epoch,
    ) -> StoreFuture<'a, Loaded, LoadError> {
        Box::pin(async move {
            self.n_loads.fetch_add(1, SeqCst);
            if take(&self.n_fail_loads) {
                return Err(Failure::new("injected fault: load").into());
            }
            self.inner.load(key, epoch_if_new).await
        })
    }

    fn append<'a>(&'a self, rows: &'a [LogRow]) -> StoreFuture<'a, AppendOutcome, AppendError> {
        Box::pin(async move {
            self.n_appends.fetch_add(1, SeqCst);
            // The sender lives as long as `self`, so waiting cannot end otherwise.
            let _ = self.held.subscribe().wait_for(|held| !held).await;
            if self.disk_full.load(SeqCst) {
                return Err(AppendError::DiskFull);
            }
            if take(&self.n_fail_appends) {
                return Err(Failure::new("injected fault: append").into());
            }
            let outcome = self.inner.append(rows).await?;
            if take(&self.n_lose_replies) {
                return Err(Failure::new("injected fault: reply lost").into());
            }
            Ok(outcome)
        })
    }

    fn compact<'a>(
        &'a self,
        compaction: &'a Compaction,
    ) -> StoreFuture<'a, CompactOutcome, CompactError> {
        Box::pin(async move {
            self.n_compactions.fetch_add(1, SeqCst);
            // As with appends.
            let _ = self
                .held_compactions
                .subscribe()
                .wait_for(|held| !held)
                .await;
            if self.disk_full.load(SeqCst) {
                return Err(CompactError::DiskFull);
            }
            if take(&self.n_fail_compactions) {
                return Err(Failure::new("injected fault: compaction").into());
            }
            let outcome = self.inner.compact(compaction).await?;
            if take(&self.n_lose_compactions) {
                return Err(Failure::new("injected fault: reply lost").into());
            }
            Ok(outcome)
        })
    }

    fn segments<'a>(
        &'a self,
        key: &'a DocumentKey,
    ) -> StoreFuture<'a, Vec<ListedSegment>, LoadError> {
        self.inner.segments(key)
    }

    fn read_segment<'a>(
        &'a self,
        key: &'a DocumentKey,
        number: u64,
    ) -> StoreFuture<'a, Option<Vec<LogRow>>, LoadError> {
        self.inner.read_segment(key, number)
    }

    fn delete<'a>(&'a self, key: &'a DocumentKey) -> StoreFuture<'a, Epoch, DeleteError> {
        self.inner.delete(key)
    }

    fn recreate<'a>(
        &'a self,
        key: &'a DocumentKey,
        epoch: Epoch,
    ) -> StoreFuture<'a, (), RecreateError> {
        self.inner.recreate(key, epoch)
    }

    fn ping(&self) -> StoreFuture<'_, (), Failure> {
        self.inner.ping()
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.inner.close()
    }
}
