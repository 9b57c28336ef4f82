//! Where documents are kept, and what makes "seen" and "saved" true. The rules, which the tests carry by their numbers:
//!
#![doc = include_str!("STORAGE.md")]

pub mod committer;
pub mod compaction;
pub mod data_dir;
pub mod faulty;
pub mod journal;
pub mod mark;
pub mod memory;
mod packed;
pub mod replay;
pub mod segment;
pub mod sqlite;

use std::error::Error;
use std::fmt::Debug;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::ids::{DocumentKey, Epoch, Origin};
use crate::protocol::position::Position;

pub use self::committer::Committer;
pub use self::compaction::{CompactError, CompactOutcome, Compaction};
pub use self::data_dir::DataDir;
pub use self::journal::Journal;
pub use self::mark::DurableMark;
pub use self::replay::replay;
pub use self::segment::ListedSegment;

/// A store's answer: boxed, so that the trait can be used as `dyn`.
pub type StoreFuture<'a, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// The largest sequence that every store can hold: SQL has signed 64-bit integers only.
pub const SEQUENCE_MAX: u64 = i64::MAX as u64;

/// One accepted update, as it is journalled and stored (STORAGE.md, ST1). The bytes are the update as it was relayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRow {
    /// The document.
    pub key: DocumentKey,
    /// The history that the update belongs to; a row of another epoch than the document's is refused.
    pub epoch: Epoch,
    /// The incarnation of the node that took the update from its author.
    pub origin: Origin,
    /// Grows per (origin, document), from 1 to [`SEQUENCE_MAX`].
    pub sequence: u64,
    /// The user id of the author.
    pub author: Arc<str>,
    /// When it was accepted, milliseconds since 1970 by the node's clock; for people, nothing is ordered by it.
    pub time_ms: u64,
    /// The update, Yjs encoding v1.
    pub update: Bytes,
}

/// What may be done with a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentState {
    /// Readable and writable.
    Live,
    /// Readable; the server refuses edits.
    ReadOnly,
    /// Gone; the row is a tombstone that remembers the epoch (ST9).
    Deleted,
    /// Set aside by an operator: nobody but an administrator opens it.
    Quarantined,
}

impl DocumentState {
    /// The number in the database. Assigned once and for ever.
    pub const fn number(self) -> i64 {
        match self {
            Self::Live => 1,
            Self::ReadOnly => 2,
            Self::Deleted => 3,
            Self::Quarantined => 4,
        }
    }

    /// From the number in the database.
    pub const fn from_number(number: i64) -> Option<Self> {
        match number {
            1 => Some(Self::Live),
            2 => Some(Self::ReadOnly),
            3 => Some(Self::Deleted),
            4 => Some(Self::Quarantined),
            _ => None,
        }
    }
}

/// A document as it stood at one instant (ST4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The history that the rest belongs to.
    pub epoch: Epoch,
    /// What may be done with it. Deleted documents have neither snapshot nor rows.
    pub state: DocumentState,
    /// The version of the snapshot, 0 when there is none: what a compaction compares.
    pub version: u64,
    /// The merged state, one Yjs update v1.
    pub snapshot: Option<Bytes>,
    /// The digest that came with the snapshot; empty when there is none.
    pub digest: Bytes,
    /// What the snapshot contains. A row below it may still be in `rows` (it was committed while the snapshot was
    /// merged): whoever applies the rows applies all of them.
    pub folded: Position,
    /// The log, ascending by (origin, sequence), which is not the order of arrival: updates commute.
    pub rows: Vec<LogRow>,
}

/// What became of the rows of one append.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppendOutcome {
    /// The rows that are not stored and never will be, ascending by index. All others are stored.
    pub refused: Vec<Refused>,
}

/// A row that the store would not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Its place in the slice that was handed over.
    pub index: usize,
    /// Why.
    pub why: Refusal,
}

/// Why a store would not take a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The document was wiped and made again.
    #[error("the document was replaced; its epoch is now {0}")]
    Replaced(Epoch),
    /// The document was deleted.
    #[error("the document was deleted")]
    Deleted,
    /// The store has no such document: it was never loaded from this store.
    #[error("the store does not know the document")]
    Unknown,
    /// The sequence is 0 or above [`SEQUENCE_MAX`].
    #[error("the sequence is out of range")]
    Sequence,
}

/// Why a row may not be stored in a document of this epoch and state; `None` when it may. Shared by the stores.
fn refusal(row: &LogRow, document: Option<(Epoch, DocumentState)>) -> Option<Refusal> {
    let Some((epoch, state)) = document else {
        return Some(Refusal::Unknown);
    };
    if state == DocumentState::Deleted {
        Some(Refusal::Deleted)
    } else if row.epoch != epoch {
        Some(Refusal::Replaced(epoch))
    } else if row.sequence == 0 || row.sequence > SEQUENCE_MAX {
        Some(Refusal::Sequence)
    } else {
        None
    }
}

/// The database did not do what it was asked to. Whether it happened nevertheless is unknown.
#[derive(Debug, thiserror::Error)]
#[error("the database failed: {source}")]
pub struct Failure {
    /// What the database's driver said.
    pub source: Box<dyn Error + Send + Sync>,
}

impl Failure {
    /// From whatever a driver reports.
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            source: source.into(),
        }
    }
}

/// Why a document could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The database did not answer; trying again may help.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// What the database holds cannot be read; trying again does not help.
    #[error("the stored document {key} is damaged: {what}")]
    Damaged {
        /// The document.
        key: DocumentKey,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A history segment cannot be read; trying again does not help. The document itself is not concerned.
    #[error("history segment {number} of the document {key} is damaged: {source}")]
    Segment {
        /// The document.
        key: DocumentKey,
        /// The segment's number.
        number: u64,
        /// What is wrong with it.
        source: Box<segment::SegmentError>,
    },
}

impl LoadError {
    fn segment(key: &DocumentKey, number: u64, source: segment::SegmentError) -> Self {
        Self::Segment {
            key: key.clone(),
            number,
            source: source.into(),
        }
    }
}

/// Why an append is not known to have happened. It is always right to try again with the same rows (ST3).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The disk under the database is full; nothing was stored.
    #[error("the disk under the database is full")]
    DiskFull,
    /// The database did not answer, or answered with an error.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Why a document was not deleted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeleteError {
    /// There is no such document.
    #[error("the document does not exist")]
    NotFound,
    /// The database did not answer.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Why a document was not made again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecreateError {
    /// The document is not deleted (or never existed): there is nothing to make again.
    #[error("the document is not deleted")]
    NotDeleted,
    /// The new epoch is the tombstone's: a client of the old history would be let in.
    #[error("the new epoch is the old one")]
    SameEpoch,
    /// The database did not answer.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Where documents are kept. Every implementation passes the same contract suite (`tests/contract`).
///
/// Dropping a returned future before it is ready leaves the outcome unknown, never half done.
pub trait DocStore: Send + Sync + Debug + 'static {
    /// Reads a document in one snapshot (ST4). One that does not exist is created with `epoch_if_new` and durably so;
    /// of racing creations one wins and all see its epoch (ST5). A tombstone is returned as such, not brought back.
    fn load<'a>(
        &'a self,
        key: &'a DocumentKey,
        epoch_if_new: Epoch,
    ) -> StoreFuture<'a, Loaded, LoadError>;

    /// Stores the rows of many documents in one transaction. When it returns `Ok` every row that is not named in the
    /// outcome is durable (ST2). Rows that are there already are left as they are (ST3).
    fn append<'a>(&'a self, rows: &'a [LogRow]) -> StoreFuture<'a, AppendOutcome, AppendError>;

    /// Puts a new snapshot in the place of rows, in one transaction (ST41).
    fn compact<'a>(
        &'a self,
        compaction: &'a Compaction,
    ) -> StoreFuture<'a, CompactOutcome, CompactError>;

    /// The history segments of a document, ascending by number (ST50). None for a document that does not exist.
    fn segments<'a>(
        &'a self,
        key: &'a DocumentKey,
    ) -> StoreFuture<'a, Vec<ListedSegment>, LoadError>;

    /// The rows of one segment, ascending by (origin, sequence); `None` when there is no such segment.
    fn read_segment<'a>(
        &'a self,
        key: &'a DocumentKey,
        number: u64,
    ) -> StoreFuture<'a, Option<Vec<LogRow>>, LoadError>;

    /// Removes the content and leaves a tombstone with the epoch (ST9). Deleting a deleted document is no error.
    /// Returns the epoch that the tombstone remembers.
    fn delete<'a>(&'a self, key: &'a DocumentKey) -> StoreFuture<'a, Epoch, DeleteError>;

    /// Makes a deleted document again, empty, with a new epoch (ST9).
    fn recreate<'a>(
        &'a self,
        key: &'a DocumentKey,
        epoch: Epoch,
    ) -> StoreFuture<'a, (), RecreateError>;

    /// Whether the store can read and write now.
    fn ping(&self) -> StoreFuture<'_, (), Failure>;

    /// Finishes what is running and closes the files. Calls after it fail.
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// Why a store could not be opened. The text is for the person who started the server: what is wrong and how to mend it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The URL is of no kind that this binary knows.
    #[error("the store {0:?} is not understood: use sqlite:PATH or memory:")]
    UnknownUrl(String),
    /// The file's schema was written by a later version.
    #[error(
        "the database {} was written by a newer syncline (its schema is {found}, this binary knows up to {known}): start the newer version, or restore a backup made before the upgrade", path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The schema version in the file.
        found: i64,
        /// The newest schema version that this binary knows.
        known: i64,
    },
    /// The file is a database of another program.
    #[error("{} is an SQLite database of another program: choose another path with --store sqlite:PATH", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file is not an SQLite database at all.
    #[error("{} is not an SQLite database: choose another path with --store sqlite:PATH, or restore the file from a backup if it was one", path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// The file or its directory cannot be written.
    #[error("the database {} is not writable: give this user write access to the file and its directory, or choose another path with --store sqlite:PATH", path.display())]
    NotWritable {
        /// The file.
        path: PathBuf,
    },
    /// Another process has it.
    #[error("the database {} is in use by another process: stop the other server, or choose another path with --store sqlite:PATH", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be opened or created.
    #[error("the database {} cannot be opened ({source}): check that its directory exists and that the path is a file", path.display())]
    CannotOpen {
        /// The file.
        path: PathBuf,
        /// What the system or the driver said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A migration failed; the schema is as it was.
    #[error("the schema of the database {} cannot be brought up to date ({source}): restore a backup, or report this", path.display())]
    Migrate {
        /// The file.
        path: PathBuf,
        /// What the driver said.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Opens the store that a URL names: `sqlite:PATH` (the file is created, its directory is not) or `memory:` (gone when
/// the process ends). Migrations run here.
pub async fn open(url: &str) -> Result<Arc<dyn DocStore>, OpenError> {
    match url.split_once(':') {
        Some(("memory", "")) => Ok(Arc::new(memory::Store::new())),
        Some(("sqlite", path)) if !path.is_empty() && !path.starts_with(':') => {
            let path = path.strip_prefix("//").unwrap_or(path);
            Ok(Arc::new(sqlite::Store::open(path.as_ref()).await?))
        }
        _ => Err(OpenError::UnknownUrl(url.to_owned())),
    }
}
