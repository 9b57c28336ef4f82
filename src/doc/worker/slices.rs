//! Cuts a whole document into small updates in causal order.
//!
//! Integrating very many structs in one transaction is quadratic in yrs (20,000 array pushes: 4.6 GB and 9 s), and an
//! update that hangs on a later one is set aside and tried again and again. So a document is integrated piece by piece,
//! each piece hanging only on itself and on earlier ones. Pure.

use std::collections::BTreeSet;

use crate::doc::content::{Cursor, Id, Parent, Struct, VALUE_NESTING_MAX, write_uint};
use crate::doc::delete_index::{DeletedRange, write_deletes};
use crate::doc::scan::{Scanned, Section};
use crate::ids::ClientId;

/// The most structs, or delete ranges, of a piece.
const PIECE_MAX: usize = 100;

/// The document hangs on something that it does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holes;

/// How far a client section has gone.
#[derive(Clone, Copy, Debug)]
struct Progress {
    section: Section,
    at: usize,
    clock: u32,
    n_left: u32,
    /// Where the current piece began.
    piece_at: usize,
    piece_clock: u32,
    n_piece: u32,
}

/// Calls `each` with the pieces: structs first, then the delete set.
pub(super) fn for_each_slice<E: From<Holes>>(
    document: &Scanned,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut slicer = Slicer::new(document);
    while let Some(piece) = slicer.next_piece()? {
        each(&piece)?;
    }
    let mut ranges = Vec::new();
    document.for_each_delete(|client, start, end| {
        ranges.push(DeletedRange { client, start, end });
    });
    for some in ranges.chunks(PIECE_MAX) {
        let mut piece = vec![0];
        write_deletes(&mut piece, &mut some.to_vec());
        each(&piece)?;
    }
    Ok(())
}

struct Slicer<'a> {
    bytes: &'a [u8],
    /// Clients descending, as in the document.
    sections: Vec<Progress>,
    /// Sections that can go on, the next one last.
    runnable: Vec<usize>,
    /// The section that waits, by the section and the clock that it waits for.
    waiting: BTreeSet<(usize, u32, usize)>,
}

impl<'a> Slicer<'a> {
    fn new(document: &'a Scanned) -> Self {
        let sections: Vec<Progress> = document
            .sections()
            .iter()
            .map(|section| Progress {
                section: *section,
                at: section.from as usize,
                clock: section.clock,
                n_left: section.n,
                piece_at: section.from as usize,
                piece_clock: section.clock,
                n_piece: 0,
            })
            .collect();
        Self {
            bytes: document.bytes(),
            runnable: (0..sections.len()).collect(),
            sections,
            waiting: BTreeSet::new(),
        }
    }

    /// The next piece; `None` after the last.
    fn next_piece(&mut self) -> Result<Option<Vec<u8>>, Holes> {
        let mut n = 0;
        let mut touched = Vec::new();
        while n < PIECE_MAX {
            let Some(index) = self.runnable.pop() else {
                break;
            };
            let before = self.sections[index];
            let blocked = self.advance(index, PIECE_MAX - n);
            let after = self.sections[index];
            if after.clock > before.clock {
                if before.n_piece == 0 {
                    touched.push(index);
                }
                n += (before.n_left - after.n_left) as usize;
                self.wake(index, after.clock);
            }
            match blocked {
                Some((other, clock)) if other != index => {
                    self.waiting.insert((other, clock, index));
                }
                Some(_) => return Err(Holes),
                None if after.n_left > 0 => self.runnable.push(index),
                None => {}
            }
        }
        if n == 0 {
            return if self.waiting.is_empty() {
                Ok(None)
            } else {
                Err(Holes)
            };
        }
        touched.sort_unstable();
        let mut piece = Vec::new();
        write_uint(&mut piece, touched.len() as u64);
        for index in touched {
            let progress = &mut self.sections[index];
            write_uint(&mut piece, u64::from(progress.n_piece));
            write_uint(&mut piece, progress.section.client);
            write_uint(&mut piece, u64::from(progress.piece_clock));
            piece.extend_from_slice(&self.bytes[progress.piece_at..progress.at]);
            (progress.piece_at, progress.piece_clock) = (progress.at, progress.clock);
            progress.n_piece = 0;
        }
        piece.push(0);
        Ok(Some(piece))
    }

    /// Takes up to `n_max` structs of a section; what it waits for, when it waits.
    fn advance(&mut self, index: usize, n_max: usize) -> Option<(usize, u32)> {
        let Progress {
            section,
            at,
            mut clock,
            ..
        } = self.sections[index];
        let mut cursor = Cursor::new(self.bytes, at);
        for _ in 0..n_max {
            if self.sections[index].n_left == 0 {
                return None;
            }
            let item = cursor
                .next_struct::<false>(section.client, clock, VALUE_NESTING_MAX)
                .expect("the document was walked by scan");
            if let Some(blocked) = self.lacks(section.client, index, &item) {
                return Some(blocked);
            }
            clock += item.len;
            let progress = &mut self.sections[index];
            (progress.at, progress.clock) = (item.to, clock);
            progress.n_left -= 1;
            progress.n_piece += 1;
        }
        None
    }

    /// The section and the clock that it has to pass before the item can go in; its own section when that can never be.
    fn lacks(&self, client: ClientId, own: usize, item: &Struct) -> Option<(usize, u32)> {
        let parent = match item.parent {
            Parent::Item(id) => Some(id),
            Parent::Inherited | Parent::Root => None,
        };
        [item.left, item.right, parent]
            .into_iter()
            .flatten()
            .filter(|id| id.client != client)
            .find_map(|Id { client, clock }| {
                let found = self
                    .sections
                    .binary_search_by(|progress| client.cmp(&progress.section.client));
                match found {
                    Ok(other) if self.sections[other].clock > clock => None,
                    Ok(other) if self.sections[other].section.end > clock => {
                        Some((other, clock + 1))
                    }
                    Ok(_) | Err(_) => Some((own, 0)),
                }
            })
    }

    fn wake(&mut self, index: usize, clock: u32) {
        let range = (index, 0, 0)..=(index, clock, usize::MAX);
        let ready: Vec<_> = self.waiting.range(range).copied().collect();
        for wait in ready {
            self.waiting.remove(&wait);
            self.runnable.push(wait.2);
        }
    }
}
