//! Native sessions end to end, over both carriers: PROTOCOL.md, sections CT and PR.

use std::time::Duration;

use syncline::protocol::close::ErrorCode;
use syncline::protocol::message::{
    ClientControl, ClientDocument, Credential, Hello, ServerControl,
};
use syncline::shutdown::Scope;
use syncline::transport::Received;

use crate::support::{Server, Session, WAYS, Way, open, presence_of, shows, soon};

#[tokio::test]
async fn presence_is_seen_and_cleared_at_once_when_its_session_ends() {
    for way in WAYS {
        let server = Server::start().await;
        let mut alice = Session::connect(&server, way).await;
        let mut bob = Session::connect(&server, way).await;
        let a = alice.open(1, "notes").await;
        let mut b = bob.try_open(1, open("notes", 77)).await.unwrap();
        let here = shows(77, 1, r#"{"name":"Bob"}"#);
        b.send(ClientDocument::Presence(here)).await;
        let state = presence_of(&mut alice, a.channel, 77).await;
        assert_eq!(state.as_deref(), Some(r#"{"name":"Bob"}"#));

        // Of somebody else's client id nothing is taken.
        let forged = shows(u64::from(a.channel), 9, "{}");
        b.send(ClientDocument::Presence(forged)).await;
        drop(b);
        drop(bob);
        assert_eq!(presence_of(&mut alice, a.channel, 77).await, None);
        server.node.stop().await;
    }
}

/// CT1, CT3.
#[tokio::test]
async fn hello_is_first_in_time_and_of_a_known_version() {
    for way in WAYS {
        let server = Server::with(|config| {
            config.session.hello = Duration::from_millis(200);
        })
        .await;
        let hello = |versions| {
            ClientControl::Hello(Hello {
                versions,
                features: vec![],
                credential: Credential::None,
                client_name: "old".into(),
                client_version: "0".into(),
                previous_session: None,
            })
        };
        for (first, code) in [
            (hello(vec![99]), ErrorCode::UnsupportedVersion),
            (ClientControl::Ping([0; 8]), ErrorCode::InvalidMessage),
        ] {
            let mut session = Session::dial(&server, way).await;
            session.say(&first).await;
            match session.control_message().await {
                ServerControl::Error(refusal) => assert_eq!(refusal.code, code),
                other => panic!("{other:?} came"),
            }
            while session.received().await.is_some() {}
        }
        // Silence is not waited for.
        let mut session = Session::dial(&server, Way::WebSocket).await;
        match session.control_message().await {
            ServerControl::Error(refusal) => assert_eq!(refusal.code, ErrorCode::InvalidMessage),
            other => panic!("{other:?} came"),
        }
        server.node.stop().await;
    }
}

/// CT6, CT7, FR6: what there is to say is said in a message before the connection ends.
#[tokio::test]
async fn a_node_that_stops_says_goaway_and_acknowledges_what_it_has() {
    for way in WAYS {
        let server = Server::start().await;
        let mut alice = Session::connect(&server, way).await;
        let mut a = alice.open(1, "notes").await;
        let sequence = a.write("last words").await;
        let Server { node, data } = server;
        let stopping = Scope::new();
        let stopped = stopping.spawn(node.stop());
        alice.durable(&mut a, sequence).await;
        match alice.control_message().await {
            ServerControl::GoAway { .. } => {}
            other => panic!("{other:?} came"),
        }
        match alice.control_message().await {
            ServerControl::Error(refusal) => {
                assert_eq!(refusal.code, ErrorCode::ShuttingDown);
                assert!(refusal.retryable);
            }
            other => panic!("{other:?} came"),
        }
        soon("the stop", stopped).await.unwrap();
        drop(data);
    }
}

/// CT4: each side answers a PING with its bytes, and a client that says nothing at all is dead.
#[tokio::test]
async fn a_ping_is_answered_and_a_silent_client_is_dead() {
    for way in WAYS {
        let server = Server::with(|config| {
            config.session.heartbeat = Duration::from_millis(50);
            config.session.dead = Duration::from_millis(300);
        })
        .await;
        let mut alive = Session::connect(&server, way).await;
        let mut silent = Session::connect(&server, way).await;
        // Reads, and answers nothing.
        let mut n_pings = 0;
        while let Some(received) = silent.received().await {
            if let Received::Frame { channel: 0, bytes } = received
                && let Ok(Some(ServerControl::Ping(_))) = ServerControl::decode(&bytes)
            {
                n_pings += 1;
                // Meanwhile the other one lives by its answers.
                alive.say(&ClientControl::Ping([n_pings; 8])).await;
                match alive.control_message().await {
                    ServerControl::Pong(bytes) => assert_eq!(bytes, [n_pings; 8]),
                    other => panic!("{other:?} came"),
                }
            }
        }
        assert!(n_pings > 1, "it was pinged before it was given up");
        server.node.stop().await;
    }
}

/// CT5: a fresh credential renews the session in place.
#[tokio::test]
async fn a_fresh_credential_is_taken_and_documents_stay_open() {
    for way in WAYS {
        let server = Server::start().await;
        let mut alice = Session::connect(&server, way).await;
        let mut a = alice.open(1, "notes").await;
        let token = Credential::Token("anything".into());
        alice.say(&ClientControl::Auth(token)).await;
        match alice.control_message().await {
            ServerControl::AuthOk { lifetime_ms } => assert_eq!(lifetime_ms, 0),
            other => panic!("{other:?} came"),
        }
        let sequence = a.write("still open").await;
        alice.durable(&mut a, sequence).await;
        server.node.stop().await;
    }
}

/// CT8: a client that comes back takes its presence over, and the session that it left is ended.
#[tokio::test]
async fn who_comes_back_keeps_its_presence_and_ends_its_previous_session() {
    for way in WAYS {
        let server =
            Server::with(|config| config.session.handover = Duration::from_millis(100)).await;
        let mut watcher = Session::connect(&server, way).await;
        let w = watcher.open(1, "notes").await;
        let mut before = Session::connect(&server, way).await;
        let mut b = before.try_open(1, open("notes", 77)).await.unwrap();
        b.send(ClientDocument::Presence(shows(77, 1, "1"))).await;
        assert_eq!(
            presence_of(&mut watcher, w.channel, 77).await.as_deref(),
            Some("1")
        );

        let previous = before.welcome.as_ref().unwrap().session;
        let mut after = Session::return_from(&server, way, previous).await;
        let mut again = after.try_open(1, open("notes", 77)).await.unwrap();
        match before.control_message().await {
            ServerControl::Error(refusal) => assert_eq!(refusal.code, ErrorCode::Normal),
            other => panic!("{other:?} came"),
        }
        while before.received().await.is_some() {}
        again
            .send(ClientDocument::Presence(shows(77, 2, "2")))
            .await;
        // Never a word of its going: the next that is heard is the new state.
        assert_eq!(
            presence_of(&mut watcher, w.channel, 77).await.as_deref(),
            Some("2")
        );
        server.node.stop().await;
    }
}
