//! Garbage collection at byte level: what is deleted loses its content, everything else is kept verbatim.
//!
//! Which units are deleted is not known from bytes alone (the losers of concurrent sets of one key, the children of a
//! deleted type), so the ranges come from a worker that integrated the document. What to do with them is decided here, as
//! Yjs does it: a deleted item becomes a Deleted struct that still knows its place, and a child of a deleted type a GC
//! struct that is only a length. No other implementation's encoder touches content, so nothing that it does not know (a
//! BigInt, a subdocument's meta) can be lost; and the result is a pure function of document and ranges, so the server
//! computes it itself instead of believing a worker.
//!
//! Cutting a deleted word out of a long text costs two more structs, which is more than the word: a collected document
//! would be larger than the raw one. So only what makes the document smaller is taken out. The delete set says the same
//! either way.

use bytes::Bytes;

use crate::doc::content::{
    CONTENT_MASK, Cursor, HAS_LEFT, Id, Kind, Parent, Struct, VALUE_NESTING_MAX, uint_bytes,
    write_uint,
};
use crate::doc::cuts::{ContentCursor, CutAt, REPLACEMENT};
use crate::doc::delete_index::{DeleteIndex, DeletedRange};
use crate::doc::scan::{ScanError, Scanned, Section};
use crate::doc::writer::UpdateWriter;
use crate::ids::ClientId;

/// The number of content that is a type, and of its kind that yrs does not know.
const TYPE: u8 = 7;
const XML_HOOK: u8 = 5;
/// The number of a Deleted struct's content.
const DELETED: u8 = 1;

/// How many units are measured at a time when it is asked whether a deletion is long enough.
const MEASURED_UNITS: u32 = 64;

/// Why a document cannot be collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// It is not a whole document: something in it hangs on what is not in it.
    #[error("the document has holes")]
    Holes,
    /// It holds legacy JSON content or an XML hook, which the workers' library cannot read. It is relayed and stored as
    /// any other.
    #[error("the document holds content that workers cannot read")]
    Unsupported,
    /// The deleted ranges leave out what the document itself says, or name what it does not hold.
    #[error("the deleted ranges are not those of the document")]
    WrongRanges,
    /// The bytes are not what was scanned.
    #[error("the document changed after it was scanned: {0}")]
    Inconsistent(#[from] ScanError),
}

/// Whether a worker can be asked about a document at all.
pub(super) fn check(raw: &Scanned) -> Result<(), CollectError> {
    for section in raw.sections() {
        if section.clock != 0 || section.has_skip {
            return Err(CollectError::Holes);
        }
        for_each_struct(raw, section, |_, item| {
            let is_hook =
                item.content_number() == TYPE && raw.bytes().get(item.content) == Some(&XML_HOOK);
            let unread = item.kind == Kind::Json || (item.kind == Kind::Single && is_hook);
            if unread {
                Err(CollectError::Unsupported)
            } else {
                Ok(())
            }
        })?;
    }
    Ok(())
}

/// The deleted ranges that a worker found, taken in: they must hold what the document deletes itself, and nothing that it
/// does not hold. Also says what is new in them.
pub(super) fn check_ranges(
    raw: &Scanned,
    found: &Scanned,
) -> Result<(DeleteIndex, Vec<DeletedRange>), CollectError> {
    if !found.sections().is_empty() {
        return Err(CollectError::WrongRanges);
    }
    let mut all = DeleteIndex::default();
    all.insert_all(found);
    let mut beyond = false;
    all.for_each(|DeletedRange { client, end, .. }| {
        let sections = raw.sections();
        let section = sections.binary_search_by(|section| client.cmp(&section.client));
        beyond |= section.map_or(true, |at| sections[at].end < end);
    });
    let mut lacking = Vec::new();
    all.insert_news(raw, &mut lacking);
    if beyond || !lacking.is_empty() {
        return Err(CollectError::WrongRanges);
    }
    let mut own = DeleteIndex::default();
    own.insert_all(raw);
    let mut growth = Vec::new();
    own.insert_news(found, &mut growth);
    Ok((all, growth))
}

/// The document without the content of what is deleted, where that makes it smaller.
pub(super) fn collect(raw: &Scanned, deletes: &mut DeleteIndex) -> Result<Bytes, CollectError> {
    let mut parents = Parents::new(raw, deletes)?;
    let mut writer = UpdateWriter::new(raw.sections().len(), raw.bytes().len());
    let mut scratch = Vec::new();
    for (at_section, section) in raw.sections().iter().enumerate() {
        let client = section.client;
        writer.begin(client, section.clock);
        let mut at_struct = 0;
        for_each_struct(raw, section, |clock, item| {
            let mut pieces = Pieces::new(raw.bytes(), client, clock, item);
            let end = clock + item.len;
            for (from, to) in deletes.within(client, clock, end) {
                let whole = from == clock && to == end;
                if !whole && !pieces.is_worth(from, to)? {
                    continue;
                }
                pieces.keep(from, &mut writer, &mut scratch)?;
                let gc = item.kind == Kind::Gc || parents.is_collected(at_section, at_struct)?;
                pieces.empty(to, gc, &mut writer, &mut scratch)?;
            }
            at_struct += 1;
            pieces.keep(end, &mut writer, &mut scratch)
        })?;
        writer.end();
    }
    Ok(writer.finish(&deletes.encoded()).0)
}

/// One struct on its way into the collected document, cut into pieces in one pass over its content.
struct Pieces<'a> {
    bytes: &'a [u8],
    client: ClientId,
    clock: u32,
    item: &'a Struct,
    /// Written up to this clock, where the content can be cut as said.
    reached: u32,
    start: CutAt,
    /// Never behind `reached`.
    content: ContentCursor<'a>,
}

impl<'a> Pieces<'a> {
    fn new(bytes: &'a [u8], client: ClientId, clock: u32, item: &'a Struct) -> Self {
        let content = ContentCursor::new(bytes, item);
        Self {
            bytes,
            client,
            clock,
            item,
            reached: clock,
            start: content.here(),
            content,
        }
    }

    /// Whether taking the content of `from..to` out saves more than the structs that cutting it out adds.
    fn is_worth(&mut self, from: u32, to: u32) -> Result<bool, CollectError> {
        let id_bytes = |id: Id| uint_bytes(id.client) + uint_bytes(u64::from(id.clock));
        let left = Id {
            client: self.client,
            clock: to,
        };
        // An info byte, the origins, and a length.
        let header = 1 + id_bytes(left) + self.item.right.map_or(0, id_bytes) + 2;
        let end = self.clock + self.item.len;
        let n_cuts = usize::from(from > self.clock) + usize::from(to < end);
        self.content.advance(from - self.clock)?;
        let mut content = self.content;
        let before = content.at;
        // A long deletion need not be measured to its end.
        while content.at - before <= n_cuts * header && content.unit < to - self.clock {
            let unit = (content.unit + MEASURED_UNITS).min(to - self.clock);
            content.advance(unit)?;
        }
        Ok(content.at - before > n_cuts * header)
    }

    /// Writes everything up to a clock as it is.
    fn keep(
        &mut self,
        to: u32,
        writer: &mut UpdateWriter,
        scratch: &mut Vec<u8>,
    ) -> Result<(), CollectError> {
        let (from, item) = (self.reached, self.item);
        if from == to {
            return Ok(());
        }
        self.reached = to;
        if (from, to) == (self.clock, self.clock + item.len) {
            return Ok(writer.push(self.bytes, item, from, 0, item.len)?);
        }
        // Only what can be cut comes here: text and values.
        self.content.advance(to - self.clock)?;
        let (start, end) = (self.start, self.content.here());
        let mut piece = self.header(from, item.content_number(), scratch);
        piece.kind = item.kind;
        piece.len = to - from;
        let bytes = self.bytes.get(start.after..end.before).unwrap_or_default();
        if item.kind == Kind::Text {
            let halves =
                [start.splits, end.splits].map(|splits| if splits { REPLACEMENT } else { &[] });
            write_uint(
                scratch,
                (halves[0].len() + bytes.len() + halves[1].len()) as u64,
            );
            scratch.extend_from_slice(halves[0]);
            scratch.extend_from_slice(bytes);
            scratch.extend_from_slice(halves[1]);
        } else {
            write_uint(scratch, u64::from(piece.len));
            scratch.extend_from_slice(bytes);
        }
        piece.to = scratch.len();
        Ok(writer.push(scratch, &piece, from, 0, piece.len)?)
    }

    /// Writes everything up to a clock as a GC or Deleted struct.
    fn empty(
        &mut self,
        to: u32,
        gc: bool,
        writer: &mut UpdateWriter,
        scratch: &mut Vec<u8>,
    ) -> Result<(), CollectError> {
        let from = self.reached;
        self.reached = to;
        self.content.advance(to - self.clock)?;
        self.start = self.content.here();
        let mut piece = self.header(from, DELETED, scratch);
        piece.kind = Kind::Deleted;
        if gc {
            scratch.clear();
            scratch.push(0);
            piece.kind = Kind::Gc;
            piece.info = 0;
            piece.content = 1;
            (piece.left, piece.right, piece.parent) = (None, None, Parent::Inherited);
        }
        piece.len = to - from;
        write_uint(scratch, u64::from(piece.len));
        piece.to = scratch.len();
        Ok(writer.push(scratch, &piece, from, 0, piece.len)?)
    }

    /// Writes to `scratch` the beginning of the piece that starts at a clock: the item's own, or that of a cut item.
    fn header(&self, from: u32, content: u8, scratch: &mut Vec<u8>) -> Struct {
        scratch.clear();
        let mut piece = *self.item;
        piece.from = 0;
        if from == self.clock {
            scratch.extend_from_slice(&self.bytes[self.item.from..self.item.content]);
        } else {
            let left = Id {
                client: self.client,
                clock: from - 1,
            };
            scratch.push(self.item.info | HAS_LEFT);
            for id in [Some(left), piece.right].into_iter().flatten() {
                write_uint(scratch, id.client);
                write_uint(scratch, u64::from(id.clock));
            }
            (piece.left, piece.parent) = (Some(left), Parent::Inherited);
        }
        scratch[0] = scratch[0] & !CONTENT_MASK | content;
        piece.info = scratch[0];
        piece.content = scratch.len();
        piece
    }
}

fn for_each_struct(
    update: &Scanned,
    section: &Section,
    mut each: impl FnMut(u32, &Struct) -> Result<(), CollectError>,
) -> Result<(), CollectError> {
    let mut cursor = Cursor::new(update.bytes(), section.from as usize);
    let mut clock = section.clock;
    for _ in 0..section.n {
        let item = cursor.next_struct::<false>(section.client, clock, VALUE_NESTING_MAX)?;
        each(clock, &item)?;
        clock += item.len;
    }
    Ok(())
}

/// What becomes of an item when it is deleted.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Its parent stands: it keeps its place.
    Placed,
    /// Its parent is deleted, or it hangs on what was collected before.
    Collected,
    /// The same as the item of this unit, whose sibling it is.
    As(Id),
}

/// The items of one client: the clock at which each begins.
#[derive(Debug)]
struct Items {
    client: ClientId,
    end: u32,
    items: Vec<(u32, Fate)>,
}

/// Which items are children of deleted types. Empty when no type is deleted, so that plain texts pay nothing.
#[derive(Debug)]
struct Parents {
    clients: Vec<Items>,
    n_items: usize,
}

impl Parents {
    fn new(raw: &Scanned, deletes: &DeleteIndex) -> Result<Self, CollectError> {
        let mut parents = Self {
            clients: Vec::new(),
            n_items: 0,
        };
        let mut any = false;
        for section in raw.sections() {
            for_each_struct(raw, section, |clock, item| {
                let is_type = item.kind == Kind::Single && item.content_number() == TYPE;
                any |=
                    item.kind == Kind::Gc || (is_type && deleted(deletes, section.client, clock));
                Ok(())
            })?;
        }
        if !any {
            return Ok(parents);
        }
        for section in raw.sections() {
            let mut items = Vec::with_capacity(section.n as usize);
            for_each_struct(raw, section, |clock, item| {
                items.push((clock, fate(item, deletes)));
                Ok(())
            })?;
            parents.n_items += items.len();
            parents.clients.push(Items {
                client: section.client,
                end: section.end,
                items,
            });
        }
        Ok(parents)
    }

    /// Whether an item of a section becomes a GC struct when it is deleted. Follows its siblings without recursion, and
    /// remembers the answer for all that it passed.
    fn is_collected(&mut self, section: usize, item: usize) -> Result<bool, CollectError> {
        if self.clients.is_empty() {
            return Ok(false);
        }
        let mut path = vec![(section, item)];
        let fate = loop {
            let (section, item) = path[path.len() - 1];
            match self.clients[section].items[item].1 {
                Fate::As(id) => path.push(self.find(id).ok_or(CollectError::Holes)?),
                fate => break fate,
            }
            if path.len() > self.n_items {
                return Err(CollectError::Holes);
            }
        };
        for (section, item) in path {
            self.clients[section].items[item].1 = fate;
        }
        Ok(matches!(fate, Fate::Collected))
    }

    fn find(&self, id: Id) -> Option<(usize, usize)> {
        let section = self
            .clients
            .binary_search_by(|items| id.client.cmp(&items.client))
            .ok()?;
        let Items { end, items, .. } = &self.clients[section];
        let after = items.partition_point(|(clock, _)| *clock <= id.clock);
        (id.clock < *end).then_some((section, after.checked_sub(1)?))
    }
}

fn deleted(deletes: &DeleteIndex, client: ClientId, clock: u32) -> bool {
    deletes.covers(DeletedRange {
        client,
        start: clock,
        end: clock + 1,
    })
}

fn fate(item: &Struct, deletes: &DeleteIndex) -> Fate {
    match (item.kind, item.parent) {
        (Kind::Gc, _) => Fate::Collected,
        (_, Parent::Root) => Fate::Placed,
        (_, Parent::Item(id)) if deleted(deletes, id.client, id.clock) => Fate::Collected,
        (_, Parent::Item(_)) => Fate::Placed,
        (_, Parent::Inherited) => item.left.or(item.right).map_or(Fate::Placed, Fate::As),
    }
}

#[cfg(test)]
#[path = "collect_tests.rs"]
mod tests;
