//! Document channel: one document on one session. OPEN comes first and carries the state vector, so a document is in
//! sync after one round trip.

use bytes::Bytes;

use super::{DecodeError, Refusal, buf, flag, kind, list, other, sequence, start};
use crate::ids::{ClientId, Epoch};
use crate::protocol::close::ErrorCode;
use crate::protocol::position::Position;
use crate::protocol::varint::Reader;

/// Numbers of the update encodings that OPEN names.
pub mod encoding {
    /// Yjs update format 1.
    pub const YJS_V1: u64 = 1;
}

/// What a session may do with a document. Numbers are on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Access {
    /// Follow it, and be present.
    Read = 0,
    /// Edit it as well.
    Write = 1,
}

impl Access {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(if flag(reader, "access")? {
            Self::Write
        } else {
            Self::Read
        })
    }
}

/// OPEN: the first message of a document channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The document's name as the client wrote it: not yet checked.
    pub document: String,
    /// The epoch of the client's copy; `None` when it has no copy.
    pub epoch: Option<Epoch>,
    /// The client id of the client's Yjs document, which it claims for its presence.
    pub client: ClientId,
    /// The state vector of the client's copy; `[0]` when it has none.
    pub state_vector: Bytes,
    /// The position of the client's copy; `None` when it has none to resume from.
    pub position: Option<Position>,
    /// What the client wants to do.
    pub access: Access,
    /// The update encodings that it understands, of [`encoding`].
    pub encodings: Vec<u64>,
}

/// OPENED: the document is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The identity of the document's history.
    pub epoch: Epoch,
    /// Where `update` brings the client.
    pub position: Position,
    /// What the client may do.
    pub access: Access,
    /// The server's state vector: what is not in it, the client sends as SYNC.
    pub state_vector: Bytes,
    /// What the client lacks; empty when nothing.
    pub update: Bytes,
    /// Awareness update of who is here; empty when nobody.
    pub presence: Bytes,
}

/// What a client may send on a document channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientDocument {
    /// OPEN.
    Open(Open),
    /// UPDATE: an edit.
    Update {
        /// Its number on this channel, from 1, counted together with those of SYNC.
        sequence: u64,
        /// A Yjs update.
        update: Bytes,
    },
    /// SYNC: all that the server lacks, by the state vector that it sent. May be the empty update.
    Sync {
        /// Its number on this channel.
        sequence: u64,
        /// A Yjs update.
        update: Bytes,
    },
    /// PRESENCE: an awareness update.
    Presence(Bytes),
    /// MESSAGE: for the other members, as it is.
    Message(Bytes),
    /// CLOSE.
    Close,
}

impl ClientDocument {
    /// Reads one message; `None` for a type to skip.
    pub fn decode(frame: &Bytes) -> Result<Option<Self>, DecodeError> {
        let mut reader = Reader::new(frame);
        let message = match reader.uint()? {
            kind::OPEN => Self::Open(Open {
                document: reader.str()?.to_owned(),
                epoch: if flag(&mut reader, "epoch")? {
                    Some(Epoch::from_bytes(reader.array()?))
                } else {
                    None
                },
                client: reader.uint()?,
                state_vector: buf(&mut reader, frame)?,
                position: if flag(&mut reader, "position")? {
                    Some(Position::decode(reader.buf()?)?)
                } else {
                    None
                },
                access: Access::read(&mut reader)?,
                encodings: list(&mut reader, "encodings", |r| Ok(r.uint()?))?,
            }),
            kind::CLIENT_UPDATE => Self::Update {
                sequence: sequence(&mut reader)?,
                update: buf(&mut reader, frame)?,
            },
            kind::SYNC => Self::Sync {
                sequence: sequence(&mut reader)?,
                update: buf(&mut reader, frame)?,
            },
            kind::PRESENCE => Self::Presence(buf(&mut reader, frame)?),
            kind::MESSAGE => Self::Message(buf(&mut reader, frame)?),
            kind::CLOSE => Self::Close,
            kind => return other(kind),
        };
        reader.end()?;
        Ok(Some(message))
    }

    /// The message's bytes, type included.
    pub fn encode(&self) -> Bytes {
        let mut writer;
        match self {
            Self::Open(open) => {
                writer = start(
                    kind::OPEN,
                    open.document.len() + open.state_vector.len() + 64,
                );
                writer.str(&open.document);
                match open.epoch {
                    Some(epoch) => writer.uint(1).bytes(epoch.as_bytes()),
                    None => writer.uint(0),
                };
                writer.uint(open.client).buf(&open.state_vector);
                match &open.position {
                    Some(position) => writer.uint(1).buf(&position.encode()),
                    None => writer.uint(0),
                };
                writer
                    .uint(open.access as u64)
                    .uint(open.encodings.len() as u64);
                for encoding in &open.encodings {
                    writer.uint(*encoding);
                }
            }
            Self::Update { sequence, update } => {
                writer = start(kind::CLIENT_UPDATE, update.len() + 16);
                writer.uint(*sequence).buf(update);
            }
            Self::Sync { sequence, update } => {
                writer = start(kind::SYNC, update.len() + 16);
                writer.uint(*sequence).buf(update);
            }
            Self::Presence(bytes) => {
                writer = start(kind::PRESENCE, bytes.len() + 8);
                writer.buf(bytes);
            }
            Self::Message(bytes) => {
                writer = start(kind::MESSAGE, bytes.len() + 8);
                writer.buf(bytes);
            }
            Self::Close => writer = start(kind::CLOSE, 0),
        }
        writer.finish()
    }
}

/// What the server may send on a document channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerDocument {
    /// OPENED.
    Opened(Opened),
    /// UPDATE: edits of others, or the one diff in place of a queue that this client missed.
    Update {
        /// The entries of the position that moved.
        position: Position,
        /// A Yjs update.
        update: Bytes,
    },
    /// SEEN: updates up to this sequence are in the server's journal and relayed.
    Seen(u64),
    /// DURABLE: updates up to this sequence are committed, or were refused.
    Durable(u64),
    /// SYNC_REQUEST: the server lacks something; the client answers with one SYNC.
    SyncRequest {
        /// The server's state vector.
        state_vector: Bytes,
    },
    /// REJECTED: an update was refused.
    Rejected {
        /// Which.
        sequence: u64,
        /// Why.
        code: ErrorCode,
        /// A sentence for a person.
        text: String,
        /// Whether the client has to freeze the document. Otherwise it keeps the edit and sends a SYNC when ACCESS or
        /// SYNC_REQUEST comes.
        terminal: bool,
    },
    /// PRESENCE: an awareness update.
    Presence(Bytes),
    /// MESSAGE of another member.
    Message(Bytes),
    /// ACCESS: what the client may do from now on.
    Access(Access),
    /// REPLACED: the document has a new history, of this epoch.
    Replaced(Epoch),
    /// CLOSED: the channel has ended; the session goes on.
    Closed(Refusal),
}

impl ServerDocument {
    /// Reads one message; `None` for a type to skip.
    pub fn decode(frame: &Bytes) -> Result<Option<Self>, DecodeError> {
        let mut reader = Reader::new(frame);
        let message = match reader.uint()? {
            kind::OPENED => Self::Opened(Opened {
                epoch: Epoch::from_bytes(reader.array()?),
                position: Position::decode(reader.buf()?)?,
                access: Access::read(&mut reader)?,
                state_vector: buf(&mut reader, frame)?,
                update: buf(&mut reader, frame)?,
                presence: buf(&mut reader, frame)?,
            }),
            kind::SERVER_UPDATE => Self::Update {
                position: Position::decode(reader.buf()?)?,
                update: buf(&mut reader, frame)?,
            },
            kind::SEEN => Self::Seen(reader.uint()?),
            kind::DURABLE => Self::Durable(reader.uint()?),
            kind::SYNC_REQUEST => Self::SyncRequest {
                state_vector: buf(&mut reader, frame)?,
            },
            kind::REJECTED => Self::Rejected {
                sequence: sequence(&mut reader)?,
                code: ErrorCode::from_number_or_internal(reader.uint()?),
                text: reader.str()?.to_owned(),
                terminal: flag(&mut reader, "terminal")?,
            },
            kind::PRESENCE => Self::Presence(buf(&mut reader, frame)?),
            kind::MESSAGE => Self::Message(buf(&mut reader, frame)?),
            kind::ACCESS => Self::Access(Access::read(&mut reader)?),
            kind::REPLACED => Self::Replaced(Epoch::from_bytes(reader.array()?)),
            kind::CLOSED => Self::Closed(Refusal::read(&mut reader)?),
            kind => return other(kind),
        };
        reader.end()?;
        Ok(Some(message))
    }

    /// The message's bytes, type included. Encode once and share the `Bytes` among the members of a room.
    pub fn encode(&self) -> Bytes {
        let mut writer;
        match self {
            Self::Opened(opened) => {
                let n = opened.state_vector.len() + opened.update.len() + opened.presence.len();
                writer = start(kind::OPENED, n + 64);
                writer
                    .bytes(opened.epoch.as_bytes())
                    .buf(&opened.position.encode())
                    .uint(opened.access as u64)
                    .buf(&opened.state_vector)
                    .buf(&opened.update)
                    .buf(&opened.presence);
            }
            Self::Update { position, update } => {
                writer = start(kind::SERVER_UPDATE, update.len() + 32);
                writer.buf(&position.encode()).buf(update);
            }
            Self::Seen(sequence) => {
                writer = start(kind::SEEN, 8);
                writer.uint(*sequence);
            }
            Self::Durable(sequence) => {
                writer = start(kind::DURABLE, 8);
                writer.uint(*sequence);
            }
            Self::SyncRequest { state_vector } => {
                writer = start(kind::SYNC_REQUEST, state_vector.len() + 8);
                writer.buf(state_vector);
            }
            Self::Rejected {
                sequence,
                code,
                text,
                terminal,
            } => {
                writer = start(kind::REJECTED, text.len() + 16);
                writer
                    .uint(*sequence)
                    .uint(code.number())
                    .str(text)
                    .uint(u64::from(*terminal));
            }
            Self::Presence(bytes) => {
                writer = start(kind::PRESENCE, bytes.len() + 8);
                writer.buf(bytes);
            }
            Self::Message(bytes) => {
                writer = start(kind::MESSAGE, bytes.len() + 8);
                writer.buf(bytes);
            }
            Self::Access(access) => {
                writer = start(kind::ACCESS, 1);
                writer.uint(*access as u64);
            }
            Self::Replaced(epoch) => {
                writer = start(kind::REPLACED, Epoch::LEN);
                writer.bytes(epoch.as_bytes());
            }
            Self::Closed(refusal) => {
                writer = start(kind::CLOSED, refusal.text.len() + 16);
                refusal.write(&mut writer);
            }
        }
        writer.finish()
    }
}
