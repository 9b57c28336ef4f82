//! The data directory: made if it is missing, proved writable, and held by one server at a time. Two servers on one
//! directory would each replay and delete the other's journal.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The name of the lock file within the data directory. It holds the owner's process id, for people.
const LOCK_FILE: &str = "lock";

/// An open data directory. The lock ends with this value, or with the process, however it ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// Why a data directory cannot be used. The text is for the person who started the server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// Another server runs on it.
    #[error("the data directory {} is in use by another syncline server{}: stop that server, or choose another directory with --data DIR", path.display(), owner.as_deref().map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process id in the lock file, if it could be read.
        owner: Option<String>,
    },
    /// It cannot be created or written.
    #[error("the data directory {} is not writable ({source}): give this user write access to it, or choose another directory with --data DIR", path.display())]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its file system has no file locks, so that a second server could not be kept out.
    #[error("the data directory {} cannot be locked ({source}): put it on a local file system with --data DIR", path.display())]
    NoLock {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DataDir {
    /// Makes the directory if it is missing (readable by its owner only), and takes its lock.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let not_writable = |source| DataDirError::NotWritable {
            path: path.to_owned(),
            source,
        };
        create(path).map_err(not_writable)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK_FILE))
            .map_err(not_writable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DataDirError::Locked {
                    path: path.to_owned(),
                    owner: read_owner(&mut lock),
                });
            }
            Err(TryLockError::Error(source)) => {
                return Err(DataDirError::NoLock {
                    path: path.to_owned(),
                    source,
                });
            }
        }
        write_owner(&mut lock).map_err(not_writable)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the journal's segments are.
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// Where inputs that CRDT workers failed over are kept for study.
    pub fn quarantine(&self) -> PathBuf {
        self.path.join("quarantine")
    }

    /// Where the journal of a store that lives in memory is: never among the segments that a database still waits for.
    /// What the last run left there is gone with its store.
    pub fn journal_of_memory(&self) -> io::Result<PathBuf> {
        let path = self.path.join("journal-memory");
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(path),
        }
    }
}

fn create(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(path)
}

fn read_owner(lock: &mut File) -> Option<String> {
    let mut text = String::new();
    lock.take(32).read_to_string(&mut text).ok()?;
    let pid = text.trim();
    (!pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit())).then(|| pid.to_owned())
}

fn write_owner(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.seek(SeekFrom::Start(0))?;
    writeln!(lock, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn st12_a_second_server_is_refused_until_the_first_has_gone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("made/on the way");
        let first = DataDir::open(&path).unwrap();
        let error = DataDir::open(&path).unwrap_err();
        assert!(matches!(error, DataDirError::Locked { .. }));
        let text = error.to_string();
        assert!(
            text.contains(&format!("process {}", std::process::id())),
            "{text}"
        );
        assert!(text.contains("--data"), "{text}");
        drop(first);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn st12_a_path_that_cannot_be_a_directory_is_named() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = DataDir::open(&file.join("data")).unwrap_err();
        assert!(matches!(error, DataDirError::NotWritable { .. }));
        assert!(error.to_string().contains("file/data"));
    }
}
