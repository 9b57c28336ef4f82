//! The configuration: each part's own `Config`, composed, and read from a file, the environment and flags.
//!
//! Precedence is file < environment < flag. Each source is a table of only what it sets; the tables are merged once and
//! then deserialised, so a default is never mistaken for a choice. Unknown keys are refused: a misspelt limit that is
//! silently ignored is worse than a server that does not start.
//!
//! Environment: `SYNCLINE_` and the key's path in upper case, sections separated by two underscores
//! (`SYNCLINE_HTTP__CONNECTIONS_MAX=500`). The flags have short forms: `SYNCLINE_CONFIG`, `SYNCLINE_DATA`,
//! `SYNCLINE_STORE`, `SYNCLINE_HTTP`, `SYNCLINE_WEBTRANSPORT`; where both forms are set the long one counts. An empty
//! variable counts as not set. Relative paths are relative to the working directory.

mod error;
mod overlay;
mod store_url;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::doc::{self, DocumentLimits};
use crate::transport::{tls, webtransport};
use crate::{http, room, session, store, telemetry};
pub use error::ConfigError;
use overlay::{Overlay, Source};
pub use store_url::StoreUrl;

/// Where the data lives unless told otherwise, relative to the working directory.
const DATA_DEFAULT: &str = "data";

/// Everything that can be configured. One field a part; a part documents its own keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The data directory: database, journal, development certificate, keys. One server at a time uses it.
    pub data: PathBuf,
    /// Where documents are kept: `sqlite:PATH` or `memory:`. `sqlite:DATA/syncline.db` unless set.
    pub store: StoreUrl,
    /// The HTTP listener.
    pub http: http::Config,
    /// The WebTransport listener.
    pub webtransport: webtransport::Config,
    /// The certificate of both listeners.
    pub tls: tls::Config,
    /// Client sessions.
    pub session: session::Config,
    /// Rooms: presence, idle time, what may wait for a slow member.
    pub room: room::Config,
    /// What one document may cost.
    pub document: DocumentLimits,
    /// The worker processes that integrate documents, for compaction.
    pub worker: doc::worker::Config,
    /// The local journal.
    pub journal: store::journal::Config,
    /// The group commit.
    pub committer: store::committer::Config,
    /// Logs.
    pub log: telemetry::logging::Config,
}

impl Default for Config {
    fn default() -> Self {
        let data = PathBuf::from(DATA_DEFAULT);
        Self {
            store: StoreUrl::sqlite_in(&data),
            data,
            http: http::Config::default(),
            webtransport: webtransport::Config::default(),
            tls: tls::Config::default(),
            session: session::Config::default(),
            room: room::Config::default(),
            document: DocumentLimits::default(),
            worker: doc::worker::Config::default(),
            journal: store::journal::Config::default(),
            committer: store::committer::Config::default(),
            log: telemetry::logging::Config::default(),
        }
    }
}

/// What the command line sets. Every field is also a key of the file and a variable of the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// `data`.
    pub data: Option<PathBuf>,
    /// `store`.
    pub store: Option<String>,
    /// `http.listen`.
    pub http: Option<String>,
    /// `webtransport.listen`.
    pub webtransport: Option<String>,
}

impl Config {
    /// Reads the configuration file, if one is named, and lays environment and flags over it. `environment` is the
    /// whole environment of the process; only `SYNCLINE_…` is looked at.
    pub fn load(
        flags: &Flags,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let schema = overlay::schema(&Self::default());
        let environment = overlay::environment(environment, &schema)?;
        let mut overlays = Vec::new();
        if let Some(path) = flags.config.as_deref().or(environment.config.as_deref()) {
            overlays.push(read_file(path)?);
        }
        overlays.extend(environment.overlays);
        overlays.extend(flag_overlays(flags)?);
        overlay::check_sections(&overlays, &schema)?;

        let mut merged = overlay::merge(&overlays);
        if !merged.contains_key("store")
            && let Some(data) = merged.get("data").and_then(toml::Value::as_str)
        {
            let store = StoreUrl::sqlite_in(Path::new(data));
            merged.insert("store".into(), store.as_str().into());
        }
        Self::deserialize(merged).map_err(|error| error::from_toml(&error, &overlays, &schema))
    }

    /// The configuration as TOML, with secrets hidden.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("every Config is plain data with string keys")
    }
}

fn read_file(path: &Path) -> Result<Overlay, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    let table = text
        .parse::<toml::Table>()
        .map_err(|error| error::syntax(path, &text, &error))?;
    Ok(Overlay {
        source: Source::File(path.to_owned()),
        table,
    })
}

fn flag_overlays(flags: &Flags) -> Result<Vec<Overlay>, ConfigError> {
    let data = match &flags.data {
        Some(path) => Some(path.to_str().ok_or(ConfigError::NotUtf8 {
            name: "--data".into(),
        })?),
        None => None,
    };
    let table = [
        ("--data", &["data"][..], data),
        ("--store", &["store"], flags.store.as_deref()),
        ("--http", &["http", "listen"], flags.http.as_deref()),
        (
            "--webtransport",
            &["webtransport", "listen"],
            flags.webtransport.as_deref(),
        ),
    ];
    Ok(table
        .into_iter()
        .filter_map(|(flag, path, value)| {
            Some(Overlay::one(Source::Flag(flag), path, value?.into()))
        })
        .collect())
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
