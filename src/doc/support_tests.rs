//! Updates written by hand, for tests.

use std::time::Instant;

use bytes::Bytes;

use crate::doc::content::write_uint;
use crate::doc::scan::{ScanLimits, Scanned, scan};
use crate::doc::{Admission, AdmitError, Document, DocumentLimits, StateVector, TailUpdate};
use crate::ids::Origin;

/// The bytes of a hexadecimal text, spaces left out.
pub(super) fn hex(text: &str) -> Bytes {
    let text = text.replace(' ', "");
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
        .collect()
}

/// Bytes from numbers and raw parts.
#[derive(Default, Clone)]
pub(super) struct Raw(pub(super) Vec<u8>);

impl Raw {
    pub(super) fn uints(mut self, values: &[u64]) -> Self {
        values
            .iter()
            .for_each(|value| write_uint(&mut self.0, *value));
        self
    }

    pub(super) fn text(mut self, text: &str) -> Self {
        write_uint(&mut self.0, text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
        self
    }
}

/// Where an item hangs: in the root `t`, after an item, before an item, between two, or in a type.
#[derive(Clone, Copy)]
pub(super) enum At {
    Root,
    After(u64, u64),
    Before(u64, u64),
    Between((u64, u64), (u64, u64)),
    In(u64, u64),
}

fn item(content: u8, at: At) -> Raw {
    let info = |bits: u8| Raw(vec![content | bits]);
    match at {
        At::Root => info(0).uints(&[1]).text("t"),
        At::After(client, clock) => info(0x80).uints(&[client, clock]),
        At::Before(client, clock) => info(0x40).uints(&[client, clock]),
        At::Between(left, right) => info(0xc0).uints(&[left.0, left.1, right.0, right.1]),
        At::In(client, clock) => info(0).uints(&[0, client, clock]),
    }
}

/// A text item.
pub(super) fn text(at: At, text: &str) -> Raw {
    item(4, at).text(text)
}

/// An item of small integers.
pub(super) fn any(at: At, values: &[u8]) -> Raw {
    let mut raw = item(8, at).uints(&[values.len() as u64]);
    values.iter().for_each(|value| raw.0.extend([125, *value]));
    raw
}

/// A deleted item that kept its place.
pub(super) fn deleted(at: At, length: u64) -> Raw {
    item(1, at).uints(&[length])
}

/// An array type.
pub(super) fn array(at: At) -> Raw {
    item(7, at).uints(&[0])
}

/// A collected struct.
pub(super) fn gc(length: u64) -> Raw {
    Raw(vec![0]).uints(&[length])
}

/// A hole.
pub(super) fn skip(length: u64) -> Raw {
    Raw(vec![10]).uints(&[length])
}

/// Client, clock, structs.
pub(super) type TestSection<'a> = (u64, u64, &'a [Raw]);
/// Client, ranges of clock and length.
pub(super) type TestDeletes<'a> = (u64, &'a [(u64, u64)]);

/// An update.
pub(super) fn update(sections: &[TestSection<'_>], deletes: &[TestDeletes<'_>]) -> Bytes {
    let mut raw = Raw::default().uints(&[sections.len() as u64]);
    for (client, clock, structs) in sections {
        raw = raw.uints(&[structs.len() as u64, *client, *clock]);
        structs
            .iter()
            .for_each(|item| raw.0.extend_from_slice(&item.0));
    }
    raw = raw.uints(&[deletes.len() as u64]);
    for (client, ranges) in deletes {
        raw = raw.uints(&[*client, ranges.len() as u64]);
        for (clock, length) in *ranges {
            raw = raw.uints(&[*clock, *length]);
        }
    }
    raw.0.into()
}

/// The scan of what must be well-formed.
pub(super) fn scanned(update: &Bytes) -> Scanned {
    scan(update, &ScanLimits::initial_sync()).unwrap()
}

pub(super) const ORIGIN: Origin = Origin::from_bytes([1; 8]);

/// A document, its log, and a clock that stands still.
pub(super) struct Room {
    pub(super) document: Document,
    pub(super) log: Vec<TailUpdate>,
    pub(super) now: Instant,
}

impl Room {
    pub(super) fn new() -> Self {
        Self::with(DocumentLimits::default())
    }

    pub(super) fn with(limits: DocumentLimits) -> Self {
        Self {
            document: Document::new(limits),
            log: Vec::new(),
            now: Instant::now(),
        }
    }

    pub(super) fn try_admit(&mut self, bytes: &Bytes) -> Result<Admission, AdmitError> {
        let admission = self.document.admit(&scanned(bytes), self.now)?;
        for bytes in admission.all_news() {
            let sequence = self.log.len() as u64 + 1;
            let update = TailUpdate {
                origin: ORIGIN,
                sequence,
                bytes: bytes.clone(),
            };
            self.log.push(update.clone());
            self.document.push(update);
        }
        Ok(admission)
    }

    pub(super) fn admit(&mut self, bytes: &Bytes) -> Admission {
        self.try_admit(bytes).unwrap()
    }

    /// Types `word` at the end of the client's text.
    pub(super) fn types(&mut self, client: u64, word: &str) -> Admission {
        let clock = self.document.state_vector().get(client);
        let at = if clock == 0 {
            At::Root
        } else {
            At::After(client, clock - 1)
        };
        self.admit(&update(&[(client, clock, &[text(at, word)])], &[]))
    }
}

pub(super) fn vector(entries: &[(u64, u64)]) -> StateVector {
    entries.iter().copied().collect()
}
