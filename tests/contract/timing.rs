//! The figures of STORAGE.md, section 6, in short form: they are printed, and only what cannot depend on the machine is
//! asserted. `TMPDIR` chooses the disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use syncline::ids::Origin;
use syncline::shutdown::Scope;
use syncline::store::{
    Committer, DocStore, DurableMark, Journal, LogRow, committer, journal, replay,
};

use super::{Fixture, Rows, create, key, load, origin, sqlite};

/// A keystroke as Yjs encodes it.
const KEYSTROKE_BYTES: usize = 25;

/// As a typed key: small.
fn keystroke(rows: &Rows, origin: Origin, sequence: u64) -> LogRow {
    LogRow {
        update: Bytes::from(vec![0x5a; KEYSTROKE_BYTES]),
        ..rows.row(origin, sequence)
    }
}

async fn documents(store: &dyn DocStore, n: usize) -> Vec<Rows> {
    let mut documents = Vec::new();
    for number in 0..n {
        documents.push(create(store, key(&format!("document {number}"))).await);
    }
    documents
}

fn per_second(n: u64, took: Duration) -> u64 {
    (n as f64 / took.as_secs_f64()) as u64
}

fn journal_in(fixture: &Fixture) -> (Journal, journal::Replay) {
    let dir = fixture.dir.path().join("journal");
    Journal::open(journal::Config::default(), &dir, Origin::random()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn st38_appends_of_a_hundred_rows() {
    const N_BATCHES: u64 = 100;
    for n_documents in [1, 10, 100] {
        let fixture = sqlite();
        let store = fixture.open().await;
        let documents = documents(&*store, n_documents).await;
        let batches: Vec<Vec<LogRow>> = (0..N_BATCHES)
            .map(|batch| {
                let rows = 0..100_u64;
                rows.map(|n| {
                    let document = &documents[n as usize % n_documents];
                    keystroke(document, origin(1), batch * 100 + n + 1)
                })
                .collect()
            })
            .collect();
        let started = Instant::now();
        for batch in &batches {
            store.append(batch).await.unwrap();
        }
        let took = started.elapsed();
        println!(
            "append, 100 rows of {n_documents} documents: {} rows/s",
            per_second(N_BATCHES * 100, took)
        );
        let started = Instant::now();
        let n = load(&*store, &documents[0].key).await.rows.len();
        println!("load of {n} rows: {:?}", started.elapsed());
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn st38_lone_edits_and_crowds_through_the_committer() {
    let fixture = sqlite();
    let store = fixture.open().await;
    let (journal, _) = journal_in(&fixture);
    let journal = Arc::new(journal);
    let scope = Scope::new();
    let committer = Committer::start(
        committer::Config::default(),
        Arc::clone(&store),
        Some(Arc::clone(&journal)),
        Arc::default(),
        &scope,
    );
    let lone = create(&*store, key("lone")).await;
    let mark = Arc::new(DurableMark::new(0));
    let mut took = Vec::new();
    for sequence in 1..=100 {
        let started = Instant::now();
        let rows = vec![keystroke(&lone, origin(1), sequence)];
        let segment = journal.append(&rows).unwrap();
        committer.submit(rows, Some(segment), &mark);
        while mark.durable() < sequence {
            mark.changed().await;
        }
        took.push(started.elapsed());
    }
    took.sort();
    println!(
        "lone edit, submitted to durable: median {:?}, p99 {:?}",
        took[50], took[98]
    );

    // A hundred rooms, as fast as they can.
    const N_EACH: u64 = 100;
    let documents = documents(&*store, 100).await;
    let started = Instant::now();
    let tasks: Vec<_> = documents
        .into_iter()
        .map(|document| {
            let (committer, journal) = (committer.clone(), Arc::clone(&journal));
            scope.spawn(async move {
                let mark = Arc::new(DurableMark::new(0));
                for sequence in 1..=N_EACH {
                    let rows = vec![keystroke(&document, origin(1), sequence)];
                    let segment = journal.append(&rows).unwrap();
                    committer.submit(rows, Some(segment), &mark);
                    tokio::task::yield_now().await;
                }
                while mark.durable() < N_EACH {
                    mark.changed().await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let rate = per_second(100 * N_EACH, started.elapsed());
    let stats = committer.stats();
    println!(
        "crowd: {rate} rows/s, {} rows a commit",
        100 * N_EACH / (stats.n_commits - 100)
    );
    // Groups, whatever the machine.
    assert!(stats.n_commits - 100 < 100 * N_EACH / 10);
    assert!(scope.stop(Duration::from_secs(10)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn st38_journal_and_replay() {
    const N: u64 = 20_000;
    let fixture = sqlite();
    let store = fixture.open().await;
    let document = create(&*store, key("journalled")).await;
    let rows: Vec<LogRow> = (1..=N)
        .map(|sequence| keystroke(&document, origin(1), sequence))
        .collect();
    {
        let (journal, _) = journal_in(&fixture);
        let started = Instant::now();
        for row in &rows {
            journal.append(std::slice::from_ref(row)).unwrap();
        }
        println!(
            "journal: {} edits/s, one a write",
            per_second(N, started.elapsed())
        );
    }
    for what in ["new rows", "rows that are there"] {
        let copy = fixture.dir.path().join("copy");
        std::fs::create_dir(&copy).unwrap();
        for file in std::fs::read_dir(fixture.dir.path().join("journal")).unwrap() {
            let path = file.unwrap().path();
            std::fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
        }
        let (journal, left) =
            Journal::open(journal::Config::default(), &copy, Origin::random()).unwrap();
        let started = Instant::now();
        let report = replay(&journal, left, &*store).await.unwrap();
        println!(
            "replay, {what}: {} rows/s",
            per_second(report.n_rows as u64, started.elapsed())
        );
        assert_eq!(report.n_rows as u64, N);
        drop(journal);
        std::fs::remove_dir(&copy).unwrap();
    }
    assert_eq!(load(&*store, &document.key).await.rows.len() as u64, N);
}
