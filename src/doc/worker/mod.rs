//! Work that needs the CRDT itself, in processes that may die: `syncline crdt-worker`.
//!
//! The library that integrates documents (yrs) can be made to crash, to loop and to eat memory by bytes that are valid,
//! so it runs only there: one request at a time over a pipe, with a memory limit, a deadline and a deep stack. The server
//! keeps a [`Pool`] of them and replaces what fails; what a worker says is checked on bytes before it is believed, and the
//! input of a failed request is kept in a quarantine. In reading order: `wire` is what is said, [`process`](run) and
//! `integrate` are the worker, `child`, `quarantine` and `pool` the server's side.

mod child;
mod integrate;
mod pool;
mod process;
mod quarantine;
mod slices;
mod visible;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use child::Failure;
pub use pool::{Collected, Pool, WorkerError};
pub use process::{Limits, run};
pub use wire::Refusal;

use crate::units;

/// What the operator may set for the worker processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The program that is started as `PROGRAM crdt-worker`: this one unless set.
    pub program: PathBuf,
    /// Worker processes at a time. Each is started when it is needed and ended when it was idle for a while. 1 is enough
    /// for compaction; each costs up to `memory_bytes_max`.
    pub n_workers: usize,
    /// Requests that may wait for a worker. One more is refused as busy, and its document is compacted later.
    pub queue_max: usize,
    /// Memory of one worker: its address space, of which its stack is 64 MiB. A document takes up to 25 times its size.
    #[serde(with = "units::size")]
    pub memory_bytes_max: u64,
    /// Time for one request, from sending it to having the answer. A worker that takes longer is killed.
    #[serde(with = "units::duration")]
    pub request_timeout: Duration,
    /// Time until a worker is started again after it failed; doubled with every failure in a row.
    #[serde(with = "units::duration")]
    pub restart_backoff: Duration,
    /// The longest time until a failed worker is started again.
    #[serde(with = "units::duration")]
    pub restart_backoff_max: Duration,
    /// Time without a request after which a worker is ended, so that an idle server holds no memory for it.
    #[serde(with = "units::duration")]
    pub idle: Duration,
    /// The most inputs of failed requests that are kept. When they are there, no more are: the first ones lead to the
    /// cause.
    pub quarantine_files_max: usize,
    /// The most bytes of inputs that are kept.
    #[serde(with = "units::size")]
    pub quarantine_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            // Also after the file was replaced by a newer version, whose workers may speak another way.
            program: "/proc/self/exe".into(),
            n_workers: 1,
            queue_max: 64,
            memory_bytes_max: 1 << 30,
            request_timeout: Duration::from_secs(20),
            restart_backoff: Duration::from_millis(100),
            restart_backoff_max: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            quarantine_files_max: 64,
            quarantine_bytes_max: 256 << 20,
        }
    }
}

/// What a worker would find, without one: for tests of documents that are known to be harmless.
#[cfg(test)]
pub(super) fn deletes_for_tests(update: &bytes::Bytes) -> bytes::Bytes {
    let request = wire::Request {
        id: 1,
        task: wire::Task::Collect,
        update: update.clone(),
    };
    match integrate::answer(&request) {
        wire::Answer::Collected { deletes, .. } => deletes,
        other => panic!("a harmless document is collected, not {other:?}"),
    }
}
