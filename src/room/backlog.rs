//! How much of a room's document lies in the log as rows, and whether it is time to compact. Pure.

use std::time::{Duration, Instant};

use super::compaction::Config;

/// The rows of one document that are in the log, as its room counts them.
#[derive(Debug)]
pub(super) struct Backlog {
    n_rows: u64,
    n_bytes: u64,
    snapshot_bytes: u64,
    /// When the oldest of the rows was logged or, if it was there before, found.
    oldest: Option<Instant>,
    /// After a failure: not earlier than this.
    not_before: Option<Instant>,
}

impl Backlog {
    /// As a load found it.
    pub(super) fn new(n_rows: u64, n_bytes: u64, snapshot_bytes: u64, now: Instant) -> Self {
        Self {
            n_rows,
            n_bytes,
            snapshot_bytes,
            oldest: (n_rows > 0).then_some(now),
            not_before: None,
        }
    }

    /// How many rows there are.
    pub(super) fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// Rows were logged.
    pub(super) fn logged(&mut self, n_rows: u64, n_bytes: u64, now: Instant) {
        self.n_rows += n_rows;
        self.n_bytes += n_bytes;
        self.oldest.get_or_insert(now);
    }

    /// A compaction that began at `since` left at most so many rows, and a snapshot of so many bytes.
    pub(super) fn compacted(&mut self, rest: (u64, u64), snapshot_bytes: u64, since: Instant) {
        self.snapshot_bytes = snapshot_bytes;
        self.found(rest, since);
    }

    /// There are at most so many rows, and none from before `since` that a compaction could take.
    pub(super) fn found(&mut self, (n_rows, n_bytes): (u64, u64), since: Instant) {
        self.n_rows = self.n_rows.min(n_rows);
        self.n_bytes = self.n_bytes.min(n_bytes);
        self.oldest = (self.n_rows > 0).then_some(since);
        self.not_before = None;
    }

    /// A compaction failed.
    pub(super) fn put_off(&mut self, until: Instant) {
        self.not_before = Some(until);
    }

    /// Whether it is time to compact, when so many of the rows are not committed yet.
    pub(super) fn is_due(&self, config: &Config, n_uncommitted: u64, now: Instant) -> bool {
        let n_committed = self.n_rows.saturating_sub(n_uncommitted);
        let share = self.snapshot_bytes / config.snapshot_share.max(1);
        let is_old = self.oldest.is_some_and(|oldest| oldest + config.age <= now);
        self.may(now)
            && n_committed >= config.rows_min
            && (n_committed >= config.rows
                || self.n_bytes >= share.max(config.bytes_min as u64)
                || is_old)
    }

    /// Whether a room that is about to close should compact first.
    pub(super) fn is_worth_closing(&self, config: &Config, now: Instant) -> bool {
        self.may(now) && self.n_rows >= config.rows_min
    }

    /// When to look again whether it is due, if nothing else happens: after a failure, or when the rows are old.
    pub(super) fn next_look(&self, config: &Config, now: Instant) -> Option<Instant> {
        let by_age = self.oldest? + config.age;
        let again = self.not_before.filter(|at| *at > now);
        (self.n_rows >= config.rows_min).then(|| again.unwrap_or(by_age))
    }

    fn may(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| at <= now)
    }
}

/// A time to wake at, for something that may stay due: never in the past, or its waiter would spin.
pub(super) fn not_in_the_past(at: Instant, now: Instant, recheck: Duration) -> Instant {
    if at > now { at } else { now + recheck }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::default()
    }

    #[test]
    fn st45_a_thousand_committed_rows_are_due() {
        let now = Instant::now();
        let mut backlog = Backlog::new(0, 0, 1 << 20, now);
        backlog.logged(config().rows + 10, 25_000, now);
        assert!(!backlog.is_due(&config(), 11, now), "not committed");
        assert!(backlog.is_due(&config(), 10, now));
    }

    #[test]
    fn st45_a_quarter_of_the_snapshot_is_due_from_a_minimum_on() {
        let now = Instant::now();
        let mut backlog = Backlog::new(0, 0, 1 << 20, now);
        backlog.logged(config().rows_min, 1 << 18, now);
        assert!(backlog.is_due(&config(), 0, now));
        let mut small = Backlog::new(0, 0, 1_000, now);
        small.logged(config().rows_min, 1_600, now);
        assert!(
            !small.is_due(&config(), 0, now),
            "a new document is not compacted all the time"
        );
        let mut few = Backlog::new(0, 0, 1_000, now);
        few.logged(config().rows_min - 1, 1 << 24, now);
        assert!(!few.is_due(&config(), 0, now));
    }

    #[test]
    fn st45_rows_are_not_left_for_long() {
        let now = Instant::now();
        let mut backlog = Backlog::new(0, 0, 0, now);
        backlog.logged(config().rows_min, 1_600, now);
        let due = backlog.next_look(&config(), now).unwrap();
        assert_eq!(due, now + config().age);
        assert!(!backlog.is_due(&config(), 0, due - Duration::from_millis(1)));
        assert!(backlog.is_due(&config(), 0, due));
        let later = due + Duration::from_secs(1);
        backlog.put_off(later);
        assert!(!backlog.is_due(&config(), 0, due));
        assert_eq!(backlog.next_look(&config(), due), Some(later));
        backlog.compacted((3, 75), 5_000, due);
        assert_eq!((backlog.n_rows(), backlog.n_bytes), (3, 75));
        assert!(!backlog.is_due(&config(), 0, later));
        assert_eq!(backlog.next_look(&config(), later), None);
    }
}
