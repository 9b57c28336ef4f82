//! The door of the document: walks an update once, structurally, before anything else looks at it.
//!
//! What passes is well-formed for every Yjs implementation that we know: no count that lies, no clock that overflows, no
//! text that is not UTF-8, no value nested beyond reason. What a scan cannot know is whether the update *fits* the
//! document; that is admission's question. A scan allocates nothing for the usual update of one client, and one small
//! entry per client section otherwise.

use bytes::Bytes;

use crate::doc::content::{CLOCK_MAX, Cursor, Kind, Links, Parent, Struct, VALUE_NESTING_MAX};
use crate::doc::delete_index::DeletedRange;
use crate::doc::state_vector::StateVector;
use crate::ids::ClientId;

/// What a scan may cost. Every limit is checked before the cost arises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanLimits {
    /// The longest update, in bytes. Offsets are kept in 32 bits, so larger values than 4 GiB count as 4 GiB.
    pub update_bytes_max: usize,
    /// The most structs, Skips included. Integrating very many small structs in one transaction is quadratic in some
    /// implementations (20,000 array pushes took yrs 9 s and 4.6 GB).
    pub structs_max: usize,
    /// The most client sections, and the most clients in the delete set.
    pub clients_max: usize,
    /// The most delete ranges.
    pub delete_ranges_max: usize,
    /// The deepest nesting of values and JSON inside one struct; never above 64.
    pub nesting_max: usize,
}

impl Default for ScanLimits {
    /// The limits of a live update: 1 MiB, 16,384 structs, 4,096 clients, 131,072 delete ranges, values nested 64 deep.
    fn default() -> Self {
        Self {
            update_bytes_max: 1 << 20,
            structs_max: 16_384,
            clients_max: 4_096,
            delete_ranges_max: 131_072,
            nesting_max: VALUE_NESTING_MAX,
        }
    }
}

impl ScanLimits {
    /// The limits of an initial sync, which may carry a whole document: 64 MiB, and as much of the rest as fits.
    pub fn initial_sync() -> Self {
        Self {
            update_bytes_max: 64 << 20,
            structs_max: 16 << 20,
            clients_max: 1 << 20,
            delete_ranges_max: 16 << 20,
            nesting_max: VALUE_NESTING_MAX,
        }
    }

    /// For bytes that were admitted before: only the format binds.
    pub fn stored() -> Self {
        Self {
            update_bytes_max: u32::MAX as usize,
            structs_max: usize::MAX,
            clients_max: usize::MAX,
            delete_ranges_max: usize::MAX,
            nesting_max: VALUE_NESTING_MAX,
        }
    }
}

/// Why bytes are not an update that we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// It is longer than [`ScanLimits::update_bytes_max`].
    #[error("the update is longer than {max} bytes")]
    TooLarge {
        /// The limit, in bytes.
        max: usize,
    },
    /// It holds more structs than [`ScanLimits::structs_max`].
    #[error("the update holds more than {max} structs")]
    TooManyStructs {
        /// The limit.
        max: usize,
    },
    /// It holds more client sections than [`ScanLimits::clients_max`].
    #[error("the update holds more than {max} clients")]
    TooManyClients {
        /// The limit.
        max: usize,
    },
    /// It holds more delete ranges than [`ScanLimits::delete_ranges_max`].
    #[error("the update deletes more than {max} ranges")]
    TooManyDeleteRanges {
        /// The limit.
        max: usize,
    },
    /// Values are nested deeper than [`ScanLimits::nesting_max`].
    #[error("a value is nested deeper than {max}")]
    ValueTooDeep {
        /// The limit.
        max: usize,
    },
    /// It ends in the middle of something.
    #[error("the update is cut off")]
    Truncated,
    /// Something follows its end.
    #[error("the update has bytes after its end")]
    TrailingBytes,
    /// A number (a client id among them) passes 2^53 - 1, or is spelled with needless bytes.
    #[error("the update holds a malformed number")]
    BadInteger,
    /// A count says more than the bytes left can hold.
    #[error("the update holds a count that its bytes cannot hold")]
    CountTooLarge,
    /// An info byte, type or value tag that no Yjs version writes.
    #[error("the update holds the unknown tag {tag}")]
    UnknownTag {
        /// The byte.
        tag: u8,
    },
    /// A struct, section or range of no length.
    #[error("the update holds something of no length")]
    ZeroLength,
    /// A clock passes 2^31.
    #[error("a clock of the update is too large")]
    ClockTooLarge,
    /// Client sections are not strictly descending by client id.
    #[error("the clients of the update are out of order")]
    ClientsOutOfOrder,
    /// An item names itself, or a later item of its own client, as origin or parent.
    #[error("an item of the update hangs on itself")]
    SelfReference,
    /// A text is not UTF-8.
    #[error("a text of the update is not UTF-8")]
    InvalidUtf8,
    /// An embed or format value is not JSON.
    #[error("a value of the update is not JSON")]
    InvalidJson,
}

impl ScanError {
    /// Whether the update passes a limit (it may be well-formed and too much) rather than being malformed.
    pub fn is_limit(&self) -> bool {
        matches!(
            self,
            Self::TooLarge { .. }
                | Self::TooManyStructs { .. }
                | Self::TooManyClients { .. }
                | Self::TooManyDeleteRanges { .. }
                | Self::ValueTooDeep { .. }
        )
    }
}

/// The structs of one client in an update: clocks and byte offsets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section {
    pub(super) client: ClientId,
    /// The clock of its first struct.
    pub(super) clock: u32,
    /// The clock after its last struct.
    pub(super) end: u32,
    /// How many structs, Skips included; at least 1.
    pub(super) n: u32,
    /// The byte of its first struct.
    pub(super) from: u32,
    /// The byte of its last struct.
    pub(super) last: u32,
    /// The byte after its last struct.
    pub(super) to: u32,
    /// Whether any struct is a Skip.
    pub(super) has_skip: bool,
}

/// No allocation for what nearly every update is: one section or none.
#[derive(Clone, Debug)]
pub(super) enum Sections {
    None,
    One(Section),
    Many(Vec<Section>),
}

impl Sections {
    pub(super) fn as_slice(&self) -> &[Section] {
        match self {
            Self::None => &[],
            Self::One(section) => std::slice::from_ref(section),
            Self::Many(sections) => sections,
        }
    }

    fn push(&mut self, section: Section) {
        match self {
            Self::None => *self = Self::One(section),
            Self::One(first) => *self = Self::Many(vec![*first, section]),
            Self::Many(sections) => sections.push(section),
        }
    }
}

/// An update that was walked and found well-formed.
#[derive(Clone, Debug)]
pub struct Scanned {
    bytes: Bytes,
    pub(super) sections: Sections,
    /// What its only struct hangs on, when that is an item with content: nearly every update is one such item, and then
    /// admission need not walk the bytes again.
    lone: Option<Links>,
    // In 32 bits, since a scanned update waits in queues. Each is smaller than the bytes, whose offsets have 32 bits.
    n_structs: u32,
    /// The byte of the delete set.
    deletes_at: u32,
    n_delete_ranges: u32,
    /// Clients of the delete set in strict order, ranges ascending: fit to be passed on as it is.
    pub(super) deletes_in_order: bool,
}

impl Scanned {
    /// The update as it came.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whether it carries neither structs nor delete ranges: the `[0, 0]` of a client that has nothing to say.
    pub fn is_empty(&self) -> bool {
        self.n_structs == 0 && self.n_delete_ranges == 0
    }

    /// How many structs it holds.
    pub fn n_structs(&self) -> usize {
        self.n_structs as usize
    }

    /// How many delete ranges it holds.
    pub fn n_delete_ranges(&self) -> usize {
        self.n_delete_ranges as usize
    }

    pub(super) fn sections(&self) -> &[Section] {
        self.sections.as_slice()
    }

    /// The byte of the delete set.
    /// What the holder of this update holds when it is a whole document, without holes.
    pub fn state_vector(&self) -> StateVector {
        self.sections()
            .iter()
            .map(|section| (section.client, u64::from(section.end)))
            .collect()
    }

    pub(super) fn deletes_at(&self) -> usize {
        self.deletes_at as usize
    }

    /// The only struct of the update, as far as admission asks: length, links, place.
    #[inline]
    pub(super) fn lone(&self, section: &Section) -> Option<Struct> {
        let links = self.lone?;
        let mut item = Struct {
            info: 0,
            kind: Kind::Single,
            len: section.end - section.clock,
            left: None,
            right: None,
            parent: Parent::Inherited,
            from: section.from as usize,
            content: section.to as usize,
            to: section.to as usize,
        };
        match links {
            Links::Root => item.parent = Parent::Root,
            Links::Parent(parent) => item.parent = Parent::Item(parent),
            Links::Left(left) => item.left = Some(left),
            Links::Right(right) => item.right = Some(right),
            Links::Both(left, right) => (item.left, item.right) = (Some(left), Some(right)),
        }
        Some(item)
    }

    /// Calls `each(client, start, end)` for every delete range.
    pub(super) fn for_each_delete(&self, mut each: impl FnMut(ClientId, u32, u32)) {
        let mut cursor = Cursor::new(&self.bytes, self.deletes_at());
        walk_deletes(&mut cursor, &ScanLimits::stored(), |client, start, end| {
            each(client, start, end);
        })
        .expect("the delete set was walked by scan");
    }
}

impl Scanned {
    /// Calls `each` for the units of every GC and Deleted struct.
    pub(super) fn for_each_dead(&self, mut each: impl FnMut(DeletedRange)) {
        for section in self.sections() {
            let client = section.client;
            let mut cursor = Cursor::new(&self.bytes, section.from as usize);
            let mut start = section.clock;
            for _ in 0..section.n {
                let item = cursor
                    .next_struct::<false>(client, start, VALUE_NESTING_MAX)
                    .expect("the structs were walked by scan");
                let end = start + item.len;
                if item.is_dead() {
                    each(DeletedRange { client, start, end });
                }
                start = end;
            }
        }
    }
}

/// Walks an update in linear time and constant memory; see the module.
pub fn scan(bytes: &Bytes, limits: &ScanLimits) -> Result<Scanned, ScanError> {
    walk::<true>(bytes, limits)
}

/// The walk over bytes that a scan has passed before: text, JSON and references are not looked at again.
pub(super) fn rescan(bytes: &Bytes) -> Result<Scanned, ScanError> {
    walk::<false>(bytes, &ScanLimits::stored())
}

fn walk<const CHECK: bool>(bytes: &Bytes, limits: &ScanLimits) -> Result<Scanned, ScanError> {
    let max = limits.update_bytes_max.min(u32::MAX as usize);
    if bytes.len() > max {
        return Err(ScanError::TooLarge { max });
    }
    let mut cursor = Cursor::new(bytes, 0);
    let mut sections = Sections::None;
    let mut lone = None;
    let mut n_structs = 0;
    // A section takes at least five bytes: three numbers and a struct of two.
    let n_sections = cursor.count(5)?;
    if n_sections as usize > limits.clients_max {
        return Err(ScanError::TooManyClients {
            max: limits.clients_max,
        });
    }
    let mut previous = ClientId::MAX;
    for _ in 0..n_sections {
        let n = cursor.count(2)?;
        n_structs += n as usize;
        if n_structs > limits.structs_max {
            return Err(ScanError::TooManyStructs {
                max: limits.structs_max,
            });
        }
        let client = cursor.uint()?;
        if client >= previous {
            return Err(ScanError::ClientsOutOfOrder);
        }
        previous = client;
        let (section, last) = walk_section::<CHECK>(&mut cursor, client, n, limits)?;
        sections.push(section);
        lone = last;
    }
    if n_structs != 1 {
        lone = None;
    }
    let deletes_at = cursor.at();
    let (n_delete_ranges, deletes_in_order) = walk_deletes(&mut cursor, limits, |_, _, _| {})?;
    if cursor.left() > 0 {
        return Err(ScanError::TrailingBytes);
    }
    Ok(Scanned {
        bytes: bytes.clone(),
        sections,
        lone,
        n_structs: n_structs as u32,
        deletes_at: deletes_at as u32,
        n_delete_ranges: n_delete_ranges as u32,
        deletes_in_order,
    })
}

/// Walks the structs of one client; also says what the last one hangs on.
fn walk_section<const CHECK: bool>(
    cursor: &mut Cursor<'_>,
    client: ClientId,
    n: u32,
    limits: &ScanLimits,
) -> Result<(Section, Option<Links>), ScanError> {
    if n == 0 {
        return Err(ScanError::ZeroLength);
    }
    let clock = cursor.clock()?;
    let from = cursor.at();
    let mut end = u64::from(clock);
    let mut last = from;
    let mut has_skip = false;
    let mut links = None;
    for _ in 0..n {
        last = cursor.at();
        let item = cursor.next_struct::<CHECK>(client, end as u32, limits.nesting_max)?;
        has_skip |= item.kind == Kind::Skip;
        end += u64::from(item.len);
        if end > CLOCK_MAX {
            return Err(ScanError::ClockTooLarge);
        }
        links = item.links();
    }
    let section = Section {
        client,
        clock,
        end: end as u32,
        n,
        from: from as u32,
        last: last as u32,
        to: cursor.at() as u32,
        has_skip,
    };
    Ok((section, links))
}

/// Walks a delete set; how many ranges it holds, and whether it is in order.
fn walk_deletes(
    cursor: &mut Cursor<'_>,
    limits: &ScanLimits,
    mut each: impl FnMut(ClientId, u32, u32),
) -> Result<(usize, bool), ScanError> {
    let mut n_ranges = 0;
    let (mut ascending, mut descending, mut sorted) = (true, true, true);
    let mut previous: Option<ClientId> = None;
    let n_clients = cursor.count(4)?;
    if n_clients as usize > limits.clients_max {
        return Err(ScanError::TooManyClients {
            max: limits.clients_max,
        });
    }
    for _ in 0..n_clients {
        let client = cursor.uint()?;
        if let Some(previous) = previous {
            ascending &= client > previous;
            descending &= client < previous;
        }
        previous = Some(client);
        let n = cursor.count(2)?;
        if n == 0 {
            return Err(ScanError::ZeroLength);
        }
        n_ranges += n as usize;
        if n_ranges > limits.delete_ranges_max {
            return Err(ScanError::TooManyDeleteRanges {
                max: limits.delete_ranges_max,
            });
        }
        let mut reached = 0;
        for _ in 0..n {
            let start = cursor.clock()?;
            let length = cursor.length()?;
            let end = u64::from(start) + u64::from(length);
            if end > CLOCK_MAX {
                return Err(ScanError::ClockTooLarge);
            }
            sorted &= start >= reached;
            reached = end as u32;
            each(client, start, end as u32);
        }
    }
    Ok((n_ranges, sorted && (ascending || descending)))
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
