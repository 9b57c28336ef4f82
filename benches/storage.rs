//! What makes "seen" and "saved" true: the journal's write, and the group commit into SQLite with its fsync.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use syncline::ids::{DocumentKey, DocumentName, Epoch, OrgId};
use syncline::shutdown::Scope;
use syncline::store::{Committer, DocStore, DurableMark, Journal, LogRow, committer, journal};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::document::ORIGIN;
use crate::report::{Case, Report};
use crate::trace::TRACE;

pub(crate) fn all(report: &mut Report) {
    journal(report);
    group_commit(report);
}

/// On the disk of the target directory; the system's temporary directory is memory on some machines.
fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("write the target directory")
}

/// A document whose rows are numbered.
struct Rows {
    key: DocumentKey,
    epoch: Epoch,
    author: Arc<str>,
    updates: Vec<Bytes>,
    sequence: u64,
}

impl Rows {
    fn new() -> Self {
        Self {
            key: DocumentKey {
                org: OrgId::default_org(),
                name: DocumentName::new("notes/monday").expect("a good name"),
            },
            epoch: Epoch::from_bytes([7; 16]),
            author: "somebody".into(),
            updates: TRACE.typing.clone(),
            sequence: 0,
        }
    }

    fn next(&mut self, n: usize) -> Vec<LogRow> {
        (0..n)
            .map(|_| {
                self.sequence += 1;
                LogRow {
                    key: self.key.clone(),
                    epoch: self.epoch,
                    origin: ORIGIN,
                    sequence: self.sequence,
                    author: self.author.clone(),
                    time_ms: 1_800_000_000_000 + self.sequence,
                    update: self.updates[self.sequence as usize % self.updates.len()].clone(),
                }
            })
            .collect()
    }
}

fn open_journal(directory: &TempDir) -> Journal {
    let path = directory.path().join("journal");
    let opened = Journal::open(journal::Config::default(), &path, ORIGIN);
    opened.expect("open a journal in the target directory").0
}

fn journal(report: &mut Report) {
    let directory = directory();
    let journal = open_journal(&directory);
    let mut rows = Rows::new();
    for (n, name) in [(1, "journal-1"), (100, "journal-100")] {
        let rows = rows.next(n);
        // Released at once, so that the journal stays as small as it does when the store keeps up.
        report.each(Case::new(name, n, "row"), || {
            let segment = journal.append(&rows).expect("write the target directory");
            journal.release(segment, rows.len());
        });
    }
}

/// From the room's hand to the mark that says "saved", the journal's part included.
fn group_commit(report: &mut Report) {
    const SIZES: [(usize, &str); 3] =
        [(1, "commit-1"), (100, "commit-100"), (1_000, "commit-1000")];
    let directory = directory();
    let runtime = Runtime::new().expect("start tokio");
    let scope = Scope::new();
    let mut rows = Rows::new();
    let (committer, journal, mark) = runtime.block_on(async {
        let url = format!("sqlite:{}", directory.path().join("store.db").display());
        let store: Arc<dyn DocStore> = syncline::store::open(&url).await.expect("open the store");
        let loaded = store.load(&rows.key, rows.epoch).await;
        assert_eq!(loaded.expect("create a document").epoch, rows.epoch);
        let journal = Arc::new(open_journal(&directory));
        let committer = Committer::start(
            committer::Config::default(),
            store,
            Some(journal.clone()),
            Arc::default(),
            &scope,
        );
        (committer, journal, Arc::new(DurableMark::new(0)))
    });
    for (n, name) in SIZES {
        report.time(Case::new(name, n, "row"), |calls| {
            let mut taken = Duration::ZERO;
            for _ in 0..calls {
                let rows = rows.next(n);
                let last = rows.last().map_or(0, |row| row.sequence);
                let start = Instant::now();
                let segment = journal.append(&rows).expect("write the target directory");
                committer.submit(rows, Some(segment), &mark);
                // Not the pause for gathering company, which is a setting.
                runtime.block_on(committer.flush()).expect("commit");
                taken += start.elapsed();
                assert_eq!(mark.durable(), last);
            }
            taken
        });
    }
    runtime.block_on(scope.stop(Duration::from_secs(5)));
}
