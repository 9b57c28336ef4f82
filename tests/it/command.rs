//! The command line as its users meet it: what it prints, where, and how it ends.

use std::path::Path;
use std::process::{Output, Stdio};

use tokio::process::Command;

use crate::kill::Process;
use crate::support::soon;

/// Runs the binary to its end.
async fn run(args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_syncline"))
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    soon("the end of the program", output).await.unwrap()
}

/// The one line that a refusal is, with its exit code.
async fn refusal(args: &[&str]) -> (String, i32) {
    let output = run(args).await;
    let errors = String::from_utf8(output.stderr).unwrap();
    // The kernel's limit on UDP buffers is this machine's, and has a log line of its own.
    let lines: Vec<_> = errors
        .lines()
        .filter(|line| !line.contains("UDP buffers"))
        .collect();
    assert_eq!(lines.len(), 1, "one line, no backtrace: {errors}");
    assert!(output.stdout.is_empty());
    (lines[0].to_owned(), output.status.code().unwrap())
}

const ANYWHERE: [&str; 4] = ["--http", "127.0.0.1:0", "--webtransport", "127.0.0.1:0"];

async fn refused_serve(data: &Path, more: &[&str]) -> (String, i32) {
    let mut args = vec!["serve", "--data", data.to_str().unwrap()];
    args.extend(ANYWHERE);
    // A flag may be given once: a test's own stands in place of the default.
    for pair in more.chunks(2) {
        match args.iter().position(|arg| *arg == pair[0]) {
            Some(at) => args[at + 1] = pair[1],
            None => args.extend(pair),
        }
    }
    refusal(&args).await
}

#[tokio::test]
async fn each_fault_is_one_line_that_says_what_and_how_to_mend_it() {
    let directory = tempfile::TempDir::new().unwrap();
    let fresh = directory.path().join("fresh");
    let file = directory.path().join("file");
    std::fs::write(&file, "not a database, and no directory").unwrap();
    let malformed = directory.path().join("malformed.toml");
    std::fs::write(&malformed, "[room]\nidel = \"5s\"\n").unwrap();
    let certificate = directory.path().join("tls.toml");
    std::fs::write(
        &certificate,
        "[tls]\ncertificate = \"/nowhere.pem\"\nkey = \"/k\"\n",
    )
    .unwrap();
    let running = Process::start(&directory.path().join("taken")).await;
    let taken = running.http.to_string();
    let not_a_database = format!("sqlite:{}", file.display());
    for (data, more, code, words) in [
        (
            directory.path().join("taken"),
            vec![],
            1,
            ["in use by another syncline server", "--data DIR"],
        ),
        (
            fresh.clone(),
            vec!["--http", &taken],
            1,
            ["taken by another program", "--http"],
        ),
        (file.clone(), vec![], 1, ["not writable", "--data DIR"]),
        (
            fresh.clone(),
            vec!["--store", &not_a_database],
            1,
            ["not an SQLite database", "--store"],
        ),
        (
            fresh.clone(),
            vec!["--store", "mysql://x"],
            1,
            ["not understood", "sqlite:PATH"],
        ),
        (
            fresh.clone(),
            vec!["--http", "0.0.0.0:0"],
            1,
            ["authentication", "bind a loopback address"],
        ),
        (
            fresh.clone(),
            vec!["--config", malformed.to_str().unwrap()],
            2,
            ["room.idel", "did you mean `room.idle`"],
        ),
        (
            fresh.clone(),
            vec!["--config", certificate.to_str().unwrap()],
            1,
            ["/nowhere.pem", "tls.certificate"],
        ),
        (
            fresh.clone(),
            vec!["--http", "nonsense"],
            2,
            ["http.listen", "127.0.0.1:8080"],
        ),
    ] {
        let (line, exit) = refused_serve(&data, &more).await;
        assert_eq!(exit, code, "{line}");
        for word in words {
            assert!(line.contains(word), "{word:?} is missing in: {line}");
        }
    }
    running.kill().await;
}

#[tokio::test]
async fn config_show_prints_what_serve_would_use() {
    let output = run(&["config", "show", "--http", "127.0.0.1:9"]).await;
    assert!(output.status.success());
    let shown = String::from_utf8(output.stdout).unwrap();
    let table: toml::Table = shown.parse().unwrap();
    assert_eq!(table["http"]["listen"].as_str(), Some("127.0.0.1:9"));
    assert_eq!(table["committer"]["gather"].as_str(), Some("5ms"));
}

#[tokio::test]
async fn a_signal_ends_the_server_in_order_with_exit_code_zero() {
    for signal in ["TERM", "INT"] {
        let directory = tempfile::TempDir::new().unwrap();
        let process = Process::start(directory.path()).await;
        let code = soon("the end", process.signal(signal)).await;
        assert_eq!(code, Some(0), "after SIG{signal}");
        // What certs/README.md says lies there, does.
        for file in [
            "tls/development.crt.pem",
            "tls/development.key.pem",
            "keys/stateless-reset.key",
            "keys/connection-id.key",
        ] {
            assert!(directory.path().join(file).is_file(), "{file}");
        }
        // The lock went with it, and nothing is left to replay.
        let again = Process::start(directory.path()).await;
        again.kill().await;
    }
}
