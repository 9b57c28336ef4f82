//! What is special about WebTransport: streams that wait for nobody, silent openers, refusals, restarts, renewals.

use std::net::SocketAddr;

use super::*;
use crate::protocol::close::ErrorCode;
use crate::transport::keys::Keys;
use crate::transport::test_links::{
    FIRST, Pair, config, frame, frame_or_end, message, now_s, soon, webtransport_client,
    webtransport_pair, webtransport_pair_with, webtransport_server,
};
use crate::transport::tls::{self, Tls};
use crate::transport::webtransport::{AcceptError, BindError, Config, Listener, Refusal};
use crate::transport::{Link, Received, SenderKind, dial};

const UPDATE: u8 = 36;

fn shared(link: &Link) -> Arc<Shared> {
    match &link.sender.kind {
        SenderKind::WebTransport(sender) => sender.shared.clone(),
        other => panic!("{other:?}"),
    }
}

async fn assert_channel_works(pair: &mut Pair, channel: u32) {
    let mut up = pair.client.sender.open(channel).await.unwrap();
    up.write(&[message(UPDATE, 1, 10)]).await.unwrap();
    assert_eq!(
        frame(&mut pair.server.receiver).await,
        (channel, message(UPDATE, 1, 10))
    );
    let mut down = pair.server.sender.writer(channel);
    down.write(&[message(UPDATE, 2, 10)]).await.unwrap();
    assert_eq!(
        frame(&mut pair.client.receiver).await,
        (channel, message(UPDATE, 2, 10))
    );
    std::mem::forget((up, down));
}

#[tokio::test]
async fn streams_that_stay_silent_hold_up_no_other() {
    let mut pair = webtransport_pair().await;
    pair.server.sender.permit_streams(10);
    // Opened and named by nothing: WebTransport's header has gone out, our preamble has not.
    let _silent = pair.client.sender.open(9).await.unwrap();
    assert_channel_works(&mut pair, 1).await;
    // Opened without even the header, which the `wtransport` driver waits for.
    let quic = shared(&pair.client).connection.quic_connection().clone();
    let _mute = [quic.open_bi().await.unwrap(), quic.open_bi().await.unwrap()];
    for channel in 2..6 {
        assert_channel_works(&mut pair, channel).await;
    }
}

#[tokio::test]
async fn a_stream_that_names_no_channel_in_time_ends_the_session() {
    let mut pair = webtransport_pair_with(&Config {
        first_stream_timeout: Duration::from_secs(1),
        ..config()
    })
    .await;
    let mute = pair.client.sender.open(9).await.unwrap();
    let error = soon(pair.server.receiver.recv()).await.unwrap_err();
    assert_eq!(error, RecvError::Incomplete { channel: 0 });
    drop(mute);
}

#[tokio::test]
async fn a_channel_that_nobody_reads_blocks_no_other() {
    let mut pair = webtransport_pair().await;
    pair.server.sender.permit_streams(2);
    // A stream outside of the client's link, so that it can be left unread.
    let client = shared(&pair.client);
    let opening = client.connection.open_bi().await.unwrap();
    let (mut send, unread) = opening.await.unwrap();
    send.write_all(&[1, 2, UPDATE, 0]).await.unwrap();
    assert_eq!(
        frame(&mut pair.server.receiver).await,
        (1, message(UPDATE, 0, 1))
    );
    let mut stuck = pair.server.sender.writer(1);
    let scope = Scope::new();
    let stuck = scope.spawn(async move { stuck.write(&[message(UPDATE, 0, 4 << 20)]).await });
    for _ in 0..3 {
        assert_channel_works(&mut pair, 2).await;
        pair.client_control
            .write(&[Bytes::from_static(FIRST)])
            .await
            .unwrap();
        frame(&mut pair.server.receiver).await;
        shared(&pair.client).streams.finish(2);
        shared(&pair.server).streams.finish(2);
        while soon(pair.server.receiver.recv()).await != Ok(Some(Received::Ended { channel: 2 })) {}
        while soon(pair.client.receiver.recv()).await != Ok(Some(Received::Ended { channel: 2 })) {}
    }
    assert!(!stuck.is_finished());
    // Closing does not wait for the stuck channel for ever.
    soon(
        pair.server
            .sender
            .close(crate::transport::CloseReason::new(ErrorCode::Normal, "")),
    )
    .await;
    assert!(soon(stuck).await.unwrap().is_err());
    drop(unread);
}

#[tokio::test]
async fn documents_wait_until_the_session_lets_them_in() {
    let mut pair = webtransport_pair().await;
    let mut up = pair.client.sender.open(1).await.unwrap();
    up.write(&[message(UPDATE, 1, 1)]).await.unwrap();
    let dropped = pair.client.sender.datagram(1, &[1]);
    assert_eq!(dropped, Ok(()));
    for _ in 0..3 {
        pair.client_control
            .write(&[Bytes::from_static(FIRST)])
            .await
            .unwrap();
        assert_eq!(
            frame(&mut pair.server.receiver).await,
            (0, Bytes::from_static(FIRST))
        );
    }
    pair.server.sender.permit_streams(1);
    assert_eq!(
        frame(&mut pair.server.receiver).await,
        (1, message(UPDATE, 1, 1))
    );
}

#[tokio::test]
async fn channel_numbers_are_not_taken_twice() {
    for (number, wanted) in [
        (0, RecvError::SecondControl),
        (7, RecvError::DuplicateChannel { channel: 7 }),
    ] {
        let mut pair = webtransport_pair().await;
        pair.server.sender.permit_streams(2);
        assert_channel_works(&mut pair, 7).await;
        let opening = shared(&pair.client).connection.open_bi().await.unwrap();
        let (mut send, _recv) = opening.await.unwrap();
        send.write_all(&[number, 2, UPDATE, 0]).await.unwrap();
        assert_eq!(soon(pair.server.receiver.recv()).await, Err(wanted));
    }
}

#[tokio::test]
async fn a_number_is_free_again_when_both_sides_have_ended_it() {
    let mut pair = webtransport_pair().await;
    pair.server.sender.permit_streams(1);
    for number in 0..40 {
        let mut up = soon(pair.client.sender.open(1)).await.unwrap();
        up.write(&[message(UPDATE, number, 1)]).await.unwrap();
        assert_eq!(
            frame(&mut pair.server.receiver).await,
            (1, message(UPDATE, number, 1))
        );
        let down = pair.server.sender.writer(1);
        up.finish().await;
        let ended = soon(pair.server.receiver.recv()).await.unwrap();
        assert_eq!(ended, Some(Received::Ended { channel: 1 }));
        down.finish().await;
        let ended = soon(pair.client.receiver.recv()).await.unwrap();
        assert_eq!(ended, Some(Received::Ended { channel: 1 }));
    }
}

#[tokio::test]
async fn a_stream_that_ends_within_a_message_is_a_violation() {
    let mut pair = webtransport_pair().await;
    pair.server.sender.permit_streams(1);
    let opening = shared(&pair.client).connection.open_bi().await.unwrap();
    let (mut send, _recv) = opening.await.unwrap();
    send.write_all(&[1, 5, UPDATE, 0]).await.unwrap();
    soon(send.finish()).await.unwrap();
    assert_eq!(
        soon(pair.server.receiver.recv()).await,
        Err(RecvError::Truncated { channel: 1 })
    );
}

#[tokio::test]
async fn requests_can_be_refused() {
    let (mut listener, mut server) = webtransport_server(&config());
    let options = dial::Options {
        origin: Some("https://evil.example".into()),
        ..dial::Options::default()
    };
    let refuse = async {
        let request = listener.accept().await.unwrap();
        assert_eq!(request.peer.origin.as_deref(), Some("https://evil.example"));
        request.refuse(Refusal::Forbidden).await;
    };
    let (dialled, ()) =
        soon(async { tokio::join!(webtransport_client(&server, &options), refuse) }).await;
    assert!(matches!(dialled, Err(dial::DialError::Refused { .. })));

    server.url.push_str("elsewhere?x=1");
    let dialled = soon(webtransport_client(&server, &options)).await;
    assert!(matches!(dialled, Err(dial::DialError::Refused { .. })));
}

#[tokio::test]
async fn a_client_without_a_control_stream_is_let_go() {
    let (mut listener, server) = webtransport_server(&Config {
        first_stream_timeout: Duration::from_secs(1),
        ..config()
    });
    let hash = server.tls.as_ref().unwrap().hash();
    let options = dial::Options::default();
    let dialling = dial::webtransport(&server.url, hash, &options, &server.scope);
    let accepting = async { listener.accept().await.unwrap().accept().await };
    let (client, accepted) = soon(async { tokio::join!(dialling, accepting) }).await;
    assert_eq!(accepted.unwrap_err(), AcceptError::NoControlStream);
    assert_eq!(soon(client.unwrap().receiver.recv()).await, Ok(None));
}

#[tokio::test]
async fn under_load_addresses_prove_themselves_and_above_it_are_refused() {
    let mut pair = webtransport_pair_with(&Config {
        retry_above: 0,
        ..config()
    })
    .await;
    pair.server.sender.permit_streams(1);
    assert_channel_works(&mut pair, 1).await;

    let (_listener, server) = webtransport_server(&Config {
        n_handshakes_max: 0,
        ..config()
    });
    let dialled = soon(webtransport_client(&server, &dial::Options::default())).await;
    assert!(matches!(dialled, Err(dial::DialError::Connect { .. })));
}

#[tokio::test]
async fn a_taken_port_is_said_with_the_cure() {
    let (listener, server) = webtransport_server(&config());
    let taken = Config {
        listen: listener.local_address(),
        ..config()
    };
    let again = Listener::bind(
        &taken,
        server.tls.as_ref().unwrap(),
        &Keys::ephemeral(),
        &server.scope,
    );
    let error = again.unwrap_err();
    assert!(matches!(error, BindError::AddressInUse { .. }), "{error}");
}

#[tokio::test]
async fn a_renewed_certificate_is_for_new_connections() {
    let (mut listener, server) = webtransport_server(&config());
    let tls = server.tls.clone().unwrap();
    let first = tls.hash();
    let options = dial::Options::default();
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (old_server, old_client) =
        soon(async { tokio::join!(accept, webtransport_client(&server, &options)) }).await;
    let (old_client, mut old_control) = old_client.unwrap();

    assert!(tls.refresh(now_s()).unwrap(), "less than a day is left");
    let refused = soon(dial::webtransport(
        &server.url,
        first,
        &options,
        &server.scope,
    ));
    assert!(matches!(
        refused.await,
        Err(dial::DialError::Connect { .. })
    ));
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (_new_server, new_client) =
        soon(async { tokio::join!(accept, webtransport_client(&server, &options)) }).await;
    new_client.unwrap();

    let mut old_server = old_server;
    old_control.write(&[message(4, 5, 8)]).await.unwrap();
    frame(&mut old_server.receiver).await;
    assert_eq!(frame(&mut old_server.receiver).await.1, message(4, 5, 8));
    drop(old_client);
}

/// A server in a runtime of its own can be killed: its tasks vanish between two polls and nobody says goodbye.
fn killable_server(
    listen: SocketAddr,
    tls: &Tls,
    keys: &Keys,
) -> (
    tokio::runtime::Runtime,
    tokio::task::JoinHandle<Link>,
    SocketAddr,
) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let mut listener = {
        let _entered = runtime.enter();
        let config = Config { listen, ..config() };
        Listener::bind(&config, tls, keys, &Scope::new()).unwrap()
    };
    let address = listener.local_address();
    let accepted =
        runtime.spawn(async move { listener.accept().await.unwrap().accept().await.unwrap() });
    (runtime, accepted, address)
}

#[tokio::test]
async fn a_client_of_a_killed_server_learns_it_from_its_successor_at_once() {
    let data = tempfile::tempdir().unwrap();
    let tls = Tls::load(&tls::Config::default(), data.path(), now_s()).unwrap();
    let keys = || Keys::load_or_create(&data.path().join("keys")).unwrap();
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));

    let (runtime, accepted, address) = killable_server(any_port, &tls, &keys());
    let client_scope = Scope::new();
    let options = dial::Options::default();
    let url = format!("https://{address}/");
    let mut client = soon(dial::webtransport(
        &url,
        tls.hash(),
        &options,
        &client_scope,
    ))
    .await
    .unwrap();
    let mut control = client.sender.open(0).await.unwrap();
    control.write(&[message(4, 1, 8)]).await.unwrap();
    let link = soon(accepted).await.unwrap();
    let killed = tokio::task::spawn_blocking(move || {
        // First the tasks, so that nothing can be sent when the handles (which hold the socket) go.
        drop(runtime);
        drop(link);
    });
    soon(killed).await.unwrap();

    let (successor, _accepted, _) = killable_server(address, &tls, &keys());
    let since = tokio::time::Instant::now();
    control.write(&[message(0, 2, 200)]).await.unwrap();
    assert_eq!(frame_or_end(&mut client.receiver).await, None);
    // Without the kept keys it would take the idle timeout of 30 s.
    assert!(since.elapsed() < Duration::from_secs(5));
    successor.shutdown_background();
}
