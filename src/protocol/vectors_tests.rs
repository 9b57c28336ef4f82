//! The golden frames of `tests/vectors`, which the TypeScript codec reads too. They were written by a third codec.

use bytes::Bytes;
use serde_json::{Value, json};

use super::awareness::AwarenessUpdate;
use super::close::ErrorCode;
use super::frame::{Caps, Decoder, FrameError, Reassembler, split_channel};
use super::message::{
    Access, ClientControl, ClientDocument, Credential, DecodeError, Refusal, ServerControl,
    ServerDocument,
};
use super::position::Position;
use super::{varint, yjs};

fn vectors(text: &str, list: &str) -> Vec<Value> {
    let vectors: Value = serde_json::from_str(text).unwrap();
    vectors[list].as_array().unwrap().clone()
}

const MESSAGES: &str = include_str!("../../tests/vectors/messages.json");
const FRAMES: &str = include_str!("../../tests/vectors/frames.json");
const WEBSOCKET: &str = include_str!("../../tests/vectors/websocket.json");
const ERRORS: &str = include_str!("../../tests/vectors/errors.json");
const YJS: &str = include_str!("../../tests/vectors/yjs.json");

fn text<'a>(vector: &'a Value, field: &str) -> &'a str {
    vector[field].as_str().unwrap()
}

fn unhex(hex: &str) -> Bytes {
    (0..hex.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap())
        .collect::<Vec<_>>()
        .into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn position(position: &Position) -> Value {
    position
        .entries()
        .map(|(origin, sequence)| json!([origin.to_string(), sequence]))
        .collect()
}

fn access(access: Access) -> &'static str {
    match access {
        Access::Read => "read",
        Access::Write => "write",
    }
}

fn credential(credential: &Credential) -> Value {
    match credential {
        Credential::None => json!({"kind": "none"}),
        Credential::Ticket(value) => json!({"kind": "ticket", "value": value}),
        Credential::Token(value) => json!({"kind": "token", "value": value}),
    }
}

fn refusal(kind: &str, refusal: &Refusal) -> Value {
    json!({
        "type": kind, "code": refusal.code.name(), "text": refusal.text,
        "retryable": refusal.retryable, "retryAfterMs": refusal.retry_after_ms,
    })
}

fn client_control(message: &ClientControl) -> Value {
    match message {
        ClientControl::Hello(hello) => json!({
            "type": "hello", "versions": hello.versions, "features": hello.features,
            "auth": credential(&hello.credential), "clientName": hello.client_name,
            "clientVersion": hello.client_version,
            "previousSessionId": hello.previous_session.map(|id| id.to_string()),
        }),
        ClientControl::Ping(payload) => json!({"type": "ping", "payload": hex(payload)}),
        ClientControl::Pong(payload) => json!({"type": "pong", "payload": hex(payload)}),
        ClientControl::Auth(auth) => json!({"type": "auth", "auth": credential(auth)}),
    }
}

fn server_control(message: &ServerControl) -> Value {
    match message {
        ServerControl::Welcome(welcome) => json!({
            "type": "welcome", "version": welcome.version, "features": welcome.features,
            "sessionId": welcome.session.to_string(), "nodeId": welcome.node,
            "userId": welcome.user_id, "userName": welcome.user_name,
            "limits": welcome.limits.iter()
                .map(|limit| json!({"key": limit.key, "value": limit.value})).collect::<Vec<_>>(),
            "heartbeatMs": welcome.heartbeat_ms, "deadAfterMs": welcome.dead_after_ms,
            "authLifetimeMs": welcome.auth_lifetime_ms,
        }),
        ServerControl::Ping(payload) => json!({"type": "ping", "payload": hex(payload)}),
        ServerControl::Pong(payload) => json!({"type": "pong", "payload": hex(payload)}),
        ServerControl::AuthOk { lifetime_ms } => {
            json!({"type": "authOk", "lifetimeMs": lifetime_ms})
        }
        ServerControl::AuthExpiring { left_ms } => {
            json!({"type": "authExpiring", "leftMs": left_ms})
        }
        ServerControl::GoAway {
            reason,
            reconnect_min_ms,
            reconnect_max_ms,
        } => json!({
            "type": "goaway", "reason": reason,
            "reconnectMinMs": reconnect_min_ms, "reconnectMaxMs": reconnect_max_ms,
        }),
        ServerControl::Error(error) => refusal("error", error),
    }
}

fn client_document(message: &ClientDocument) -> Value {
    match message {
        ClientDocument::Open(open) => json!({
            "type": "open", "document": open.document,
            "epoch": open.epoch.map(|epoch| epoch.to_string()), "clientId": open.client,
            "stateVector": hex(&open.state_vector),
            "position": open.position.as_ref().map(position),
            "access": access(open.access), "encodings": open.encodings,
        }),
        ClientDocument::Update { sequence, update } => {
            json!({"type": "update", "sequence": sequence, "update": hex(update)})
        }
        ClientDocument::Sync { sequence, update } => {
            json!({"type": "sync", "sequence": sequence, "update": hex(update)})
        }
        ClientDocument::Presence(update) => json!({"type": "presence", "update": hex(update)}),
        ClientDocument::Message(body) => json!({"type": "message", "body": hex(body)}),
        ClientDocument::Close => json!({"type": "close"}),
    }
}

fn server_document(message: &ServerDocument) -> Value {
    match message {
        ServerDocument::Opened(opened) => json!({
            "type": "opened", "epoch": opened.epoch.to_string(),
            "position": position(&opened.position), "access": access(opened.access),
            "stateVector": hex(&opened.state_vector), "update": hex(&opened.update),
            "awareness": hex(&opened.presence),
        }),
        ServerDocument::Update {
            position: moved,
            update,
        } => json!({"type": "update", "position": position(moved), "update": hex(update)}),
        ServerDocument::Seen(sequence) => json!({"type": "seen", "sequence": sequence}),
        ServerDocument::Durable(sequence) => json!({"type": "durable", "sequence": sequence}),
        ServerDocument::SyncRequest { state_vector } => {
            json!({"type": "syncRequest", "stateVector": hex(state_vector)})
        }
        ServerDocument::Rejected {
            sequence,
            code,
            text,
            terminal,
        } => json!({
            "type": "rejected", "sequence": sequence, "code": code.name(), "text": text,
            "terminal": terminal,
        }),
        ServerDocument::Presence(update) => json!({"type": "presence", "update": hex(update)}),
        ServerDocument::Message(body) => json!({"type": "message", "body": hex(body)}),
        ServerDocument::Access(granted) => json!({"type": "access", "access": access(*granted)}),
        ServerDocument::Replaced(epoch) => json!({"type": "replaced", "epoch": epoch.to_string()}),
        ServerDocument::Closed(closed) => refusal("closed", closed),
    }
}

type Decoded = Result<Option<(Value, Bytes)>, DecodeError>;

/// Decodes by the vector's direction and channel; the fields and the message encoded again.
fn decode(vector: &Value) -> Decoded {
    let bytes = unhex(text(vector, "hex"));
    Ok(match (text(vector, "direction"), text(vector, "channel")) {
        ("to_server", "control") => {
            ClientControl::decode(&bytes)?.map(|m| (client_control(&m), m.encode()))
        }
        ("to_client", "control") => {
            ServerControl::decode(&bytes)?.map(|m| (server_control(&m), m.encode()))
        }
        ("to_server", "document") => {
            ClientDocument::decode(&bytes)?.map(|m| (client_document(&m), m.encode()))
        }
        ("to_client", "document") => {
            ServerDocument::decode(&bytes)?.map(|m| (server_document(&m), m.encode()))
        }
        other => panic!("no such direction and channel: {other:?}"),
    })
}

/// MS1, CT1, DC1: every message of the tables, both ways.
#[test]
fn ms1_messages() {
    for vector in vectors(MESSAGES, "messages") {
        let name = text(&vector, "name");
        let (fields, again) = decode(&vector).expect(name).expect(name);
        assert_eq!(fields, vector["fields"], "{name}");
        assert_eq!(hex(&again), text(&vector, "hex"), "{name}");
    }
}

/// MS2 to MS5, EN2, EN3, PO2: what is refused, with the same reasons on both sides.
#[test]
fn ms2_invalid_messages() {
    for vector in vectors(MESSAGES, "invalid") {
        let name = text(&vector, "name");
        let error = match decode(&vector) {
            Ok(None) => Value::Null,
            Ok(Some(message)) => panic!("{name}: read as {message:?}"),
            Err(error) => error.name().into(),
        };
        assert_eq!(error, vector["error"], "{name}");
    }
}

/// FR1 to FR3, whole and byte by byte.
#[test]
fn fr1_streams() {
    for vector in vectors(FRAMES, "streams") {
        let name = text(&vector, "name");
        let stream = unhex(text(&vector, "hex"));
        for step in [stream.len().max(1), 3, 1] {
            let mut decoder = Decoder::new(Caps::TO_SERVER);
            let mut messages = Vec::new();
            let result = stream.chunks(step).try_for_each(|piece| {
                let mut input = Bytes::copy_from_slice(piece);
                while let Some(message) = decoder.decode(&mut input)? {
                    messages.push(Value::from(hex(&message)));
                }
                Ok::<_, FrameError>(())
            });
            let error = result.map_or_else(|error| error.name().into(), |()| Value::Null);
            assert_eq!(error, vector["error"], "{name}");
            assert_eq!(Value::Array(messages), vector["messages"], "{name}");
            if error.is_null() {
                assert_eq!(!decoder.is_between_frames(), vector["unfinished"], "{name}");
            }
        }
    }
}

/// FR5, FG1 to FG3.
#[test]
fn fg1_sockets() {
    for vector in vectors(WEBSOCKET, "sockets") {
        let name = text(&vector, "name");
        let pending_max = vector["pendingBytesMax"].as_u64().unwrap();
        let mut reassembler =
            Reassembler::new(Caps::TO_SERVER, usize::try_from(pending_max).unwrap());
        let mut output = Vec::new();
        let input = vector["input"].as_array().unwrap();
        let result = input.iter().try_for_each(|frame| {
            let (channel, message) = split_channel(&unhex(frame.as_str().unwrap()))?;
            if let Some(whole) = reassembler.push(channel, message)? {
                output.push(json!({"channel": channel, "hex": hex(&whole)}));
            }
            Ok::<_, FrameError>(())
        });
        let error = result.map_or_else(|error| error.name().into(), |()| Value::Null);
        assert_eq!(error, vector["error"], "{name}");
        assert_eq!(Value::Array(output), vector["output"], "{name}");
        if error.is_null() {
            assert_eq!(
                reassembler.pending_bytes(),
                vector["pendingBytes"],
                "{name}"
            );
        }
    }
}

/// EC1: the table of codes is the one that clients have.
#[test]
fn ec1_error_codes() {
    let ours: Vec<Value> = ErrorCode::ALL
        .iter()
        .map(|code| {
            json!({
                "number": code.number(), "name": code.name(), "retryable": code.is_retryable(),
                "closeCode": code.ws_close_code(), "text": code.text(),
            })
        })
        .collect();
    assert_eq!(ours, vectors(ERRORS, "errors"));
}

/// YW1.
#[test]
fn yw1_y_protocols() {
    for vector in vectors(YJS, "messages") {
        let name = text(&vector, "name");
        let message = yjs::Message::decode(&unhex(text(&vector, "hex")));
        let message = message.expect(name).expect(name);
        assert_eq!(hex(&message.encode()), text(&vector, "hex"), "{name}");
        let bytes = |kind, bytes: &[u8]| json!({"type": kind, "bytes": hex(bytes)});
        let fields = match &message {
            yjs::Message::SyncStep1(b) => bytes("syncStep1", b),
            yjs::Message::SyncStep2(b) => bytes("syncStep2", b),
            yjs::Message::Update(b) => bytes("update", b),
            yjs::Message::Awareness(b) => bytes("awareness", b),
            yjs::Message::Denied(reason) => json!({"type": "denied", "reason": reason}),
            yjs::Message::QueryAwareness => json!({"type": "queryAwareness"}),
        };
        assert_eq!(fields, vector["message"], "{name}");
    }
}

/// AW1, AW2.
#[test]
fn aw1_awareness() {
    for vector in vectors(YJS, "awareness") {
        let name = text(&vector, "name");
        let update = AwarenessUpdate::decode(&unhex(text(&vector, "hex"))).expect(name);
        let entries: Vec<Value> = update
            .entries()
            .map(|e| json!({"client": e.client, "clock": e.clock, "state": e.state()}))
            .collect();
        assert_eq!(Value::Array(entries), vector["entries"], "{name}");
    }
    for vector in vectors(YJS, "invalidAwareness") {
        let name = text(&vector, "name");
        let error = AwarenessUpdate::decode(&unhex(text(&vector, "hex"))).expect_err(name);
        let error = match error {
            varint::ReadError::Truncated => "truncated",
            varint::ReadError::Trailing => "trailing",
            varint::ReadError::NotText => "not_text",
            varint::ReadError::OutOfRange | varint::ReadError::Overlong => "integer",
        };
        assert_eq!(error, text(&vector, "error"), "{name}");
    }
}
