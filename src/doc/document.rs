//! The document of a room, as bytes: a snapshot, a tail of updates with their places in the log, and what is known.
//!
//! Nothing here interprets content. What comes in was scanned; `ledger` judges what of it is news; the room gives news
//! its place in the log and pushes it. The snapshot is brought up to date only when somebody asks for the whole, and is
//! then the one copy that every joiner shares: a storm of joins at one position costs one merge. Updates stay in the
//! tail for a while after they are in the snapshot, so that a reader who is a little behind gets just those.

mod readers;
mod upkeep;

use std::collections::{BTreeSet, VecDeque};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::doc::admit::{Admission, AdmitError, Freed};
use crate::doc::ledger::{Bounds, Ledger, Need, Rest, Taken};
use crate::doc::merge::{Source, merge_sources};
use crate::doc::park::{Keep, Park, ParkBounds, ParkId, Place};
use crate::doc::scan::{ScanError, ScanLimits, Scanned, rescan, scan};
use crate::doc::snapshot::Snapshot;
use crate::doc::state_vector::StateVector;
use crate::ids::{ClientId, Origin};
use crate::protocol::position::Position;

pub use upkeep::{AdoptError, Adopted};

/// An update without structs and deletions.
const EMPTY_UPDATE: &[u8] = &[0, 0];

/// Shorter updates are copied when they are kept, so that a keystroke does not keep a whole receive buffer alive.
const COPY_BYTES_MAX: usize = 16 << 10;

/// Why walking our own bytes cannot fail.
const WALKED: &str = "the bytes of a document were walked when they came in";

/// What one document may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DocumentLimits {
    /// The largest document, in bytes of updates. 64 MiB; every joiner is sent the whole.
    #[serde(with = "crate::units::size")]
    pub document_bytes_max: usize,
    /// The most clients that ever wrote. 2^20: each page load is one.
    pub clients_max: usize,
    /// The deepest nesting of types within types. 200: deleting recurses in every Yjs implementation.
    pub nesting_max: usize,
    /// The most pieces that wait for something missing. 256.
    pub parked_pieces_max: usize,
    /// The most bytes that wait for something missing. 1 MiB.
    #[serde(with = "crate::units::size")]
    pub parked_bytes_max: usize,
    /// How long a piece waits. 30 s: clients repeat what is missing long before.
    #[serde(with = "crate::units::duration")]
    pub parked_for: Duration,
    /// The most updates kept for readers who are behind. 4,096.
    pub tail_updates_max: usize,
    /// The most bytes of updates kept for readers who are behind, if the document is not larger itself. 1 MiB.
    #[serde(with = "crate::units::size")]
    pub tail_bytes_max: usize,
}

impl Default for DocumentLimits {
    fn default() -> Self {
        Self {
            document_bytes_max: 64 << 20,
            clients_max: 1 << 20,
            nesting_max: 200,
            parked_pieces_max: 256,
            parked_bytes_max: 1 << 20,
            parked_for: Duration::from_secs(30),
            tail_updates_max: 4_096,
            tail_bytes_max: 1 << 20,
        }
    }
}

impl DocumentLimits {
    fn bounds(&self) -> Bounds {
        Bounds {
            clients_max: self.clients_max,
            nesting_max: self.nesting_max,
        }
    }

    fn park_bounds(&self) -> ParkBounds {
        ParkBounds {
            pieces_max: self.parked_pieces_max,
            bytes_max: self.parked_bytes_max,
        }
    }
}

/// What is in our own store was admitted before, under limits that may have been others.
const STORED: Bounds = Bounds {
    clients_max: usize::MAX,
    nesting_max: usize::MAX,
};

/// One update of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailUpdate {
    /// The incarnation of a node that gave the sequence.
    pub origin: Origin,
    /// Its place among that origin's updates of this document, from 1.
    pub sequence: u64,
    /// The update, V1.
    pub bytes: Bytes,
}

impl TailUpdate {
    fn at(Place { origin, sequence }: Place, bytes: Bytes) -> Self {
        Self {
            origin,
            sequence,
            bytes,
        }
    }
}

/// Why stored bytes are not a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The snapshot is not a well-formed update.
    #[error("the snapshot is malformed: {0}")]
    Snapshot(ScanError),
    /// A row is not a well-formed update.
    #[error("the log row {origin}/{sequence} is malformed: {source}")]
    Row {
        /// Its origin.
        origin: Origin,
        /// Its sequence.
        sequence: u64,
        /// What is wrong with it.
        source: ScanError,
    },
}

/// The last answer of `since`, for the next reader at the same position.
#[derive(Clone, Debug)]
struct Since {
    position: Position,
    answer: Bytes,
}

/// A room's document. See the module.
#[derive(Debug)]
pub struct Document {
    limits: DocumentLimits,
    ledger: Ledger,
    park: Park,
    snapshot: Snapshot,
    /// The snapshot holds the structs of the first `n_folded` updates of the tail.
    tail: VecDeque<TailUpdate>,
    n_folded: usize,
    tail_bytes: usize,
    unfolded_bytes: usize,
    /// A reader who has not seen all of this cannot be served from the tail.
    base: Position,
    position: Position,
    /// The snapshot lacks deletions that are known.
    stale_deletes: bool,
    encoded_state: OnceLock<Bytes>,
    since: Option<Since>,
    /// The last answer of `since_push`, and the push number that it was for.
    since_push: Option<(u64, Bytes)>,
    n_merges: u64,
    n_pushed: u64,
}

impl Document {
    /// An empty document.
    pub fn new(limits: DocumentLimits) -> Self {
        Self {
            limits,
            ledger: Ledger::default(),
            park: Park::default(),
            snapshot: Snapshot::new(Bytes::from_static(EMPTY_UPDATE), Vec::new()),
            tail: VecDeque::new(),
            n_folded: 0,
            tail_bytes: 0,
            unfolded_bytes: 0,
            base: Position::new(),
            position: Position::new(),
            stale_deletes: false,
            encoded_state: OnceLock::new(),
            since: None,
            since_push: None,
            n_merges: 0,
            n_pushed: 0,
        }
    }

    /// From what is stored: a snapshot, the position that it covers, and the rows of the log after it, in any order. A row
    /// that hangs on one that was lost is kept aside, counted by [`n_unready`](Self::n_unready), and goes in when what it
    /// lacks comes back; then it appears among the news of that admission.
    pub fn load(
        limits: DocumentLimits,
        snapshot: Option<Bytes>,
        folded: Position,
        rows: Vec<TailUpdate>,
    ) -> Result<Self, LoadError> {
        let mut document = Self::new(limits);
        // What a snapshot lacks (none should lack anything) has no place that a reader could have seen.
        let nowhere = Place {
            origin: Origin::from_bytes([0; Origin::LEN]),
            sequence: u64::MAX,
        };
        if let Some(snapshot) = snapshot {
            let scanned = scan(&snapshot, &ScanLimits::stored()).map_err(LoadError::Snapshot)?;
            let news = document
                .take_stored(&scanned, nowhere)
                .map_err(LoadError::Snapshot)?;
            document.fold_snapshot(scanned, &news);
        }
        document.base = folded.clone();
        document.position = folded;
        for TailUpdate {
            origin,
            sequence,
            bytes,
        } in rows
        {
            let malformed = |source| LoadError::Row {
                origin,
                sequence,
                source,
            };
            let scanned = scan(&bytes, &ScanLimits::stored()).map_err(malformed)?;
            document.position.advance(origin, sequence);
            let place = Place { origin, sequence };
            for update in document.take_stored(&scanned, place).map_err(malformed)? {
                document.append(update);
            }
        }
        Ok(document)
    }

    /// The stored snapshot's structs become the snapshot; usually it is one update that goes in as it is.
    fn fold_snapshot(&mut self, stored: Scanned, news: &[TailUpdate]) {
        let scanned: Vec<Scanned> = match news {
            [whole] if whole.bytes == stored.bytes() => vec![stored],
            _ => news
                .iter()
                .map(|update| rescan(&update.bytes).expect(WALKED))
                .collect(),
        };
        if let [whole] = &scanned[..] {
            let bytes = whole.bytes();
            self.snapshot = Snapshot::new(bytes.clone(), whole.sections().to_vec());
            // Its own delete set may leave out what its structs imply, or be in another order.
            self.stale_deletes = self.ledger.deletes.encoded() != bytes[whole.deletes_at()..];
        } else {
            self.merge_into_snapshot(&scanned);
        }
    }

    /// Takes an update of our own store. What of it goes in stands at its place; what goes in with it of rows that waited
    /// stands at theirs, since it is the readers who have not seen those who lack it.
    fn take_stored(
        &mut self,
        update: &Scanned,
        place: Place,
    ) -> Result<Vec<TailUpdate>, ScanError> {
        let mut news = Vec::new();
        let taken = match self.ledger.take(update, STORED) {
            Ok(taken) => taken,
            Err(AdmitError::Inconsistent(source)) => return Err(source),
            Err(error) => unreachable!("the bounds on stored updates are infinite: {error}"),
        };
        if let Some(rest) = collect(taken, |bytes| news.push(TailUpdate::at(place, bytes))) {
            self.park
                .insert_stored(rescan(&rest.bytes)?, rest.needs, place);
        }
        if !news.is_empty() {
            self.retry(
                update,
                &mut Admission::default(),
                |_, keep, bytes| match keep {
                    Keep::Stored(place) => news.push(TailUpdate::at(place, bytes)),
                    Keep::Until(_) => unreachable!("clients come after loading"),
                },
            );
        }
        Ok(news)
    }

    /// What the document holds, news that is not yet pushed included.
    pub fn state_vector(&self) -> &StateVector {
        &self.ledger.state
    }

    /// The state vector in wire form, kept until it moves.
    pub fn encoded_state_vector(&self) -> Bytes {
        self.encoded_state
            .get_or_init(|| self.ledger.state.encode())
            .clone()
    }

    /// Judges an update of a client. Everything in `news` and `freed` must be pushed, each entry under a place of its own in
    /// the log, before the document is asked for anything but `state_vector` again.
    pub fn admit(&mut self, update: &Scanned, now: Instant) -> Result<Admission, AdmitError> {
        let max = self.limits.document_bytes_max;
        if self.document_bytes() + update.bytes().len() > max && !update.is_empty() {
            return Err(AdmitError::DocumentFull { max });
        }
        let taken = self.ledger.take(update, self.limits.bounds())?;
        // Nearly always one update, and then a list with room for one.
        let mut admission = Admission {
            news: taken.news.into_iter().collect(),
            ..Admission::default()
        };
        admission.news.extend(taken.growth);
        if let Some(rest) = taken.rest {
            let until = now + self.limits.parked_for;
            let id = self.park.insert(
                rescan(&rest.bytes)?,
                rest.needs,
                until,
                self.limits.park_bounds(),
                &mut admission.dropped,
            );
            admission.parked = Some(id);
        }
        if !admission.news.is_empty() {
            self.encoded_state = OnceLock::new();
            let mut freed = Vec::new();
            self.retry(update, &mut admission, |piece, _, news| {
                freed.push(Freed { piece, news });
            });
            admission.freed = freed;
            // The piece just parked may have gone in with one that it waited for.
            let parked = admission.parked;
            if let Some(at) = admission.resolved.iter().position(|id| Some(*id) == parked) {
                admission.resolved.remove(at);
                admission.parked = None;
            }
        }
        Ok(admission)
    }

    /// Tries the pieces that wait for clocks which `update` may have reached, and those that wait for these in turn; gives
    /// what goes in to `news`.
    fn retry(
        &mut self,
        update: &Scanned,
        admission: &mut Admission,
        mut news: impl FnMut(ParkId, Keep, Bytes),
    ) {
        if self.park.is_empty() {
            return;
        }
        let mut ready = BTreeSet::new();
        self.find_ready(update, &mut ready);
        while let Some(id) = ready.pop_first() {
            let Some(piece) = self.park.remove(id) else {
                continue;
            };
            let stored = piece.keep.is_stored();
            let bounds = if stored { STORED } else { self.limits.bounds() };
            let outcome = self.ledger.take(&piece.update, bounds).and_then(|taken| {
                let rest = collect(taken, |bytes| news(id, piece.keep, bytes));
                let rescanned = |rest: Rest| Ok((rescan(&rest.bytes)?, rest.needs));
                rest.map(rescanned).transpose()
            });
            self.find_ready(&piece.update, &mut ready);
            let kept = match outcome {
                Ok(None) => {
                    if !stored {
                        admission.resolved.push(id);
                    }
                    true
                }
                Ok(Some((rest, needs))) => self.park.insert_again(id, &piece, rest, needs),
                Err(_) => false,
            };
            if !kept && !stored {
                admission.dropped.push(id);
            }
        }
    }

    fn find_ready(&self, update: &Scanned, ready: &mut BTreeSet<ParkId>) {
        for section in update.sections() {
            let client: ClientId = section.client;
            let clock = self.ledger.state.get(client) as u32;
            self.park.ready(Need { client, clock }, ready);
        }
    }

    /// Takes news that has its place in the log now.
    pub fn push(&mut self, update: TailUpdate) {
        self.position.advance(update.origin, update.sequence);
        self.append(update);
        self.n_pushed += 1;
        let bytes_max = self.limits.tail_bytes_max.max(self.snapshot.bytes.len());
        if self.tail.len() > self.limits.tail_updates_max || self.tail_bytes > bytes_max {
            self.fold();
        }
    }

    fn append(&mut self, mut update: TailUpdate) {
        if update.bytes.len() <= COPY_BYTES_MAX {
            update.bytes = Bytes::copy_from_slice(&update.bytes);
        }
        self.tail_bytes += update.bytes.len();
        self.unfolded_bytes += update.bytes.len();
        self.tail.push_back(update);
        self.encoded_state = OnceLock::new();
        self.since = None;
        self.since_push = None;
    }

    /// Brings the snapshot up to date and forgets the older half of the tail: memory stays flat, at the price of a merge
    /// every few thousand updates.
    fn fold(&mut self) {
        self.refresh();
        let updates_max = self.limits.tail_updates_max / 2;
        let bytes_max = self.limits.tail_bytes_max / 2;
        while self.tail.len() > updates_max || self.tail_bytes > bytes_max {
            let Some(oldest) = self.tail.pop_front() else {
                break;
            };
            self.tail_bytes -= oldest.bytes.len();
            self.base.advance(oldest.origin, oldest.sequence);
        }
        self.n_folded = self.tail.len();
        self.since = None;
    }

    /// Brings the snapshot up to date with the tail.
    fn refresh(&mut self) {
        if self.n_folded == self.tail.len() && !self.stale_deletes {
            return;
        }
        let scanned: Vec<Scanned> = self
            .tail
            .range(self.n_folded..)
            .map(|update| rescan(&update.bytes).expect(WALKED))
            .collect();
        self.merge_into_snapshot(&scanned);
        self.n_folded = self.tail.len();
        self.unfolded_bytes = 0;
    }

    fn merge_into_snapshot(&mut self, updates: &[Scanned]) {
        let old = &self.snapshot;
        let of_snapshot = old.sections.iter().map(|section| Source {
            bytes: &old.bytes,
            section: *section,
        });
        let of_updates = updates.iter().flat_map(|update| {
            update.sections().iter().map(|section| Source {
                bytes: update.bytes(),
                section: *section,
            })
        });
        let sources = of_snapshot.chain(of_updates).collect();
        let deletes = self.ledger.deletes.encoded();
        let (bytes, sections) = merge_sources(sources, &deletes).expect(WALKED);
        self.snapshot = Snapshot::new(bytes, sections);
        self.stale_deletes = false;
        self.n_merges += 1;
    }

    /// Everything pushed, loaded or folded.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// The whole document as one update; `[0, 0]` when it is empty. Merged at most once per push, and shared.
    pub fn full(&mut self) -> Bytes {
        self.refresh();
        self.snapshot.bytes.clone()
    }

    /// What a holder of `from` lacks: structs from its clocks on, and all deletions (a state vector says nothing of
    /// those). [`full`](Self::full) when `from` is empty.
    pub fn diff(&mut self, from: &StateVector) -> Bytes {
        self.refresh();
        if from.is_empty() {
            return self.snapshot.bytes.clone();
        }
        let deletes = self.ledger.deletes.encoded();
        self.snapshot.diff(from, &deletes).expect(WALKED)
    }

    /// How many updates were pushed since the document was loaded.
    pub fn n_pushed(&self) -> u64 {
        self.n_pushed
    }

    /// How many full merges were made.
    pub fn n_merges(&self) -> u64 {
        self.n_merges
    }

    /// The bytes that the document itself takes: the snapshot and what is not in it yet.
    pub fn document_bytes(&self) -> usize {
        self.snapshot.bytes.len() + self.unfolded_bytes
    }

    /// The bytes held in memory: the snapshot, the tail, parked pieces, and an estimate for the delete index.
    pub fn size_bytes(&self) -> usize {
        let deletes = self.ledger.deletes.n_ranges() * 16;
        let tail = self.tail_bytes + self.tail.len() * size_of::<TailUpdate>();
        self.snapshot.bytes.len() + tail + self.park.bytes() + deletes
    }

    /// Gives up the pieces whose time is over, and names them.
    pub fn expire_parked(&mut self, now: Instant) -> Vec<ParkId> {
        self.park.expire(now)
    }

    /// How many pieces of clients' updates wait for something missing.
    pub fn n_parked(&self) -> usize {
        self.park.n_of_clients()
    }

    /// How many loaded rows, or parts of them, hang on something that is missing from the store.
    pub fn n_unready(&self) -> usize {
        self.park.n_stored()
    }
}

/// Gives what went in to `news`; gives back what waits.
fn collect(taken: Taken, mut news: impl FnMut(Bytes)) -> Option<Rest> {
    taken
        .news
        .into_iter()
        .chain(taken.growth)
        .for_each(&mut news);
    taken.rest
}

#[cfg(test)]
#[path = "document_tail_tests.rs"]
mod tail_tests;
#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
