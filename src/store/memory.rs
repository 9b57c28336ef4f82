//! The store of tests and of `--store memory:`: it keeps the contract of [`DocStore`] and forgets everything when the
//! process ends. Faults are put in front of it (or of any other store) by [`super::faulty`].

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::ids::{DocumentKey, Epoch, Origin};
use crate::protocol::position::Position;

use super::segment::{self, SealedSegment};
use super::{
    AppendError, AppendOutcome, CompactError, CompactOutcome, Compaction, DeleteError, DocStore,
    DocumentState, Failure, ListedSegment, LoadError, Loaded, LogRow, RecreateError, Refusal,
    Refused, StoreFuture, refusal,
};

/// Documents in memory.
#[derive(Debug, Default)]
pub struct Store {
    // A std mutex: held for map operations only, never across an await.
    documents: Mutex<HashMap<DocumentKey, Document>>,
}

#[derive(Debug)]
struct Document {
    epoch: Epoch,
    state: DocumentState,
    rows: BTreeMap<(Origin, u64), LogRow>,
    version: u64,
    snapshot: Option<Bytes>,
    digest: Bytes,
    folded: Position,
    segments: Vec<SealedSegment>,
}

impl Document {
    fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            state: DocumentState::Live,
            rows: BTreeMap::new(),
            version: 0,
            snapshot: None,
            digest: Bytes::new(),
            folded: Position::new(),
            segments: Vec::new(),
        }
    }

    /// All of a compaction, or nothing of it.
    fn compact(&mut self, compaction: &Compaction) -> CompactOutcome {
        let is_current = self.state != DocumentState::Deleted
            && self.epoch == compaction.epoch
            && self.version == compaction.base_version
            && compaction
                .rows
                .iter()
                .all(|key| self.rows.contains_key(key));
        if !is_current {
            return CompactOutcome::Raced;
        }
        for key in &compaction.rows {
            self.rows.remove(key);
        }
        self.version += 1;
        self.snapshot = Some(compaction.snapshot.clone());
        self.digest = compaction.digest.clone();
        self.folded = compaction.folded.clone();
        self.segments.extend(compaction.segments.iter().cloned());
        CompactOutcome::Done {
            version: self.version,
        }
    }
}

impl Store {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn documents(&self) -> MutexGuard<'_, HashMap<DocumentKey, Document>> {
        self.documents
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl DocStore for Store {
    fn load<'a>(
        &'a self,
        key: &'a DocumentKey,
        epoch_if_new: Epoch,
    ) -> StoreFuture<'a, Loaded, LoadError> {
        Box::pin(async move {
            let mut documents = self.documents();
            let document = documents
                .entry(key.clone())
                .or_insert_with(|| Document::new(epoch_if_new));
            Ok(Loaded {
                epoch: document.epoch,
                state: document.state,
                version: document.version,
                snapshot: document.snapshot.clone(),
                digest: document.digest.clone(),
                folded: document.folded.clone(),
                rows: document.rows.values().cloned().collect(),
            })
        })
    }

    fn append<'a>(&'a self, rows: &'a [LogRow]) -> StoreFuture<'a, AppendOutcome, AppendError> {
        Box::pin(async move {
            let mut documents = self.documents();
            let mut outcome = AppendOutcome::default();
            for (index, row) in rows.iter().enumerate() {
                let document = documents.get_mut(&row.key);
                let facts = document.as_ref().map(|found| (found.epoch, found.state));
                match (refusal(row, facts), document) {
                    (None, Some(document)) => {
                        document
                            .rows
                            .entry((row.origin, row.sequence))
                            .or_insert_with(|| row.clone());
                    }
                    (why, _) => outcome.refused.push(Refused {
                        index,
                        why: why.unwrap_or(Refusal::Unknown),
                    }),
                }
            }
            Ok(outcome)
        })
    }

    fn compact<'a>(
        &'a self,
        compaction: &'a Compaction,
    ) -> StoreFuture<'a, CompactOutcome, CompactError> {
        Box::pin(async move {
            let mut documents = self.documents();
            Ok(documents
                .get_mut(&compaction.key)
                .map_or(CompactOutcome::Raced, |document| {
                    document.compact(compaction)
                }))
        })
    }

    fn segments<'a>(
        &'a self,
        key: &'a DocumentKey,
    ) -> StoreFuture<'a, Vec<ListedSegment>, LoadError> {
        Box::pin(async move {
            let documents = self.documents();
            let sealed = documents.get(key).map_or(&[][..], |found| &found.segments);
            Ok(sealed
                .iter()
                .zip(1..)
                .map(|(segment, number)| ListedSegment {
                    number,
                    info: segment.info.clone(),
                    packed_bytes: segment.bytes.len() as u64,
                })
                .collect())
        })
    }

    fn read_segment<'a>(
        &'a self,
        key: &'a DocumentKey,
        number: u64,
    ) -> StoreFuture<'a, Option<Vec<LogRow>>, LoadError> {
        Box::pin(async move {
            let documents = self.documents();
            let found = documents
                .get(key)
                .zip(usize::try_from(number).ok().and_then(|n| n.checked_sub(1)))
                .and_then(|(document, index)| document.segments.get(index));
            found
                .map(|sealed| segment::open(key, &sealed.bytes))
                .transpose()
                .map_err(|source| LoadError::segment(key, number, source))
        })
    }

    fn delete<'a>(&'a self, key: &'a DocumentKey) -> StoreFuture<'a, Epoch, DeleteError> {
        Box::pin(async move {
            let mut documents = self.documents();
            let document = documents.get_mut(key).ok_or(DeleteError::NotFound)?;
            let epoch = document.epoch;
            *document = Document::new(epoch);
            document.state = DocumentState::Deleted;
            Ok(epoch)
        })
    }

    fn recreate<'a>(
        &'a self,
        key: &'a DocumentKey,
        epoch: Epoch,
    ) -> StoreFuture<'a, (), RecreateError> {
        Box::pin(async move {
            let mut documents = self.documents();
            let document = documents
                .get_mut(key)
                .filter(|document| document.state == DocumentState::Deleted)
                .ok_or(RecreateError::NotDeleted)?;
            if document.epoch == epoch {
                return Err(RecreateError::SameEpoch);
            }
            *document = Document::new(epoch);
            Ok(())
        })
    }

    fn ping(&self) -> StoreFuture<'_, (), Failure> {
        Box::pin(async { Ok(()) })
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {})
    }
}
