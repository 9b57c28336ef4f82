//! The messages of the native protocol: one enum for each channel kind and direction, so that what may not arrive
//! somewhere has no name there. Byte fields are slices of the received frame: nothing is copied.

mod control;
mod document;

use bytes::Bytes;

use super::close::ErrorCode;
use super::position::PositionError;
use super::varint::{ReadError, Reader, Writer};

pub use control::{ClientControl, Credential, Hello, Limit, ServerControl, Welcome, limit_key};
pub use document::{Access, ClientDocument, Open, Opened, ServerDocument, encoding};

/// The protocol version that this server speaks.
pub const VERSION: u64 = 1;

/// The most elements of any list in a message. Lists name versions, features, encodings and limits: a handful each.
pub const LIST_LEN_MAX: usize = 64;

/// Type numbers, assigned once and for ever. An odd one may be skipped by a peer that does not know it.
pub mod kind {
    /// Client's first message on the control channel.
    pub const HELLO: u64 = 0;
    /// Server's answer to HELLO.
    pub const WELCOME: u64 = 2;
    /// Heartbeat, either way.
    pub const PING: u64 = 4;
    /// Answer to PING, either way.
    pub const PONG: u64 = 6;
    /// Client's fresh credential.
    pub const AUTH: u64 = 8;
    /// The fresh credential holds.
    pub const AUTH_OK: u64 = 10;
    /// The credential runs out soon.
    pub const AUTH_EXPIRING: u64 = 13;
    /// The server drains: move elsewhere.
    pub const GOAWAY: u64 = 15;
    /// The session ends.
    pub const ERROR: u64 = 16;
    /// Client's first message on a document channel.
    pub const OPEN: u64 = 32;
    /// Server's answer to OPEN.
    pub const OPENED: u64 = 34;
    /// An edit of the client.
    pub const CLIENT_UPDATE: u64 = 36;
    /// Edits of others.
    pub const SERVER_UPDATE: u64 = 38;
    /// Everything that the server lacks.
    pub const SYNC: u64 = 40;
    /// Edits are in the journal and relayed.
    pub const SEEN: u64 = 42;
    /// Edits are committed.
    pub const DURABLE: u64 = 44;
    /// The server lacks something.
    pub const SYNC_REQUEST: u64 = 46;
    /// An edit was refused.
    pub const REJECTED: u64 = 48;
    /// Awareness, either way.
    pub const PRESENCE: u64 = 51;
    /// An application's own broadcast, either way.
    pub const MESSAGE: u64 = 53;
    /// Rights changed.
    pub const ACCESS: u64 = 54;
    /// The history was replaced.
    pub const REPLACED: u64 = 56;
    /// Client closes the channel.
    pub const CLOSE: u64 = 58;
    /// Server closed the channel.
    pub const CLOSED: u64 = 60;
    /// A piece of a large message, WebSocket only.
    pub const FRAGMENT: u64 = 62;
}

/// Whether `kind` is assigned in this version.
const fn is_known(kind: u64) -> bool {
    matches!(
        kind,
        kind::HELLO
            | kind::WELCOME
            | kind::PING
            | kind::PONG
            | kind::AUTH
            | kind::AUTH_OK
            | kind::AUTH_EXPIRING
            | kind::GOAWAY
            | kind::ERROR
            | kind::OPEN
            | kind::OPENED
            | kind::CLIENT_UPDATE
            | kind::SERVER_UPDATE
            | kind::SYNC
            | kind::SEEN
            | kind::DURABLE
            | kind::SYNC_REQUEST
            | kind::REJECTED
            | kind::PRESENCE
            | kind::MESSAGE
            | kind::ACCESS
            | kind::REPLACED
            | kind::CLOSE
            | kind::CLOSED
            | kind::FRAGMENT
    )
}

/// Why a message cannot be read. Each is a breach of the protocol by the peer: `invalid_message`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A field is malformed, missing or followed by something.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A position field is malformed.
    #[error(transparent)]
    Position(#[from] PositionError),
    /// An even type that this version does not know.
    #[error("message type {0} is not known and may not be skipped")]
    UnknownType(u64),
    /// A type that is known, and that may not arrive on this kind of channel in this direction.
    #[error("message type {0} may not arrive here")]
    Misplaced(u64),
    /// A field has a value that is not one of its values.
    #[error("field {field} has the value {value}, which it cannot have")]
    BadValue {
        /// The field's name.
        field: &'static str,
        /// What was received.
        value: u64,
    },
    /// A list has more than [`LIST_LEN_MAX`] elements.
    #[error("list {0} has more than {LIST_LEN_MAX} elements")]
    LongList(&'static str),
}

impl DecodeError {
    /// A stable name, for golden frames and metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Read(ReadError::Truncated)
            | Self::Position(PositionError::Read(ReadError::Truncated)) => "truncated",
            Self::Read(ReadError::OutOfRange)
            | Self::Position(PositionError::Read(ReadError::OutOfRange)) => "out_of_range",
            Self::Read(ReadError::Overlong)
            | Self::Position(PositionError::Read(ReadError::Overlong)) => "overlong",
            Self::Read(ReadError::NotText)
            | Self::Position(PositionError::Read(ReadError::NotText)) => "not_text",
            Self::Read(ReadError::Trailing)
            | Self::Position(PositionError::Read(ReadError::Trailing)) => "trailing",
            Self::Position(
                PositionError::TooManyEntries
                | PositionError::OutOfOrder
                | PositionError::EmptyEntry,
            ) => "bad_position",
            Self::UnknownType(_) => "unknown_type",
            Self::Misplaced(_) => "misplaced",
            Self::BadValue { .. } => "bad_value",
            Self::LongList(_) => "long_list",
        }
    }
}

/// The end of a session (ERROR) or of a channel (CLOSED), as the peer is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub code: ErrorCode,
    /// A sentence for a person.
    pub text: String,
    /// Whether to try again. Normally `code.is_retryable()`.
    pub retryable: bool,
    /// How long to wait before that, in milliseconds; 0 leaves it to the client's own backoff.
    pub retry_after_ms: u64,
}

impl Refusal {
    /// With the code's own text and no wait.
    pub fn of(code: ErrorCode) -> Self {
        Self::with_text(code, code.text())
    }

    /// With a text of the site's own, which must say nothing internal.
    pub fn with_text(code: ErrorCode, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
            retryable: code.is_retryable(),
            retry_after_ms: 0,
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            code: ErrorCode::from_number_or_internal(reader.uint()?),
            text: reader.str()?.to_owned(),
            retryable: flag(reader, "retryable")?,
            retry_after_ms: reader.uint()?,
        })
    }

    fn write(&self, writer: &mut Writer) {
        writer
            .uint(self.code.number())
            .str(&self.text)
            .uint(u64::from(self.retryable))
            .uint(self.retry_after_ms);
    }
}

/// Reads a 0 or a 1.
fn flag(reader: &mut Reader<'_>, field: &'static str) -> Result<bool, DecodeError> {
    match reader.uint()? {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(DecodeError::BadValue { field, value }),
    }
}

/// Reads a list of at most [`LIST_LEN_MAX`] elements. Reserves nothing that the peer has not sent.
fn list<'a, T>(
    reader: &mut Reader<'a>,
    field: &'static str,
    mut element: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let n = reader.length()?;
    if n > LIST_LEN_MAX {
        return Err(DecodeError::LongList(field));
    }
    (0..n).map(|_| element(reader)).collect()
}

/// Reads length-prefixed bytes as a slice of the frame that `reader` reads.
fn buf(reader: &mut Reader<'_>, frame: &Bytes) -> Result<Bytes, DecodeError> {
    Ok(frame.slice_ref(reader.buf()?))
}

/// A sequence number: from 1.
fn sequence(reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
    match reader.uint()? {
        0 => Err(DecodeError::BadValue {
            field: "sequence",
            value: 0,
        }),
        sequence => Ok(sequence),
    }
}

/// What to do with a type that is none of the enum's: skip (`Ok(None)`) or refuse.
fn other<T>(kind: u64) -> Result<Option<T>, DecodeError> {
    if is_known(kind) {
        Err(DecodeError::Misplaced(kind))
    } else if kind % 2 == 1 {
        Ok(None)
    } else {
        Err(DecodeError::UnknownType(kind))
    }
}

/// A writer that has the type already, with room for `capacity` bytes of fields.
fn start(kind: u64, capacity: usize) -> Writer {
    let mut writer = Writer::with_capacity(capacity + 1);
    writer.uint(kind);
    writer
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
