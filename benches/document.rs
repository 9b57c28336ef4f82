//! What a room does with bytes: scan, admission, merge, diff, join; beside each, what yrs takes for the same.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use syncline::doc::{
    Document, DocumentLimits, ScanLimits, StateVector, TailUpdate, merge as merge_bytes, scan,
};
use syncline::ids::Origin;
use syncline::protocol::position::Position;
use yrs::updates::decoder::Decode;
use yrs::updates::encoder::Encode;
use yrs::{Doc, ReadTxn, Transact, Update};

use crate::hot;
use crate::report::{Case, Report};
use crate::trace::{N_LIVE, TRACE, Trace};

pub(crate) const ORIGIN: Origin = Origin::from_bytes([1; 8]);

/// How many rows of the log stand behind a stored snapshot when somebody comes to a cold document.
const N_ROWS: usize = 1_000;

pub(crate) fn all(report: &mut Report) {
    let trace = &*TRACE;
    scans(report, trace);
    admission(report, trace);
    merges(report, trace);
    diffs(report, trace);
    joins(report, trace);
}

/// The document of the trace, as a room holds it.
pub(crate) fn loaded(trace: &Trace) -> Document {
    Document::load(
        DocumentLimits::default(),
        Some(trace.document.clone()),
        Position::new(),
        Vec::new(),
    )
    .expect("the trace's document is well-formed")
}

fn row(n: usize, update: &Bytes) -> TailUpdate {
    TailUpdate {
        origin: ORIGIN,
        sequence: n as u64 + 1,
        bytes: update.clone(),
    }
}

fn rows(updates: &[Bytes]) -> Vec<TailUpdate> {
    let numbered = updates.iter().enumerate();
    numbered.map(|(n, update)| row(n, update)).collect()
}

fn yrs_doc(document: &[u8]) -> Doc {
    let doc = Doc::with_client_id(1);
    yrs_apply(&doc, document);
    doc
}

fn yrs_apply(doc: &Doc, update: &[u8]) {
    let update = Update::decode_v1(update).expect("yrs reads what it wrote");
    let mut txn = doc.transact_mut();
    txn.apply_update(update).expect("yrs applies what it wrote");
}

/// Times `each` on so many updates; whenever they are used up, `fresh` makes another document, off the clock.
fn over_updates<D>(
    mut left: u64,
    updates: &[Bytes],
    fresh: impl Fn() -> D,
    each: impl Fn(&mut D, &[Bytes]),
) -> Duration {
    let mut taken = Duration::ZERO;
    while left > 0 {
        let n = left.min(updates.len() as u64);
        let mut document = fresh();
        let start = Instant::now();
        each(&mut document, &updates[..n as usize]);
        taken += start.elapsed();
        left -= n;
    }
    taken
}

fn scans(report: &mut Report, trace: &Trace) {
    report.each(Case::new("scan-typing", N_LIVE, "update"), || {
        hot::scan(&trace.typing);
    });
    report.each(Case::new("scan-trace", N_LIVE, "update"), || {
        hot::scan(&trace.live);
    });
    report.each(Case::new("scan-document", 1, "document"), || {
        scan(&trace.document, &ScanLimits::initial_sync()).map(black_box)
    });
}

fn admission(report: &mut Report, trace: &Trace) {
    let names = [
        ("admit-typing", "yrs-apply-typing", &trace.typing),
        ("admit-trace", "yrs-apply-trace", &trace.live),
    ];
    for (ours, theirs, updates) in names {
        report.time(
            Case::new(ours, 1, "update").goal(100.0).against(theirs),
            |n| over_updates(n, updates, || loaded(trace), hot::admit),
        );
        report.time(Case::new(theirs, 1, "update"), |n| {
            over_updates(
                n,
                updates,
                || yrs_doc(&trace.document),
                |doc, updates| updates.iter().for_each(|update| yrs_apply(doc, update)),
            )
        });
    }
    report.time(Case::new("admit-push-typing", 1, "update"), |n| {
        over_updates(n, &trace.typing, || loaded(trace), hot::admit_and_push)
    });
    // A client that comes back says everything it has; nothing of it is news.
    report.time(Case::new("admit-known-document", 1, "document"), |n| {
        let mut document = loaded(trace);
        let start = Instant::now();
        for _ in 0..n {
            hot::admit(&mut document, std::slice::from_ref(&trace.document));
        }
        start.elapsed()
    });
}

fn merges(report: &mut Report, trace: &Trace) {
    const SIZES: [(usize, &str, &str); 4] = [
        (10, "merge-10", "yrs-merge-10"),
        (100, "merge-100", "yrs-merge-100"),
        (1_000, "merge-1000", "yrs-merge-1000"),
        (10_000, "merge-10000", "yrs-merge-10000"),
    ];
    // All live edits in every case, so that all merge the same mix.
    for (n, ours, theirs) in SIZES {
        let mut case = Case::new(ours, N_LIVE, "update").against(theirs);
        if n == 1_000 {
            case = case.goal(150.0);
        }
        report.each(case, || merge_chunks(&trace.live, n));
        report.each(Case::new(theirs, N_LIVE, "update"), || {
            yrs_merge_chunks(&trace.live, n);
        });
    }
    let typing = Case::new("merge-1000-typing", N_LIVE, "update").goal(150.0);
    report.each(typing.against("yrs-merge-1000-typing"), || {
        merge_chunks(&trace.typing, 1_000);
    });
    report.each(Case::new("yrs-merge-1000-typing", N_LIVE, "update"), || {
        yrs_merge_chunks(&trace.typing, 1_000)
    });
}

fn merge_chunks(updates: &[Bytes], n: usize) {
    for chunk in updates.chunks(n) {
        black_box(hot::merge(chunk));
    }
}

fn yrs_merge_chunks(updates: &[Bytes], n: usize) {
    for chunk in updates.chunks(n) {
        black_box(yrs::merge_updates_v1(chunk)).expect("yrs reads what it wrote");
    }
}

/// What a member that has everything up to some clock still lacks.
fn diffs(report: &mut Report, trace: &Trace) {
    let mut document = loaded(trace);
    document.full();
    let whole: Vec<(u64, u64)> = document.state_vector().iter().collect();
    let back = |by: u64| -> StateVector {
        let entries = whole.iter();
        entries
            .map(|(client, clock)| (*client, clock.saturating_sub(by)))
            .collect()
    };
    let half = back(whole.first().map_or(0, |(_, clock)| clock / 2));
    let theirs = yrs::StateVector::decode_v1(&half.encode()).expect("yrs reads a state vector");
    let near = back(100);
    report.each(
        Case::new("diff-half", 1, "diff").against("yrs-diff-half"),
        || document.diff(&half),
    );
    let doc = yrs_doc(&trace.document);
    report.each(Case::new("yrs-diff-half", 1, "diff"), || {
        doc.transact().encode_diff_v1(&theirs)
    });
    report.each(Case::new("diff-last-100", 1, "diff"), || {
        hot::diff(&mut document, &near)
    });
}

fn joins(report: &mut Report, trace: &Trace) {
    let rows = rows(&trace.live[..N_ROWS]);
    report.time(
        Case::new("join-cold", 1, "join").against("yrs-join-cold"),
        |n| {
            let mut taken = Duration::ZERO;
            for _ in 0..n {
                let rows = rows.clone();
                let start = Instant::now();
                let joined = hot::cold_join(&trace.document, rows);
                taken += start.elapsed();
                drop(black_box(joined));
            }
            taken
        },
    );
    report.time(Case::new("yrs-join-cold", 1, "join"), |n| {
        let mut taken = Duration::ZERO;
        for _ in 0..n {
            let start = Instant::now();
            let doc = yrs_doc(&trace.document);
            {
                let mut txn = doc.transact_mut();
                for row in &rows {
                    let update = Update::decode_v1(&row.bytes).expect("yrs reads what it wrote");
                    txn.apply_update(update).expect("yrs applies what it wrote");
                }
            }
            let state = doc
                .transact()
                .encode_state_as_update_v1(&yrs::StateVector::default());
            taken += start.elapsed();
            drop(black_box((doc, state)));
        }
        taken
    });
    report.time(Case::new("join-cold-no-rows", 1, "join"), |n| {
        let start = Instant::now();
        for _ in 0..n {
            black_box(hot::cold_join(&trace.document, Vec::new()));
        }
        start.elapsed()
    });
    let mut document = loaded(trace);
    report.each(Case::new("join-warm-unchanged", 1, "join"), || {
        document.full()
    });
    // Somebody typed since the last join: the first newcomer pays for a merge, the others share it.
    report.time(Case::new("join-warm-after-an-edit", 1, "join"), |n| {
        let mut taken = Duration::ZERO;
        let mut left = n;
        while left > 0 {
            let mut document = loaded(trace);
            document.full();
            for (n, update) in trace.typing.iter().enumerate().take(left as usize) {
                hot::admit_and_push_one(&mut document, n, update);
                let start = Instant::now();
                black_box(document.full());
                taken += start.elapsed();
                left -= 1;
            }
        }
        taken
    });
    assert_same(trace, &rows);
}

/// What was measured is right: yrs sees the same text in what a newcomer gets.
fn assert_same(trace: &Trace, rows: &[TailUpdate]) {
    use yrs::GetString;
    let text = |doc: &Doc| doc.get_or_insert_text("text").get_string(&doc.transact());
    let theirs = yrs_doc(&trace.document);
    rows.iter().for_each(|row| yrs_apply(&theirs, &row.bytes));
    let ours = yrs_doc(&hot::cold_join(&trace.document, rows.to_vec()).1);
    assert!(text(&ours) == text(&theirs), "a cold join lost text");
    let (ours, theirs) = (&ours.transact(), &theirs.transact());
    assert_eq!(ours.state_vector(), theirs.state_vector());
    let merged = merge_bytes(&trace.live[..N_ROWS]).expect("the trace is well-formed");
    let later = yrs_doc(&trace.document);
    yrs_apply(&later, &merged);
    assert_eq!(
        later.transact().state_vector().encode_v1(),
        theirs.state_vector().encode_v1()
    );
}
