//! What waits to be written to one member: bounded, coalescing, pure.
//!
//! The room fills it, the member's writer drains it; a slow member must cost a bounded amount of memory and delay
//! nobody. So each kind of thing has its own rule for "full":
//!
//! - updates: the queue of updates is dropped and the member is marked *behind*; when its writer has caught up it asks
//!   the room for one diff from the point at which it fell behind. Never is a single update dropped (a CRDT client with a
//!   hole shows nothing that depends on it);
//! - acknowledgements are cumulative: only the newest of each kind is kept;
//! - presence is idempotent and renewed by a keyframe: the oldest waiting message goes;
//! - application messages are not stored and carry no promise: the newest is refused and counted;
//! - answers that a client provokes faster than it reads them close the channel with `overloaded`.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::broadcast::Broadcast;
use super::member::{Closing, Out};
use crate::units;

/// Bounds of one member's outbox.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Bytes of updates that may wait for one member before its queue is replaced by one diff. Holds some 10,000
    /// keystrokes: far more than a healthy reader ever has waiting.
    #[serde(with = "units::size")]
    pub update_bytes_max: usize,
    /// Updates that may wait for one member, since each costs a queue entry however small it is.
    pub updates_max: usize,
    /// Bytes of presence that may wait for one member. Above it the oldest goes; the next keyframe heals.
    #[serde(with = "units::size")]
    pub presence_bytes_max: usize,
    /// Bytes of answers and application messages that may wait for one member.
    #[serde(with = "units::size")]
    pub reply_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            update_bytes_max: 512 << 10,
            updates_max: 8_192,
            presence_bytes_max: 64 << 10,
            reply_bytes_max: 256 << 10,
        }
    }
}

/// What became of something that was put into an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It waits to be written.
    Queued,
    /// The member is behind; the diff that it will get covers it.
    Behind,
    /// With this one the bound was passed: the member's queue was dropped and it is behind now.
    FellBehind,
    /// It was dropped by the rule of its kind.
    Dropped,
    /// The outbox is closing; nothing more is taken.
    Closed,
}

/// The queue of one member. See the module's header for the rules.
#[derive(Debug)]
pub struct Outbox {
    config: Config,
    items: VecDeque<Out>,
    update_bytes: usize,
    n_updates: usize,
    reply_bytes: usize,
    presence: VecDeque<Arc<Broadcast>>,
    presence_bytes: usize,
    seen: Option<u64>,
    durable: Option<u64>,
    behind: Option<Behind>,
    closing: Option<Closing>,
    closed: bool,
}

/// A member that missed updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Behind {
    /// The room's push number that the member has everything up to.
    has: u64,
    /// Whether the writer has asked the room for the diff.
    asked: bool,
}

/// What a writer takes out in one go, besides the items.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The member is behind and able to read again: ask the room for what came after this push number.
    pub catch_up_from: Option<u64>,
    /// Write the items, then this, then end.
    pub closing: Option<Closing>,
}

impl Outbox {
    /// An empty outbox.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            items: VecDeque::new(),
            update_bytes: 0,
            n_updates: 0,
            reply_bytes: 0,
            presence: VecDeque::new(),
            presence_bytes: 0,
            seen: None,
            durable: None,
            behind: None,
            closing: None,
            closed: false,
        }
    }

    /// Whether there is something for the writer to do.
    pub fn is_ready(&self) -> bool {
        !self.items.is_empty()
            || !self.presence.is_empty()
            || self.seen.is_some()
            || self.durable.is_some()
            || self.closing.is_some()
            || self.behind.is_some_and(|behind| !behind.asked)
    }

    /// A live update for this member.
    pub fn push_update(&mut self, update: Arc<Broadcast>) -> Pushed {
        if self.is_closing() {
            return Pushed::Closed;
        }
        if self.behind.is_some() {
            return Pushed::Behind;
        }
        if self.n_updates >= self.config.updates_max
            || self.update_bytes + update.len() > self.config.update_bytes_max
        {
            // Of what is dropped the first counts: it may be a diff that stands for much that came before it.
            let has = self
                .items
                .iter()
                .find_map(|item| match item {
                    Out::Update(waiting) => Some(waiting.from()),
                    _ => None,
                })
                .unwrap_or_else(|| update.from());
            self.items.retain(|item| !matches!(item, Out::Update(_)));
            self.items.shrink_to_fit();
            self.update_bytes = 0;
            self.n_updates = 0;
            self.behind = Some(Behind { has, asked: false });
            return Pushed::FellBehind;
        }
        self.update_bytes += update.len();
        self.n_updates += 1;
        self.items.push_back(Out::Update(update));
        Pushed::Queued
    }

    /// The diff that a member that was behind asked for. It may be larger than the bound: it is one, and it stands in
    /// place of everything missed.
    pub fn push_catch_up(&mut self, update: Arc<Broadcast>) -> Pushed {
        if self.is_closing() {
            return Pushed::Closed;
        }
        self.behind = None;
        self.update_bytes += update.len();
        self.n_updates += 1;
        self.items.push_back(Out::Update(update));
        Pushed::Queued
    }

    /// People's presence.
    pub fn push_presence(&mut self, presence: Arc<Broadcast>) -> Pushed {
        if self.is_closing() {
            return Pushed::Closed;
        }
        self.presence_bytes += presence.len();
        self.presence.push_back(presence);
        let mut pushed = Pushed::Queued;
        while self.presence_bytes > self.config.presence_bytes_max && self.presence.len() > 1 {
            if let Some(oldest) = self.presence.pop_front() {
                self.presence_bytes -= oldest.len();
                pushed = Pushed::Dropped;
            }
        }
        pushed
    }

    /// An application's message.
    pub fn push_message(&mut self, message: Arc<Broadcast>) -> Pushed {
        if self.is_closing() {
            return Pushed::Closed;
        }
        if self.reply_bytes + message.len() > self.config.reply_bytes_max {
            return Pushed::Dropped;
        }
        self.reply_bytes += message.len();
        self.items.push_back(Out::Message(message));
        Pushed::Queued
    }

    /// An answer to something that this member asked or did.
    pub fn push_reply(&mut self, reply: Out) -> Pushed {
        if self.is_closing() {
            return Pushed::Closed;
        }
        match reply {
            Out::Seen(sequence) => {
                debug_assert!(self.seen <= Some(sequence), "SEEN only grows");
                self.seen = Some(sequence);
            }
            Out::Durable(sequence) => {
                debug_assert!(self.durable <= Some(sequence), "DURABLE only grows");
                self.durable = Some(sequence);
            }
            Out::Closed(closing) => self.closing = Some(closing),
            other => {
                // The answer to OPEN and to a state vector may be the whole document; a client gets one at a time, since
                // it has to have read the last to send the next one usefully. Small answers are what a flood is made of.
                let cost = other.reply_cost();
                if self.reply_bytes + cost > self.config.reply_bytes_max {
                    self.closing = Some(Closing::overloaded_reader());
                    return Pushed::Dropped;
                }
                self.reply_bytes += cost;
                self.items.push_back(other);
            }
        }
        Pushed::Queued
    }

    /// Drops what waits and ends the writer: the session is gone.
    pub fn close(&mut self) {
        self.items.clear();
        self.presence.clear();
        self.closed = true;
    }

    /// Whether the writer should end without a last word.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Moves everything that waits to the end of `batch`, in the order in which it must be written.
    pub fn take(&mut self, batch: &mut Vec<Out>) -> Taken {
        batch.extend(self.items.drain(..));
        self.update_bytes = 0;
        self.n_updates = 0;
        self.reply_bytes = 0;
        batch.extend(self.seen.take().map(Out::Seen));
        batch.extend(self.durable.take().map(Out::Durable));
        batch.extend(self.presence.drain(..).map(Out::Presence));
        self.presence_bytes = 0;
        // A burst must not leave its capacity behind on ten thousand idle members.
        if self.items.capacity() > 64 {
            self.items.shrink_to(8);
        }
        let mut taken = Taken {
            catch_up_from: None,
            closing: self.closing.take(),
        };
        if taken.closing.is_some() {
            self.closed = true;
        } else if let Some(behind) = self.behind.as_mut().filter(|behind| !behind.asked) {
            behind.asked = true;
            taken.catch_up_from = Some(behind.has);
        }
        taken
    }

    fn is_closing(&self) -> bool {
        self.closed || self.closing.is_some()
    }
}

/// The bytes of an item that count against the bound of answers.
impl Out {
    fn reply_cost(&self) -> usize {
        const ENTRY: usize = 64;
        match self {
            Out::Rejected { text, .. } => ENTRY + text.len(),
            Out::SyncRequest(state_vector) => ENTRY + state_vector.len(),
            Out::Presence(everybody) => ENTRY + everybody.len(),
            Out::Opened(_)
            | Out::Missing(_)
            | Out::Access(_)
            | Out::Update(_)
            | Out::Message(_)
            | Out::Seen(_)
            | Out::Durable(_)
            | Out::Closed(_) => ENTRY,
        }
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
