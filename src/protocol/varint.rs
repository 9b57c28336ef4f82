//! The encodings of `lib0`, so that a JavaScript client needs no second codec: integers of 7 bits a byte, low group
//! first, and length-prefixed bytes and text. Stricter than `lib0` itself: each number has exactly one encoding and none
//! is above 2^53 - 1, the largest that JavaScript counts exactly.

use bytes::Bytes;

/// The largest integer on the wire: 2^53 - 1.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

/// The longest encoding of an integer: 53 bits in groups of 7.
pub const VARINT_BYTES_MAX: usize = 8;

/// Why bytes cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The bytes end inside a value.
    #[error("the bytes end inside a value")]
    Truncated,
    /// An integer is above [`INTEGER_MAX`].
    #[error("an integer is above 2^53 - 1")]
    OutOfRange,
    /// An integer has a group of zeros at its end: the same number has a shorter encoding.
    #[error("an integer is encoded in more bytes than it needs")]
    Overlong,
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    NotText,
    /// Bytes follow the last field.
    #[error("bytes follow the last field")]
    Trailing,
}

/// Reads values from the front of a slice. After an error its place is unspecified.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// How many bytes have not been read.
    pub const fn n_left(&self) -> usize {
        self.rest.len()
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8, ReadError> {
        let (first, rest) = self.rest.split_first().ok_or(ReadError::Truncated)?;
        self.rest = rest;
        Ok(*first)
    }

    /// One integer.
    pub fn uint(&mut self) -> Result<u64, ReadError> {
        let mut value = 0u64;
        for i in 0..VARINT_BYTES_MAX {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                if byte == 0 && i > 0 {
                    return Err(ReadError::Overlong);
                }
                if value > INTEGER_MAX {
                    return Err(ReadError::OutOfRange);
                }
                return Ok(value);
            }
        }
        Err(ReadError::OutOfRange)
    }

    /// An integer that counts bytes or elements in memory.
    pub fn length(&mut self) -> Result<usize, ReadError> {
        usize::try_from(self.uint()?).map_err(|_| ReadError::OutOfRange)
    }

    /// The next `n` bytes.
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], ReadError> {
        let (bytes, rest) = self.rest.split_at_checked(n).ok_or(ReadError::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(ReadError::Truncated)?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// Length-prefixed bytes.
    pub fn buf(&mut self) -> Result<&'a [u8], ReadError> {
        let n = self.length()?;
        self.bytes(n)
    }

    /// Length-prefixed UTF-8.
    pub fn str(&mut self) -> Result<&'a str, ReadError> {
        std::str::from_utf8(self.buf()?).map_err(|_| ReadError::NotText)
    }

    /// The end: an error when anything is left.
    pub fn end(&self) -> Result<(), ReadError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(ReadError::Trailing)
        }
    }
}

/// Appends values to bytes.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Empty, with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(capacity),
        }
    }

    /// One integer. Above [`INTEGER_MAX`] (nothing that is counted gets there) it is written as `INTEGER_MAX`, so that a
    /// peer never sees a number that it must refuse.
    pub fn uint(&mut self, value: u64) -> &mut Self {
        self.bytes.extend_from_slice(Encoded::new(value).as_slice());
        self
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Length-prefixed bytes.
    pub fn buf(&mut self, bytes: &[u8]) -> &mut Self {
        self.uint(bytes.len() as u64).bytes(bytes)
    }

    /// Length-prefixed UTF-8.
    pub fn str(&mut self, text: &str) -> &mut Self {
        self.buf(text.as_bytes())
    }

    /// How many bytes have been written.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What has been written.
    pub fn finish(self) -> Bytes {
        self.bytes.into()
    }
}

/// One encoded integer, held inline: the prefix of a frame in a gathered write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoded {
    bytes: [u8; VARINT_BYTES_MAX],
    n: u8,
}

impl Encoded {
    /// Encodes `value`, at most [`INTEGER_MAX`] (see [`Writer::uint`]).
    pub const fn new(value: u64) -> Self {
        let mut value = if value > INTEGER_MAX {
            INTEGER_MAX
        } else {
            value
        };
        let mut bytes = [0; VARINT_BYTES_MAX];
        let mut n = 0;
        while value >= 0x80 {
            bytes[n] = (value & 0x7f) as u8 | 0x80;
            value >>= 7;
            n += 1;
        }
        bytes[n] = value as u8;
        Self {
            bytes,
            n: n as u8 + 1,
        }
    }

    /// The encoding.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.n)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EN1: seven bits a byte, low group first.
    #[test]
    fn en1_integers_are_lib0_var_uints() {
        for (value, hex) in [
            (0u64, &[0u8][..]),
            (127, &[0x7f]),
            (128, &[0x80, 0x01]),
            (300, &[0xac, 0x02]),
            (
                INTEGER_MAX,
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f],
            ),
        ] {
            assert_eq!(Encoded::new(value).as_slice(), hex);
            let mut reader = Reader::new(hex);
            assert_eq!(reader.uint(), Ok(value));
            assert_eq!(reader.end(), Ok(()));
        }
    }

    /// EN2: one encoding for each number, none above 2^53 - 1.
    #[test]
    fn en2_overlong_and_large_integers_are_refused() {
        let read = |bytes: &[u8]| Reader::new(bytes).uint();
        assert_eq!(read(&[0x80, 0x00]), Err(ReadError::Overlong));
        assert_eq!(read(&[0xff, 0x80, 0x00]), Err(ReadError::Overlong));
        assert_eq!(
            read(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10]),
            Err(ReadError::OutOfRange)
        );
        assert_eq!(read(&[0xff; 9]), Err(ReadError::OutOfRange));
        assert_eq!(read(&[0xff; 3]), Err(ReadError::Truncated));
        assert_eq!(read(&[]), Err(ReadError::Truncated));
        assert_eq!(Encoded::new(u64::MAX), Encoded::new(INTEGER_MAX));
    }

    /// EN3: text is UTF-8, lengths are checked against what is there.
    #[test]
    fn en3_lengths_and_text_are_checked() {
        assert_eq!(Reader::new(&[2, 0x61]).str(), Err(ReadError::Truncated));
        assert_eq!(Reader::new(&[1, 0xff]).str(), Err(ReadError::NotText));
        assert_eq!(Reader::new(&[2, 0xc3, 0xa9]).str(), Ok("é"));
        // A length near the top of the range must not be added to anything.
        let mut huge = Encoded::new(INTEGER_MAX).as_slice().to_vec();
        huge.push(0);
        assert_eq!(Reader::new(&huge).buf(), Err(ReadError::Truncated));
    }
}
