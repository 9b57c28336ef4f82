//! The halves of a bidirectional stream, whoever accepted it, and the header that WebTransport puts before its bytes.

use bytes::{Buf, Bytes};

/// HTTP/3's `H3_REQUEST_REJECTED`: we did not look at it.
pub(super) const REQUEST_REJECTED: quinn::VarInt = quinn::VarInt::from_u32(0x010b);

/// What opens a client's WebTransport stream, before the session's number.
const STREAM_SIGNAL: u64 = 0x41;

/// The write half.
#[derive(Debug)]
pub(super) enum SendHalf {
    /// From `wtransport`.
    Session(wtransport::SendStream),
    /// Straight from the connection.
    Quic(quinn::SendStream),
}

impl SendHalf {
    pub(super) fn quic(&self) -> &quinn::SendStream {
        match self {
            Self::Session(stream) => stream.quic_stream(),
            Self::Quic(stream) => stream,
        }
    }

    pub(super) fn quic_mut(&mut self) -> &mut quinn::SendStream {
        match self {
            Self::Session(stream) => stream.quic_stream_mut(),
            Self::Quic(stream) => stream,
        }
    }
}

/// The read half.
#[derive(Debug)]
pub(super) enum RecvHalf {
    /// From `wtransport`: its header has been read.
    Session(wtransport::RecvStream),
    /// Straight from the connection: its header comes first.
    Quic(quinn::RecvStream),
}

impl RecvHalf {
    pub(super) fn quic_mut(&mut self) -> &mut quinn::RecvStream {
        match self {
            Self::Session(stream) => stream.quic_stream_mut(),
            Self::Quic(stream) => stream,
        }
    }
}

/// The stream does not begin as a WebTransport stream does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotOurs;

/// Reads `0x41, session number` (QUIC varints), which may arrive byte by byte.
#[derive(Debug, Default)]
pub(super) struct SessionHeader {
    is_signal_read: bool,
    integer: Vec<u8>,
}

impl SessionHeader {
    /// Takes what it needs from the front of `input`; the session's number once it is complete.
    pub(super) fn decode(&mut self, input: &mut Bytes) -> Result<Option<u64>, NotOurs> {
        while input.has_remaining() {
            self.integer.push(input.get_u8());
            // The two top bits of the first byte say how many bytes there are: 1, 2, 4 or 8.
            let n_bytes = 1 << (self.integer[0] >> 6);
            if self.integer.len() < n_bytes {
                continue;
            }
            let first = u64::from(self.integer[0] & 0x3f);
            let value = self.integer[1..]
                .iter()
                .fold(first, |value, &byte| value << 8 | u64::from(byte));
            self.integer.clear();
            if self.is_signal_read {
                return Ok(Some(value));
            }
            if value != STREAM_SIGNAL {
                return Err(NotOurs);
            }
            self.is_signal_read = true;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read_however_it_is_cut() {
        let whole = [0x40, 0x41, 0x80, 0x00, 0x01, 0x04, 0x07];
        for cut in 0..whole.len() {
            let mut header = SessionHeader::default();
            let mut first = Bytes::copy_from_slice(&whole[..cut]);
            let mut rest = Bytes::copy_from_slice(&whole[cut..]);
            let found = match header.decode(&mut first).unwrap() {
                Some(session_id) => Some(session_id),
                None => header.decode(&mut rest).unwrap(),
            };
            assert_eq!(found, Some(0x104), "cut at {cut}");
            assert_eq!(first.len() + rest.len(), 1, "the preamble is left");
        }
    }

    #[test]
    fn another_kind_of_stream_is_not_ours() {
        let mut headers_frame = Bytes::from_static(&[0x01, 0x05]);
        assert_eq!(
            SessionHeader::default().decode(&mut headers_frame),
            Err(NotOurs)
        );
    }
}
