//! Rooms that compact: an hour of editing, closing, faults while people edit, and what a reload finds.

use std::path::Path;

use tempfile::TempDir;
use tokio::time::timeout;
use yrs::updates::decoder::Decode;
use yrs::{Doc, GetString, ReadTxn, Text, Transact, Update};

use super::*;
use crate::auth::Access;
use crate::ids::{DocumentName, OrgId};
use crate::room::{
    self, Event, Handle, Join, Kind, Mailbox, MemberId, Opened, Out, Parts, Registry,
};
use crate::shutdown::Scope;
use crate::store::{Committer, Journal, committer, faulty, journal};
use crate::telemetry::Metrics;

fn key() -> DocumentKey {
    DocumentKey {
        org: OrgId::default_org(),
        name: DocumentName::new("notes").unwrap(),
    }
}

/// A node without doors.
struct Node {
    registry: Registry,
    store: Arc<faulty::Store>,
    metrics: Arc<Metrics>,
    scope: Scope,
}

impl Node {
    async fn start(dir: &Path, config: room::Config) -> Self {
        let url = format!("sqlite:{}", dir.join("syncline.sqlite").display());
        let store = faulty::Store::new(store::open(&url).await.unwrap());
        let (scope, metrics, origin) = (Scope::new(), Arc::<Metrics>::default(), Origin::random());
        let journal = Journal::open(journal::Config::default(), &dir.join("journal"), origin);
        let journal = Arc::new(journal.unwrap().0);
        let committer = Committer::start(
            committer::Config::default(),
            store.clone(),
            Some(journal.clone()),
            metrics.clone(),
            &scope,
        );
        let registry = Registry::new(Parts {
            config,
            limits: DocumentLimits::default(),
            store: store.clone(),
            journal,
            committer,
            collector: Arc::new(MergeOnly),
            origin,
            metrics: metrics.clone(),
            scope: scope.clone(),
        });
        Self {
            registry,
            store,
            metrics,
            scope,
        }
    }

    async fn stop(self) {
        assert!(self.scope.stop(Duration::from_secs(10)).await);
        self.store.close().await;
    }

    async fn live_rows(&self) -> usize {
        let loaded = self.store.load(&key(), Epoch::random()).await;
        loaded.unwrap().rows.len()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let mut pause = tokio::time::interval(Duration::from_millis(2));
        let wait = async {
            while !holds(self) {
                pause.tick().await;
            }
        };
        assert!(
            timeout(Duration::from_secs(20), wait).await.is_ok(),
            "{what}"
        );
    }
}

/// Somebody who edits through a room.
struct Editor {
    handle: Handle,
    mailbox: Arc<Mailbox>,
    member: MemberId,
    opened: Opened,
    sequence: u64,
    doc: Doc,
}

impl Editor {
    async fn join(node: &Node, position: Option<Position>) -> Self {
        let handle = node.registry.open(&key()).await.unwrap();
        let (mailbox, member) = (node.registry.mailbox(), node.registry.next_member());
        let join = Join {
            member,
            user: "ada".into(),
            access: Access::Write,
            known_epoch: None,
            client_id: None,
            state_vector: Some(StateVector::new()),
            position,
        };
        handle.join(join, mailbox.clone()).await.unwrap();
        let mut outs = Vec::new();
        mailbox.take(&mut outs).await.unwrap();
        let Some(Out::Opened(opened)) = outs.into_iter().next() else {
            panic!("OPENED comes first");
        };
        let doc = Doc::new();
        if !opened.missing.is_empty() {
            let missing = Update::decode_v1(&opened.missing).unwrap();
            doc.transact_mut().apply_update(missing).unwrap();
        }
        Self {
            handle,
            mailbox,
            member,
            opened: *opened,
            sequence: 0,
            doc,
        }
    }

    fn text(&self) -> String {
        let text = self.doc.get_or_insert_text("text");
        text.get_string(&self.doc.transact())
    }

    /// Types, and takes a quarter of it back, ten letters at a time.
    async fn edit(&mut self, n: usize) {
        let text = self.doc.get_or_insert_text("text");
        for _ in 0..n {
            let before = self.doc.transact().state_vector();
            self.sequence += 1;
            let update = {
                let mut transaction = self.doc.transact_mut();
                let length = text.len(&transaction);
                if self.sequence % 40 >= 30 {
                    text.remove_range(&mut transaction, length - 1, 1);
                } else {
                    let letter = char::from(b'a' + (self.sequence % 26) as u8);
                    text.push(&mut transaction, &letter.to_string());
                }
                transaction.encode_diff_v1(&before)
            };
            let event = Event::Update {
                member: self.member,
                sequence: self.sequence,
                kind: Kind::Live,
                update: Ok(scan(&update.into(), &ScanLimits::default()).unwrap()),
            };
            self.handle.tell(event).await.unwrap();
        }
    }

    /// Waits until everything is saved.
    async fn saved(&self) {
        let mut outs = Vec::new();
        loop {
            outs.clear();
            let taken = timeout(Duration::from_secs(20), self.mailbox.take(&mut outs)).await;
            taken.expect("DURABLE comes").unwrap();
            let is_saved = |out: &Out| matches!(out, Out::Durable(n) if *n == self.sequence);
            if outs.iter().any(is_saved) {
                return;
            }
        }
    }

    async fn leave(self) {
        self.handle.tell(Event::Leave(self.member)).await.unwrap();
    }
}

/// A fast typist makes 20,000 keystrokes in an hour.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn st45_an_hour_of_editing_keeps_the_log_short_and_the_memory_flat() {
    const N_EDITS: usize = 20_000;
    const BATCH: usize = 100;
    let dir = TempDir::new().unwrap();
    let config = room::Config {
        idle: Duration::from_millis(50),
        ..room::Config::default()
    };
    let node = Node::start(dir.path(), config).await;
    let mut editor = Editor::join(&node, None).await;
    let mut rows_max = 0;
    let mut bytes_max = [0, 0];
    for n in (0..N_EDITS).step_by(BATCH) {
        editor.edit(BATCH).await;
        editor.saved().await;
        rows_max = rows_max.max(node.live_rows().await);
        let half = n * 2 / N_EDITS;
        bytes_max[half] = bytes_max[half].max(node.metrics.document_bytes.get());
    }
    // Between two looks a batch came in.
    assert!(rows_max + BATCH <= 2_000, "{rows_max} rows");
    assert!(node.metrics.compactions.get(["done"]) >= 10);
    assert_eq!(node.metrics.compactions.get(["failed"]), 0);
    // Merged bytes stand in here: a byte of every letter stays.
    let grown = bytes_max[1] - bytes_max[0];
    assert!(grown < N_EDITS as i64, "{bytes_max:?}");

    let text = editor.text();
    editor.leave().await;
    node.until("an idle room closes", |node| node.registry.n_open() == 0)
        .await;
    let rows_min = Config::default().rows_min as usize;
    assert!(
        node.live_rows().await < rows_min,
        "it compacts before it closes"
    );
    assert_eq!(node.metrics.live_rows.get(), 0);
    assert_eq!(node.metrics.document_bytes.get(), 0);

    let again = Editor::join(&node, None).await;
    assert_eq!(again.text(), text);
    let n_kept: u64 = node
        .store
        .segments(&key())
        .await
        .unwrap()
        .iter()
        .map(|segment| segment.info.n_rows)
        .sum();
    assert_eq!(n_kept as usize + node.live_rows().await, N_EDITS);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn st44_a_position_is_valid_after_compactions_and_a_restart() {
    let dir = TempDir::new().unwrap();
    let node = Node::start(dir.path(), small()).await;
    let mut editor = Editor::join(&node, None).await;
    editor.edit(500).await;
    editor.saved().await;
    node.until("a compaction", |node| {
        node.metrics.compactions.get(["done"]) > 0
    })
    .await;
    let position = Editor::join(&node, None).await.opened.position;
    let text = editor.text();
    drop(editor);
    node.stop().await;

    let node = Node::start(dir.path(), small()).await;
    let resumed = Editor::join(&node, Some(position)).await;
    assert!(
        resumed.opened.missing.is_empty(),
        "only the tail, and there is none"
    );
    assert_eq!(Editor::join(&node, None).await.text(), text);
    // A position of the middle of what was folded: the whole, by the state vector.
    let origin = resumed.opened.position.entries().next().unwrap().0;
    let old = Editor::join(&node, Some(Position::of(origin, 3))).await;
    assert_eq!(old.text(), text);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn st46_faults_of_compactions_are_not_felt_and_are_tried_again() {
    let dir = TempDir::new().unwrap();
    let config = room::Config {
        compaction: Config {
            retry: Duration::from_millis(5),
            ..small().compaction
        },
        ..small()
    };
    let node = Node::start(dir.path(), config).await;
    let mut editor = Editor::join(&node, None).await;
    node.store.fail_compactions(2);
    editor.edit(200).await;
    editor.saved().await;
    node.until("two failures and a success", |node| {
        let count = |outcome| node.metrics.compactions.get([outcome]);
        count("failed") == 2 && count("done") > 0
    })
    .await;
    node.store.lose_compactions(1);
    editor.edit(200).await;
    editor.saved().await;
    node.until("a lost reply", |node| {
        node.metrics.compactions.get(["failed"]) == 3
    })
    .await;
    editor.edit(200).await;
    editor.saved().await;
    assert_eq!(Editor::join(&node, None).await.text(), editor.text());
    let text = editor.text();
    node.stop().await;
    let node = Node::start(dir.path(), small()).await;
    assert_eq!(Editor::join(&node, None).await.text(), text);
    node.stop().await;
}

/// Compacts early.
fn small() -> room::Config {
    room::Config {
        compaction: Config {
            rows: 100,
            rows_min: 10,
            ..Config::default()
        },
        ..room::Config::default()
    }
}
