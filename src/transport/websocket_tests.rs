//! What is special about WebSocket: the handshake, the close frame, the dialects' framing.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::Request;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::test_links::{FIRST, frame, message, soon, websocket_pair, websocket_server};
use super::websocket::{Framing, UpgradeError, handshake};
use super::*;

fn request(change: impl FnOnce(&mut Request<()>)) -> Result<(), UpgradeError> {
    let mut request = Request::builder()
        .uri("/ws")
        .header("connection", "keep-alive, Upgrade")
        .header("upgrade", "WebSocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .body(())
        .unwrap();
    change(&mut request);
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    handshake(&mut request, address).map(|_| ())
}

#[test]
fn handshakes_are_checked() {
    let without = |name| request(|request| drop(request.headers_mut().remove(name)));
    // Everything is right, but this request did not come over a connection.
    assert_eq!(request(|_| {}), Err(UpgradeError::NotUpgradable));
    assert_eq!(without("upgrade"), Err(UpgradeError::NotWebSocket));
    assert_eq!(without("connection"), Err(UpgradeError::NotWebSocket));
    assert_eq!(without("sec-websocket-version"), Err(UpgradeError::Version));
    assert_eq!(without("sec-websocket-key"), Err(UpgradeError::Key));
    for key in [
        "",
        "==",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25j!Q==",
    ] {
        let refused = request(|request| {
            let value = key.parse().unwrap();
            request.headers_mut().insert("sec-websocket-key", value);
        });
        assert_eq!(refused, Err(UpgradeError::Key), "{key}");
    }
    let posted = request(|request| *request.method_mut() = hyper::Method::POST);
    assert_eq!(posted, Err(UpgradeError::Method));
    assert_eq!(UpgradeError::Version.status(), 426);
}

#[tokio::test]
async fn a_plain_request_is_refused_with_words() {
    let (_links, server) = websocket_server(Framing::Multiplexed).await;
    let options = dial::Options {
        subprotocols: vec!["one".into(), "two".into()],
        origin: Some("https://example.org".into()),
        ..dial::Options::default()
    };
    assert!(matches!(
        dial::websocket("http://127.0.0.1:1/", &options, &server.scope).await,
        Err(dial::DialError::Url { .. })
    ));
}

#[tokio::test]
async fn the_peer_and_the_subprotocol_are_passed_on() {
    let (mut links, server) = websocket_server(Framing::Multiplexed).await;
    let options = dial::Options {
        subprotocols: vec!["one".into(), "two".into()],
        origin: Some("https://example.org".into()),
        ..dial::Options::default()
    };
    // The client aborts when none of its subprotocols is echoed.
    let _client = dial::websocket(&server.url, &options, &server.scope)
        .await
        .unwrap();
    let link = soon(links.recv()).await.unwrap();
    assert_eq!(link.peer.carrier, Carrier::WebSocket);
    assert_eq!(link.peer.origin.as_deref(), Some("https://example.org"));
    assert_eq!(link.peer.path, "/ws");
    assert_eq!(link.peer.query.as_deref(), Some("a=b"));
    assert!(link.peer.host.unwrap().starts_with("127.0.0.1:"));
}

/// A client that is nobody's code but tungstenite's.
async fn raw_client(url: &str) -> tokio_tungstenite::WebSocketStream<tokio::net::TcpStream> {
    let request = url.into_client_request().unwrap();
    let address = request.uri().authority().unwrap().as_str();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (socket, _) = tokio_tungstenite::client_async(request, stream)
        .await
        .unwrap();
    socket
}

#[tokio::test]
async fn the_close_frame_carries_the_code_and_a_reason_that_fits() {
    let (mut links, server) = websocket_server(Framing::Single).await;
    let mut client = raw_client(&server.url).await;
    let link = soon(links.recv()).await.unwrap();
    let reason = CloseReason::new(ErrorCode::PermissionDenied, "é".repeat(100));
    let close = link.sender.close(reason);
    let read = async {
        let Some(Ok(Message::Close(Some(frame)))) = client.next().await else {
            panic!("no close frame");
        };
        assert_eq!(u16::from(frame.code), 4403);
        assert_eq!(frame.reason.as_str(), "é".repeat(61));
        assert!(client.next().await.is_none());
    };
    soon(async { tokio::join!(close, read) }).await;
}

#[tokio::test]
async fn a_single_socket_passes_messages_on_and_refuses_text() {
    let (mut links, server) = websocket_server(Framing::Single).await;
    let mut client = raw_client(&server.url).await;
    let mut link = soon(links.recv()).await.unwrap();
    // No type of the native protocol is looked at, and pings count as nothing.
    let first = Bytes::from_static(&[0, 0, 1, 0]);
    client.send(Message::Ping(Bytes::new())).await.unwrap();
    client.send(Message::Binary(first.clone())).await.unwrap();
    assert_eq!(frame(&mut link.receiver).await, (1, first));
    let large = Bytes::from(vec![7; 3 << 20]);
    let (sent, received) = soon(async {
        tokio::join!(
            client.send(Message::Binary(large.clone())),
            frame(&mut link.receiver)
        )
    })
    .await;
    sent.unwrap();
    assert!(received == (1, large.clone()));

    let mut writer = link.sender.writer(1);
    let (written, received) = soon(async {
        tokio::join!(
            async {
                writer
                    .write(&[large.clone(), Bytes::from_static(&[3])])
                    .await
            },
            async {
                let mut messages = Vec::new();
                while messages.len() < 2 {
                    match client.next().await.unwrap().unwrap() {
                        Message::Binary(bytes) => messages.push(bytes),
                        Message::Pong(_) => {}
                        other => panic!("{other:?}"),
                    }
                }
                messages
            }
        )
    })
    .await;
    written.unwrap();
    assert!(received == [large, Bytes::from_static(&[3])]);

    client.send(Message::text("hello")).await.unwrap();
    assert_eq!(soon(link.receiver.recv()).await, Err(RecvError::Text));
}

#[tokio::test]
async fn documents_wait_until_the_session_lets_them_in() {
    let mut pair = websocket_pair().await;
    let mut up = pair.client.sender.open(1).await.unwrap();
    pair.client_control
        .write(&[Bytes::from_static(FIRST)])
        .await
        .unwrap();
    up.write(&[message(36, 1, 1)]).await.unwrap();
    assert_eq!(
        frame(&mut pair.server.receiver).await,
        (0, Bytes::from_static(FIRST))
    );
    {
        use futures_util::FutureExt;
        tokio::task::yield_now().await;
        assert!(pair.server.receiver.recv().now_or_never().is_none());
    }
    pair.server.sender.permit_streams(1);
    assert_eq!(
        frame(&mut pair.server.receiver).await,
        (1, message(36, 1, 1))
    );
}

#[tokio::test]
async fn a_message_longer_than_a_fragment_is_refused_by_its_length() {
    let (mut links, server) = websocket_server(Framing::Multiplexed).await;
    let mut client = raw_client(&server.url).await;
    let mut link = soon(links.recv()).await.unwrap();
    link.sender.permit_streams(1);
    let mut unsplit = vec![0; 300 * 1024];
    unsplit[..2].copy_from_slice(&[1, 40]);
    let (_, received) = soon(async {
        tokio::join!(
            client.send(Message::Binary(unsplit.into())),
            link.receiver.recv()
        )
    })
    .await;
    let error = received.unwrap_err();
    assert_eq!(error.code(), ErrorCode::TooLarge);
    // The client that goes on sending still learns why.
    let told = message(16, 0, 4);
    link.sender
        .writer(0)
        .write(std::slice::from_ref(&told))
        .await
        .unwrap();
    let close = link
        .sender
        .close(CloseReason::new(error.code(), "too large"));
    let read = async {
        let Some(Ok(Message::Binary(bytes))) = client.next().await else {
            panic!("no message");
        };
        assert_eq!(bytes[1..], told[..]);
        let Some(Ok(Message::Close(Some(frame)))) = client.next().await else {
            panic!("no close frame");
        };
        assert_eq!(u16::from(frame.code), 4413);
    };
    soon(async { tokio::join!(close, read) }).await;
}
