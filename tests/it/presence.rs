//! Presence where datagrams are lost (PR8): sessions over links within the process, in time that moves only when nothing is
//! left to do.

use std::time::Duration;

use bytes::Bytes;
use syncline::doc::SETTLED_AFTER;
use syncline::protocol::awareness::AwarenessUpdate;
use syncline::protocol::close::ErrorCode;
use syncline::protocol::message::{ClientDocument, ServerDocument};
use syncline::protocol::yjs::Message;
use syncline::room::Config;
use syncline::session::Door;
use syncline::shutdown::Scope;
use syncline::transport::{CloseReason, Link, Received};
use tokio::time::{Instant, pause, sleep_until, timeout_at};

use crate::support::{Document, PATIENCE, Server, Session, shows, soon};

/// The channel of the one who watches, and its client id.
const WATCHER: u32 = 1;

/// The channel of the one who moves, and its client id.
const MOVER: u32 = 2;

/// How presence came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    Datagram,
    Stream,
}

/// An entry of somebody as it arrived: when, how, its clock, what it shows.
type Arrival = (Instant, Path, u64, Option<String>);

/// A member over a link within the process, with nothing on its way.
async fn enter(server: &Server, scope: &Scope, channel: u32) -> (Session, Document) {
    let link = server.serve(Door::Native, scope);
    let mut session = Session::greet(link, Scope::new()).await;
    let mut document = session.open(channel, "notes").await;
    let sequence = document.sequence;
    session.durable(&mut document, sequence).await;
    (session, document)
}

fn arrivals(path: Path, bytes: &Bytes) -> Vec<Arrival> {
    AwarenessUpdate::decode(bytes)
        .unwrap()
        .entries()
        .map(|entry| {
            let state = entry.state().map(str::to_owned);
            (Instant::now(), path, entry.clock, state)
        })
        .collect()
}

/// Everything of the mover that arrives up to a point in time.
async fn watch(link: &mut Link, until: Instant) -> Vec<Arrival> {
    let mut seen = Vec::new();
    while let Ok(received) = timeout_at(until, link.receiver.recv()).await {
        match received.unwrap().expect("the session is open") {
            Received::Datagram { bytes, .. } => seen.extend(arrivals(Path::Datagram, &bytes)),
            Received::Frame {
                channel: WATCHER,
                bytes,
            } => {
                if let Some(ServerDocument::Presence(update)) =
                    ServerDocument::decode(&bytes).unwrap()
                {
                    seen.extend(arrivals(Path::Stream, &update));
                }
            }
            _ => {}
        }
    }
    seen
}

/// A cursor at 20 Hz for three seconds, by datagrams that reach the server; when it stopped.
async fn moves(mover: &Session) -> Instant {
    let mut at = Instant::now();
    for clock in 1..=60 {
        at += Duration::from_millis(50);
        sleep_until(at).await;
        let entry = shows(MOVER.into(), clock, &clock.to_string());
        mover.link.sender.datagram(MOVER, &entry).unwrap();
    }
    at
}

fn by_stream(seen: &[Arrival]) -> Vec<&Arrival> {
    seen.iter()
        .filter(|(_, path, ..)| *path == Path::Stream)
        .collect()
}

fn is_gone_at_once(seen: &[Arrival], left: Instant) {
    match seen {
        [(at, Path::Stream, _, None)] => assert!(*at - left < Duration::from_millis(50)),
        other => panic!("gone once, by stream, not {other:?}"),
    }
}

/// PR8: whoever gets none of the datagrams sees the last place soon after the cursor stopped, and the person gone at once;
/// while it moves, the stream carries nothing.
#[tokio::test]
async fn pr8_where_every_datagram_is_lost_the_last_word_comes_by_stream() {
    let server = Server::start().await;
    let scope = Scope::new();
    let (mut watcher, w) = enter(&server, &scope, WATCHER).await;
    let (mover, mut m) = enter(&server, &scope, MOVER).await;
    pause();

    let moving = Instant::now() + Duration::from_secs(3);
    let (stopped, seen) = tokio::join!(moves(&mover), watch(&mut watcher.link, moving));
    assert!(seen.len() > 55, "{} places by datagram", seen.len());
    assert!(by_stream(&seen).is_empty(), "{seen:?}");

    let seen = watch(&mut watcher.link, stopped + Duration::from_secs(5)).await;
    match by_stream(&seen)[..] {
        [(at, _, 60, Some(state))] => {
            assert_eq!(state, "60");
            let tick = Config::default().presence_tick;
            assert!(*at - stopped <= SETTLED_AFTER + 2 * tick);
        }
        ref other => panic!("the last place once, not {other:?}"),
    }

    let left = Instant::now();
    m.send(ClientDocument::Close).await;
    let seen = watch(&mut watcher.link, left + Duration::from_secs(5)).await;
    is_gone_at_once(&seen, left);
    drop((watcher, w, mover, m));
    soon("the end", scope.stop(PATIENCE)).await;
    server.node.stop().await;
}

/// PR8: also what a client says for sure after its own datagrams were lost reaches those whose datagrams are.
#[tokio::test]
async fn pr8_a_last_word_that_came_by_stream_goes_on_by_stream() {
    let server = Server::start().await;
    let scope = Scope::new();
    let (mut watcher, w) = enter(&server, &scope, WATCHER).await;
    let (mover, mut m) = enter(&server, &scope, MOVER).await;
    pause();
    let said = Instant::now();
    let here = ClientDocument::Presence(shows(MOVER.into(), 9, "9"));
    m.send(here.clone()).await;
    let seen = watch(&mut watcher.link, said + Duration::from_secs(1)).await;
    match by_stream(&seen)[..] {
        [(at, _, 9, Some(_))] => assert!(*at - said < Duration::from_millis(500)),
        ref other => panic!("once by stream, not {other:?}"),
    }
    // Said again it is known, and goes nowhere.
    m.send(here).await;
    let seen = watch(&mut watcher.link, said + Duration::from_secs(2)).await;
    assert_eq!(seen, []);
    // Its connection ends without a word.
    let left = Instant::now();
    let reason = CloseReason::new(ErrorCode::Normal, "");
    mover.link.sender.close(reason).await;
    let seen = watch(&mut watcher.link, left + Duration::from_secs(5)).await;
    is_gone_at_once(&seen, left);
    drop((watcher, w, mover, m));
    soon("the end", scope.stop(PATIENCE)).await;
    server.node.stop().await;
}

/// PR8: nothing is repeated to those whose hints went by the stream: because they fit no datagram, or over a WebSocket.
#[tokio::test]
async fn pr8_who_lost_nothing_gets_no_repeat() {
    let server = Server::start().await;
    let scope = Scope::new();
    let (mut stock, writer) = server.enter_stock("notes", &scope).await;
    let (mut watcher, w) = enter(&server, &scope, WATCHER).await;
    let (mover, mut m) = enter(&server, &scope, MOVER).await;
    pause();
    let until = Instant::now() + Duration::from_secs(3);
    let large = format!("\"{}\"", "x".repeat(1_200));
    m.send(ClientDocument::Presence(shows(MOVER.into(), 1, &large)))
        .await;
    let stock_sees = async {
        let mut clocks = Vec::new();
        while let Ok(received) = timeout_at(until, stock.receiver.recv()).await {
            if let Some(Received::Frame { bytes, .. }) = received.unwrap()
                && let Ok(Some(Message::Awareness(update))) = Message::decode(&bytes)
            {
                let seen = arrivals(Path::Stream, &update);
                clocks.extend(seen.iter().map(|(_, _, clock, _)| *clock));
            }
        }
        clocks
    };
    let (clocks, seen) = tokio::join!(stock_sees, watch(&mut watcher.link, until));
    assert_eq!(clocks, [1]);
    match &seen[..] {
        [(_, Path::Stream, 1, Some(state))] => assert_eq!(state, &large),
        other => panic!("once, not {other:?}"),
    }
    drop((watcher, w, mover, m, writer, stock));
    soon("the end", scope.stop(PATIENCE)).await;
    server.node.stop().await;
}
