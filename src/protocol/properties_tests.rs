//! Properties of every codec here: what is written reads back, what reads has one encoding, arbitrary bytes never panic.

use bytes::Bytes;
use proptest::prelude::*;

use super::awareness::{AwarenessUpdate, Builder};
use super::close::ErrorCode;
use super::frame::{
    Caps, Decoder, FRAGMENT_BYTES_MAX, Preamble, Reassembler, encode_frame, encode_websocket,
    split_channel,
};
use super::message::{
    Access, ClientControl, ClientDocument, Credential, Hello, Limit, Open, Opened, Refusal,
    ServerControl, ServerDocument, Welcome,
};
use super::position::Position;
use super::varint::{INTEGER_MAX, Reader, Writer};
use super::yjs;
use crate::ids::{Epoch, Origin, SessionId};

fn uint() -> impl Strategy<Value = u64> {
    prop_oneof![0..300u64, any::<u32>().prop_map(u64::from), 0..=INTEGER_MAX]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![".{0,12}", "[a-z/ ]{0,200}"]
}

fn buf() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

fn position() -> impl Strategy<Value = Position> {
    prop::collection::vec((any::<[u8; 8]>(), uint()), 0..6).prop_map(|entries| {
        let entry = |(origin, sequence)| (Origin::from_bytes(origin), sequence);
        entries.into_iter().map(entry).collect()
    })
}

fn access() -> impl Strategy<Value = Access> {
    any::<bool>().prop_map(|write| if write { Access::Write } else { Access::Read })
}

fn epoch() -> impl Strategy<Value = Epoch> {
    any::<[u8; 16]>().prop_map(Epoch::from_bytes)
}

fn session() -> impl Strategy<Value = SessionId> {
    any::<[u8; 16]>().prop_map(SessionId::from_bytes)
}

fn code() -> impl Strategy<Value = ErrorCode> {
    prop::sample::select(ErrorCode::ALL)
}

fn refusal() -> impl Strategy<Value = Refusal> {
    (code(), text(), any::<bool>(), uint()).prop_map(|(code, text, retryable, retry_after_ms)| {
        Refusal {
            code,
            text,
            retryable,
            retry_after_ms,
        }
    })
}

fn credential() -> impl Strategy<Value = Credential> {
    prop_oneof![
        text().prop_map(Credential::Ticket),
        text().prop_map(Credential::Token),
    ]
}

fn client_control() -> impl Strategy<Value = ClientControl> {
    let hello = (
        prop::collection::vec(uint(), 0..5),
        prop::collection::vec(text(), 0..5),
        prop_oneof![Just(Credential::None), credential()],
        text(),
        text(),
        prop::option::of(session()),
    )
        .prop_map(
            |(versions, features, credential, client_name, client_version, previous_session)| {
                ClientControl::Hello(Hello {
                    versions,
                    features,
                    credential,
                    client_name,
                    client_version,
                    previous_session,
                })
            },
        );
    prop_oneof![
        hello,
        any::<[u8; 8]>().prop_map(ClientControl::Ping),
        any::<[u8; 8]>().prop_map(ClientControl::Pong),
        credential().prop_map(ClientControl::Auth),
    ]
}

fn server_control() -> impl Strategy<Value = ServerControl> {
    let limit = (uint(), uint()).prop_map(|(key, value)| Limit { key, value });
    let welcome = (
        prop::collection::vec(text(), 0..4),
        session(),
        (text(), text(), text()),
        prop::collection::vec(limit, 0..6),
        (uint(), uint(), uint(), uint()),
    )
        .prop_map(
            |(features, session, (node, user_id, user_name), limits, n)| {
                ServerControl::Welcome(Welcome {
                    version: n.0,
                    features,
                    session,
                    node,
                    user_id,
                    user_name,
                    limits,
                    heartbeat_ms: n.1,
                    dead_after_ms: n.2,
                    auth_lifetime_ms: n.3,
                })
            },
        );
    prop_oneof![
        welcome,
        any::<[u8; 8]>().prop_map(ServerControl::Ping),
        any::<[u8; 8]>().prop_map(ServerControl::Pong),
        uint().prop_map(|lifetime_ms| ServerControl::AuthOk { lifetime_ms }),
        uint().prop_map(|left_ms| ServerControl::AuthExpiring { left_ms }),
        (text(), uint(), uint()).prop_map(|(reason, reconnect_min_ms, reconnect_max_ms)| {
            ServerControl::GoAway {
                reason,
                reconnect_min_ms,
                reconnect_max_ms,
            }
        }),
        refusal().prop_map(ServerControl::Error),
    ]
}

fn client_document() -> impl Strategy<Value = ClientDocument> {
    let open = (
        text(),
        prop::option::of(epoch()),
        uint(),
        buf(),
        prop::option::of(position()),
        access(),
        prop::collection::vec(uint(), 0..4),
    )
        .prop_map(
            |(document, epoch, client, state_vector, position, access, encodings)| {
                ClientDocument::Open(Open {
                    document,
                    epoch,
                    client,
                    state_vector,
                    position,
                    access,
                    encodings,
                })
            },
        );
    prop_oneof![
        open,
        (1..=INTEGER_MAX, buf())
            .prop_map(|(sequence, update)| ClientDocument::Update { sequence, update }),
        (1..=INTEGER_MAX, buf())
            .prop_map(|(sequence, update)| ClientDocument::Sync { sequence, update }),
        buf().prop_map(ClientDocument::Presence),
        buf().prop_map(ClientDocument::Message),
        Just(ClientDocument::Close),
    ]
}

fn server_document() -> impl Strategy<Value = ServerDocument> {
    let opened = (epoch(), position(), access(), buf(), buf(), buf()).prop_map(
        |(epoch, position, access, state_vector, update, presence)| {
            ServerDocument::Opened(Opened {
                epoch,
                position,
                access,
                state_vector,
                update,
                presence,
            })
        },
    );
    prop_oneof![
        opened,
        (position(), buf())
            .prop_map(|(position, update)| ServerDocument::Update { position, update }),
        uint().prop_map(ServerDocument::Seen),
        uint().prop_map(ServerDocument::Durable),
        buf().prop_map(|state_vector| ServerDocument::SyncRequest { state_vector }),
        (1..=INTEGER_MAX, code(), text(), any::<bool>()).prop_map(
            |(sequence, code, text, terminal)| ServerDocument::Rejected {
                sequence,
                code,
                text,
                terminal,
            }
        ),
        buf().prop_map(ServerDocument::Presence),
        buf().prop_map(ServerDocument::Message),
        access().prop_map(ServerDocument::Access),
        epoch().prop_map(ServerDocument::Replaced),
        refusal().prop_map(ServerDocument::Closed),
    ]
}

/// Bytes that often look like a message: any, or a message with a few bytes changed and its end cut.
fn hostile() -> impl Strategy<Value = Bytes> {
    let encoded = prop_oneof![
        client_control().prop_map(|m| m.encode()),
        server_control().prop_map(|m| m.encode()),
        client_document().prop_map(|m| m.encode()),
        server_document().prop_map(|m| m.encode()),
    ];
    let mangled = (
        encoded,
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        any::<prop::sample::Index>(),
    )
        .prop_map(|(bytes, changes, cut)| {
            let mut bytes = bytes.to_vec();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(cut.index(bytes.len() + 1).max(bytes.len() / 2));
            Bytes::from(bytes)
        });
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from),
        mangled,
    ]
}

fn feed(decoder: &mut Decoder, stream: &[u8], step: usize) -> Option<Vec<Bytes>> {
    let mut messages = Vec::new();
    for piece in stream.chunks(step) {
        let mut input = Bytes::copy_from_slice(piece);
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return None,
            }
        }
    }
    Some(messages)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// EN1, EN2.
    #[test]
    fn en1_integers_read_back(value in uint()) {
        let mut writer = Writer::default();
        writer.uint(value);
        let bytes = writer.finish();
        prop_assert_eq!(Reader::new(&bytes).uint(), Ok(value));
    }

    /// EN2: what reads as a number is that number's encoding.
    #[test]
    fn en2_one_encoding(bytes in prop::collection::vec(any::<u8>(), 0..10)) {
        let mut reader = Reader::new(&bytes);
        if let Ok(value) = reader.uint() {
            let mut writer = Writer::default();
            writer.uint(value);
            prop_assert_eq!(&writer.finish()[..], &bytes[..bytes.len() - reader.n_left()]);
        }
    }

    /// MS1.
    #[test]
    fn ms1_messages_read_back(
        a in client_control(), b in server_control(), c in client_document(), d in server_document(),
    ) {
        prop_assert_eq!(ClientControl::decode(&a.encode()), Ok(Some(a)));
        prop_assert_eq!(ServerControl::decode(&b.encode()), Ok(Some(b)));
        prop_assert_eq!(ClientDocument::decode(&c.encode()), Ok(Some(c)));
        prop_assert_eq!(ServerDocument::decode(&d.encode()), Ok(Some(d)));
    }

    /// MS6: hostile bytes are errors, and what reads has one encoding (unknown error codes aside).
    #[test]
    fn ms6_hostile_messages(bytes in hostile()) {
        if let Ok(Some(message)) = ClientControl::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes.clone());
        }
        if let Ok(Some(message)) = ClientDocument::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes.clone());
        }
        let _ = ServerControl::decode(&bytes);
        let _ = ServerDocument::decode(&bytes);
        let _ = yjs::Message::decode(&bytes);
        let _ = Position::decode(&bytes);
        if let Ok(update) = AwarenessUpdate::decode(&bytes) {
            prop_assert_eq!(update.entries().count(), update.n_entries());
            for entry in update.entries() {
                let _ = (entry.check(), entry.state());
            }
        }
    }

    /// PO1: merging is the least position that covers both.
    #[test]
    fn po1_merge_is_the_least_cover(a in position(), b in position()) {
        let mut merged = a.clone();
        merged.merge_max(&b);
        prop_assert!(merged.covers(&a) && merged.covers(&b));
        for (origin, sequence) in merged.entries() {
            prop_assert!(sequence == a.get(origin) || sequence == b.get(origin));
        }
        prop_assert_eq!(Position::decode(&merged.encode()), Ok(merged));
    }

    /// FR1: frames come out whole however the stream is cut.
    #[test]
    fn fr1_any_cut(messages in prop::collection::vec(client_document(), 0..5), step in 1..400usize) {
        let messages: Vec<Bytes> = messages.iter().map(ClientDocument::encode).collect();
        let stream: Vec<u8> = messages.iter().flat_map(|m| encode_frame(m)).collect();
        let mut decoder = Decoder::new(Caps::TO_SERVER);
        prop_assert_eq!(feed(&mut decoder, &stream, step), Some(messages));
        prop_assert!(decoder.is_between_frames());
    }

    /// FR2: hostile streams end in the same way however they are cut, and hold no more than was sent.
    #[test]
    fn fr2_hostile_streams(bytes in hostile(), step in 1..50usize) {
        let mut whole = Decoder::new(Caps::TO_SERVER);
        let mut cut = Decoder::new(Caps::TO_SERVER);
        prop_assert_eq!(feed(&mut whole, &bytes, bytes.len().max(1)), feed(&mut cut, &bytes, step));
        prop_assert!(cut.pending_bytes() <= bytes.len());
        let mut input = bytes.clone();
        let _ = Preamble::default().decode(&mut input);
    }

    /// FG3: hostile sockets.
    #[test]
    fn fg3_hostile_sockets(frames in prop::collection::vec(hostile(), 0..6), prefix in any::<bool>()) {
        let mut reassembler = Reassembler::new(Caps::TO_SERVER, 1000);
        for frame in frames {
            let frame = if prefix { [&[1, 62, 0], &frame[..]].concat().into() } else { frame };
            if let Ok((channel, message)) = split_channel(&frame) {
                let _ = reassembler.push(channel, message);
            }
            prop_assert!(reassembler.pending_bytes() <= 1000);
        }
    }

    /// AW1.
    #[test]
    fn aw1_updates_read_back(
        entries in prop::collection::vec((uint(), uint(), prop::option::of("[0-9]{1,5}")), 1..6),
    ) {
        let mut builder = Builder::default();
        for (client, clock, state) in &entries {
            builder.push(*client, *clock, state.as_deref());
        }
        let update = AwarenessUpdate::decode(&builder.finish().unwrap()).unwrap();
        let read: Vec<_> = update
            .entries()
            .map(|e| (e.client, e.clock, e.state().map(str::to_owned)))
            .collect();
        prop_assert_eq!(read, entries);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// FG1: a message of any size arrives whole through fragments.
    #[test]
    fn fg1_any_size(n in 1..3 * FRAGMENT_BYTES_MAX, channel in any::<u32>()) {
        let message = ClientDocument::Sync { sequence: 1, update: vec![7; n].into() }.encode();
        let mut reassembler = Reassembler::new(Caps::TO_SERVER, usize::MAX);
        let mut whole = None;
        for frame in encode_websocket(channel, &message) {
            prop_assert!(whole.is_none());
            let (to, piece) = split_channel(&frame).unwrap();
            prop_assert_eq!(to, channel);
            whole = reassembler.push(to, piece).unwrap();
        }
        prop_assert_eq!(whole, Some(message));
    }
}
