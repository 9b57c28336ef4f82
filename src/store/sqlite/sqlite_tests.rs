//! Tests of what is particular to SQLite: files that are not what they should be, and what later versions will have
//! written. The contract itself is tested in `tests/contract`.

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;

use crate::ids::{DocumentName, OrgId, Origin};

use super::*;

fn database() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("syncline.sqlite");
    (dir, path)
}

fn key() -> DocumentKey {
    DocumentKey {
        org: OrgId::default_org(),
        name: DocumentName::new("notes").unwrap(),
    }
}

fn row(epoch: Epoch, sequence: u64, bytes: usize) -> LogRow {
    LogRow {
        key: key(),
        epoch,
        origin: Origin::from_bytes([1; 8]),
        sequence,
        author: "ada".into(),
        time_ms: 1,
        update: vec![1; bytes].into(),
    }
}

/// Another program at the same file.
async fn execute(path: &Path, statements: &'static str) {
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .connect()
        .await
        .unwrap();
    sqlx::raw_sql(statements)
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

async fn refused(path: &Path) -> (OpenError, String) {
    let error = Store::open(path).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&path.display().to_string()), "{text}");
    assert!(!text.contains('\n'), "one line for people: {text}");
    (error, text)
}

#[tokio::test]
async fn st13_a_database_newer_than_the_binary_is_refused_untouched() {
    let (_dir, path) = database();
    Store::open(&path).await.unwrap().close().await;
    execute(
        &path,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', 1, x'00', 0)",
    )
    .await;
    let before = fs::read(&path).unwrap();
    let (error, text) = refused(&path).await;
    assert!(matches!(
        error,
        OpenError::Newer {
            found: 9999,
            known: 2,
            ..
        }
    ));
    assert!(text.contains("start the newer version"), "{text}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn st13_another_programs_database_is_refused_untouched() {
    let (_dir, path) = database();
    execute(&path, "CREATE TABLE bookmarks (url TEXT)").await;
    let before = fs::read(&path).unwrap();
    let (error, _) = refused(&path).await;
    assert!(matches!(error, OpenError::Foreign { .. }));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn st13_a_file_that_is_no_database_is_refused_untouched() {
    let (_dir, path) = database();
    let text = "Dear diary, ".repeat(1_000);
    fs::write(&path, &text).unwrap();
    let (error, _) = refused(&path).await;
    assert!(matches!(error, OpenError::NotADatabase { .. }));
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn st13_a_path_that_cannot_be_a_file_is_named() {
    let (dir, path) = database();
    let (error, text) = refused(dir.path()).await;
    assert!(matches!(error, OpenError::CannotOpen { .. }), "{text}");
    let (error, text) = refused(&dir.path().join("missing/syncline.sqlite")).await;
    assert!(matches!(error, OpenError::CannotOpen { .. }), "{text}");
    fs::write(&path, "").unwrap();
    let (error, text) = refused(&path.join("under a file")).await;
    assert!(matches!(error, OpenError::CannotOpen { .. }), "{text}");
}

#[tokio::test]
async fn st13_an_empty_file_becomes_a_database() {
    let (_dir, path) = database();
    fs::write(&path, "").unwrap();
    Store::open(&path).await.unwrap().ping().await.unwrap();
}

#[tokio::test]
async fn st12_a_second_server_on_the_file_is_refused_until_the_first_closes() {
    let (_dir, path) = database();
    let first = Store::open(&path).await.unwrap();
    let (error, _) = refused(&path).await;
    assert!(matches!(error, OpenError::Locked { .. }));
    first.close().await;
    Store::open(&path).await.unwrap();
}

#[tokio::test]
async fn st13_urls_name_stores() {
    let (_dir, path) = database();
    for url in ["memory:", &format!("sqlite:{}", path.display())] {
        super::super::open(url).await.unwrap().close().await;
    }
    super::super::open(&format!("sqlite://{}", path.display()))
        .await
        .unwrap();
    for url in [
        "",
        "sqlite:",
        "sqlite::memory:",
        "memory:x",
        "mysql://x",
        "x.sqlite",
    ] {
        let error = super::super::open(url).await.unwrap_err();
        assert!(matches!(error, OpenError::UnknownUrl(_)), "{url}");
    }
}

#[tokio::test]
async fn st2_commits_reach_the_disk_before_they_are_told() {
    let (_dir, path) = database();
    let store = Store::open(&path).await.unwrap();
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
        .fetch_one(&store.writer)
        .await
        .unwrap();
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous")
        .fetch_one(&store.writer)
        .await
        .unwrap();
    assert_eq!((mode.as_str(), synchronous), ("wal", 2));
    // And readers cannot write by mistake.
    let written = sqlx::query("DELETE FROM documents")
        .execute(&store.readers)
        .await;
    assert!(written.is_err());
}

#[tokio::test]
async fn st2_a_full_disk_stores_nothing_of_the_batch() {
    let (_dir, path) = database();
    let store = Store::open(&path).await.unwrap();
    let epoch = store.load(&key(), Epoch::random()).await.unwrap().epoch;
    let set_pages = async |n: &'static str| {
        sqlx::raw_sql(n).execute(&store.writer).await.unwrap();
    };
    // Room for the first INSERT of the batch (32 rows of three pages), not for the second.
    set_pages("PRAGMA max_page_count = 140").await;
    let batch: Vec<LogRow> = (1..=50).map(|n| row(epoch, n, 10_000)).collect();
    for _ in 0..2 {
        let full = store.append(&batch).await;
        assert!(matches!(full, Err(AppendError::DiskFull)), "{full:?}");
    }
    let stored = store.load(&key(), epoch).await.unwrap().rows;
    assert!(stored.is_empty());
    set_pages("PRAGMA max_page_count = 100000").await;
    store.append(&batch).await.unwrap();
    assert_eq!(store.load(&key(), epoch).await.unwrap().rows, batch);
}

#[tokio::test]
async fn st11_a_load_brings_the_snapshot_with_what_it_folds() {
    let (_dir, path) = database();
    let store = Store::open(&path).await.unwrap();
    let epoch = store.load(&key(), Epoch::random()).await.unwrap().epoch;
    store.append(&[row(epoch, 9, 3)]).await.unwrap();
    sqlx::raw_sql(
        "INSERT INTO snapshots (org, document, version, codec, n_chunks, folded, time_ms) VALUES ('default', 1, 4, 0, 2,
            x'0101010101010101000000000000000702020202020202020000000100000000', 0);
         INSERT INTO snapshot_chunks VALUES ('default', 1, 4, 1, x'0304'), ('default', 1, 4, 0, x'0102'),
            ('default', 1, 3, 0, x'ff')",
    )
    .execute(&store.writer)
    .await
    .unwrap();

    let loaded = store.load(&key(), epoch).await.unwrap();
    assert_eq!(loaded.snapshot, Some(Bytes::from_static(&[1, 2, 3, 4])));
    assert_eq!(
        loaded.folded.entries().collect::<Vec<_>>(),
        [
            (Origin::from_bytes([1; 8]), 7),
            (Origin::from_bytes([2; 8]), 1 << 32)
        ]
    );
    assert_eq!(loaded.rows, [row(epoch, 9, 3)]);

    store.delete(&key()).await.unwrap();
    assert_eq!(store.load(&key(), epoch).await.unwrap().snapshot, None);
}

#[tokio::test]
async fn st11_a_snapshot_that_cannot_be_read_is_an_error_and_not_an_empty_document() {
    let (_dir, path) = database();
    let store = Store::open(&path).await.unwrap();
    let epoch = store.load(&key(), Epoch::random()).await.unwrap().epoch;
    for (statements, what) in [
        (
            "INSERT INTO snapshots (org, document, version, codec, n_chunks, folded, time_ms) VALUES ('default', 1, 1, 0, 2, x'', 0);
             INSERT INTO snapshot_chunks VALUES ('default', 1, 1, 0, x'00')",
            "chunks of its snapshot are missing",
        ),
        (
            "UPDATE snapshots SET codec = 7",
            "its snapshot is in an encoding that this version cannot read",
        ),
    ] {
        sqlx::raw_sql(statements)
            .execute(&store.writer)
            .await
            .unwrap();
        let error = store.load(&key(), epoch).await.unwrap_err();
        assert!(matches!(&error, LoadError::Damaged { what: found, .. } if *found == what));
    }
}

#[tokio::test]
async fn st2_an_append_that_is_dropped_on_the_way_leaves_the_store_usable() {
    let (_dir, path) = database();
    let store = Arc::new(Store::open(&path).await.unwrap());
    let epoch = store.load(&key(), Epoch::random()).await.unwrap().epoch;
    let batch: Vec<LogRow> = (1..=500).map(|n| row(epoch, n, 100)).collect();
    for n_polls in 0..12 {
        let mut append = store.append(&batch);
        for _ in 0..n_polls {
            let poll = std::future::poll_fn(|context| {
                std::task::Poll::Ready(append.as_mut().poll(context).is_ready())
            });
            if poll.await {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(append);
        let stored = store.load(&key(), epoch).await.unwrap().rows.len();
        assert!(stored == 0 || stored == 500, "{stored} rows of 500");
    }
    store.append(&batch).await.unwrap();
    assert_eq!(store.load(&key(), epoch).await.unwrap().rows, batch);
}

/// Moves the one row of the document between log and snapshot, as a compaction does, in one transaction each time.
async fn compact_back_and_forth(writer: &SqlitePool, n: usize) {
    for _ in 0..n {
        for statements in [
            "BEGIN IMMEDIATE; DELETE FROM log;
             INSERT INTO snapshots (org, document, version, codec, n_chunks, folded, time_ms) VALUES ('default', 1, 1, 0, 1, x'01010101010101010000000000000001', 0);
             INSERT INTO snapshot_chunks VALUES ('default', 1, 1, 0, x'01'); COMMIT",
            "BEGIN IMMEDIATE; DELETE FROM snapshots; DELETE FROM snapshot_chunks;
             INSERT INTO log VALUES ('default', 1, x'0101010101010101', 1, zeroblob(16), 'ada', 0, x'01'); COMMIT",
        ] {
            sqlx::raw_sql(statements).execute(writer).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn st4_a_load_finds_every_edit_while_a_compaction_runs() {
    let (_dir, path) = database();
    let store = Store::open(&path).await.unwrap();
    let epoch = store.load(&key(), Epoch::random()).await.unwrap().epoch;
    store.append(&[row(epoch, 1, 1)]).await.unwrap();
    let scope = crate::shutdown::Scope::new();
    let writer = store.writer.clone();
    let compaction = scope.spawn(async move { compact_back_and_forth(&writer, 100).await });
    while !compaction.is_finished() {
        let loaded = store.load(&key(), epoch).await.unwrap();
        let in_snapshot = loaded.folded.get(Origin::from_bytes([1; 8])) == 1;
        assert_eq!(in_snapshot, loaded.snapshot.is_some());
        assert_ne!(in_snapshot, !loaded.rows.is_empty(), "lost or doubled");
    }
    compaction.await.unwrap();
}
