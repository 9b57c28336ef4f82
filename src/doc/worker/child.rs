//! One worker process as the server sees it: started, asked, and killed at the first doubt.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::Config;
use super::wire::{ANSWER_BYTES_MAX, Answer, HEADER_BYTES, Request, VERSION, WireError, length};
use crate::shutdown::Scope;

/// The most bytes of one line of a worker's standard error, and of all of them, that are logged. The rest is read and
/// dropped, so that a worker is never stuck on a full pipe.
const LINE_BYTES_MAX: u64 = 1 << 10;
const LINES_MAX: usize = 64;

/// How long a killed or dismissed process may take to be gone. Longer is the kernel's affair: it is reaped later.
const END_WAIT: Duration = Duration::from_secs(2);

/// How a worker failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The program could not be started, or ended before it said a word. No document is to blame.
    #[error("the worker did not start: {0}")]
    Start(String),
    /// It did not answer in time and was killed.
    #[error("the worker did not answer within {} s and was killed", .0.as_secs_f32())]
    Timeout(Duration),
    /// It died over the request: killed, crashed, out of memory, or by a panic.
    #[error("the worker died: {}", .0.map_or_else(|| "it closed its output".into(), |status| status.to_string()))]
    Died(Option<ExitStatus>),
    /// It answered what no worker of ours answers.
    #[error("the worker answered wrongly: {0}")]
    WrongAnswer(String),
}

impl Failure {
    /// For metrics.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Start(_) => "start",
            Self::Timeout(_) => "timeout",
            Self::Died(_) => "died",
            Self::WrongAnswer(_) => "wrong-answer",
        }
    }
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        Self::WrongAnswer(error.to_string())
    }
}

/// The processes that run now, by their ids.
#[derive(Clone, Debug, Default)]
pub(super) struct Processes(Arc<Mutex<BTreeSet<u32>>>);

impl Processes {
    pub(super) fn ids(&self) -> Vec<u32> {
        self.set().iter().copied().collect()
    }

    fn list(&self, id: u32) -> Listed {
        self.set().insert(id);
        Listed {
            processes: self.clone(),
            id,
        }
    }

    fn set(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        // A set is whole even if a holder of the lock panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the process off the list when it is dropped.
#[derive(Debug)]
struct Listed {
    processes: Processes,
    id: u32,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.processes.set().remove(&self.id);
    }
}

/// A process that has said hello. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    listed: Listed,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

impl Worker {
    /// Starts a process and waits for its hello. It inherits no environment.
    pub(super) async fn start(
        config: &Config,
        processes: &Processes,
        scope: &Scope,
    ) -> Result<Self, Failure> {
        let seconds = config.request_timeout.as_secs().saturating_add(1);
        let arguments: [OsString; 5] = [
            "crdt-worker".into(),
            "--memory-bytes".into(),
            config.memory_bytes_max.to_string().into(),
            "--cpu-seconds".into(),
            seconds.to_string().into(),
        ];
        let mut child = Command::new(&config.program)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::Start(error.to_string()))?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(Failure::Start("it has no pipes".into()));
        };
        let process = child.id().unwrap_or_default();
        scope.spawn(log_lines(process, stderr));
        let mut worker = Self {
            child,
            listed: processes.list(process),
            stdin,
            stdout,
        };
        match timeout(config.request_timeout, worker.receive()).await {
            Ok(Ok(Answer::Hello { version: VERSION })) => Ok(worker),
            Ok(Ok(Answer::Hello { version })) => Err(worker.not_started(&format!(
                "it speaks version {version}, the server {VERSION}; restart the server"
            ))),
            Ok(Ok(_)) => Err(worker.not_started(&"it did not say hello")),
            Ok(Err(error)) => {
                let status = worker.end().await;
                Err(worker.not_started(&match status {
                    Some(status) => format!("{error}; {status}"),
                    None => error.to_string(),
                }))
            }
            Err(_) => Err(worker.not_started(&"it did not say hello in time")),
        }
    }

    fn not_started(&mut self, what: &impl ToString) -> Failure {
        drop(self.child.start_kill());
        Failure::Start(what.to_string())
    }

    /// Whether it has ended while nobody asked anything.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks, and waits for the answer within the deadline. After an error the worker is dead.
    pub(super) async fn ask(
        &mut self,
        request: &Request,
        deadline: Duration,
    ) -> Result<Answer, Failure> {
        let failure = match timeout(deadline, self.exchange(request)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(ReceiveError::Wire(error))) => {
                self.end().await;
                return Err(error.into());
            }
            Ok(Err(ReceiveError::Io(_))) => None,
            Err(_) => Some(Failure::Timeout(deadline)),
        };
        let status = self.end().await;
        Err(failure.unwrap_or(Failure::Died(status)))
    }

    async fn exchange(&mut self, request: &Request) -> Result<Answer, ReceiveError> {
        // The worker reads a whole request before it writes, so this cannot deadlock.
        self.stdin.write_all(&request.head()).await?;
        self.stdin.write_all(&request.update).await?;
        self.stdin.flush().await?;
        self.receive().await
    }

    async fn receive(&mut self) -> Result<Answer, ReceiveError> {
        let mut header = [0; HEADER_BYTES];
        self.stdout.read_exact(&mut header).await?;
        let length = length(header, ANSWER_BYTES_MAX)?;
        // Grows with what comes, so that a length alone costs nothing.
        let mut frame = Vec::new();
        (&mut self.stdout)
            .take(length as u64)
            .read_to_end(&mut frame)
            .await?;
        if frame.len() < length {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(Answer::decode(Bytes::from(frame))?)
    }

    /// Kills it and waits until it is gone; how it ended, if it had ended by itself or was gone in time. A process that
    /// closed its output because it is dying gets the moment that its death takes.
    pub(super) async fn end(&mut self) -> Option<ExitStatus> {
        if let Ok(Ok(status)) = timeout(Duration::from_millis(100), self.child.wait()).await {
            return Some(status);
        }
        drop(self.child.start_kill());
        timeout(END_WAIT, self.child.wait()).await.ok()?.ok()
    }

    /// Lets it end by itself: its input ends.
    pub(super) async fn dismiss(self) {
        let Self {
            mut child,
            listed: _listed,
            stdin,
            stdout,
        } = self;
        drop((stdin, stdout));
        if timeout(END_WAIT, child.wait()).await.is_err() {
            drop(child.start_kill());
        }
    }
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
enum ReceiveError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Wire(#[from] WireError),
}

/// Logs what a worker writes to its standard error, line by line, until it ends.
async fn log_lines(process: u32, stderr: impl AsyncRead + Unpin) {
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    for n in 0_usize.. {
        line.clear();
        match (&mut stderr)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .await
        {
            Ok(0) | Err(_) => return,
            Ok(_) if n < LINES_MAX => {
                let text = String::from_utf8_lossy(line.trim_ascii_end());
                tracing::warn!(process, line = %text.escape_debug(), "a CRDT worker complains");
            }
            Ok(_) => {}
        }
    }
}
