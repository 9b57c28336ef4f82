//! Keys of the QUIC endpoint that live as long as the data directory.
//!
//! A client whose server was killed notices only when a packet of its old connection is answered by a *stateless reset*.
//! The new process can make that answer only if it has the old one's reset key, and it recognises the old connection ids
//! only if it has the same id key. With both kept, browsers notice a restart in about a second instead of after 15 to 45.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};

/// The bytes of the key that stateless-reset tokens are derived from: one block of HMAC-SHA256.
const RESET_KEY_BYTES: usize = 64;

/// The two keys. `Debug` shows nothing of them.
#[derive(Clone)]
pub struct Keys {
    stateless_reset: [u8; RESET_KEY_BYTES],
    connection_id: [u8; 8],
}

/// Why a key file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The directory or a file in it could not be read or written.
    #[error("cannot {doing} {}: {source}. The data directory must be writable by this user", .path.display())]
    Io {
        /// What was tried: "read", "create".
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is there, but it is not a key of ours.
    #[error("{} holds {found} bytes and not {wanted}. Delete it, a new key is made at the next start", .path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// The bytes in it.
        found: usize,
        /// The bytes of a key.
        wanted: usize,
    },
}

impl Keys {
    /// Reads the keys in `directory` (normally `<data>/keys`), or makes them there: files that only this user can read.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn load_or_create(directory: &Path) -> Result<Self, KeyError> {
        create_private_directory(directory).map_err(|source| KeyError::Io {
            doing: "create",
            path: directory.to_owned(),
            source,
        })?;
        Ok(Self {
            stateless_reset: load_or_create(&directory.join("stateless-reset.key"))?,
            connection_id: load_or_create(&directory.join("connection-id.key"))?,
        })
    }

    /// Keys that nobody keeps: clients of a restarted server notice by silence only. For tests.
    pub fn ephemeral() -> Self {
        Self {
            stateless_reset: random(),
            connection_id: random(),
        }
    }

    /// The key of stateless-reset tokens.
    pub(super) fn stateless_reset(&self) -> &[u8] {
        &self.stateless_reset
    }

    /// The key that marks our connection ids.
    pub(super) fn connection_id(&self) -> u64 {
        u64::from_le_bytes(self.connection_id)
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the operating system provides randomness");
    bytes
}

fn load_or_create<const N: usize>(path: &Path) -> Result<[u8; N], KeyError> {
    match fs::read(path) {
        Ok(bytes) => bytes.as_slice().try_into().map_err(|_| KeyError::Length {
            path: path.to_owned(),
            found: bytes.len(),
            wanted: N,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = random();
            write_private(path, &key).map_err(|source| KeyError::Io {
                doing: "create",
                path: path.to_owned(),
                source,
            })?;
            Ok(key)
        }
        Err(source) => Err(KeyError::Io {
            doing: "read",
            path: path.to_owned(),
            source,
        }),
    }
}

/// Makes a directory (and its parents) that only this user can enter, if it is not there.
pub(super) fn create_private_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Writes a file that only this user can read, whole or not at all: beside its place first, then renamed into it.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    // Left over from a crash in the middle of this function.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_survive_a_restart_and_only_their_owner_reads_them() {
        let data = tempfile::tempdir().unwrap();
        let directory = data.path().join("keys");
        let first = Keys::load_or_create(&directory).unwrap();
        let second = Keys::load_or_create(&directory).unwrap();
        assert_eq!(first.stateless_reset, second.stateless_reset);
        assert_eq!(first.connection_id(), second.connection_id());
        assert_ne!(first.stateless_reset, Keys::ephemeral().stateless_reset);
        for name in ["stateless-reset.key", "connection-id.key"] {
            let mode = fs::metadata(directory.join(name))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert_eq!(format!("{first:?}"), "Keys { .. }");
    }

    #[test]
    fn a_damaged_key_file_is_named_with_the_cure() {
        let data = tempfile::tempdir().unwrap();
        fs::write(data.path().join("stateless-reset.key"), b"short").unwrap();
        let error = Keys::load_or_create(data.path()).unwrap_err().to_string();
        assert!(
            error.contains("stateless-reset.key holds 5 bytes"),
            "{error}"
        );
        assert!(error.contains("Delete it"), "{error}");
    }
}
