//! Writes updates struct by struct: cuts them as Yjs does, and joins neighbours that are one item cut in two.
//!
//! A cut item's second half names the unit before it as its left origin, keeps the right origin, and says nothing of its
//! parent. Joining is exactly the inverse: two structs are joined only when cutting the joined one would give them back,
//! so no reader can tell the difference, and a thousand keystrokes become one struct.

use bytes::Bytes;

use crate::doc::content::{
    Cursor, HAS_KEY, HAS_LEFT, HAS_RIGHT, Id, Kind, SKIP, Struct, VALUE_NESTING_MAX, write_uint,
};
use crate::doc::cuts::{REPLACEMENT, cut_content};
use crate::doc::scan::{ScanError, Section};
use crate::ids::ClientId;

/// The struct at the end of the section that may still grow.
#[derive(Clone, Copy, Debug)]
struct Open {
    kind: Kind,
    right: Option<Id>,
    has_key: bool,
    /// Where its number stands in the body: byte length of a text, elements of values, units of GC and Deleted.
    number_at: usize,
    number_len: usize,
    /// The number, except for text, whose byte length is measured when it is closed.
    number: u64,
}

/// One update being written, one client section at a time, clients descending.
#[derive(Debug)]
pub(super) struct UpdateWriter {
    out: Vec<u8>,
    sections: Vec<Section>,
    body: Vec<u8>,
    client: ClientId,
    start: u32,
    clock: u32,
    n: u32,
    last: usize,
    open: Option<Open>,
}

impl UpdateWriter {
    /// An update of `n_clients` sections; `bytes` is a guess of its size.
    pub(super) fn new(n_clients: usize, bytes: usize) -> Self {
        let mut out = Vec::with_capacity(bytes);
        write_uint(&mut out, n_clients as u64);
        Self {
            out,
            sections: Vec::with_capacity(n_clients),
            body: Vec::new(),
            client: 0,
            start: 0,
            clock: 0,
            n: 0,
            last: 0,
            open: None,
        }
    }

    /// Begins the section of a client at a clock.
    pub(super) fn begin(&mut self, client: ClientId, clock: u32) {
        self.client = client;
        self.start = clock;
        self.clock = clock;
        self.n = 0;
        self.last = 0;
        self.body.clear();
    }

    /// Makes `clock` the next one, with a Skip over what lies between. A section never begins with a Skip.
    pub(super) fn reach(&mut self, clock: u32) {
        if clock <= self.clock {
            return;
        }
        if self.n == 0 {
            self.start = clock;
        } else {
            self.close();
            self.last = self.body.len();
            self.n += 1;
            self.body.push(SKIP);
            write_uint(&mut self.body, u64::from(clock - self.clock));
        }
        self.clock = clock;
    }

    /// Appends whole structs as they are; `end` is the clock after them.
    pub(super) fn verbatim(&mut self, structs: &[u8], n: u32, end: u32) {
        if n > 0 {
            self.close();
            self.body.extend_from_slice(structs);
            self.n += n;
            self.clock = end;
        }
    }

    /// Appends a section without Skips that begins at the current clock, joined with what stands before it.
    pub(super) fn run(&mut self, bytes: &[u8], section: &Section) -> Result<(), ScanError> {
        let (mut from, mut n) = (section.from as usize, section.n);
        let last = section.last as usize;
        if self.open.is_some() && n > 1 {
            let first = self.read(bytes, from, self.clock)?;
            self.push(bytes, &first, self.clock, 0, first.len)?;
            from = first.to;
            n -= 1;
        }
        let item = self.read(bytes, last, section.clock)?;
        let clock = section.end - item.len;
        self.verbatim(&bytes[from..last], n - 1, clock);
        self.push(bytes, &item, clock, 0, item.len)
    }

    fn read(&self, bytes: &[u8], at: usize, clock: u32) -> Result<Struct, ScanError> {
        Cursor::new(bytes, at).next_struct::<false>(self.client, clock, VALUE_NESTING_MAX)
    }

    /// Appends `keep` units of a struct that begins at `clock`, from its unit `skip` on.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        item: &Struct,
        clock: u32,
        skip: u32,
        keep: u32,
    ) -> Result<(), ScanError> {
        debug_assert_eq!(
            clock + skip,
            self.clock,
            "structs are appended without holes"
        );
        let left = if skip > 0 {
            Some(Id {
                client: self.client,
                clock: clock + skip - 1,
            })
        } else {
            item.left
        };
        let joins = self.open.is_some_and(|open| self.joins(&open, item, left));
        if !joins {
            self.close();
            self.last = self.body.len();
            self.n += 1;
            if skip == 0 {
                self.body.extend_from_slice(&bytes[item.from..item.content]);
            } else {
                self.cut_header(item, left);
            }
        }
        self.content(bytes, item, skip, keep)?;
        self.clock += keep;
        Ok(())
    }

    /// Whether `item`, with this left origin, is what cutting one longer struct would have left behind the open one.
    fn joins(&self, open: &Open, item: &Struct, left: Option<Id>) -> bool {
        if open.kind != item.kind {
            return false;
        }
        if item.kind == Kind::Gc {
            return true;
        }
        let before = Id {
            client: self.client,
            clock: self.clock.wrapping_sub(1),
        };
        // Map entries stay single: each is a value of its own.
        !open.has_key
            && item.info & HAS_KEY == 0
            && left == Some(before)
            && item.right == open.right
    }

    fn cut_header(&mut self, item: &Struct, left: Option<Id>) {
        match left.filter(|_| item.kind != Kind::Gc) {
            None => self.body.push(item.info),
            Some(left) => {
                self.body.push(item.info | HAS_LEFT);
                write_uint(&mut self.body, left.client);
                write_uint(&mut self.body, u64::from(left.clock));
                if let Some(right) = item.right {
                    debug_assert!(item.info & HAS_RIGHT != 0, "the info byte told of it");
                    write_uint(&mut self.body, right.client);
                    write_uint(&mut self.body, u64::from(right.clock));
                }
            }
        }
    }

    fn content(
        &mut self,
        bytes: &[u8],
        item: &Struct,
        skip: u32,
        keep: u32,
    ) -> Result<(), ScanError> {
        match item.kind {
            Kind::Single | Kind::Skip => {
                self.body.extend_from_slice(&bytes[item.content..item.to]);
            }
            Kind::Gc | Kind::Deleted => self.grow(item, keep),
            Kind::Json | Kind::Any => {
                self.grow(item, keep);
                let cut = cut_content(bytes, item, skip, keep)?;
                self.body.extend_from_slice(cut.bytes);
            }
            Kind::Text => {
                self.grow(item, keep);
                let cut = cut_content(bytes, item, skip, keep)?;
                if cut.half_at_start {
                    self.body.extend_from_slice(REPLACEMENT);
                }
                self.body.extend_from_slice(cut.bytes);
                if cut.half_at_end {
                    self.body.extend_from_slice(REPLACEMENT);
                }
            }
        }
        Ok(())
    }

    /// Opens the struct whose header was just written, or adds to the open one.
    fn grow(&mut self, item: &Struct, units: u32) {
        if let Some(open) = &mut self.open {
            open.number += u64::from(units);
            return;
        }
        let number_at = self.body.len();
        let number = u64::from(units);
        // For a text this is not yet its number, but nearly always as wide.
        write_uint(&mut self.body, number);
        self.open = Some(Open {
            kind: item.kind,
            right: item.right,
            has_key: item.info & HAS_KEY != 0,
            number_at,
            number_len: self.body.len() - number_at,
            number,
        });
    }

    /// Settles the number of the open struct.
    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        let content_at = open.number_at + open.number_len;
        let number = match open.kind {
            Kind::Text => (self.body.len() - content_at) as u64,
            _ => open.number,
        };
        let mut spelled = [0; 10];
        let mut n = 0;
        let mut rest = number;
        while rest >= 0x80 {
            spelled[n] = rest as u8 | 0x80;
            rest >>= 7;
            n += 1;
        }
        spelled[n] = rest as u8;
        n += 1;
        if n == open.number_len {
            self.body[open.number_at..content_at].copy_from_slice(&spelled[..n]);
        } else {
            self.body
                .splice(open.number_at..content_at, spelled[..n].iter().copied());
        }
    }

    /// Ends the section.
    pub(super) fn end(&mut self) {
        self.close();
        write_uint(&mut self.out, u64::from(self.n));
        write_uint(&mut self.out, self.client);
        write_uint(&mut self.out, u64::from(self.start));
        let from = self.out.len();
        self.out.extend_from_slice(&self.body);
        self.sections.push(Section {
            client: self.client,
            clock: self.start,
            end: self.clock,
            n: self.n,
            from: from as u32,
            last: (from + self.last) as u32,
            to: self.out.len() as u32,
            has_skip: false,
        });
    }

    /// Ends the update with a delete set in wire form; also says where its sections stand.
    pub(super) fn finish(mut self, deletes: &[u8]) -> (Bytes, Vec<Section>) {
        self.out.extend_from_slice(deletes);
        (self.out.into(), self.sections)
    }
}
