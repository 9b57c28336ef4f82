//! The knobs of a room.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{compaction, outbox};
use crate::units;

/// What the operator may set for rooms. Every room has the same.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Time between two presence messages of a room. 33 ms is a cursor at 30 frames a second.
    #[serde(with = "units::duration")]
    pub presence_tick: Duration,
    /// Members per step above which presence is sampled: with twice as many the tick is twice as long, since what is
    /// sent grows with the square of the members.
    pub presence_crowd: usize,
    /// The longest presence tick, however large the crowd.
    #[serde(with = "units::duration")]
    pub presence_tick_max: Duration,
    /// Time between two full presence messages, which mend what slow members were spared and keep stock clients, which
    /// forget others after 30 s and close after 30 s of silence, content.
    #[serde(with = "units::duration")]
    pub presence_keyframe: Duration,
    /// Time that a room without members stays in memory. Long enough for a page reload, short enough that ten
    /// thousand visited documents do not stay.
    #[serde(with = "units::duration")]
    pub idle: Duration,
    /// Requests of members that may wait for a room. A full queue makes the members' sessions wait (they stop reading).
    pub inbox_max: usize,
    /// Bounds of each member's outbox.
    pub outbox: outbox::Config,
    /// When documents are compacted.
    pub compaction: compaction::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            presence_tick: Duration::from_millis(33),
            presence_crowd: 200,
            presence_tick_max: Duration::from_secs(1),
            presence_keyframe: Duration::from_secs(15),
            idle: Duration::from_secs(30),
            inbox_max: 1_024,
            outbox: outbox::Config::default(),
            compaction: compaction::Config::default(),
        }
    }
}

impl Config {
    /// The time between two presence messages with `n_members` in the room.
    pub fn presence_tick(&self, n_members: usize) -> Duration {
        let steps = n_members / self.presence_crowd.max(1) + 1;
        self.presence_tick
            .saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX))
            .min(self.presence_tick_max)
    }
}
