//! The y-protocols messages that y-websocket clients speak, one in each WebSocket message: sync, awareness, auth and the
//! awareness query. Their awareness bytes are those of `protocol::awareness`.

use bytes::Bytes;

use super::varint::{ReadError, Reader, Writer};

const SYNC: u64 = 0;
const AWARENESS: u64 = 1;
const AUTH: u64 = 2;
const QUERY_AWARENESS: u64 = 3;

const SYNC_STEP_1: u64 = 0;
const SYNC_STEP_2: u64 = 1;
const SYNC_UPDATE: u64 = 2;

/// The one kind of auth message that there is.
const PERMISSION_DENIED: u64 = 0;

/// Why a y-protocols message cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A field is malformed, missing or followed by something.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A sync or auth message of a kind that does not exist.
    #[error("y-protocols message {message} has no kind {kind}")]
    UnknownKind {
        /// The message's number.
        message: u64,
        /// The kind's.
        kind: u64,
    },
}

/// One y-protocols message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A state vector: send me what it lacks.
    SyncStep1(Bytes),
    /// The answer to step 1: an update.
    SyncStep2(Bytes),
    /// An edit: an update.
    Update(Bytes),
    /// An awareness update.
    Awareness(Bytes),
    /// Permission denied, with a reason; the server closes after it.
    Denied(String),
    /// Asks for everybody's awareness.
    QueryAwareness,
}

impl Message {
    /// Reads one message; `None` for a type of an extension that this server does not know, which is ignored as the
    /// stock servers do. Stock clients read only the first message of a frame, so a second one in a frame is an error
    /// rather than an edit that half of the readers miss (YW2).
    pub fn decode(frame: &Bytes) -> Result<Option<Self>, DecodeError> {
        let mut reader = Reader::new(frame);
        let message = match reader.uint()? {
            SYNC => {
                let kind = reader.uint()?;
                let bytes = frame.slice_ref(reader.buf()?);
                match kind {
                    SYNC_STEP_1 => Self::SyncStep1(bytes),
                    SYNC_STEP_2 => Self::SyncStep2(bytes),
                    SYNC_UPDATE => Self::Update(bytes),
                    kind => {
                        return Err(DecodeError::UnknownKind {
                            message: SYNC,
                            kind,
                        });
                    }
                }
            }
            AWARENESS => Self::Awareness(frame.slice_ref(reader.buf()?)),
            AUTH => match reader.uint()? {
                PERMISSION_DENIED => Self::Denied(reader.str()?.to_owned()),
                kind => {
                    return Err(DecodeError::UnknownKind {
                        message: AUTH,
                        kind,
                    });
                }
            },
            QUERY_AWARENESS => Self::QueryAwareness,
            _ => return Ok(None),
        };
        reader.end()?;
        Ok(Some(message))
    }

    /// The message's bytes: one WebSocket message.
    pub fn encode(&self) -> Bytes {
        let tagged = |tags: &[u64], bytes: &[u8]| {
            let mut writer = Writer::with_capacity(bytes.len() + 12);
            for tag in tags {
                writer.uint(*tag);
            }
            writer.buf(bytes);
            writer.finish()
        };
        match self {
            Self::SyncStep1(bytes) => tagged(&[SYNC, SYNC_STEP_1], bytes),
            Self::SyncStep2(bytes) => tagged(&[SYNC, SYNC_STEP_2], bytes),
            Self::Update(bytes) => tagged(&[SYNC, SYNC_UPDATE], bytes),
            Self::Awareness(bytes) => tagged(&[AWARENESS], bytes),
            Self::Denied(reason) => tagged(&[AUTH, PERMISSION_DENIED], reason.as_bytes()),
            Self::QueryAwareness => Bytes::from_static(&[QUERY_AWARENESS as u8]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// YW1: the bytes of y-protocols.
    #[test]
    fn yw1_messages_are_those_of_y_protocols() {
        for (message, bytes) in [
            (
                Message::SyncStep1(Bytes::from_static(&[0])),
                &[0u8, 0, 1, 0][..],
            ),
            (
                Message::SyncStep2(Bytes::from_static(&[0, 0])),
                &[0, 1, 2, 0, 0],
            ),
            (
                Message::Update(Bytes::from_static(&[0, 0])),
                &[0, 2, 2, 0, 0],
            ),
            (Message::Awareness(Bytes::from_static(&[0])), &[1, 1, 0]),
            (Message::Denied("no".into()), &[2, 0, 2, b'n', b'o']),
            (Message::QueryAwareness, &[3]),
        ] {
            assert_eq!(&message.encode()[..], bytes);
            assert_eq!(
                Message::decode(&Bytes::from_static(bytes)),
                Ok(Some(message))
            );
        }
    }

    /// YW2: unknown types are ignored; unknown kinds and second messages are errors.
    #[test]
    fn yw2_what_is_ignored_and_what_is_not() {
        let decode = |bytes: &'static [u8]| Message::decode(&Bytes::from_static(bytes));
        assert_eq!(decode(&[100, 1, 2]), Ok(None));
        assert_eq!(
            decode(&[0, 3, 0]),
            Err(DecodeError::UnknownKind {
                message: 0,
                kind: 3
            })
        );
        assert_eq!(
            decode(&[2, 1, 0]),
            Err(DecodeError::UnknownKind {
                message: 2,
                kind: 1
            })
        );
        assert_eq!(decode(&[3, 3]), Err(DecodeError::Read(ReadError::Trailing)));
        assert_eq!(
            decode(&[0, 2, 9]),
            Err(DecodeError::Read(ReadError::Truncated))
        );
        assert_eq!(decode(&[]), Err(DecodeError::Read(ReadError::Truncated)));
    }
}
