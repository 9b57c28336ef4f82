//! Reading a document. All of it in one transaction: a deferred `BEGIN` in WAL mode reads the state at its first
//! statement, whatever is committed meanwhile (STORAGE.md, ST4).

use std::sync::Arc;

use bytes::Bytes;
use sqlx::sqlite::{SqliteConnection, SqlitePool};

use crate::ids::{DocumentKey, Epoch, Origin};
use crate::protocol::position::Position;

use super::super::packed::unpack;
use super::super::{DocumentState, LoadError, Loaded, LogRow};

/// The number of a snapshot encoding: the chunks together are the bytes as they are.
const CODEC_VERBATIM: i64 = 0;

/// The number of a snapshot encoding: the chunks together are one zstd frame.
pub(super) const CODEC_ZSTD: i64 = 1;

/// Origin, sequence, epoch, author, time, update: as the columns come.
type RawRow = (Vec<u8>, i64, Vec<u8>, String, i64, Vec<u8>);

/// Version, codec, chunks, bytes, folded, digest: as the columns come.
type RawSnapshot = (i64, i64, i64, i64, Vec<u8>, Vec<u8>);

/// Reads a document; `None` when there is none of that name.
pub(super) async fn load(
    readers: &SqlitePool,
    key: &DocumentKey,
) -> Result<Option<Loaded>, LoadError> {
    let mut transaction = readers.begin().await?;
    let loaded = Reader {
        key,
        connection: &mut transaction,
    }
    .load()
    .await?;
    transaction.commit().await?;
    Ok(loaded)
}

struct Reader<'a> {
    key: &'a DocumentKey,
    connection: &'a mut SqliteConnection,
}

impl Reader<'_> {
    async fn load(&mut self) -> Result<Option<Loaded>, LoadError> {
        let found: Option<(i64, Vec<u8>, i64)> =
            sqlx::query_as("SELECT id, epoch, state FROM documents WHERE org = ?1 AND name = ?2")
                .bind(self.key.org.as_str())
                .bind(self.key.name.as_str())
                .fetch_optional(&mut *self.connection)
                .await?;
        let Some((id, epoch, state)) = found else {
            return Ok(None);
        };
        let mut loaded = Loaded {
            epoch: self.epoch(&epoch)?,
            state: DocumentState::from_number(state)
                .ok_or_else(|| self.damaged("its state is unknown"))?,
            version: 0,
            snapshot: None,
            digest: Bytes::new(),
            folded: Position::new(),
            rows: self.rows(id).await?,
        };
        self.snapshot(id, &mut loaded).await?;
        Ok(Some(loaded))
    }

    async fn snapshot(&mut self, id: i64, loaded: &mut Loaded) -> Result<(), LoadError> {
        let found: Option<RawSnapshot> = sqlx::query_as(
            "SELECT version, codec, n_chunks, n_bytes, folded, digest FROM snapshots
             WHERE org = ?1 AND document = ?2",
        )
        .bind(self.key.org.as_str())
        .bind(id)
        .fetch_optional(&mut *self.connection)
        .await?;
        let Some((version, codec, n_chunks, n_bytes, folded, digest)) = found else {
            return Ok(());
        };
        if ![CODEC_VERBATIM, CODEC_ZSTD].contains(&codec) {
            return Err(
                self.damaged("its snapshot is in an encoding that this version cannot read")
            );
        }
        let chunks: Vec<Vec<u8>> = sqlx::query_scalar(
            "SELECT bytes FROM snapshot_chunks WHERE org = ?1 AND document = ?2 AND version = ?3 ORDER BY chunk",
        )
        .bind(self.key.org.as_str())
        .bind(id)
        .bind(version)
        .fetch_all(&mut *self.connection)
        .await?;
        if i64::try_from(chunks.len()) != Ok(n_chunks) {
            return Err(self.damaged("chunks of its snapshot are missing"));
        }
        let stored = chunks.concat();
        let snapshot = if codec == CODEC_VERBATIM {
            stored
        } else {
            let n_bytes = usize::try_from(n_bytes).unwrap_or(0);
            unpack(&stored, n_bytes)
                .ok()
                .filter(|bytes| bytes.len() == n_bytes)
                .ok_or_else(|| self.damaged("its snapshot cannot be unpacked"))?
        };
        for entry in folded.chunks_exact(16) {
            let (origin, sequence) = entry.split_at(Origin::LEN);
            let (Some(origin), Ok(sequence)) = (Origin::from_slice(origin), sequence.try_into())
            else {
                return Err(self.damaged("the position of its snapshot is malformed"));
            };
            loaded.folded.advance(origin, u64::from_be_bytes(sequence));
        }
        loaded.version = u64::try_from(version)
            .map_err(|_| self.damaged("the version of its snapshot is negative"))?;
        loaded.snapshot = Some(snapshot.into());
        loaded.digest = digest.into();
        Ok(())
    }

    async fn rows(&mut self, id: i64) -> Result<Vec<LogRow>, LoadError> {
        let rows: Vec<RawRow> = sqlx::query_as(
            "SELECT origin, sequence, epoch, author, time_ms, update_data FROM log
             WHERE org = ?1 AND document = ?2 ORDER BY origin, sequence",
        )
        .bind(self.key.org.as_str())
        .bind(id)
        .fetch_all(&mut *self.connection)
        .await?;
        rows.into_iter()
            .map(|(origin, sequence, epoch, author, time_ms, update)| {
                Ok(LogRow {
                    key: self.key.clone(),
                    epoch: self.epoch(&epoch)?,
                    origin: Origin::from_slice(&origin)
                        .ok_or_else(|| self.damaged("the origin of a row is malformed"))?,
                    sequence: u64::try_from(sequence)
                        .map_err(|_| self.damaged("the sequence of a row is negative"))?,
                    author: Arc::from(author),
                    time_ms: u64::try_from(time_ms).unwrap_or(0),
                    update: update.into(),
                })
            })
            .collect()
    }

    fn epoch(&self, bytes: &[u8]) -> Result<Epoch, LoadError> {
        Epoch::from_slice(bytes).ok_or_else(|| self.damaged("its epoch is malformed"))
    }

    fn damaged(&self, what: &'static str) -> LoadError {
        LoadError::Damaged {
            key: self.key.clone(),
            what,
        }
    }
}
