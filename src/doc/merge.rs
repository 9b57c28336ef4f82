//! Joins updates at byte level: a linear pass that copies content verbatim, so nothing that a client wrote is lost to an
//! implementation that does not know it.
//!
//! Rules: where two structs cover one clock, Deleted or GC wins over content (the deletion is never undone), and Deleted
//! over GC (it still knows its place); structs that overlap in part are cut; a hole becomes a Skip, never at the start of
//! a section, since Yjs loses content after a Skip at clock 0.

use bytes::Bytes;

use crate::doc::content::{Cursor, Kind, Struct, VALUE_NESTING_MAX};
use crate::doc::delete_index::{DeletedRange, write_deletes};
use crate::doc::scan::{ScanError, ScanLimits, Scanned, Section, scan};
use crate::doc::writer::UpdateWriter;

/// Why updates cannot be merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// One of them is not a well-formed update.
    #[error("update {index} cannot be merged: {source}")]
    Malformed {
        /// Its place in the list.
        index: usize,
        /// What is wrong with it.
        source: ScanError,
    },
    /// Together they pass 4 GiB.
    #[error("the updates are too large to be merged")]
    TooLarge,
}

/// One update that holds what all of these hold, whatever their order and overlap.
pub fn merge(updates: &[Bytes]) -> Result<Bytes, MergeError> {
    let limits = ScanLimits::stored();
    let mut scanned = Vec::with_capacity(updates.len());
    let mut bytes = 0_u64;
    for (index, update) in updates.iter().enumerate() {
        bytes += update.len() as u64;
        let walked = scan(update, &limits);
        scanned.push(walked.map_err(|source| MergeError::Malformed { index, source })?);
    }
    if bytes > u64::from(u32::MAX) {
        return Err(MergeError::TooLarge);
    }
    merge_scanned(&scanned).map_err(|source| MergeError::Malformed { index: 0, source })
}

/// The merge of updates that were walked.
pub(super) fn merge_scanned(updates: &[Scanned]) -> Result<Bytes, ScanError> {
    let mut sources: Vec<Source<'_>> = Vec::with_capacity(updates.len());
    let mut ranges = Vec::new();
    for update in updates {
        sources.extend(update.sections().iter().map(|section| Source {
            bytes: update.bytes(),
            section: *section,
        }));
        update.for_each_delete(|client, start, end| {
            ranges.push(DeletedRange { client, start, end });
        });
    }
    let mut deletes = Vec::new();
    write_deletes(&mut deletes, &mut ranges);
    Ok(merge_sources(sources, &deletes)?.0)
}

/// A client section and the update that it stands in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) section: Section,
}

/// Merges sections under a delete set in wire form; also says where the merged sections stand.
pub(super) fn merge_sources(
    mut sources: Vec<Source<'_>>,
    deletes: &[u8],
) -> Result<(Bytes, Vec<Section>), ScanError> {
    // Stable and adaptive: the sections of a log are nearly in this order already.
    sources.sort_by_key(|source| {
        (
            std::cmp::Reverse(source.section.client),
            source.section.clock,
        )
    });
    let bytes: usize = sources
        .iter()
        .map(|source| (source.section.to - source.section.from) as usize)
        .sum();
    let of_clients = || sources.chunk_by(|a, b| a.section.client == b.section.client);
    let n_clients = of_clients().count();
    let mut writer = UpdateWriter::new(n_clients, bytes / 4 + deletes.len() + 64);
    for of_client in of_clients() {
        merge_client(&mut writer, of_client)?;
    }
    Ok(writer.finish(deletes))
}

/// The sections of one client, by clock: those that stand alone are copied, those that overlap are swept.
fn merge_client(writer: &mut UpdateWriter, sources: &[Source<'_>]) -> Result<(), ScanError> {
    writer.begin(sources[0].section.client, sources[0].section.clock);
    let mut rest = sources;
    while let Some(first) = rest.first() {
        let mut end = first.section.end;
        let mut n = 1;
        while rest.get(n).is_some_and(|next| next.section.clock < end) {
            end = end.max(rest[n].section.end);
            n += 1;
        }
        if n == 1 && !first.section.has_skip {
            writer.reach(first.section.clock);
            writer.run(first.bytes, &first.section)?;
        } else {
            sweep(writer, &rest[..n])?;
        }
        rest = &rest[n..];
    }
    writer.end();
    Ok(())
}

/// A struct in the place where it covers clocks.
#[derive(Clone, Copy)]
struct Piece<'a> {
    bytes: &'a [u8],
    item: Struct,
    clock: u32,
}

impl Piece<'_> {
    fn end(&self) -> u32 {
        self.clock + self.item.len
    }
}

/// Deleted, GC, content: in the order in which they win.
const N_RANKS: usize = 3;

fn rank(kind: Kind) -> usize {
    match kind {
        Kind::Deleted => 0,
        Kind::Gc => 1,
        Kind::Skip | Kind::Json | Kind::Text | Kind::Any | Kind::Single => 2,
    }
}

/// Overlapping sections: goes along the clock, and writes of what covers it the struct that wins, cut to where it wins.
fn sweep(writer: &mut UpdateWriter, sources: &[Source<'_>]) -> Result<(), ScanError> {
    let mut ranks: [Vec<Piece<'_>>; N_RANKS] = Default::default();
    for source in sources {
        let Section {
            client,
            n,
            from,
            mut clock,
            ..
        } = source.section;
        let mut cursor = Cursor::new(source.bytes, from as usize);
        for _ in 0..n {
            let item = cursor.next_struct::<false>(client, clock, VALUE_NESTING_MAX)?;
            if item.kind != Kind::Skip {
                ranks[rank(item.kind)].push(Piece {
                    bytes: source.bytes,
                    item,
                    clock,
                });
            }
            clock += item.len;
        }
    }
    for pieces in &mut ranks {
        pieces.sort_by_key(|piece| piece.clock);
    }
    let mut next = [0; N_RANKS];
    let mut reaching: [Option<Piece<'_>>; N_RANKS] = [None; N_RANKS];
    let mut clock = sources[0].section.clock;
    loop {
        for (rank, pieces) in ranks.iter().enumerate() {
            while let Some(piece) = pieces.get(next[rank]).filter(|piece| piece.clock <= clock) {
                if reaching[rank].is_none_or(|best| piece.end() > best.end()) {
                    reaching[rank] = Some(*piece);
                }
                next[rank] += 1;
            }
        }
        let starts = |rank: usize| ranks[rank].get(next[rank]).map(|piece| piece.clock);
        let winner = reaching.iter().enumerate().find_map(|(rank, piece)| {
            piece
                .filter(|piece| piece.end() > clock)
                .map(|piece| (rank, piece))
        });
        let Some((rank, piece)) = winner else {
            match (0..N_RANKS).filter_map(starts).min() {
                Some(start) => clock = start,
                None => return Ok(()),
            }
            continue;
        };
        let end = (0..rank)
            .filter_map(starts)
            .fold(piece.end(), |end, start| end.min(start));
        writer.reach(clock);
        writer.push(
            piece.bytes,
            &piece.item,
            piece.clock,
            clock - piece.clock,
            end - clock,
        )?;
        clock = end;
    }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
