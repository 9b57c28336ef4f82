//! Logs: one line an event on standard error, for people or as JSON.
//!
//! What clients send ends up in fields (a document's name, an origin), so control characters are escaped: nobody can
//! forge a line or drive an operator's terminal from a document's name. No document text, no tokens and no query strings
//! are logged, anywhere.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{self, Writer};
use tracing_subscriber::prelude::*;
use tracing_subscriber::util::TryInitError;

/// How the server logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `text` for people, `json` for a log collector.
    pub format: Format,
    /// Which events: a level, or directives such as `info,syncline::room=debug`. `debug` costs a line an edit.
    pub filter: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            format: Format::Text,
            filter: "info".into(),
        }
    }
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The filter is malformed.
    #[error(
        "log.filter {filter:?} cannot be read; write a level (error, warn, info, debug, trace) or directives such as \
         \"info,syncline::room=debug\""
    )]
    Filter {
        /// What was configured.
        filter: String,
    },
    /// The process has a subscriber already.
    #[error("logging was installed twice in this process")]
    Twice(#[source] TryInitError),
}

/// Sends the events of the whole process to standard error. Once a process; the library itself only emits.
pub fn install(config: &Config) -> Result<(), InstallError> {
    let colour = config.format == Format::Text && io::stderr().is_terminal();
    subscriber(config, io::stderr, colour)?
        .try_init()
        .map_err(InstallError::Twice)
}

/// The subscriber that [`install`] installs, writing to any place.
fn subscriber<W>(
    config: &Config,
    writer: W,
    colour: bool,
) -> Result<Box<dyn tracing::Subscriber + Send + Sync>, InstallError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .parse(&config.filter)
        .map_err(|_| InstallError::Filter {
            filter: config.filter.clone(),
        })?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    Ok(match config.format {
        Format::Text => {
            let fields = format::debug_fn(write_field).delimited(" ");
            Box::new(registry.with(layer.with_ansi(colour).fmt_fields(fields)))
        }
        Format::Json => Box::new(registry.with(layer.json().flatten_event(true))),
    })
}

/// `key=value`, the message without its key, control characters escaped.
fn write_field(
    writer: &mut Writer<'_>,
    field: &tracing::field::Field,
    value: &dyn fmt::Debug,
) -> fmt::Result {
    if field.name() != "message" {
        write!(writer, "{}=", field.name())?;
    }
    write!(Escaping(writer), "{value:?}")
}

/// Escapes what could break a line or steer a terminal, and the marks that reorder text for the eye.
struct Escaping<'a, W>(&'a mut W);

impl<W: fmt::Write> fmt::Write for Escaping<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match c {
            '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                write!(self.0, "{}", c.escape_unicode())
            }
            c if c.is_control() => write!(self.0, "{}", c.escape_default()),
            c => self.0.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(config: &Config, emit: impl FnOnce()) -> String {
        let captured = Captured::default();
        let sink = captured.clone();
        let subscriber = subscriber(config, move || sink.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, emit);
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    const HOSTILE: &str = "a\nERROR forged \x1b[31mred\x1b[0m\u{9b}1m\u{202e}txt\r";

    #[test]
    fn a_text_line_stays_one_line_without_control_characters() {
        let out = logged(&Config::default(), || {
            let span = tracing::info_span!("room", document = %HOSTILE);
            let _in_room = span.enter();
            tracing::info!(shown = %HOSTILE, debugged = ?HOSTILE, plain = HOSTILE, n = 3, "opened {HOSTILE}");
        });
        assert_eq!(out.matches('\n').count(), 1, "{out:?}");
        assert!(out.ends_with('\n'));
        let line = out.trim_end_matches('\n');
        assert!(!line.chars().any(char::is_control), "{out:?}");
        assert!(!line.contains('\u{202e}'), "{out:?}");
        assert!(line.contains(" INFO ") && line.contains("n=3"), "{out:?}");
        assert!(line.contains("shown=a\\nERROR forged"), "{out:?}");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let config = Config {
            format: Format::Json,
            ..Config::default()
        };
        let out = logged(&config, || tracing::warn!(document = HOSTILE, "opened"));
        let value: serde_json::Value = serde_json::from_str(out.trim_end()).unwrap();
        assert_eq!(out.matches('\n').count(), 1);
        assert_eq!(value["document"], HOSTILE);
        assert_eq!(value["level"], "WARN");
    }

    #[test]
    fn the_filter_decides_and_a_bad_one_is_explained() {
        let out = logged(&Config::default(), || tracing::debug!("quiet"));
        assert_eq!(out, "");
        let bad = Config {
            filter: "info,=,=".into(),
            ..Config::default()
        };
        let error = subscriber(&bad, io::sink, false).err().unwrap().to_string();
        assert!(error.contains("log.filter"), "{error}");
    }
}
