//! Where pieces of updates wait for what they hang on.
//!
//! Bounded in number, bytes and time, since anybody can send pieces that hang on nothing that will ever come. Dropping a
//! piece loses nothing: its author still has it, and its next step 2 carries it again. Pieces of our own store are the
//! exception: they are saved edits, so they wait without bound.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::doc::ledger::Need;
use crate::doc::scan::Scanned;
use crate::ids::Origin;

/// How often a piece may be tried in vain. Each try walks the piece; stock clients' pieces need one or two.
const TRIES_MAX: u32 = 256;

/// Names a parked piece, within its document and for ever: names are not given out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParkId(u64);

impl ParkId {
    /// The name with this number; for tests of those who keep names.
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }
}

/// Whose piece it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// A client's: until then at most, and within the bounds.
    Until(Instant),
    /// A row of our own store: until it can go in.
    Stored(Place),
}

/// Where a stored row stands in the log: a reader who has not seen this place lacks the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) origin: Origin,
    pub(super) sequence: u64,
}

impl Keep {
    pub(super) fn is_stored(self) -> bool {
        matches!(self, Self::Stored(_))
    }
}

/// A piece that waits.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) update: Scanned,
    pub(super) keep: Keep,
    needs: Vec<Need>,
    tries: u32,
}

/// The bounds on pieces of clients.
#[derive(Clone, Copy, Debug)]
pub(super) struct ParkBounds {
    pub(super) pieces_max: usize,
    pub(super) bytes_max: usize,
}

/// All pieces that wait, and what for.
#[derive(Clone, Debug, Default)]
pub(super) struct Park {
    pieces: BTreeMap<ParkId, Piece>,
    waiting: BTreeSet<(Need, ParkId)>,
    next: u64,
    n_stored: usize,
    client_bytes: usize,
    stored_bytes: usize,
}

impl Park {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// How many pieces of clients wait.
    pub(super) fn n_of_clients(&self) -> usize {
        self.pieces.len() - self.n_stored
    }

    /// How many pieces of stored rows wait.
    pub(super) fn n_stored(&self) -> usize {
        self.n_stored
    }

    /// The bytes of all pieces, needs included.
    pub(super) fn bytes(&self) -> usize {
        self.client_bytes + self.stored_bytes
    }

    /// Parks a piece of a client under a new name, and drops the oldest pieces until the bounds hold. A piece that is
    /// larger than the bounds by itself is named and dropped at once.
    pub(super) fn insert(
        &mut self,
        update: Scanned,
        needs: Vec<Need>,
        until: Instant,
        bounds: ParkBounds,
        dropped: &mut Vec<ParkId>,
    ) -> ParkId {
        let id = self.name();
        let keep = Keep::Until(until);
        let piece = Piece {
            update,
            keep,
            needs,
            tries: 0,
        };
        if cost(&piece) > bounds.bytes_max || bounds.pieces_max == 0 {
            dropped.push(id);
        } else {
            self.put(id, piece);
            self.enforce(bounds, dropped);
        }
        id
    }

    /// Parks a piece of a stored row.
    pub(super) fn insert_stored(&mut self, update: Scanned, needs: Vec<Need>, place: Place) {
        let id = self.name();
        self.put(
            id,
            Piece {
                update,
                keep: Keep::Stored(place),
                needs,
                tries: 0,
            },
        );
    }

    fn name(&mut self) -> ParkId {
        let id = ParkId(self.next);
        self.next += 1;
        id
    }

    /// Parks what is still left of a piece that was tried, under the name that it had. `false` when it was tried too
    /// often, and is given up.
    pub(super) fn insert_again(
        &mut self,
        id: ParkId,
        tried: &Piece,
        update: Scanned,
        needs: Vec<Need>,
    ) -> bool {
        if tried.tries >= TRIES_MAX && !tried.keep.is_stored() {
            return false;
        }
        self.put(
            id,
            Piece {
                update,
                keep: tried.keep,
                needs,
                tries: tried.tries + 1,
            },
        );
        true
    }

    fn put(&mut self, id: ParkId, piece: Piece) {
        for need in &piece.needs {
            self.waiting.insert((*need, id));
        }
        match piece.keep {
            Keep::Stored(_) => {
                self.n_stored += 1;
                self.stored_bytes += cost(&piece);
            }
            Keep::Until(_) => self.client_bytes += cost(&piece),
        }
        self.pieces.insert(id, piece);
    }

    /// Takes a piece out.
    pub(super) fn remove(&mut self, id: ParkId) -> Option<Piece> {
        let piece = self.pieces.remove(&id)?;
        for need in &piece.needs {
            self.waiting.remove(&(*need, id));
        }
        match piece.keep {
            Keep::Stored(_) => {
                self.n_stored -= 1;
                self.stored_bytes -= cost(&piece);
            }
            Keep::Until(_) => self.client_bytes -= cost(&piece),
        }
        Some(piece)
    }

    /// Adds to `ready` the pieces that wait for a client to reach a clock that it has reached now.
    pub(super) fn ready(&self, reached: Need, ready: &mut BTreeSet<ParkId>) {
        let first = Need {
            clock: 0,
            ..reached
        };
        ready.extend(
            self.waiting
                .range((first, ParkId(0))..=(reached, ParkId(u64::MAX)))
                .map(|(_, id)| *id),
        );
    }

    /// Drops the oldest pieces of clients until the bounds hold.
    fn enforce(&mut self, bounds: ParkBounds, dropped: &mut Vec<ParkId>) {
        while self.n_of_clients() > bounds.pieces_max || self.client_bytes > bounds.bytes_max {
            let oldest = self
                .pieces
                .iter()
                .find(|(_, piece)| !piece.keep.is_stored())
                .map(|(id, _)| *id);
            let Some(oldest) = oldest else { return };
            self.remove(oldest);
            dropped.push(oldest);
        }
    }

    /// Drops the pieces whose time is over.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<ParkId> {
        let over: Vec<ParkId> = self
            .pieces
            .iter()
            .filter(|(_, piece)| matches!(piece.keep, Keep::Until(until) if until <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in &over {
            self.remove(*id);
        }
        over
    }
}

/// What a piece counts against the bounds: its bytes, and what it costs to remember what it waits for.
fn cost(piece: &Piece) -> usize {
    piece.update.bytes().len()
        + piece.needs.len() * size_of::<(Need, ParkId)>()
        + size_of::<Piece>()
}
