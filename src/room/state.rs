//! The pure heart of a room: `(event, now)` in, effects out.
//!
//! No tokio, no I/O, no clock, no randomness: time and randomness are arguments, and what has to be done is returned as
//! [`Effect`]s that the actor carries out in order. So every rule of a room is tested by a list of events.
//!
//! Invariants:
//! - what brings no news is neither logged nor relayed, only acknowledged;
//! - an update is logged before it is relayed, and SEEN to its author goes out after both;
//! - DURABLE is said only for sequences whose rows (and every row that an update without news relied on) are committed;
//! - the acknowledgements of one member only grow and never skip an update that is parked.

mod positions;
mod presence;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::broadcast::Broadcast;
use super::config::Config;
use super::event::{Count, Effect, Event, Join, Kind, Refused, Submitted};
use super::member::{Closing, MemberId, Opened, Out};
use super::settle::Unsettled;
use crate::auth::Access;
use crate::doc::{Admission, AdmitError, Document, ParkId, Presence, RENEWAL_CHECK, TailUpdate};
use crate::ids::{Epoch, Origin};
use crate::protocol::close::ErrorCode;
use crate::protocol::position::Position;

#[derive(Debug)]
struct Member {
    user: Arc<str>,
    access: Access,
    unsettled: Unsettled,
    /// Whether the member's own answer of the handshake has come: only then may it be asked for more.
    answered: bool,
    /// A question is open.
    asked: bool,
    /// The push number at which it was asked last: never twice at one.
    asked_at: Option<u64>,
    /// An update was refused for a while: ask when edits are taken again.
    owes: bool,
}

/// A room without its shell. See the module's header.
#[derive(Debug)]
pub struct State {
    config: Config,
    document: Document,
    epoch: Epoch,
    origin: Origin,
    next_sequence: u64,
    durable: u64,
    members: BTreeMap<MemberId, Member>,
    presence: Presence<MemberId>,
    presence_due: Option<Instant>,
    presence_sent: Option<Instant>,
    presence_repeated: Option<Instant>,
    keyframe_due: Instant,
    renewal_due: Instant,
    parked_by: HashMap<ParkId, (MemberId, Arc<str>)>,
    accepting: bool,
    acks_due: Vec<MemberId>,
    effects: VecDeque<Effect>,
}

impl State {
    /// A room over a document as it was loaded. Rows of this origin that it holds are committed already.
    pub fn new(
        config: Config,
        document: Document,
        epoch: Epoch,
        origin: Origin,
        now: Instant,
    ) -> Self {
        let durable = document.position().get(origin);
        Self {
            keyframe_due: now + config.presence_keyframe,
            renewal_due: now + RENEWAL_CHECK,
            config,
            document,
            epoch,
            origin,
            next_sequence: durable + 1,
            durable,
            members: BTreeMap::new(),
            presence: Presence::new(),
            presence_due: None,
            presence_sent: None,
            presence_repeated: None,
            parked_by: HashMap::new(),
            accepting: true,
            acks_due: Vec::new(),
            effects: VecDeque::new(),
        }
    }

    /// The same, with sequences above `sequence`, up to which everything is taken for committed.
    #[must_use]
    pub fn counting_from(mut self, sequence: u64) -> Self {
        self.durable = self.durable.max(sequence);
        self.next_sequence = self.durable + 1;
        self
    }

    /// How many members are in.
    pub fn n_members(&self) -> usize {
        self.members.len()
    }

    /// Whether every edit that was logged is committed.
    pub fn is_durable(&self) -> bool {
        self.durable + 1 >= self.next_sequence
    }

    /// How many rows were logged and are not committed.
    pub fn n_uncommitted(&self) -> u64 {
        self.next_sequence - 1 - self.durable
    }

    /// The last sequence that was given out.
    pub fn last_sequence(&self) -> u64 {
        self.next_sequence - 1
    }

    /// The identity of the history.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The document's bytes, for counters and tests.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Whether the node takes edits now; while it does not, they are refused for a while.
    pub fn set_accepting(&mut self, accepting: bool) {
        self.accepting = accepting;
    }

    /// When the room next wants a [`Event::Tick`].
    pub fn next_tick(&self) -> Instant {
        self.next_presence()
    }

    /// The next thing to do; `None` when all is done.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Takes one event in. Follow a batch of them with [`State::finish`].
    pub fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Join(join) => self.join(join, now),
            Event::Update {
                member,
                sequence,
                kind,
                update,
            } => self.update(member, sequence, kind, update, now),
            Event::Missing {
                member,
                state_vector,
            } => {
                if self.members.contains_key(&member) {
                    let missing = self.document.diff(&state_vector);
                    self.reply(member, Out::Missing(missing));
                }
            }
            Event::Presence {
                member,
                update,
                trust,
            } => self.show(member, &update, trust, now),
            Event::QueryPresence(member) => self.tell_everybody(member),
            Event::Message { member, bytes } => {
                if self.members.contains_key(&member) {
                    self.effects.push_back(Effect::Message {
                        message: Arc::new(Broadcast::message(bytes)),
                        except: member,
                    });
                }
            }
            Event::CatchUp { member, has } => self.catch_up(member, has),
            Event::Leave(member) => self.leave(member, now),
            Event::Durable(up_to) => self.committed(up_to),
            Event::Compacted {
                snapshot,
                generation,
            } => self.compacted(&snapshot, generation, now),
            Event::Replaced(epoch) => self.replaced(epoch),
            Event::Tick => self.tick(now),
        }
    }

    /// Ends a batch of events: says the acknowledgements that they earned, once for each member.
    pub fn finish(&mut self) {
        let mut due = std::mem::take(&mut self.acks_due);
        due.sort_unstable();
        due.dedup();
        for id in due.drain(..) {
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            let settled = member.unsettled.settle(self.durable);
            if let Some(sequence) = settled.seen {
                self.effects
                    .push_back(Effect::Reply(id, Out::Seen(sequence)));
            }
            if let Some(sequence) = settled.durable {
                self.effects
                    .push_back(Effect::Reply(id, Out::Durable(sequence)));
            }
        }
        self.acks_due = due;
    }

    fn reply(&mut self, member: MemberId, out: Out) {
        self.effects.push_back(Effect::Reply(member, out));
    }

    fn count(&mut self, count: Count) {
        self.effects.push_back(Effect::Count(count));
    }

    fn join(&mut self, join: Join, now: Instant) {
        let id = join.member;
        if let Some(known) = join.known_epoch.filter(|known| *known != self.epoch) {
            // Nothing is merged: two histories of one name would double the content.
            let closing = Closing {
                replaced_by: Some(self.epoch),
                ..Closing::new(
                    ErrorCode::EpochMismatch,
                    format!(
                        "the document's history was replaced since this copy was made (the copy knows {known}); \
                         the copy is set aside, not merged"
                    ),
                )
            };
            self.reply(id, Out::Closed(closing));
            self.effects.push_back(Effect::Forget(id));
            return;
        }
        self.presence.join(id, join.user.clone());
        if let Some(client_id) = join.client_id {
            // A refusal costs the member its cursor under a client id that is not its own, and nothing else.
            let _ = self.presence.claim(id, client_id, now);
        }
        let missing = match (&join.position, &join.state_vector) {
            (Some(position), Some(state_vector)) => self
                .known_of(position)
                .and_then(|position| self.document.since(&position))
                .unwrap_or_else(|| self.document.diff(state_vector)),
            (None, Some(state_vector)) => self.document.diff(state_vector),
            (_, None) => Bytes::new(),
        };
        let opened = Opened {
            epoch: self.epoch,
            position: self.document.position().clone(),
            access: join.access,
            state_vector: self.document.encoded_state_vector(),
            missing,
            presence: self.presence.snapshot(join.client_id).unwrap_or_default(),
        };
        self.members.insert(
            id,
            Member {
                user: join.user,
                access: join.access,
                unsettled: Unsettled::default(),
                answered: false,
                asked: false,
                asked_at: None,
                owes: false,
            },
        );
        self.reply(id, Out::Opened(Box::new(opened)));
        if self.presence.is_dirty() {
            self.presence_changed(now);
        }
    }

    fn leave(&mut self, id: MemberId, now: Instant) {
        if self.members.remove(&id).is_some() {
            self.effects.push_back(Effect::Forget(id));
            self.presence.leave(id);
            if self.presence.is_dirty() {
                // At once: a ghost cursor is worse than one more message.
                self.presence_due = Some(now);
            }
        }
    }

    fn update(&mut self, id: MemberId, sequence: u64, kind: Kind, update: Submitted, now: Instant) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        if kind == Kind::Answer {
            member.answered = true;
            member.asked = false;
        }
        let access = member.access;
        let author = member.user.clone();
        let verdict = update.and_then(|scanned| {
            if access == Access::Read {
                // Nothing of a reader is taken in; what is known already is no offence (stock clients answer step 1).
                return if self.document.has_news(&scanned) {
                    Err(Refused::read_only())
                } else {
                    Ok(Admission::default())
                };
            }
            if !self.accepting {
                return Err(Refused::not_accepting());
            }
            self.document.admit(&scanned, now).map_err(|error| Refused {
                code: match error {
                    AdmitError::DocumentFull { .. } | AdmitError::TooManyClients { .. } => {
                        ErrorCode::TooLarge
                    }
                    _ => ErrorCode::InvalidUpdate,
                },
                text: error.to_string(),
                terminal: true,
            })
        });
        match verdict {
            Ok(admission) => {
                if admission.news.is_empty()
                    && admission.freed.is_empty()
                    && admission.parked.is_none()
                {
                    self.count(Count::NoNews);
                }
                for news in admission.news {
                    self.log_and_relay(news, &author, Some(id));
                }
                for freed in admission.freed {
                    let author = self
                        .parked_by
                        .get(&freed.piece)
                        .map_or_else(|| author.clone(), |(_, who)| who.clone());
                    self.log_and_relay(freed.news, &author, None);
                }
                self.settle_parked(&admission.resolved);
                let waits_for = self.next_sequence - 1;
                if let Some(member) = self.members.get_mut(&id) {
                    if kind == Kind::Answer && admission.parked.is_none() {
                        // The answer holds all that the member has and the room lacked: what was parked of it before is
                        // in, or was in the answer.
                        member.unsettled.all_known(waits_for);
                    }
                    member.unsettled.push(sequence, waits_for, admission.parked);
                }
                if let Some(park) = admission.parked {
                    self.parked_by.insert(park, (id, author));
                    self.count(Count::Parked);
                    self.ask(id);
                }
                // The piece that was just parked may be among them.
                self.drop_parked(&admission.dropped);
            }
            Err(refused) => {
                self.count(Count::Rejected(refused.code));
                if let Some(member) = self.members.get_mut(&id) {
                    member.owes |= !refused.terminal;
                    member.unsettled.push(sequence, 0, None);
                }
                self.reply(
                    id,
                    Out::Rejected {
                        sequence,
                        code: refused.code,
                        text: refused.text,
                        terminal: refused.terminal,
                    },
                );
            }
        }
        self.acks_due.push(id);
    }

    fn log_and_relay(&mut self, bytes: Bytes, author: &Arc<str>, except: Option<MemberId>) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.effects.push_back(Effect::Log {
            sequence,
            author: author.clone(),
            update: bytes.clone(),
        });
        self.push_and_relay(self.origin, sequence, bytes, except);
        self.count(Count::Admitted);
    }

    fn push_and_relay(
        &mut self,
        origin: Origin,
        sequence: u64,
        bytes: Bytes,
        except: Option<MemberId>,
    ) {
        self.document.push(TailUpdate {
            origin,
            sequence,
            bytes: bytes.clone(),
        });
        let position = Position::of(origin, sequence);
        self.effects.push_back(Effect::Relay {
            update: Arc::new(Broadcast::update(self.document.n_pushed(), position, bytes)),
            except,
        });
    }

    /// Asks a member for what the room lacks, by the rule of crdt.md section 2: only after its own answer of the
    /// handshake, one question at a time, never twice at an unchanged room (or two peers ask each other for ever).
    fn ask(&mut self, id: MemberId) {
        let at = self.document.n_pushed();
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        if !member.answered || member.asked || member.asked_at == Some(at) {
            return;
        }
        member.asked = true;
        member.asked_at = Some(at);
        let state_vector = self.document.encoded_state_vector();
        self.reply(id, Out::SyncRequest(state_vector));
    }

    fn settle_parked(&mut self, resolved: &[ParkId]) {
        let waits_for = self.next_sequence - 1;
        for park in resolved {
            if let Some((id, _)) = self.parked_by.remove(park)
                && let Some(member) = self.members.get_mut(&id)
            {
                member.unsettled.resolved(*park, waits_for);
                self.acks_due.push(id);
            }
        }
    }

    /// Pieces that were pushed out stay unacknowledged: their author is asked, and its answer settles them.
    fn drop_parked(&mut self, dropped: &[ParkId]) {
        for park in dropped {
            if let Some((id, _)) = self.parked_by.remove(park) {
                self.ask(id);
            }
        }
    }

    fn catch_up(&mut self, id: MemberId, has: u64) {
        if !self.members.contains_key(&id) {
            return;
        }
        let missed = self
            .document
            .since_push(has)
            .unwrap_or_else(|| self.document.full());
        let update = Broadcast::catch_up(
            has,
            self.document.n_pushed(),
            self.document.position().clone(),
            missed,
        );
        self.effects
            .push_back(Effect::CatchUp(id, Arc::new(update)));
    }

    fn committed(&mut self, up_to: u64) {
        debug_assert!(up_to >= self.durable, "what is durable only grows");
        debug_assert!(
            up_to < self.next_sequence,
            "nothing is durable before it is logged"
        );
        self.durable = self.durable.max(up_to);
        let waiting = self
            .members
            .iter()
            .filter(|(_, member)| !member.unsettled.is_empty())
            .map(|(id, _)| *id);
        self.acks_due.extend(waiting);
    }

    fn replaced(&mut self, epoch: Epoch) {
        let members: Vec<_> = self.members.keys().copied().collect();
        for id in members {
            let closing = Closing {
                replaced_by: Some(epoch),
                ..Closing::new(
                    ErrorCode::EpochMismatch,
                    "the document's history was replaced on the server; this copy is set aside, not merged",
                )
            };
            self.reply(id, Out::Closed(closing));
            self.effects.push_back(Effect::Forget(id));
            self.members.remove(&id);
        }
    }

    fn tick(&mut self, now: Instant) {
        if self.presence_tick(now) {
            let expired = self.document.expire_parked(now);
            self.drop_parked(&expired);
        }
        if self.accepting {
            let owing: Vec<_> = self
                .members
                .iter_mut()
                .filter(|(_, member)| member.owes)
                .map(|(id, member)| {
                    member.owes = false;
                    member.asked = false;
                    member.asked_at = None;
                    *id
                })
                .collect();
            for id in owing {
                self.ask(id);
            }
        }
    }
}
