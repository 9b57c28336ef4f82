//! Frames in pieces, over their caps, and over WebSocket: rules FR1 and following.

use super::*;

fn frames(decoder: &mut Decoder, input: &[u8]) -> Result<Vec<Bytes>, FrameError> {
    let mut input = Bytes::copy_from_slice(input);
    let mut messages = Vec::new();
    while let Some(message) = decoder.decode(&mut input)? {
        messages.push(message);
    }
    assert!(input.is_empty(), "asked for more with input left");
    Ok(messages)
}

fn update(n: usize) -> Bytes {
    let mut bytes = vec![7; n];
    bytes[0] = kind::CLIENT_UPDATE as u8;
    bytes.into()
}

/// FR1: frames come out the same however the stream is cut.
#[test]
fn fr1_frames_survive_any_cut() {
    let messages = [update(1), update(300), update(5000), update(2)];
    let stream: Vec<u8> = messages.iter().flat_map(|m| encode_frame(m)).collect();
    for cut in [1, 2, 3, 7, 302, 1024, stream.len()] {
        let mut decoder = Decoder::new(Caps::TO_SERVER);
        let mut out = Vec::new();
        for piece in stream.chunks(cut) {
            out.extend(frames(&mut decoder, piece).unwrap());
        }
        assert_eq!(out, messages);
        assert!(decoder.is_between_frames());
    }
}

/// FR2: the cap is decided when length and type are known.
#[test]
fn fr2_caps_by_type_before_the_body() {
    // An UPDATE that announces 2 MiB: refused at its first body byte.
    let mut head = Encoded::new(2 * 1024 * 1024).as_slice().to_vec();
    assert_eq!(
        frames(&mut Decoder::new(Caps::TO_SERVER), &head),
        Ok(vec![])
    );
    head.push(kind::CLIENT_UPDATE as u8);
    assert_eq!(
        frames(&mut Decoder::new(Caps::TO_SERVER), &head),
        Err(FrameError::TooLarge {
            length: 2 * 1024 * 1024,
            cap: 1024 * 1024 + 64
        })
    );
    // The same length is fine for a SYNC, and costs only what has arrived.
    let last = head.len() - 1;
    head[last] = kind::SYNC as u8;
    let mut decoder = Decoder::new(Caps::TO_SERVER);
    assert_eq!(frames(&mut decoder, &head), Ok(vec![]));
    assert_eq!(decoder.pending_bytes(), 1);
    assert!(decoder.body.as_ref().unwrap().bytes.capacity() <= FIRST_RESERVATION_BYTES);
    // Larger than any type may be: refused by its length alone.
    let head = Encoded::new(65 * 1024 * 1024);
    let result = frames(&mut Decoder::new(Caps::TO_SERVER), head.as_slice());
    assert!(matches!(result, Err(FrameError::TooLarge { .. })));
}

/// FR2: an unknown type has the cap of the small ones.
#[test]
fn fr2_unknown_types_are_small() {
    let mut head = Encoded::new(1025).as_slice().to_vec();
    head.push(101);
    assert_eq!(
        frames(&mut Decoder::new(Caps::TO_SERVER), &head),
        Err(FrameError::TooLarge {
            length: 1025,
            cap: 1024
        })
    );
}

/// FR3: malformed headers.
#[test]
fn fr3_malformed_headers() {
    let decode = |bytes: &[u8]| frames(&mut Decoder::new(Caps::TO_SERVER), bytes);
    assert_eq!(decode(&[0]), Err(FrameError::Empty));
    assert_eq!(
        decode(&[0x81, 0x00]),
        Err(FrameError::Header(ReadError::Overlong))
    );
    assert_eq!(
        decode(&[0xff; 8]),
        Err(FrameError::Header(ReadError::OutOfRange))
    );
    assert_eq!(
        decode(&[1, 0x80]),
        Err(FrameError::Header(ReadError::Truncated))
    );
    assert_eq!(
        decode(&[2, 0x80, 0x00]),
        Err(FrameError::Header(ReadError::Overlong))
    );
}

/// FR4: a short message does not keep a large read buffer alive.
#[test]
fn fr4_short_messages_are_copied_out() {
    let mut stream = encode_frame(&update(20)).to_vec();
    stream.extend_from_slice(&encode_frame(&update(4000)));
    let mut input = Bytes::from(stream);
    let start = input.as_ptr();
    let mut decoder = Decoder::new(Caps::TO_SERVER);
    let short = decoder.decode(&mut input).unwrap().unwrap();
    assert_ne!(short.as_ptr(), start.wrapping_add(1));
    let at = input.as_ptr();
    let long = decoder.decode(&mut input).unwrap().unwrap();
    assert_eq!(long.as_ptr(), at.wrapping_add(2));
}

/// FR5: the channel opens a stream and every WebSocket message.
#[test]
fn fr5_channels() {
    let mut preamble = Preamble::default();
    let mut input = Bytes::from_static(&[0xac]);
    assert_eq!(preamble.decode(&mut input), Ok(None));
    let mut input = Bytes::from_static(&[0x02, 9]);
    assert_eq!(preamble.decode(&mut input), Ok(Some(300)));
    assert_eq!(&input[..], &[9]);
    assert_eq!(
        split_channel(&Bytes::from_static(&[0xac, 0x02, 9])),
        Ok((300, Bytes::from_static(&[9])))
    );
    assert_eq!(
        split_channel(&Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x1f])),
        Err(FrameError::Header(ReadError::OutOfRange))
    );
    assert_eq!(
        split_channel(&Bytes::new()),
        Err(FrameError::Header(ReadError::Truncated))
    );
}

fn sync(n: usize) -> Bytes {
    let mut bytes: Vec<u8> = (0..n).map(|i| i as u8).collect();
    bytes[0] = kind::SYNC as u8;
    bytes.into()
}

/// FG1: long messages travel in pieces of 256 KiB and come out whole, interleaved with other channels.
#[test]
fn fg1_fragments_come_together() {
    let mut reassembler = Reassembler::new(Caps::TO_SERVER, 4 * FRAGMENT_BYTES_MAX);
    for n in [
        FRAGMENT_BYTES_MAX,
        FRAGMENT_BYTES_MAX + 1,
        2 * FRAGMENT_BYTES_MAX,
        3 * FRAGMENT_BYTES_MAX - 5,
    ] {
        let message = sync(n);
        let pieces: Vec<Bytes> = encode_websocket(7, &message).collect();
        assert_eq!(pieces.len(), n.div_ceil(FRAGMENT_BYTES_MAX));
        let mut whole = None;
        for piece in pieces {
            assert_eq!(whole, None);
            let (channel, piece) = split_channel(&piece).unwrap();
            whole = reassembler.push(channel, piece).unwrap();
            let other = update(5);
            assert_eq!(reassembler.push(8, other.clone()), Ok(Some(other)));
        }
        assert_eq!(whole, Some(message));
        assert_eq!(reassembler.pending_bytes(), 0);
    }
}

fn fragment(is_last: u8, piece: &[u8]) -> Bytes {
    [&[kind::FRAGMENT as u8, is_last], piece].concat().into()
}

/// FG2: the caps hold for the whole message as well.
#[test]
fn fg2_reassembly_is_capped() {
    let mut reassembler = Reassembler::new(Caps::TO_SERVER, 64 * 1024 * 1024);
    assert_eq!(reassembler.push(1, fragment(0, &[36; 200_000])), Ok(None));
    for _ in 0..4 {
        assert_eq!(reassembler.push(1, fragment(0, &[0; 200_000])), Ok(None));
    }
    assert_eq!(
        reassembler.push(1, fragment(1, &[0; 200_000])),
        Err(FrameError::TooLarge {
            length: 1_200_000,
            cap: 1024 * 1024 + 64
        })
    );
    let mut reassembler = Reassembler::new(Caps::TO_SERVER, 300_000);
    assert_eq!(reassembler.push(1, fragment(0, &[40; 200_000])), Ok(None));
    assert_eq!(
        reassembler.push(2, fragment(0, &[40; 200_000])),
        Err(FrameError::TooMuchPending { cap: 300_000 })
    );
    reassembler.forget_channel(1);
    assert_eq!(reassembler.pending_bytes(), 0);
    assert_eq!(reassembler.push(2, fragment(0, &[40; 200_000])), Ok(None));
    let too_long = fragment(1, &vec![0; FRAGMENT_BYTES_MAX + 17]);
    let result = reassembler.push(2, too_long);
    assert!(matches!(result, Err(FrameError::TooLarge { .. })));
}

/// FG3: malformed and misplaced fragments.
#[test]
fn fg3_malformed_fragments() {
    let push = |messages: &[Bytes]| {
        let mut reassembler = Reassembler::new(Caps::TO_SERVER, 1024);
        let mut last = Ok(None);
        for message in messages {
            last = reassembler.push(1, message.clone());
        }
        last
    };
    assert_eq!(push(&[fragment(0, &[])]), Err(FrameError::BadFragment));
    assert_eq!(push(&[fragment(2, &[36])]), Err(FrameError::BadFragment));
    assert_eq!(
        push(&[fragment(0, &[62, 1])]),
        Err(FrameError::NestedFragment)
    );
    assert_eq!(
        push(&[fragment(0, &[0x80])]),
        Err(FrameError::Header(ReadError::Truncated))
    );
    assert_eq!(
        push(&[fragment(0, &[36]), update(3)]),
        Err(FrameError::Interrupted)
    );
    assert_eq!(push(&[Bytes::new()]), Err(FrameError::Empty));
    assert_eq!(
        push(&[Bytes::from_static(&[62])]),
        Err(FrameError::Header(ReadError::Truncated))
    );
    let mut reassembler = Reassembler::new(Caps::TO_SERVER, 1024);
    for channel in 0..PARTIALS_MAX as u32 {
        assert_eq!(reassembler.push(channel, fragment(0, &[40])), Ok(None));
    }
    assert_eq!(
        reassembler.push(1000, fragment(0, &[40])),
        Err(FrameError::TooManyPartials)
    );
}
