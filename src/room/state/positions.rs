//! What a reader's position is worth after compactions, and how members learn what a compaction changed (STORAGE.md, ST44).

use std::time::Instant;

use bytes::Bytes;

use super::State;
use crate::doc::{AdoptError, Scanned, merge};
use crate::ids::Origin;
use crate::protocol::position::Position;
use crate::store::compaction::is_generation;

/// An update without structs and deletions.
const EMPTY_UPDATE: &[u8] = &[0, 0];

impl State {
    /// The part of a reader's position that this document knows of: origins are dropped from snapshots in time, and a
    /// reader that holds on to them lacks nothing for it. `None` when it tells of a generation that is not known here: it
    /// was given by a room that did not trust its log, or is older than what is remembered (ST44).
    pub(super) fn known_of(&self, position: &Position) -> Option<Position> {
        let known = self.document.position();
        let is_known = |origin| known.get(origin) > 0;
        position
            .entries()
            .all(|(origin, _)| is_known(origin) || !is_generation(origin))
            .then(|| {
                let entries = position.entries();
                entries.filter(|(origin, _)| is_known(*origin)).collect()
            })
    }

    /// The store's snapshot is a new one. What it has and the room lacks (deletions that collecting found) is news for
    /// everybody; it has its place already, in the snapshot's position, and is not logged. What was collected is dropped
    /// from memory too.
    pub(super) fn compacted(
        &mut self,
        snapshot: &Scanned,
        generation: Option<(Origin, u64)>,
        now: Instant,
    ) {
        let growth = match self.document.adopt(snapshot) {
            Ok(adopted) => adopted.growth,
            // Rows of another node are in it: they are news here like any other.
            Err(AdoptError::NotOurs) => {
                let Ok(admission) = self.document.admit(snapshot, now) else {
                    // Larger than a document may be with it: kept, and not taken in. Nobody is told that they have it.
                    return;
                };
                self.settle_parked(&admission.resolved);
                self.drop_parked(&admission.dropped);
                let news: Vec<Bytes> = admission.all_news().cloned().collect();
                (!news.is_empty())
                    .then(|| merge(&news).expect("news was walked when it was admitted"))
            }
        };
        match (growth, generation) {
            (growth, Some((origin, sequence))) => {
                // Also without growth: whoever is here has everything that the generation stands for.
                let bytes = growth.unwrap_or(Bytes::from_static(EMPTY_UPDATE));
                self.push_and_relay(origin, sequence, bytes, None);
            }
            (Some(growth), None) => self.log_and_relay(growth, &"".into(), None),
            (None, None) => {}
        }
    }
}
