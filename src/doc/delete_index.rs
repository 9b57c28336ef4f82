//! Everything that is deleted in a document, as merged ranges per client.
//!
//! It answers in logarithmic time whether a deletion is news, so that a hundred clients that reconnect with a whole
//! delete set each neither grow the log nor are relayed; and it is the delete set of every full state and diff.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::doc::content::write_uint;
use crate::doc::scan::Scanned;
use crate::ids::ClientId;

/// A deleted range: the units of `client` from `start` up to but not including `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DeletedRange {
    pub(super) client: ClientId,
    pub(super) start: u32,
    pub(super) end: u32,
}

/// Disjoint, never touching ranges. A tree per client and not a sorted list, since a stranger chooses where to insert.
#[derive(Clone, Debug, Default)]
pub(super) struct DeleteIndex {
    clients: BTreeMap<ClientId, BTreeMap<u32, u32>>,
    n_ranges: usize,
    encoded: Option<Bytes>,
}

impl DeleteIndex {
    /// How many ranges it holds.
    pub(super) fn n_ranges(&self) -> usize {
        self.n_ranges
    }

    /// Takes a range in, and appends to `news` the parts that were not deleted before.
    pub(super) fn insert(&mut self, range: DeletedRange, news: &mut Vec<DeletedRange>) {
        let DeletedRange { client, start, end } = range;
        let ranges = self.clients.entry(client).or_default();
        let mut merged_start = start;
        let mut reached = start;
        if let Some((&before, &before_end)) = ranges.range(..=start).next_back() {
            if before_end >= end {
                return;
            }
            if before_end >= start {
                merged_start = before;
                reached = before_end;
            }
        }
        let mut merged_end = end;
        while let Some((&next, &next_end)) =
            ranges.range(merged_start.saturating_add(1)..=end).next()
        {
            if next > reached {
                news.push(DeletedRange {
                    client,
                    start: reached,
                    end: next,
                });
            }
            reached = next_end;
            merged_end = merged_end.max(next_end);
            ranges.remove(&next);
            self.n_ranges -= 1;
        }
        if reached < end {
            news.push(DeletedRange {
                client,
                start: reached,
                end,
            });
        }
        if ranges.insert(merged_start, merged_end).is_none() {
            self.n_ranges += 1;
        }
        self.encoded = None;
    }

    /// Takes in everything that an update deletes: its delete set, and what its GC and Deleted structs imply. Appends to
    /// `news` the parts that were not deleted before.
    pub(super) fn insert_news(&mut self, update: &Scanned, news: &mut Vec<DeletedRange>) {
        update.for_each_dead(|range| self.insert(range, news));
        update.for_each_delete(|client, start, end| {
            self.insert(DeletedRange { client, start, end }, news);
        });
    }

    /// [`insert_news`](Self::insert_news) for who does not ask what was news.
    pub(super) fn insert_all(&mut self, update: &Scanned) {
        self.insert_news(update, &mut Vec::new());
    }

    /// Calls `each` for every range, clients ascending.
    pub(super) fn for_each(&self, mut each: impl FnMut(DeletedRange)) {
        for (&client, ranges) in &self.clients {
            for (&start, &end) in ranges {
                each(DeletedRange { client, start, end });
            }
        }
    }

    /// The deleted ranges of a client that reach into `start..end`, ascending, cut to it.
    pub(super) fn within(
        &self,
        client: ClientId,
        start: u32,
        end: u32,
    ) -> impl Iterator<Item = (u32, u32)> + '_ {
        let ranges = self.clients.get(&client);
        let first = ranges
            .and_then(|ranges| ranges.range(..=start).next_back())
            .map_or(start, |(first, _)| *first);
        ranges
            .into_iter()
            .flat_map(move |ranges| ranges.range(first..end))
            .map(move |(&from, &to)| (from.max(start), to.min(end)))
            .filter(|(from, to)| from < to)
    }

    /// Whether all of a range is deleted already.
    pub(super) fn covers(&self, range: DeletedRange) -> bool {
        self.clients
            .get(&range.client)
            .and_then(|ranges| ranges.range(..=range.start).next_back())
            .is_some_and(|(_, end)| *end >= range.end)
    }

    /// The delete set in wire form, kept until the next deletion.
    pub(super) fn encoded(&mut self) -> Bytes {
        if let Some(encoded) = &self.encoded {
            return encoded.clone();
        }
        let mut out = Vec::with_capacity(8 + 4 * self.n_ranges);
        write_uint(&mut out, self.clients.len() as u64);
        for (client, ranges) in self.clients.iter().rev() {
            write_uint(&mut out, *client);
            write_uint(&mut out, ranges.len() as u64);
            for (start, end) in ranges {
                write_uint(&mut out, u64::from(*start));
                write_uint(&mut out, u64::from(end - start));
            }
        }
        let encoded = Bytes::from(out);
        self.encoded = Some(encoded.clone());
        encoded
    }
}

/// Appends a delete set of any ranges: they are sorted (clients descending, as Yjs writes them), and joined.
pub(super) fn write_deletes(out: &mut Vec<u8>, ranges: &mut Vec<DeletedRange>) {
    ranges.sort_unstable_by_key(|range| (std::cmp::Reverse(range.client), range.start));
    ranges.dedup_by(|next, kept| {
        let joins = next.client == kept.client && next.start <= kept.end;
        if joins {
            kept.end = kept.end.max(next.end);
        }
        joins
    });
    let n_clients = ranges.chunk_by(|a, b| a.client == b.client).count();
    write_uint(out, n_clients as u64);
    for of_client in ranges.chunk_by(|a, b| a.client == b.client) {
        write_uint(out, of_client[0].client);
        write_uint(out, of_client.len() as u64);
        for range in of_client {
            write_uint(out, u64::from(range.start));
            write_uint(out, u64::from(range.end - range.start));
        }
    }
}

/// An update that only deletes.
pub(super) fn delete_only_update(ranges: &mut Vec<DeletedRange>) -> Bytes {
    let mut out = vec![0];
    write_deletes(&mut out, ranges);
    out.into()
}

#[cfg(test)]
#[path = "delete_index_tests.rs"]
mod tests;
