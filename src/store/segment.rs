//! History segments: rows that left the log, packed for keeping (STORAGE.md, section 7). Pure but for zstd.
//!
//! A segment holds columns, not rows: what is alike stands together. That goes down to the bytes of the updates: those of
//! one length lie over each other, since of two keystrokes of one person most bytes are the same and the clocks differ by
//! one. Nothing is interpreted: the updates come back byte for byte.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::LogRow;
use super::packed::{pack, unpack};
use crate::ids::{DocumentKey, Epoch, Origin};
use crate::protocol::varint::{ReadError, Reader, Writer};

/// What a segment begins with; the last byte is the version.
const MAGIC: &[u8; 8] = b"SYNCSEG\x01";

/// The most rows of one segment. A compaction takes about a thousand.
pub const ROWS_MAX: usize = 4_096;

/// The bytes of updates at which a segment ends. A larger single update has a segment of its own.
pub const UPDATE_BYTES_MAX: usize = 4 << 20;

/// The sequences of one origin in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceRange {
    /// The origin.
    pub origin: Origin,
    /// Its first sequence in the segment.
    pub first: u64,
    /// Its last sequence in the segment. Sequences between the two may be missing: they are in other segments, in the
    /// log, or were never given out.
    pub last: u64,
    /// How many rows of it are in the segment.
    pub n_rows: u64,
}

/// What is said about a segment without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// How many updates it holds.
    pub n_rows: u64,
    /// Their bytes together, before packing.
    pub update_bytes: u64,
    /// When the earliest of them was accepted, milliseconds since 1970 by its node's clock.
    pub from_ms: u64,
    /// When the latest of them was accepted.
    pub to_ms: u64,
    /// The user ids of their authors, each once, ascending.
    pub authors: Vec<Arc<str>>,
    /// Which rows they are, ascending by origin.
    pub ranges: Vec<SequenceRange>,
}

/// A packed segment with what is said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSegment {
    /// What is said about it.
    pub info: SegmentInfo,
    /// The segment; the format is ST51.
    pub bytes: Bytes,
}

/// A segment as a store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedSegment {
    /// Its number within the document, ascending in the order of compaction.
    pub number: u64,
    /// What is said about it.
    pub info: SegmentInfo,
    /// Its packed size in bytes.
    pub packed_bytes: u64,
}

/// Why bytes are not a segment.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// They do not begin as one.
    #[error("it does not begin as a segment")]
    NotASegment,
    /// It was written by a later version.
    #[error("its version is {0}, which this binary does not know")]
    Newer(u8),
    /// The packed bytes are damaged, or larger than they say.
    #[error("it cannot be unpacked: {0}")]
    Packed(#[from] std::io::Error),
    /// What was packed is not as it should be.
    #[error("its content is malformed: {0}")]
    Read(#[from] ReadError),
    /// The columns do not fit together.
    #[error("its columns do not fit together")]
    Columns,
}

/// Packs rows of one document and epoch: ascending by (origin, sequence), as a load gives them. Several segments when
/// they pass the bounds, none when there are no rows.
pub fn seal(rows: &[LogRow]) -> Vec<SealedSegment> {
    let mut sealed = Vec::new();
    let mut rest = rows;
    while !rest.is_empty() {
        let mut update_bytes = 0;
        let n = rest
            .iter()
            .take(ROWS_MAX)
            .take_while(|row| {
                let fits = update_bytes == 0 || update_bytes + row.update.len() <= UPDATE_BYTES_MAX;
                update_bytes += row.update.len();
                fits
            })
            .count();
        let (now, after) = rest.split_at(n);
        sealed.push(seal_one(now));
        rest = after;
    }
    sealed
}

fn seal_one(rows: &[LogRow]) -> SealedSegment {
    let authors: BTreeSet<&Arc<str>> = rows.iter().map(|row| &row.author).collect();
    let authors: Vec<Arc<str>> = authors.into_iter().cloned().collect();
    let of_origins = || rows.chunk_by(|a, b| a.origin == b.origin);
    let info = SegmentInfo {
        n_rows: rows.len() as u64,
        update_bytes: rows.iter().map(|row| row.update.len() as u64).sum(),
        from_ms: rows.iter().map(|row| row.time_ms).min().unwrap_or(0),
        to_ms: rows.iter().map(|row| row.time_ms).max().unwrap_or(0),
        ranges: of_origins()
            .map(|rows| SequenceRange {
                origin: rows[0].origin,
                first: rows[0].sequence,
                last: rows[rows.len() - 1].sequence,
                n_rows: rows.len() as u64,
            })
            .collect(),
        authors,
    };
    let content = content(rows, &info);
    let mut bytes = Writer::with_capacity(content.len() / 4);
    bytes
        .bytes(MAGIC)
        .uint(content.len() as u64)
        .bytes(&pack(&content));
    SealedSegment {
        info,
        bytes: bytes.finish(),
    }
}

/// What is packed: see ST51.
fn content(rows: &[LogRow], info: &SegmentInfo) -> Bytes {
    let mut out = Writer::with_capacity(info.update_bytes as usize + 8 * rows.len() + 256);
    out.bytes(rows[0].epoch.as_bytes()).uint(rows.len() as u64);
    out.uint(info.authors.len() as u64);
    for author in &info.authors {
        out.str(author);
    }
    let runs = || {
        rows.chunk_by(|a, b| a.origin == b.origin && a.sequence.checked_add(1) == Some(b.sequence))
    };
    out.uint(runs().count() as u64);
    for run in runs() {
        out.bytes(run[0].origin.as_bytes())
            .bytes(&run[0].sequence.to_le_bytes())
            .uint(run.len() as u64);
    }
    for of_author in rows.chunk_by(|a, b| a.author == b.author) {
        // Every author of a row is in the list, which is sorted.
        let index = info
            .authors
            .binary_search(&of_author[0].author)
            .unwrap_or_default();
        out.uint(index as u64).uint(of_author.len() as u64);
    }
    let mut before_ms = 0;
    for row in rows {
        write_time(&mut out, zigzag(row.time_ms.wrapping_sub(before_ms)));
        before_ms = row.time_ms;
    }
    for row in rows {
        out.uint(row.update.len() as u64);
    }
    let lengths = rows.iter().map(|row| row.update.len()).collect::<Vec<_>>();
    for (length, members) in by_length(&lengths) {
        if !in_columns(length, members.len()) {
            for row in members {
                out.bytes(&rows[row].update);
            }
            continue;
        }
        let mut column = Vec::with_capacity(members.len());
        let mut differences = Vec::with_capacity(members.len());
        for at in 0..length {
            column.clear();
            column.extend(members.iter().map(|row| rows[*row].update[at]));
            differences.clear();
            let mut before = 0;
            for byte in &column {
                differences.push(byte.wrapping_sub(before));
                before = *byte;
            }
            // A clock grows by one and is nothing but ones then; letters are fewer than their differences.
            if n_distinct(&differences) < n_distinct(&column) {
                out.bytes(&[DIFFERENCES]).bytes(&differences);
            } else {
                out.bytes(&[AS_IT_IS]).bytes(&column);
            }
        }
    }
    out.finish()
}

/// The longest updates that lie over each other. Longer ones have little in common, and are many columns.
const COLUMNS_MAX: usize = 256;

/// Whether updates of one length are written byte by byte of all, or one after the other.
fn in_columns(length: usize, n_members: usize) -> bool {
    length <= COLUMNS_MAX && n_members > 1
}

/// How a column of bytes is written.
const AS_IT_IS: u8 = 0;
const DIFFERENCES: u8 = 1;

/// The rows of each length of update, in their order.
fn by_length(lengths: &[usize]) -> BTreeMap<usize, Vec<usize>> {
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (row, length) in lengths.iter().enumerate() {
        groups.entry(*length).or_default().push(row);
    }
    groups
}

fn n_distinct(bytes: &[u8]) -> usize {
    let mut seen = [false; 256];
    bytes
        .iter()
        .for_each(|byte| seen[usize::from(*byte)] = true);
    seen.iter().filter(|seen| **seen).count()
}

/// The rows of a segment, ascending by (origin, sequence).
pub fn open(key: &DocumentKey, segment: &[u8]) -> Result<Vec<LogRow>, SegmentError> {
    let (magic, rest) = segment
        .split_at_checked(MAGIC.len())
        .ok_or(SegmentError::NotASegment)?;
    if magic[..7] != MAGIC[..7] {
        return Err(SegmentError::NotASegment);
    }
    if magic[7] != MAGIC[7] {
        return Err(SegmentError::Newer(magic[7]));
    }
    let mut reader = Reader::new(rest);
    let size = usize::try_from(reader.uint()?).map_err(|_| SegmentError::Columns)?;
    let content = unpack(reader.rest(), size)?;
    Content {
        key,
        reader: Reader::new(&content),
    }
    .rows()
}

struct Content<'a> {
    key: &'a DocumentKey,
    reader: Reader<'a>,
}

impl Content<'_> {
    fn rows(mut self) -> Result<Vec<LogRow>, SegmentError> {
        let reader = &mut self.reader;
        let epoch = Epoch::from_bytes(reader.array()?);
        // Each row takes bytes, and each author.
        let n = reader.length()?.min(reader.n_left());
        let n_authors = reader.length()?.min(reader.n_left());
        let mut authors: Vec<Arc<str>> = Vec::with_capacity(n_authors);
        for _ in 0..n_authors {
            authors.push(reader.str()?.into());
        }
        let keys = keys(reader, n)?;
        let mut rows = Vec::with_capacity(n);
        while rows.len() < n {
            let index = usize::try_from(reader.uint()?).map_err(|_| SegmentError::Columns)?;
            let author = authors.get(index).ok_or(SegmentError::Columns)?;
            let end = end_of_run(rows.len(), reader.uint()?, n)?;
            for (origin, sequence) in &keys[rows.len()..end] {
                rows.push(LogRow {
                    key: self.key.clone(),
                    epoch,
                    origin: *origin,
                    sequence: *sequence,
                    author: author.clone(),
                    time_ms: 0,
                    update: Bytes::new(),
                });
            }
        }
        let mut time_ms = 0_u64;
        for row in &mut rows {
            time_ms = time_ms.wrapping_add(unzigzag(read_time(reader)?));
            row.time_ms = time_ms;
        }
        let mut lengths = Vec::with_capacity(n);
        for _ in 0..n {
            lengths.push(usize::try_from(reader.uint()?).map_err(|_| SegmentError::Columns)?);
        }
        for (length, members) in by_length(&lengths) {
            let size = length.checked_mul(members.len());
            if size.is_none_or(|size| size > reader.n_left()) {
                return Err(SegmentError::Columns);
            }
            if !in_columns(length, members.len()) {
                for row in members {
                    rows[row].update = Bytes::copy_from_slice(reader.bytes(length)?);
                }
                continue;
            }
            let mut updates = vec![Vec::with_capacity(length); members.len()];
            for _ in 0..length {
                let kind = reader.byte()?;
                let mut before = 0_u8;
                for (update, byte) in updates.iter_mut().zip(reader.bytes(members.len())?) {
                    before = match kind {
                        AS_IT_IS => *byte,
                        DIFFERENCES => before.wrapping_add(*byte),
                        _ => return Err(SegmentError::Columns),
                    };
                    update.push(before);
                }
            }
            for (row, update) in members.into_iter().zip(updates) {
                rows[row].update = update.into();
            }
        }
        reader.end()?;
        Ok(rows)
    }
}

fn keys(reader: &mut Reader<'_>, n: usize) -> Result<Vec<(Origin, u64)>, SegmentError> {
    let n_runs = reader.length()?;
    let mut keys = Vec::with_capacity(n);
    for _ in 0..n_runs {
        let origin = Origin::from_bytes(reader.array()?);
        let first = u64::from_le_bytes(reader.array()?);
        let end = end_of_run(keys.len(), reader.uint()?, n)?;
        let n_run = (end - keys.len()) as u64;
        first.checked_add(n_run).ok_or(SegmentError::Columns)?;
        keys.extend((first..first + n_run).map(|sequence| (origin, sequence)));
    }
    if keys.len() == n {
        Ok(keys)
    } else {
        Err(SegmentError::Columns)
    }
}

/// Where a run of `n_run` rows that begins at row `at` ends: within the `n` rows, and not where it began.
fn end_of_run(at: usize, n_run: u64, n: usize) -> Result<usize, SegmentError> {
    usize::try_from(n_run)
        .ok()
        .filter(|n_run| *n_run > 0)
        .and_then(|n_run| at.checked_add(n_run))
        .filter(|end| *end <= n)
        .ok_or(SegmentError::Columns)
}

/// LEB128 of all 64 bits, where lib0's integers end at 2^53: nobody checks a clock's differences.
fn write_time(out: &mut Writer, mut number: u64) {
    while number >= 0x80 {
        out.bytes(&[number as u8 | 0x80]);
        number >>= 7;
    }
    out.bytes(&[number as u8]);
}

fn read_time(reader: &mut Reader<'_>) -> Result<u64, SegmentError> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = reader.byte()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(SegmentError::Columns)
}

/// A difference modulo 2^64 as a small number when it is small in either direction.
fn zigzag(difference: u64) -> u64 {
    (difference << 1) ^ (difference.cast_signed() >> 63).cast_unsigned()
}

fn unzigzag(number: u64) -> u64 {
    (number >> 1) ^ (number & 1).wrapping_neg()
}

#[cfg(test)]
#[path = "segment_tests.rs"]
mod tests;
