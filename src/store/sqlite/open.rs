//! Opening the file: everything that can be wrong with it is found here, before anything in it is changed, and named in
//! words for the person who started the server (STORAGE.md, ST13).

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};

use super::super::OpenError;
use super::primary_code;

/// The numbered migrations, in the binary.
static MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations/sqlite");

/// How many documents can be loaded at once. Loads are short and mostly memory copies; more threads than a few cores
/// have would only queue in another place.
const READERS_MAX: u32 = 4;

/// How long a lock that another process holds (a backup tool, a person's shell) is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// SQLite's primary result codes, <https://www.sqlite.org/rescode.html>.
mod code {
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const READONLY: i32 = 8;
    pub(super) const NOTADB: i32 = 26;
}

/// What [`open`] gives.
pub(super) struct Opened {
    pub(super) writer: SqlitePool,
    pub(super) readers: SqlitePool,
    pub(super) lock: File,
}

/// Locks, checks, migrates, connects.
pub(super) async fn open(path: &Path) -> Result<Opened, OpenError> {
    let is_new = check_file(path)?;
    let lock = lock(path)?;
    let named = |error| name(path, error);
    if !is_new {
        check_schema(path).await?;
    }
    let options = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging();

    let write_options = options
        .clone()
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let writer = pool(1).connect_with(write_options).await.map_err(named)?;
    let mut connection = writer.acquire().await.map_err(named)?;
    MIGRATIONS
        .run(&mut *connection)
        .await
        .map_err(|source| OpenError::Migrate {
            path: path.to_owned(),
            source: source.into(),
        })?;
    // SQLite opens a file that it may not write as read-only without a word: ask for the write lock once.
    connection
        .begin_with("BEGIN IMMEDIATE")
        .await
        .map_err(named)?
        .rollback()
        .await
        .map_err(named)?;
    drop(connection);

    let readers = pool(READERS_MAX)
        .connect_with(options.pragma("query_only", "ON"))
        .await
        .map_err(named)?;
    Ok(Opened {
        writer,
        readers,
        lock,
    })
}

/// Connections to a file in this process need neither tests nor renewal.
fn pool(n_connections_max: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(n_connections_max)
        .test_before_acquire(false)
        .max_lifetime(None)
        .idle_timeout(None)
}

/// What the file system can tell. Returns whether there is no database yet.
fn check_file(path: &Path) -> Result<bool, OpenError> {
    let cannot_open = |source: io::Error| OpenError::CannotOpen {
        path: path.to_owned(),
        source: source.into(),
    };
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(cannot_open(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a file",
        ))),
        Ok(found) => {
            OpenOptions::new()
                .write(true)
                .open(path)
                .map_err(|source| not_writable(path, source))?;
            Ok(found.len() == 0)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(cannot_open(error)),
    }
}

/// Keeps a second server out, which would serve the same documents from memory of its own. A file of its own, because
/// SQLite's locks on the database come and go with its transactions.
fn lock(path: &Path) -> Result<File, OpenError> {
    let lock_path = lock_path(path);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&lock_path)
        .map_err(|source| not_writable(path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(OpenError::CannotOpen {
            path: path.to_owned(),
            source: source.into(),
        }),
    }
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// Looks into an existing file without changing it (switching it to WAL would).
async fn check_schema(path: &Path) -> Result<(), OpenError> {
    let named = |error| name(path, error);
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("query_only", "ON")
        .disable_statement_logging()
        .connect()
        .await
        .map_err(named)?;
    let found = schema_version(&mut connection).await.map_err(named)?;
    connection.close().await.map_err(named)?;
    let known = MIGRATIONS
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0);
    match found {
        Schema::Ours(found) if found > known => Err(OpenError::Newer {
            path: path.to_owned(),
            found,
            known,
        }),
        Schema::Ours(_) => Ok(()),
        Schema::Foreign => Err(OpenError::Foreign {
            path: path.to_owned(),
        }),
    }
}

enum Schema {
    /// Up to this migration; 0 for a database without tables.
    Ours(i64),
    Foreign,
}

async fn schema_version(connection: &mut SqliteConnection) -> Result<Schema, sqlx::Error> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )
    .fetch_all(&mut *connection)
    .await?;
    let has = |name: &str| tables.iter().any(|table| table == name);
    if !has("_sqlx_migrations") {
        return Ok(if tables.is_empty() {
            Schema::Ours(0)
        } else {
            Schema::Foreign
        });
    }
    let version: Option<i64> = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
        .fetch_one(connection)
        .await?;
    let version = version.unwrap_or(0);
    // Another program may use the same migration library.
    Ok(if version > 0 && !has("documents") {
        Schema::Foreign
    } else {
        Schema::Ours(version)
    })
}

fn not_writable(path: &Path, source: io::Error) -> OpenError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            OpenError::NotWritable { path }
        }
        _ => OpenError::CannotOpen {
            path,
            source: source.into(),
        },
    }
}

/// The driver's error as one for people.
fn name(path: &Path, error: sqlx::Error) -> OpenError {
    let path = path.to_owned();
    match primary_code(&error) {
        Some(code::NOTADB) => OpenError::NotADatabase { path },
        Some(code::READONLY) => OpenError::NotWritable { path },
        Some(code::BUSY | code::LOCKED) => OpenError::Locked { path },
        _ => OpenError::CannotOpen {
            path,
            source: error.into(),
        },
    }
}
