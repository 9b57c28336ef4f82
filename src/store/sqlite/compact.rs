//! A compaction: one transaction that puts a snapshot and segments in the place of rows (STORAGE.md, ST41 to ST43).

use sqlx::sqlite::{SqliteConnection, SqlitePool};

use crate::ids::Origin;
use crate::protocol::position::Position;

use super::super::packed::pack_large;
use super::super::segment::SealedSegment;
use super::super::{CompactError, CompactOutcome, Compaction, DocumentState, Failure};
use super::load::CODEC_ZSTD;
use super::write::begin;

/// The bytes of one chunk of a snapshot.
const CHUNK_BYTES: usize = 1 << 20;

/// The document's row while the transaction holds the write lock.
struct Target<'a> {
    connection: &'a mut SqliteConnection,
    compaction: &'a Compaction,
    id: i64,
}

pub(super) async fn compact(
    writer: &SqlitePool,
    compaction: &Compaction,
) -> Result<CompactOutcome, CompactError> {
    // Before the transaction: others write meanwhile.
    let packed = pack_large(&compaction.snapshot).await;
    let Some(version) = compaction.base_version.checked_add(1) else {
        return Ok(CompactOutcome::Raced);
    };
    let mut transaction = begin(writer).await?;
    let Some(id) = find(&mut transaction, compaction).await? else {
        return Ok(CompactOutcome::Raced);
    };
    let mut target = Target {
        connection: &mut transaction,
        compaction,
        id,
    };
    if !target.delete_rows().await? {
        // Dropping the transaction brings them back.
        return Ok(CompactOutcome::Raced);
    }
    target.write_snapshot(&packed, signed(version)?).await?;
    for segment in &compaction.segments {
        target.write_segment(segment).await?;
    }
    transaction.commit().await?;
    Ok(CompactOutcome::Done { version })
}

/// The document's id, if the snapshot in the store is the one that was read, of the same history.
async fn find(
    connection: &mut SqliteConnection,
    compaction: &Compaction,
) -> Result<Option<i64>, CompactError> {
    let found: Option<(i64, Vec<u8>, i64, Option<i64>)> = sqlx::query_as(
        "SELECT documents.id, documents.epoch, documents.state, snapshots.version FROM documents
         LEFT JOIN snapshots ON snapshots.org = documents.org AND snapshots.document = documents.id
         WHERE documents.org = ?1 AND documents.name = ?2",
    )
    .bind(compaction.key.org.as_str())
    .bind(compaction.key.name.as_str())
    .fetch_optional(connection)
    .await?;
    let base = signed(compaction.base_version)?;
    Ok(found
        .filter(|(_, epoch, state, version)| {
            epoch[..] == compaction.epoch.as_bytes()[..]
                && *state != DocumentState::Deleted.number()
                && version.unwrap_or(0) == base
        })
        .map(|(id, ..)| id))
}

impl Target<'_> {
    /// Deletes exactly the rows that were read. False when one of them is not there.
    async fn delete_rows(&mut self) -> Result<bool, CompactError> {
        let mut keys = self.compaction.rows.clone();
        keys.sort_unstable();
        for of_origin in keys.chunk_by(|a, b| a.0 == b.0) {
            let sequences: Vec<u64> = of_origin.iter().map(|(_, sequence)| *sequence).collect();
            let sequences = serde_json::to_string(&sequences).expect("numbers are JSON");
            let deleted = sqlx::query(
                "DELETE FROM log WHERE org = ?1 AND document = ?2 AND origin = ?3
                 AND sequence IN (SELECT value FROM json_each(?4))",
            )
            .bind(self.compaction.key.org.as_str())
            .bind(self.id)
            .bind(&of_origin[0].0.as_bytes()[..])
            .bind(sequences)
            .execute(&mut *self.connection)
            .await?;
            if deleted.rows_affected() != of_origin.len() as u64 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn write_snapshot(&mut self, packed: &[u8], version: i64) -> Result<(), CompactError> {
        let org = self.compaction.key.org.as_str();
        for statement in [
            "DELETE FROM snapshots WHERE org = ?1 AND document = ?2",
            "DELETE FROM snapshot_chunks WHERE org = ?1 AND document = ?2",
        ] {
            sqlx::query(statement)
                .bind(org)
                .bind(self.id)
                .execute(&mut *self.connection)
                .await?;
        }
        sqlx::query(
            "INSERT INTO snapshots (org, document, version, codec, n_chunks, n_bytes, folded, digest, time_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )
        .bind(org)
        .bind(self.id)
        .bind(version)
        .bind(CODEC_ZSTD)
        .bind(signed(packed.len().div_ceil(CHUNK_BYTES) as u64)?)
        .bind(signed(self.compaction.snapshot.len() as u64)?)
        .bind(folded(&self.compaction.folded))
        .bind(&self.compaction.digest[..])
        .bind(signed(self.compaction.time_ms)?)
        .execute(&mut *self.connection)
        .await?;
        for (chunk, number) in packed.chunks(CHUNK_BYTES).zip(0_i64..) {
            sqlx::query(
                "INSERT INTO snapshot_chunks (org, document, version, chunk, bytes) VALUES (?1, ?2, ?3, ?4, ?5)",
            )
            .bind(org)
            .bind(self.id)
            .bind(version)
            .bind(number)
            .bind(chunk)
            .execute(&mut *self.connection)
            .await?;
        }
        Ok(())
    }

    async fn write_segment(&mut self, segment: &SealedSegment) -> Result<(), CompactError> {
        let info = &segment.info;
        let authors: Vec<&str> = info.authors.iter().map(|author| &**author).collect();
        let mut ranges = Vec::with_capacity(32 * info.ranges.len());
        for range in &info.ranges {
            ranges.extend_from_slice(range.origin.as_bytes());
            for number in [range.first, range.last, range.n_rows] {
                ranges.extend_from_slice(&number.to_be_bytes());
            }
        }
        sqlx::query(
            "INSERT INTO segments (org, document, number, n_rows, update_bytes, from_ms, to_ms, authors, ranges, bytes)
             SELECT ?1, ?2, coalesce(max(number), 0) + 1, ?3, ?4, ?5, ?6, ?7, ?8, ?9 FROM segments
             WHERE org = ?1 AND document = ?2",
        )
        .bind(self.compaction.key.org.as_str())
        .bind(self.id)
        .bind(signed(info.n_rows)?)
        .bind(signed(info.update_bytes)?)
        // A clock beyond it is no time at all.
        .bind(i64::try_from(info.from_ms).unwrap_or(i64::MAX))
        .bind(i64::try_from(info.to_ms).unwrap_or(i64::MAX))
        .bind(serde_json::to_string(&authors).expect("strings are JSON"))
        .bind(ranges)
        .bind(&segment.bytes[..])
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }
}

fn folded(position: &Position) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(position.n_entries() * (Origin::LEN + 8));
    for (origin, sequence) in position.entries() {
        bytes.extend_from_slice(origin.as_bytes());
        bytes.extend_from_slice(&sequence.to_be_bytes());
    }
    bytes
}

fn signed(number: u64) -> Result<i64, CompactError> {
    i64::try_from(number).map_err(|_| Failure::new("a number of the compaction passes 2^63").into())
}
