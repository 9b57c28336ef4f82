//! The shell around [`State`]: one task per open document.
//!
//! It takes what has gathered in its inbox as one batch, writes the batch's rows to the journal in one write, hands them
//! to the committer, and only then carries out what tells of them (relays, SEEN). It waits for nothing but its inbox, its
//! timer, the durable mark and its own compaction: members' mailboxes never make it wait, and neither does the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tracing::{debug, error, info, warn};

use super::backlog::not_in_the_past;
use super::compaction::{Compacted, Compactor};
use super::event::{Count, Effect, Event, Join};
use super::member::{Closing, Mailbox, MemberId, Out};
use super::outbox::Pushed;
use super::registry::{Inner, Slot};
use super::state::State;
use crate::clock;
use crate::ids::{DocumentKey, Epoch};
use crate::protocol::close::ErrorCode;
use crate::store::{DocumentState, DurableMark, LogRow};

/// The most requests that one turn takes: what has gathered is answered together, and the durable mark and the timer
/// get their turn in between.
const BATCH_MAX: usize = 256;

/// How often the room looks again at what nobody tells it: whether the node takes edits again, whether it can close.
const RECHECK: Duration = Duration::from_millis(250);

/// What reaches a room.
#[derive(Debug)]
pub(super) enum Request {
    /// A member wants in, with the mailbox that the room speaks to it through.
    Join(Join, Arc<Mailbox>),
    /// Anything else.
    Event(Event),
}

/// tokio's clock, which tests can pause.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The task of one room.
#[derive(Debug)]
pub(super) struct Actor {
    pub(super) key: DocumentKey,
    pub(super) state: State,
    pub(super) inbox: mpsc::Receiver<Request>,
    pub(super) mailboxes: HashMap<MemberId, Arc<Mailbox>>,
    pub(super) mark: Arc<DurableMark>,
    pub(super) slot: Arc<Slot>,
    pub(super) node: Arc<Inner>,
    pub(super) empty_since: Instant,
    pub(super) merges_counted: u64,
    pub(super) bytes_counted: u64,
    pub(super) compactor: Compactor,
    pub(super) gone: Vec<MemberId>,
    /// What members hear when the task ends with them still in.
    pub(super) last_word: Closing,
}

impl Actor {
    /// Runs until the room retires, its history is replaced, or the node stops.
    pub(super) async fn run(mut self) {
        let _open = self.node.metrics.rooms_open.hold();
        debug!(document = %self.key, "room opened");
        let scope = self.node.scope.clone();
        let mut batch = Vec::with_capacity(16);
        loop {
            let wake = self.next_wake();
            tokio::select! {
                biased;
                () = scope.stopping() => {
                    // Sessions are gone by now; what they handed over last is still kept.
                    while let Ok(request) = self.inbox.try_recv() {
                        self.take(request);
                    }
                    self.state.finish();
                    self.carry_out().await;
                    self.last_word = Closing::new(ErrorCode::ShuttingDown, "the server is stopping");
                    return;
                }
                () = self.mark.changed() => {
                    if self.mark.replaced() {
                        self.replaced().await;
                        return;
                    }
                    let durable = self.mark.durable();
                    self.handle(Event::Durable(durable));
                }
                compacted = self.compactor.finished(&self.node, &self.key) => {
                    if let Some(compacted) = compacted {
                        self.compacted(*compacted);
                    }
                }
                n = self.inbox.recv_many(&mut batch, BATCH_MAX) => {
                    if n == 0 {
                        return;
                    }
                    self.state.set_accepting(self.node.committer.has_room());
                    for request in batch.drain(..) {
                        self.take(request);
                    }
                    batch.shrink_to(16);
                }
                () = sleep_until(wake.into()) => {
                    self.state.set_accepting(self.node.committer.has_room());
                    self.handle(Event::Tick);
                }
            }
            self.state.finish();
            self.carry_out().await;
            self.compact_if_due();
            if self.retires() {
                debug!(document = %self.key, "idle room closed");
                return;
            }
        }
    }

    fn handle(&mut self, event: Event) {
        self.state.handle(event, now());
    }

    fn compacted(&mut self, compacted: Compacted) {
        self.handle(Event::Compacted {
            snapshot: compacted.snapshot,
            generation: compacted.generation,
        });
    }

    fn compact_if_due(&mut self) {
        let (epoch, n_uncommitted) = (self.state.epoch(), self.state.n_uncommitted());
        self.compactor
            .start_if_due(&self.node, &self.key, epoch, n_uncommitted, now());
        self.compactor.count(&self.node, true);
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Join(join, mailbox) => {
                self.mailboxes.insert(join.member, mailbox);
                self.node.metrics.joins.inc();
                self.handle(Event::Join(join));
            }
            Request::Event(event) => self.handle(event),
        }
    }

    fn next_wake(&self) -> Instant {
        let now = now();
        let mut wake = self.state.next_tick();
        if self.state.n_members() == 0 && !self.compactor.is_running() {
            let idle = self.empty_since + self.node.config.idle;
            wake = wake.min(not_in_the_past(idle, now, RECHECK));
        }
        if !self.node.committer.has_room() {
            wake = wake.min(now + RECHECK);
        }
        let compaction = &self.node.config.compaction;
        self.compactor
            .next_wake(compaction, now, RECHECK)
            .map_or(wake, |due| wake.min(due))
    }

    /// Carries out the effects of a batch: rows first, then what tells of them.
    async fn carry_out(&mut self) {
        let mut rows = Vec::new();
        let mut rest = Vec::new();
        while let Some(effect) = self.state.poll_effect() {
            match effect {
                Effect::Log {
                    sequence,
                    author,
                    update,
                } => rows.push(LogRow {
                    key: self.key.clone(),
                    epoch: self.state.epoch(),
                    origin: self.node.origin,
                    sequence,
                    author,
                    time_ms: clock::unix_millis(),
                    update,
                }),
                other => rest.push(other),
            }
        }
        if let Some(last) = rows.last().map(|row| row.sequence) {
            self.log(rows, last).await;
        }
        for effect in rest {
            self.perform(effect);
        }
        self.forget_the_gone();
        let merges = self.state.document().n_merges();
        self.node
            .metrics
            .room_merges
            .add(merges - self.merges_counted);
        self.merges_counted = merges;
        self.count_bytes(self.state.document().size_bytes() as u64);
    }

    /// Journals rows and hands them to the committer. When the journal cannot be written, nothing may be told of the rows
    /// before the store has them: what another person saw must survive a kill of this process.
    async fn log(&mut self, rows: Vec<LogRow>, last: u64) {
        let n_bytes = rows.iter().map(|row| row.update.len() as u64).sum();
        self.compactor.logged(rows.len() as u64, n_bytes, now());
        match self.node.journal.append(&rows) {
            Ok(segment) => {
                self.node.metrics.journal_records.add(rows.len() as u64);
                self.node.committer.submit(rows, Some(segment), &self.mark);
            }
            Err(cause) => {
                error!(document = %self.key, %cause, "write the journal; edits wait for the store instead");
                self.node.committer.submit(rows, None, &self.mark);
                let scope = self.node.scope.clone();
                while self.mark.durable() < last && !self.mark.replaced() {
                    tokio::select! {
                        () = scope.stopping() => return,
                        () = self.mark.changed() => {}
                    }
                }
                // The mark's news was taken here: the state has to hear of it too.
                let durable = self.mark.durable();
                self.handle(Event::Durable(durable));
                self.state.finish();
            }
        }
    }

    /// A session says that it leaves; one that died by a defect only leaves a closed mailbox.
    fn forget_the_gone(&mut self) {
        for id in std::mem::take(&mut self.gone) {
            self.handle(Event::Leave(id));
            while let Some(effect) = self.state.poll_effect() {
                self.perform(effect);
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Log { .. } => {
                unreachable!("rows are taken out of a batch before anything tells of them")
            }
            Effect::Relay { update, except } => {
                let mut n_relayed = 0;
                for (id, mailbox) in &self.mailboxes {
                    if Some(*id) == except {
                        continue;
                    }
                    match mailbox.put(|outbox| outbox.push_update(update.clone())) {
                        Pushed::FellBehind => {
                            self.node.metrics.resyncs.inc();
                            debug!(document = %self.key, member = id.0, "a slow member fell behind");
                        }
                        Pushed::Queued => n_relayed += 1,
                        Pushed::Closed => self.gone.push(*id),
                        Pushed::Behind | Pushed::Dropped => {}
                    }
                }
                self.node.metrics.relayed_frames.add(n_relayed);
            }
            Effect::Presence(presence) => {
                for (id, mailbox) in &self.mailboxes {
                    if mailbox.put(|outbox| outbox.push_presence(presence.clone()))
                        == Pushed::Closed
                    {
                        self.gone.push(*id);
                    }
                }
                self.node
                    .metrics
                    .presence_out
                    .add(self.mailboxes.len() as u64);
            }
            Effect::Message { message, except } => {
                for (id, mailbox) in &self.mailboxes {
                    if *id != except {
                        mailbox.put(|outbox| outbox.push_message(message.clone()));
                    }
                }
            }
            Effect::Reply(id, out) => {
                if let Some(mailbox) = self.mailboxes.get(&id) {
                    mailbox.reply(out);
                }
            }
            Effect::CatchUp(id, update) => {
                if let Some(mailbox) = self.mailboxes.get(&id) {
                    mailbox.put(|outbox| outbox.push_catch_up(update));
                }
            }
            Effect::Forget(id) => {
                self.mailboxes.remove(&id);
                if self.mailboxes.is_empty() {
                    self.empty_since = now();
                }
            }
            Effect::Count(count) => self.count(count),
        }
    }

    fn count(&self, count: Count) {
        let metrics = &self.node.metrics;
        match count {
            Count::Admitted => metrics.updates_admitted.inc(),
            Count::NoNews => metrics.updates_without_news.inc(),
            Count::Parked => metrics.updates_parked.inc(),
            Count::Rejected(code) => metrics.updates_rejected.inc([code.name()]),
        }
    }

    /// Whether the room has nothing left to be open for; it is out of the registry then. Never before everything logged
    /// is committed: a room opened again reads the store.
    fn retires(&mut self) -> bool {
        let now = now();
        if !self.mailboxes.is_empty()
            || !self.state.is_durable()
            || now < self.empty_since + self.node.config.idle
        {
            return false;
        }
        let epoch = self.state.epoch();
        if self.compactor.holds_open(&self.node, &self.key, epoch, now) {
            return false;
        }
        self.node.gave_out(self.state.last_sequence());
        self.node.remove_if_unused(&self.key, &self.slot)
    }

    fn count_bytes(&mut self, n_bytes: u64) {
        self.node
            .metrics
            .document_bytes
            .moved(self.bytes_counted, n_bytes);
        self.bytes_counted = n_bytes;
    }

    /// The store holds another history under this name, or none.
    async fn replaced(&mut self) {
        self.node.remove(&self.key, &self.slot);
        let found = self.node.store.load(&self.key, Epoch::random()).await;
        match found {
            Ok(loaded) if loaded.state == DocumentState::Deleted => {
                info!(document = %self.key, "the document was deleted; its members are told");
                self.last_word = Closing::new(ErrorCode::NotFound, "this document was deleted");
                return;
            }
            Ok(loaded) => {
                info!(document = %self.key, "the document's history was replaced; its members are told");
                self.handle(Event::Replaced(loaded.epoch));
                self.carry_out().await;
            }
            Err(cause) => {
                warn!(document = %self.key, %cause, "read the epoch of a replaced document");
            }
        }
        // Whoever is on the way in knows nothing of the old history, or finds out when it opens again.
        self.last_word = Closing::new(ErrorCode::Overloaded, "the document is being opened again");
    }
}

/// However the task ends, by a defect too, nobody is left waiting for a room that is gone.
impl Drop for Actor {
    fn drop(&mut self) {
        self.compactor.count(&self.node, false);
        self.count_bytes(0);
        self.node.gave_out(self.state.last_sequence());
        self.node.remove(&self.key, &self.slot);
        self.inbox.close();
        while let Ok(request) = self.inbox.try_recv() {
            if let Request::Join(_, mailbox) = request {
                mailbox.reply(Out::Closed(self.last_word.clone()));
            }
        }
        for mailbox in self.mailboxes.values() {
            mailbox.reply(Out::Closed(self.last_word.clone()));
        }
    }
}
