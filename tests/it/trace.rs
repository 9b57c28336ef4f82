//! A long editing history of one author as single keystrokes: the real one of the automerge paper when the environment
//! names it (`SYNCLINE_B4=automerge-paper.json.gz`), a seeded synthetic one otherwise.

use std::process::Command;

use bytes::Bytes;

/// The client that wrote all of it.
const CLIENT: u64 = 7;

/// A history as Yjs updates, one for each keystroke, and the text that is left.
pub(crate) struct Trace {
    pub(crate) updates: Vec<Bytes>,
    pub(crate) text: String,
    pub(crate) is_real: bool,
}

/// The history at hand.
pub(crate) fn trace() -> Trace {
    #[expect(clippy::disallowed_methods, reason = "a test's own knob")]
    let path = std::env::var("SYNCLINE_B4");
    match path {
        Ok(path) => real(&path),
        Err(_) => synthetic(30_000),
    }
}

fn real(path: &str) -> Trace {
    let output = Command::new("gzip").args(["-dc", path]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut editor = Editor::default();
    for transaction in json["txns"].as_array().unwrap() {
        for patch in transaction["patches"].as_array().unwrap() {
            let number = |at: usize| usize::try_from(patch[at].as_u64().unwrap()).unwrap();
            (0..number(1)).for_each(|_| editor.delete(number(0)));
            for (offset, c) in patch[2].as_str().unwrap().chars().enumerate() {
                editor.insert(number(0) + offset, c);
            }
        }
    }
    let trace = editor.finish(true);
    assert_eq!(Some(trace.text.as_str()), json["endContent"].as_str());
    trace
}

/// Writes words, steps back and deletes, jumps elsewhere now and then.
fn synthetic(n_keystrokes: usize) -> Trace {
    let mut seed = 0x5eed_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below as u64).unwrap()
    };
    let mut editor = Editor::default();
    let mut cursor = 0;
    for _ in 0..n_keystrokes {
        match random(100) {
            0..5 => cursor = random(editor.n_visible + 1),
            5..25 if cursor > 0 => {
                cursor -= 1;
                editor.delete(cursor);
            }
            _ => {
                editor.insert(cursor, char::from(b'a' + u8::try_from(random(26)).unwrap()));
                cursor += 1;
            }
        }
    }
    editor.finish(false)
}

/// One unit of the text, deleted ones included.
#[derive(Clone, Copy)]
struct Unit {
    clock: u64,
    c: char,
    visible: bool,
}

/// A text in chunks, so that an edit costs a search among chunks and one in a chunk.
#[derive(Default)]
struct Editor {
    chunks: Vec<(usize, Vec<Unit>)>,
    n_visible: usize,
    clock: u64,
    updates: Vec<Bytes>,
}

const CHUNK: usize = 512;

impl Editor {
    /// The chunk, and the place in it, behind `at` visible units: directly behind the last of them.
    fn find(&self, at: usize) -> (usize, usize) {
        let mut left = at;
        if at == 0 {
            return (0, 0);
        }
        for (index, (n_visible, units)) in self.chunks.iter().enumerate() {
            if left > *n_visible {
                left -= n_visible;
                continue;
            }
            for (offset, unit) in units.iter().enumerate() {
                left -= usize::from(unit.visible);
                if left == 0 {
                    return (index, offset + 1);
                }
            }
        }
        panic!("the text has {} units, not {at}", self.n_visible);
    }

    fn insert(&mut self, at: usize, c: char) {
        if self.chunks.is_empty() {
            self.chunks.push((0, Vec::new()));
        }
        let (index, offset) = self.find(at);
        let units = &self.chunks[index].1;
        let left = offset.checked_sub(1).map(|before| units[before].clock);
        let behind = self.chunks.iter().skip(index + 1);
        let right = units
            .get(offset)
            .or_else(|| behind.flat_map(|(_, units)| units.first()).next())
            .map(|unit| unit.clock);
        self.updates.push(insertion(self.clock, left, right, c));
        let (n_visible, units) = &mut self.chunks[index];
        units.insert(
            offset,
            Unit {
                clock: self.clock,
                c,
                visible: true,
            },
        );
        *n_visible += 1;
        if units.len() > CHUNK {
            let tail = units.split_off(CHUNK / 2);
            let n_tail = tail.iter().filter(|unit| unit.visible).count();
            *n_visible -= n_tail;
            self.chunks.insert(index + 1, (n_tail, tail));
        }
        self.n_visible += 1;
        self.clock += 1;
    }

    fn delete(&mut self, at: usize) {
        let (index, offset) = self.find(at + 1);
        let (n_visible, units) = &mut self.chunks[index];
        let unit = &mut units[offset - 1];
        unit.visible = false;
        *n_visible -= 1;
        self.n_visible -= 1;
        let mut update = vec![0, 1];
        [CLIENT, 1, unit.clock, 1]
            .into_iter()
            .for_each(|n| uint(&mut update, n));
        self.updates.push(update.into());
    }

    fn finish(self, is_real: bool) -> Trace {
        let units = self.chunks.iter().flat_map(|(_, units)| units);
        Trace {
            text: units
                .filter(|unit| unit.visible)
                .map(|unit| unit.c)
                .collect(),
            updates: self.updates,
            is_real,
        }
    }
}

fn insertion(clock: u64, left: Option<u64>, right: Option<u64>, c: char) -> Bytes {
    let mut update = vec![1, 1];
    uint(&mut update, CLIENT);
    uint(&mut update, clock);
    let bit = |on: bool, bit: u8| if on { bit } else { 0 };
    update.push(4 | bit(left.is_some(), 0x80) | bit(right.is_some(), 0x40));
    for origin in [left, right].into_iter().flatten() {
        uint(&mut update, CLIENT);
        uint(&mut update, origin);
    }
    if left.is_none() && right.is_none() {
        update.extend_from_slice(b"\x01\x04text");
    }
    let mut utf8 = [0; 4];
    let text = c.encode_utf8(&mut utf8);
    uint(&mut update, text.len() as u64);
    update.extend_from_slice(text.as_bytes());
    update.push(0);
    update.into()
}

fn uint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
}
