//! What every carrier promises, as one suite that runs on each of them.

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::FutureExt;

use super::test_links::{
    FIRST, Pair, frame, frame_or_end, memory_pair, message, soon, websocket_pair, webtransport_pair,
};
use super::*;
use crate::protocol::frame::FRAGMENT_BYTES_MAX;

/// Message types with large and with small limits.
const SYNC: u8 = 40;
const UPDATE: u8 = 36;
const PING: u8 = 4;
const ERROR: u8 = 16;

macro_rules! for_each_carrier {
    ($($name:ident,)*) => {
        mod memory_link { $(#[tokio::test] async fn $name() { super::$name(super::memory_pair().await).await; })* }
        mod websocket_link { $(#[tokio::test] async fn $name() { super::$name(super::websocket_pair().await).await; })* }
        mod webtransport_link { $(#[tokio::test] async fn $name() { super::$name(super::webtransport_pair().await).await; })* }
    };
}

for_each_carrier! {
    frames_of_a_channel_keep_their_order_both_ways,
    large_messages_arrive_whole_both_ways,
    many_channels_each_keep_their_order,
    a_message_above_the_limit_of_its_type_is_a_typed_violation,
    the_control_channel_takes_no_document_messages,
    close_delivers_the_last_message_first,
    frames_that_came_before_the_goodbye_are_delivered,
    close_wakes_a_carrier_whose_queue_is_full,
    a_peer_that_vanishes_ends_the_link,
    datagrams_arrive_where_there_are_any,
    a_reader_that_stops_makes_the_writer_wait,
    a_write_that_was_dropped_breaks_its_channel,
}

async fn frames_of_a_channel_keep_their_order_both_ways(mut pair: Pair) {
    pair.server.sender.permit_streams(1);
    let mut up = pair.client.sender.open(1).await.unwrap();
    let mut down = pair.server.sender.writer(1);
    let batch: Vec<Bytes> = (0..50).map(|number| message(UPDATE, number, 20)).collect();
    up.write(&batch[..20]).await.unwrap();
    up.write(&batch[20..]).await.unwrap();
    for wanted in &batch {
        assert_eq!(frame(&mut pair.server.receiver).await, (1, wanted.clone()));
    }
    down.write(&batch).await.unwrap();
    for wanted in &batch {
        assert_eq!(frame(&mut pair.client.receiver).await, (1, wanted.clone()));
    }
}

async fn large_messages_arrive_whole_both_ways(mut pair: Pair) {
    pair.server.sender.permit_streams(1);
    let mut up = pair.client.sender.open(1).await.unwrap();
    let sizes = [FRAGMENT_BYTES_MAX - 1, FRAGMENT_BYTES_MAX, 3 << 20];
    for (number, n_bytes) in (0..).zip(sizes) {
        let large = message(SYNC, number, n_bytes);
        let after = message(PING, number, 8);
        let both = [large.clone(), after.clone()];
        let (written, ()) = soon(async {
            tokio::join!(up.write(&both), async {
                assert!(frame(&mut pair.server.receiver).await == (1, large.clone()));
                assert!(frame(&mut pair.server.receiver).await == (1, after.clone()));
            })
        })
        .await;
        written.unwrap();
        let mut down = pair.server.sender.writer(0);
        let (written, ()) = soon(async {
            tokio::join!(down.write(&both), async {
                assert!(frame(&mut pair.client.receiver).await == (0, large.clone()));
                assert!(frame(&mut pair.client.receiver).await == (0, after.clone()));
            })
        })
        .await;
        written.unwrap();
        // Dropping it would end the control channel.
        std::mem::forget(down);
    }
}

async fn many_channels_each_keep_their_order(mut pair: Pair) {
    const N_CHANNELS: u32 = 40;
    const N_FRAMES: u8 = 20;
    pair.server.sender.permit_streams(N_CHANNELS);
    let sender = pair.client.sender.clone();
    let write_all = async {
        let mut writers = Vec::new();
        for channel in 1..=N_CHANNELS {
            writers.push(sender.open(channel).await.unwrap());
        }
        for number in 0..N_FRAMES {
            for writer in &mut writers {
                writer.write(&[message(UPDATE, number, 30)]).await.unwrap();
            }
        }
        writers
    };
    let receiver = &mut pair.server.receiver;
    let read_all = async {
        let mut next: HashMap<u32, u8> = HashMap::new();
        for _ in 0..N_CHANNELS * u32::from(N_FRAMES) {
            let (channel, bytes) = frame(receiver).await;
            let expected = next.entry(channel).or_default();
            assert_eq!(bytes, message(UPDATE, *expected, 30), "channel {channel}");
            *expected += 1;
        }
        assert_eq!(next.len(), N_CHANNELS as usize);
    };
    soon(async { tokio::join!(write_all, read_all) }).await;
}

/// The violation is typed, and the peer can still be told before the link is closed.
async fn assert_refused_and_told(mut pair: Pair, channel: u32) {
    let error = soon(pair.server.receiver.recv()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::TooLarge, "{error}");
    assert!(
        matches!(error, RecvError::Frame { channel: of, .. } if of == channel),
        "{error:?}"
    );
    assert_eq!(soon(pair.server.receiver.recv()).await, Ok(None));
    let told = message(ERROR, 1, 30);
    let mut control = pair.server.sender.writer(0);
    control.write(std::slice::from_ref(&told)).await.unwrap();
    let reason = CloseReason::new(error.code(), "too large");
    soon(pair.server.sender.close(reason)).await;
    let last = frame_or_end(&mut pair.client.receiver).await;
    assert_eq!(last, Some((0, told)));
    assert_eq!(frame_or_end(&mut pair.client.receiver).await, None);
}

async fn a_message_above_the_limit_of_its_type_is_a_typed_violation(pair: Pair) {
    pair.server.sender.permit_streams(1);
    let mut up = pair.client.sender.open(1).await.unwrap();
    up.write(&[message(PING, 0, 8), message(PING, 0, 16)])
        .await
        .unwrap();
    let mut pair = pair;
    assert_eq!(
        frame(&mut pair.server.receiver).await,
        (1, message(PING, 0, 8))
    );
    assert_refused_and_told(pair, 1).await;
    drop(up);
}

async fn the_control_channel_takes_no_document_messages(mut pair: Pair) {
    let hello = message(0, 1, 8_000);
    let update = message(UPDATE, 1, 8_000);
    pair.client_control
        .write(&[hello.clone(), update])
        .await
        .unwrap();
    assert_eq!(frame(&mut pair.server.receiver).await, (0, hello));
    assert_refused_and_told(pair, 0).await;
}

async fn close_delivers_the_last_message_first(mut pair: Pair) {
    let last = message(ERROR, 9, 40);
    let mut control = pair.server.sender.writer(0);
    let mut frames: Vec<Bytes> = (0..60).map(|number| message(UPDATE, number, 500)).collect();
    frames.push(last);
    control.write(&frames).await.unwrap();
    let reason = CloseReason::new(ErrorCode::ShuttingDown, "restart");
    soon(pair.server.sender.close(reason)).await;
    for wanted in frames {
        let received = frame_or_end(&mut pair.client.receiver).await;
        assert_eq!(received, Some((0, wanted)));
    }
    assert_eq!(frame_or_end(&mut pair.client.receiver).await, None);
    assert_eq!(frame_or_end(&mut pair.server.receiver).await, None);
    assert!(control.write(&[message(PING, 0, 8)]).await.is_err());
}

async fn frames_that_came_before_the_goodbye_are_delivered(mut pair: Pair) {
    pair.server.sender.permit_streams(1);
    let mut up = pair.client.sender.open(1).await.unwrap();
    let frames: Vec<Bytes> = (0..50).map(|n| message(UPDATE, n, 3_000)).collect();
    up.write(&frames).await.unwrap();
    let reason = CloseReason::new(ErrorCode::Normal, "");
    soon(pair.client.sender.close(reason)).await;
    for wanted in frames {
        let received = frame_or_end(&mut pair.server.receiver).await;
        assert_eq!(received, Some((1, wanted)));
    }
    assert_eq!(frame_or_end(&mut pair.server.receiver).await, None);
}

/// The client sends without end and the server's session does not read; closing still ends soon, and the client is told.
async fn close_wakes_a_carrier_whose_queue_is_full(mut pair: Pair) {
    const N_BYTES: usize = 50_000;
    pair.server.sender.permit_streams(1);
    let mut up = pair.client.sender.open(1).await.unwrap();
    let flood = async { while up.write(&[message(UPDATE, 0, N_BYTES)]).await.is_ok() {} };
    let close = async {
        while pair.server.receiver.inbox.n_bytes_free() > N_BYTES {
            tokio::task::yield_now().await;
        }
        let mut control = pair.server.sender.writer(0);
        control.write(&[message(ERROR, 0, 1)]).await.unwrap();
        let reason = CloseReason::new(ErrorCode::Overloaded, "enough");
        pair.server.sender.close(reason).await;
    };
    let read = async {
        let told = frame_or_end(&mut pair.client.receiver).await;
        assert_eq!(told, Some((0, message(ERROR, 0, 1))));
        assert_eq!(frame_or_end(&mut pair.client.receiver).await, None);
    };
    soon(async { tokio::join!(flood, close, read) }).await;
}

async fn a_peer_that_vanishes_ends_the_link(pair: Pair) {
    let Pair {
        mut server,
        client,
        client_control,
        ..
    } = pair;
    if server.peer.carrier == Carrier::Memory {
        // Nothing vanishes by itself in memory; see the test of `Cut`.
        return;
    }
    server.sender.permit_streams(1);
    let mut up = client.sender.open(1).await.unwrap();
    up.write(&[message(UPDATE, 7, 10)]).await.unwrap();
    assert_eq!(
        frame(&mut server.receiver).await,
        (1, message(UPDATE, 7, 10))
    );
    drop((client, client_control, up));
    assert_eq!(frame_or_end(&mut server.receiver).await, None);
    let mut control = server.sender.writer(0);
    // The carrier may have to try once to learn it.
    let write_until_it_fails = async {
        while control.write(&[Bytes::from_static(FIRST)]).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    soon(write_until_it_fails).await;
}

async fn datagrams_arrive_where_there_are_any(mut pair: Pair) {
    pair.server.sender.permit_streams(1);
    let sender = pair.server.sender.clone();
    let Some(bytes_max) = sender.datagram_bytes_max() else {
        assert_eq!(sender.datagram(1, &[0]), Err(DatagramError::Unsupported));
        return;
    };
    assert!(bytes_max >= 1_000, "{bytes_max}");
    let largest = vec![7; bytes_max];
    assert_eq!(sender.datagram(u32::MAX, &largest), Ok(()));
    let received = soon(pair.client.receiver.recv()).await.unwrap();
    assert_eq!(
        received,
        Some(Received::Datagram {
            channel: u32::MAX,
            bytes: largest.clone().into()
        })
    );
    let too_large = vec![7; bytes_max + 1];
    assert_eq!(sender.datagram(1, &too_large), Err(DatagramError::TooLarge));
    pair.client.sender.datagram(3, &[1, 2]).unwrap();
    let received = soon(pair.server.receiver.recv()).await.unwrap();
    assert_eq!(
        received,
        Some(Received::Datagram {
            channel: 3,
            bytes: Bytes::from_static(&[1, 2])
        })
    );
}

async fn a_reader_that_stops_makes_the_writer_wait(mut pair: Pair) {
    const N_FRAMES: usize = 300;
    pair.server.sender.permit_streams(1);
    let mut up = pair.client.sender.open(1).await.unwrap();
    let scope = crate::shutdown::Scope::new();
    // 30 MB: more than every buffer between the two together.
    let writing = scope.spawn(async move {
        for _ in 0..N_FRAMES {
            up.write(&[message(UPDATE, 1, 100_000)]).await.unwrap();
        }
        up
    });
    for n_read in 0..N_FRAMES {
        if n_read == N_FRAMES / 10 {
            assert!(!writing.is_finished(), "the writer ran ahead");
        }
        frame(&mut pair.server.receiver).await;
    }
    soon(writing).await.unwrap();
}

async fn a_write_that_was_dropped_breaks_its_channel(mut pair: Pair) {
    pair.server.sender.permit_streams(2);
    let mut cut_short = pair.client.sender.open(1).await.unwrap();
    let mut other = pair.client.sender.open(2).await.unwrap();
    // 64 MB cannot be taken at once by anything.
    let flood: Vec<Bytes> = (0..64).map(|_| message(UPDATE, 0, 1 << 20)).collect();
    assert!(cut_short.write(&flood).now_or_never().is_none());
    assert_eq!(
        cut_short.write(&[message(PING, 0, 8)]).await,
        Err(WriteError::Broken { channel: 1 })
    );
    let last = [message(PING, 2, 8)];
    let (written, ()) = soon(async {
        tokio::join!(other.write(&last), async {
            while frame_or_end(&mut pair.server.receiver).await != Some((2, last[0].clone())) {}
        })
    })
    .await;
    written.unwrap();
}

#[tokio::test]
async fn a_cut_memory_link_ends_both_sides_and_loses_what_was_on_its_way() {
    let (mut server, mut client, cut) = memory::pair_with_cut();
    let mut up = client.sender.open(1).await.unwrap();
    up.write(&[message(PING, 0, 8)]).await.unwrap();
    cut.cut();
    assert_eq!(server.receiver.recv().await, Ok(None));
    assert_eq!(client.receiver.recv().await, Ok(None));
    let written = up.write(&[message(PING, 0, 8)]).await;
    assert_eq!(written, Err(WriteError::Closed));
    assert_eq!(client.sender.datagram(1, &[1]), Err(DatagramError::Closed));
}

#[tokio::test]
async fn the_queue_is_bounded_by_items_and_by_bytes() {
    let (mut server, client) = memory::pair();
    let mut up = client.sender.open(1).await.unwrap();
    let small: Vec<Bytes> = (0..64).map(|_| message(PING, 0, 8)).collect();
    assert_eq!(up.write(&small).now_or_never(), Some(Ok(())));
    assert!(
        client
            .sender
            .open(2)
            .await
            .unwrap()
            .write(&small[..1])
            .now_or_never()
            .is_none()
    );
    assert_eq!(client.sender.datagram(1, &[1]), Err(DatagramError::Full));
    for _ in 0..64 {
        frame(&mut server.receiver).await;
    }
    let large = message(SYNC, 0, 2 << 20);
    let mut third = client.sender.open(3).await.unwrap();
    assert_eq!(third.write(&[large]).now_or_never(), Some(Ok(())));
    assert!(third.write(&small[..1]).now_or_never().is_none());
}
