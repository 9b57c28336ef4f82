//! The journal: what another person has seen survives the death of the process (STORAGE.md, section 4).
//!
//! A room writes an edit here before it relays it: one write(2) into the page cache, no fsync, so it costs microseconds
//! and outlives a kill -9 but not the machine. That earns SEEN, never DURABLE. The committer releases rows as the store
//! commits them; a segment whose rows are all released is deleted; what is left at the next start is replayed.

mod crc;
mod record;

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::Origin;

use super::LogRow;

use self::record::{
    End, HEADER_LEN, Header, decode_header, decode_rows, encode_header, encode_row,
};

/// What a segment's file name ends with. Files that were set aside end otherwise and are never read again.
const EXTENSION: &str = "journal";

/// An active segment above this size whose rows are all released is deleted at once instead of at the next rotation,
/// so that a quiet server has nothing to replay. Below it, a new file for every lone edit would cost more than a replay
/// of some thousand rows.
const RESET_BYTES: u64 = 256 * 1024;

/// How the journal uses the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A segment is closed when it would grow beyond this, in bytes. Small enough that disk space comes back soon after
    /// the commits, large enough that files are created seldom. 8 MiB.
    #[serde(with = "crate::units::size")]
    pub segment_bytes: u64,
    /// The most that all segments may take, in bytes; at it, edits are refused until the store catches up. 1 GiB.
    #[serde(with = "crate::units::size")]
    pub bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            segment_bytes: 8 * 1024 * 1024,
            bytes_max: 1024 * 1024 * 1024,
        }
    }
}

/// The segment that an append went to; handed back with [`Journal::release`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment(u64);

/// Why rows were not journalled. They must not be relayed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The bound on the journal's size is reached: the store has been behind for long.
    #[error("the journal is full ({bytes_max} bytes): the store has not kept up")]
    Full {
        /// The bound.
        bytes_max: u64,
    },
    /// The file system refused the write. The journal is as it was before.
    #[error("write the journal: {0}")]
    Io(#[from] io::Error),
}

/// Why the journal cannot be opened. The text is for the person who started the server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory or a file in it cannot be read or written.
    #[error("the journal in {} cannot be opened ({source}): check the permissions of the directory and its files", path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A segment was written by a later version.
    #[error("the journal file {} was written by a newer syncline (format {version}): start the newer version once, so that it commits the edits in it", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
}

/// The node's append-only file. Share it in an `Arc`; appends of different rooms follow one another.
#[derive(Debug)]
pub struct Journal {
    config: Config,
    dir: PathBuf,
    origin: Origin,
    // A std mutex around a write(2) into the page cache: microseconds, never across an await. An actor in front of it
    // would cost two task switches an edit.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    active: Option<Active>,
    next: u64,
    segments: BTreeMap<Segment, Held>,
    total_bytes: u64,
}

#[derive(Debug)]
struct Active {
    segment: Segment,
    file: File,
}

/// A segment on disk.
#[derive(Debug)]
struct Held {
    path: PathBuf,
    bytes: u64,
    // Rows that are not released. Old segments count as one row until they are replayed.
    n_held: usize,
}

impl Journal {
    /// Opens the journal in `dir` (made if missing) for this incarnation, and finds what older ones left. Nothing is
    /// ever appended to an old segment.
    pub fn open(config: Config, dir: &Path, origin: Origin) -> Result<(Self, Replay), OpenError> {
        let io_error = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        fs::create_dir_all(dir).map_err(io_error(dir))?;
        let mut segments = BTreeMap::new();
        for entry in fs::read_dir(dir).map_err(io_error(dir))? {
            let path = entry.map_err(io_error(dir))?.path();
            let Some(segment) = segment_of(&path) else {
                continue;
            };
            let bytes = inspect(&path)?;
            segments.insert(
                segment,
                Held {
                    path,
                    bytes,
                    n_held: 1,
                },
            );
        }
        let replay = Replay {
            left: segments
                .iter()
                .map(|(segment, held)| (*segment, held.path.clone()))
                .collect(),
        };
        let state = State {
            active: None,
            next: segments.last_key_value().map_or(1, |(last, _)| last.0 + 1),
            total_bytes: segments.values().map(|held| held.bytes).sum(),
            segments,
        };
        let journal = Self {
            config,
            dir: dir.to_owned(),
            origin,
            state: Mutex::new(state),
        };
        Ok((journal, replay))
    }

    /// Writes rows with one write(2), without fsync. When it returns, the rows survive the death of this process. All
    /// of them are in the returned segment; on an error none is in the journal.
    pub fn append(&self, rows: &[LogRow]) -> Result<Segment, AppendError> {
        let mut records = Vec::with_capacity(rows.iter().map(|row| row.update.len() + 128).sum());
        for row in rows {
            encode_row(row, &mut records);
        }
        let len = records.len() as u64;

        let mut state = self.state();
        if state.total_bytes + len > self.config.bytes_max {
            return Err(AppendError::Full {
                bytes_max: self.config.bytes_max,
            });
        }
        let segment = self.segment_for(&mut state, len)?;
        state.write(segment, &records)?;
        state.held(segment).n_held += rows.len();
        Ok(segment)
    }

    /// Says that `n` rows of a segment are committed (or refused for good). The file goes when all of them are.
    pub fn release(&self, segment: Segment, n: usize) {
        let mut state = self.state();
        let held = state.held(segment);
        assert!(held.n_held >= n, "more rows released than were journalled");
        held.n_held -= n;
        if held.n_held > 0 {
            return;
        }
        let bytes = held.bytes;
        if state.is_active(segment) {
            if bytes < RESET_BYTES {
                return;
            }
            state.active = None;
        }
        state.delete(segment);
    }

    /// Bytes on disk, old incarnations' segments included.
    pub fn bytes(&self) -> u64 {
        self.state().total_bytes
    }

    /// How many segment files there are.
    pub fn n_segments(&self) -> usize {
        self.state().segments.len()
    }

    /// A replayed segment leaves the journal: deleted, or set aside under another name for a person to look at.
    pub(super) fn finish(&self, segment: Segment, set_aside: Option<&str>) -> Option<PathBuf> {
        let mut state = self.state();
        let Some(suffix) = set_aside else {
            state.delete(segment);
            return None;
        };
        let held = state.remove(segment);
        let aside = held.path.with_extension(suffix);
        match fs::rename(&held.path, &aside) {
            Ok(()) => Some(aside),
            Err(error) => {
                tracing::warn!(path = %held.path.display(), %error, "set a journal segment aside");
                Some(held.path)
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The active segment, after a rotation if `len` more bytes would make it too large. An append larger than a
    /// segment gets one of its own.
    fn segment_for(&self, state: &mut State, len: u64) -> io::Result<Segment> {
        if let Some(active) = &state.active {
            let segment = active.segment;
            let held = state.held(segment);
            if held.bytes + len <= self.config.segment_bytes {
                return Ok(segment);
            }
            let is_released = held.n_held == 0;
            state.active = None;
            if is_released {
                state.delete(segment);
            }
        }
        let segment = Segment(state.next);
        state.next += 1;
        let path = self.dir.join(format!("{:016x}.{EXTENSION}", segment.0));
        let mut file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(&path)?;
        if let Err(error) = file.write_all(&encode_header(self.origin)) {
            // Whatever is left of it reads as a short header: no rows.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        state.total_bytes += HEADER_LEN as u64;
        state.segments.insert(
            segment,
            Held {
                path,
                bytes: HEADER_LEN as u64,
                n_held: 0,
            },
        );
        state.active = Some(Active { segment, file });
        Ok(segment)
    }
}

impl State {
    fn is_active(&self, segment: Segment) -> bool {
        self.active
            .as_ref()
            .is_some_and(|active| active.segment == segment)
    }

    fn held(&mut self, segment: Segment) -> &mut Held {
        self.segments
            .get_mut(&segment)
            .expect("a segment is in the map as long as rows of it are held")
    }

    /// Writes to the active segment, all or nothing.
    fn write(&mut self, segment: Segment, records: &[u8]) -> io::Result<()> {
        let good_len = self.held(segment).bytes;
        let active = self
            .active
            .as_mut()
            .expect("segment_for returns the active segment");
        if let Err(error) = active.file.write_all(records) {
            // A half-written record must be the last thing in its file, or everything after it would be unreadable.
            if active.file.set_len(good_len).is_err() {
                self.active = None;
                if self.held(segment).n_held == 0 {
                    self.delete(segment);
                }
            }
            return Err(error);
        }
        let len = records.len() as u64;
        self.held(segment).bytes += len;
        self.total_bytes += len;
        Ok(())
    }

    fn remove(&mut self, segment: Segment) -> Held {
        let held = self
            .segments
            .remove(&segment)
            .expect("a segment is in the map until it is removed, once");
        self.total_bytes -= held.bytes;
        held
    }

    fn delete(&mut self, segment: Segment) {
        let held = self.remove(segment);
        if let Err(error) = fs::remove_file(&held.path) {
            // Harmless: it is replayed at the next start, which changes nothing.
            tracing::warn!(path = %held.path.display(), %error, "delete a journal segment");
        }
    }
}

impl Drop for Journal {
    /// A clean stop leaves nothing to replay.
    fn drop(&mut self) {
        let mut state = self.state();
        if let Some(active) = state.active.take()
            && state.held(active.segment).n_held == 0
        {
            state.delete(active.segment);
        }
    }
}

fn segment_of(path: &Path) -> Option<Segment> {
    if path.extension()? != EXTENSION {
        return None;
    }
    let number = path.file_stem()?.to_str()?;
    u64::from_str_radix(number, 16).ok().map(Segment)
}

/// The length of a segment that this version can read.
fn inspect(path: &Path) -> Result<u64, OpenError> {
    let io_error = |source| OpenError::Io {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(io_error)?;
    let bytes = file.metadata().map_err(io_error)?.len();
    let mut header = Vec::with_capacity(HEADER_LEN);
    file.take(HEADER_LEN as u64)
        .read_to_end(&mut header)
        .map_err(io_error)?;
    match decode_header(&header) {
        Header::Newer(version) => Err(OpenError::Newer {
            path: path.to_owned(),
            version,
        }),
        Header::Good(_) | Header::Short | Header::Bad => Ok(bytes),
    }
}

/// What older incarnations left in the journal, oldest first. Hand it to [`super::replay()`].
#[derive(Debug)]
pub struct Replay {
    left: VecDeque<(Segment, PathBuf)>,
}

/// One old segment, read.
#[derive(Debug)]
pub struct OldSegment {
    /// Which.
    pub(super) segment: Segment,
    /// Its file.
    pub path: PathBuf,
    /// Its rows, with the keys that their incarnation gave them, up to the first damaged record.
    pub rows: Vec<LogRow>,
    /// What is wrong with the file, if anything.
    pub damage: Option<Damage>,
}

/// What is wrong with a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The last record was being written when the process died. Nobody had seen it; the file was cut there (ST22).
    #[error("{n_bytes} bytes of a record that was being written were cut off")]
    Torn {
        /// How many bytes were cut off.
        n_bytes: u64,
    },
    /// A record is wrong although more follows it. Neither it nor what follows was replayed (ST23).
    #[error(
        "the record at byte {offset} is corrupt; it and the rest, {n_bytes} bytes, were not replayed"
    )]
    Corrupt {
        /// Where the wrong record begins.
        offset: u64,
        /// How many bytes were not replayed.
        n_bytes: u64,
    },
}

impl Replay {
    /// How many segments are left to replay.
    pub fn n_left(&self) -> usize {
        self.left.len()
    }
}

impl Iterator for Replay {
    type Item = Result<OldSegment, OpenError>;

    /// Reads the next segment; at most one is in memory.
    fn next(&mut self) -> Option<Self::Item> {
        let (segment, path) = self.left.pop_front()?;
        Some(read_segment(segment, &path).map_err(|source| OpenError::Io { path, source }))
    }
}

fn read_segment(segment: Segment, path: &Path) -> io::Result<OldSegment> {
    let file = Bytes::from(fs::read(path)?);
    let (rows, end) = match decode_header(&file) {
        Header::Good(_) => decode_rows(&file),
        Header::Short => (Vec::new(), End::Torn { good_len: 0 }),
        Header::Bad | Header::Newer(_) => (Vec::new(), End::Corrupt { offset: 0 }),
    };
    let damage = match end {
        End::Clean => None,
        End::Torn { good_len } => {
            OpenOptions::new()
                .write(true)
                .open(path)?
                .set_len(good_len as u64)?;
            Some(Damage::Torn {
                n_bytes: (file.len() - good_len) as u64,
            })
        }
        End::Corrupt { offset } => Some(Damage::Corrupt {
            offset: offset as u64,
            n_bytes: (file.len() - offset) as u64,
        }),
    };
    Ok(OldSegment {
        segment,
        path: path.to_owned(),
        rows,
        damage,
    })
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
