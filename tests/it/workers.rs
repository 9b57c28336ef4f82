//! The CRDT workers as the server uses them: the real binary, killed, stopped, starved, fed every poison that we know, and
//! replaced by programs that lie. After each the pool has to work again, and nobody else may notice.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use syncline::doc::worker::{Collected, Config, Failure, Pool, Refusal, WorkerError};
use syncline::doc::{ScanLimits, merge, scan};
use syncline::shutdown::Scope;
use syncline::telemetry::metrics::Metrics;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use yrs::updates::decoder::Decode as _;
use yrs::{Doc, Map as _, MapPrelim, ReadTxn as _, Transact as _, Update};

use crate::poison::{hex, poisons, uint, value_before};
use crate::support::{PATIENCE, everything, soon, text, until};
use crate::trace::trace;

const PROGRAM: &str = env!("CARGO_BIN_EXE_syncline");

/// A pool of the real workers or of another program, and where it keeps what failed.
struct Fixture {
    pool: Pool,
    metrics: Arc<Metrics>,
    scope: Scope,
    data: TempDir,
}

impl Fixture {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        Self::of(Path::new(PROGRAM), TempDir::new().unwrap(), change)
    }

    fn of(program: &Path, data: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            program: program.into(),
            restart_backoff: Duration::from_millis(1),
            request_timeout: PATIENCE,
            ..Config::default()
        };
        change(&mut config);
        let metrics = Arc::new(Metrics::new());
        let scope = Scope::new();
        let pool = Pool::start(
            config,
            data.path().join("quarantine"),
            metrics.clone(),
            &scope,
        );
        Self {
            pool,
            metrics,
            scope,
            data,
        }
    }

    /// A pool of a shell script.
    fn script(script: &str, change: impl FnOnce(&mut Config)) -> Self {
        let data = TempDir::new().unwrap();
        let program = program(data.path(), script);
        Self::of(&program, data, change)
    }

    async fn collect(&self, update: Bytes) -> Result<Collected, WorkerError> {
        soon("an answer", self.pool.collect("notes", update)).await
    }

    /// A request that any worker can do.
    async fn works(&self) {
        let collected = self.collect(hello()).await.unwrap();
        assert_eq!(collected.growth, None);
    }

    /// The one process of a pool that has worked.
    fn process(&self) -> Pid {
        let [process] = self.pool.processes()[..] else {
            panic!("one worker, not {:?}", self.pool.processes());
        };
        Pid::from_raw(i32::try_from(process).unwrap()).unwrap()
    }

    fn quarantined(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.data.path().join("quarantine"));
        let files = files.into_iter().flatten();
        files.map(|file| file.unwrap().path()).collect()
    }

    fn n_failed(&self, reason: &'static str) -> u64 {
        self.metrics.workers_failed.get([reason])
    }
}

/// A program that runs a shell script, in a directory.
pub(crate) fn program(directory: &Path, script: &str) -> PathBuf {
    let (source, program) = (directory.join("source"), directory.join("worker"));
    fs::write(&source, format!("#!/bin/sh\n{script}\n")).unwrap();
    // A copy by another process: a file that is open for writing here cannot be run by a sibling.
    let done = std::process::Command::new("install")
        .args(["-m", "755"])
        .args([&source, &program])
        .status();
    assert!(done.unwrap().success());
    program
}

fn failure<T>(result: Result<T, WorkerError>) -> Failure {
    match result {
        Err(WorkerError::Failed(failure)) => failure,
        Err(other) => panic!("a failure was due, not {other}"),
        Ok(_) => panic!("a failure was due"),
    }
}

/// Whether a process has ended; one that nobody has waited for yet has.
fn is_gone(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    stat.map_or(true, |stat| stat.contains(") Z "))
}

/// Stops a process, and waits until each of its threads stands: they notice one after another.
async fn stop(process: Pid) {
    kill_process(process, Signal::STOP).unwrap();
    let stands = || {
        let threads = fs::read_dir(format!("/proc/{}/task", process.as_raw_nonzero()));
        threads.unwrap().all(|thread| {
            let stat = fs::read_to_string(thread.unwrap().path().join("stat"));
            stat.unwrap().contains(") T ")
        })
    };
    until("the stop", stands).await;
}

/// A small document: half of its text is deleted.
fn hello() -> Bytes {
    let updates = ["01010700040104746578740568656c6c6f00", "00010701010300"];
    merge(&[hex(updates[0]), hex(&updates[1][..12])]).unwrap()
}

fn loaded(update: &[u8]) -> Doc {
    let doc = Doc::new();
    let update = Update::decode_v1(update).unwrap();
    doc.transact_mut().apply_update(update).unwrap();
    doc
}

#[tokio::test]
async fn a_long_history_is_collected_and_reads_the_same() {
    let fixture = Fixture::new(|_| {});
    let trace = trace();
    let raw = merge(&trace.updates).unwrap();
    let started = std::time::Instant::now();
    let collected = fixture.collect(raw.clone()).await.unwrap();
    let took = started.elapsed();
    let bytes = collected.update.bytes();
    println!(
        "{} keystrokes (real: {}): {} bytes raw, {} collected, in {took:?}",
        trace.updates.len(),
        trace.is_real,
        raw.len(),
        bytes.len(),
    );
    assert!(bytes.len() <= raw.len());
    assert_eq!(collected.growth, None);
    assert_eq!(text(&loaded(bytes)), trace.text);
    let shown = fixture.pool.visible("notes", raw).await.unwrap();
    assert_eq!(
        fixture.pool.visible("notes", bytes.clone()).await.unwrap(),
        shown
    );
    let again = fixture.collect(bytes.clone()).await.unwrap();
    assert_eq!(again.update.bytes(), bytes);
    assert_eq!(fixture.metrics.worker_requests.get(), 4);
    assert_eq!(fixture.quarantined(), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn what_a_document_does_not_say_is_deleted_comes_as_growth() {
    let fixture = Fixture::new(|_| {});
    // Two authors set one key at the same time, with a map each.
    let docs = [1, 2].map(Doc::with_client_id);
    let updates = docs.each_ref().map(|doc| {
        let root = doc.get_or_insert_map("map");
        root.insert(&mut doc.transact_mut(), "key", MapPrelim::from([("in", 1)]));
        everything(doc)
    });
    let raw = merge(&updates).unwrap();
    let collected = fixture.collect(raw.clone()).await.unwrap();
    let growth = collected.growth.unwrap();
    assert!(
        scan(&growth, &ScanLimits::default())
            .unwrap()
            .n_delete_ranges()
            > 0
    );
    // Who holds the raw document and gets the growth holds what a newcomer holds.
    let old = merge(&[raw, growth]).unwrap();
    let (old, new) = (loaded(&old), loaded(collected.update.bytes()));
    assert_eq!(old.transact().snapshot(), new.transact().snapshot());
}

#[tokio::test]
async fn a_killed_worker_costs_a_second_try() {
    let fixture = Fixture::new(|_| {});
    fixture.works().await;
    for round in 1..4 {
        let worker = fixture.process();
        // It is stopped first, so that the kill surely comes while it is asked.
        stop(worker).await;
        let kill = async {
            let asked = 2 * round;
            until("the request", || {
                fixture.metrics.worker_requests.get() == asked
            })
            .await;
            kill_process(worker, Signal::KILL).unwrap();
        };
        let (result, ()) = tokio::join!(fixture.collect(hello()), kill);
        assert_eq!(result.unwrap().growth, None);
        assert_ne!(fixture.process(), worker);
        assert_eq!(fixture.n_failed("died"), round);
    }
    assert_eq!(fixture.quarantined(), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn a_document_that_kills_fresh_workers_is_blamed_and_kept_once() {
    let script = format!("{HELLO}; head -c 20 >&2; kill -9 $$");
    let fixture = Fixture::script(&script, |_| {});
    for round in 1..4 {
        let error = fixture.collect(hello()).await.unwrap_err();
        assert!(error.blames_document());
        assert!(error.to_string().contains("SIGKILL"), "{error}");
        assert_eq!(fixture.n_failed("died"), round);
    }
    let [kept] = &fixture.quarantined()[..] else {
        panic!("one input, however often it failed");
    };
    assert_eq!(fs::read(kept).unwrap(), hello());
    assert_eq!(fixture.metrics.quarantined.get(), 1);
}

#[tokio::test]
async fn a_worker_that_dies_idle_costs_nothing() {
    let fixture = Fixture::new(|_| {});
    fixture.works().await;
    let worker = fixture.process();
    kill_process(worker, Signal::KILL).unwrap();
    until("its end", || is_gone(worker)).await;
    fixture.works().await;
    assert_eq!(fixture.quarantined(), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn a_worker_that_does_not_answer_is_killed() {
    let fixture = Fixture::new(|config| config.request_timeout = Duration::from_secs(2));
    fixture.works().await;
    let worker = fixture.process();
    stop(worker).await;
    let failure = failure(fixture.collect(hello()).await);
    assert!(matches!(failure, Failure::Timeout(_)), "{failure}");
    assert!(is_gone(worker));
    assert_eq!(
        (fixture.n_failed("timeout"), fixture.quarantined().len()),
        (1, 1)
    );
    fixture.works().await;
}

/// The real program, busy beyond its time over a large document.
#[tokio::test]
async fn a_request_that_takes_too_long_is_given_up() {
    let fixture = Fixture::new(|config| config.request_timeout = Duration::from_millis(700));
    fixture.works().await;
    let large: Vec<Bytes> = (0..400_000_u64).map(value_before).collect();
    let large = merge(&large).unwrap();
    let failure = failure(fixture.collect(large).await);
    assert!(matches!(failure, Failure::Timeout(_)), "{failure}");
    fixture.works().await;
}

#[tokio::test]
async fn a_worker_that_eats_memory_dies_alone() {
    let fixture = Fixture::new(|config| config.memory_bytes_max = 320 << 20);
    fixture.works().await;
    // Small items that cannot be joined: a dozen bytes each here, hundreds each when integrated. (A count of values that
    // is too large is refused by the library itself.)
    let n = 1_500_000;
    let mut greedy = vec![1];
    uint(&mut greedy, n);
    greedy.extend_from_slice(b"\x07\x00\x08\x01\x01a\x01\x7e");
    for clock in 0..n - 1 {
        greedy.extend_from_slice(&[0x48, 7]);
        uint(&mut greedy, clock);
        greedy.extend_from_slice(&[1, 126]);
    }
    greedy.push(0);
    let greedy = Bytes::from(greedy);
    let failure = failure(fixture.collect(greedy).await);
    assert!(matches!(failure, Failure::Died(Some(_))), "{failure}");
    fixture.works().await;
    // The worker that had worked before, and the one that was started for it.
    assert_eq!(
        (fixture.n_failed("died"), fixture.quarantined().len()),
        (2, 1)
    );
}

#[tokio::test]
async fn every_known_poison_is_refused_survived_or_costs_one_process() {
    let fixture = Fixture::new(|config| {
        config.quarantine_files_max = 3;
        // 100,000 nested maps overflow any stack; whatever else happens, happens soon.
        config.memory_bytes_max = 2 << 30;
    });
    for (name, bytes) in poisons() {
        let outcome = match fixture.collect(bytes).await {
            Ok(collected) => format!("collected, {} bytes", collected.update.bytes().len()),
            Err(error) => error.to_string(),
        };
        println!("{name}: {outcome}");
        fixture.works().await;
    }
    assert!(fixture.quarantined().len() <= 3);
}

/// The first words of a worker, in octal for `printf`.
pub(crate) const HELLO: &str = r"printf '\015\0\0\0\200syncline\001\0\0\0'";

#[tokio::test]
async fn a_program_that_lies_is_not_believed() {
    for (script, reason) in [
        ("echo garbage, and a lot of it", "start"),
        ("exit 7", "start"),
        (r"printf '\015\0\0\0\200syncline\002\0\0\0'; cat", "start"),
        (
            "HELLO; head -c 30 >&2; printf '\\377\\377\\377\\377'; cat",
            "wrong-answer",
        ),
        (
            "HELLO; head -c 30 >&2; printf '\\003\\0\\0\\0\\377\\377\\377'; cat",
            "wrong-answer",
        ),
        // To a request that nobody made; to another question; ranges that are not the document's.
        (
            "HELLO; printf '\\013\\0\\0\\0\\201\\077\\0\\0\\0\\0\\0\\0\\0\\0\\0'; cat >&2",
            "wrong-answer",
        ),
        (
            "HELLO; printf '\\031\\0\\0\\0\\202\\001'; head -c 23 /dev/zero; cat >&2",
            "wrong-answer",
        ),
        (
            "HELLO; printf '\\013\\0\\0\\0\\201\\001\\0\\0\\0\\0\\0\\0\\0\\0\\0'; cat >&2",
            "wrong-answer",
        ),
        // Nothing, then death; half an answer, then death.
        ("HELLO; head -c 20 >&2", "died"),
        (
            "HELLO; head -c 20 >&2; printf '\\100\\0\\0\\0\\201'",
            "died",
        ),
        ("HELLO; while :; do :; done", "timeout"),
        // It reads nothing, and floods its standard error with what drives terminals.
        (
            "HELLO; while :; do printf '\\033[31m\\nERROR forged\\r\\n' >&2; done",
            "timeout",
        ),
    ] {
        let script = script.replace("HELLO", HELLO);
        let fixture = Fixture::script(&script, |config| {
            if reason == "timeout" {
                config.request_timeout = Duration::from_millis(500);
            }
        });
        let before = fixture.metrics.worker_requests.get();
        let failure = failure(fixture.collect(hello()).await);
        assert_eq!(fixture.n_failed(reason), 1, "{script}: {failure}");
        let asked = u64::from(reason != "start");
        assert_eq!(
            fixture.metrics.worker_requests.get(),
            before + asked,
            "{script}"
        );
        assert_eq!(fixture.quarantined().len() as u64, asked, "{script}");
        assert!(fixture.scope.stop(PATIENCE).await, "{script}");
    }
}

#[tokio::test]
async fn a_missing_program_blames_no_document() {
    let data = TempDir::new().unwrap();
    let fixture = Fixture::of(
        &data.path().join("nothing"),
        TempDir::new().unwrap(),
        |_| {},
    );
    let error = fixture.collect(hello()).await.unwrap_err();
    assert!(!error.blames_document(), "{error}");
    assert_eq!(fixture.n_failed("start"), 1);
    assert_eq!(fixture.quarantined(), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn refusals_are_typed_and_cost_no_process() {
    let fixture = Fixture::new(|_| {});
    let mixed = hex("010307002701016d016b0004000700 04f09f9880 88070201 7d01 00"
        .replace(' ', "")
        .as_str());
    match fixture.pool.visible("notes", mixed).await {
        Err(error @ WorkerError::Refused(Refusal::Unsupported)) => {
            assert!(!error.blames_document(), "it is only beyond workers");
        }
        other => panic!("{other:?}"),
    }
    let missing = hex("0101070084080001610 0".replace(' ', "").as_str());
    match fixture.collect(missing).await {
        Err(error @ WorkerError::Refused(Refusal::Holes)) => assert!(error.blames_document()),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        fixture.collect(Bytes::from_static(&[9])).await,
        Err(WorkerError::Malformed(_))
    ));
    assert_eq!(fixture.metrics.worker_requests.get(), 2);
    let failed =
        ["start", "timeout", "died", "wrong-answer"].map(|reason| fixture.n_failed(reason));
    assert_eq!(failed, [0; 4]);
}

#[tokio::test]
async fn a_full_queue_is_busy_and_a_stopped_pool_has_no_processes() {
    let fixture = Fixture::new(|config| config.queue_max = 1);
    fixture.works().await;
    let worker = fixture.process();
    stop(worker).await;
    let first = fixture.collect(hello());
    let second = async {
        until("the first", || fixture.metrics.worker_requests.get() == 2).await;
        fixture.collect(hello()).await
    };
    let third = async {
        // The first has left the queue by then.
        until("the first", || fixture.metrics.worker_requests.get() == 2).await;
        until("the second", || fixture.pool.n_waiting() == 1).await;
        let third = fixture.collect(hello()).await;
        assert!(matches!(third, Err(WorkerError::Busy { max: 1 })));
        assert!(fixture.scope.stop(PATIENCE).await);
    };
    let (first, second, ()) = tokio::join!(first, second, third);
    for result in [first, second] {
        assert!(matches!(result, Err(WorkerError::Stopped)), "{result:?}");
    }
    until("its end", || is_gone(worker)).await;
    assert!(matches!(
        fixture.collect(hello()).await,
        Err(WorkerError::Stopped)
    ));
}

#[tokio::test]
async fn an_idle_worker_goes_home() {
    let fixture = Fixture::new(|config| config.idle = Duration::from_millis(50));
    fixture.works().await;
    let worker = fixture.process();
    until("its end", || is_gone(worker)).await;
    until("an empty list", || fixture.pool.processes().is_empty()).await;
    fixture.works().await;
    assert_eq!(fixture.n_failed("died"), 0);
}

/// The worker alone, without a pool.
fn worker() -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args([
            "crdt-worker",
            "--memory-bytes",
            "1073741824",
            "--cpu-seconds",
            "5",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

#[tokio::test]
async fn a_worker_limits_itself_and_ends_with_its_input() {
    let mut child = worker().spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut hello = [0; 17];
    soon("hello", stdout.read_exact(&mut hello)).await.unwrap();
    assert_eq!(&hello[5..13], b"syncline");
    let request = *b"\x0b\0\0\0\x02\x01\0\0\0\0\0\0\0\0\0";
    stdin.write_all(&request).await.unwrap();
    let mut answer = [0; 29];
    soon("an answer", stdout.read_exact(&mut answer))
        .await
        .unwrap();
    let limits = fs::read_to_string(format!("/proc/{}/limits", child.id().unwrap())).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..]
            .split_whitespace()
            .next()
            .unwrap()
            .to_owned()
    };
    assert_eq!(limit("Max address space"), "1073741824");
    assert_eq!(limit("Max core file size"), "0");
    assert_eq!(limit("Max cpu time"), "6");
    drop(stdin);
    assert!(soon("its end", child.wait()).await.unwrap().success());

    let mut child = worker().spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&[255; 64]).await.unwrap();
    let output = soon("its end", child.wait_with_output()).await.unwrap();
    assert_eq!(output.status.code(), Some(4));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

#[tokio::test]
async fn a_worker_dies_with_its_server_even_when_its_input_stays_open() {
    let data = TempDir::new().unwrap();
    // The shell becomes the worker's parent and then another program; the worker holds its own input open.
    let script = r#"mkfifo in; exec 3<>in
        "$0" crdt-worker --memory-bytes 1073741824 --cpu-seconds 5 <&3 >out 3<&3 & echo $! >pid.partial
        mv pid.partial pid; exec sleep 600"#;
    let mut server = Command::new("sh")
        .args(["-c", script, PROGRAM])
        .current_dir(data.path())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let read = |name: &str| fs::read(data.path().join(name)).unwrap_or_default();
    until("hello", || {
        read("out").len() == 17 && !read("pid").is_empty()
    })
    .await;
    let process = String::from_utf8(read("pid")).unwrap();
    let process = Pid::from_raw(process.trim().parse().unwrap()).unwrap();
    assert!(!is_gone(process));
    soon("its end", server.kill()).await.unwrap();
    until("the worker's end", || is_gone(process)).await;
}
