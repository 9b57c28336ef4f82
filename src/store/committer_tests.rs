//! Tests of the committer. Time is paused: it moves only when every task waits, so that elapsed times are exact.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use proptest::prelude::*;
use tempfile::TempDir;

use crate::ids::{DocumentKey, DocumentName, Epoch, OrgId, Origin};
use crate::store::{DocumentState, faulty, journal, replay};

use super::*;

const GATHER: Duration = Duration::from_millis(5);

struct Fixture {
    store: Arc<faulty::Store>,
    journal: Arc<Journal>,
    committer: Committer,
    scope: Scope,
    dir: TempDir,
    started: Instant,
}

impl Fixture {
    fn with(config: Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = faulty::Store::memory();
        let scope = Scope::new();
        let (journal, _) = Journal::open(
            journal::Config {
                segment_bytes: 2_000,
                ..journal::Config::default()
            },
            dir.path(),
            Origin::random(),
        )
        .unwrap();
        let journal = Arc::new(journal);
        let committer = Committer::start(
            config,
            Arc::clone(&store) as Arc<dyn DocStore>,
            Some(Arc::clone(&journal)),
            Arc::default(),
            &scope,
        );
        Self {
            store,
            journal,
            committer,
            scope,
            dir,
            started: Instant::now(),
        }
    }

    fn new() -> Self {
        Self::with(Config::default())
    }

    async fn room(&self, name: &str) -> Room {
        let key = DocumentKey {
            org: OrgId::default_org(),
            name: DocumentName::new(name).unwrap(),
        };
        let epoch = self.store.load(&key, Epoch::random()).await.unwrap().epoch;
        Room {
            key,
            epoch,
            origin: Origin::from_bytes([1; 8]),
            sequence: 0,
            mark: Arc::new(DurableMark::new(0)),
        }
    }

    /// As a room does it: journal, then submit.
    fn submit(&self, room: &mut Room, n: u64, bytes: usize) {
        let rows: Vec<LogRow> = (0..n).map(|_| room.next_row(bytes)).collect();
        let segment = self.journal.append(&rows).unwrap();
        self.committer.submit(rows, Some(segment), &room.mark);
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    async fn stored(&self, room: &Room) -> Vec<u64> {
        let loaded = self.store.load(&room.key, Epoch::random()).await.unwrap();
        loaded.rows.iter().map(|row| row.sequence).collect()
    }
}

struct Room {
    key: DocumentKey,
    epoch: Epoch,
    origin: Origin,
    sequence: u64,
    mark: Arc<DurableMark>,
}

impl Room {
    fn next_row(&mut self, bytes: usize) -> LogRow {
        self.sequence += 1;
        LogRow {
            key: self.key.clone(),
            epoch: self.epoch,
            origin: self.origin,
            sequence: self.sequence,
            author: "ada".into(),
            time_ms: 0,
            update: vec![0; bytes].into(),
        }
    }

    async fn durable(&self, sequence: u64) {
        while self.mark.durable() < sequence {
            self.mark.changed().await;
        }
    }
}

/// Lets every other task run as far as it can without time passing.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn st30_a_lone_edit_waits_for_company_once() {
    let fixture = Fixture::new();
    let mut room = fixture.room("lone").await;
    fixture.submit(&mut room, 1, 20);
    room.durable(1).await;
    assert_eq!(fixture.elapsed(), GATHER);
    assert_eq!(fixture.stored(&room).await, [1]);
    assert_eq!(fixture.store.n_appends(), 1);
}

#[tokio::test(start_paused = true)]
async fn st30_rows_of_many_rooms_share_a_commit() {
    let fixture = Fixture::new();
    let mut rooms = Vec::new();
    for n in 0..50 {
        rooms.push(fixture.room(&format!("room {n}")).await);
    }
    for _ in 0..4 {
        for room in &mut rooms {
            fixture.submit(room, 1, 20);
        }
    }
    for room in &rooms {
        room.durable(4).await;
    }
    let stats = fixture.committer.stats();
    assert_eq!((stats.n_commits, stats.n_rows), (1, 200));
    assert_eq!((stats.unsaved_rows, stats.unsaved_bytes), (0, 0));
    assert_eq!(fixture.elapsed(), GATHER);
}

#[tokio::test(start_paused = true)]
async fn st30_enough_rows_or_bytes_wait_for_nobody() {
    for (n, bytes) in [(256, 10), (1, 64 * 1024)] {
        let fixture = Fixture::new();
        let mut room = fixture.room("busy").await;
        fixture.submit(&mut room, 1, 1);
        settle().await;
        assert_eq!(room.mark.durable(), 0);
        fixture.submit(&mut room, n, bytes);
        room.durable(1 + n).await;
        assert_eq!(fixture.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn st31_the_next_batch_fills_while_one_commits() {
    let fixture = Fixture::new();
    let mut room = fixture.room("pipelined").await;
    fixture.store.hold_appends();
    fixture.submit(&mut room, 1, 10);
    tokio::time::advance(GATHER).await;
    settle().await;
    assert_eq!(fixture.store.n_appends(), 1);
    for _ in 0..100 {
        fixture.submit(&mut room, 1, 10);
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    assert_eq!((room.mark.durable(), fixture.store.n_appends()), (0, 1));
    fixture.store.release_appends();
    let now = Instant::now();
    room.durable(101).await;
    // The second batch had waited long enough already.
    assert_eq!(now.elapsed(), Duration::ZERO);
    assert_eq!(fixture.committer.stats().n_commits, 2);
}

#[tokio::test(start_paused = true)]
async fn st31_a_backlog_is_committed_in_large_batches_and_in_order() {
    let fixture = Fixture::new();
    let mut room = fixture.room("backlog").await;
    fixture.store.hold_appends();
    fixture.submit(&mut room, 1, 10);
    tokio::time::advance(GATHER).await;
    settle().await;
    for _ in 0..300 {
        fixture.submit(&mut room, 10, 10);
    }
    fixture.store.release_appends();
    room.durable(3_001).await;
    let stats = fixture.committer.stats();
    // 3,000 rows, at most 1,024 in a transaction, submissions whole: 1,020 + 1,020 + 960.
    assert_eq!((stats.n_commits, stats.n_rows), (4, 3_001));
    assert_eq!(fixture.stored(&room).await.len(), 3_001);
}

#[tokio::test(start_paused = true)]
async fn st32_a_failed_commit_is_tried_again_with_growing_pauses() {
    let fixture = Fixture::new();
    let mut room = fixture.room("retried").await;
    fixture.store.fail_appends(3);
    fixture.submit(&mut room, 5, 10);
    tokio::time::advance(GATHER).await;
    settle().await;
    assert!(fixture.committer.stats().is_failing);
    assert_eq!(room.mark.durable(), 0);
    room.durable(5).await;
    // 50, 100 and 200 ms, each between half and whole.
    let pauses = fixture.elapsed() - GATHER;
    assert!(pauses >= Duration::from_millis(175), "{pauses:?}");
    assert!(pauses <= Duration::from_millis(360), "{pauses:?}");
    let stats = fixture.committer.stats();
    assert_eq!((stats.n_failures, stats.n_commits), (3, 1));
    assert!(!stats.is_failing);
    assert_eq!(fixture.stored(&room).await, [1, 2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn st32_a_lost_reply_is_no_second_edit() {
    let fixture = Fixture::new();
    let mut room = fixture.room("unsure").await;
    fixture.store.lose_replies(2);
    fixture.submit(&mut room, 2, 10);
    room.durable(2).await;
    assert_eq!(fixture.stored(&room).await, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn st32_a_full_disk_is_waited_out() {
    let fixture = Fixture::new();
    let mut room = fixture.room("full").await;
    fixture.store.set_disk_full(true);
    fixture.submit(&mut room, 1, 10);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(room.mark.durable(), 0);
    // At most 2 s apart, at least 1 s: neither a storm nor asleep.
    let n = fixture.store.n_appends();
    assert!((300..=620).contains(&n), "{n} attempts in ten minutes");
    fixture.store.set_disk_full(false);
    let now = Instant::now();
    room.durable(1).await;
    assert!(now.elapsed() <= Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn st34_rows_of_a_replaced_document_mark_their_room_only() {
    let fixture = Fixture::new();
    let mut gone = fixture.room("gone").await;
    let mut kept = fixture.room("kept").await;
    fixture.submit(&mut gone, 1, 10);
    gone.durable(1).await;
    fixture.store.delete(&gone.key).await.unwrap();
    fixture
        .store
        .recreate(&gone.key, Epoch::random())
        .await
        .unwrap();
    fixture.submit(&mut kept, 2, 10);
    fixture.submit(&mut gone, 2, 10);
    fixture.submit(&mut kept, 1, 10);
    kept.durable(3).await;
    gone.mark.changed().await;
    assert!(gone.mark.replaced() && !kept.mark.replaced());
    assert_eq!(gone.mark.durable(), 1);
    assert_eq!(fixture.committer.stats().n_refused, 2);
    assert!(fixture.stored(&gone).await.is_empty());
    // They do not block the journal, nor come back from it.
    fixture.committer.flush().await.unwrap();
    let (store, journal) = (Arc::clone(&fixture.store), fixture.journal.bytes());
    assert!(journal < 1_000, "{journal}");
    let loaded = store.load(&gone.key, Epoch::random()).await.unwrap();
    assert_eq!(loaded.state, DocumentState::Live);
}

#[tokio::test(start_paused = true)]
async fn st25_committed_rows_leave_the_journal() {
    let fixture = Fixture::new();
    let mut room = fixture.room("journalled").await;
    fixture.store.hold_appends();
    for _ in 0..20 {
        fixture.submit(&mut room, 1, 500);
    }
    assert!(fixture.journal.n_segments() > 5);
    fixture.store.release_appends();
    fixture.committer.flush().await.unwrap();
    assert_eq!(fixture.journal.n_segments(), 1);
}

#[tokio::test(start_paused = true)]
async fn st35_room_is_refused_at_the_bound_and_given_after_the_commit() {
    let fixture = Fixture::with(Config {
        unsaved_bytes_max: 10_000,
        ..Config::default()
    });
    let mut room = fixture.room("bounded").await;
    fixture.store.hold_appends();
    fixture.submit(&mut room, 1, 9_000);
    assert!(fixture.committer.has_room());
    fixture.submit(&mut room, 1, 9_000);
    assert!(!fixture.committer.has_room());
    tokio::time::advance(GATHER).await;
    settle().await;
    // What is being committed counts until it is.
    assert!(!fixture.committer.has_room());
    fixture.store.release_appends();
    room.durable(2).await;
    fixture.committer.flush().await.unwrap();
    assert_eq!(fixture.committer.unsaved_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn st36_a_flush_does_not_gather_and_ends_with_its_rows() {
    let fixture = Fixture::new();
    fixture.committer.flush().await.unwrap();
    let mut room = fixture.room("flushed").await;
    fixture.submit(&mut room, 3, 10);
    fixture.committer.flush().await.unwrap();
    assert_eq!(room.mark.durable(), 3);
    assert_eq!(fixture.elapsed(), Duration::ZERO);
    // And the next rows gather as before.
    fixture.submit(&mut room, 1, 10);
    room.durable(4).await;
    assert_eq!(fixture.elapsed(), GATHER);
}

#[tokio::test(start_paused = true)]
async fn st36_a_flush_waits_for_a_store_that_fails() {
    let fixture = Fixture::new();
    let mut room = fixture.room("flushed").await;
    fixture.store.fail_appends(4);
    fixture.submit(&mut room, 1, 10);
    let committer = fixture.committer.clone();
    let mut flush = pin!(committer.flush());
    let poll = flush.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(poll.is_pending());
    flush.await.unwrap();
    assert_eq!(room.mark.durable(), 1);
}

#[tokio::test(start_paused = true)]
async fn st37_a_stop_commits_what_is_left() {
    let fixture = Fixture::new();
    let mut room = fixture.room("stopped").await;
    for _ in 0..3 {
        fixture.submit(&mut room, 1_000, 10);
    }
    assert!(fixture.scope.stop(Duration::from_secs(1)).await);
    assert_eq!(room.mark.durable(), 3_000);
    assert_eq!(fixture.elapsed(), Duration::ZERO);
    fixture.committer.flush().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn st37_a_stop_while_the_store_fails_leaves_the_rows_in_the_journal() {
    let fixture = Fixture::new();
    let mut room = fixture.room("spooled").await;
    fixture.store.set_disk_full(true);
    fixture.submit(&mut room, 7, 10);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(fixture.scope.stop(Duration::from_secs(1)).await);
    assert_eq!(
        fixture.committer.flush().await,
        Err(Unflushed { n_rows: 7 })
    );
    assert_eq!(room.mark.durable(), 0);

    // The next start.
    fixture.store.set_disk_full(false);
    let (journal, left) = Journal::open(
        journal::Config::default(),
        fixture.dir.path(),
        Origin::random(),
    )
    .unwrap();
    let report = replay(&journal, left, &*fixture.store).await.unwrap();
    assert_eq!(report.n_rows, 7);
    assert_eq!(fixture.stored(&room).await.len(), 7);
}

/// What happens in one step of the property below.
#[derive(Debug, Clone)]
enum Step {
    Edit { room: usize, n: u64 },
    Fail(u64),
    LoseReplies(u64),
    Pass { ms: u64 },
    Delete { room: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_usize, 1..40_u64).prop_map(|(room, n)| Step::Edit { room, n }),
        1 => (1..4_u64).prop_map(Step::Fail),
        1 => (1..3_u64).prop_map(Step::LoseReplies),
        3 => (0..30_u64).prop_map(|ms| Step::Pass { ms }),
        1 => (0..3_usize).prop_map(|room| Step::Delete { room }),
    ]
}

/// What a mark says is durable is in the store, at every moment, unless the document was deleted.
async fn check(fixture: &Fixture, rooms: &[Room], deleted: &[bool; 3]) {
    for (room, deleted) in rooms.iter().zip(deleted) {
        let durable = room.mark.durable();
        let stored = fixture.stored(room).await;
        if !deleted {
            assert!(stored.len() as u64 >= durable);
            assert!(stored.iter().copied().eq(1..=stored.len() as u64));
        }
    }
}

async fn run(steps: Vec<Step>) {
    let fixture = Fixture::new();
    let mut rooms = Vec::new();
    for name in ["a", "b", "c"] {
        rooms.push(fixture.room(name).await);
    }
    let mut deleted = [false; 3];
    for step in steps {
        match step {
            Step::Edit { room, n } => fixture.submit(&mut rooms[room], n, 10),
            Step::Fail(n) => fixture.store.fail_appends(n),
            Step::LoseReplies(n) => fixture.store.lose_replies(n),
            Step::Pass { ms } => sleep(Duration::from_millis(ms)).await,
            Step::Delete { room } => {
                fixture.store.delete(&rooms[room].key).await.unwrap();
                deleted[room] = true;
            }
        }
        check(&fixture, &rooms, &deleted).await;
    }
    fixture.committer.flush().await.unwrap();
    check(&fixture, &rooms, &deleted).await;
    for (room, deleted) in rooms.iter().zip(deleted) {
        assert!(deleted || room.mark.durable() == room.sequence);
        assert!(!room.mark.replaced() || deleted);
    }
    let stats = fixture.committer.stats();
    assert_eq!((stats.unsaved_rows, stats.unsaved_bytes), (0, 0));
    assert!(fixture.journal.n_segments() <= 1, "the journal let go");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn st33_durable_is_never_ahead_of_the_store(steps in proptest::collection::vec(step(), 1..40)) {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(run(steps));
    }
}
