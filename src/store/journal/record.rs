//! The bytes of a journal segment (STORAGE.md, ST21 to ST23): the header, the record, and how a damaged file is read.
//! Pure: from bytes to rows and back.

use std::sync::Arc;

use bytes::Bytes;

use crate::ids::{DocumentKey, DocumentName, Epoch, OrgId, Origin};
use crate::store::{LogRow, SEQUENCE_MAX};

use super::crc::crc32c;

/// What every segment begins with.
const MAGIC: &[u8; 8] = b"SYNCJRNL";

/// The version of the format that this binary writes. A reader refuses newer ones.
pub(super) const VERSION: u32 = 1;

/// Magic, version, origin, checksum of the three.
pub(super) const HEADER_LEN: usize = 8 + 4 + Origin::LEN + 4;

/// Length and checksum in front of each body.
const PREFIX_LEN: usize = 8;

/// A body of the only kind so far: one log row.
const KIND_ROW: u8 = 1;

/// Epoch, origin, sequence, time, and the lengths of organisation, document and author, after the kind.
const FIXED_LEN: usize = 1 + Epoch::LEN + Origin::LEN + 8 + 8 + 3 * 4;

/// The header of a segment.
pub(super) fn encode_header(origin: Origin) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..20].copy_from_slice(origin.as_bytes());
    let crc = crc32c(&[&header[..20]]);
    header[20..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// What a file's first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// A segment of this version or an older one, written by this incarnation.
    Good(Origin),
    /// A segment of a later version.
    Newer(u32),
    /// Fewer bytes than a header: the process died between creating the file and writing it.
    Short,
    /// Not a header.
    Bad,
}

/// Reads a header.
pub(super) fn decode_header(file: &[u8]) -> Header {
    let Some(header) = file.get(..HEADER_LEN) else {
        return Header::Short;
    };
    let (covered, crc) = header.split_at(HEADER_LEN - 4);
    if &covered[..8] != MAGIC || crc != crc32c(&[covered]).to_le_bytes() {
        return Header::Bad;
    }
    match (
        read_u32(&covered[8..12]),
        Origin::from_slice(&covered[12..20]),
    ) {
        (Some(version), _) if version > VERSION => Header::Newer(version),
        (Some(_), Some(origin)) => Header::Good(origin),
        _ => Header::Bad,
    }
}

/// Appends one record.
pub(super) fn encode_row(row: &LogRow, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX_LEN]);
    out.push(KIND_ROW);
    out.extend_from_slice(row.epoch.as_bytes());
    out.extend_from_slice(row.origin.as_bytes());
    out.extend_from_slice(&row.sequence.to_le_bytes());
    out.extend_from_slice(&row.time_ms.to_le_bytes());
    for text in [row.key.org.as_str(), row.key.name.as_str(), &row.author] {
        out.extend_from_slice(&length(text.len()));
    }
    for text in [row.key.org.as_str(), row.key.name.as_str(), &row.author] {
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(&row.update);

    let body_len = length(out.len() - start - PREFIX_LEN);
    out[start..start + 4].copy_from_slice(&body_len);
    // The checksum covers the length too: otherwise a rotten length would be believed.
    let crc = record_crc(body_len, &out[start + PREFIX_LEN..]);
    out[start + 4..start + PREFIX_LEN].copy_from_slice(&crc.to_le_bytes());
}

fn length(n: usize) -> [u8; 4] {
    u32::try_from(n)
        .expect("an update is at most 64 MiB, so a record is below 4 GiB")
        .to_le_bytes()
}

fn record_crc(body_len: [u8; 4], body: &[u8]) -> u32 {
    crc32c(&[&body_len, body])
}

/// How a segment's bytes end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With the last record.
    Clean,
    /// Within a record that was being written when the process died: nobody had seen it (ST22).
    Torn {
        /// Where the last good record ends.
        good_len: usize,
    },
    /// With a record that is wrong although the file goes on (ST23).
    Corrupt {
        /// Where the wrong record begins.
        offset: usize,
    },
}

/// The rows of a segment (without its header), up to the first record that is not good, and how it ends.
pub(super) fn decode_rows(file: &Bytes) -> (Vec<LogRow>, End) {
    let mut rows = Vec::new();
    let mut offset = HEADER_LEN;
    while offset < file.len() {
        match record_at(file, offset) {
            Record::Row(row, next) => {
                rows.push(row);
                offset = next;
            }
            Record::Incomplete if !has_good_record_after(file, offset) => {
                return (rows, End::Torn { good_len: offset });
            }
            Record::Incomplete | Record::Wrong => return (rows, End::Corrupt { offset }),
        }
    }
    (rows, End::Clean)
}

enum Record {
    Row(LogRow, usize),
    Incomplete,
    Wrong,
}

fn record_at(file: &Bytes, offset: usize) -> Record {
    let Some(body) = body_range(file, offset) else {
        return Record::Incomplete;
    };
    let end = body.end;
    if !is_good(file, offset, &file[body.clone()]) {
        return Record::Wrong;
    }
    decode_body(&file.slice(body)).map_or(Record::Wrong, |row| Record::Row(row, end))
}

/// Where the body of the record at `offset` is; `None` when the file ends before it does.
fn body_range(file: &[u8], offset: usize) -> Option<std::ops::Range<usize>> {
    let body_len = usize::try_from(read_u32(file.get(offset..offset + 4)?)?).ok()?;
    let start = offset.checked_add(PREFIX_LEN)?;
    let end = start.checked_add(body_len)?;
    (end <= file.len()).then_some(start..end)
}

fn is_good(file: &[u8], offset: usize, body: &[u8]) -> bool {
    let (Some(body_len), Some(crc)) = (
        file[offset..].first_chunk::<4>(),
        file[offset + 4..].first_chunk::<4>(),
    ) else {
        return false;
    };
    record_crc(*body_len, body) == u32::from_le_bytes(*crc)
}

/// A rotten length in the middle of a file looks like a torn tail. It is one only if no good record follows. Cheap:
/// almost no offset passes the tests of length and kind.
fn has_good_record_after(file: &[u8], offset: usize) -> bool {
    (offset + 1..file.len()).any(|at| {
        body_range(file, at).is_some_and(|body| {
            body.len() >= FIXED_LEN
                && file[body.start] == KIND_ROW
                && is_good(file, at, &file[body])
        })
    })
}

/// `None` when the body is not one that [`encode_row`] writes.
fn decode_body(body: &Bytes) -> Option<LogRow> {
    if body.len() < FIXED_LEN || body[0] != KIND_ROW {
        return None;
    }
    let mut at = 1_usize;
    let mut take = |n: usize| {
        let field = body.get(at..at.checked_add(n)?)?;
        at += n;
        Some(field)
    };
    let epoch = Epoch::from_slice(take(Epoch::LEN)?)?;
    let origin = Origin::from_slice(take(Origin::LEN)?)?;
    let sequence = u64::from_le_bytes(take(8)?.try_into().ok()?);
    let time_ms = u64::from_le_bytes(take(8)?.try_into().ok()?);
    let org_len = usize::try_from(read_u32(take(4)?)?).ok()?;
    let name_len = usize::try_from(read_u32(take(4)?)?).ok()?;
    let author_len = usize::try_from(read_u32(take(4)?)?).ok()?;
    let org = std::str::from_utf8(take(org_len)?).ok()?;
    let name = std::str::from_utf8(take(name_len)?).ok()?;
    let author = std::str::from_utf8(take(author_len)?).ok()?;
    if sequence == 0 || sequence > SEQUENCE_MAX {
        return None;
    }
    Some(LogRow {
        key: DocumentKey {
            org: OrgId::new(org),
            name: DocumentName::new(name).ok()?,
        },
        epoch,
        origin,
        sequence,
        author: Arc::from(author),
        time_ms,
        update: body.slice(at..),
    })
}

fn read_u32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}
