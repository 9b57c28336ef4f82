//! How deep every item of a document lies, so that types nested without end are refused at the door.
//!
//! Deleting a type walks into its children by recursion in every Yjs implementation; 100,000 nested maps, each valid,
//! overflow the stack of whoever deletes the outermost. An item often says nothing of its parent but only names its
//! neighbours, so the depth of all items is kept, as runs per client: text typed into one place is one run.

use std::collections::BTreeMap;

use crate::ids::ClientId;

/// From this clock on (up to the next run), items lie this deep; children of a root are at 0.
#[derive(Clone, Copy, Debug)]
struct Run {
    clock: u32,
    depth: u32,
}

/// Runs per client. A client without runs has only items at depth 0.
#[derive(Clone, Debug, Default)]
pub(super) struct Nesting {
    clients: BTreeMap<ClientId, Vec<Run>>,
}

impl Nesting {
    /// The depth of a known item.
    #[inline]
    pub(super) fn depth(&self, client: ClientId, clock: u32) -> u32 {
        if self.clients.is_empty() {
            return 0;
        }
        let Some(runs) = self.clients.get(&client) else {
            return 0;
        };
        match runs.last() {
            Some(last) if last.clock <= clock => last.depth,
            _ => match runs.partition_point(|run| run.clock <= clock) {
                0 => 0,
                after => runs[after - 1].depth,
            },
        }
    }

    /// Notes the depth of a client's items from `clock`, its newest, on.
    #[inline]
    pub(super) fn note(&mut self, client: ClientId, clock: u32, depth: u32) {
        if depth == 0 && self.clients.is_empty() {
            return;
        }
        let Some(runs) = self.clients.get_mut(&client) else {
            if depth > 0 {
                self.clients.insert(client, vec![Run { clock, depth }]);
            }
            return;
        };
        if runs.last().map_or(0, |last| last.depth) != depth {
            runs.push(Run { clock, depth });
        }
    }

    /// Forgets what was noted of a client from `clock` on.
    pub(super) fn forget_from(&mut self, client: ClientId, clock: u32) {
        if let Some(runs) = self.clients.get_mut(&client) {
            runs.truncate(runs.partition_point(|run| run.clock < clock));
            if runs.is_empty() {
                self.clients.remove(&client);
            }
        }
    }
}
