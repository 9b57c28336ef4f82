//! What a keystroke costs in history (STORAGE.md, ST54): the real editing trace of a paper when `SYNCLINE_B4` names its
//! file (`automerge-paper.json.gz`), else a seeded one of the same habits.

use std::process::Command;

use bytes::Bytes;
use serde::Deserialize;
use syncline::doc::{Document, DocumentLimits, TailUpdate};
use syncline::ids::{Epoch, Origin};
use syncline::protocol::position::Position;
use syncline::protocol::varint::Writer;
use syncline::store::{LogRow, segment};

use super::{Rows, key, origin};

/// Updates of one segment.
const ROWS: usize = 1_000;

/// Edits of the seeded trace.
const N_SEEDED: usize = 30_000;

#[derive(Deserialize)]
struct Trace {
    txns: Vec<Txn>,
}

#[derive(Deserialize)]
struct Txn {
    patches: Vec<(usize, usize, String)>,
}

/// Position, deleted characters, inserted text.
type Edit = (usize, usize, String);

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn b4(path: &std::ffi::OsStr) -> Vec<Edit> {
    let unpacked = Command::new("gzip").arg("-dc").arg(path).output().unwrap();
    assert!(unpacked.status.success(), "gzip could not read the trace");
    let trace: Trace = serde_json::from_slice(&unpacked.stdout).unwrap();
    trace.txns.into_iter().flat_map(|txn| txn.patches).collect()
}

/// Runs of typing with corrections, at places that jump now and then.
fn seeded() -> Vec<Edit> {
    let mut random = Random(0x5eed);
    let (mut at, mut length) = (0, 0);
    (0..N_SEEDED)
        .map(|_| {
            if random.below(40) == 0 {
                at = random.below(length as u64 + 1) as usize;
            }
            if at > 0 && random.below(6) == 0 {
                at -= 1;
                length -= 1;
                (at, 1, String::new())
            } else {
                let letter = b" etaoinshrdlucmfwyp,.\n"[random.below(23) as usize % 22];
                at += 1;
                length += 1;
                (at - 1, 0, char::from(letter).to_string())
            }
        })
        .collect()
}

/// A Yjs client that types, as the updates that it sends.
struct Typist {
    client: u64,
    clock: u64,
    /// Every unit before and after the cursor, deleted ones included: its clock and whether it shows.
    before: Vec<(u64, bool)>,
    after: Vec<(u64, bool)>,
    n_before: usize,
}

impl Typist {
    fn go(&mut self, at: usize) {
        while self.n_before > at {
            let unit = self.before.pop().unwrap();
            self.n_before -= usize::from(unit.1);
            self.after.push(unit);
        }
        while self.n_before < at {
            let unit = self.after.pop().unwrap();
            self.n_before += usize::from(unit.1);
            self.before.push(unit);
        }
    }

    fn insert(&mut self, at: usize, text: &str) -> Bytes {
        self.go(at);
        let left = self.before.last().map(|(clock, _)| *clock);
        let right = self.after.last().map(|(clock, _)| *clock);
        let info = 4 | u64::from(left.is_some()) << 7 | u64::from(right.is_some()) << 6;
        let mut out = Writer::default();
        out.uint(1).uint(1).uint(self.client).uint(self.clock);
        out.bytes(&[info as u8]);
        for origin in [left, right].into_iter().flatten() {
            out.uint(self.client).uint(origin);
        }
        if left.or(right).is_none() {
            out.uint(1).str("text");
        }
        out.str(text).uint(0);
        for _ in text.encode_utf16() {
            self.before.push((self.clock, true));
            self.clock += 1;
            self.n_before += 1;
        }
        out.finish()
    }

    fn delete(&mut self, at: usize) -> Bytes {
        self.go(at);
        let shown = self.after.iter().rposition(|(_, shows)| *shows).unwrap();
        self.after[shown].1 = false;
        let mut out = Writer::default();
        out.uint(0).uint(1).uint(self.client).uint(1);
        out.uint(self.after[shown].0).uint(1);
        out.finish()
    }
}

/// The edits as one person's rows, typed with human pauses.
fn rows(edits: &[Edit]) -> Vec<LogRow> {
    let maker = Rows {
        key: key("paper"),
        epoch: Epoch::random(),
    };
    let mut typist = Typist {
        client: 3_141_592_653,
        clock: 0,
        before: Vec::new(),
        after: Vec::new(),
        n_before: 0,
    };
    let mut random = Random(7);
    let mut time_ms = 1_700_000_000_000;
    let mut out = Vec::with_capacity(edits.len());
    let mut log = |update: Bytes, time_ms: u64| {
        out.push(LogRow {
            update,
            time_ms,
            ..maker.row(origin(1), out.len() as u64 + 1)
        });
    };
    for (at, n_deleted, text) in edits {
        time_ms += 80 + random.below(180) + random.below(30) / 29 * random.below(20_000);
        for _ in 0..*n_deleted {
            log(typist.delete(*at), time_ms);
        }
        if !text.is_empty() {
            log(typist.insert(*at, text), time_ms);
        }
    }
    out
}

#[test]
fn st54_a_keystroke_in_history_costs_at_most_five_bytes() {
    let (name, edits) = match std::env::var_os("SYNCLINE_B4") {
        Some(path) => ("B4", b4(&path)),
        None => ("seeded", seeded()),
    };
    let rows = rows(&edits);
    // They are edits of one text, not noise.
    let mut document = Document::load(
        DocumentLimits::default(),
        None,
        Position::new(),
        rows.iter()
            .map(|row| TailUpdate {
                origin: Origin::from_bytes([1; 8]),
                sequence: row.sequence,
                bytes: row.update.clone(),
            })
            .collect(),
    )
    .unwrap();
    assert_eq!(document.n_unready(), 0);
    let merged = document.full().len();

    let started = std::time::Instant::now();
    let sealed: Vec<_> = rows.chunks(ROWS).flat_map(segment::seal).collect();
    let took = started.elapsed();
    let packed: usize = sealed.iter().map(|sealed| sealed.bytes.len()).sum();
    let raw: usize = rows.iter().map(|row| row.update.len()).sum();
    let n = rows.len();
    println!(
        "{name}: {n} updates, {:.1} bytes each as sent, {:.2} in segments of {ROWS} ({} KB; the merged document has {} KB); \
         {:.1} µs an update to seal",
        raw as f64 / n as f64,
        packed as f64 / n as f64,
        packed / 1_000,
        merged / 1_000,
        took.as_secs_f64() * 1e6 / n as f64
    );
    assert!(packed <= 5 * n, "{packed} bytes for {n} keystrokes");
    let opened: Vec<LogRow> = sealed
        .iter()
        .flat_map(|sealed| segment::open(&rows[0].key, &sealed.bytes).unwrap())
        .collect();
    assert!(opened == rows, "every byte comes back");
}
