//! What a compaction asks of a store, and what becomes of a document's position in it (STORAGE.md, sections 2 and 7).

use bytes::Bytes;

use super::Failure;
use super::segment::SealedSegment;
use crate::ids::{DocumentKey, Epoch, Origin};
use crate::protocol::position::Position;

/// The most origins that the position of a snapshot keeps. Sixty-four are a kilobyte in every handshake, and many restarts.
pub const FOLDED_ORIGINS_MAX: usize = 64;

/// What the origin of a generation begins with. A node's origin that did so by chance would only be trusted less.
const GENERATION_PREFIX: &[u8] = b"gen";

/// An origin for what is in snapshots and is no row (ST44).
pub fn draw_generation() -> Origin {
    let mut bytes = *Origin::random().as_bytes();
    bytes[..GENERATION_PREFIX.len()].copy_from_slice(GENERATION_PREFIX);
    Origin::from_bytes(bytes)
}

/// Whether an origin was drawn for what is no row.
pub fn is_generation(origin: Origin) -> bool {
    origin.as_bytes().starts_with(GENERATION_PREFIX)
}

/// A new snapshot in the place of rows: everything that one transaction has to do, or nothing of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compaction {
    /// The document.
    pub key: DocumentKey,
    /// The history that was read.
    pub epoch: Epoch,
    /// The version of the snapshot that was read, 0 when there was none. Another one in the store: raced.
    pub base_version: u64,
    /// The merged state, one Yjs update v1.
    pub snapshot: Bytes,
    /// What it folds in: [`fold`].
    pub folded: Position,
    /// The digest of its content, opaque here; empty when there is none.
    pub digest: Bytes,
    /// The keys of the rows that it holds and `segments` keep: exactly these leave the log.
    pub rows: Vec<(Origin, u64)>,
    /// Those rows, for keeping.
    pub segments: Vec<SealedSegment>,
    /// When it was made, milliseconds since 1970; for people.
    pub time_ms: u64,
}

/// What became of a compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompactOutcome {
    /// It is the snapshot now, and durably so.
    Done {
        /// The snapshot's version.
        version: u64,
    },
    /// Somebody else compacted, deleted or replaced the document meanwhile; nothing was changed. Read it anew.
    Raced,
}

/// Why a compaction is not known to have happened. Trying the same one again is harmless: if it did, it is told `Raced`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompactError {
    /// The disk under the database is full; nothing was stored.
    #[error("the disk under the database is full")]
    DiskFull,
    /// The database did not answer, or answered with an error.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// The position of a new snapshot, and whether it begins a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folding {
    /// What the snapshot folds in.
    pub folded: Position,
    /// Whether `folded` holds the generation that was offered: a reader whose position lacks it is not served from the
    /// log, but by its state vector.
    pub is_new_generation: bool,
}

/// The position of a snapshot that folds `rows` into one at `before` (ST44).
///
/// `generation` is a place that no row ever had: an origin of [`draw_generation`] and the next number of it. It is put
/// into the position when old positions must not be trusted any more: because the snapshot holds something that is no
/// row (`has_growth`), because a row turned up below a position that readers were given already, or because origins
/// without rows were dropped, for which it stands from now on. `own` is never dropped: its node counts on from it.
pub fn fold(
    before: &Position,
    rows: &[(Origin, u64)],
    own: Origin,
    has_growth: bool,
    generation: (Origin, u64),
) -> Folding {
    let is_late = rows
        .iter()
        .any(|(origin, sequence)| *sequence <= before.get(*origin));
    let mut folded = before.clone();
    let mut of_rows = Position::new();
    for (origin, sequence) in rows {
        of_rows.advance(*origin, *sequence);
    }
    folded.merge_max(&of_rows);
    let has_too_many = folded.n_entries() > FOLDED_ORIGINS_MAX;
    if has_too_many {
        folded = folded
            .entries()
            .filter(|(origin, _)| *origin == own || of_rows.get(*origin) > 0)
            .collect();
    }
    let is_new_generation = has_growth || is_late || has_too_many;
    if is_new_generation {
        folded.advance(generation.0, generation.1);
    }
    Folding {
        folded,
        is_new_generation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Origin = Origin::from_bytes([1; 8]);
    const OTHER: Origin = Origin::from_bytes([2; 8]);
    const GENERATION: (Origin, u64) = (Origin::from_bytes(*b"generate"), 3);

    fn position(entries: &[(Origin, u64)]) -> Position {
        entries.iter().copied().collect()
    }

    #[test]
    fn st44_a_position_grows_by_the_rows_and_stays_valid() {
        let before = position(&[(OWN, 7)]);
        let folding = fold(
            &before,
            &[(OWN, 8), (OWN, 9), (OTHER, 1)],
            OWN,
            false,
            GENERATION,
        );
        assert_eq!(folding.folded, position(&[(OWN, 9), (OTHER, 1)]));
        assert!(!folding.is_new_generation);
        assert!(folding.folded.covers(&before));
    }

    #[test]
    fn st44_growth_and_late_rows_begin_a_generation() {
        let before = position(&[(OWN, 7)]);
        for (row, has_growth) in [((OWN, 8), true), ((OWN, 6), false), ((OWN, 7), false)] {
            let folding = fold(&before, &[row], OWN, has_growth, GENERATION);
            assert!(folding.is_new_generation);
            assert_eq!(folding.folded.get(GENERATION.0), 3);
            // Nobody who was told only of rows has everything.
            assert!(!position(&[(OWN, 99)]).covers(&folding.folded));
        }
    }

    #[test]
    fn st44_dead_origins_are_dropped_for_a_generation_and_never_the_own_one() {
        let mut before = position(&[(OWN, 7)]);
        for number in 0..FOLDED_ORIGINS_MAX as u64 - 1 {
            before.advance(Origin::from_bytes((100 + number).to_be_bytes()), 5);
        }
        let kept = fold(&before, &[(OWN, 8)], OWN, false, GENERATION);
        assert_eq!(kept.folded.n_entries(), FOLDED_ORIGINS_MAX);
        assert!(!kept.is_new_generation);
        let dropped = fold(&before, &[(OTHER, 1)], OWN, false, GENERATION);
        assert!(dropped.is_new_generation);
        assert_eq!(
            dropped.folded,
            position(&[(OWN, 7), (OTHER, 1), GENERATION])
        );
        // A reader of before is not taken for one who has everything.
        before.advance(OTHER, 1);
        assert!(!before.covers(&dropped.folded));
    }
}
