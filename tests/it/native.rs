//! The native protocol end to end, over both carriers: PROTOCOL.md, sections CT, DC and EP.

use std::time::Duration;

use bytes::Bytes;
use syncline::ids::{DocumentKey, DocumentName, Epoch, OrgId, Origin};
use syncline::protocol::close::ErrorCode;
use syncline::protocol::message::{Access, ClientDocument, Open, ServerControl, ServerDocument};

use yrs::{Text, Transact};

use crate::support::{Server, Session, WAYS, Way, append, everything, open, text};

/// DC4: SEEN, then DURABLE, which counts everything before it.
#[tokio::test]
async fn two_people_edit_and_saved_comes_after_seen() {
    for way in WAYS {
        let server = Server::start().await;
        let mut alice = Session::connect(&server, way).await;
        let mut bob = Session::connect(&server, way).await;
        let mut a = alice.open(1, "notes").await;
        let mut b = bob.open(1, "notes").await;
        let sequence = a.write("hello").await;
        // SEEN comes first, and DURABLE counts everything before it.
        let mut seen = 0;
        loop {
            match alice.document_message(&a).await {
                ServerDocument::Seen(up_to) => seen = up_to,
                ServerDocument::Durable(up_to) => {
                    assert!(up_to <= seen, "durable {up_to} before seen {seen}");
                    if up_to == sequence {
                        break;
                    }
                }
                other => panic!("{other:?} came"),
            }
        }
        bob.text(&mut b, "hello").await;
        b.write(" world").await;
        alice.text(&mut a, "hello world").await;
        server.node.stop().await;
    }
}

/// DC3, EP3: who holds nothing says so, and OPENED carries the whole.
#[tokio::test]
async fn a_newcomer_gets_the_document_in_one_round_trip() {
    for way in WAYS {
        let server = Server::start().await;
        let mut alice = Session::connect(&server, way).await;
        let mut a = alice.open(1, "notes").await;
        let sequence = a.write("hello").await;
        alice.durable(&mut a, sequence).await;
        let mut bob = Session::connect(&server, way).await;
        let b = bob.try_open(7, open("notes", 7)).await.unwrap();
        b.apply(&b.opened.update);
        assert_eq!(b.text(), "hello");
        assert_eq!(b.epoch(), a.epoch());
        server.node.stop().await;
    }
}

#[tokio::test]
async fn many_documents_share_one_session_and_stay_apart() {
    for way in WAYS {
        let server = Server::start().await;
        let mut alice = Session::connect(&server, way).await;
        let mut bob = Session::connect(&server, way).await;
        let mut documents = Vec::new();
        for channel in 1..=40 {
            let name = format!("document/{channel}");
            let mut a = alice.open(channel, &name).await;
            a.write(&name).await;
            documents.push((a, name));
        }
        for (a, name) in &documents {
            let mut b = bob.open(a.channel, name).await;
            bob.text(&mut b, name).await;
        }
        server.node.stop().await;
    }
}

#[tokio::test]
async fn what_was_durable_is_there_after_a_restart_under_the_same_epoch() {
    let server = Server::start().await;
    let mut alice = Session::connect(&server, Way::WebSocket).await;
    let mut a = alice.open(1, "notes").await;
    let sequence = a.write("kept").await;
    alice.durable(&mut a, sequence).await;
    let server = server.restart().await;
    let mut bob = Session::connect(&server, Way::WebSocket).await;
    let mut request = open("notes", 2);
    request.epoch = Some(a.epoch());
    let b = bob.try_open(1, request).await.unwrap();
    b.apply(&b.opened.update);
    assert_eq!(b.text(), "kept");
    server.node.stop().await;
}

/// EP1: a copy of another history is refused, and nothing of it is merged.
#[tokio::test]
async fn a_copy_of_another_history_is_refused_with_epoch_mismatch() {
    for way in WAYS {
        let server = Server::start().await;
        let mut alice = Session::connect(&server, way).await;
        let mut a = alice.open(1, "notes").await;
        let sequence = a.write("new history").await;
        alice.durable(&mut a, sequence).await;
        let mut request = open("notes", 9);
        request.epoch = Some(Epoch::random());
        let refusal = alice.try_open(2, request).await.err().unwrap();
        assert_eq!(refusal.code, ErrorCode::EpochMismatch);
        assert!(!refusal.retryable);
        server.node.stop().await;
    }
}

/// A client that is up to date by position gets nothing, and one that is a little behind only the tail.
#[tokio::test]
async fn a_resume_sends_only_what_came_after_the_position() {
    for way in WAYS {
        let server = Server::start().await;
        let mut alice = Session::connect(&server, way).await;
        let mut a = alice.open(1, "notes").await;
        let mut sequence = 0;
        for _ in 0..50 {
            sequence = a.write("0123456789").await;
        }
        alice.durable(&mut a, sequence).await;
        let mut bob = Session::connect(&server, way).await;
        let b = bob.open(1, "notes").await;
        assert_eq!(b.text().len(), 500);
        let epoch = a.epoch();
        let resume = |position| Open {
            epoch: Some(epoch),
            state_vector: b.opened.state_vector.clone(),
            position: Some(position),
            ..open("notes", 5)
        };
        let again = bob.try_open(2, resume(b.position())).await.unwrap();
        assert!(again.opened.update.is_empty(), "nothing is missing");

        let sequence = a.write("!").await;
        alice.durable(&mut a, sequence).await;
        let again = bob.try_open(3, resume(b.position())).await.unwrap();
        assert!(again.opened.update.len() < 40, "one keystroke");
        b.apply(&again.opened.update);
        assert_eq!(b.text().len(), 501);

        // The position holds on the next incarnation of the node.
        let position = again.position();
        let server = server.restart().await;
        let mut bob = Session::connect(&server, way).await;
        let again = bob.try_open(1, resume(position)).await.unwrap();
        assert!(again.opened.update.is_empty(), "nothing is missing");
        server.node.stop().await;
    }
}

/// A reader that is up to date costs next to nothing, however much was deleted.
#[tokio::test]
async fn an_up_to_date_resume_is_small_on_a_document_with_many_deletions() {
    let server = Server::start().await;
    let mut alice = Session::connect(&server, Way::WebSocket).await;
    let mut a = alice.open(1, "notes").await;
    let doc = yrs::Doc::new();
    append(&doc, &"ab".repeat(2_500));
    let root = doc.get_or_insert_text("text");
    {
        let mut transaction = doc.transact_mut();
        for at in 0..2_500 {
            root.remove_range(&mut transaction, at, 1);
        }
    }
    let sequence = a.sync(everything(&doc)).await;
    alice.durable(&mut a, sequence).await;
    let b = alice.try_open(2, open("notes", 2)).await.unwrap();
    assert!(
        b.opened.update.len() > 10_000,
        "{} bytes of deletions",
        b.opened.update.len()
    );
    let resume = Open {
        epoch: Some(b.epoch()),
        state_vector: b.opened.state_vector.clone(),
        position: Some(b.position()),
        ..open("notes", 3)
    };
    let again = alice.try_open(3, resume).await.unwrap();
    let on_the_wire = ServerDocument::Opened(again.opened).encode().len();
    assert!(on_the_wire <= 200, "{on_the_wire} bytes");
    server.node.stop().await;
}

/// PO1, ST44: a copy whose position tells of a generation that nobody knows any more gets the whole difference once. It is
/// where OPENED says from then on.
#[tokio::test]
async fn a_forgotten_generation_costs_one_difference() {
    for way in WAYS {
        let server = Server::start().await;
        let mut alice = Session::connect(&server, way).await;
        let mut a = alice.open(1, "notes").await;
        let mut sequence = 0;
        for _ in 0..10 {
            sequence = a.write(&"0123456789".repeat(10)).await;
        }
        alice.durable(&mut a, sequence).await;
        let b = alice.try_open(2, open("notes", 2)).await.unwrap();
        let resume = |position| Open {
            epoch: Some(b.epoch()),
            // Nothing of the text, so that the difference is seen.
            position: Some(position),
            ..open("notes", 2)
        };
        let mut forgotten = b.position();
        forgotten.advance(Origin::from_bytes(*b"gen\0\0\0\0\x09"), 3);
        let first = alice.try_open(3, resume(forgotten)).await.unwrap();
        assert!(first.opened.update.len() > 1_000, "the whole of it");
        assert_eq!(first.position(), b.position());
        let second = alice.try_open(4, resume(first.position())).await.unwrap();
        assert!(second.opened.update.is_empty(), "nothing is missing");
        server.node.stop().await;
    }
}

/// A storm of joins costs one merge.
#[tokio::test]
async fn a_hundred_joins_share_one_merge() {
    let server = Server::start().await;
    let mut alice = Session::connect(&server, Way::WebSocket).await;
    let mut a = alice.open(1, "notes").await;
    let mut sequence = 0;
    for _ in 0..300 {
        sequence = a.write("storm ").await;
    }
    alice.durable(&mut a, sequence).await;
    let before = server.node.metrics().room_merges.get();
    let joins = (0..100).map(|_| async {
        let mut session = Session::connect(&server, Way::WebSocket).await;
        let document = session.open(1, "notes").await;
        assert_eq!(document.text().len(), 1_800);
    });
    futures_util::future::join_all(joins).await;
    assert_eq!(server.node.metrics().room_merges.get() - before, 1);
    server.node.stop().await;
}

/// What brings no news is acknowledged, and neither journalled nor relayed.
#[tokio::test]
async fn what_is_known_is_acknowledged_and_goes_nowhere() {
    let server = Server::start().await;
    let mut alice = Session::connect(&server, Way::WebSocket).await;
    let mut bob = Session::connect(&server, Way::WebSocket).await;
    let mut a = alice.open(1, "notes").await;
    let mut b = bob.open(1, "notes").await;
    let edit = a.edit("once");
    a.update(edit.clone()).await;
    let again = a.update(edit).await;
    let whole = everything(&a.doc);
    let sync = a.sync(whole).await;
    assert!(sync > again);
    alice.durable(&mut a, sync).await;
    let metrics = server.node.metrics();
    assert_eq!(metrics.journal_records.get(), 1);
    // Bob's empty SYNC, Alice's empty SYNC, and the two repeats.
    assert_eq!(metrics.updates_without_news.get(), 4);
    bob.text(&mut b, "once").await;
    assert_eq!(metrics.relayed_frames.get(), 1);
    server.node.stop().await;
}

/// DC5: a gap is parked and asked for once; the answer brings what was missing, and everything is acknowledged then.
#[tokio::test]
async fn a_gap_is_asked_for_and_not_seen_before_it_is_filled() {
    for way in WAYS {
        let server = Server::start().await;
        let mut alice = Session::connect(&server, way).await;
        let mut a = alice.open(1, "notes").await;
        let lost = a.edit("lost ");
        let after = a.edit("found");
        let sequence = a.update(after).await;
        let state_vector = loop {
            match alice.document_message(&a).await {
                ServerDocument::SyncRequest { state_vector } => break state_vector,
                ServerDocument::Seen(up_to) | ServerDocument::Durable(up_to) => {
                    assert!(up_to < sequence, "a parked update is not seen");
                }
                other => panic!("{other:?} came"),
            }
        };
        assert_eq!(state_vector[..], [0], "the server has nothing");
        let answer = a.sync(lost).await;
        alice.durable(&mut a, answer).await;
        let mut bob = Session::connect(&server, way).await;
        let b = bob.open(1, "notes").await;
        assert_eq!(b.text(), "lost found");
        server.node.stop().await;
    }
}

/// DC6, DC9: who may read is told why its edit is refused.
#[tokio::test]
async fn a_reader_reads_and_its_edits_are_rejected_with_words() {
    for way in WAYS {
        let server = Server::start().await;
        let mut alice = Session::connect(&server, way).await;
        let mut a = alice.open(1, "notes").await;
        let mut bob = Session::connect(&server, way).await;
        let request = Open {
            access: Access::Read,
            ..open("notes", 3)
        };
        let mut b = bob.try_open(1, request).await.unwrap();
        assert_eq!(b.opened.access, Access::Read);
        b.sync(Bytes::from_static(&[0, 0])).await;
        let refused = b.write("mine").await;
        loop {
            match bob.document_message(&b).await {
                ServerDocument::Rejected {
                    sequence,
                    code,
                    text,
                    terminal,
                } => {
                    assert_eq!(sequence, refused);
                    assert_eq!(code, ErrorCode::PermissionDenied);
                    assert!(terminal && text.contains("read"), "{text}");
                    break;
                }
                ServerDocument::Seen(_) | ServerDocument::Durable(_) => {}
                other => panic!("{other:?} came"),
            }
        }
        // Refused numbers count as settled, and nothing was applied.
        bob.durable(&mut b, refused).await;
        let sequence = a.write("theirs").await;
        alice.durable(&mut a, sequence).await;
        let mut carol = Session::connect(&server, way).await;
        let c = carol.open(1, "notes").await;
        assert_eq!(c.text(), "theirs");
        server.node.stop().await;
    }
}

/// DC8.
#[tokio::test]
async fn an_application_message_reaches_everybody_else() {
    for way in WAYS {
        let server = Server::start().await;
        let mut alice = Session::connect(&server, way).await;
        let mut bob = Session::connect(&server, way).await;
        let mut a = alice.open(1, "notes").await;
        let b = bob.open(1, "notes").await;
        a.send(ClientDocument::Message(Bytes::from_static(b"wave")))
            .await;
        loop {
            match bob.document_message(&b).await {
                ServerDocument::Message(bytes) => {
                    assert_eq!(&bytes[..], b"wave");
                    break;
                }
                ServerDocument::Seen(_) | ServerDocument::Durable(_) => {}
                other => panic!("{other:?} came"),
            }
        }
        server.node.stop().await;
    }
}

/// DC10.
#[tokio::test]
async fn a_document_is_closed_alone_and_its_session_goes_on() {
    for way in WAYS {
        let server = Server::start().await;
        let mut alice = Session::connect(&server, way).await;
        let mut kept = alice.open(1, "kept").await;
        let mut closed = alice.open(2, "closed").await;
        let sequence = closed.write("before").await;
        closed.send(ClientDocument::Close).await;
        let refusal = loop {
            if let ServerDocument::Closed(refusal) = alice.document_message(&closed).await {
                break refusal;
            }
        };
        assert_eq!(refusal.code, ErrorCode::Normal);
        let after = kept.write("after").await;
        alice.durable(&mut kept, after).await;
        let mut bob = Session::connect(&server, way).await;
        let b = bob.open(1, "closed").await;
        assert_eq!(b.text(), "before", "update {sequence} was kept");
        server.node.stop().await;
    }
}

#[tokio::test]
async fn numbers_with_a_gap_and_a_second_open_close_the_channel() {
    let server = Server::start().await;
    let mut alice = Session::connect(&server, Way::WebSocket).await;
    for (channel, message) in [
        (
            1,
            ClientDocument::Update {
                sequence: 5,
                update: Bytes::from_static(&[0, 0]),
            },
        ),
        (2, ClientDocument::Open(open("notes", 1))),
    ] {
        let mut document = alice.open(channel, "notes").await;
        document.send(message).await;
        let refusal = loop {
            if let ServerDocument::Closed(refusal) = alice.document_message(&document).await {
                break refusal;
            }
        };
        assert_eq!(refusal.code, ErrorCode::InvalidMessage);
    }
    // A channel that never was opened is a breach of the session.
    let mut stray = alice.link.sender.open(9).await.unwrap();
    stray
        .write(&[ClientDocument::Close.encode()])
        .await
        .unwrap();
    match alice.control_message().await {
        ServerControl::Error(refusal) => assert_eq!(refusal.code, ErrorCode::InvalidMessage),
        other => panic!("{other:?} came"),
    }
    server.node.stop().await;
}

/// EP2: the store was emptied under the server: members are told, nothing of the old history is merged into the new one.
#[tokio::test]
async fn a_history_that_was_replaced_under_live_members_ends_with_replaced() {
    let server = Server::start().await;
    let mut alice = Session::connect(&server, Way::WebSocket).await;
    let mut a = alice.open(1, "notes").await;
    let sequence = a.write("old").await;
    alice.durable(&mut a, sequence).await;
    let key = DocumentKey {
        org: OrgId::default_org(),
        name: DocumentName::new("notes").unwrap(),
    };
    let store = server.node.store();
    store.delete(&key).await.unwrap();
    store.recreate(&key, Epoch::random()).await.unwrap();
    a.write("never").await;
    let mut replaced_by = None;
    let refusal = loop {
        match alice.document_message(&a).await {
            ServerDocument::Replaced(epoch) => replaced_by = Some(epoch),
            ServerDocument::Closed(refusal) => break refusal,
            ServerDocument::Seen(_) => {}
            other => panic!("{other:?} came"),
        }
    };
    assert_eq!(refusal.code, ErrorCode::EpochMismatch);
    let b = alice.open(2, "notes").await;
    assert_eq!(Some(b.epoch()), replaced_by);
    assert_ne!(b.epoch(), a.epoch());
    assert_eq!(b.text(), "");
    server.node.stop().await;
}

/// Rooms without members leave memory, and come back whole.
#[tokio::test]
async fn idle_rooms_retire_and_open_again() {
    let server = Server::with(|config| {
        config.room.idle = Duration::from_millis(50);
    })
    .await;
    let mut alice = Session::connect(&server, Way::WebSocket).await;
    let mut a = alice.open(1, "notes").await;
    let sequence = a.write("still here").await;
    alice.durable(&mut a, sequence).await;
    a.send(ClientDocument::Close).await;
    crate::support::until("the room retires", || server.node.registry().n_open() == 0).await;
    let b = alice.open(2, "notes").await;
    assert_eq!(b.text(), "still here");
    server.node.stop().await;
}

/// A large paste crosses in fragments over WebSocket and in one frame over WebTransport.
#[tokio::test]
async fn a_large_document_crosses_whole() {
    for way in WAYS {
        let server = Server::start().await;
        let mut alice = Session::connect(&server, way).await;
        let mut a = alice.open(1, "notes").await;
        let doc = yrs::Doc::new();
        for _ in 0..8 {
            append(&doc, &"large ".repeat(100_000));
        }
        let whole = everything(&doc);
        assert!(whole.len() > 4 << 20);
        let sequence = a.sync(whole).await;
        alice.durable(&mut a, sequence).await;
        let mut bob = Session::connect(&server, way).await;
        let b = bob.open(1, "notes").await;
        assert_eq!(text(&b.doc), text(&doc));
        server.node.stop().await;
    }
}
