//! What is wrong with a configuration, in one line that also says how to mend it.

use std::io;
use std::path::{Path, PathBuf};

use toml::Table;

use super::overlay::{self, Overlay};

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "cannot read the configuration file {}: {source}; give an existing file with --config or leave it out",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{}:{line}:{column} is not TOML: {message}; correct that line", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What the parser expected.
        message: String,
    },
    /// A key that does not exist.
    #[error("unknown key `{key}`, set {place}; {hint}")]
    UnknownKey {
        /// The key's dotted path.
        key: String,
        /// Where it is set.
        place: String,
        /// The nearest known key, or all keys of the section.
        hint: String,
    },
    /// A plain value where a section belongs.
    #[error(
        "`{key}` is a section but was set {place} to one value; set a key of it, such as `{example}`"
    )]
    Section {
        /// The section.
        key: String,
        /// Where it is set.
        place: String,
        /// A key of the section.
        example: String,
    },
    /// A value of the wrong type, or out of range.
    #[error("`{key}`, set {place}, cannot be used: {message}; {hint}")]
    Value {
        /// The key's dotted path.
        key: String,
        /// Where it is set.
        place: String,
        /// What was found and what is expected.
        message: String,
        /// How to mend it.
        hint: String,
    },
    /// A value that is not UTF-8.
    #[error("{name} is not valid UTF-8; write it in UTF-8")]
    NotUtf8 {
        /// The variable or flag.
        name: String,
    },
}

/// Explains a file that does not parse.
pub(super) fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let start = error.span().map_or(0, |span| span.start).min(text.len());
    let before = &text[..text.floor_char_boundary(start)];
    ConfigError::Syntax {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before.chars().rev().take_while(|c| *c != '\n').count() + 1,
        message: one_line(error.message()),
    }
}

/// Explains a merged table that does not deserialise.
pub(super) fn from_toml(
    error: &toml::de::Error,
    overlays: &[Overlay],
    schema: &Table,
) -> ConfigError {
    let mut path = path_of(error);
    let message = one_line(error.message());
    let unknown = message
        .strip_prefix("unknown field `")
        .and_then(|rest| rest.split_once('`'));
    if let Some((field, expected)) = unknown {
        let siblings: Vec<String> = quoted(expected).map(|name| dotted(&path, name)).collect();
        path.push(field.to_owned());
        let key = path.join(".");
        let hint = match nearest(
            &key,
            siblings.iter().cloned().chain(overlay::leaves(schema)),
        ) {
            Some(known) => format!("did you mean `{known}`?"),
            None if siblings.is_empty() => "remove it".into(),
            None => format!("known here: {}", siblings.join(", ")),
        };
        return ConfigError::UnknownKey {
            place: place_of(overlays, &path),
            key,
            hint,
        };
    }
    let hint = if message.contains("socket address") {
        "write an IP address and a port, such as 127.0.0.1:8080".into()
    } else {
        match overlay::get(schema, &path) {
            Some(default) => format!("the default is {default}"),
            None => "correct or remove it".into(),
        }
    };
    ConfigError::Value {
        place: place_of(overlays, &path),
        key: path.join("."),
        message,
        hint,
    }
}

/// Where a key is set, in words; "somewhere" should the library not say which key it means.
fn place_of(overlays: &[Overlay], path: &[String]) -> String {
    overlay::source_of(overlays, path)
        .map_or_else(|| "somewhere".into(), |source| source.to_string())
}

/// The keys that lead to the error. The library shows them only at the end of its text: ``in `a.b` ``.
fn path_of(error: &toml::de::Error) -> Vec<String> {
    let text = error.to_string();
    text.lines()
        .last()
        .and_then(|line| line.strip_prefix("in `")?.strip_suffix('`'))
        .map(|keys| keys.split('.').map(str::to_owned).collect())
        .unwrap_or_default()
}

fn dotted(path: &[String], name: &str) -> String {
    path.iter()
        .map(String::as_str)
        .chain([name])
        .collect::<Vec<_>>()
        .join(".")
}

/// The names between back quotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The known key that somebody who wrote `key` most likely meant: the same last part elsewhere, or a few letters away.
fn nearest(key: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let leaf = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    known
        .map(|candidate| {
            let mut distance = edit_distance(key, &candidate);
            if leaf(key) == leaf(&candidate) {
                distance = distance.min(1);
            }
            (distance, candidate)
        })
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= (key.len() / 4).max(2))
        .map(|(_, candidate)| candidate)
}

/// Levenshtein: insertions, deletions and replacements of characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
