//! Overlays: what each source of the configuration sets, as tables that are merged once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use toml::{Table, Value};

use super::error::ConfigError;

/// The prefix of every environment variable that the server reads.
const PREFIX: &str = "SYNCLINE_";

/// Short forms of the environment, after the prefix: those of the flags.
const SHORT_FORMS: [(&str, &[&str]); 4] = [
    ("DATA", &["data"]),
    ("STORE", &["store"]),
    ("HTTP", &["http", "listen"]),
    ("WEBTRANSPORT", &["webtransport", "listen"]),
];

/// Variables with our prefix that are for tests: the servers that tests start inherit them.
const TEST_BINARY: &str = "BIN";
const TEST_PREFIX: &str = "TEST_";

/// Where a value was set, as an operator looks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A configuration file.
    File(PathBuf),
    /// An environment variable, by name.
    Environment(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "in {}", path.display()),
            Self::Environment(name) => write!(f, "in the environment as {name}"),
            Self::Flag(flag) => write!(f, "by {flag}"),
        }
    }
}

/// What one source sets.
#[derive(Debug, Clone)]
pub(super) struct Overlay {
    pub(super) source: Source,
    pub(super) table: Table,
}

impl Overlay {
    /// One value at a path, which is not empty.
    pub(super) fn one(source: Source, path: &[&str], value: Value) -> Self {
        let mut value = value;
        for key in path.iter().rev() {
            let mut table = Table::new();
            table.insert((*key).to_owned(), value);
            value = Value::Table(table);
        }
        let table = match value {
            Value::Table(table) => table,
            _ => Table::new(),
        };
        Self { source, table }
    }
}

/// The tree of all keys with their default values; a key that is unset by default is absent.
pub(super) fn schema(default: &impl Serialize) -> Table {
    Table::try_from(default).expect("every Config is plain data with string keys")
}

/// What the environment sets.
#[derive(Debug, Default)]
pub(super) struct Environment {
    /// `SYNCLINE_CONFIG`.
    pub(super) config: Option<PathBuf>,
    /// One a variable, in order of their names, so that a long form comes after its short form.
    pub(super) overlays: Vec<Overlay>,
}

/// Picks the variables of the server out of the whole environment. Values are typed as the default at their path is.
pub(super) fn environment(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    schema: &Table,
) -> Result<Environment, ConfigError> {
    let ours: BTreeMap<String, OsString> = variables
        .into_iter()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
        .collect();
    let mut found = Environment::default();
    for (name, value) in ours {
        let key = &name[PREFIX.len()..];
        if key == TEST_BINARY || key.starts_with(TEST_PREFIX) {
            continue;
        }
        if key == "CONFIG" {
            found.config = Some(value.into());
            continue;
        }
        let Ok(text) = value.into_string() else {
            return Err(ConfigError::NotUtf8 { name });
        };
        let lower = key.to_ascii_lowercase();
        let path: Vec<&str> = SHORT_FORMS
            .into_iter()
            .find(|(short, _)| *short == key)
            .map_or_else(|| lower.split("__").collect(), |(_, path)| path.to_vec());
        let value = typed(text, get(schema, &path));
        found.overlays.push(Overlay::one(
            Source::Environment(name.clone()),
            &path,
            value,
        ));
    }
    Ok(found)
}

/// A text of the environment as the type that its default has. A key without default is read as what it looks like.
/// What does not fit stays text, and deserialising says what was expected.
fn typed(text: String, default: Option<&Value>) -> Value {
    let integer = || text.trim().parse().ok().map(Value::Integer);
    let float = || text.trim().parse().ok().map(Value::Float);
    let boolean = || text.trim().parse().ok().map(Value::Boolean);
    let array = || {
        let table = format!("v = {text}").parse::<Table>().ok()?;
        table.get("v").filter(|value| value.is_array()).cloned()
    };
    let value = match default {
        Some(Value::Integer(_)) => integer(),
        Some(Value::Float(_)) => float(),
        Some(Value::Boolean(_)) => boolean(),
        Some(Value::Array(_)) => array(),
        Some(Value::String(_) | Value::Datetime(_) | Value::Table(_)) => None,
        None => boolean().or_else(integer).or_else(array),
    };
    value.unwrap_or(Value::String(text))
}

/// Refuses a plain value where a section belongs, which serde would explain in its own words.
pub(super) fn check_sections(overlays: &[Overlay], schema: &Table) -> Result<(), ConfigError> {
    for overlay in overlays {
        for (key, value) in &overlay.table {
            if let Some(Value::Table(section)) = schema.get(key)
                && !value.is_table()
            {
                let known = section.keys().next().map_or("…", String::as_str);
                return Err(ConfigError::Section {
                    key: key.clone(),
                    place: overlay.source.to_string(),
                    example: format!("{key}.{known}"),
                });
            }
        }
    }
    Ok(())
}

/// All overlays as one table; a later one wins, key by key.
pub(super) fn merge(overlays: &[Overlay]) -> Table {
    let mut merged = Table::new();
    for overlay in overlays {
        merge_into(&mut merged, &overlay.table);
    }
    merged
}

fn merge_into(base: &mut Table, over: &Table) {
    for (key, value) in over {
        if let (Some(Value::Table(base)), Value::Table(over)) = (base.get_mut(key), value) {
            merge_into(base, over);
        } else {
            base.insert(key.clone(), value.clone());
        }
    }
}

/// The value at a path.
pub(super) fn get<'a, K: AsRef<str>>(table: &'a Table, path: &[K]) -> Option<&'a Value> {
    let (last, sections) = path.split_last()?;
    let mut table = table;
    for section in sections {
        table = table.get(section.as_ref())?.as_table()?;
    }
    table.get(last.as_ref())
}

/// The source whose value at a path counts.
pub(super) fn source_of<K: AsRef<str>>(overlays: &[Overlay], path: &[K]) -> Option<Source> {
    overlays
        .iter()
        .rev()
        .find(|overlay| get(&overlay.table, path).is_some())
        .map(|overlay| overlay.source.clone())
}

/// Every key of a schema that is no section, by its dotted path.
pub(super) fn leaves(schema: &Table) -> Vec<String> {
    let mut out = Vec::new();
    for (key, value) in schema {
        match value {
            Value::Table(section) => {
                out.extend(
                    leaves(section)
                        .into_iter()
                        .map(|leaf| format!("{key}.{leaf}")),
                );
            }
            _ => out.push(key.clone()),
        }
    }
    out
}
