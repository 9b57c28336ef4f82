//! The hot paths, one function each and never inlined, so that a profiler and callgrind find them by name.

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use syncline::doc::{Document, DocumentLimits, ScanLimits, StateVector, TailUpdate};
use syncline::protocol::position::Position;

use crate::document::{ORIGIN, loaded};
use crate::trace::{N_LIVE, TRACE};

/// Scans updates.
#[inline(never)]
pub(crate) fn scan(updates: &[Bytes]) {
    let limits = ScanLimits::default();
    for update in updates {
        black_box(syncline::doc::scan(update, &limits)).expect("the trace is well-formed");
    }
}

/// Scans updates and admits them.
#[inline(never)]
pub(crate) fn admit(document: &mut Document, updates: &[Bytes]) {
    // Of an initial sync, so that a whole document passes too; the checks are the same.
    let limits = ScanLimits::initial_sync();
    let now = Instant::now();
    for update in updates {
        let scanned = syncline::doc::scan(update, &limits).expect("the trace is well-formed");
        black_box(document.admit(&scanned, now)).expect("the trace fits its document");
    }
}

/// Scans updates, admits them, and pushes what is news: all that a document does for an edit.
#[inline(never)]
pub(crate) fn admit_and_push(document: &mut Document, updates: &[Bytes]) {
    for (n, update) in updates.iter().enumerate() {
        admit_and_push_one(document, n, update);
    }
}

/// The same for one update, the `n`th.
pub(crate) fn admit_and_push_one(document: &mut Document, n: usize, update: &Bytes) {
    let limits = ScanLimits::default();
    let scanned = syncline::doc::scan(update, &limits).expect("the trace is well-formed");
    let admission = document
        .admit(&scanned, Instant::now())
        .expect("the trace fits its document");
    for bytes in admission.news {
        document.push(TailUpdate {
            origin: ORIGIN,
            sequence: n as u64 + 1,
            bytes,
        });
    }
}

/// Merges updates.
#[inline(never)]
pub(crate) fn merge(updates: &[Bytes]) -> Bytes {
    syncline::doc::merge(updates).expect("the trace is well-formed")
}

/// What a member lacks.
#[inline(never)]
pub(crate) fn diff(document: &mut Document, from: &StateVector) -> Bytes {
    document.diff(from)
}

/// From what is stored to what a newcomer is sent.
#[inline(never)]
pub(crate) fn cold_join(snapshot: &Bytes, rows: Vec<TailUpdate>) -> (Document, Bytes) {
    let limits = DocumentLimits::default();
    let mut document = Document::load(limits, Some(snapshot.clone()), Position::new(), rows)
        .expect("the trace is well-formed");
    let full = document.full();
    (document, full)
}

/// Runs each hot path once, for callgrind: `benches/README.md` has the command. Says how many units each did.
pub(crate) fn count() {
    let trace = &*TRACE;
    scan(&trace.typing);
    println!("hot::scan: {N_LIVE} updates");
    admit(&mut loaded(trace), &trace.typing);
    println!("hot::admit: {N_LIVE} updates");
    for updates in trace.live.chunks(1_000) {
        black_box(merge(updates));
    }
    println!("hot::merge: {N_LIVE} updates");
    let mut document = loaded(trace);
    document.full();
    let near: StateVector = document
        .state_vector()
        .iter()
        .map(|(client, clock)| (client, clock.saturating_sub(100)))
        .collect();
    black_box(document.diff(&near));
    black_box(diff(&mut document, &near));
    println!("hot::diff: 1 diff");
    black_box(cold_join(&trace.document, Vec::new()));
    println!("hot::cold_join: 1 join");
}
