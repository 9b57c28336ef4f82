//! The contract of `DocStore` (STORAGE.md, sections 1, 2 and 7): one suite, run on every store. A test's name begins with the
//! rule that it carries.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails; clippy knows only functions marked #[test]"
)]

mod compaction;
mod history;
mod job;
mod timing;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use syncline::ids::{DocumentKey, DocumentName, Epoch, OrgId, Origin};
use syncline::shutdown::Scope;
use syncline::store::{
    self, AppendError, AppendOutcome, DeleteError, DocStore, DocumentState, Loaded, LogRow,
    RecreateError, Refusal, Refused, SEQUENCE_MAX, faulty,
};
use tempfile::TempDir;

use self::compaction::*;
use self::job::*;

/// A place for one store, and how to open it.
struct Fixture {
    dir: TempDir,
    url: fn(&Path) -> String,
}

impl Fixture {
    fn new(url: fn(&Path) -> String) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            url,
        }
    }

    async fn open(&self) -> Arc<dyn DocStore> {
        store::open(&(self.url)(self.dir.path())).await.unwrap()
    }
}

fn memory() -> Fixture {
    Fixture::new(|_| "memory:".to_owned())
}

fn sqlite() -> Fixture {
    Fixture::new(|dir| format!("sqlite:{}", dir.join("syncline.sqlite").display()))
}

/// Each listed function becomes a test of each store.
macro_rules! contract {
    ($($store:ident: [$($test:ident),* $(,)?])*) => {
        $(mod $store {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::$store()).await;
            })*
        })*
    };
}

macro_rules! on_every_store {
    ($($test:ident),* $(,)?) => {
        contract! {
            memory: [$($test),*]
            sqlite: [
                $($test, )*
                st2_what_was_appended_is_there_after_close_and_reopen,
                st43_what_was_compacted_is_there_after_close_and_reopen,
            ]
        }
    };
}

on_every_store![
    st1_rows_come_back_as_they_were_appended,
    st1_ten_thousand_rows_of_many_origins,
    st1_any_size_of_update,
    st2_an_empty_append_is_nothing,
    st2_appends_that_race_are_all_stored,
    st3_a_retry_changes_nothing,
    st3_a_lost_reply_and_a_retry_store_once,
    st4_a_load_sees_all_of_a_batch_or_nothing,
    st5_of_racing_creations_one_wins,
    st6_stale_rows_are_named_and_the_others_stored,
    st6_a_document_that_was_never_loaded_is_unknown,
    st7_sequences_out_of_range_are_refused,
    st8_organisations_are_apart,
    st8_names_are_bytes,
    st9_a_tombstone_keeps_its_epoch_and_takes_nothing,
    st9_a_document_made_again_has_a_new_epoch,
    st9_deleting_needs_a_document_and_making_again_a_tombstone,
    st10_ping_answers,
    st4_a_load_sees_all_while_rows_come_and_go,
    st9_deleting_takes_snapshot_and_history_too,
    st41_a_compaction_puts_a_snapshot_in_the_place_of_rows,
    st41_of_compactions_at_once_one_wins,
    st41_a_compaction_of_what_is_not_there_changes_nothing,
    st42_exactly_the_rows_that_were_read_leave,
    st42_a_compaction_that_is_dropped_on_the_way_is_all_or_nothing,
    st43_snapshots_of_any_size_come_back,
    st46_a_fault_at_any_step_loses_nothing,
    st47_what_a_collector_says_is_verified,
    st47_rows_that_wait_for_something_missing_stay,
    st48_the_digest_counts_each_unit_once,
    st53_segments_keep_what_left_the_log,
];

fn key_in(org: &str, name: &str) -> DocumentKey {
    DocumentKey {
        org: OrgId::new(org),
        name: DocumentName::new(name).unwrap(),
    }
}

fn key(name: &str) -> DocumentKey {
    key_in("default", name)
}

fn origin(number: u8) -> Origin {
    Origin::from_bytes([number; 8])
}

/// Makes rows of one document and epoch.
#[derive(Clone)]
struct Rows {
    key: DocumentKey,
    epoch: Epoch,
}

impl Rows {
    fn row(&self, origin: Origin, sequence: u64) -> LogRow {
        LogRow {
            key: self.key.clone(),
            epoch: self.epoch,
            origin,
            sequence,
            author: "ada".into(),
            time_ms: 1_700_000_000_000 + sequence,
            update: Bytes::from(format!("{origin} {sequence}")),
        }
    }

    fn range(&self, number: u8, sequences: std::ops::RangeInclusive<u64>) -> Vec<LogRow> {
        sequences
            .map(|sequence| self.row(origin(number), sequence))
            .collect()
    }
}

async fn load(store: &dyn DocStore, key: &DocumentKey) -> Loaded {
    store.load(key, Epoch::random()).await.unwrap()
}

/// Creates a document and gives the maker of its rows.
async fn create(store: &dyn DocStore, key: DocumentKey) -> Rows {
    let loaded = load(store, &key).await;
    assert_eq!(loaded.state, DocumentState::Live);
    Rows {
        key,
        epoch: loaded.epoch,
    }
}

async fn append(store: &dyn DocStore, rows: &[LogRow]) {
    assert_eq!(store.append(rows).await.unwrap(), AppendOutcome::default());
}

async fn st1_rows_come_back_as_they_were_appended(fixture: Fixture) {
    let store = fixture.open().await;
    let epoch = Epoch::random();
    let name = key("notes");
    let new = store.load(&name, epoch).await.unwrap();
    assert_eq!((new.epoch, new.state), (epoch, DocumentState::Live));
    assert!(new.rows.is_empty() && new.snapshot.is_none());
    assert_eq!(new.folded.entries().count(), 0);

    let rows = Rows { key: name, epoch };
    let mut odd = rows.row(origin(2), 1);
    odd.author = "日本 '\"\\ \u{1f980}".into();
    odd.time_ms = 0;
    odd.update = Bytes::from((0..=255).collect::<Vec<u8>>());
    let other = create(&*store, key("other")).await;
    // Not in the order of the keys: a load sorts.
    let batch = [
        odd.clone(),
        other.row(origin(1), 7),
        rows.row(origin(1), 300),
        rows.row(origin(1), 2),
    ];
    append(&*store, &batch).await;

    let loaded = load(&*store, &rows.key).await;
    assert_eq!(loaded.epoch, epoch);
    assert_eq!(
        loaded.rows,
        [rows.row(origin(1), 2), rows.row(origin(1), 300), odd]
    );
    assert_eq!(
        load(&*store, &other.key).await.rows,
        [other.row(origin(1), 7)]
    );
}

async fn st1_ten_thousand_rows_of_many_origins(fixture: Fixture) {
    let store = fixture.open().await;
    let rows = create(&*store, key("long")).await;
    let all: Vec<LogRow> = (1..=10)
        .flat_map(|number| rows.range(number, 1..=1_000))
        .collect();
    // An odd size, so that batches end within origins and no power of two fits.
    for batch in all.chunks(937) {
        append(&*store, batch).await;
    }
    assert_eq!(load(&*store, &rows.key).await.rows, all);
}

async fn st1_any_size_of_update(fixture: Fixture) {
    let store = fixture.open().await;
    let rows = create(&*store, key("sizes")).await;
    let all: Vec<LogRow> = [0, 1, 900, 1_100, 4_096, 70_000, 8 * 1024 * 1024]
        .into_iter()
        .zip(1..)
        .map(|(len, sequence)| LogRow {
            update: Bytes::from(vec![0xa5; len]),
            ..rows.row(origin(1), sequence)
        })
        .collect();
    append(&*store, &all).await;
    assert_eq!(load(&*store, &rows.key).await.rows, all);
}

async fn st2_an_empty_append_is_nothing(fixture: Fixture) {
    append(&*fixture.open().await, &[]).await;
}

async fn st2_appends_that_race_are_all_stored(fixture: Fixture) {
    let store = fixture.open().await;
    let rows = create(&*store, key("raced")).await;
    let scope = Scope::new();
    let tasks: Vec<_> = (1..=8)
        .map(|number| {
            let (store, rows) = (Arc::clone(&store), rows.clone());
            scope.spawn(async move {
                for sequence in 1..=20 {
                    append(&*store, &[rows.row(origin(number), sequence)]).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let all: Vec<LogRow> = (1..=8)
        .flat_map(|number| rows.range(number, 1..=20))
        .collect();
    assert_eq!(load(&*store, &rows.key).await.rows, all);
}

async fn st2_what_was_appended_is_there_after_close_and_reopen(fixture: Fixture) {
    let rows;
    {
        let store = fixture.open().await;
        rows = create(&*store, key("kept")).await;
        append(&*store, &rows.range(1, 1..=300)).await;
        create(&*store, key("gone")).await;
        store.delete(&key("gone")).await.unwrap();
        store.close().await;
        assert!(store.ping().await.is_err());
        assert!(store.append(&rows.range(1, 301..=301)).await.is_err());
    }
    let store = fixture.open().await;
    let loaded = load(&*store, &rows.key).await;
    assert_eq!(loaded.epoch, rows.epoch);
    assert_eq!(loaded.rows, rows.range(1, 1..=300));
    assert_eq!(
        load(&*store, &key("gone")).await.state,
        DocumentState::Deleted
    );
}

async fn st3_a_retry_changes_nothing(fixture: Fixture) {
    let store = fixture.open().await;
    let rows = create(&*store, key("retried")).await;
    append(&*store, &rows.range(1, 1..=5)).await;
    // Overlapping, with another time: what is there stays.
    let again: Vec<LogRow> = rows
        .range(1, 4..=8)
        .into_iter()
        .map(|row| LogRow {
            time_ms: 1_700_000_000_000 + row.sequence,
            ..row
        })
        .collect();
    append(&*store, &again).await;
    append(&*store, &again).await;
    // The same key twice in one batch.
    append(&*store, &[again[0].clone(), again[0].clone()]).await;
    let changed = LogRow {
        update: Bytes::from_static(b"something else"),
        ..rows.row(origin(1), 1)
    };
    append(&*store, &[changed]).await;
    assert_eq!(load(&*store, &rows.key).await.rows, rows.range(1, 1..=8));
}

async fn st3_a_lost_reply_and_a_retry_store_once(fixture: Fixture) {
    let store = faulty::Store::new(fixture.open().await);
    let rows = create(&*store, key("unsure")).await;
    let batch = rows.range(1, 1..=3);
    store.lose_replies(1);
    let lost = store.append(&batch).await;
    assert!(matches!(lost, Err(AppendError::Failed(_))));
    append(&*store, &batch).await;
    assert_eq!(load(&*store, &rows.key).await.rows, batch);
}

async fn st4_a_load_sees_all_of_a_batch_or_nothing(fixture: Fixture) {
    const BATCH: u64 = 150;
    const N_BATCHES: u64 = 20;
    let store = fixture.open().await;
    let rows = create(&*store, key("racing")).await;
    let scope = Scope::new();
    let writer = {
        let (store, rows) = (Arc::clone(&store), rows.clone());
        scope.spawn(async move {
            for n in 0..N_BATCHES {
                append(&*store, &rows.range(1, n * BATCH + 1..=(n + 1) * BATCH)).await;
            }
        })
    };
    let mut n_seen = 0;
    while n_seen < (N_BATCHES * BATCH) as usize {
        let loaded = load(&*store, &rows.key).await.rows.len();
        assert_eq!(loaded % BATCH as usize, 0, "half a batch was loaded");
        assert!(loaded >= n_seen, "rows went away");
        n_seen = loaded;
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
}

async fn st5_of_racing_creations_one_wins(fixture: Fixture) {
    let store = fixture.open().await;
    let scope = Scope::new();
    let mine: Vec<Epoch> = (0..16).map(|_| Epoch::random()).collect();
    let tasks: Vec<_> = mine
        .iter()
        .map(|epoch| {
            let (store, epoch) = (Arc::clone(&store), *epoch);
            scope.spawn(async move { store.load(&key("new"), epoch).await.unwrap().epoch })
        })
        .collect();
    let mut seen = BTreeSet::new();
    for task in tasks {
        seen.insert(task.await.unwrap());
    }
    assert_eq!(seen.len(), 1, "racing loads saw different epochs");
    assert!(mine.contains(seen.first().unwrap()));
    assert_eq!(
        load(&*store, &key("new")).await.epoch,
        *seen.first().unwrap()
    );
}

async fn st6_stale_rows_are_named_and_the_others_stored(fixture: Fixture) {
    let store = fixture.open().await;
    let rows = create(&*store, key("current")).await;
    let other = create(&*store, key("other")).await;
    let stale = Rows {
        epoch: Epoch::random(),
        ..rows.clone()
    };
    let batch = [
        rows.row(origin(1), 1),
        stale.row(origin(1), 2),
        other.row(origin(1), 1),
        stale.row(origin(1), 3),
        rows.row(origin(1), 4),
    ];
    let why = Refusal::Replaced(rows.epoch);
    assert_eq!(
        store.append(&batch).await.unwrap().refused,
        [Refused { index: 1, why }, Refused { index: 3, why }]
    );
    assert_eq!(
        load(&*store, &rows.key).await.rows,
        [batch[0].clone(), batch[4].clone()]
    );
    assert_eq!(load(&*store, &other.key).await.rows.len(), 1);
}

async fn st6_a_document_that_was_never_loaded_is_unknown(fixture: Fixture) {
    let store = fixture.open().await;
    let rows = Rows {
        key: key("nobody loaded it"),
        epoch: Epoch::random(),
    };
    assert_eq!(
        store.append(&rows.range(1, 1..=1)).await.unwrap().refused,
        [Refused {
            index: 0,
            why: Refusal::Unknown
        }]
    );
}

async fn st7_sequences_out_of_range_are_refused(fixture: Fixture) {
    let store = fixture.open().await;
    let rows = create(&*store, key("edges")).await;
    let batch = [0, 1, SEQUENCE_MAX, SEQUENCE_MAX + 1, u64::MAX].map(|sequence| LogRow {
        sequence,
        ..rows.row(origin(1), 1)
    });
    let refused = store.append(&batch).await.unwrap().refused;
    assert_eq!(
        refused,
        [0, 3, 4].map(|index| Refused {
            index,
            why: Refusal::Sequence
        })
    );
    let loaded = load(&*store, &rows.key).await.rows;
    let sequences: Vec<u64> = loaded.iter().map(|row| row.sequence).collect();
    assert_eq!(sequences, [1, SEQUENCE_MAX]);
}

async fn st8_organisations_are_apart(fixture: Fixture) {
    let store = fixture.open().await;
    let ours = create(&*store, key_in("ours", "plan")).await;
    let theirs = create(&*store, key_in("theirs", "plan")).await;
    assert_ne!(ours.epoch, theirs.epoch);
    append(&*store, &[ours.row(origin(1), 1), theirs.row(origin(1), 2)]).await;
    store.delete(&ours.key).await.unwrap();
    assert_eq!(load(&*store, &ours.key).await.state, DocumentState::Deleted);
    let kept = load(&*store, &theirs.key).await;
    assert_eq!(kept.state, DocumentState::Live);
    assert_eq!(kept.rows, [theirs.row(origin(1), 2)]);
}

async fn st8_names_are_bytes(fixture: Fixture) {
    let store = fixture.open().await;
    let longest = "x".repeat(512);
    let names = [
        "a",
        "A",
        "/",
        "a/b",
        "a//b",
        "a%2Fb",
        "..",
        " a ",
        "日本/書類",
        "\u{e9}",
        "e\u{301}",
        "\u{1f980}",
        "'; DROP TABLE log; --",
        "\"quoted\" \\ [\"json\", 1]",
        "null",
        "1",
        "1.0",
        &longest,
    ];
    let mut batch = Vec::new();
    for name in names {
        batch.push(create(&*store, key(name)).await.row(origin(1), 1));
    }
    append(&*store, &batch).await;
    for row in batch {
        assert_eq!(load(&*store, &row.key).await.rows, [row]);
    }
    // What a store could not keep does not get that far.
    assert!(DocumentName::new("a\0b").is_err());
}

async fn st9_a_tombstone_keeps_its_epoch_and_takes_nothing(fixture: Fixture) {
    let store = fixture.open().await;
    let rows = create(&*store, key("deleted")).await;
    append(&*store, &rows.range(1, 1..=3)).await;
    assert_eq!(store.delete(&rows.key).await.unwrap(), rows.epoch);
    assert_eq!(store.delete(&rows.key).await.unwrap(), rows.epoch);

    assert_eq!(
        store.append(&rows.range(1, 4..=4)).await.unwrap().refused,
        [Refused {
            index: 0,
            why: Refusal::Deleted
        }]
    );
    let loaded = load(&*store, &rows.key).await;
    assert_eq!(
        (loaded.epoch, loaded.state),
        (rows.epoch, DocumentState::Deleted)
    );
    assert!(loaded.rows.is_empty());
}

async fn st9_a_document_made_again_has_a_new_epoch(fixture: Fixture) {
    let store = fixture.open().await;
    let old = create(&*store, key("again")).await;
    append(&*store, &old.range(1, 1..=3)).await;
    store.delete(&old.key).await.unwrap();
    assert!(matches!(
        store.recreate(&old.key, old.epoch).await,
        Err(RecreateError::SameEpoch)
    ));
    let new = Rows {
        epoch: Epoch::random(),
        ..old.clone()
    };
    store.recreate(&new.key, new.epoch).await.unwrap();

    let loaded = load(&*store, &new.key).await;
    assert_eq!(
        (loaded.epoch, loaded.state),
        (new.epoch, DocumentState::Live)
    );
    assert!(loaded.rows.is_empty());
    // The same keys as before, in the new history.
    let batch = [old.row(origin(1), 4), new.row(origin(1), 1)];
    assert_eq!(
        store.append(&batch).await.unwrap().refused,
        [Refused {
            index: 0,
            why: Refusal::Replaced(new.epoch)
        }]
    );
    assert_eq!(load(&*store, &new.key).await.rows, [batch[1].clone()]);
}

async fn st9_deleting_needs_a_document_and_making_again_a_tombstone(fixture: Fixture) {
    let store = fixture.open().await;
    assert!(matches!(
        store.delete(&key("nothing")).await,
        Err(DeleteError::NotFound)
    ));
    assert!(matches!(
        store.recreate(&key("nothing"), Epoch::random()).await,
        Err(RecreateError::NotDeleted)
    ));
    let rows = create(&*store, key("alive")).await;
    append(&*store, &rows.range(1, 1..=1)).await;
    assert!(matches!(
        store.recreate(&rows.key, Epoch::random()).await,
        Err(RecreateError::NotDeleted)
    ));
    assert_eq!(load(&*store, &rows.key).await.rows, rows.range(1, 1..=1));
}

async fn st10_ping_answers(fixture: Fixture) {
    let store = fixture.open().await;
    store.ping().await.unwrap();
    store.close().await;
}
