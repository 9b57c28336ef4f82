//! Everything that changes the file. Each function is one transaction on the one writing connection; dropping it, or a
//! failure, rolls back.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use sqlx::sqlite::{SqliteConnection, SqlitePool};
use sqlx::{AssertSqlSafe, Sqlite, Transaction};

use crate::ids::{DocumentKey, Epoch};

use super::super::{
    AppendError, AppendOutcome, DeleteError, DocumentState, Failure, LogRow, RecreateError,
    Refusal, Refused, refusal,
};

/// Rows of one INSERT, largest first. A batch is cut into these sizes, so that eight statements, compiled once, serve
/// every batch; the largest stays far below SQLite's 32,766 parameters.
const INSERT_SIZES: [usize; 8] = [128, 64, 32, 16, 8, 4, 2, 1];

/// The statement for each of the sizes.
static INSERTS: LazyLock<[Arc<str>; 8]> = LazyLock::new(|| {
    INSERT_SIZES.map(|n| {
        let rows = vec!["(?,?,?,?,?,?,?,?)"; n].join(",");
        format!(
            "INSERT INTO log (org, document, origin, sequence, epoch, author, time_ms, update_data) \
             VALUES {rows} ON CONFLICT DO NOTHING"
        )
        .into()
    })
});

/// A document as the log rows refer to it.
#[derive(Debug, Clone, Copy)]
struct Found {
    id: i64,
    epoch: Epoch,
    state: DocumentState,
}

pub(super) async fn begin(
    writer: &SqlitePool,
) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
    writer.begin_with("BEGIN IMMEDIATE").await
}

/// Creates a document unless it is there.
pub(super) async fn create(
    writer: &SqlitePool,
    key: &DocumentKey,
    epoch: Epoch,
) -> Result<(), sqlx::Error> {
    let mut transaction = begin(writer).await?;
    sqlx::query(
        "INSERT INTO documents (org, name, epoch, state) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (org, name) DO NOTHING",
    )
    .bind(key.org.as_str())
    .bind(key.name.as_str())
    .bind(&epoch.as_bytes()[..])
    .bind(DocumentState::Live.number())
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await
}

/// Appends the rows that may be appended.
pub(super) async fn append(
    writer: &SqlitePool,
    rows: &[LogRow],
) -> Result<AppendOutcome, AppendError> {
    let mut outcome = AppendOutcome::default();
    if rows.is_empty() {
        return Ok(outcome);
    }
    let mut transaction = begin(writer).await?;
    let documents = find(&mut transaction, rows).await?;
    let mut accepted = Vec::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        let found = documents.get(&row.key).copied();
        let facts = found.map(|found| (found.epoch, found.state));
        match (refusal(row, facts), found) {
            (None, Some(found)) => accepted.push((found.id, row)),
            (why, _) => outcome.refused.push(Refused {
                index,
                why: why.unwrap_or(Refusal::Unknown),
            }),
        }
    }
    insert(&mut transaction, &accepted).await?;
    transaction.commit().await?;
    Ok(outcome)
}

/// The documents of the rows, in one query: their names go over as JSON.
async fn find<'a>(
    connection: &mut SqliteConnection,
    rows: &'a [LogRow],
) -> Result<HashMap<&'a DocumentKey, Found>, AppendError> {
    let mut keys: Vec<&DocumentKey> = rows.iter().map(|row| &row.key).collect();
    keys.sort_unstable();
    keys.dedup();
    let names: Vec<[&str; 2]> = keys
        .iter()
        .map(|key| [key.org.as_str(), key.name.as_str()])
        .collect();
    let names = serde_json::to_string(&names).expect("strings are JSON");
    let found: Vec<(i64, i64, Vec<u8>, i64)> = sqlx::query_as(
        "SELECT wanted.key, documents.id, documents.epoch, documents.state
         FROM json_each(?1) AS wanted
         JOIN documents ON documents.org = wanted.value ->> 0 AND documents.name = wanted.value ->> 1",
    )
    .bind(names)
    .fetch_all(connection)
    .await?;
    found
        .into_iter()
        .map(|(index, id, epoch, state)| {
            let key = usize::try_from(index)
                .ok()
                .and_then(|index| keys.get(index));
            let document = Epoch::from_slice(&epoch)
                .zip(DocumentState::from_number(state))
                .map(|(epoch, state)| Found { id, epoch, state });
            // The schema checks both. Taking the document for unknown would refuse its edits for good.
            key.copied()
                .zip(document)
                .ok_or_else(|| Failure::new("a row of the table of documents is malformed").into())
        })
        .collect()
}

async fn insert(
    connection: &mut SqliteConnection,
    mut rows: &[(i64, &LogRow)],
) -> Result<(), sqlx::Error> {
    for (size, statement) in INSERT_SIZES.into_iter().zip(INSERTS.iter()) {
        while let Some((now, rest)) = rows.split_at_checked(size) {
            let mut query = sqlx::query(AssertSqlSafe(Arc::clone(statement)));
            for (document, row) in now {
                query = query
                    .bind(row.key.org.as_str())
                    .bind(*document)
                    .bind(&row.origin.as_bytes()[..])
                    // `refusal` has seen to the range of the sequence; a clock beyond it is no time at all.
                    .bind(i64::try_from(row.sequence).unwrap_or(i64::MAX))
                    .bind(&row.epoch.as_bytes()[..])
                    .bind(Arc::clone(&row.author))
                    .bind(i64::try_from(row.time_ms).unwrap_or(i64::MAX))
                    .bind(&row.update[..]);
            }
            query.execute(&mut *connection).await?;
            rows = rest;
        }
    }
    Ok(())
}

/// Removes the content, leaves the tombstone.
pub(super) async fn delete(writer: &SqlitePool, key: &DocumentKey) -> Result<Epoch, DeleteError> {
    let mut transaction = begin(writer).await?;
    let found: Option<(i64, Vec<u8>)> = sqlx::query_as(
        "UPDATE documents SET state = ?3 WHERE org = ?1 AND name = ?2 RETURNING id, epoch",
    )
    .bind(key.org.as_str())
    .bind(key.name.as_str())
    .bind(DocumentState::Deleted.number())
    .fetch_optional(&mut *transaction)
    .await?;
    let (id, epoch) = found.ok_or(DeleteError::NotFound)?;
    for statement in [
        "DELETE FROM log WHERE org = ?1 AND document = ?2",
        "DELETE FROM snapshots WHERE org = ?1 AND document = ?2",
        "DELETE FROM snapshot_chunks WHERE org = ?1 AND document = ?2",
        "DELETE FROM segments WHERE org = ?1 AND document = ?2",
    ] {
        sqlx::query(statement)
            .bind(key.org.as_str())
            .bind(id)
            .execute(&mut *transaction)
            .await?;
    }
    let epoch =
        Epoch::from_slice(&epoch).expect("the schema checks that an epoch has sixteen bytes");
    transaction.commit().await?;
    Ok(epoch)
}

/// A tombstone becomes an empty document with another epoch.
pub(super) async fn recreate(
    writer: &SqlitePool,
    key: &DocumentKey,
    epoch: Epoch,
) -> Result<(), RecreateError> {
    let mut transaction = begin(writer).await?;
    let old: Option<Vec<u8>> = sqlx::query_scalar(
        "SELECT epoch FROM documents WHERE org = ?1 AND name = ?2 AND state = ?3",
    )
    .bind(key.org.as_str())
    .bind(key.name.as_str())
    .bind(DocumentState::Deleted.number())
    .fetch_optional(&mut *transaction)
    .await?;
    let old = old.ok_or(RecreateError::NotDeleted)?;
    if old == epoch.as_bytes() {
        return Err(RecreateError::SameEpoch);
    }
    sqlx::query("UPDATE documents SET epoch = ?3, state = ?4 WHERE org = ?1 AND name = ?2")
        .bind(key.org.as_str())
        .bind(key.name.as_str())
        .bind(&epoch.as_bytes()[..])
        .bind(DocumentState::Live.number())
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(())
}
