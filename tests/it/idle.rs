//! Documents that nobody has open leave memory, and come back whole.

use syncline::protocol::message::ClientDocument;

use crate::kill::{Process, knob};
use crate::support::{Session, soon};

/// Opens, edits and leaves a range of documents; each is durable before it is left.
async fn visit(session: &mut Session, documents: std::ops::Range<usize>) {
    for n in documents {
        let channel = u32::try_from(n + 1).unwrap();
        let mut document = session.open(channel, &format!("idle/{n}")).await;
        let sequence = document.write(&content(n)).await;
        session.durable(&mut document, sequence).await;
        document.send(ClientDocument::Close).await;
    }
}

fn content(n: usize) -> String {
    format!("document {n} ").repeat(20)
}

/// Waits until no document is open.
async fn all_retired(server: &Process) {
    let mut pause = tokio::time::interval(std::time::Duration::from_millis(50));
    soon("the rooms retire", async {
        while server.metric("syncline_rooms_open").await > 0 {
            pause.tick().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_returns_when_documents_are_left_and_each_opens_again_with_its_content() {
    // `make prove` visits 10,000.
    let n_documents = if knob("SYNCLINE_TEST_LONG").is_some() {
        10_000
    } else {
        1_500
    };
    let n_warm = n_documents / 10;
    let data = tempfile::TempDir::new().unwrap();
    let server = Process::start_with(data.path(), &[("SYNCLINE_ROOM__IDLE", "200ms")]).await;
    let mut session = server.session().await;
    // The allocator, the database's cache and the pools have their size after this.
    visit(&mut session, 0..n_warm).await;
    all_retired(&server).await;
    let before = server.rss_bytes();
    visit(&mut session, n_warm..n_documents).await;
    let most = server.rss_bytes();
    all_retired(&server).await;
    let after = server.rss_bytes();
    println!(
        "{n_documents} documents: {} KiB before, {} KiB at the end of the visits, {} KiB after they were left",
        before >> 10,
        most >> 10,
        after >> 10
    );
    assert!(
        after <= before + before / 5,
        "{before} bytes before, {after} after"
    );
    let mut again = server.session().await;
    for n in 0..n_documents {
        let channel = u32::try_from(n + 1).unwrap();
        let mut document = again.open(channel, &format!("idle/{n}")).await;
        assert_eq!(document.text(), content(n));
        document.send(ClientDocument::Close).await;
    }
    server.kill().await;
}
