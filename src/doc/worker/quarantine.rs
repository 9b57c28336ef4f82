//! Where the inputs of failed requests are kept for study: `<hash>.bin`, bounded in number and bytes.
//!
//! When it is full, nothing more is kept: the first inputs lead to the cause, and the document itself is in the store
//! anyway. An operator empties the directory after a look; nothing in it is ever read by the server.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::Config;
use crate::doc::digest::Hash64;

/// What became of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// It is in this file now.
    New(PathBuf),
    /// It was there already.
    Known(PathBuf),
    /// There is no room.
    Full,
}

/// Keeps an input, readable for the server's user only: it is a document's content. Blocks.
pub(super) fn keep(directory: &Path, config: &Config, input: &[u8]) -> io::Result<Kept> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let hashes = [1, 2].map(|seed| {
        let mut hash = Hash64::new(seed);
        hash.bytes(input);
        hash.finish()
    });
    let path = directory.join(format!("{:016x}{:016x}.bin", hashes[0], hashes[1]));
    let (mut n_files, mut n_bytes) = (0, input.len() as u64);
    for entry in fs::read_dir(directory)? {
        n_files += 1;
        n_bytes += entry?.metadata()?.len();
    }
    if path.exists() {
        return Ok(Kept::Known(path));
    }
    if n_files >= config.quarantine_files_max || n_bytes > config.quarantine_bytes_max {
        return Ok(Kept::Full);
    }
    // Written under another name first: a file with the right name is whole.
    let partial = path.with_extension("partial");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(input)?;
    fs::rename(&partial, &path)?;
    Ok(Kept::New(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_kept_once_and_within_bounds() {
        let data = tempfile::tempdir().unwrap();
        let directory = data.path().join("quarantine");
        let config = Config {
            quarantine_files_max: 2,
            quarantine_bytes_max: 10,
            ..Config::default()
        };
        let keep = |input: &[u8]| keep(&directory, &config, input).unwrap();
        let Kept::New(first) = keep(b"1234") else {
            panic!("there is room");
        };
        assert_eq!(fs::read(&first).unwrap(), b"1234");
        assert_eq!(keep(b"1234"), Kept::Known(first));
        assert_eq!(keep(b"1234567"), Kept::Full, "bytes");
        assert!(matches!(keep(b"56"), Kept::New(_)));
        assert_eq!(keep(b"7"), Kept::Full, "files");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 2);
    }
}
