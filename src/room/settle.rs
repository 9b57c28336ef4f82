//! The acknowledgements that one member is owed.
//!
//! A member numbers its updates; SEEN and DURABLE are cumulative. Each update waits for a sequence of the room's log: its
//! own row, or, when it brought no news, the newest row there was (the row that made it known may not be committed yet).
//! A parked update is not seen until it is admitted, and holds back what comes after it.

use std::collections::VecDeque;

use crate::doc::ParkId;

#[derive(Debug, Clone, Copy)]
struct Waiting {
    sequence: u64,
    waits_for: u64,
    parked: Option<ParkId>,
}

/// The updates of one member that are not settled.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    queue: VecDeque<Waiting>,
    /// How many of the queue's first are not parked. While the store is away the queue grows, and nothing may walk it whole.
    n_seen: usize,
    seen: u64,
}

/// What became true since the last time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// Everything up to this sequence is seen, when that is news.
    pub(super) seen: Option<u64>,
    /// Everything up to this sequence is durable, when that is news.
    pub(super) durable: Option<u64>,
}

impl Unsettled {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// An update that is durable once the log is committed up to `waits_for`, and seen once it is not parked.
    pub(super) fn push(&mut self, sequence: u64, waits_for: u64, parked: Option<ParkId>) {
        self.queue.push_back(Waiting {
            sequence,
            waits_for,
            parked,
        });
    }

    /// A parked piece was admitted; its rows end at `waits_for`.
    pub(super) fn resolved(&mut self, park: ParkId, waits_for: u64) {
        for waiting in self.queue.range_mut(self.n_seen..) {
            if waiting.parked == Some(park) {
                waiting.parked = None;
                waiting.waits_for = waits_for;
            }
        }
    }

    /// Everything that the member ever sent is known to the room, in rows up to `waits_for`.
    pub(super) fn all_known(&mut self, waits_for: u64) {
        for waiting in self.queue.range_mut(self.n_seen..) {
            if waiting.parked.take().is_some() {
                waiting.waits_for = waits_for;
            }
        }
    }

    /// Settles what can be settled when the log is committed up to `durable`.
    pub(super) fn settle(&mut self, durable: u64) -> Settled {
        let mut settled = Settled::default();
        while let Some(next) = self.queue.get(self.n_seen)
            && next.parked.is_none()
        {
            self.n_seen += 1;
            if next.sequence > self.seen {
                self.seen = next.sequence;
                settled.seen = Some(next.sequence);
            }
        }
        while let Some(front) = self
            .queue
            .front()
            .filter(|front| self.n_seen > 0 && front.waits_for <= durable)
        {
            settled.durable = Some(front.sequence);
            self.queue.pop_front();
            self.n_seen -= 1;
        }
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(seen: Option<u64>, durable: Option<u64>) -> Settled {
        Settled { seen, durable }
    }

    #[test]
    fn acknowledgements_are_cumulative_and_wait_for_the_commit() {
        let mut member = Unsettled::default();
        member.push(1, 10, None);
        member.push(2, 12, None);
        assert_eq!(member.settle(9), settled(Some(2), None));
        assert_eq!(member.settle(11), settled(None, Some(1)));
        assert_eq!(member.settle(12), settled(None, Some(2)));
        assert!(member.is_empty());
    }

    #[test]
    fn an_update_without_news_waits_for_the_row_that_made_it_known() {
        let mut member = Unsettled::default();
        member.push(1, 7, None);
        assert_eq!(member.settle(6), settled(Some(1), None));
        assert_eq!(member.settle(7), settled(None, Some(1)));
    }

    #[test]
    fn a_parked_update_holds_back_seen_and_durable_of_all_after_it() {
        let park = ParkId::from_number(3);
        let mut member = Unsettled::default();
        member.push(1, 1, None);
        member.push(2, 1, Some(park));
        member.push(3, 2, None);
        assert_eq!(member.settle(2), settled(Some(1), Some(1)));
        member.resolved(park, 5);
        assert_eq!(member.settle(4), settled(Some(3), None));
        assert_eq!(member.settle(5), settled(None, Some(3)));
    }

    #[test]
    fn an_answer_that_is_all_known_settles_what_was_dropped_from_the_parked() {
        let mut member = Unsettled::default();
        member.push(1, 1, Some(ParkId::from_number(1)));
        member.all_known(4);
        member.push(2, 4, None);
        assert_eq!(member.settle(4), settled(Some(2), Some(2)));
    }
}
