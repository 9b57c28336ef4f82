//! Readers that do not read: they cost a bounded amount of memory, delay nobody, and get one diff when they read again.

use bytes::Bytes;
use syncline::protocol::message::ServerDocument;
use syncline::protocol::yjs::Message;
use syncline::shutdown::Scope;
use syncline::transport::websocket::Framing;
use syncline::transport::{Link, Received, dial};
use yrs::Doc;

use crate::kill::Process;
use crate::support::{Document, Session, append, soon, text};

/// One edit of the load, in bytes.
const EDIT_BYTES: usize = 40_000;

/// Edits of the load: far more than every bound between the author and a reader.
const N_EDITS: usize = 260;

/// What a slow reader may cost beyond its outbox (512 KiB) and the carrier's send window (1 MiB), as issue and design
/// have it.
const SLACK_BYTES: u64 = 4 << 20;

const BOUND_BYTES: u64 = (512 << 10) + (1 << 20) + SLACK_BYTES;

/// A reader of any dialect that can be left alone.
enum Reader {
    Native(Box<Session>, Box<Document>),
    /// With the scope in which the link's tasks run.
    Yjs(Box<Link>, Doc, #[expect(dead_code, reason = "held")] Scope),
}

impl Reader {
    async fn native(mut session: Session) -> Self {
        let document = session.open(1, "notes").await;
        Self::Native(Box::new(session), Box::new(document))
    }

    async fn yjs(server: &Process) -> Self {
        let scope = Scope::new();
        let options = dial::Options {
            framing: Framing::Single,
            ..dial::Options::default()
        };
        let url = format!("ws://{}/yjs/notes", server.http);
        let link = dial::websocket(&url, &options, &scope).await.unwrap();
        let mut writer = link.sender.open(1).await.unwrap();
        let step1 = Message::SyncStep1(Bytes::from_static(&[0])).encode();
        writer.write(&[step1]).await.unwrap();
        Self::Yjs(Box::new(link), Doc::new(), scope)
    }

    /// Reads until the text is as long as wanted; how many updates came.
    async fn read(&mut self, wanted: usize) -> usize {
        let mut n_updates = 0;
        loop {
            let have = match self {
                Self::Native(_, document) => document.text().len(),
                Self::Yjs(_, doc, _) => text(doc).len(),
            };
            if have == wanted {
                return n_updates;
            }
            match self {
                Self::Native(session, document) => {
                    if let ServerDocument::Update { update, .. } =
                        session.document_message(document).await
                    {
                        document.apply(&update);
                        n_updates += 1;
                    }
                }
                Self::Yjs(link, doc, _) => {
                    let received = soon("a message", link.receiver.recv()).await.unwrap();
                    let Some(Received::Frame { bytes, .. }) = received else {
                        panic!("{received:?} came");
                    };
                    if let Some(Message::Update(update) | Message::SyncStep2(update)) =
                        Message::decode(&bytes).unwrap()
                    {
                        crate::support::apply(doc, &update);
                        n_updates += 1;
                    }
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slow {
    Nobody,
    WebTransport,
    WebSocket,
    Yjs,
}

/// Puts the load on a server with one healthy reader and perhaps a slow one; what the server's memory came to in bytes.
async fn load(slow: Slow) -> u64 {
    let data = tempfile::TempDir::new().unwrap();
    // What a compaction takes for a moment is not what a reader costs, and one arena gives back what is free.
    let environment = [
        ("SYNCLINE_ROOM__COMPACTION__ROWS", "1000000"),
        ("SYNCLINE_ROOM__COMPACTION__BYTES_MIN", "1GiB"),
        ("MALLOC_ARENA_MAX", "1"),
    ];
    let server = Process::start_with(data.path(), &environment).await;
    let mut author = server.session().await;
    let mut a = author.open(1, "notes").await;
    let mut healthy = Reader::native(server.session().await).await;
    let mut stalled = match slow {
        Slow::Nobody => None,
        Slow::WebTransport => Some(Reader::native(server.webtransport_session().await).await),
        Slow::WebSocket => Some(Reader::native(server.session().await).await),
        Slow::Yjs => Some(Reader::yjs(&server).await),
    };
    let word = "x".repeat(EDIT_BYTES);
    for n in 1..=N_EDITS {
        let update = append(&a.doc, &word);
        a.update(update).await;
        if n % 20 == 0 {
            // The healthy reader keeps up all the while, whatever the other does.
            healthy.read(n * EDIT_BYTES).await;
        }
    }
    let sequence = a.sequence;
    author.durable(&mut a, sequence).await;
    let rss = server.rss_bytes();
    if let Some(stalled) = &mut stalled {
        // As the system's own buffers grow the reader may fall behind more than once while it does not read.
        let n_resyncs = server.metric("syncline_member_resyncs_total").await;
        assert!(n_resyncs >= 1, "it fell behind");
        let n_updates = stalled.read(N_EDITS * EDIT_BYTES).await;
        assert!(n_updates < N_EDITS, "a diff stands for what it missed");
        assert_eq!(
            server.metric("syncline_member_resyncs_total").await,
            n_resyncs,
            "one diff when it reads again"
        );
    }
    server.kill().await;
    rss
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_costs_little_and_catches_up_with_one_diff() {
    // The least of three runs: what else the process holds at the moment of the look is noise on top.
    let without = load(Slow::Nobody).await;
    for slow in [Slow::WebTransport, Slow::WebSocket, Slow::Yjs] {
        let mut with = load(slow).await;
        for _ in 0..2 {
            if with.saturating_sub(without) > BOUND_BYTES {
                with = with.min(load(slow).await);
            }
        }
        println!(
            "{slow:?}: {} KiB more than {} KiB",
            (with.saturating_sub(without)) >> 10,
            without >> 10
        );
        assert!(
            with.saturating_sub(without) <= BOUND_BYTES,
            "{slow:?} cost {} bytes, at most {BOUND_BYTES} are allowed",
            with - without
        );
    }
}
