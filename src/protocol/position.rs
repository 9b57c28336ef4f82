//! How far a reader is in a document's log: the last sequence seen of each origin. To clients it is an opaque token that
//! they merge by maximum and hand back; inside it is a version vector, so it is valid on every node.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::varint::{ReadError, Reader, Writer};
use crate::ids::Origin;

/// The most entries that a received position may have. An origin is one run of one node, and folding a log does not
/// remove its origins, so this allows for years of restarts at 17 bytes each.
pub const ENTRIES_MAX: usize = 16_384;

/// Why bytes are not a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    /// The bytes are not as long as they say, or an integer in them is wrong.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// More than [`ENTRIES_MAX`] entries.
    #[error("a position has more than {ENTRIES_MAX} entries")]
    TooManyEntries,
    /// The origins do not strictly ascend.
    #[error("the origins of a position do not ascend")]
    OutOfOrder,
    /// An entry with sequence 0, which says nothing.
    #[error("a position has an entry of sequence 0")]
    EmptyEntry,
}

/// A version vector of a document's log: origin to the last sequence of it. An absent origin is sequence 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Position {
    entries: BTreeMap<Origin, u64>,
}

impl Position {
    /// The position before everything.
    pub const fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
        }
    }

    /// The position that has only `sequence` of `origin`: what a relayed update carries.
    pub fn of(origin: Origin, sequence: u64) -> Self {
        let mut position = Self::new();
        position.advance(origin, sequence);
        position
    }

    /// The last sequence of `origin`, 0 when there is none.
    pub fn get(&self, origin: Origin) -> u64 {
        self.entries.get(&origin).copied().unwrap_or(0)
    }

    /// Moves `origin` forward to `sequence`; never back. Whether it moved.
    pub fn advance(&mut self, origin: Origin, sequence: u64) -> bool {
        if sequence <= self.get(origin) {
            return false;
        }
        self.entries.insert(origin, sequence);
        true
    }

    /// The larger of both, origin by origin.
    pub fn merge_max(&mut self, other: &Self) {
        for (origin, sequence) in other.entries() {
            self.advance(origin, sequence);
        }
    }

    /// Whether this has everything that `other` has.
    pub fn covers(&self, other: &Self) -> bool {
        other
            .entries()
            .all(|(origin, sequence)| self.get(origin) >= sequence)
    }

    /// Origins and sequences, by origin.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (Origin, u64)> {
        self.entries
            .iter()
            .map(|(&origin, &sequence)| (origin, sequence))
    }

    /// How many origins it has.
    pub fn n_entries(&self) -> usize {
        self.entries.len()
    }

    /// Whether it is the position before everything.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Its encoding: `list (8 bytes origin, u sequence)`, by origin.
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::with_capacity(1 + self.entries.len() * (Origin::LEN + 4));
        writer.uint(self.entries.len() as u64);
        for (origin, sequence) in self.entries() {
            writer.bytes(origin.as_bytes()).uint(sequence);
        }
        writer.finish()
    }

    /// From its encoding, all of `bytes`. An empty slice is not one: the position before everything is `[0]`.
    pub fn decode(bytes: &[u8]) -> Result<Self, PositionError> {
        let mut reader = Reader::new(bytes);
        let n = reader.length()?;
        if n > ENTRIES_MAX {
            return Err(PositionError::TooManyEntries);
        }
        let mut entries = BTreeMap::new();
        let mut last: Option<Origin> = None;
        for _ in 0..n {
            let origin = Origin::from_bytes(reader.array()?);
            let sequence = reader.uint()?;
            if last.is_some_and(|last| last >= origin) {
                return Err(PositionError::OutOfOrder);
            }
            if sequence == 0 {
                return Err(PositionError::EmptyEntry);
            }
            last = Some(origin);
            entries.insert(origin, sequence);
        }
        reader.end()?;
        Ok(Self { entries })
    }
}

impl FromIterator<(Origin, u64)> for Position {
    fn from_iter<I: IntoIterator<Item = (Origin, u64)>>(iter: I) -> Self {
        let mut position = Self::new();
        for (origin, sequence) in iter {
            position.advance(origin, sequence);
        }
        position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Origin = Origin::from_bytes(*b"aaaaaaaa");
    const B: Origin = Origin::from_bytes(*b"bbbbbbbb");

    /// PO1: a map that only moves forward.
    #[test]
    fn po1_positions_merge_by_maximum() {
        let mut position = Position::of(A, 3);
        assert!(!position.advance(A, 2));
        assert!(position.advance(B, 1));
        let other = Position::of(A, 7);
        assert!(!position.covers(&other));
        position.merge_max(&other);
        assert!(position.covers(&other));
        assert_eq!((position.get(A), position.get(B)), (7, 1));
        assert!(!position.advance(Origin::from_bytes([0; 8]), 0));
        assert_eq!(position.n_entries(), 2);
        assert_eq!(Position::decode(&position.encode()), Ok(position));
    }

    /// PO2: one encoding for each position.
    #[test]
    fn po2_other_encodings_are_refused() {
        let decode = |entries: &[(Origin, u64)]| {
            let mut writer = Writer::default();
            writer.uint(entries.len() as u64);
            for (origin, sequence) in entries {
                writer.bytes(origin.as_bytes()).uint(*sequence);
            }
            Position::decode(&writer.finish())
        };
        assert_eq!(decode(&[(B, 1), (A, 1)]), Err(PositionError::OutOfOrder));
        assert_eq!(decode(&[(A, 1), (A, 2)]), Err(PositionError::OutOfOrder));
        assert_eq!(decode(&[(A, 0)]), Err(PositionError::EmptyEntry));
        assert_eq!(
            Position::decode(&[0, 0]),
            Err(PositionError::Read(ReadError::Trailing))
        );
        assert_eq!(
            Position::decode(&[0x80, 0x80, 0x04]),
            Err(PositionError::TooManyEntries)
        );
    }
}
