//! Who is in a room and what they show: the room's table of awareness entries. Pure; time is an argument.
//!
//! Every entry belongs to one session. That makes a dead person's cursor vanish with the session, for everyone at once,
//! and keeps people from moving each other's. The rules are PR1 to PR9 of `protocol/PROTOCOL.md`; the two that shape
//! this file:
//!
//! - **Only the owner counts its clock up** (PR5). Readers ignore an entry whose clock is not above the one they hold, so
//!   it is tempting to have the server count up: to renew a hidden tab's entry, or to bring back a person whose removal
//!   the readers have seen. But stock clients adopt a higher clock of their own entry *with its old state*, and send it
//!   on; with two of them in one browser, which also talk past the server, that is a loop. So the server asks instead:
//!   it tells the owner alone that its entry is gone (a *poke*). y-protocols has every client answer that with its
//!   present state and a higher clock.
//! - **What does not belong to a session is ignored and never punished** (PR3): stock clients re-send what they hear of
//!   everybody.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::ids::{ClientId, SessionId};
use crate::protocol::awareness::{AwarenessUpdate, Builder, Entry, EntryError};

/// How many client ids one session may own. One for each editor that a page has on one document.
pub const CLIENTS_PER_SESSION_MAX: usize = 16;

/// How many people who left are remembered, to know them and their clocks when they return. About 100 bytes each.
pub const TOMBSTONES_MAX: usize = 1_024;

/// How long an owner may be silent before it is poked. Owners renew every 15 to 18 s by themselves unless their tab is
/// hidden; readers forget after 30 s. Between the two, with time for the answer.
pub const RENEW_AFTER: Duration = Duration::from_secs(20);

/// How often to look for silent owners, and how long to wait for an answer before poking again.
pub const RENEWAL_CHECK: Duration = Duration::from_secs(5);

/// The most entries that one tick sends. What is left waits for the next.
const TICK_ENTRIES_MAX: usize = 256;

/// The size from which a tick's message takes no further entry, in bytes.
const TICK_BYTES_MAX: usize = 32 * 1024;

/// How long after a change was relayed, with no newer one, it counts as the last word for now: it is then said again to
/// whom the first time may not have reached. A cursor that stopped is wrong for about that long where datagrams are lost.
pub const SETTLED_AFTER: Duration = Duration::from_millis(400);

/// How many keyframes repeat that somebody is gone, for a reader too slow for the first word of it.
const REMOVAL_KEYFRAMES: u8 = 2;

/// How a session comes to own client ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// By [`Presence::claim`] only: the native OPEN names the id.
    Claimed,
    /// Stock clients name none: the first update with exactly one living entry claims its id.
    Stock,
}

/// Why a session may not own a client id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// The session is not in the room.
    #[error("the session is not in the room")]
    NotJoined,
    /// The id belongs to another user, or did until lately.
    #[error("the client id belongs to another user")]
    OtherUser,
    /// The session owns [`CLIENTS_PER_SESSION_MAX`] ids already.
    #[error("the session owns {CLIENTS_PER_SESSION_MAX} client ids already")]
    TooMany,
}

/// What became of a session's update.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The client ids whose entries were news. They wait for [`Presence::take_changes`].
    pub accepted: Vec<ClientId>,
    /// How many entries were ignored because the session does not own them.
    pub n_foreign: usize,
    /// The first entry of the session's own that is not fit to be relayed.
    pub refused: Option<(ClientId, EntryError)>,
    /// Awareness update to send to this session alone: it shows itself with a clock that readers take for old news, and
    /// will answer with a higher one.
    pub poke: Option<Bytes>,
}

/// What changed, as awareness updates with the latest of each entry.
#[derive(Debug, PartialEq, Eq)]
pub struct Changes {
    /// Which call of [`Presence::take_changes`] gave this; they count from 1.
    pub number: u64,
    /// Who shows nothing any more. This has to arrive: no later word would mend it.
    pub gone: Option<Bytes>,
    /// What others show. Something newer follows soon, or [`Presence::take_settled`] repeats it: it may get lost.
    pub shown: Option<Bytes>,
}

/// Changes that nothing newer followed, once more, clocks and all.
#[derive(Debug, PartialEq, Eq)]
pub struct Settled {
    /// They were last told with this number of [`Changes`] or later. Who cannot have lost any of those needs no repeat.
    pub since: u64,
    /// The entries, as an awareness update.
    pub update: Bytes,
}

#[derive(Debug)]
struct Slot<S> {
    /// Who may own it: the user of its owner, or of the last one.
    user: Arc<str>,
    owner: Option<S>,
    /// Whether the owner has shown something since it became the owner.
    is_heard: bool,
    /// JSON text; `None` shows nothing.
    state: Option<Box<str>>,
    /// The clock that readers hold; `None` when they have heard nothing of it.
    clock: Option<u64>,
    /// When to poke the owner.
    renew_at: Instant,
    /// Whether it is in `dirty`.
    is_dirty: bool,
    /// Whether it shows something else than when it was last relayed; a mere renewal does not.
    is_changed: bool,
    /// The number of the changes that told of it last.
    told_in: u64,
    /// Its place in `settling`.
    settles_at: Option<Instant>,
    /// How many keyframes still say that it is gone.
    n_removal_keyframes: u8,
}

#[derive(Debug)]
struct Session {
    user: Arc<str>,
    clients: Vec<ClientId>,
    /// The one id that this session may claim by showing it, once it has done so.
    shown: Option<ClientId>,
}

/// The awareness table of one room. `S` names a session there.
#[derive(Debug)]
pub struct Presence<S = SessionId> {
    slots: BTreeMap<ClientId, Slot<S>>,
    sessions: BTreeMap<S, Session>,
    /// What changed since it was last sent, longest waiting first.
    dirty: VecDeque<ClientId>,
    /// What was relayed and is not known to be the last word yet, by the time at which it will be.
    settling: BTreeSet<(Instant, ClientId)>,
    n_told: u64,
    /// Ids that lost their owner, oldest first. May name some that have one again.
    tombstones: VecDeque<ClientId>,
}

impl<S> Default for Presence<S> {
    fn default() -> Self {
        Self {
            slots: BTreeMap::new(),
            sessions: BTreeMap::new(),
            dirty: VecDeque::new(),
            settling: BTreeSet::new(),
            n_told: 0,
            tombstones: VecDeque::new(),
        }
    }
}

impl<S: Copy + Ord + Debug> Presence<S> {
    /// An empty room.
    pub fn new() -> Self {
        Self::default()
    }

    /// A session enters. `user` is compared and never looked into.
    pub fn join(&mut self, session: S, user: Arc<str>) {
        self.sessions.entry(session).or_insert_with(|| Session {
            user,
            clients: Vec::new(),
            shown: None,
        });
    }

    /// Makes `session` the owner of a client id. Takes it over from an older session of the same user (PR2): its entry
    /// stays as it is, and the older session leaving no longer clears it.
    pub fn claim(&mut self, session: S, client: ClientId, now: Instant) -> Result<(), ClaimError> {
        let user = match self.sessions.get(&session) {
            None => return Err(ClaimError::NotJoined),
            Some(joined) if joined.clients.contains(&client) => return Ok(()),
            Some(joined) if joined.clients.len() >= CLIENTS_PER_SESSION_MAX => {
                return Err(ClaimError::TooMany);
            }
            Some(joined) => joined.user.clone(),
        };
        let before = match self.slots.entry(client) {
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(Slot {
                    user,
                    owner: Some(session),
                    is_heard: false,
                    state: None,
                    clock: None,
                    renew_at: now + RENEW_AFTER,
                    is_dirty: false,
                    is_changed: false,
                    told_in: 0,
                    settles_at: None,
                    n_removal_keyframes: 0,
                });
                None
            }
            std::collections::btree_map::Entry::Occupied(occupied) => {
                let slot = occupied.into_mut();
                if slot.user != user {
                    return Err(ClaimError::OtherUser);
                }
                slot.is_heard = false;
                slot.renew_at = now + RENEW_AFTER;
                slot.owner.replace(session)
            }
        };
        if let Some(before) = before.and_then(|before| self.sessions.get_mut(&before)) {
            before.clients.retain(|owned| *owned != client);
        }
        if let Some(joined) = self.sessions.get_mut(&session) {
            joined.clients.push(client);
        }
        Ok(())
    }

    /// Takes in what a session says. Entries of ids that it does not own are ignored; so is everything of a session
    /// that has not joined.
    pub fn apply(
        &mut self,
        session: S,
        update: &AwarenessUpdate,
        trust: Trust,
        now: Instant,
    ) -> Applied {
        if trust == Trust::Stock {
            self.claim_by_showing(session, update, now);
        }
        let mut applied = Applied::default();
        let mut poke = Builder::default();
        for entry in update.entries() {
            let slot = self.slots.get_mut(&entry.client);
            let Some(slot) = slot.filter(|slot| slot.owner == Some(session)) else {
                applied.n_foreign += 1;
                continue;
            };
            if let Err(error) = entry.check() {
                applied.refused.get_or_insert((entry.client, error));
                continue;
            }
            match slot.take(&entry, now) {
                Taken::News => {
                    applied.accepted.push(entry.client);
                    mark(&mut self.dirty, entry.client, slot);
                }
                Taken::Nothing => {}
                Taken::Hidden { clock } => poke.push(entry.client, clock, None),
            }
        }
        applied.poke = poke.finish();
        applied
    }

    /// A session is gone: what it shows is cleared for everybody, except what a newer session has taken over.
    pub fn leave(&mut self, session: S) {
        let Some(left) = self.sessions.remove(&session) else {
            return;
        };
        for client in left.clients {
            let Some(slot) = self.slots.get_mut(&client) else {
                continue;
            };
            slot.owner = None;
            if slot.clock.is_none() {
                self.slots.remove(&client);
                continue;
            }
            self.tombstones.push_back(client);
            if slot.state.take().is_some() {
                slot.is_changed = true;
                slot.n_removal_keyframes = REMOVAL_KEYFRAMES;
                mark(&mut self.dirty, client, slot);
            }
        }
        self.trim_tombstones();
    }

    /// Whether something waits to be sent.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// What changed since the last call, with the latest of each. In a crowd it takes a bounded part, longest waiting
    /// first, and the table stays dirty.
    pub fn take_changes(&mut self, now: Instant) -> Option<Changes> {
        let mut gone = Builder::default();
        let mut shown = Builder::default();
        let number = self.n_told + 1;
        for _ in 0..TICK_ENTRIES_MAX {
            if gone.len() + shown.len() >= TICK_BYTES_MAX {
                break;
            }
            let Some(client) = self.dirty.pop_front() else {
                break;
            };
            let Some(slot) = self.slots.get_mut(&client) else {
                continue;
            };
            slot.is_dirty = false;
            let Some(clock) = slot.clock else { continue };
            let is_changed = std::mem::take(&mut slot.is_changed);
            if is_changed && let Some(at) = slot.settles_at.take() {
                self.settling.remove(&(at, client));
            }
            slot.told_in = number;
            if let Some(state) = &slot.state {
                shown.push(client, clock, Some(state));
                if is_changed {
                    let at = now + SETTLED_AFTER;
                    slot.settles_at = Some(at);
                    self.settling.insert((at, client));
                }
            } else {
                gone.push(client, clock, None);
            }
        }
        self.trim_tombstones();
        let (gone, shown) = (gone.finish(), shown.finish());
        if gone.is_none() && shown.is_none() {
            return None;
        }
        self.n_told = number;
        Some(Changes {
            number,
            gone,
            shown,
        })
    }

    /// When [`Presence::take_settled`] next has something.
    pub fn settles_at(&self) -> Option<Instant> {
        self.settling.first().map(|(at, _)| *at)
    }

    /// What was relayed [`SETTLED_AFTER`] ago and is still what is shown: each change once. Bounded in bytes as a tick's
    /// message is; the rest stays due.
    pub fn take_settled(&mut self, now: Instant) -> Option<Settled> {
        let mut builder = Builder::default();
        let mut since = u64::MAX;
        while builder.len() < TICK_BYTES_MAX
            && let Some(&(at, client)) = self.settling.first()
            && at <= now
        {
            self.settling.pop_first();
            let Some(slot) = self.slots.get_mut(&client) else {
                continue;
            };
            slot.settles_at = None;
            // What has changed again goes out with the next tick, and settles anew.
            if let (Some(clock), Some(state), false) = (slot.clock, &slot.state, slot.is_changed) {
                builder.push(client, clock, Some(state));
                since = since.min(slot.told_in);
            }
        }
        let update = builder.finish()?;
        Some(Settled { since, update })
    }

    /// Everybody who shows something, as an awareness update; `None` when nobody does.
    ///
    /// For a session that opens with a client id, that id is named as gone, at the clock that readers hold, if they
    /// hold any: its client then counts on from there, and the entry's old state never overwrites its own (PR6).
    pub fn snapshot(&self, joining: Option<ClientId>) -> Option<Bytes> {
        let mut builder = Builder::default();
        for (&client, slot) in &self.slots {
            let Some(clock) = slot.clock else { continue };
            if joining == Some(client) {
                builder.push(client, clock, None);
            } else if let Some(state) = &slot.state {
                builder.push(client, clock, Some(state));
            }
        }
        builder.finish()
    }

    /// The snapshot with those who left lately, for readers who may have lost an update: repeats every entry as it was
    /// relayed, clocks and all. `None` when there is nothing to say. What waits for its tick or its repeat is in it.
    pub fn keyframe(&mut self) -> Option<Bytes> {
        let mut builder = Builder::default();
        self.dirty.clear();
        self.settling.clear();
        for (&client, slot) in &mut self.slots {
            slot.is_dirty = false;
            slot.is_changed = false;
            slot.settles_at = None;
            let Some(clock) = slot.clock else { continue };
            if slot.state.is_none() {
                if slot.n_removal_keyframes == 0 {
                    continue;
                }
                slot.n_removal_keyframes -= 1;
            }
            builder.push(client, clock, slot.state.as_deref());
        }
        builder.finish()
    }

    /// The pokes that are due: an awareness update for each of these sessions alone. Call every [`RENEWAL_CHECK`]. An
    /// owner that does not answer keeps its entry here for as long as its session lives.
    pub fn renewals(&mut self, now: Instant) -> Vec<(S, Bytes)> {
        let mut pokes: BTreeMap<S, Builder> = BTreeMap::new();
        for (&client, slot) in &mut self.slots {
            if let (Some(owner), Some(clock), Some(_)) = (slot.owner, slot.clock, &slot.state)
                && slot.renew_at <= now
            {
                slot.renew_at = now + RENEWAL_CHECK;
                pokes.entry(owner).or_default().push(client, clock, None);
            }
        }
        pokes
            .into_iter()
            .filter_map(|(owner, poke)| Some((owner, poke.finish()?)))
            .collect()
    }

    /// How many people show something.
    pub fn n_shown(&self) -> usize {
        self.slots
            .values()
            .filter(|slot| slot.state.is_some())
            .count()
    }

    /// The implicit claim of stock clients (PR4). Their first words may be an echo of somebody else, so this takes an id
    /// over from a living session only with a clock that has not been relayed yet, and each session only ever claims
    /// one id so. A session that is refused here claims later: with its next change, or when the older session's end
    /// pokes it.
    fn claim_by_showing(&mut self, session: S, update: &AwarenessUpdate, now: Instant) {
        let mut living = update.entries().filter(|entry| entry.state().is_some());
        let (Some(only), None) = (living.next(), living.next()) else {
            return;
        };
        let Some(joined) = self.sessions.get(&session) else {
            return;
        };
        if joined.shown.is_some_and(|shown| shown != only.client) || only.check().is_err() {
            return;
        }
        // An owner that has shown nothing itself, and whose predecessor's entry is gone, is an echo's: it bars nobody.
        if let Some(slot) = self.slots.get(&only.client)
            && slot.owner.is_some()
            && (slot.is_heard || slot.state.is_some() || slot.clock.is_none())
            && slot.clock.is_none_or(|clock| only.clock <= clock)
        {
            return;
        }
        if self.claim(session, only.client, now).is_ok()
            && let Some(joined) = self.sessions.get_mut(&session)
        {
            joined.shown = Some(only.client);
        }
    }

    fn trim_tombstones(&mut self) {
        while self.tombstones.len() > TOMBSTONES_MAX {
            let Some(&oldest) = self.tombstones.front() else {
                return;
            };
            match self.slots.get(&oldest) {
                // Readers have yet to be told that it is gone.
                Some(slot) if slot.owner.is_none() && slot.is_dirty => return,
                Some(slot) if slot.owner.is_none() => {
                    self.slots.remove(&oldest);
                }
                Some(_) | None => {}
            }
            self.tombstones.pop_front();
        }
    }
}

/// What an owner's entry is to the table.
enum Taken {
    /// To be relayed.
    News,
    /// Known, or overtaken by a later one (datagrams do that).
    Nothing,
    /// Readers would ignore it, for they hold this clock already.
    Hidden { clock: u64 },
}

impl<S> Slot<S> {
    /// Takes an entry of the owner.
    fn take(&mut self, entry: &Entry<'_>, now: Instant) -> Taken {
        let state = entry.state();
        let clock = match self.clock {
            Some(held) if entry.clock <= held => {
                let is_same = self.state.as_deref() == state;
                if state.is_none() && !is_same && (entry.clock == held || !self.is_heard) {
                    // Gone, at the clock that readers hold: the one case in which they take an equal clock.
                    held
                } else if self.is_heard || (is_same && entry.clock == held) {
                    self.is_heard |= is_same;
                    return Taken::Nothing;
                } else if state.is_none() {
                    return Taken::Nothing;
                } else {
                    return Taken::Hidden { clock: held };
                }
            }
            Some(_) | None => entry.clock,
        };
        let was_shown = self.state.is_some();
        self.is_changed |= self.state.as_deref() != state;
        self.is_heard = true;
        self.clock = Some(clock);
        self.renew_at = now + RENEW_AFTER;
        self.state = state.map(Into::into);
        self.n_removal_keyframes = match state {
            None if was_shown => REMOVAL_KEYFRAMES,
            None => self.n_removal_keyframes,
            Some(_) => 0,
        };
        if was_shown || state.is_some() {
            Taken::News
        } else {
            Taken::Nothing
        }
    }
}

fn mark<S>(dirty: &mut VecDeque<ClientId>, client: ClientId, slot: &mut Slot<S>) {
    if !slot.is_dirty {
        slot.is_dirty = true;
        dirty.push_back(client);
    }
}

#[cfg(test)]
#[path = "presence_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "presence_stock_tests.rs"]
mod stock_tests;
