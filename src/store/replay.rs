//! What an older incarnation had journalled and not committed goes into the store at start, under its old keys
//! (STORAGE.md, ST24). Run it before any room is opened: a room must load what people saw before the crash.

use std::path::PathBuf;

use super::journal::{self, Damage, Journal, OldSegment, Replay};
use super::{AppendError, DocStore, Refusal};

/// Rows in one transaction: large enough that the commit does not count, small enough that a failed one is soon redone.
const BATCH_ROWS: usize = 1_000;

/// What a replay did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Segments read.
    pub n_segments: usize,
    /// Rows that are in the store now, most of which may have been there before.
    pub n_rows: usize,
    /// Rows of documents that were deleted or replaced meanwhile; they are gone with their documents.
    pub n_outdated: usize,
    /// Rows that the store would not take: it does not know their documents. Their segments were set aside.
    pub n_unplaced: usize,
    /// Damaged segments, and how. Torn ones are normal after a crash.
    pub damaged: Vec<(PathBuf, Damage)>,
    /// Files that left the journal without all their rows in the store, for a person to look at.
    pub set_aside: Vec<PathBuf>,
}

/// Why a replay stopped. The journal is as it was, but for the segments that were done; start again to go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// A segment could not be read.
    #[error(transparent)]
    Read(#[from] journal::OpenError),
    /// The store did not take the rows.
    #[error("replay the journal: {0}")]
    Append(#[from] AppendError),
}

/// Stores every row of older incarnations and deletes the segments that are done. Nothing is dropped in silence: what
/// could not be read or placed stays in files that the report and the log name.
pub async fn replay(
    journal: &Journal,
    left: Replay,
    store: &dyn DocStore,
) -> Result<Report, ReplayError> {
    let mut report = Report::default();
    for old in left {
        let old = old?;
        let n_unplaced = store_rows(&old, store, &mut report).await?;
        report.n_segments += 1;
        let suffix = match old.damage {
            Some(Damage::Corrupt { .. }) => Some("damaged"),
            Some(Damage::Torn { .. }) | None => (n_unplaced > 0).then_some("unplaced"),
        };
        let aside = journal.finish(old.segment, suffix);
        note(&old, n_unplaced, aside, &mut report);
    }
    Ok(report)
}

/// Returns how many rows have no document in this store.
async fn store_rows(
    old: &OldSegment,
    store: &dyn DocStore,
    report: &mut Report,
) -> Result<usize, AppendError> {
    let mut n_unplaced = 0;
    for rows in old.rows.chunks(BATCH_ROWS) {
        let refused = store.append(rows).await?.refused;
        report.n_rows += rows.len() - refused.len();
        for refused in refused {
            match refused.why {
                Refusal::Replaced(_) | Refusal::Deleted => report.n_outdated += 1,
                Refusal::Unknown | Refusal::Sequence => n_unplaced += 1,
            }
        }
    }
    report.n_unplaced += n_unplaced;
    Ok(n_unplaced)
}

fn note(old: &OldSegment, n_unplaced: usize, aside: Option<PathBuf>, report: &mut Report) {
    let n_rows = old.rows.len();
    match old.damage {
        Some(damage @ Damage::Corrupt { .. }) => {
            tracing::error!(path = %old.path.display(), n_rows, kept = ?aside, "journal: {damage}");
        }
        Some(damage @ Damage::Torn { .. }) => {
            tracing::info!(path = %old.path.display(), n_rows, "journal: {damage}");
        }
        None => {}
    }
    if n_unplaced > 0 {
        tracing::error!(path = %old.path.display(), n_unplaced, kept = ?aside,
            "journal: edits of documents that this database does not know were set aside; is it the right database?");
    }
    if let Some(damage) = old.damage {
        report.damaged.push((old.path.clone(), damage));
    }
    report.set_aside.extend(aside);
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
