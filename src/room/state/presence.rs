//! When a room tells of its people, and how sure: PR7 and PR8 of `protocol/PROTOCOL.md`.
//!
//! States change many times a second and go out as hints, the latest of each once a tick; a hint may be lost. What no
//! newer hint would mend is said for sure: that somebody is gone, at once, and the last word of a burst, once it has
//! settled, to those to whom it went by a path that may have lost it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::State;
use crate::doc::{RENEWAL_CHECK, Trust};
use crate::protocol::awareness::AwarenessUpdate;
use crate::room::broadcast::Broadcast;
use crate::room::event::Effect;
use crate::room::member::{MemberId, Out};

/// Time between two repeats of a room: what settles meanwhile shares one.
const REPEAT_GAP: Duration = Duration::from_millis(200);

impl State {
    pub(super) fn show(
        &mut self,
        id: MemberId,
        update: &AwarenessUpdate,
        trust: Trust,
        now: Instant,
    ) {
        let applied = self.presence.apply(id, update, trust, now);
        if let Some(poke) = applied.poke {
            self.poke(id, poke);
        }
        if !applied.accepted.is_empty() {
            self.presence_changed(now);
        }
    }

    pub(super) fn tell_everybody(&mut self, id: MemberId) {
        if self.members.contains_key(&id)
            && let Some(everybody) = self.presence.snapshot(None)
        {
            self.reply(id, Out::Presence(Arc::new(Broadcast::presence(everybody))));
        }
    }

    /// Latest wins per tick: the first change after a quiet time goes out at once, then one message a tick.
    pub(super) fn presence_changed(&mut self, now: Instant) {
        let due = self.presence_sent.map_or(now, |sent| {
            now.max(sent + self.config.presence_tick(self.members.len()))
        });
        self.presence_due = Some(self.presence_due.map_or(due, |before| before.min(due)));
    }

    /// When presence next wants a tick.
    pub(super) fn next_presence(&self) -> Instant {
        let renewal = (self.presence.n_shown() > 0).then_some(self.renewal_due);
        [self.presence_due, self.repeat_due(), renewal]
            .into_iter()
            .flatten()
            .fold(self.keyframe_due, Instant::min)
    }

    /// Says what is due. True once in every time between two keyframes.
    pub(super) fn presence_tick(&mut self, now: Instant) -> bool {
        if self.renewal_due <= now {
            self.renewal_due = now + RENEWAL_CHECK;
            for (owner, poke) in self.presence.renewals(now) {
                self.poke(owner, poke);
            }
        }
        let is_keyframe = self.keyframe_due <= now;
        if is_keyframe {
            self.keyframe_due = now + self.config.presence_keyframe;
            if let Some(table) = self.presence.keyframe() {
                self.tell(Broadcast::presence(table));
            }
            self.presence_due = None;
        }
        if self.presence_due.is_some_and(|due| due <= now) {
            self.presence_due = None;
            if let Some(changes) = self.presence.take_changes(now) {
                self.presence_sent = Some(now);
                if let Some(gone) = changes.gone {
                    self.tell(Broadcast::presence(gone));
                }
                if let Some(shown) = changes.shown {
                    self.tell(Broadcast::presence_hint(changes.number, shown));
                }
            }
            if self.presence.is_dirty() {
                self.presence_changed(now);
            }
        }
        if self.repeat_due().is_some_and(|due| due <= now)
            && let Some(settled) = self.presence.take_settled(now)
        {
            self.presence_repeated = Some(now);
            self.tell(Broadcast::presence_repeat(settled.since, settled.update));
        }
        is_keyframe
    }

    fn repeat_due(&self) -> Option<Instant> {
        let settles_at = self.presence.settles_at()?;
        let gap = REPEAT_GAP.max(self.config.presence_tick(self.members.len()));
        let not_before = self.presence_repeated.map(|repeated| repeated + gap);
        Some(not_before.map_or(settles_at, |not_before| settles_at.max(not_before)))
    }

    fn poke(&mut self, id: MemberId, poke: Bytes) {
        self.reply(id, Out::Presence(Arc::new(Broadcast::presence(poke))));
    }

    fn tell(&mut self, presence: Broadcast) {
        self.effects.push_back(Effect::Presence(Arc::new(presence)));
    }
}
