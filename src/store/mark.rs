//! How far a room's edits are safe on the machine: the one number that the committer hands to a room.
//!
//! Latest wins, so there is no queue between the two that could fill. One mark belongs to one open room and one origin
//! (the node's incarnation); the room makes it from the sequence at which it was loaded.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

/// The committed position of one room and origin. The room's actor is its only waiter; the committer moves it.
#[derive(Debug)]
pub struct DurableMark {
    submitted: AtomicU64,
    durable: AtomicU64,
    replaced: AtomicBool,
    // `notify_one` keeps one permit, so a change between two waits is not missed and many changes are one wake.
    changed: Notify,
}

impl DurableMark {
    /// A mark that starts where the store stood when the room was loaded: the position's sequence of this origin.
    pub fn new(durable: u64) -> Self {
        Self {
            submitted: AtomicU64::new(durable),
            durable: AtomicU64::new(durable),
            replaced: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    /// Every sequence up to this one that was submitted with this mark is committed.
    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// The highest sequence that was handed to the committer with this mark. A room may be closed only when `durable`
    /// has reached it (or the mark is replaced): the next opening counts on from what it finds in the store (ST33).
    pub fn submitted(&self) -> u64 {
        self.submitted.load(Ordering::Acquire)
    }

    /// Whether a row was refused for good: the document was deleted or made again under another epoch. `durable` does
    /// not move any more; the room has to be closed and loaded anew.
    pub fn replaced(&self) -> bool {
        self.replaced.load(Ordering::Acquire)
    }

    /// Waits until `durable` or `replaced` has changed since the last time that this returned. For one waiter at a
    /// time. Cancel safe: a change that a dropped wait was told of is told to the next.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Notes that rows up to `sequence` are on their way. Sequences only grow: a room that goes backwards would be
    /// acknowledged for what it has not saved, so it stops here, in the room's own task (ST33).
    pub(super) fn submit(&self, sequence: u64) {
        let before = self.submitted.swap(sequence, Ordering::AcqRel);
        assert!(
            before < sequence,
            "sequence {sequence} was submitted after {before}"
        );
    }

    /// Everything submitted up to `sequence` is committed.
    pub(super) fn advance(&self, sequence: u64) {
        if self.replaced() {
            return;
        }
        let before = self.durable.swap(sequence, Ordering::AcqRel);
        assert!(
            before < sequence,
            "the durable mark went from {before} to {sequence}"
        );
        self.changed.notify_one();
    }

    /// A row was refused for good.
    pub(super) fn replace(&self) {
        self.replaced.store(true, Ordering::Release);
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn is_ready(mark: &DurableMark) -> bool {
        let mut wait = pin!(mark.changed());
        wait.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn a_change_is_told_once_and_the_latest_wins() {
        let mark = DurableMark::new(4);
        assert_eq!(mark.durable(), 4);
        assert!(!is_ready(&mark));
        mark.submit(9);
        mark.advance(5);
        mark.advance(9);
        assert!(is_ready(&mark));
        assert!(!is_ready(&mark));
        assert_eq!((mark.durable(), mark.submitted()), (9, 9));
    }

    #[test]
    fn st33_nothing_is_durable_after_a_refused_row() {
        let mark = DurableMark::new(0);
        mark.advance(1);
        mark.replace();
        mark.advance(2);
        assert_eq!(mark.durable(), 1);
        assert!(mark.replaced());
    }

    #[test]
    #[should_panic(expected = "was submitted after")]
    fn st33_sequences_only_grow() {
        let mark = DurableMark::new(4);
        mark.submit(4);
    }
}
