//! Tests of the replay: what a crash left in the journal is in the store afterwards, once, or in a file that is named.

use std::fs;
use std::sync::Arc;

use tempfile::TempDir;

use crate::ids::{DocumentKey, DocumentName, Epoch, OrgId, Origin};
use crate::store::journal::Config;
use crate::store::{DocStore, LogRow, faulty};

use super::*;

struct Fixture {
    dir: TempDir,
    store: Arc<faulty::Store>,
    key: DocumentKey,
    epoch: Epoch,
}

impl Fixture {
    async fn new() -> Self {
        let store = faulty::Store::memory();
        let key = DocumentKey {
            org: OrgId::default_org(),
            name: DocumentName::new("notes").unwrap(),
        };
        let epoch = store.load(&key, Epoch::random()).await.unwrap().epoch;
        Self {
            dir: tempfile::tempdir().unwrap(),
            store,
            key,
            epoch,
        }
    }

    fn rows(&self, sequences: std::ops::RangeInclusive<u64>) -> Vec<LogRow> {
        sequences
            .map(|sequence| LogRow {
                key: self.key.clone(),
                epoch: self.epoch,
                origin: Origin::from_bytes(*b"departed"),
                sequence,
                author: "ada".into(),
                time_ms: sequence,
                update: vec![1; 10].into(),
            })
            .collect()
    }

    fn open(&self) -> (Journal, Replay) {
        Journal::open(Config::default(), self.dir.path(), Origin::random()).unwrap()
    }

    /// Journals rows and dies.
    fn crash_with(&self, rows: &[LogRow]) {
        self.open().0.append(rows).unwrap();
    }

    async fn replay(&self) -> Result<Report, ReplayError> {
        let (journal, left) = self.open();
        replay(&journal, left, &*self.store).await
    }

    async fn stored(&self) -> Vec<LogRow> {
        let loaded = self.store.load(&self.key, Epoch::random()).await;
        loaded.unwrap().rows
    }

    fn files(&self) -> usize {
        fs::read_dir(self.dir.path()).unwrap().count()
    }
}

#[tokio::test]
async fn st24_a_crash_between_the_write_and_the_commit_loses_nothing() {
    let fixture = Fixture::new().await;
    let rows = fixture.rows(1..=2_500);
    // Some had been committed already.
    fixture.store.append(&rows[..1_700]).await.unwrap();
    fixture.crash_with(&rows);
    let report = fixture.replay().await.unwrap();
    assert_eq!((report.n_segments, report.n_rows), (1, 2_500));
    assert_eq!(fixture.stored().await, rows);
    assert_eq!(fixture.files(), 0);
    assert_eq!(fixture.replay().await.unwrap(), Report::default());
}

#[tokio::test]
async fn st24_a_replay_that_fails_or_dies_on_the_way_is_done_again() {
    let fixture = Fixture::new().await;
    let rows = fixture.rows(1..=10);
    fixture.crash_with(&rows[..5]);
    fixture.crash_with(&rows[5..]);
    fixture.store.fail_appends(1);
    assert!(matches!(
        fixture.replay().await,
        Err(ReplayError::Append(_))
    ));
    // It happened, and nobody heard of it.
    fixture.store.lose_replies(1);
    assert!(fixture.replay().await.is_err());
    assert_eq!(fixture.files(), 2);
    assert_eq!(fixture.replay().await.unwrap().n_rows, 10);
    assert_eq!(fixture.stored().await, rows);
    assert_eq!(fixture.files(), 0);
}

#[tokio::test]
async fn st24_rows_of_deleted_and_replaced_documents_stay_gone() {
    let fixture = Fixture::new().await;
    fixture.crash_with(&fixture.rows(1..=3));
    fixture.store.delete(&fixture.key).await.unwrap();
    let report = fixture.replay().await.unwrap();
    assert_eq!((report.n_rows, report.n_outdated), (0, 3));
    assert!(fixture.stored().await.is_empty());
    assert_eq!(fixture.files(), 0);
}

#[tokio::test]
async fn st24_rows_of_unknown_documents_are_set_aside() {
    let mut fixture = Fixture::new().await;
    fixture.crash_with(&fixture.rows(1..=3));
    // Another database than before.
    fixture.store = faulty::Store::memory();
    let report = fixture.replay().await.unwrap();
    assert_eq!((report.n_rows, report.n_unplaced), (0, 3));
    assert_eq!(report.set_aside.len(), 1);
    assert!(report.set_aside[0].exists());
    assert_eq!(fixture.replay().await.unwrap(), Report::default());
}

#[tokio::test]
async fn st23_a_corrupt_segment_gives_what_it_can_and_is_kept() {
    let fixture = Fixture::new().await;
    let rows = fixture.rows(1..=4);
    fixture.crash_with(&rows[..3]);
    fixture.crash_with(&rows[3..]);
    let path = fixture.dir.path().join("0000000000000001.journal");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();

    let report = fixture.replay().await.unwrap();
    assert_eq!(report.damaged.len(), 1);
    assert!(matches!(report.damaged[0].1, Damage::Corrupt { .. }));
    assert_eq!(report.set_aside, [path.with_extension("damaged")]);
    // The next segment does not suffer from it.
    assert_eq!(fixture.stored().await, [rows[0].clone(), rows[3].clone()]);
    assert_eq!(fixture.files(), 1);
}
