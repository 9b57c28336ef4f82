//! The transaction of a compaction, on every store (STORAGE.md, sections 2 and 7). A snapshot says here which rows it
//! holds, so that a test sees what a load finds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use syncline::ids::{DocumentKey, Epoch, Origin};
use syncline::protocol::position::Position;
use syncline::shutdown::Scope;
use syncline::store::{CompactOutcome, Compaction, DocStore, Loaded, LogRow, segment};

use super::{Fixture, Rows, append, create, key, load, origin};

/// A snapshot that says which rows it holds; a store does not look into it.
fn snapshot_of(rows: &BTreeSet<(Origin, u64)>) -> Bytes {
    let mut out = Vec::new();
    for (origin, sequence) in rows {
        out.extend_from_slice(origin.as_bytes());
        out.extend_from_slice(&sequence.to_be_bytes());
    }
    out.into()
}

fn rows_of(snapshot: &Bytes) -> BTreeSet<(Origin, u64)> {
    snapshot
        .chunks_exact(16)
        .map(|entry| {
            let sequence = u64::from_be_bytes(entry[8..].try_into().unwrap());
            (Origin::from_slice(&entry[..8]).unwrap(), sequence)
        })
        .collect()
}

/// Every row that a load finds, in the snapshot or in the log.
fn all_of(loaded: &Loaded) -> BTreeSet<(Origin, u64)> {
    let mut all = loaded.snapshot.as_ref().map(rows_of).unwrap_or_default();
    all.extend(loaded.rows.iter().map(|row| (row.origin, row.sequence)));
    all
}

/// Folds `rows`, which were loaded.
fn compaction(rows: &Rows, loaded: &Loaded, folds: &[LogRow]) -> Compaction {
    let mut held = loaded.snapshot.as_ref().map(rows_of).unwrap_or_default();
    let mut folded = loaded.folded.clone();
    for row in folds {
        held.insert((row.origin, row.sequence));
        folded.advance(row.origin, row.sequence);
    }
    Compaction {
        key: rows.key.clone(),
        epoch: loaded.epoch,
        base_version: loaded.version,
        snapshot: snapshot_of(&held),
        folded,
        digest: Bytes::from(vec![held.len() as u8; 3]),
        rows: folds.iter().map(|row| (row.origin, row.sequence)).collect(),
        segments: segment::seal(folds),
        time_ms: 1_700_000_000_000,
    }
}

async fn compact(store: &dyn DocStore, compaction: &Compaction) -> CompactOutcome {
    store.compact(compaction).await.unwrap()
}

/// Every row that the segments hold, in the order in which they hold them.
pub(super) async fn history(store: &dyn DocStore, key: &DocumentKey) -> Vec<LogRow> {
    let mut rows = Vec::new();
    for listed in store.segments(key).await.unwrap() {
        let read = store
            .read_segment(key, listed.number)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(read.len() as u64, listed.info.n_rows);
        assert!(listed.packed_bytes > 0);
        rows.extend(read);
    }
    rows
}

pub(super) async fn st41_a_compaction_puts_a_snapshot_in_the_place_of_rows(fixture: Fixture) {
    let store = fixture.open().await;
    let rows = create(&*store, key("compacted")).await;
    let other = create(&*store, key("other")).await;
    append(&*store, &other.range(1, 1..=3)).await;
    append(&*store, &rows.range(1, 1..=300)).await;
    append(&*store, &rows.range(2, 1..=50)).await;

    let loaded = load(&*store, &rows.key).await;
    assert_eq!((loaded.version, loaded.digest.len()), (0, 0));
    let folds = [rows.range(1, 1..=200), rows.range(2, 7..=7)].concat();
    let first = compaction(&rows, &loaded, &folds);
    assert_eq!(
        compact(&*store, &first).await,
        CompactOutcome::Done { version: 1 }
    );
    let loaded = load(&*store, &rows.key).await;
    assert_eq!(loaded.version, 1);
    assert_eq!(loaded.snapshot, Some(first.snapshot.clone()));
    assert_eq!(loaded.digest, first.digest);
    assert_eq!(loaded.folded, first.folded);
    let rest = [
        rows.range(1, 201..=300),
        rows.range(2, 1..=6),
        rows.range(2, 8..=50),
    ]
    .concat();
    assert_eq!(loaded.rows, rest);

    // The next one, of all that is left.
    let second = compaction(&rows, &loaded, &loaded.rows);
    assert_eq!(
        compact(&*store, &second).await,
        CompactOutcome::Done { version: 2 }
    );
    let loaded = load(&*store, &rows.key).await;
    assert!(loaded.rows.is_empty());
    assert_eq!(all_of(&loaded).len(), 350);
    assert_eq!(load(&*store, &other.key).await.rows, other.range(1, 1..=3));
}

pub(super) async fn st41_of_compactions_at_once_one_wins(fixture: Fixture) {
    let store = fixture.open().await;
    let rows = create(&*store, key("raced")).await;
    let scope = Scope::new();
    for round in 0..5_u64 {
        append(&*store, &rows.range(1, round * 100 + 1..=round * 100 + 100)).await;
        let loaded = Arc::new(load(&*store, &rows.key).await);
        let tasks: Vec<_> = (1..=4_usize)
            .map(|n| {
                let (store, rows, loaded) = (store.clone(), rows.clone(), loaded.clone());
                scope.spawn(async move {
                    // Each of another part of the rows.
                    let compaction = compaction(&rows, &loaded, &loaded.rows[..20 * n]);
                    store.compact(&compaction).await.unwrap()
                })
            })
            .collect();
        let mut n_done = 0;
        for task in tasks {
            match task.await.unwrap() {
                CompactOutcome::Done { version } => {
                    assert_eq!(version, round + 1);
                    n_done += 1;
                }
                CompactOutcome::Raced => {}
            }
        }
        assert_eq!(n_done, 1, "round {round}");
        let all = all_of(&load(&*store, &rows.key).await);
        assert_eq!(all.len() as u64, (round + 1) * 100);
        let kept = history(&*store, &rows.key).await.len();
        let live = load(&*store, &rows.key).await.rows.len();
        assert_eq!((kept + live) as u64, (round + 1) * 100);
    }
}

pub(super) async fn st42_exactly_the_rows_that_were_read_leave(fixture: Fixture) {
    let store = fixture.open().await;
    let rows = create(&*store, key("exact")).await;
    append(&*store, &rows.range(1, 1..=9)).await;
    append(&*store, &rows.range(1, 20..=29)).await;
    let loaded = load(&*store, &rows.key).await;
    let compaction = compaction(&rows, &loaded, &loaded.rows);
    // Between the reading and the commit: within the range, after it, and of another origin.
    let later = [
        rows.range(1, 10..=12),
        rows.range(1, 30..=31),
        rows.range(2, 1..=1),
    ]
    .concat();
    append(&*store, &later).await;
    assert_eq!(
        compact(&*store, &compaction).await,
        CompactOutcome::Done { version: 1 }
    );
    let loaded = load(&*store, &rows.key).await;
    assert_eq!(loaded.rows, later);
    assert_eq!(all_of(&loaded).len(), 25);
    // A retry of an append whose rows were compacted meanwhile doubles nothing that matters: they are found by key.
    append(&*store, &rows.range(1, 1..=2)).await;
    assert_eq!(all_of(&load(&*store, &rows.key).await).len(), 25);
}

pub(super) async fn st41_a_compaction_of_what_is_not_there_changes_nothing(fixture: Fixture) {
    let store = fixture.open().await;
    let rows = create(&*store, key("changed")).await;
    append(&*store, &rows.range(1, 1..=9)).await;
    let loaded = load(&*store, &rows.key).await;
    let good = compaction(&rows, &loaded, &loaded.rows);
    let wrong = [
        Compaction {
            epoch: Epoch::random(),
            ..good.clone()
        },
        Compaction {
            base_version: 1,
            ..good.clone()
        },
        Compaction {
            rows: vec![(origin(1), 3), (origin(1), 10)],
            ..good.clone()
        },
        Compaction {
            key: key("nobody made it"),
            ..good.clone()
        },
    ];
    for compaction in &wrong {
        assert_eq!(compact(&*store, compaction).await, CompactOutcome::Raced);
        assert_eq!(load(&*store, &rows.key).await, loaded);
    }
    assert!(store.segments(&rows.key).await.unwrap().is_empty());
    assert!(
        store
            .segments(&key("nobody made it"))
            .await
            .unwrap()
            .is_empty()
    );

    store.delete(&rows.key).await.unwrap();
    assert_eq!(compact(&*store, &good).await, CompactOutcome::Raced);
    assert_eq!(load(&*store, &rows.key).await.snapshot, None);
}

pub(super) async fn st9_deleting_takes_snapshot_and_history_too(fixture: Fixture) {
    let store = fixture.open().await;
    let rows = create(&*store, key("deleted whole")).await;
    append(&*store, &rows.range(1, 1..=9)).await;
    let loaded = load(&*store, &rows.key).await;
    compact(&*store, &compaction(&rows, &loaded, &loaded.rows)).await;
    store.delete(&rows.key).await.unwrap();
    let deleted = load(&*store, &rows.key).await;
    assert_eq!((deleted.version, deleted.snapshot), (0, None));
    assert!(store.segments(&rows.key).await.unwrap().is_empty());
    assert_eq!(store.read_segment(&rows.key, 1).await.unwrap(), None);
    store.recreate(&rows.key, Epoch::random()).await.unwrap();
    assert_eq!(load(&*store, &rows.key).await.folded, Position::new());
}

pub(super) async fn st43_snapshots_of_any_size_come_back(fixture: Fixture) {
    let store = fixture.open().await;
    let rows = create(&*store, key("large")).await;
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    let incompressible: Vec<u8> = (0..700_000)
        .flat_map(|_| {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            noise.to_le_bytes()
        })
        .collect();
    let snapshots = [
        Bytes::from(incompressible),
        Bytes::from(vec![7; 20 << 20]),
        Bytes::from_static(&[0, 0]),
        Bytes::from(vec![1; 1 << 20]),
    ];
    for (snapshot, sequence) in snapshots.into_iter().zip(1..) {
        append(&*store, &rows.range(1, sequence..=sequence)).await;
        let loaded = load(&*store, &rows.key).await;
        let compaction = Compaction {
            snapshot: snapshot.clone(),
            folded: loaded.folded.clone(),
            ..opaque(&rows, &loaded)
        };
        compact(&*store, &compaction).await;
        let loaded = load(&*store, &rows.key).await;
        assert!(loaded.snapshot == Some(snapshot), "{sequence}");
        assert_eq!(loaded.version, sequence);
    }
}

pub(super) async fn st4_a_load_sees_all_while_rows_come_and_go(fixture: Fixture) {
    const N_ROWS: u64 = 1_500;
    let store = fixture.open().await;
    let rows = create(&*store, key("busy")).await;
    let scope = Scope::new();
    let done = Arc::new(AtomicBool::new(false));
    let (committed, n_compacted) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let writer = {
        let (store, rows) = (store.clone(), rows.clone());
        let (committed, n_compacted) = (committed.clone(), n_compacted.clone());
        scope.spawn(async move {
            for sequence in 1..=N_ROWS / 10 {
                append(&*store, &rows.range(1, sequence * 10 - 9..=sequence * 10)).await;
                committed.store(sequence * 10, Ordering::SeqCst);
                // In memory all rows may be there before anybody has compacted.
                while n_compacted.load(Ordering::SeqCst) == 0 {
                    tokio::task::yield_now().await;
                }
            }
        })
    };
    let compactors: Vec<_> = (0..2)
        .map(|_| {
            let (store, rows, done) = (store.clone(), rows.clone(), done.clone());
            let n_compacted = n_compacted.clone();
            scope.spawn(async move {
                while !done.load(Ordering::SeqCst) {
                    let loaded = load(&*store, &rows.key).await;
                    let compaction = compaction(&rows, &loaded, &loaded.rows);
                    match compact(&*store, &compaction).await {
                        CompactOutcome::Done { .. } => {
                            n_compacted.fetch_add(1, Ordering::SeqCst);
                        }
                        CompactOutcome::Raced => {}
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    while !writer.is_finished() {
        let before = committed.load(Ordering::SeqCst);
        let all = all_of(&load(&*store, &rows.key).await);
        let expected: BTreeSet<_> = (1..=all.len() as u64).map(|n| (origin(1), n)).collect();
        assert_eq!(all, expected, "a hole");
        assert!(all.len() as u64 >= before, "rows went away");
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    done.store(true, Ordering::SeqCst);
    for compactor in compactors {
        compactor.await.unwrap();
    }
    let loaded = load(&*store, &rows.key).await;
    assert_eq!(all_of(&loaded).len() as u64, N_ROWS);
    let mut kept = history(&*store, &rows.key).await;
    kept.extend(loaded.rows);
    assert_eq!(kept, rows.range(1, 1..=N_ROWS));
}

pub(super) async fn st53_segments_keep_what_left_the_log(fixture: Fixture) {
    let store = fixture.open().await;
    let rows = create(&*store, key("kept")).await;
    let mut expected = Vec::new();
    for round in 0..4_u64 {
        let mut batch = rows.range(1, round * 30 + 1..=round * 30 + 30);
        batch.extend(rows.range(2, round + 1..=round + 1));
        for (row, n) in batch.iter_mut().zip(0_u64..) {
            row.author = ["ada", "bob", "日本"][n as usize % 3].into();
            row.time_ms = 1_700_000_000_000 + 1_000 * round + n * 37 % 100;
            row.update = Bytes::from(vec![n as u8; (n % 7) as usize]);
        }
        append(&*store, &batch).await;
        let loaded = load(&*store, &rows.key).await;
        assert_eq!(loaded.rows, batch);
        compact(&*store, &compaction(&rows, &loaded, &loaded.rows)).await;
        expected.push(batch);
    }
    let listed = store.segments(&rows.key).await.unwrap();
    let numbers: Vec<u64> = listed.iter().map(|listed| listed.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    for ((listed, rows), round) in listed.iter().zip(&expected).zip(0..) {
        assert_eq!(listed.info, segment::seal(rows)[0].info);
        assert_eq!(listed.info.from_ms, 1_700_000_000_000 + 1_000 * round);
        assert_eq!(listed.info.authors.len(), 3);
    }
    assert_eq!(history(&*store, &rows.key).await, expected.concat());
    for number in [0, 5, u64::MAX] {
        assert_eq!(store.read_segment(&rows.key, number).await.unwrap(), None);
    }
}

pub(super) async fn st43_what_was_compacted_is_there_after_close_and_reopen(fixture: Fixture) {
    let rows;
    {
        let store = fixture.open().await;
        rows = create(&*store, key("reopened")).await;
        append(&*store, &rows.range(1, 1..=300)).await;
        let loaded = load(&*store, &rows.key).await;
        let compaction = compaction(&rows, &loaded, &loaded.rows[..250]);
        compact(&*store, &compaction).await;
        store.close().await;
        assert!(store.compact(&compaction).await.is_err());
    }
    let store = fixture.open().await;
    let loaded = load(&*store, &rows.key).await;
    assert_eq!(loaded.version, 1);
    assert_eq!(loaded.rows, rows.range(1, 251..=300));
    assert_eq!(all_of(&loaded).len(), 300);
    assert_eq!(history(&*store, &rows.key).await, rows.range(1, 1..=250));
}

pub(super) async fn st42_a_compaction_that_is_dropped_on_the_way_is_all_or_nothing(
    fixture: Fixture,
) {
    let store = fixture.open().await;
    let rows = create(&*store, key("dropped")).await;
    append(&*store, &rows.range(1, 1..=500)).await;
    for n_polls in 0..40 {
        let loaded = load(&*store, &rows.key).await;
        let compaction = compaction(&rows, &loaded, &loaded.rows);
        let mut running = store.compact(&compaction);
        for _ in 0..n_polls {
            let poll = std::future::poll_fn(|context| {
                std::task::Poll::Ready(running.as_mut().poll(context).is_ready())
            });
            if poll.await {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(running);
        let loaded = load(&*store, &rows.key).await;
        assert_eq!(all_of(&loaded).len(), 500, "after {n_polls} polls");
        assert!([0, 500].contains(&loaded.rows.len()), "half of it");
        assert_eq!(loaded.rows.is_empty(), loaded.version > 0);
        if loaded.rows.is_empty() {
            assert_eq!(history(&*store, &rows.key).await.len(), 500);
            return;
        }
    }
    // However long it takes here, it works when it is let.
    let loaded = load(&*store, &rows.key).await;
    compact(&*store, &compaction(&rows, &loaded, &loaded.rows)).await;
    assert!(load(&*store, &rows.key).await.rows.is_empty());
}

/// Of a document whose snapshot says nothing of rows.
fn opaque(rows: &Rows, loaded: &Loaded) -> Compaction {
    let without = Loaded {
        snapshot: None,
        ..loaded.clone()
    };
    compaction(rows, &without, &loaded.rows)
}
