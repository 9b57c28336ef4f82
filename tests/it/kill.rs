//! "What anybody saw survives": the real binary, killed with -9 while people type, over and over on one data directory.
//!
//! After each kill a fresh client, before any old one comes back, must find every edit that was acknowledged as durable
//! *or* that another client had received, each exactly once.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use syncline::shutdown::Scope;
use syncline::transport::tls::CertificateHash;
use syncline::transport::{Received, dial};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::{Document, Session, soon};
use syncline::protocol::message::ServerDocument;

/// The server as a process.
pub(crate) struct Process {
    child: Child,
    pub(crate) http: SocketAddr,
}

impl Process {
    /// Starts the binary on a data directory and waits for its `ready` line.
    pub(crate) async fn start(data: &Path) -> Self {
        Self::start_with(data, &[]).await
    }

    /// The same with variables of the environment.
    pub(crate) async fn start_with(data: &Path, environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_syncline"))
            .args([
                "serve",
                "--http",
                "127.0.0.1:0",
                "--webtransport",
                "127.0.0.1:0",
                "--data",
            ])
            .arg(data)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = soon("the ready line", lines.next_line()).await.unwrap();
        let line = line.expect("the server starts");
        let http = line
            .strip_prefix("ready http=")
            .and_then(|rest| rest.split(' ').next())
            .unwrap_or_else(|| panic!("the ready line was {line:?}"))
            .parse()
            .unwrap();
        Self { child, http }
    }

    pub(crate) async fn kill(mut self) {
        // SIGKILL: nothing of the process runs after it.
        self.child.kill().await.unwrap();
    }

    /// Sends a signal and waits for the end; its exit code.
    pub(crate) async fn signal(mut self, name: &str) -> Option<i32> {
        let pid = self.child.id().unwrap().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.await.unwrap().success());
        self.child.wait().await.unwrap().code()
    }

    /// The resident memory of the process.
    pub(crate) fn rss_bytes(&self) -> u64 {
        let pid = self.child.id().unwrap();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib << 10
    }

    /// The body of an answer of the HTTP port.
    async fn get(&self, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(self.http).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.http
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon("an answer", stream.read_to_string(&mut answer))
            .await
            .unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        body.to_owned()
    }

    /// A metric without labels.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let metrics = self.get("/metrics").await;
        let line = metrics
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// A session over WebTransport, as a page finds it.
    pub(crate) async fn webtransport_session(&self) -> Session {
        let connect: serde_json::Value =
            serde_json::from_str(&self.get("/v1/connect").await).unwrap();
        let url = connect["webtransport"]["url"].as_str().unwrap();
        let hash = connect["webtransport"]["certificateHashes"][0]
            .as_str()
            .unwrap();
        let scope = Scope::new();
        let hash = CertificateHash::from_bytes(base64(hash).try_into().unwrap());
        let link = dial::webtransport(url, hash, &dial::Options::default(), &scope)
            .await
            .unwrap();
        Session::greet(link, scope).await
    }

    pub(crate) async fn session(&self) -> Session {
        let scope = Scope::new();
        let link = dial::websocket(
            &format!("ws://{}/ws", self.http),
            &dial::Options::default(),
            &scope,
        )
        .await
        .unwrap();
        Session::greet(link, scope).await
    }
}

/// What a run of writing learned before the kill.
#[derive(Default)]
struct Known {
    durable: BTreeSet<String>,
    seen: BTreeSet<String>,
}

/// Writes tokens until enough were received by the observer; the kill comes in the middle of the stream.
async fn write_until_killed(server: Process, round: usize, enough: usize) -> Known {
    // Every other round ends in the middle of the first commits, the others after some.
    let durable_wanted = if round.is_multiple_of(2) {
        0
    } else {
        enough as u64
    };
    let mut author = server.session().await;
    let mut observer = server.session().await;
    let mut a = author.open(1, "notes").await;
    let mut o = observer.open(1, "notes").await;
    let mut known = Known::default();
    let mut sent = Vec::new();
    let mut n_received = 0;
    let mut n_durable = 0;
    while n_received < enough || n_durable < durable_wanted {
        let token = format!("<{round}-{}>", sent.len());
        a.write(&token).await;
        sent.push(token);
        tokio::select! {
            biased;
            received = soon("an update", observer.link.receiver.recv()) => {
                n_received += usize::from(observe(received.unwrap(), &mut o));
            }
            received = soon("an answer", author.link.receiver.recv()) => {
                acknowledge(received.unwrap(), &a, &mut n_durable);
            }
        }
    }
    server.kill().await;
    // What was on its way to the clients has been told as well.
    while let Ok(Some(received)) = soon("the end", observer.link.receiver.recv()).await {
        observe(Some(received), &mut o);
    }
    while let Ok(Some(received)) = soon("the end", author.link.receiver.recv()).await {
        acknowledge(Some(received), &a, &mut n_durable);
    }
    let text = o.text();
    known
        .seen
        .extend(sent.iter().filter(|token| text.contains(*token)).cloned());
    // The first sequence of the channel was the empty SYNC.
    let n_tokens = usize::try_from(n_durable).unwrap().saturating_sub(1);
    known.durable.extend(sent.into_iter().take(n_tokens));
    known
}

fn document_message(received: Option<Received>) -> Option<ServerDocument> {
    match received? {
        Received::Frame { channel: 1, bytes } => ServerDocument::decode(&bytes).unwrap(),
        _ => None,
    }
}

fn observe(received: Option<Received>, document: &mut Document) -> bool {
    match document_message(received) {
        Some(ServerDocument::Update { update, .. }) => {
            document.apply(&update);
            true
        }
        _ => false,
    }
}

fn acknowledge(received: Option<Received>, document: &Document, n_durable: &mut u64) {
    if let Some(ServerDocument::Durable(up_to)) = document_message(received) {
        assert!(up_to >= *n_durable && up_to <= document.sequence);
        *n_durable = up_to;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing_that_anybody_saw() {
    // `make prove` kills more often.
    let n_kills: usize = knob("SYNCLINE_TEST_KILLS").unwrap_or(5);
    let data = tempfile::TempDir::new().unwrap();
    let mut everything = Known::default();
    for round in 0..n_kills {
        let server = Process::start(data.path()).await;
        // Spread over the stages of a commit: the numbers are coprime to the batch sizes.
        let known = write_until_killed(server, round, 7 + (round * 37) % 211).await;
        assert!(!known.seen.is_empty());
        everything.durable.extend(known.durable);
        everything.seen.extend(known.seen);

        let server = Process::start(data.path()).await;
        let mut fresh = server.session().await;
        let document = fresh.open(1, "notes").await;
        let text = document.text();
        for (promise, tokens) in [("durable", &everything.durable), ("seen", &everything.seen)] {
            for token in tokens {
                assert_eq!(
                    text.matches(token).count(),
                    1,
                    "{promise} {token} after kill {round}"
                );
            }
        }
        server.kill().await;
    }
    assert!(!everything.durable.is_empty());
    println!(
        "{n_kills} kills: {} edits seen by others, {} acknowledged, 0 lost",
        everything.seen.len(),
        everything.durable.len()
    );
}

/// Decodes base64.
fn base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => panic!("{byte} is not base64"),
    };
    let digits: Vec<u32> = text
        .trim_end_matches('=')
        .bytes()
        .map(|byte| u32::from(value(byte)))
        .collect();
    let mut out = Vec::new();
    for group in digits.chunks(4) {
        let bits = group.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - group.len()));
        out.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    out
}

/// A variable by which `make prove` asks for more.
#[expect(clippy::disallowed_methods, reason = "a test's own knob")]
pub(crate) fn knob(name: &str) -> Option<usize> {
    std::env::var(name).ok()?.parse().ok()
}
