//! A hash of everything that a reader of a document can see, the same however the document came about.
//!
//! Every root is walked by its branch, whatever its type (roots have none until an application names it): the entries of
//! its map part in the order of their keys, then its sequence as text with effective formatting, and, where that does not
//! account for everything, as values. Marks that format nothing, the cut of texts into items and the order in which maps
//! give their entries do not count.

use std::collections::HashMap;

use yrs::any::Number;
use yrs::branch::{Branch, BranchPtr};
use yrs::types::text::YChange;
use yrs::{
    Any, Array as _, ArrayRef, Doc, Map as _, MapRef, Out, ReadTxn, Text as _, TextRef,
    Transact as _,
};

use super::wire::Refusal;
use crate::doc::digest::Hash64;

/// 128 bits: two hashes of 64 with seeds of their own.
pub(super) type VisibleHash = [u8; 16];

const SEEDS: [u64; 2] = [0x5669_7369_626c_6531, 0x5669_7369_626c_6532];

/// Hashes the visible content of every root that has any.
pub(super) fn hash(doc: &Doc) -> Result<VisibleHash, Refusal> {
    let transaction = doc.transact();
    let mut roots: Vec<(&str, Out)> = transaction.root_refs().collect();
    roots.sort_by_key(|(name, _)| *name);
    let mut walker = Walker {
        transaction: &transaction,
        hashes: SEEDS.map(Hash64::new),
    };
    for (name, root) in &roots {
        let Some(branch) = root.try_branch() else {
            return Err(Refusal::Unsupported);
        };
        if is_empty(branch, &transaction) {
            continue;
        }
        walker.text(name);
        walker.branch(branch)?;
    }
    let [first, second] = walker.hashes.map(Hash64::finish);
    let mut out = [0; 16];
    out[..8].copy_from_slice(&first.to_be_bytes());
    out[8..].copy_from_slice(&second.to_be_bytes());
    Ok(out)
}

fn is_empty(branch: &Branch, transaction: &impl ReadTxn) -> bool {
    let map = MapRef::from(BranchPtr::from(branch));
    branch.content_len() == 0 && map.iter(transaction).next().is_none()
}

/// What is hashed of each thing, so that no two different things read alike.
mod tag {
    pub(super) const ENTRY: u64 = 1;
    pub(super) const TEXT: u64 = 2;
    pub(super) const VALUES: u64 = 3;
    pub(super) const END: u64 = 4;
    pub(super) const BRANCH: u64 = 5;
    pub(super) const SUBDOCUMENT: u64 = 6;
    pub(super) const VALUE: u64 = 7;
    pub(super) const EMBED: u64 = 8;
}

type Attributes = HashMap<std::sync::Arc<str>, Any>;

struct Walker<'a, T> {
    transaction: &'a T,
    hashes: [Hash64; 2],
}

impl<T: ReadTxn> Walker<'_, T> {
    fn word(&mut self, word: u64) {
        self.hashes.iter_mut().for_each(|hash| hash.word(word));
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.hashes.iter_mut().for_each(|hash| hash.bytes(bytes));
    }

    fn branch(&mut self, branch: &Branch) -> Result<(), Refusal> {
        self.word(tag::BRANCH);
        self.text(&branch.type_ref().to_string());
        let map = MapRef::from(BranchPtr::from(branch));
        let mut entries: Vec<(&str, Out)> = map.iter(self.transaction).collect();
        entries.sort_by_key(|(key, _)| *key);
        for (key, value) in &entries {
            self.word(tag::ENTRY);
            self.text(key);
            self.value(value)?;
        }
        self.sequence(branch)?;
        self.word(tag::END);
        Ok(())
    }

    fn sequence(&mut self, branch: &Branch) -> Result<(), Refusal> {
        let pointer = BranchPtr::from(branch);
        let chunks = TextRef::from(pointer).diff(self.transaction, YChange::identity);
        let mut units = 0;
        let mut astral = false;
        // Neighbouring texts of equal formatting are one text: marks between them format nothing.
        let mut run: Option<(String, Option<Box<Attributes>>)> = None;
        for chunk in chunks {
            if let Out::Any(Any::String(text)) = &chunk.insert {
                units += text.encode_utf16().count();
                astral |= text.chars().any(|c| c > '\u{ffff}');
                match &mut run {
                    Some((so_far, attributes)) if *attributes == chunk.attributes => {
                        so_far.push_str(text);
                        continue;
                    }
                    _ => {
                        self.run(run.take());
                        run = Some((text.to_string(), chunk.attributes));
                        continue;
                    }
                }
            }
            units += 1;
            self.run(run.take());
            self.word(tag::EMBED);
            self.attributes(chunk.attributes.as_deref());
            self.value(&chunk.insert)?;
        }
        self.run(run.take());
        if units == branch.content_len() as usize {
            return Ok(());
        }
        // There is more than text: values, which only the walk of an array shows. On text outside the basic plane that
        // walk never ends (it counts characters where lengths are UTF-16 units); no editor mixes the two.
        if astral {
            return Err(Refusal::Unsupported);
        }
        for value in ArrayRef::from(pointer).iter(self.transaction) {
            self.word(tag::VALUES);
            self.value(&value)?;
        }
        Ok(())
    }

    fn run(&mut self, run: Option<(String, Option<Box<Attributes>>)>) {
        if let Some((text, attributes)) = run {
            self.word(tag::TEXT);
            self.attributes(attributes.as_deref());
            self.text(&text);
        }
    }

    fn attributes(&mut self, attributes: Option<&Attributes>) {
        let mut entries: Vec<_> = attributes.into_iter().flatten().collect();
        entries.sort_by_key(|(key, _)| *key);
        self.word(entries.len() as u64);
        for (key, value) in entries {
            self.text(key);
            self.any(value);
        }
    }

    fn value(&mut self, value: &Out) -> Result<(), Refusal> {
        match value {
            Out::Any(value) => {
                self.word(tag::VALUE);
                self.any(value);
                Ok(())
            }
            Out::YDoc(doc) => {
                self.word(tag::SUBDOCUMENT);
                self.text(&doc.guid());
                Ok(())
            }
            other => match other.try_branch() {
                Some(branch) => self.branch(branch),
                None => Err(Refusal::Unsupported),
            },
        }
    }

    /// Values are nested 64 deep at most.
    fn any(&mut self, value: &Any) {
        match value {
            Any::Null => self.word(0),
            Any::Undefined => self.word(1),
            Any::Bool(value) => self.word(2 + u64::from(*value)),
            Any::Number(number) => {
                self.word(4);
                match number {
                    Number::Int(int) => {
                        self.word(0);
                        self.word(*int as u64);
                    }
                    Number::Float(float) => {
                        self.word(1);
                        self.word(float.to_bits());
                    }
                }
            }
            Any::String(text) => {
                self.word(5);
                self.text(text);
            }
            Any::Buffer(bytes) => {
                self.word(6);
                self.bytes(bytes);
            }
            Any::Array(values) => {
                self.word(7);
                self.word(values.len() as u64);
                values.iter().for_each(|value| self.any(value));
            }
            Any::Map(entries) => {
                self.word(8);
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_by_key(|(key, _)| *key);
                self.word(entries.len() as u64);
                for (key, value) in entries {
                    self.text(key);
                    self.any(value);
                }
            }
        }
    }
}
