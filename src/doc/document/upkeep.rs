//! What the upkeep of a room asks of its document, beside the edits that go on: to take in the collected state that a
//! worker's answer led to, and to say its digest.

use bytes::Bytes;

use super::{Document, WALKED};
use crate::doc::delete_index::{DeletedRange, delete_only_update};
use crate::doc::digest::{ContentSum, Digest};
use crate::doc::merge::{Source, merge_sources};
use crate::doc::scan::{Scanned, rescan};
use crate::doc::snapshot::Snapshot;

/// A delete set of nothing.
const NO_DELETES: &[u8] = &[0];

/// What adopting a collected state brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Deletions that nobody had mentioned, as one update: to be journalled, pushed and relayed as any news, before the
    /// document is asked for anything but `state_vector` again.
    pub growth: Option<Bytes>,
}

/// Why a collected state is not taken in. The document is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptError {
    /// It holds what this document does not hold: it is of another document.
    #[error("the collected state is not of this document")]
    NotOurs,
}

impl Document {
    /// Takes in a verified collected state of this document as it was some time ago. What it collected loses its content
    /// here too, so memory shrinks; what came in since then stays. The state vector does not move.
    pub fn adopt(&mut self, collected: &Scanned) -> Result<Adopted, AdoptError> {
        let known = |client| self.ledger.state.get(client);
        let structs_known = collected
            .sections()
            .iter()
            .all(|section| u64::from(section.end) <= known(section.client));
        let mut deletes_known = true;
        collected
            .for_each_delete(|client, _, end| deletes_known &= u64::from(end) <= known(client));
        if !structs_known || !deletes_known {
            return Err(AdoptError::NotOurs);
        }
        let mut growth: Vec<DeletedRange> = Vec::new();
        self.ledger.deletes.insert_news(collected, &mut growth);
        self.refresh();
        self.replace_prefix(collected);
        Ok(Adopted {
            growth: (!growth.is_empty()).then(|| delete_only_update(&mut growth)),
        })
    }

    /// The snapshot becomes the collected state and what lies behind it. Nothing overlaps, so this is linear, whatever a
    /// stranger deleted.
    fn replace_prefix(&mut self, collected: &Scanned) {
        let covered = collected.state_vector();
        let behind = self.snapshot.diff(&covered, NO_DELETES).expect(WALKED);
        let behind = rescan(&behind).expect(WALKED);
        let sources = [collected, &behind].into_iter().flat_map(|update| {
            update.sections().iter().map(|section| Source {
                bytes: update.bytes(),
                section: *section,
            })
        });
        let deletes = self.ledger.deletes.encoded();
        let (bytes, sections) = merge_sources(sources.collect(), &deletes).expect(WALKED);
        self.snapshot = Snapshot::new(bytes, sections);
        self.stale_deletes = false;
        self.n_merges += 1;
    }

    /// The digest of what is known, `content` being the sum over everything that was ever admitted.
    pub fn digest(&self, content: ContentSum) -> Digest {
        Digest::new(content, &self.ledger.deletes)
    }
}

#[cfg(test)]
#[path = "upkeep_tests.rs"]
mod tests;
