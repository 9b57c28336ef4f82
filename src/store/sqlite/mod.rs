//! The embedded store: one SQLite file (STORAGE.md, section 6).
//!
//! WAL with `synchronous=FULL`: a commit is an fsync of the log, readers do not wait for the writer, and each reader sees
//! one snapshot. One connection writes, with `BEGIN IMMEDIATE`, so that no transaction finds out at its end that another
//! was faster. No type of the driver leaves this folder.

mod compact;
mod history;
mod load;
mod open;
mod write;

use std::fs::File;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use sqlx::sqlite::SqlitePool;

use crate::ids::{DocumentKey, Epoch};

use super::{
    AppendError, AppendOutcome, CompactError, CompactOutcome, Compaction, DeleteError, DocStore,
    Failure, ListedSegment, LoadError, Loaded, LogRow, OpenError, RecreateError, StoreFuture,
};

/// The primary result code of SQLite for a full disk.
const SQLITE_FULL: i32 = 13;

/// Documents in an SQLite file.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// One connection: SQLite has one writer at a time, and waiting in this pool is fair, which its lock is not.
    writer: SqlitePool,
    readers: SqlitePool,
    // Held until `close`. A std mutex: taken once.
    lock: Mutex<Option<File>>,
}

impl Store {
    /// Opens the file, creates it when it is missing, and brings its schema up to date. Its directory must exist.
    /// Beside it stands `<file>.lock`, which keeps a second server out.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        let opened = open::open(path).await?;
        Ok(Self {
            path: path.to_owned(),
            writer: opened.writer,
            readers: opened.readers,
            lock: Mutex::new(Some(opened.lock)),
        })
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::new(error)
    }
}

impl From<sqlx::Error> for LoadError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<sqlx::Error> for AppendError {
    fn from(error: sqlx::Error) -> Self {
        match primary_code(&error) {
            Some(SQLITE_FULL) => Self::DiskFull,
            _ => Self::Failed(error.into()),
        }
    }
}

impl From<sqlx::Error> for CompactError {
    fn from(error: sqlx::Error) -> Self {
        match primary_code(&error) {
            Some(SQLITE_FULL) => Self::DiskFull,
            _ => Self::Failed(error.into()),
        }
    }
}

impl From<sqlx::Error> for DeleteError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<sqlx::Error> for RecreateError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// SQLite's primary result code: the low byte of the extended one, which is what the driver reports.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

impl DocStore for Store {
    fn load<'a>(
        &'a self,
        key: &'a DocumentKey,
        epoch_if_new: Epoch,
    ) -> StoreFuture<'a, Loaded, LoadError> {
        Box::pin(async move {
            if let Some(loaded) = load::load(&self.readers, key).await? {
                return Ok(loaded);
            }
            write::create(&self.writer, key, epoch_if_new).await?;
            // Whoever created it, it is there now, and it is never removed.
            load::load(&self.readers, key)
                .await?
                .ok_or_else(|| LoadError::Damaged {
                    key: key.clone(),
                    what: "it vanished after it was created",
                })
        })
    }

    fn append<'a>(&'a self, rows: &'a [LogRow]) -> StoreFuture<'a, AppendOutcome, AppendError> {
        Box::pin(write::append(&self.writer, rows))
    }

    fn compact<'a>(
        &'a self,
        compaction: &'a Compaction,
    ) -> StoreFuture<'a, CompactOutcome, CompactError> {
        Box::pin(compact::compact(&self.writer, compaction))
    }

    fn segments<'a>(
        &'a self,
        key: &'a DocumentKey,
    ) -> StoreFuture<'a, Vec<ListedSegment>, LoadError> {
        Box::pin(history::list(&self.readers, key))
    }

    fn read_segment<'a>(
        &'a self,
        key: &'a DocumentKey,
        number: u64,
    ) -> StoreFuture<'a, Option<Vec<LogRow>>, LoadError> {
        Box::pin(history::read(&self.readers, key, number))
    }

    fn delete<'a>(&'a self, key: &'a DocumentKey) -> StoreFuture<'a, Epoch, DeleteError> {
        Box::pin(write::delete(&self.writer, key))
    }

    fn recreate<'a>(
        &'a self,
        key: &'a DocumentKey,
        epoch: Epoch,
    ) -> StoreFuture<'a, (), RecreateError> {
        Box::pin(write::recreate(&self.writer, key, epoch))
    }

    fn ping(&self) -> StoreFuture<'_, (), Failure> {
        Box::pin(async move {
            sqlx::query("SELECT 1").execute(&self.readers).await?;
            // Takes the write lock and gives it back: costs no fsync.
            let transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
            Ok(transaction.rollback().await?)
        })
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            // The writer last: the last connection folds the write-ahead log into the file.
            self.readers.close().await;
            self.writer.close().await;
            self.lock
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
        })
    }
}

#[cfg(test)]
#[path = "sqlite_tests.rs"]
mod tests;
