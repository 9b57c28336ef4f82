//! The walker over one struct of the V1 format, shared by every part that reads or cuts updates.
//!
//! Everything here is written for bytes of strangers: no recursion (nested values are walked with a fixed stack), no
//! allocation, no count believed before it is compared with the bytes left. Walking is generic over `CHECK`: the first
//! walk of a stranger's bytes checks text, JSON and references; later walks over the same bytes leave that out.

use crate::doc::scan::ScanError;
use crate::ids::{CLIENT_ID_MAX, ClientId};

/// The deepest nesting of values inside one struct that any limit may ask for; the size of the walker's stack.
pub(super) const VALUE_NESTING_MAX: usize = 64;

/// The largest clock. Arithmetic near 2^32 breaks yrs, and no document comes near this.
pub(super) const CLOCK_MAX: u64 = 1 << 31;

/// The low five bits of an info byte: which content follows.
pub(super) const CONTENT_MASK: u8 = 0x1f;
/// The info bit of a left origin.
pub(super) const HAS_LEFT: u8 = 0x80;
/// The info bit of a right origin.
pub(super) const HAS_RIGHT: u8 = 0x40;
/// The info bit of a map entry's key; the key itself is written only when there is no origin to copy it from.
pub(super) const HAS_KEY: u8 = 0x20;
/// The info byte of a Skip: a hole of the given length.
pub(super) const SKIP: u8 = 10;

/// One unit of a document: the client that made it and its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) client: ClientId,
    pub(super) clock: u32,
}

/// What a struct is, as far as cutting and joining care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Collected: nothing known but the length.
    Gc,
    /// A hole.
    Skip,
    /// A deleted item that kept its place.
    Deleted,
    /// Legacy JSON values: a count, then as many JSON texts.
    Json,
    /// Text, measured in UTF-16 units.
    Text,
    /// Values: a count, then as many values.
    Any,
    /// Binary, embed, format, type, subdocument: one unit, never cut.
    Single,
}

/// Where an item hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parent {
    /// Not said: the same as its origin's.
    Inherited,
    /// A named root.
    Root,
    /// A type that is itself an item.
    Item(Id),
}

/// One struct, as offsets into the bytes that it was read from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Struct {
    pub(super) info: u8,
    pub(super) kind: Kind,
    /// Units that it covers; at least 1.
    pub(super) len: u32,
    pub(super) left: Option<Id>,
    pub(super) right: Option<Id>,
    pub(super) parent: Parent,
    /// Its info byte.
    pub(super) from: usize,
    /// Its content, after origins, parent and key.
    pub(super) content: usize,
    /// The byte after it.
    pub(super) to: usize,
}

/// What one item hangs on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Links {
    /// A named root, and nothing else.
    Root,
    Left(Id),
    Right(Id),
    Both(Id, Id),
    Parent(Id),
}

impl Struct {
    /// What it hangs on, when it is an item with content.
    #[inline]
    pub(super) fn links(&self) -> Option<Links> {
        if self.is_dead() || self.kind == Kind::Skip {
            return None;
        }
        Some(match (self.left, self.right, self.parent) {
            (Some(left), Some(right), _) => Links::Both(left, right),
            (Some(left), None, _) => Links::Left(left),
            (None, Some(right), _) => Links::Right(right),
            (None, None, Parent::Item(parent)) => Links::Parent(parent),
            (None, None, Parent::Root | Parent::Inherited) => Links::Root,
        })
    }

    /// Whether its units are deleted whatever a delete set says.
    pub(super) fn is_dead(&self) -> bool {
        matches!(self.kind, Kind::Gc | Kind::Deleted)
    }

    /// Which content it has: the low bits of its info byte.
    pub(super) fn content_number(&self) -> u8 {
        self.info & CONTENT_MASK
    }

    /// The text of a `Text`.
    pub(super) fn text<'a>(&self, bytes: &'a [u8]) -> Result<&'a str, ScanError> {
        let text = Cursor::new(&bytes[..self.to], self.content).buffer()?;
        std::str::from_utf8(text).map_err(|_| ScanError::InvalidUtf8)
    }

    /// Calls `each` with the bytes of every element of a `Json` or `Any`.
    pub(super) fn for_each_element<'a>(
        &self,
        bytes: &'a [u8],
        mut each: impl FnMut(&'a [u8]),
    ) -> Result<(), ScanError> {
        let mut cursor = Cursor::new(&bytes[..self.to], self.content);
        cursor.uint()?;
        for _ in 0..self.len {
            let from = cursor.at;
            cursor.elements(self.kind, 1)?;
            each(&bytes[from..cursor.at]);
        }
        Ok(())
    }
}

/// A reader over bytes that never reads past their end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, ScanError> {
        let byte = *self.bytes.get(self.at).ok_or(ScanError::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    /// A lib0 varUint below 2^53. Longer spellings of a number are refused: no encoder writes them, and decoders differ
    /// in whether they take them.
    #[inline(always)]
    pub(super) fn uint(&mut self) -> Result<u64, ScanError> {
        match self.bytes.get(self.at) {
            Some(&first) if first < 0x80 => {
                self.at += 1;
                Ok(u64::from(first))
            }
            _ => self.long_uint(),
        }
    }

    fn long_uint(&mut self) -> Result<u64, ScanError> {
        let mut value = 0;
        let mut shift = 0;
        for &byte in &self.bytes[self.at..] {
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                if byte == 0 || value > CLIENT_ID_MAX {
                    return Err(ScanError::BadInteger);
                }
                self.at += shift / 7;
                return Ok(value);
            }
            // Eight bytes hold 56 bits, more than there may be.
            if shift == 56 {
                return Err(ScanError::BadInteger);
            }
        }
        Err(ScanError::Truncated)
    }

    /// A count of things of at least `bytes_each` bytes, refused when the bytes left cannot hold that many.
    #[inline]
    pub(super) fn count(&mut self, bytes_each: usize) -> Result<u32, ScanError> {
        let count = self.uint()?;
        if count > (self.left() / bytes_each) as u64 {
            return Err(ScanError::CountTooLarge);
        }
        u32::try_from(count).map_err(|_| ScanError::CountTooLarge)
    }

    #[inline]
    pub(super) fn clock(&mut self) -> Result<u32, ScanError> {
        match self.uint()? {
            clock if clock <= CLOCK_MAX => Ok(clock as u32),
            _ => Err(ScanError::ClockTooLarge),
        }
    }

    /// A length in units, at least 1.
    #[inline]
    pub(super) fn length(&mut self) -> Result<u32, ScanError> {
        match self.clock()? {
            0 => Err(ScanError::ZeroLength),
            length => Ok(length),
        }
    }

    #[inline]
    pub(super) fn id(&mut self) -> Result<Id, ScanError> {
        Ok(Id {
            client: self.uint()?,
            clock: self.clock()?,
        })
    }

    #[inline]
    fn take(&mut self, n: u64) -> Result<&'a [u8], ScanError> {
        if n > self.left() as u64 {
            return Err(ScanError::Truncated);
        }
        let taken = &self.bytes[self.at..self.at + n as usize];
        self.at += n as usize;
        Ok(taken)
    }

    #[inline]
    fn buffer(&mut self) -> Result<&'a [u8], ScanError> {
        let n = self.uint()?;
        self.take(n)
    }

    #[inline]
    fn text<const CHECK: bool>(&mut self) -> Result<&'a [u8], ScanError> {
        let text = self.buffer()?;
        // A keystroke is one letter.
        let is_letter = matches!(text, [letter] if letter.is_ascii());
        if CHECK && !is_letter && std::str::from_utf8(text).is_err() {
            return Err(ScanError::InvalidUtf8);
        }
        Ok(text)
    }

    fn json<const CHECK: bool>(&mut self, nesting_max: usize) -> Result<&'a [u8], ScanError> {
        let text = self.text::<CHECK>()?;
        if CHECK {
            check_json(text, nesting_max)?;
        }
        Ok(text)
    }

    /// Walks one lib0 `any` value.
    fn any<const CHECK: bool>(&mut self, nesting_max: usize) -> Result<(), ScanError> {
        let mut depth = 0;
        let mut left = [0_u32; VALUE_NESTING_MAX];
        let mut keyed = [false; VALUE_NESTING_MAX];
        loop {
            if depth > 0 && keyed[depth - 1] {
                self.text::<CHECK>()?;
            }
            match self.byte()? {
                // undefined, null, false, true
                127 | 126 | 121 | 120 => {}
                125 => self.signed()?,
                124 => drop(self.take(4)?),
                123 | 122 => drop(self.take(8)?),
                119 => drop(self.text::<CHECK>()?),
                116 => drop(self.buffer()?),
                tag @ (118 | 117) => {
                    let map = tag == 118;
                    let n = self.count(if map { 2 } else { 1 })?;
                    if depth >= nesting_max.min(VALUE_NESTING_MAX) {
                        return Err(ScanError::ValueTooDeep { max: nesting_max });
                    }
                    if n > 0 {
                        left[depth] = n;
                        keyed[depth] = map;
                        depth += 1;
                        continue;
                    }
                }
                tag => return Err(ScanError::UnknownTag { tag }),
            }
            loop {
                if depth == 0 {
                    return Ok(());
                }
                left[depth - 1] -= 1;
                if left[depth - 1] > 0 {
                    break;
                }
                depth -= 1;
            }
        }
    }

    /// A lib0 varInt: six bits and a sign in the first byte, then seven bits a byte.
    fn signed(&mut self) -> Result<(), ScanError> {
        let first = self.byte()?;
        let mut value = u64::from(first & 0x3f);
        let mut more = first >= 0x80;
        let mut shift = 6;
        while more {
            if shift > 48 {
                return Err(ScanError::BadInteger);
            }
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            more = byte >= 0x80;
        }
        if value > CLIENT_ID_MAX {
            return Err(ScanError::BadInteger);
        }
        Ok(())
    }

    /// Walks the struct of `client` at `clock`.
    #[inline]
    pub(super) fn next_struct<const CHECK: bool>(
        &mut self,
        client: ClientId,
        clock: u32,
        nesting_max: usize,
    ) -> Result<Struct, ScanError> {
        let from = self.at;
        let info = self.byte()?;
        let mut item = Struct {
            info,
            kind: Kind::Single,
            len: 1,
            left: None,
            right: None,
            parent: Parent::Inherited,
            from,
            content: self.at,
            to: self.at,
        };
        if info == 0 || info == SKIP {
            item.kind = if info == 0 { Kind::Gc } else { Kind::Skip };
            item.len = self.length()?;
            item.to = self.at;
            return Ok(item);
        }
        if info & HAS_LEFT != 0 {
            item.left = Some(self.id()?);
        }
        if info & HAS_RIGHT != 0 {
            item.right = Some(self.id()?);
        }
        if info & (HAS_LEFT | HAS_RIGHT) == 0 {
            match self.uint()? {
                1 => {
                    self.text::<CHECK>()?;
                    item.parent = Parent::Root;
                }
                0 => item.parent = Parent::Item(self.id()?),
                _ => return Err(ScanError::UnknownTag { tag: info }),
            }
            if info & HAS_KEY != 0 {
                self.text::<CHECK>()?;
            }
        }
        if CHECK {
            // An item that hangs on itself or on a later one of its own client can never be placed.
            let own =
                |id: Option<Id>| id.is_some_and(|id| id.client == client && id.clock >= clock);
            let parent = match item.parent {
                Parent::Item(id) => Some(id),
                Parent::Inherited | Parent::Root => None,
            };
            if own(item.left) || own(item.right) || own(parent) {
                return Err(ScanError::SelfReference);
            }
        }
        item.content = self.at;
        self.content::<CHECK>(&mut item, nesting_max)?;
        item.to = self.at;
        Ok(item)
    }

    #[inline]
    fn content<const CHECK: bool>(
        &mut self,
        item: &mut Struct,
        nesting_max: usize,
    ) -> Result<(), ScanError> {
        match item.info & CONTENT_MASK {
            1 => {
                item.kind = Kind::Deleted;
                item.len = self.length()?;
            }
            2 => {
                item.kind = Kind::Json;
                item.len = self.count(1)?;
                for _ in 0..item.len {
                    self.legacy_json::<CHECK>(nesting_max)?;
                }
            }
            3 => drop(self.buffer()?),
            4 => {
                item.kind = Kind::Text;
                item.len = utf16_len(self.text::<CHECK>()?);
            }
            5 => drop(self.json::<CHECK>(nesting_max)?),
            6 => {
                self.text::<CHECK>()?;
                self.json::<CHECK>(nesting_max)?;
            }
            7 => match self.byte()? {
                // Array, map, text, fragment, XML text.
                0 | 1 | 2 | 4 | 6 => {}
                // XML element and hook carry a name.
                3 | 5 => drop(self.text::<CHECK>()?),
                tag => return Err(ScanError::UnknownTag { tag }),
            },
            8 => {
                item.kind = Kind::Any;
                item.len = self.count(1)?;
                for _ in 0..item.len {
                    self.any::<CHECK>(nesting_max)?;
                }
            }
            9 => {
                self.text::<CHECK>()?;
                // Yjs reads properties of the options, so anything but an object makes every client throw.
                if CHECK && self.bytes.get(self.at).is_some_and(|&tag| tag != 118) {
                    return Err(ScanError::UnknownTag {
                        tag: self.bytes[self.at],
                    });
                }
                self.any::<CHECK>(nesting_max)?;
            }
            _ => return Err(ScanError::UnknownTag { tag: item.info }),
        }
        if item.len == 0 {
            return Err(ScanError::ZeroLength);
        }
        Ok(())
    }

    fn legacy_json<const CHECK: bool>(&mut self, nesting_max: usize) -> Result<(), ScanError> {
        let text = self.text::<CHECK>()?;
        if CHECK && text != b"undefined" {
            check_json(text, nesting_max)?;
        }
        Ok(())
    }

    /// Walks past `n` elements of a `Json` or `Any` content.
    pub(super) fn elements(&mut self, kind: Kind, n: u32) -> Result<(), ScanError> {
        for _ in 0..n {
            if kind == Kind::Json {
                self.legacy_json::<false>(VALUE_NESTING_MAX)?;
            } else {
                self.any::<false>(VALUE_NESTING_MAX)?;
            }
        }
        Ok(())
    }
}

/// The length of UTF-8 in UTF-16 units: one for each character, one more for those of four bytes.
#[inline]
pub(super) fn utf16_len(text: &[u8]) -> u32 {
    if text.len() == 1 {
        return 1;
    }
    let units: usize = text
        .iter()
        .map(|&byte| usize::from(byte & 0xc0 != 0x80) + usize::from(byte >= 0xf0))
        .sum();
    units as u32
}

/// Clients parse embeds and format values with `JSON.parse` while they apply an update: a text that is not JSON would
/// stop every one of them. Duplicate keys, numbers of any size and lone surrogate escapes are JSON to them.
fn check_json(text: &[u8], nesting_max: usize) -> Result<(), ScanError> {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    for &byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > nesting_max {
                    return Err(ScanError::ValueTooDeep { max: nesting_max });
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    serde_json::from_slice::<serde::de::IgnoredAny>(text)
        .map(drop)
        .map_err(|_| ScanError::InvalidJson)
}

/// How many bytes a lib0 varUint takes.
pub(super) fn uint_bytes(value: u64) -> usize {
    (64 - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// Appends a lib0 varUint.
#[inline]
pub(super) fn write_uint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
