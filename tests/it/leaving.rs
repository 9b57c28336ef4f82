//! A client that leaves: what it sent before it went is in the document, although nothing can be said to it any more.

use syncline::protocol::yjs::Message;
use syncline::session::Door;
use syncline::shutdown::Scope;
use yrs::Doc;

use crate::support::{Server, Session, Way, append, soon};

/// More than the queues between a client and its room hold, so that our first failed write comes in the middle.
const N_EDITS: usize = 300;

/// Waits until a newcomer finds every edit.
async fn all_arrived(server: &Server) {
    let mut fresh = Session::connect(server, Way::WebSocket).await;
    let mut document = fresh.open(1, "notes").await;
    fresh.text(&mut document, &"x".repeat(N_EDITS)).await;
}

#[tokio::test]
async fn a_native_client_that_hears_nothing_more_is_heard_to_its_end() {
    let server = Server::start().await;
    let scope = Scope::new();
    let link = server.serve(Door::Native, &scope);
    let mut session = Session::greet(link, Scope::new()).await;
    let mut document = session.open(1, "notes").await;
    let sequence = document.sequence;
    session.durable(&mut document, sequence).await;
    // From here on every write to this client fails.
    let sender = session.link.sender.clone();
    drop(session.link.receiver);
    for _ in 0..N_EDITS {
        document.write("x").await;
    }
    all_arrived(&server).await;
    drop((document, session.control, sender));
    soon("the end", scope.stop(crate::support::PATIENCE)).await;
    server.node.stop().await;
}

#[tokio::test]
async fn a_stock_client_that_hears_nothing_more_is_heard_to_its_end() {
    let server = Server::start().await;
    let scope = Scope::new();
    let (link, mut writer) = server.enter_stock("notes", &scope).await;
    drop(link.receiver);
    let doc = Doc::new();
    for _ in 0..N_EDITS {
        let update = Message::Update(append(&doc, "x")).encode();
        writer.write(&[update]).await.unwrap();
    }
    all_arrived(&server).await;
    drop((writer, link.sender));
    soon("the end", scope.stop(crate::support::PATIENCE)).await;
    server.node.stop().await;
}
