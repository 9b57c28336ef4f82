//! The edits that everything here is measured with, as Yjs updates: a real trace when there is one, else a made-up one.
//!
//! yrs plays the client that types; it is asked once, and its updates are kept in the target directory, since the real
//! trace costs it a minute. Nothing that is measured as ours touches yrs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use bytes::Bytes;
use serde::Deserialize;
use yrs::updates::decoder::Decode;
use yrs::{ClientID, Doc, OffsetKind, Options, ReadTxn, StateVector, Text, Transact, Update};

/// How many edits of the trace are live edits; the document is what was there before. They begin at nine tenths of the
/// trace and not at its very end, where the real one is mostly deleted: here a quarter of the edits delete, in all of it 30 %.
pub(crate) const N_LIVE: usize = 10_000;

/// The environment variable that names a gzipped trace in the format of <https://github.com/josephg/editing-traces>.
const TRACE_VARIABLE: &str = "SYNCLINE_B4";

/// How many edits the made-up trace has.
const N_SYNTHETIC: usize = 60_000;

/// Who writes the document, and who types into it afterwards.
const AUTHOR: u64 = 2_914_377_071;
const TYPIST: u64 = 3_518_203_644;

/// Part of the name of the kept file; another number when the way of making updates changes.
const KEPT_VERSION: u32 = 2;

/// A document, and edits that fit it.
#[derive(Debug)]
pub(crate) struct Trace {
    /// What the figures have to name.
    pub(crate) name: String,
    /// The document before the live edits, as yrs encodes it: collected, joined.
    pub(crate) document: Bytes,
    /// [`N_LIVE`] edits of the trace that follow, one update each: typing and deleting all over the document.
    pub(crate) live: Vec<Bytes>,
    /// Another client's first [`N_LIVE`] keystrokes in the middle of `document`, one update each.
    pub(crate) typing: Vec<Bytes>,
}

/// The trace, made at the first use.
pub(crate) static TRACE: LazyLock<Trace> = LazyLock::new(make);

#[derive(Deserialize)]
struct File {
    txns: Vec<Transaction>,
}

#[derive(Deserialize)]
struct Transaction {
    patches: Vec<Patch>,
}

/// Where, how many units go, what comes.
#[derive(Deserialize)]
struct Patch(u32, u32, String);

fn make() -> Trace {
    let (name, patches) = match std::env::var_os(TRACE_VARIABLE) {
        Some(path) => read(Path::new(&path)),
        None => ("synthetic".to_owned(), synthetic()),
    };
    let kept = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("bench-{name}-{}-{KEPT_VERSION}", patches.len()));
    let parts = unpack(&kept).unwrap_or_else(|| {
        // Read back, so that the first run finds its updates in memory as every later one does.
        pack(&kept, &play(&patches));
        unpack(&kept).expect("read what was just written")
    });
    let [document, edits @ ..] = &parts[..] else {
        panic!("{} is damaged: delete it", kept.display());
    };
    let (live, typing) = edits.split_at(N_LIVE);
    Trace {
        name: format!("{name}, {} edits", patches.len()),
        document: document.clone(),
        live: live.to_vec(),
        typing: typing.to_vec(),
    }
}

fn read(path: &Path) -> (String, Vec<Patch>) {
    let unzipped = Command::new("gzip")
        .arg("-dc")
        .arg(path)
        .output()
        .expect("run gzip");
    assert!(
        unzipped.status.success(),
        "{TRACE_VARIABLE}: gzip cannot read {}",
        path.display()
    );
    let file: File = serde_json::from_slice(&unzipped.stdout).expect("an editing trace in JSON");
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.split('.').next().unwrap_or("trace").to_owned();
    let patches = file.txns.into_iter().flat_map(|txn| txn.patches);
    (name, patches.collect())
}

/// Xorshift: the same numbers on every machine and for ever.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % u64::from(n.max(1))) as u32
    }
}

/// Somebody writes: mostly on, sometimes back over the last letters, now and then elsewhere.
fn synthetic() -> Vec<Patch> {
    let mut random = Random(0x5eed_5eed_5eed_5eed);
    let (mut at, mut len) = (0, 0);
    let letters = "etaoin shrdlu, cmfwyp.";
    (0..N_SYNTHETIC)
        .map(|_| {
            if random.below(60) == 0 {
                at = random.below(len + 1);
            }
            if at > 0 && random.below(5) == 0 {
                at -= 1;
                len -= 1;
                return Patch(at, 1, String::new());
            }
            let letter = random.below(letters.len() as u32) as usize;
            at += 1;
            len += 1;
            Patch(at - 1, 0, letters[letter..=letter].to_owned())
        })
        .collect()
}

fn client(id: u64) -> Doc {
    Doc::with_options(Options {
        offset_kind: OffsetKind::Utf16,
        ..Options::with_client_id(ClientID::new(id))
    })
}

/// Makes the edits, one transaction each; the updates that they send.
fn edit(doc: &Doc, patches: &[Patch]) -> Vec<Bytes> {
    let text = doc.get_or_insert_text("text");
    let edits = patches.iter().map(|Patch(at, n, new)| {
        let mut txn = doc.transact_mut();
        if *n > 0 {
            text.remove_range(&mut txn, *at, *n);
        }
        if !new.is_empty() {
            text.insert(&mut txn, *at, new);
        }
        Bytes::from(txn.encode_update_v1())
    });
    edits.collect()
}

/// The document, the live edits, the typing.
fn play(patches: &[Patch]) -> Vec<Bytes> {
    let begin = (patches.len() / 10 * 9).min(patches.len() - N_LIVE);
    let (before, live) = patches.split_at(begin);
    let live = &live[..N_LIVE];
    let author = client(AUTHOR);
    edit(&author, before);
    let document = author
        .transact()
        .encode_state_as_update_v1(&StateVector::default());
    let live = edit(&author, live);

    let typist = client(TYPIST);
    let update = Update::decode_v1(&document).expect("yrs reads what it wrote");
    let applied = typist.transact_mut().apply_update(update);
    applied.expect("yrs applies what it wrote");
    let words = "what somebody types, letter by letter, into the middle of it all ";
    let at = before.len() as u32 / 8;
    let keys: Vec<Patch> = (0..N_LIVE)
        .map(|n| {
            let letter = n % words.len();
            Patch(at + n as u32, 0, words[letter..=letter].to_owned())
        })
        .collect();
    let mut parts = vec![document.into()];
    parts.extend(live);
    parts.extend(edit(&typist, &keys));
    parts
}

fn pack(path: &Path, parts: &[Bytes]) {
    let mut out = Vec::new();
    for part in parts {
        out.extend_from_slice(&(part.len() as u32).to_le_bytes());
        out.extend_from_slice(part);
    }
    // By rename, so that a run that is stopped here leaves nothing half written.
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, out).expect("write the target directory");
    fs::rename(&unfinished, path).expect("write the target directory");
}

/// As they come from the network: short slices of larger buffers, which are shared when they are cloned.
fn unpack(path: &Path) -> Option<Vec<Bytes>> {
    let mut left = Bytes::from(fs::read(path).ok()?);
    let mut parts = Vec::new();
    while !left.is_empty() {
        let len = left.split_to(4);
        let len = u32::from_le_bytes(len[..].try_into().ok()?);
        parts.push(left.split_to(len as usize));
    }
    Some(parts)
}
