//! Where one message ends and the next begins, on each carrier, and how large each may be. The size of a frame is judged
//! when its length and type are known, before its body is gathered, so a peer makes us hold no more than the cap of the
//! type it names and no more than it has really sent.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};

use super::close::ErrorCode;
use super::message::kind;
use super::varint::{Encoded, ReadError, Reader, VARINT_BYTES_MAX, Writer};

/// The most bytes of a message that one WebSocket message carries; a longer one is split into FRAGMENT messages. Small
/// enough that a heartbeat never waits long behind one, large enough that the prefix does not matter.
pub const FRAGMENT_BYTES_MAX: usize = 256 * 1024;

/// The largest WebTransport datagram that carries presence, channel included: below what Chromium (1,211) and Firefox
/// (1,224) take, with room for a narrower path.
pub const DATAGRAM_BYTES_MAX: usize = 1_100;

/// The first reservation for a frame whose body has not all arrived.
const FIRST_RESERVATION_BYTES: usize = 4 * 1024;

/// How many messages may be in pieces at once on one WebSocket. Each costs at least the bytes received; this bounds the
/// bookkeeping.
const PARTIALS_MAX: usize = 64;

/// Why a frame was refused. After one the stream or socket cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length, channel or type is not an integer of the protocol.
    #[error("frame header: {0}")]
    Header(ReadError),
    /// A frame of length 0: every message has a type.
    #[error("a frame is empty")]
    Empty,
    /// The frame, or the message that fragments add up to, is larger than its type may be.
    #[error("a message of {length} bytes passes the limit of {cap} for its type")]
    TooLarge {
        /// Its size in bytes, as far as it is known.
        length: u64,
        /// The most it may have.
        cap: usize,
    },
    /// The unfinished messages of this socket add up to more than it may hold.
    #[error("unfinished messages pass the limit of {cap} bytes")]
    TooMuchPending {
        /// The most they may have together.
        cap: usize,
    },
    /// Too many messages are unfinished at once.
    #[error("more than {PARTIALS_MAX} messages are unfinished at once")]
    TooManyPartials,
    /// A fragment carries no bytes, or a last flag that is neither 0 nor 1.
    #[error("a fragment is malformed")]
    BadFragment,
    /// A fragment inside a message that was put together from fragments.
    #[error("a fragment carries fragments")]
    NestedFragment,
    /// A whole message on a channel whose last message is unfinished.
    #[error("a message interrupts the fragments of another on its channel")]
    Interrupted,
}

impl FrameError {
    /// What the peer is told.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } | Self::TooMuchPending { .. } => ErrorCode::TooLarge,
            Self::Header(_)
            | Self::Empty
            | Self::TooManyPartials
            | Self::BadFragment
            | Self::NestedFragment
            | Self::Interrupted => ErrorCode::InvalidMessage,
        }
    }

    /// A stable name, for golden frames and metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Header(ReadError::Truncated) => "truncated",
            Self::Header(ReadError::OutOfRange) => "out_of_range",
            Self::Header(ReadError::Overlong) => "overlong",
            Self::Header(ReadError::NotText) => "not_text",
            Self::Header(ReadError::Trailing) => "trailing",
            Self::Empty => "empty",
            Self::TooLarge { .. } => "too_large",
            Self::TooMuchPending { .. } => "too_much_pending",
            Self::TooManyPartials => "too_many_partials",
            Self::BadFragment => "bad_fragment",
            Self::NestedFragment => "nested_fragment",
            Self::Interrupted => "interrupted",
        }
    }
}

/// The most bytes of a message of each type, its type included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// HELLO.
    pub hello: usize,
    /// AUTH.
    pub auth: usize,
    /// PING and PONG.
    pub ping: usize,
    /// OPEN: a state vector.
    pub open: usize,
    /// UPDATE, either way.
    pub update: usize,
    /// SYNC: everything that was written offline.
    pub sync: usize,
    /// PRESENCE.
    pub presence: usize,
    /// MESSAGE.
    pub message: usize,
    /// FRAGMENT.
    pub fragment: usize,
    /// Every other type, unknown ones included.
    pub other: usize,
}

impl Caps {
    /// What a server accepts of a client, before configuration.
    pub const TO_SERVER: Self = Self {
        hello: 8 * 1024,
        auth: 8 * 1024,
        ping: 16,
        open: 1024 * 1024,
        update: 1024 * 1024 + 64,
        sync: 64 * 1024 * 1024,
        presence: 64 * 1024,
        message: 64 * 1024,
        fragment: FRAGMENT_BYTES_MAX + 16,
        other: 1024,
    };

    /// What a client accepts of a server that it trusts: anything that memory holds. A nonsensical length still fails.
    pub const TO_CLIENT: Self = {
        const ANY: usize = 1024 * 1024 * 1024;
        Self {
            hello: ANY,
            auth: ANY,
            ping: ANY,
            open: ANY,
            update: ANY,
            sync: ANY,
            presence: ANY,
            message: ANY,
            fragment: ANY,
            other: ANY,
        }
    };

    /// The cap of one type.
    pub const fn of(&self, kind: u64) -> usize {
        match kind {
            kind::HELLO => self.hello,
            kind::AUTH => self.auth,
            kind::PING | kind::PONG => self.ping,
            kind::OPEN => self.open,
            kind::CLIENT_UPDATE => self.update,
            kind::SYNC => self.sync,
            kind::PRESENCE => self.presence,
            kind::MESSAGE => self.message,
            kind::FRAGMENT => self.fragment,
            _ => self.other,
        }
    }

    /// The largest cap of any type: a longer frame is refused before its type is known.
    pub fn largest(&self) -> usize {
        [
            self.hello,
            self.auth,
            self.ping,
            self.open,
            self.update,
            self.sync,
            self.presence,
            self.message,
            self.fragment,
            self.other,
        ]
        .into_iter()
        .fold(0, usize::max)
    }

    /// Reads the type of a whole message and checks its size; the type.
    pub fn check(&self, message: &[u8]) -> Result<u64, FrameError> {
        if message.is_empty() {
            return Err(FrameError::Empty);
        }
        let kind = Reader::new(message).uint().map_err(FrameError::Header)?;
        self.check_length(kind, message.len() as u64)?;
        Ok(kind)
    }

    fn check_length(&self, kind: u64, length: u64) -> Result<(), FrameError> {
        let cap = self.of(kind);
        if length > cap as u64 {
            return Err(FrameError::TooLarge { length, cap });
        }
        Ok(())
    }
}

impl Default for Caps {
    fn default() -> Self {
        Self::TO_SERVER
    }
}

/// An integer that arrives byte by byte.
#[derive(Debug, Clone, Copy, Default)]
struct Integer {
    bytes: [u8; VARINT_BYTES_MAX],
    n: usize,
}

impl Integer {
    /// Takes bytes from the front of `input` until the integer is complete.
    fn take(&mut self, input: &mut Bytes) -> Result<Option<u64>, FrameError> {
        while let Some(&byte) = input.first() {
            let Some(slot) = self.bytes.get_mut(self.n) else {
                return Err(FrameError::Header(ReadError::OutOfRange));
            };
            *slot = byte;
            self.n += 1;
            input.advance(1);
            if byte & 0x80 == 0 {
                let value = Reader::new(&self.bytes[..self.n]).uint();
                return value.map(Some).map_err(FrameError::Header);
            }
            if self.n == VARINT_BYTES_MAX {
                return Err(FrameError::Header(ReadError::OutOfRange));
            }
        }
        Ok(None)
    }
}

/// The channel number that opens a WebTransport stream, read once before its frames.
#[derive(Debug, Clone, Default)]
pub struct Preamble {
    integer: Integer,
}

impl Preamble {
    /// Takes what it needs from the front of `input`; the channel once it is complete.
    pub fn decode(&mut self, input: &mut Bytes) -> Result<Option<u32>, FrameError> {
        self.integer.take(input)?.map(channel_number).transpose()
    }
}

/// Finds the frames of a stream that arrives in pieces. Holds at most the one unfinished frame.
#[derive(Debug)]
pub struct Decoder {
    caps: Caps,
    length: Integer,
    /// The frame whose length is known and whose body is not complete.
    body: Option<Body>,
}

#[derive(Debug)]
struct Body {
    length: usize,
    /// Set once the type has been read and the length found to be within its cap.
    is_checked: bool,
    bytes: Vec<u8>,
}

impl Decoder {
    /// For one stream whose messages have these caps.
    pub const fn new(caps: Caps) -> Self {
        Self {
            caps,
            length: Integer {
                bytes: [0; VARINT_BYTES_MAX],
                n: 0,
            },
            body: None,
        }
    }

    /// Takes bytes from the front of `input` until one message is complete; `None` when all of `input` was taken and
    /// more is needed. Call again until then. After an error the stream cannot be read on.
    ///
    /// The message is a slice of `input` when it is at least half of it, and otherwise a copy, so that a short message
    /// which is kept does not hold a large read buffer in memory.
    pub fn decode(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, FrameError> {
        if self.body.is_none() {
            let Some(length) = self.length.take(input)? else {
                return Ok(None);
            };
            self.length = Integer::default();
            self.body = Some(self.begin(length)?);
        }
        let Some(body) = &mut self.body else {
            return Ok(None);
        };
        if body.bytes.is_empty() && input.len() >= body.length {
            let kind = Reader::new(&input[..body.length])
                .uint()
                .map_err(FrameError::Header)?;
            self.caps.check_length(kind, body.length as u64)?;
            let n_input = input.len();
            let message = input.split_to(body.length);
            self.body = None;
            return Ok(Some(if message.len() >= n_input / 2 {
                message
            } else {
                Bytes::copy_from_slice(&message)
            }));
        }
        while !body.is_checked {
            let Some(&byte) = input.first() else {
                return Ok(None);
            };
            body.append(input, 1);
            if byte & 0x80 == 0
                || body.bytes.len() == body.length
                || body.bytes.len() >= VARINT_BYTES_MAX
            {
                let kind = Reader::new(&body.bytes)
                    .uint()
                    .map_err(FrameError::Header)?;
                self.caps.check_length(kind, body.length as u64)?;
                body.is_checked = true;
            }
        }
        body.append(input, body.length - body.bytes.len());
        if body.bytes.len() < body.length {
            return Ok(None);
        }
        Ok(self.body.take().map(|body| body.bytes.into()))
    }

    /// Whether the stream stands between two frames: it may end here.
    pub const fn is_between_frames(&self) -> bool {
        self.body.is_none() && self.length.n == 0
    }

    /// How many bytes of an unfinished frame are held.
    pub fn pending_bytes(&self) -> usize {
        self.body.as_ref().map_or(0, |body| body.bytes.len())
    }

    fn begin(&self, length: u64) -> Result<Body, FrameError> {
        let cap = self.caps.largest();
        match usize::try_from(length) {
            Ok(0) => Err(FrameError::Empty),
            Ok(length) if length <= cap => Ok(Body {
                length,
                is_checked: false,
                bytes: Vec::new(),
            }),
            Ok(_) | Err(_) => Err(FrameError::TooLarge { length, cap }),
        }
    }
}

impl Body {
    /// Moves up to `n` bytes of `input` here.
    fn append(&mut self, input: &mut Bytes, n: usize) {
        let n = n.min(input.len());
        append(&mut self.bytes, &input[..n], self.length);
        input.advance(n);
    }
}

/// Appends, growing by doubling up to `length_max`: what a peer announces and does not send costs nothing.
fn append(bytes: &mut Vec<u8>, more: &[u8], length_max: usize) {
    let needed = bytes.len() + more.len();
    if needed > bytes.capacity() {
        let doubled = (bytes.capacity() * 2).max(FIRST_RESERVATION_BYTES);
        let capacity = doubled.min(length_max).max(needed);
        bytes.reserve_exact(capacity - bytes.len());
    }
    bytes.extend_from_slice(more);
}

/// The prefix of a frame on a stream, for a gathered write of prefix and message.
pub const fn frame_prefix(message_len: usize) -> Encoded {
    Encoded::new(message_len as u64)
}

/// A message as a frame on a stream.
pub fn encode_frame(message: &[u8]) -> Bytes {
    let mut writer = Writer::with_capacity(message.len() + VARINT_BYTES_MAX);
    writer.buf(message);
    writer.finish()
}

/// The bytes that open a WebTransport stream, and that stand before every datagram and WebSocket message.
pub fn channel_prefix(channel: u32) -> Encoded {
    Encoded::new(u64::from(channel))
}

/// Takes the channel off a WebSocket message or a datagram.
pub fn split_channel(frame: &Bytes) -> Result<(u32, Bytes), FrameError> {
    let mut reader = Reader::new(frame);
    let channel = channel_number(reader.uint().map_err(FrameError::Header)?)?;
    Ok((channel, frame.slice_ref(reader.rest())))
}

fn channel_number(number: u64) -> Result<u32, FrameError> {
    u32::try_from(number).map_err(|_| FrameError::Header(ReadError::OutOfRange))
}

/// A message as the WebSocket messages that carry it: one, or several FRAGMENTs when it is longer than
/// [`FRAGMENT_BYTES_MAX`]. They have to follow each other on their channel.
pub fn encode_websocket(channel: u32, message: &Bytes) -> impl Iterator<Item = Bytes> + use<> {
    let is_split = message.len() > FRAGMENT_BYTES_MAX;
    let mut rest = Some(message.clone());
    std::iter::from_fn(move || {
        let mut piece = rest.take()?;
        if piece.len() > FRAGMENT_BYTES_MAX {
            rest = Some(piece.split_off(FRAGMENT_BYTES_MAX));
        }
        let mut writer = Writer::with_capacity(piece.len() + VARINT_BYTES_MAX + 2);
        writer.uint(u64::from(channel));
        if is_split {
            writer.uint(kind::FRAGMENT).uint(u64::from(rest.is_none()));
        }
        writer.bytes(&piece);
        Some(writer.finish())
    })
}

/// Checks the messages of one WebSocket against their caps and puts fragments together. Messages of different channels
/// may interleave; those of one channel may not.
#[derive(Debug)]
pub struct Reassembler {
    caps: Caps,
    pending_bytes_max: usize,
    pending_bytes: usize,
    partials: BTreeMap<u32, Partial>,
}

#[derive(Debug)]
struct Partial {
    cap: usize,
    bytes: Vec<u8>,
}

impl Reassembler {
    /// For one socket. `pending_bytes_max` bounds what all its unfinished messages hold together.
    pub const fn new(caps: Caps, pending_bytes_max: usize) -> Self {
        Self {
            caps,
            pending_bytes_max,
            pending_bytes: 0,
            partials: BTreeMap::new(),
        }
    }

    /// Takes one message, channel prefix off; the whole message when there is one.
    pub fn push(&mut self, channel: u32, message: Bytes) -> Result<Option<Bytes>, FrameError> {
        let kind = self.caps.check(&message)?;
        if kind != kind::FRAGMENT {
            if self.partials.contains_key(&channel) {
                return Err(FrameError::Interrupted);
            }
            return Ok(Some(message));
        }
        let mut reader = Reader::new(&message);
        let head = reader.uint().and_then(|_| reader.uint());
        let is_last = match head.map_err(FrameError::Header)? {
            0 => false,
            1 => true,
            _ => return Err(FrameError::BadFragment),
        };
        let piece = reader.rest();
        if piece.is_empty() {
            return Err(FrameError::BadFragment);
        }
        if self.pending_bytes + piece.len() > self.pending_bytes_max {
            return Err(FrameError::TooMuchPending {
                cap: self.pending_bytes_max,
            });
        }
        let n_partials = self.partials.len();
        let partial = match self.partials.entry(channel) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                if n_partials >= PARTIALS_MAX {
                    return Err(FrameError::TooManyPartials);
                }
                let kind = Reader::new(piece).uint().map_err(FrameError::Header)?;
                if kind == kind::FRAGMENT {
                    return Err(FrameError::NestedFragment);
                }
                entry.insert(Partial {
                    cap: self.caps.of(kind),
                    bytes: Vec::new(),
                })
            }
        };
        let length = partial.bytes.len() + piece.len();
        if length > partial.cap {
            return Err(FrameError::TooLarge {
                length: length as u64,
                cap: partial.cap,
            });
        }
        append(&mut partial.bytes, piece, partial.cap);
        self.pending_bytes += piece.len();
        if !is_last {
            return Ok(None);
        }
        Ok(self.forget(channel).map(Bytes::from))
    }

    /// Drops what a channel has pending: it was closed.
    pub fn forget_channel(&mut self, channel: u32) {
        self.forget(channel);
    }

    /// How many bytes of unfinished messages are held.
    pub const fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    fn forget(&mut self, channel: u32) -> Option<Vec<u8>> {
        let partial = self.partials.remove(&channel)?;
        self.pending_bytes -= partial.bytes.len();
        Some(partial.bytes)
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
