//! What a document gives to readers who hold part of it, and what it tells of those who may only read.

use bytes::Bytes;

use super::{Document, Since, WALKED};
use crate::doc::delete_index::DeletedRange;
use crate::doc::merge::merge_scanned;
use crate::doc::scan::{Scanned, rescan};
use crate::ids::Origin;
use crate::protocol::position::Position;

impl Document {
    /// What a reader at `position` lacks, as one update; empty bytes when it lacks nothing. `None` when the tail does not
    /// reach back that far, or the position tells of updates that this document never had (a crash lost them): then only
    /// a state vector can say what the reader lacks.
    pub fn since(&mut self, position: &Position) -> Option<Bytes> {
        if !position.covers(&self.base) || !self.position.covers(position) {
            return None;
        }
        if let Some(since) = &self.since
            && since.position == *position
        {
            return Some(since.answer.clone());
        }
        let mut last: Option<(Origin, u64)> = None;
        let mut lacking = self.tail.iter().filter(|update| {
            let seen = match last {
                Some((origin, seen)) if origin == update.origin => seen,
                _ => position.get(update.origin),
            };
            last = Some((update.origin, seen));
            update.sequence > seen
        });
        let answer = match (lacking.next(), lacking.next()) {
            (None, _) => Bytes::new(),
            (Some(only), None) => only.bytes.clone(),
            (Some(first), Some(second)) => {
                let scanned: Vec<Scanned> = [first, second]
                    .into_iter()
                    .chain(lacking)
                    .map(|update| rescan(&update.bytes).expect(WALKED))
                    .collect();
                merge_scanned(&scanned).expect(WALKED)
            }
        };
        self.since = Some(Since {
            position: position.clone(),
            answer: answer.clone(),
        });
        Some(answer)
    }

    /// What came after the first `n` pushes, as one update: for a reader whose queue was dropped. `None` when the tail does
    /// not reach back that far; then [`full`](Self::full) is what it needs.
    pub fn since_push(&mut self, n: u64) -> Option<Bytes> {
        if let Some((for_push, answer)) = &self.since_push
            && *for_push == n
        {
            return Some(answer.clone());
        }
        let n_lacking = usize::try_from(self.n_pushed.checked_sub(n)?).ok()?;
        let from = self.tail.len().checked_sub(n_lacking)?;
        let scanned: Vec<Scanned> = self
            .tail
            .range(from..)
            .map(|update| rescan(&update.bytes).expect(WALKED))
            .collect();
        let answer = merge_scanned(&scanned).expect(WALKED);
        self.since_push = Some((n, answer.clone()));
        Some(answer)
    }

    /// Whether an update would bring anything, for members who may not bring anything. Nothing changes. A garbage-collected
    /// struct over known content counts as nothing here: whoever may only read deletes nothing by it.
    pub fn has_news(&self, update: &Scanned) -> bool {
        let has_structs = update
            .sections()
            .iter()
            .any(|section| u64::from(section.end) > self.ledger.state.get(section.client));
        let mut has_deletes = false;
        update.for_each_delete(|client, start, end| {
            has_deletes |= !self
                .ledger
                .deletes
                .covers(DeletedRange { client, start, end });
        });
        has_structs || has_deletes
    }
}
