//! Documents that are compacted by real workers while people are in them.

use std::fs;
use std::time::Duration;

use syncline::doc::{Document, DocumentLimits, ScanLimits, scan};
use syncline::ids::{DocumentKey, DocumentName, Epoch, OrgId};
use syncline::protocol::message::ServerDocument;
use syncline::protocol::position::Position;
use syncline::store::Loaded;
use tempfile::TempDir;
use yrs::{Doc, Map as _, MapPrelim, Text as _, Transact as _};

use crate::support::{Server, Session, Way, everything, until};
use crate::workers::{HELLO, program};

const ROWS: u64 = 40;

/// A server that compacts early.
async fn server() -> Server {
    Server::with(|config| {
        config.room.compaction.rows = ROWS;
        config.room.compaction.rows_min = 4;
    })
    .await
}

async fn stored(server: &Server, name: &str) -> Loaded {
    let key = DocumentKey {
        org: OrgId::default_org(),
        name: DocumentName::new(name).unwrap(),
    };
    let store = server.node.store();
    store.load(&key, Epoch::random()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_leaves_memory_and_store_while_it_is_edited() {
    // Twice this is more than the tail keeps for readers who are behind.
    const PASTED: usize = 600_000;
    let server = server().await;
    let metrics = server.node.metrics();
    let mut session = Session::connect(&server, Way::WebSocket).await;
    let mut notes = session.open(1, "notes").await;
    notes.write(&"x".repeat(PASTED)).await;
    notes.write(&"x".repeat(PASTED)).await;
    let deletion = {
        let text = notes.doc.get_or_insert_text("text");
        let mut transaction = notes.doc.transact_mut();
        text.remove_range(&mut transaction, 0, 2 * PASTED as u32);
        transaction.encode_update_v1()
    };
    notes.update(deletion.into()).await;
    let mut last = 0;
    for _ in 0..ROWS {
        last = notes.write("y").await;
    }
    session.durable(&mut notes, last).await;
    until("a compaction", || metrics.compactions.get(["done"]) > 0).await;
    until("the room has adopted it", || {
        metrics.document_bytes.get() < (PASTED / 10) as i64
    })
    .await;
    assert_eq!(metrics.compactions_merged.get(), 0);
    assert_eq!(metrics.worker_requests.get(), 1);
    let loaded = stored(&server, "notes").await;
    assert!(loaded.snapshot.unwrap().len() < PASTED / 10);
    assert!(!loaded.digest.is_empty());

    // Who is in goes on, who comes finds the same.
    let last = notes.write("z").await;
    session.durable(&mut notes, last).await;
    let mut other = Session::connect(&server, Way::WebTransport).await;
    assert_eq!(other.open(1, "notes").await.text(), notes.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletions_that_collecting_finds_reach_everybody_who_is_in() {
    let server = server().await;
    let mut session = Session::connect(&server, Way::WebSocket).await;
    let mut notes = session.open(1, "notes").await;
    let mut other = Session::connect(&server, Way::WebTransport).await;
    let watching = other.open(1, "notes").await;
    // Two authors set one key at the same time, with a map each: one loses, and no update says that it is deleted.
    for client in [8, 9] {
        let doc = Doc::with_client_id(client);
        let root = doc.get_or_insert_map("map");
        root.insert(&mut doc.transact_mut(), "key", MapPrelim::from([("in", 1)]));
        notes.update(everything(&doc)).await;
    }
    for _ in 0..ROWS {
        notes.write("y").await;
    }
    let growth = loop {
        if let ServerDocument::Update { update, .. } = other.document_message(&watching).await {
            let walked = scan(&update, &ScanLimits::default()).unwrap();
            if walked.n_delete_ranges() > 0 {
                break walked;
            }
        }
    };
    assert_eq!(growth.n_structs(), 0, "only deletions");
    // A newcomer gets the same deletions.
    let mut third = Session::connect(&server, Way::WebSocket).await;
    let newcomer = third.open(1, "notes").await.opened.update;
    let newcomer = Document::load(
        DocumentLimits::default(),
        Some(newcomer),
        Position::new(),
        Vec::new(),
    );
    assert!(!newcomer.unwrap().has_news(&growth));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn st49_a_document_over_which_workers_die_twice_is_flagged_and_edited_as_ever() {
    let programs = TempDir::new().unwrap();
    let killer = program(
        programs.path(),
        &format!("{HELLO}; head -c 20 >&2; kill -9 $$"),
    );
    let server = Server::with(|config| {
        config.worker.program = killer;
        config.worker.restart_backoff = Duration::from_millis(1);
        config.room.compaction.rows = ROWS;
        config.room.compaction.rows_min = 4;
    })
    .await;
    let metrics = server.node.metrics();
    let mut session = Session::connect(&server, Way::WebSocket).await;
    let mut notes = session.open(1, "notes").await;
    for round in 1..=4 {
        let mut last = 0;
        for _ in 0..ROWS {
            last = notes.write("y").await;
        }
        session.durable(&mut notes, last).await;
        until("a compaction", || {
            metrics.compactions.get(["done"]) == round
        })
        .await;
        // The merged bytes stand in each time; after the second no worker is lost over it any more.
        assert_eq!(metrics.compactions_merged.get(), round);
        assert_eq!(metrics.workers_failed.get(["died"]), round.min(2));
        assert_eq!(metrics.flagged_documents.get(), i64::from(round >= 2));
    }
    let mut other = Session::connect(&server, Way::WebTransport).await;
    assert_eq!(other.open(1, "notes").await.text(), notes.text());
    assert_eq!(
        fs::read_dir(server.data.path().join("quarantine"))
            .unwrap()
            .count(),
        2
    );
}
