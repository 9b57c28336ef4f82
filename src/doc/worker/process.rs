//! The worker's side: `syncline crdt-worker`, a process that may die at any time without harm.
//!
//! It limits itself before it reads a byte, answers one request at a time, and ends when its input ends. Nothing is
//! caught: a panic ends the process with the document in it, since yrs may be in any state then.

use std::io::{self, Read, Write};
use std::num::NonZeroU64;
use std::panic;
use std::process::ExitCode;
use std::thread;

use bytes::Bytes;
use rustix::process::{
    Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit,
};
use rustix::time::{ClockId, clock_gettime};

use super::integrate::answer;
use super::wire::{Answer, HEADER_BYTES, REQUEST_BYTES_MAX, Request, VERSION, WireError, length};

/// The stack of the thread that integrates: yrs recurses into nested types.
const STACK_BYTES: usize = 64 << 20;

/// The process did not get as far as a request.
const EXIT_START: u8 = 3;
/// The server's end spoke nonsense, or could not be written to.
const EXIT_PIPE: u8 = 4;
/// A panic; the number that Rust itself uses.
const EXIT_PANIC: u8 = 101;

/// What a worker may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Address space, in bytes.
    pub memory_bytes: u64,
    /// CPU time for one request, in seconds, as a backstop: the server's deadline is shorter.
    pub cpu_seconds: NonZeroU64,
}

/// Runs the worker until its input ends.
pub fn run(limits: Limits) -> ExitCode {
    if let Err(error) = confine(limits) {
        drop(writeln!(io::stderr(), "cannot limit the worker: {error}"));
        return ExitCode::from(EXIT_START);
    }
    panic::set_hook(Box::new(complain));
    let integrator = thread::Builder::new()
        .name("crdt".into())
        .stack_size(STACK_BYTES)
        .spawn(move || serve(limits));
    match integrator.map(thread::JoinHandle::join) {
        Ok(Ok(Ok(()))) => ExitCode::SUCCESS,
        Ok(Ok(Err(error))) => {
            drop(writeln!(io::stderr(), "the worker cannot go on: {error}"));
            ExitCode::from(EXIT_PIPE)
        }
        Ok(Err(_)) => ExitCode::from(EXIT_PANIC),
        Err(error) => {
            drop(writeln!(io::stderr(), "cannot start a thread: {error}"));
            ExitCode::from(EXIT_START)
        }
    }
}

/// Limits that hold for the life of the process.
fn confine(limits: Limits) -> io::Result<()> {
    let both = |value| Rlimit {
        current: Some(value),
        maximum: Some(value),
    };
    setrlimit(Resource::As, both(limits.memory_bytes))?;
    setrlimit(Resource::Core, both(0))?;
    // The end of the input tells the same, unless the worker is busy just then.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

/// Grants CPU time for one request more than was used so far.
fn grant_cpu(limits: Limits) -> io::Result<()> {
    let used = clock_gettime(ClockId::ProcessCPUTime).tv_sec;
    let used = u64::try_from(used).unwrap_or_default();
    let Rlimit { maximum, .. } = getrlimit(Resource::Cpu);
    let wanted = used
        .saturating_add(limits.cpu_seconds.get())
        .saturating_add(1);
    let current = maximum.map_or(wanted, |maximum| wanted.min(maximum));
    Ok(setrlimit(
        Resource::Cpu,
        Rlimit {
            current: Some(current),
            maximum,
        },
    )?)
}

/// Where a panic was, and its text when that is a literal: a composed one may quote the document.
fn complain(panic: &panic::PanicHookInfo<'_>) {
    let text = panic
        .payload()
        .downcast_ref::<&'static str>()
        .unwrap_or(&"(text withheld)");
    let mut stderr = io::stderr();
    drop(match panic.location() {
        Some(at) => writeln!(stderr, "panicked at {at}: {text}"),
        None => writeln!(stderr, "panicked: {text}"),
    });
}

fn serve(limits: Limits) -> Result<(), ServeError> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    send(&mut output, &Answer::Hello { version: VERSION })?;
    while let Some(frame) = receive(&mut input)? {
        let request = Request::decode(frame)?;
        grant_cpu(limits)?;
        send(&mut output, &answer(&request))?;
    }
    Ok(())
}

/// Why the exchange with the server ended.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Wire(#[from] WireError),
}

fn send(output: &mut impl Write, answer: &Answer) -> io::Result<()> {
    output.write_all(&answer.encode())?;
    output.flush()
}

/// The next frame; `None` at the end of the input.
fn receive(input: &mut impl Read) -> Result<Option<Bytes>, ServeError> {
    let mut header = [0; HEADER_BYTES];
    match input.read_exact(&mut header) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let mut frame = vec![0; length(header, REQUEST_BYTES_MAX)?];
    input.read_exact(&mut frame)?;
    Ok(Some(frame.into()))
}
