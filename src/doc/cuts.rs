//! Where the content of one struct can be cut: once, or at many units in one pass. A stranger chooses how many, so looking
//! for each from the start would be quadratic.

use crate::doc::content::{Cursor, Kind, Struct};
use crate::doc::scan::ScanError;

/// U+FFFD: what Yjs writes for half of a surrogate pair.
pub(super) const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

/// Where a struct's content can be cut at a unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct CutAt {
    /// The byte after what lies before the cut.
    pub(super) before: usize,
    /// The byte at which what lies behind it begins: the same, unless a surrogate pair is cut and belongs to neither.
    pub(super) after: usize,
    /// Whether a surrogate pair is cut.
    pub(super) splits: bool,
}

/// Goes through a struct's content once, for whoever cuts it at many units. Only forward.
#[derive(Clone, Copy, Debug)]
pub(super) struct ContentCursor<'a> {
    bytes: &'a [u8],
    kind: Kind,
    /// The next unit, and its byte.
    pub(super) unit: u32,
    pub(super) at: usize,
    /// The next unit is the second half of a surrogate pair that begins at `at`.
    inside: bool,
}

impl<'a> ContentCursor<'a> {
    /// At the first unit.
    pub(super) fn new(bytes: &'a [u8], item: &Struct) -> Self {
        let bytes = &bytes[..item.to];
        let mut cursor = Cursor::new(bytes, item.content);
        if matches!(item.kind, Kind::Text | Kind::Any | Kind::Json) {
            // It was read before; a second reading has the same end.
            let _number = cursor.uint();
        }
        Self {
            bytes,
            kind: item.kind,
            unit: 0,
            at: cursor.at(),
            inside: false,
        }
    }

    /// Goes on to a unit.
    pub(super) fn advance(&mut self, unit: u32) -> Result<(), ScanError> {
        match self.kind {
            Kind::Text => {
                while self.unit < unit {
                    let width = match self.bytes.get(self.at).ok_or(ScanError::Truncated)? {
                        0..=0x7f => 1,
                        0x80..=0xdf => 2,
                        0xe0..=0xef => 3,
                        0xf0..=0xff if self.inside => {
                            self.inside = false;
                            4
                        }
                        0xf0..=0xff => {
                            self.inside = true;
                            0
                        }
                    };
                    self.at += width;
                    self.unit += 1;
                }
            }
            Kind::Any | Kind::Json => {
                let mut cursor = Cursor::new(self.bytes, self.at);
                cursor.elements(self.kind, unit.saturating_sub(self.unit))?;
                self.at = cursor.at();
                self.unit = self.unit.max(unit);
            }
            Kind::Gc | Kind::Skip | Kind::Deleted | Kind::Single => {
                self.at = self.bytes.len();
                self.unit = unit;
            }
        }
        Ok(())
    }

    /// Where to cut here.
    pub(super) fn here(&self) -> CutAt {
        let pair = if self.inside { 4 } else { 0 };
        CutAt {
            before: self.at,
            after: self.at + pair,
            splits: self.inside,
        }
    }
}

/// The content of a cut struct: the number that stands before it, and where its bytes come from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut<'a> {
    /// The bytes of the whole text characters or elements.
    pub(super) bytes: &'a [u8],
    /// The cut begins inside a surrogate pair: Yjs writes U+FFFD for the half.
    pub(super) half_at_start: bool,
    /// The cut ends inside a surrogate pair.
    pub(super) half_at_end: bool,
}

/// The bytes of `keep` units of `item`'s content from its unit `skip` on. Only for content that has bytes: text, values,
/// legacy JSON.
pub(super) fn cut_content<'a>(
    bytes: &'a [u8],
    item: &Struct,
    skip: u32,
    keep: u32,
) -> Result<Cut<'a>, ScanError> {
    let mut cursor = Cursor::new(&bytes[..item.to], item.content);
    cursor.uint()?;
    if item.kind != Kind::Text {
        cursor.elements(item.kind, skip)?;
        let from = cursor.at();
        cursor.elements(item.kind, keep)?;
        return Ok(Cut {
            bytes: &bytes[from..cursor.at()],
            half_at_start: false,
            half_at_end: false,
        });
    }
    let text = &bytes[cursor.at()..item.to];
    let (start, half_at_start) = utf16_offset(text, skip);
    let (end, half_at_end) = utf16_offset(text, skip + keep);
    // A pair whose first half is cut away begins after its own four bytes; one whose second half is cut away ends before.
    let start = if half_at_start { start + 4 } else { start };
    Ok(Cut {
        bytes: text.get(start..end).unwrap_or_default(),
        half_at_start,
        half_at_end,
    })
}

/// The byte at which the UTF-16 unit `units` begins; when that is the second half of a pair, the byte of the pair and true.
fn utf16_offset(text: &[u8], units: u32) -> (usize, bool) {
    let mut seen = 0;
    let mut at = 0;
    while at < text.len() && seen < units {
        let (bytes, width) = match text[at] {
            0..=0x7f => (1, 1),
            0x80..=0xdf => (2, 1),
            0xe0..=0xef => (3, 1),
            0xf0..=0xff => (4, 2),
        };
        if seen + width > units {
            return (at, true);
        }
        seen += width;
        at += bytes;
    }
    (at, false)
}
