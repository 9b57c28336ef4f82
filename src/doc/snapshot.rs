//! A whole document as one update, with a map of it: what a newcomer gets, and what a diff is cut from.

use bytes::Bytes;

use crate::doc::content::{Cursor, VALUE_NESTING_MAX};
use crate::doc::scan::{ScanError, Section};
use crate::doc::state_vector::StateVector;
use crate::doc::writer::UpdateWriter;

/// Every how many structs a diff may start walking. 64 keep a diff of a large document under a microsecond plus the copy.
const STRUCTS_PER_MARK: u32 = 64;

/// A struct in the middle of a section.
#[derive(Clone, Copy, Debug)]
struct Mark {
    clock: u32,
    at: u32,
    n_before: u32,
}

/// The document's structs: one section per client, descending, without holes.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) bytes: Bytes,
    pub(super) sections: Vec<Section>,
    /// Per section, made at the first diff that cuts the document.
    marks: Option<Vec<Vec<Mark>>>,
}

impl Snapshot {
    pub(super) fn new(bytes: Bytes, sections: Vec<Section>) -> Self {
        Self {
            bytes,
            sections,
            marks: None,
        }
    }

    /// What a holder of `from` lacks, under a delete set in wire form.
    pub(super) fn diff(&mut self, from: &StateVector, deletes: &[u8]) -> Result<Bytes, ScanError> {
        let known = |section: &Section| from.get(section.client).min(u64::from(section.end)) as u32;
        let lacking = self
            .sections
            .iter()
            .filter(|section| known(section) < section.end);
        let mut writer = UpdateWriter::new(lacking.count(), deletes.len() + 256);
        for index in 0..self.sections.len() {
            let section = self.sections[index];
            let known = known(&section);
            if known >= section.end {
                continue;
            }
            if known <= section.clock {
                writer.begin(section.client, section.clock);
                writer.verbatim(
                    &self.bytes[section.from as usize..section.to as usize],
                    section.n,
                    section.end,
                );
            } else {
                self.cut(&mut writer, index, known)?;
            }
            writer.end();
        }
        Ok(writer.finish(deletes).0)
    }

    /// Writes a section from a clock in its middle on.
    fn cut(
        &mut self,
        writer: &mut UpdateWriter,
        index: usize,
        known: u32,
    ) -> Result<(), ScanError> {
        let section = self.sections[index];
        let mark = self.mark(index, known)?;
        let mut cursor = Cursor::new(&self.bytes, mark.at as usize);
        let mut clock = mark.clock;
        let mut n_left = section.n - mark.n_before;
        loop {
            let item = cursor.next_struct::<false>(section.client, clock, VALUE_NESTING_MAX)?;
            n_left -= 1;
            let end = clock + item.len;
            if end > known {
                let skip = known - clock;
                writer.begin(section.client, known);
                writer.push(&self.bytes, &item, clock, skip, item.len - skip)?;
                writer.verbatim(
                    &self.bytes[item.to..section.to as usize],
                    n_left,
                    section.end,
                );
                return Ok(());
            }
            clock = end;
        }
    }

    /// The last mark at or before a clock of a section.
    fn mark(&mut self, index: usize, clock: u32) -> Result<Mark, ScanError> {
        let marks = match &mut self.marks {
            Some(marks) => marks,
            none => none.insert(
                self.sections
                    .iter()
                    .map(|section| marks_of(&self.bytes, section))
                    .collect::<Result<_, _>>()?,
            ),
        };
        let section = self.sections[index];
        let of_section = &marks[index];
        let after = of_section.partition_point(|mark| mark.clock <= clock);
        Ok(after.checked_sub(1).map_or(
            Mark {
                clock: section.clock,
                at: section.from,
                n_before: 0,
            },
            |before| of_section[before],
        ))
    }
}

fn marks_of(bytes: &[u8], section: &Section) -> Result<Vec<Mark>, ScanError> {
    let mut marks = Vec::new();
    if section.n <= STRUCTS_PER_MARK {
        return Ok(marks);
    }
    let mut cursor = Cursor::new(bytes, section.from as usize);
    let mut clock = section.clock;
    for n_before in 0..section.n {
        if n_before > 0 && n_before % STRUCTS_PER_MARK == 0 {
            marks.push(Mark {
                clock,
                at: cursor.at() as u32,
                n_before,
            });
        }
        let item = cursor.next_struct::<false>(section.client, clock, VALUE_NESTING_MAX)?;
        clock += item.len;
    }
    Ok(marks)
}
