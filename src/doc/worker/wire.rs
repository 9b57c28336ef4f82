//! What server and worker say to each other over the worker's standard input and output.
//!
//! A frame is a length (4 bytes, little endian) and as many bytes: a kind, the number of the request, and the rest. The
//! worker speaks first and names its version; then one request and one answer at a time. Both ends are normally the same
//! binary, but a binary may be replaced while the server runs. Pure; nothing here believes a length.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The version of this protocol. Raise it with every change: an old server must not believe a new worker.
pub(super) const VERSION: u32 = 1;

/// The bytes before every frame: its length.
pub(super) const HEADER_BYTES: usize = 4;

/// What a hello begins with, so that another program's output is not taken for a worker's.
const MAGIC: &[u8; 8] = b"syncline";

/// The longest request: four times the largest document that a room takes by default.
pub(super) const REQUEST_BYTES_MAX: usize = 256 << 20;

/// The longest answer. Deleted ranges take a fraction of the document that they are of.
pub(super) const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What a worker is asked to do. The numbers are fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Task {
    /// Integrate the document, find everything that is deleted, and make sure that what is collected reads the same.
    Collect = 1,
    /// Integrate the document and hash what is visible in it.
    Visible = 2,
}

/// A request: what to do with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) task: Task,
    pub(super) update: Bytes,
}

/// Why a worker that works does not do what it is asked. The numbers are fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[repr(u8)]
pub enum Refusal {
    /// The bytes are not a well-formed update.
    #[error("the update is malformed")]
    Malformed = 1,
    /// Something in it hangs on what is not in it.
    #[error("the document has holes")]
    Holes = 2,
    /// It holds content that the worker cannot read.
    #[error("the document holds content that workers cannot read")]
    Unsupported = 3,
    /// The library refused what it should take.
    #[error("the library did not take the document")]
    NotIntegrated = 4,
    /// The collected document did not read the same as the raw one.
    #[error("the collected document does not show the same content")]
    Mismatch = 5,
}

/// What a worker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// First of all.
    Hello { version: u32 },
    /// To [`Task::Collect`]: everything deleted, as an update that only deletes.
    Collected { id: u64, deletes: Bytes },
    /// To [`Task::Visible`].
    Visible { id: u64, hash: [u8; 16] },
    /// To any request.
    Refused { id: u64, why: Refusal },
}

const HELLO: u8 = 128;
const COLLECTED: u8 = 129;
const VISIBLE: u8 = 130;
const REFUSED: u8 = 131;

/// Why a frame means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    #[error("the frame is cut off")]
    Truncated,
    #[error("the frame has bytes after its end")]
    TrailingBytes,
    #[error("the frame is of the unknown kind {0}")]
    Kind(u8),
    #[error("the frame is longer than {0} bytes")]
    TooLong(usize),
    #[error("it is no worker that speaks")]
    Magic,
}

/// The length in a header, if it is within `max`.
pub(super) fn length(header: [u8; HEADER_BYTES], max: usize) -> Result<usize, WireError> {
    let length = u32::from_le_bytes(header) as usize;
    if length > max {
        return Err(WireError::TooLong(max));
    }
    Ok(length)
}

/// Writes the header for what follows it, whose length fits as every sender has checked.
fn frame(kind: u8, rest_bytes: usize) -> BytesMut {
    let length = u32::try_from(1 + rest_bytes).expect("frames are bounded far below 4 GiB");
    let mut out = BytesMut::with_capacity(HEADER_BYTES + 1 + rest_bytes);
    out.put_u32_le(length);
    out.put_u8(kind);
    out
}

impl Request {
    /// The bytes of a request before its update, which is sent from where it stands.
    pub(super) fn head(&self) -> Bytes {
        let length = 9 + self.update.len();
        let length = u32::try_from(length).expect("the pool bounds what it sends");
        let mut out = BytesMut::with_capacity(HEADER_BYTES + 9);
        out.put_u32_le(length);
        out.put_u8(self.task as u8);
        out.put_u64_le(self.id);
        out.freeze()
    }

    /// From the bytes after the header.
    pub(super) fn decode(mut frame: Bytes) -> Result<Self, WireError> {
        if frame.len() < 9 {
            return Err(WireError::Truncated);
        }
        let task = match frame.get_u8() {
            1 => Task::Collect,
            2 => Task::Visible,
            kind => return Err(WireError::Kind(kind)),
        };
        let id = frame.get_u64_le();
        Ok(Self {
            id,
            task,
            update: frame,
        })
    }
}

impl Answer {
    /// With its header.
    pub(super) fn encode(&self) -> Bytes {
        match self {
            Self::Hello { version } => {
                let mut out = frame(HELLO, 12);
                out.put_slice(MAGIC);
                out.put_u32_le(*version);
                out.freeze()
            }
            Self::Collected { id, deletes } => {
                let mut out = frame(COLLECTED, 8 + deletes.len());
                out.put_u64_le(*id);
                out.put_slice(deletes);
                out.freeze()
            }
            Self::Visible { id, hash } => {
                let mut out = frame(VISIBLE, 24);
                out.put_u64_le(*id);
                out.put_slice(hash);
                out.freeze()
            }
            Self::Refused { id, why } => {
                let mut out = frame(REFUSED, 9);
                out.put_u64_le(*id);
                out.put_u8(*why as u8);
                out.freeze()
            }
        }
    }

    /// From the bytes after the header.
    pub(super) fn decode(mut frame: Bytes) -> Result<Self, WireError> {
        let kind = frame.try_get_u8().map_err(|_| WireError::Truncated)?;
        if kind == HELLO {
            if frame.len() < 12 {
                return Err(WireError::Truncated);
            }
            if &frame.split_to(MAGIC.len())[..] != MAGIC {
                return Err(WireError::Magic);
            }
            let version = frame.get_u32_le();
            return whole(Self::Hello { version }, &frame);
        }
        let id = frame.try_get_u64_le().map_err(|_| WireError::Truncated)?;
        match kind {
            COLLECTED => Ok(Self::Collected { id, deletes: frame }),
            VISIBLE => {
                let mut hash = [0; 16];
                frame
                    .try_copy_to_slice(&mut hash)
                    .map_err(|_| WireError::Truncated)?;
                whole(Self::Visible { id, hash }, &frame)
            }
            REFUSED => {
                let why = match frame.try_get_u8().map_err(|_| WireError::Truncated)? {
                    1 => Refusal::Malformed,
                    2 => Refusal::Holes,
                    3 => Refusal::Unsupported,
                    4 => Refusal::NotIntegrated,
                    5 => Refusal::Mismatch,
                    kind => return Err(WireError::Kind(kind)),
                };
                whole(Self::Refused { id, why }, &frame)
            }
            kind => Err(WireError::Kind(kind)),
        }
    }
}

fn whole(answer: Answer, rest: &Bytes) -> Result<Answer, WireError> {
    if rest.is_empty() {
        Ok(answer)
    } else {
        Err(WireError::TrailingBytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn body(frame: &Bytes, max: usize) -> Bytes {
        let header = frame[..HEADER_BYTES].try_into().unwrap();
        assert_eq!(length(header, max), Ok(frame.len() - HEADER_BYTES));
        frame.slice(HEADER_BYTES..)
    }

    fn answers() -> impl Strategy<Value = Answer> {
        prop_oneof![
            any::<u32>().prop_map(|version| Answer::Hello { version }),
            (any::<u64>(), vec(any::<u8>(), 0..50)).prop_map(|(id, bytes)| Answer::Collected {
                id,
                deletes: bytes.into()
            }),
            (any::<u64>(), any::<[u8; 16]>()).prop_map(|(id, hash)| Answer::Visible { id, hash }),
            (any::<u64>(), 0_usize..5).prop_map(|(id, why)| Answer::Refused {
                id,
                why: [
                    Refusal::Malformed,
                    Refusal::Holes,
                    Refusal::Unsupported,
                    Refusal::NotIntegrated,
                    Refusal::Mismatch
                ][why]
            }),
        ]
    }

    proptest! {
        #[test]
        fn answers_go_round_and_every_cut_of_them_is_refused(answer in answers(), cut in 0_usize..60) {
            let body = body(&answer.encode(), ANSWER_BYTES_MAX);
            prop_assert_eq!(Answer::decode(body.clone()), Ok(answer.clone()));
            if cut < body.len() {
                prop_assert_ne!(Answer::decode(body.slice(..cut)), Ok(answer));
            }
        }

        #[test]
        fn requests_go_round(id in any::<u64>(), collect in any::<bool>(), update in vec(any::<u8>(), 0..50)) {
            let task = if collect { Task::Collect } else { Task::Visible };
            let request = Request { id, task, update: update.clone().into() };
            let frame: Bytes = [&request.head()[..], &update].concat().into();
            prop_assert_eq!(Request::decode(body(&frame, REQUEST_BYTES_MAX)), Ok(request));
        }

        #[test]
        fn arbitrary_bytes_are_read_without_panic(bytes in vec(any::<u8>(), 0..60), kind in 126_u8..134) {
            let mut bytes = bytes;
            drop(Request::decode(bytes.clone().into()));
            drop(Answer::decode(bytes.clone().into()));
            bytes.insert(0, kind);
            drop(Answer::decode(bytes.into()));
        }
    }

    #[test]
    fn the_numbers_are_fixed() {
        let refused = Answer::Refused {
            id: 3,
            why: Refusal::Mismatch,
        };
        assert_eq!(
            refused.encode()[..],
            [10, 0, 0, 0, 131, 3, 0, 0, 0, 0, 0, 0, 0, 5]
        );
        assert_eq!(
            Answer::Hello { version: 1 }.encode()[..],
            *b"\x0d\0\0\0\x80syncline\x01\0\0\0"
        );
        let request = Request {
            id: 1,
            task: Task::Visible,
            update: Bytes::from_static(&[0, 0]),
        };
        assert_eq!(request.head()[..], [11, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(length([255; 4], 10), Err(WireError::TooLong(10)));
    }
}
