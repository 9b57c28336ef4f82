//! Reading history segments: the list, without their bytes, and one of them.

use std::sync::Arc;

use sqlx::sqlite::SqlitePool;

use crate::ids::{DocumentKey, Origin};

use super::super::segment::{self, SegmentInfo, SequenceRange};
use super::super::{ListedSegment, LoadError, LogRow};

/// Number, rows, bytes of updates, from, to, authors, ranges, packed bytes: as the columns come.
type RawSegment = (i64, i64, i64, i64, i64, String, Vec<u8>, i64);

/// The segments of a document, ascending by number.
pub(super) async fn list(
    readers: &SqlitePool,
    key: &DocumentKey,
) -> Result<Vec<ListedSegment>, LoadError> {
    let found: Vec<RawSegment> = sqlx::query_as(
        "SELECT number, n_rows, update_bytes, from_ms, to_ms, authors, ranges, length(bytes) FROM segments
         WHERE org = ?1 AND document = (SELECT id FROM documents WHERE org = ?1 AND name = ?2)
         ORDER BY number",
    )
    .bind(key.org.as_str())
    .bind(key.name.as_str())
    .fetch_all(readers)
    .await?;
    found
        .into_iter()
        .map(|raw| {
            listed(raw).ok_or_else(|| LoadError::Damaged {
                key: key.clone(),
                what: "the list of its history segments is malformed",
            })
        })
        .collect()
}

fn listed(raw: RawSegment) -> Option<ListedSegment> {
    let (number, n_rows, update_bytes, from_ms, to_ms, authors, ranges, packed_bytes) = raw;
    let authors: Vec<Arc<str>> = serde_json::from_str::<Vec<String>>(&authors)
        .ok()?
        .into_iter()
        .map(Arc::from)
        .collect();
    let ranges = ranges.chunks_exact(32).map(|range| {
        let number = |at: usize| Some(u64::from_be_bytes(range[at..at + 8].try_into().ok()?));
        Some(SequenceRange {
            origin: Origin::from_slice(&range[..8])?,
            first: number(8)?,
            last: number(16)?,
            n_rows: number(24)?,
        })
    });
    Some(ListedSegment {
        number: u64::try_from(number).ok()?,
        info: SegmentInfo {
            n_rows: u64::try_from(n_rows).ok()?,
            update_bytes: u64::try_from(update_bytes).ok()?,
            from_ms: u64::try_from(from_ms).ok()?,
            to_ms: u64::try_from(to_ms).ok()?,
            authors,
            ranges: ranges.collect::<Option<_>>()?,
        },
        packed_bytes: u64::try_from(packed_bytes).ok()?,
    })
}

/// The rows of one segment.
pub(super) async fn read(
    readers: &SqlitePool,
    key: &DocumentKey,
    number: u64,
) -> Result<Option<Vec<LogRow>>, LoadError> {
    let Ok(signed) = i64::try_from(number) else {
        return Ok(None);
    };
    let found: Option<Vec<u8>> = sqlx::query_scalar(
        "SELECT bytes FROM segments
         WHERE org = ?1 AND document = (SELECT id FROM documents WHERE org = ?1 AND name = ?2) AND number = ?3",
    )
    .bind(key.org.as_str())
    .bind(key.name.as_str())
    .bind(signed)
    .fetch_optional(readers)
    .await?;
    found
        .map(|bytes| segment::open(key, &bytes))
        .transpose()
        .map_err(|source| LoadError::segment(key, number, source))
}
