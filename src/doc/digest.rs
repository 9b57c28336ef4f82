//! A few bytes that say whether two holders of a document hold the same: for the mesh, the checker and `verify`.
//!
//! The content part is a wrapping sum over inserted units of H(client, clock, unit): each UTF-16 unit of a text, each
//! value of a list of values, one for anything else. A sum does not depend on order, and units do not depend on how
//! structs are split or merged, so the digest of a log, of its merge and of any cut of it are equal. What was collected
//! cannot be summed again; the sum is carried along with the snapshot instead. The deletion part is H over the merged
//! ranges of everything deleted.
//!
//! H has no key and is not meant to stop a forger: it finds faults of ours. It stands here, and not in a crate, because
//! it is written into stores and must never change; it is the multiply-and-fold step of wyhash, which mixes 16 bytes in
//! one 64 by 64 bit multiplication.

use bytes::Bytes;

use crate::doc::content::{Cursor, Kind, Struct, VALUE_NESTING_MAX};
use crate::doc::delete_index::{DeleteIndex, DeletedRange};
use crate::doc::scan::{ScanError, Scanned, Section};
use crate::ids::ClientId;

/// Odd constants with as many ones as zeros, those of wyhash.
const SECRETS: [u64; 3] = [
    0x2d35_8dcc_aa6c_78a5,
    0x8bb8_4b93_962e_acc9,
    0x4b33_a62e_d433_d4a3,
];

/// Multiplies to 128 bits and folds the halves together.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// H: takes words and byte strings, each self-delimiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hash64 {
    state: u64,
}

impl Hash64 {
    /// A hash of its own for each seed.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            state: fold(seed ^ SECRETS[0], SECRETS[1]),
        }
    }

    #[inline]
    pub(super) fn word(&mut self, word: u64) {
        self.state = fold(self.state ^ word ^ SECRETS[2], self.state ^ SECRETS[1]);
        // A product with zero forgets everything; the rotation brings the word back in.
        self.state ^= word.rotate_left(29);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let word = chunk.try_into().expect("a chunk of eight is eight long");
            self.word(u64::from_le_bytes(word));
        }
        let rest = chunks.remainder();
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.word(u64::from_le_bytes(word));
        }
    }

    pub(super) fn finish(self) -> u64 {
        fold(self.state ^ SECRETS[1], SECRETS[0]) ^ self.state
    }
}

/// What tells the units of different content apart. Written into sums for ever.
mod tag {
    pub(super) const TEXT: u64 = 1;
    pub(super) const VALUE: u64 = 2;
    pub(super) const LEGACY: u64 = 3;
    pub(super) const SINGLE: u64 = 4;
    /// A unit that came without its content.
    pub(super) const DEAD: u64 = 5;
    pub(super) const DELETES: u64 = 6;
}

/// The sum over inserted units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentSum(u64);

impl ContentSum {
    /// Of an empty document.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an update that was admitted: every unit that it carries counts, so what was known before has to be trimmed
    /// away (as the news of an admission are). A unit that came without its content (a GC or Deleted struct of something
    /// that nobody had brought before) counts as such.
    pub fn add(&mut self, update: &Scanned) {
        for section in update.sections() {
            self.add_section(update.bytes(), section)
                .expect("the bytes were walked by scan");
        }
    }

    fn add_section(&mut self, bytes: &Bytes, section: &Section) -> Result<(), ScanError> {
        let mut cursor = Cursor::new(bytes, section.from as usize);
        let mut clock = section.clock;
        for _ in 0..section.n {
            let item = cursor.next_struct::<false>(section.client, clock, VALUE_NESTING_MAX)?;
            self.add_struct(bytes, section.client, clock, &item)?;
            clock += item.len;
        }
        Ok(())
    }

    fn add_struct(
        &mut self,
        bytes: &[u8],
        client: ClientId,
        clock: u32,
        item: &Struct,
    ) -> Result<(), ScanError> {
        let unit = |tag: u64, offset: u32| {
            let mut hash = Hash64::new(tag);
            hash.word(client);
            hash.word(u64::from(clock + offset));
            hash
        };
        let mut add = |hash: Hash64| self.0 = self.0.wrapping_add(hash.finish());
        match item.kind {
            Kind::Skip => {}
            Kind::Gc | Kind::Deleted => {
                (0..item.len).for_each(|offset| add(unit(tag::DEAD, offset)));
            }
            Kind::Text => {
                for (offset, unit_of_text) in (0..).zip(item.text(bytes)?.encode_utf16()) {
                    let mut hash = unit(tag::TEXT, offset);
                    hash.word(u64::from(unit_of_text));
                    add(hash);
                }
            }
            Kind::Any | Kind::Json => {
                let tag = if item.kind == Kind::Any {
                    tag::VALUE
                } else {
                    tag::LEGACY
                };
                let mut offset = 0;
                item.for_each_element(bytes, |element| {
                    let mut hash = unit(tag, offset);
                    hash.bytes(element);
                    add(hash);
                    offset += 1;
                })?;
            }
            Kind::Single => {
                let mut hash = unit(tag::SINGLE, 0);
                hash.word(u64::from(item.content_number()));
                hash.bytes(&bytes[item.content..item.to]);
                add(hash);
            }
        }
        Ok(())
    }
}

/// The digest of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    content: ContentSum,
    deletes: u64,
}

/// Why bytes are not a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// They are not [`Digest::LEN`] bytes.
    #[error("a digest has not {0} bytes")]
    Length(usize),
    /// They are of another version.
    #[error("the digest has the unknown version {0}")]
    Version(u8),
}

impl Digest {
    /// The length of an encoded digest, in bytes: a version, the content, the deletions.
    pub const LEN: usize = 17;

    const VERSION: u8 = 1;

    /// Of a log: updates without overlaps, in any order. What a log implies (a GC struct deletes) counts as deleted.
    pub fn of_log<'a>(updates: impl IntoIterator<Item = &'a Scanned>) -> Self {
        let mut content = ContentSum::new();
        let mut deletes = DeleteIndex::default();
        for update in updates {
            content.add(update);
            deletes.insert_all(update);
        }
        Self::new(content, &deletes)
    }

    pub(super) fn new(content: ContentSum, deletes: &DeleteIndex) -> Self {
        let mut hash = Hash64::new(tag::DELETES);
        deletes.for_each(|DeletedRange { client, start, end }| {
            hash.word(client);
            hash.word(u64::from(start) << 32 | u64::from(end));
        });
        Self {
            content,
            deletes: hash.finish(),
        }
    }

    /// The part that is carried along with a snapshot, to be continued by [`ContentSum::add`].
    pub fn content(&self) -> ContentSum {
        self.content
    }

    /// To its stored and wire form.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [Self::VERSION; Self::LEN];
        out[1..9].copy_from_slice(&self.content.0.to_be_bytes());
        out[9..].copy_from_slice(&self.deletes.to_be_bytes());
        out
    }

    /// From its stored and wire form.
    pub fn decode(bytes: &[u8]) -> Result<Self, DigestError> {
        let bytes: &[u8; Self::LEN] = bytes
            .try_into()
            .map_err(|_| DigestError::Length(bytes.len()))?;
        if bytes[0] != Self::VERSION {
            return Err(DigestError::Version(bytes[0]));
        }
        let number = |at: usize| {
            let bytes = bytes[at..at + 8].try_into();
            u64::from_be_bytes(bytes.expect("eight of seventeen bytes are eight"))
        };
        Ok(Self {
            content: ContentSum(number(1)),
            deletes: number(9),
        })
    }
}

#[cfg(test)]
#[path = "digest_tests.rs"]
mod tests;
