//! The whole job of a compaction on every store, with real edits (STORAGE.md, section 7): a fault at each step, a worker that
//! answers wrongly, rows that wait.

use std::sync::Arc;

use bytes::Bytes;
use syncline::doc::{Digest, Document, DocumentLimits, ScanLimits, Scanned, TailUpdate, scan};
use syncline::ids::DocumentKey;
use syncline::room::compaction::{Collecting, Collector, CompactionError, Job, MergeOnly, Outcome};
use syncline::shutdown::Scope;
use syncline::store::compaction::draw_generation;
use syncline::store::{CompactError, DocStore, Loaded, LogRow, faulty};
use yrs::updates::decoder::Decode;
use yrs::{Doc, GetString, ReadTxn, StateVector, Text, Transact, Update};

use super::compaction::history;
use super::{Fixture, Rows, append, create, key, load, origin};

/// Real edits of one author, as rows of one origin.
fn typing(rows: &Rows, number: u8, n: u64) -> (Vec<LogRow>, String) {
    let doc = Doc::with_client_id(u64::from(number) + 1_000);
    let text = doc.get_or_insert_text("text");
    let typed = (1..=n).map(|sequence| {
        let before = doc.transact().state_vector();
        {
            let mut transaction = doc.transact_mut();
            let length = text.len(&transaction);
            if sequence % 5 == 0 {
                text.remove_range(&mut transaction, length / 2, 1);
            } else {
                text.insert(&mut transaction, length / 2, &sequence.to_string());
            }
        }
        LogRow {
            update: doc.transact().encode_diff_v1(&before).into(),
            ..rows.row(origin(number), sequence)
        }
    });
    let typed = typed.collect();
    let content = text.get_string(&doc.transact());
    (typed, content)
}

/// The text of a document as it is loaded.
fn text_of(loaded: &Loaded) -> String {
    let tail = loaded.rows.iter().map(|row| TailUpdate {
        origin: row.origin,
        sequence: row.sequence,
        bytes: row.update.clone(),
    });
    let mut document = Document::load(
        DocumentLimits::default(),
        loaded.snapshot.clone(),
        loaded.folded.clone(),
        tail.collect(),
    )
    .unwrap();
    assert_eq!(document.n_unready(), 0);
    let doc = Doc::new();
    let text = doc.get_or_insert_text("text");
    let update = Update::decode_v1(&document.full()).unwrap();
    doc.transact_mut().apply_update(update).unwrap();
    text.get_string(&doc.transact())
}

fn job(store: Arc<dyn DocStore>, collector: Arc<dyn Collector>, rows: &Rows) -> Job {
    Job {
        store,
        collector,
        key: rows.key.clone(),
        epoch: rows.epoch,
        limits: DocumentLimits::default(),
        own: origin(1),
        generation: (draw_generation(), 1),
    }
}

/// Each step fails once, before and after its effect. Whoever loads in between finds everything.
pub(super) async fn st46_a_fault_at_any_step_loses_nothing(fixture: Fixture) {
    let store = faulty::Store::new(fixture.open().await);
    let rows = create(&*store, key("faults")).await;
    let (typed, content) = typing(&rows, 1, 300);
    let whole = async |n: usize| {
        let loaded = load(&*store, &rows.key).await;
        let kept = history(&*store, &rows.key).await;
        assert_eq!([kept, loaded.rows.clone()].concat(), typed[..n]);
        loaded
    };
    append(&*store, &typed[..100]).await;
    let run = async || job(store.clone(), Arc::new(MergeOnly), &rows).run().await;

    store.fail_loads(1);
    assert!(matches!(run().await, Err(CompactionError::Load(_))));
    assert_eq!(whole(100).await.version, 0);

    store.fail_compactions(1);
    let failed = run().await;
    assert!(matches!(
        failed,
        Err(CompactionError::Store(CompactError::Failed(_)))
    ));
    assert_eq!(whole(100).await.version, 0);

    store.set_disk_full(true);
    let failed = run().await;
    assert!(matches!(
        failed,
        Err(CompactionError::Store(CompactError::DiskFull))
    ));
    store.set_disk_full(false);
    assert_eq!(whole(100).await.version, 0);

    // Done, and nobody heard of it. The next one goes on from there.
    store.lose_compactions(1);
    assert!(run().await.is_err());
    assert_eq!(whole(100).await.version, 1);
    assert!(matches!(run().await, Ok(Outcome::Nothing(0, 0))));
    append(&*store, &typed[100..200]).await;
    assert!(matches!(run().await, Ok(Outcome::Done(_))));
    assert_eq!(whole(200).await.version, 2);

    // Rows come while one is between reading and committing, and another one is faster.
    store.hold_compactions();
    append(&*store, &typed[200..250]).await;
    let scope = Scope::new();
    let slow = job(store.clone(), Arc::new(MergeOnly), &rows);
    let n_before = store.n_compactions();
    let slow = scope.spawn(async move { slow.run().await });
    while store.n_compactions() == n_before {
        tokio::task::yield_now().await;
    }
    append(&*store, &typed[250..]).await;
    store.release_compactions();
    assert!(matches!(slow.await.unwrap(), Ok(Outcome::Done(_))));
    let loaded = whole(300).await;
    assert_eq!(loaded.rows, typed[250..]);
    assert_eq!(text_of(&loaded), content);
}

/// What a collector answers here.
#[derive(Debug)]
enum Answer {
    Garbage,
    Empty,
    Less,
    Grown,
    Same,
}

#[derive(Debug)]
struct Scripted(Answer);

impl Collector for Scripted {
    fn collect<'a>(&'a self, _: &'a DocumentKey, merged: Bytes) -> Collecting<'a> {
        let answer = match self.0 {
            Answer::Garbage => Bytes::from_static(&[9, 9, 9]),
            Answer::Empty => Bytes::from_static(&[0, 0]),
            Answer::Less => collected(&merged, |doc| {
                let before = StateVector::decode_v1(&[1, 0xe9, 7, 5]).unwrap();
                doc.transact().encode_diff_v1(&before)
            }),
            Answer::Grown => collected(&merged, |doc| {
                let text = doc.get_or_insert_text("text");
                text.remove_range(&mut doc.transact_mut(), 0, 3);
                doc.transact()
                    .encode_state_as_update_v1(&StateVector::default())
            }),
            Answer::Same => collected(&merged, |doc| {
                doc.transact()
                    .encode_state_as_update_v1(&StateVector::default())
            }),
        };
        Box::pin(async { Some(answer) })
    }
}

fn collected(merged: &Bytes, then: impl FnOnce(&Doc) -> Vec<u8>) -> Bytes {
    let doc = Doc::new();
    doc.transact_mut()
        .apply_update(Update::decode_v1(merged).unwrap())
        .unwrap();
    then(&doc).into()
}

pub(super) async fn st47_what_a_collector_says_is_verified(fixture: Fixture) {
    let store = fixture.open().await;
    let rows = create(&*store, key("collected")).await;
    let (typed, _) = typing(&rows, 1, 250);
    let mut n = 0;
    for (answer, stands_in, begins_generation) in [
        (Answer::Garbage, true, false),
        (Answer::Empty, true, false),
        (Answer::Less, true, false),
        (Answer::Same, false, false),
        (Answer::Grown, false, true),
    ] {
        append(&*store, &typed[n..n + 50]).await;
        n += 50;
        let before = text_of(&load(&*store, &rows.key).await);
        let name = format!("{answer:?}");
        let job = job(store.clone(), Arc::new(Scripted(answer)), &rows);
        let Ok(Outcome::Done(compacted)) = job.run().await else {
            panic!("{name}: not done");
        };
        assert_eq!(compacted.stood_in, stands_in, "{name}");
        assert_eq!(compacted.generation.is_some(), begins_generation, "{name}");
        let loaded = load(&*store, &rows.key).await;
        let entry = loaded.folded.get(job.generation.0);
        assert_eq!(entry, u64::from(begins_generation), "{name}");
        let digest = Digest::decode(&loaded.digest).unwrap();
        let expected = digest_of(&typed[..n]);
        assert_eq!(digest.content(), expected.content(), "{name}");
        assert_eq!(digest == expected, !begins_generation, "{name}: deletions");
        let text = text_of(&loaded);
        if begins_generation {
            assert_eq!(text, before[3..], "deletions are a superset");
        } else {
            assert_eq!(text, before, "{name}");
        }
    }
    assert_eq!(history(&*store, &rows.key).await, typed);

    // Appended again after it was compacted: it counts no more, and old positions are not trusted.
    append(&*store, &typed[249..]).await;
    let job = job(store.clone(), Arc::new(Scripted(Answer::Same)), &rows);
    let Ok(Outcome::Done(compacted)) = job.run().await else {
        panic!("not done");
    };
    assert!(compacted.generation.is_some() && compacted.n_rows == 1);
    let digest = Digest::decode(&load(&*store, &rows.key).await.digest).unwrap();
    assert_eq!(digest.content(), digest_of(&typed).content());
}

/// Two nodes took the same edits of a client that reconnected: each unit counts once, also over several compactions.
pub(super) async fn st48_the_digest_counts_each_unit_once(fixture: Fixture) {
    let store = fixture.open().await;
    let rows = create(&*store, key("twice")).await;
    let (typed, _) = typing(&rows, 1, 60);
    let twins: Vec<LogRow> = typed
        .iter()
        .map(|row| LogRow {
            origin: origin(2),
            ..row.clone()
        })
        .collect();
    for (some, others) in [(0..40, 0..20), (40..60, 20..60)] {
        append(&*store, &typed[some]).await;
        append(&*store, &twins[others]).await;
        let done = job(store.clone(), Arc::new(MergeOnly), &rows).run().await;
        assert!(matches!(done, Ok(Outcome::Done(_))));
    }
    let digest = load(&*store, &rows.key).await.digest;
    assert_eq!(Digest::decode(&digest), Ok(digest_of(&typed)));
}

/// The digest of rows that say nothing twice.
fn digest_of(rows: &[LogRow]) -> Digest {
    let walked: Vec<Scanned> = rows
        .iter()
        .map(|row| scan(&row.update, &ScanLimits::stored()).unwrap())
        .collect();
    Digest::of_log(&walked)
}

/// A row that hangs on one that was lost stays in the log, and goes when what it lacks has come.
pub(super) async fn st47_rows_that_wait_for_something_missing_stay(fixture: Fixture) {
    let store = fixture.open().await;
    let rows = create(&*store, key("waiting")).await;
    let (typed, content) = typing(&rows, 1, 100);
    let lost = &typed[60];
    let present: Vec<LogRow> = typed.iter().filter(|row| *row != lost).cloned().collect();
    append(&*store, &present).await;
    let run = async || {
        job(store.clone(), Arc::new(MergeOnly), &rows)
            .run()
            .await
            .unwrap()
    };
    let Outcome::Done(compacted) = run().await else {
        panic!("not done");
    };
    assert_eq!(compacted.n_rows + compacted.n_rows_left, 99);
    assert!(compacted.n_rows >= 60 && compacted.n_rows_left > 0);
    assert!(matches!(run().await, Outcome::Nothing(n, _) if n == compacted.n_rows_left));
    append(&*store, std::slice::from_ref(lost)).await;
    let Outcome::Done(compacted) = run().await else {
        panic!("not done");
    };
    assert_eq!(compacted.n_rows_left, 0);
    let loaded = load(&*store, &rows.key).await;
    assert!(loaded.rows.is_empty());
    assert_eq!(text_of(&loaded), content);
    let mut kept = history(&*store, &rows.key).await;
    kept.sort_by_key(|row| row.sequence);
    assert_eq!(kept, typed);
}
