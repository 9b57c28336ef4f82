//! What a document knows (state vector, deletions, nesting), and the judgement of an update against it, struct by struct.
//!
//! A struct is admissible when its client's clock is reached and its origins and parent are known or come in the same
//! update. What is admissible goes in, as far as each client section reaches; only the rest waits. Parking whole updates
//! instead would lose every offline edit of a client that itself holds pending structs.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::doc::admit::AdmitError;
use crate::doc::content::{Cursor, Id, Kind, Parent, Struct, VALUE_NESTING_MAX, write_uint};
use crate::doc::delete_index::{DeleteIndex, DeletedRange, delete_only_update, write_deletes};
use crate::doc::nesting::Nesting;
use crate::doc::scan::{Scanned, Section};
use crate::doc::state_vector::StateVector;
use crate::doc::writer::UpdateWriter;
use crate::ids::ClientId;

/// What a stranger's update may make of a document; `usize::MAX` for bytes of our own store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) clients_max: usize,
    pub(super) nesting_max: usize,
}

/// What became of an update.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken {
    /// What was new of it: the same bytes, or a trimmed update.
    pub(super) news: Option<Bytes>,
    /// Deletions that its GC and Deleted structs implied and nobody had mentioned, as a delete-only update.
    pub(super) growth: Option<Bytes>,
    /// What cannot go in yet.
    pub(super) rest: Option<Rest>,
}

/// The part of an update that waits.
#[derive(Clone, Debug)]
pub(super) struct Rest {
    pub(super) bytes: Bytes,
    /// It is worth another try when the clock of any of these clients is reached.
    pub(super) needs: Vec<Need>,
}

/// The clock that something waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Need {
    pub(super) client: ClientId,
    pub(super) clock: u32,
}

/// What a document knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    pub(super) state: StateVector,
    pub(super) deletes: DeleteIndex,
    nesting: Nesting,
}

/// How far a section went in.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// The next struct: its byte and clock, and how many are left from it on.
    at: usize,
    clock: u32,
    n_left: u32,
    /// The client's known clock before this update, and now.
    known_before: u32,
    known: u32,
    /// The first struct with news; `cut` units of it were known.
    taken_from: usize,
    cut: u32,
    n_taken: u32,
    /// The byte after the last struct with news.
    taken_to: usize,
    blocked: Option<Need>,
}

impl Progress {
    fn new(section: &Section, known: u32) -> Self {
        Self {
            at: section.from as usize,
            clock: section.clock,
            n_left: section.n,
            known_before: known,
            known,
            taken_from: section.from as usize,
            cut: 0,
            n_taken: 0,
            taken_to: section.from as usize,
            blocked: None,
        }
    }

    fn is_whole(&self, section: &Section) -> bool {
        self.n_taken == section.n && self.cut == 0
    }
}

impl Ledger {
    /// Takes what is admissible of an update. On an error nothing has changed.
    pub(super) fn take(&mut self, update: &Scanned, bounds: Bounds) -> Result<Taken, AdmitError> {
        let mut implied = Vec::new();
        match update.sections() {
            [] => self.finish(update, &[], &implied),
            [section] => {
                let known = self.state.get(section.client) as u32;
                let mut progress = Progress::new(section, known);
                self.advance(update, section, &mut progress, bounds, &mut implied)?;
                self.finish(update, std::slice::from_ref(&progress), &implied)
            }
            sections => {
                let progress = self.advance_all(update, sections, bounds, &mut implied)?;
                self.finish(update, &progress, &implied)
            }
        }
    }

    /// Sections may wait for one another in any order: each is advanced as far as it goes, and again when the section
    /// that it waits for has come far enough. Every wait is entered once, so this stays linear but for a logarithm.
    fn advance_all(
        &mut self,
        update: &Scanned,
        sections: &[Section],
        bounds: Bounds,
        implied: &mut Vec<DeletedRange>,
    ) -> Result<Vec<Progress>, AdmitError> {
        let mut progress: Vec<Progress> = sections
            .iter()
            .map(|section| Progress::new(section, self.state.get(section.client) as u32))
            .collect();
        // (the section waited for, the clock that it must reach, the section that waits)
        let mut waits: BTreeSet<(usize, u32, usize)> = BTreeSet::new();
        let mut runnable: Vec<usize> = (0..sections.len()).rev().collect();
        while let Some(index) = runnable.pop() {
            let known_before = progress[index].known;
            let advanced = self.advance(
                update,
                &sections[index],
                &mut progress[index],
                bounds,
                implied,
            );
            if let Err(error) = advanced {
                self.undo(sections, &progress);
                return Err(error);
            }
            let Progress { known, blocked, .. } = progress[index];
            if let Some(need) = blocked {
                let other = sections.binary_search_by(|section| need.client.cmp(&section.client));
                if let Ok(other) = other
                    && other != index
                {
                    waits.insert((other, need.clock, index));
                }
            }
            if known > known_before {
                let ready: Vec<_> = waits
                    .range((index, 0, 0)..=(index, known, usize::MAX))
                    .copied()
                    .collect();
                for wait in ready {
                    waits.remove(&wait);
                    runnable.push(wait.2);
                }
            }
        }
        Ok(progress)
    }

    fn undo(&mut self, sections: &[Section], progress: &[Progress]) {
        for (section, progress) in sections.iter().zip(progress) {
            if progress.n_taken > 0 {
                self.state
                    .restore(section.client, u64::from(progress.known_before));
                self.nesting
                    .forget_from(section.client, progress.known_before);
            }
        }
    }

    /// Takes the structs of one section until one is not admissible. On an error the section's own state is as it was
    /// when the call began, except for `progress`.
    fn advance(
        &mut self,
        update: &Scanned,
        section: &Section,
        progress: &mut Progress,
        bounds: Bounds,
        implied: &mut Vec<DeletedRange>,
    ) -> Result<(), AdmitError> {
        let client = section.client;
        let entry = *progress;
        let mut cursor = Cursor::new(update.bytes(), progress.at);
        progress.blocked = None;
        while progress.n_left > 0 {
            if progress.clock > progress.known {
                progress.blocked = Some(Need {
                    client,
                    clock: progress.clock,
                });
                break;
            }
            let item = match update.lone(section) {
                Some(item) => item,
                None => cursor.next_struct::<false>(client, progress.clock, VALUE_NESTING_MAX)?,
            };
            let end = progress.clock + item.len;
            if item.kind != Kind::Skip {
                if end > progress.known {
                    let cut = progress.known - progress.clock;
                    if let Some(need) = self.lacks(client, &item, cut) {
                        progress.blocked = Some(need);
                        break;
                    }
                    let depth = self.depth(client, progress.known, &item, cut);
                    if depth as usize > bounds.nesting_max {
                        self.nesting.forget_from(client, entry.known);
                        return Err(AdmitError::NestedTooDeep {
                            max: bounds.nesting_max,
                        });
                    }
                    self.nesting.note(client, progress.known, depth);
                    if progress.n_taken == 0 {
                        progress.taken_from = item.from;
                        progress.cut = cut;
                    }
                    progress.n_taken += 1;
                    progress.taken_to = item.to;
                    progress.known = end;
                }
                if item.is_dead() {
                    implied.push(DeletedRange {
                        client,
                        start: progress.clock,
                        end,
                    });
                }
            }
            progress.at = item.to;
            progress.clock = end;
            progress.n_left -= 1;
        }
        if progress.known > entry.known {
            if entry.known == 0 && self.state.n_clients() >= bounds.clients_max {
                self.nesting.forget_from(client, 0);
                progress.n_taken = 0;
                return Err(AdmitError::TooManyClients {
                    max: bounds.clients_max,
                });
            }
            self.state.raise(client, u64::from(progress.known));
        }
        Ok(())
    }

    /// The first thing that an item hangs on and the document lacks. A cut item hangs on its own client's known part
    /// instead of its left origin and parent.
    #[inline]
    fn lacks(&self, client: ClientId, item: &Struct, cut: u32) -> Option<Need> {
        let lacking = |id: Id| {
            // The scan saw to it that references to the own client point backwards.
            let lacks = id.client != client && self.state.get(id.client) <= u64::from(id.clock);
            lacks.then_some(Need {
                client: id.client,
                clock: id.clock + 1,
            })
        };
        let left = item.left.filter(|_| cut == 0).and_then(lacking);
        let parent = match item.parent {
            Parent::Item(id) if cut == 0 => lacking(id),
            Parent::Item(_) | Parent::Inherited | Parent::Root => None,
        };
        left.or_else(|| item.right.and_then(lacking)).or(parent)
    }

    /// How deep an admissible item lies.
    #[inline]
    fn depth(&self, client: ClientId, known: u32, item: &Struct, cut: u32) -> u32 {
        if cut > 0 {
            return self.nesting.depth(client, known - 1);
        }
        match item.parent {
            Parent::Root => 0,
            Parent::Item(id) => self.nesting.depth(id.client, id.clock) + 1,
            Parent::Inherited => {
                let depth =
                    |id: Option<Id>| id.map_or(0, |id| self.nesting.depth(id.client, id.clock));
                depth(item.left).max(depth(item.right))
            }
        }
    }

    /// Takes the deletions, and puts together what is news and what waits. Does not fail on what a client can send.
    fn finish(
        &mut self,
        update: &Scanned,
        progress: &[Progress],
        implied: &[DeletedRange],
    ) -> Result<Taken, AdmitError> {
        let sections = update.sections();
        let sections_whole = sections
            .iter()
            .zip(progress)
            .all(|(section, p)| p.is_whole(section));
        if sections_whole && implied.is_empty() && update.n_delete_ranges() == 0 {
            // All live typing.
            return Ok(Taken {
                news: (!update.is_empty()).then(|| update.bytes().clone()),
                ..Taken::default()
            });
        }
        let mut news = Vec::new();
        let mut waiting = Vec::new();
        let mut deletes_whole = update.deletes_in_order;
        let mut last = None;
        update.for_each_delete(|client, start, end| {
            let known = match last {
                Some((of, known)) if of == client => known,
                _ => self.state.get(client) as u32,
            };
            last = Some((client, known));
            if end > known {
                let start = start.max(known);
                waiting.push(DeletedRange { client, start, end });
                deletes_whole = false;
            }
            let end = end.min(known);
            if start < end {
                let before = news.len();
                self.deletes
                    .insert(DeletedRange { client, start, end }, &mut news);
                deletes_whole &= news[before..] == [DeletedRange { client, start, end }];
            }
        });
        let mut growth = Vec::new();
        for range in implied {
            self.deletes.insert(*range, &mut growth);
        }
        let rest = rest(update, progress, &waiting);
        if sections_whole && deletes_whole {
            return Ok(Taken {
                news: (!update.is_empty()).then(|| update.bytes().clone()),
                growth: (!growth.is_empty()).then(|| delete_only_update(&mut growth)),
                rest,
            });
        }
        // A trimmed update is ours to write, so what it implies goes into its own delete set.
        news.append(&mut growth);
        let n_taken = progress
            .iter()
            .filter(|progress| progress.n_taken > 0)
            .count();
        let news = if n_taken == 0 && news.is_empty() {
            None
        } else {
            Some(trimmed(update, progress, n_taken, &mut news)?)
        };
        Ok(Taken {
            news,
            growth: None,
            rest,
        })
    }
}

/// The update without what was known and without what waits.
fn trimmed(
    update: &Scanned,
    progress: &[Progress],
    n_taken: usize,
    deletes: &mut Vec<DeletedRange>,
) -> Result<Bytes, AdmitError> {
    let bytes = update.bytes();
    let mut writer = UpdateWriter::new(n_taken, bytes.len());
    for (section, progress) in update.sections().iter().zip(progress) {
        if progress.n_taken == 0 {
            continue;
        }
        let (mut from, mut n) = (progress.taken_from, progress.n_taken);
        writer.begin(section.client, progress.known_before);
        if progress.cut > 0 {
            let clock = progress.known_before - progress.cut;
            let item = Cursor::new(bytes, from).next_struct::<false>(
                section.client,
                clock,
                VALUE_NESTING_MAX,
            )?;
            writer.push(bytes, &item, clock, progress.cut, item.len - progress.cut)?;
            from = item.to;
            n -= 1;
        }
        // Taken structs stand together: whatever was passed over before them was known, and a Skip behind them blocks.
        writer.verbatim(&bytes[from..progress.taken_to], n, progress.known);
        writer.end();
    }
    let mut delete_set = Vec::new();
    write_deletes(&mut delete_set, deletes);
    Ok(writer.finish(&delete_set).0)
}

/// The part of an update that is not admissible yet.
fn rest(update: &Scanned, progress: &[Progress], deletes: &[DeletedRange]) -> Option<Rest> {
    let blocked = || {
        update
            .sections()
            .iter()
            .zip(progress)
            .filter(|(_, progress)| progress.n_left > 0)
    };
    let n_blocked = blocked().count();
    if n_blocked == 0 && deletes.is_empty() {
        return None;
    }
    let mut needs: Vec<Need> = Vec::with_capacity(n_blocked + deletes.len());
    let mut out = Vec::new();
    write_uint(&mut out, n_blocked as u64);
    for (section, progress) in blocked() {
        needs.extend(progress.blocked);
        write_uint(&mut out, u64::from(progress.n_left));
        write_uint(&mut out, section.client);
        write_uint(&mut out, u64::from(progress.clock));
        out.extend_from_slice(&update.bytes()[progress.at..section.to as usize]);
    }
    needs.extend(deletes.iter().map(|range| Need {
        client: range.client,
        clock: range.start + 1,
    }));
    // The nearest clock of each client is enough: every try says anew what is still lacking.
    needs.sort_unstable();
    needs.dedup_by_key(|need| need.client);
    write_deletes(&mut out, &mut deletes.to_vec());
    Some(Rest {
        bytes: out.into(),
        needs,
    })
}
