//! The command line: `serve` and `config show`, and `crdt-worker`, which only the server calls. It reads what the person
//! asked for, starts the runtime, and says in one line what went wrong and how to mend it.

use std::future::Future;
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Flags};
use crate::doc::worker;
use crate::{node, telemetry};

/// Something went wrong while the server started or ran.
const EXIT_FAILED: u8 = 1;

/// The command line or the configuration cannot be used.
const EXIT_USAGE: u8 = 2;

/// A server for documents that many people edit at once.
#[derive(Debug, Parser)]
#[command(name = "syncline", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server until Ctrl-C or SIGTERM.
    Serve(Overrides),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Integrate documents for a server, over standard input and output. The server starts it by itself.
    #[command(hide = true)]
    CrdtWorker(WorkerArguments),
}

/// The limits that a server gives its worker.
#[derive(Debug, Args)]
struct WorkerArguments {
    /// Address space, in bytes.
    #[arg(long, value_name = "BYTES")]
    memory_bytes: u64,
    /// CPU time for one request, in seconds.
    #[arg(long, value_name = "SECONDS")]
    cpu_seconds: NonZeroU64,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the configuration that `serve` would use, as TOML; secrets are hidden.
    Show(Overrides),
}

/// Shown below the flags.
const PRECEDENCE: &str = "Each flag is also a variable of the environment (SYNCLINE_DATA, SYNCLINE_HTTP, ...), and \
    every key of the file too (SYNCLINE_LOG__FILTER=debug). Flags beat the environment, which beats the file.";

/// What `serve` and `config show` both take.
#[derive(Debug, Args)]
#[command(after_help = PRECEDENCE)]
struct Overrides {
    /// Read this TOML file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Keep database, journal, keys and certificate in this directory [default: data].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Keep documents here: sqlite:PATH or memory: [default: sqlite:DATA/syncline.db].
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Listen for HTTP and WebSocket; port 0 picks a free one [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// Listen for WebTransport (UDP); port 0 picks a free one [default: 127.0.0.1:4433].
    #[arg(long, value_name = "ADDR")]
    webtransport: Option<String>,
}

impl From<Overrides> for Flags {
    fn from(overrides: Overrides) -> Self {
        Self {
            config: overrides.config,
            data: overrides.data,
            store: overrides.store,
            http: overrides.http,
            webtransport: overrides.webtransport,
        }
    }
}

/// What ends the program early: the line for the person, without the program's name, and the exit code.
#[derive(Debug)]
struct Failure {
    line: String,
    code: u8,
}

impl Failure {
    fn usage(error: &impl ToString) -> Self {
        Self {
            line: error.to_string(),
            code: EXIT_USAGE,
        }
    }

    fn failed(error: &impl ToString) -> Self {
        Self {
            line: error.to_string(),
            code: EXIT_FAILED,
        }
    }
}

/// Runs the program with the arguments and the environment of the process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse_usage(&error),
    };
    let result = match cli.command {
        Command::Serve(overrides) => load(overrides).and_then(serve),
        Command::Config(ConfigCommand::Show(overrides)) => {
            load(overrides).and_then(|config| print(&config.to_toml()))
        }
        Command::CrdtWorker(WorkerArguments {
            memory_bytes,
            cpu_seconds,
        }) => {
            return worker::run(worker::Limits {
                memory_bytes,
                cpu_seconds,
            });
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure.line);
            ExitCode::from(failure.code)
        }
    }
}

fn load(overrides: Overrides) -> Result<Config, Failure> {
    // The one place that reads the environment.
    Config::load(&overrides.into(), std::env::vars_os()).map_err(|error| Failure::usage(&error))
}

fn serve(config: Config) -> Result<(), Failure> {
    telemetry::logging::install(&config.log).map_err(|error| Failure::usage(&error))?;
    // Two cryptography providers may be compiled in by dependencies; without this rustls refuses to choose.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        tracing::debug!("a TLS provider was installed before");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::failed(&format!(
                "cannot start the runtime: {error}; raise the limits on threads and open files"
            ))
        })?;
    run(&runtime, config)
}

/// Runs the node until it ends by itself or a signal asks it to. A second signal does not wait for the node.
fn run(runtime: &Runtime, config: Config) -> Result<(), Failure> {
    runtime.block_on(async {
        let asked = CancellationToken::new();
        let stop = asked.clone();
        let mut signals = Signals::new().map_err(|error| {
            Failure::failed(&format!("{error:#}; allow the process to handle signals"))
        })?;
        let impatient = async {
            signals.next().await;
            asked.cancel();
            signals.next().await;
        };
        // Boxed: the node's future is large, and lives once.
        let node: std::pin::Pin<Box<dyn Future<Output = _>>> =
            Box::pin(node::run(config, async move { stop.cancelled().await }));
        tokio::select! {
            biased;
            result = node => result.map_err(|error| Failure::failed(&error)),
            () = impatient => Err(Failure::failed(
                &"stopped at the second signal, before everything was flushed; start it again to replay the journal",
            )),
        }
    })
}

/// Ctrl-C and SIGTERM.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("cannot handle Ctrl-C")?,
            terminate: signal(SignalKind::terminate()).context("cannot handle SIGTERM")?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Help and version are answers; everything else is one line and exit code 2.
fn refuse_usage(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        return match print(&error.to_string()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => ExitCode::from(failure.code),
        };
    }
    complain(&usage_line(error));
    ExitCode::from(EXIT_USAGE)
}

fn usage_line(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is missing; run `syncline serve`, or `syncline --help` for all of them"
            .into();
    }
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let what = first
        .strip_prefix("error: ")
        .unwrap_or(first)
        .trim_end_matches(':');
    let missing = text
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .map(str::trim);
    let what = [what]
        .into_iter()
        .chain(missing)
        .collect::<Vec<_>>()
        .join(" ");
    match text
        .lines()
        .find_map(|line| line.trim().strip_prefix("tip: "))
    {
        Some(tip) => format!("{what}; {tip}"),
        None => format!("{what}; see `syncline --help`"),
    }
}

/// To standard output; a closed pipe is no error of ours (`syncline config show | head -1`).
fn print(text: &str) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::failed(&format!(
            "cannot write to standard output: {error}; check where it is redirected"
        ))),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// To standard error, one line. Nobody is left to tell when that fails.
fn complain(line: &str) {
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    writeln!(io::stderr(), "syncline: {line}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(["syncline"].iter().chain(arguments))
    }

    #[test]
    fn the_stable_command_line() {
        let cli = parse(&[
            "serve",
            "--config",
            "a.toml",
            "--data",
            "d",
            "--store",
            "memory:",
            "--http",
            "127.0.0.1:0",
            "--webtransport",
            "[::1]:0",
        ]);
        let Command::Serve(overrides) = cli.unwrap().command else {
            panic!("serve");
        };
        assert_eq!(
            Flags::from(overrides),
            Flags {
                config: Some("a.toml".into()),
                data: Some("d".into()),
                store: Some("memory:".into()),
                http: Some("127.0.0.1:0".into()),
                webtransport: Some("[::1]:0".into()),
            }
        );
        parse(&["config", "show", "--store", "memory:"]).unwrap();
    }

    #[test]
    fn a_usage_error_is_one_line_that_says_how_to_mend_it() {
        for (arguments, what, how) in [
            (&[][..], "a command is missing", "run `syncline serve`"),
            (&["serv"], "unrecognized subcommand 'serv'", "'serve'"),
            (
                &["serve", "--htp", "x"],
                "unexpected argument '--htp'",
                "'--http'",
            ),
            (
                &["serve", "--data"],
                "a value is required for '--data <DIR>'",
                "--help",
            ),
            (&["config"], "a command is missing", "--help"),
        ] {
            let line = usage_line(&parse(arguments).unwrap_err());
            assert!(
                line.starts_with(what) && line.contains(how),
                "{arguments:?}: {line}"
            );
            assert!(!line.contains('\n'));
        }
    }

    #[test]
    fn version_is_an_answer() {
        let error = parse(&["--version"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DisplayVersion);
        assert_eq!(
            error.to_string().trim(),
            format!("syncline {}", env!("CARGO_PKG_VERSION"))
        );
    }
}
