//! Awareness updates of y-protocols: who is here and what they show, as `list (u client id, u clock, str JSON)`. The JSON
//! is kept as text: the server never looks inside a state, it only makes sure that every reader can parse it.

use bytes::Bytes;
use serde::de::IgnoredAny;

use super::varint::{ReadError, Reader, Writer};
use crate::ids::ClientId;

/// The longest JSON of one entry, in bytes. A cursor, a name and a colour take a tenth of it.
pub const ENTRY_BYTES_MAX: usize = 2 * 1024;

/// How deep arrays and objects of one entry may nest: JavaScript peers compare states by recursion.
pub const NESTING_MAX: usize = 32;

/// The largest clock that is accepted. A client counts one up with each change, so 2^32 lasts for years; above it sits
/// the range in which JavaScript can no longer count one up.
pub const CLOCK_MAX: u64 = 1 << 32;

/// The update that says nothing. Stock clients take it as a sign of life and do nothing with it.
pub const EMPTY: Bytes = Bytes::from_static(&[0]);

/// Why one entry is not accepted. The rest of its update is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The JSON is longer than [`ENTRY_BYTES_MAX`].
    #[error("a presence entry is larger than {ENTRY_BYTES_MAX} bytes")]
    TooLarge,
    /// The text is not JSON.
    #[error("a presence entry is not JSON")]
    NotJson,
    /// The JSON nests deeper than [`NESTING_MAX`].
    #[error("a presence entry nests deeper than {NESTING_MAX}")]
    TooDeep,
    /// The clock is above [`CLOCK_MAX`].
    #[error("the clock of a presence entry is above {CLOCK_MAX}")]
    ClockTooLarge,
}

/// One entry of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Whose.
    pub client: ClientId,
    /// Counts up with each change of that client.
    pub clock: u64,
    /// The state as received: JSON if [`Entry::check`] says so.
    text: &'a str,
}

impl<'a> Entry<'a> {
    /// The state's JSON text, `None` when it is `null`: that client shows nothing, or is gone.
    pub fn state(&self) -> Option<&'a str> {
        let is_space = |c| matches!(c, ' ' | '\t' | '\n' | '\r');
        (self.text.trim_matches(is_space) != "null").then_some(self.text)
    }

    /// Whether every reader can take this entry. Costs a walk over the JSON: ask for entries that are to be relayed.
    pub fn check(&self) -> Result<(), EntryError> {
        if self.text.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::TooLarge);
        }
        if self.clock > CLOCK_MAX {
            return Err(EntryError::ClockTooLarge);
        }
        // Depth first: what passes it is safe to hand to any parser.
        if nesting(self.text) > NESTING_MAX {
            return Err(EntryError::TooDeep);
        }
        match serde_json::from_str::<IgnoredAny>(self.text) {
            Ok(IgnoredAny) => Ok(()),
            Err(_) => Err(EntryError::NotJson),
        }
    }
}

/// The deepest nesting of a JSON text. For a text that is not JSON it is some number.
fn nesting(json: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0usize);
    let (mut in_string, mut is_escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// A received update whose structure is sound: counts, lengths and UTF-8. Its entries are views of the message: stock
/// clients re-send what they hear of everybody, so most entries are thrown away unread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwarenessUpdate {
    /// The entries, the count before them taken off.
    entries: Bytes,
    n: usize,
}

impl AwarenessUpdate {
    /// Reads all of `bytes`. What it costs is bounded by their length; nothing is reserved.
    pub fn decode(bytes: &Bytes) -> Result<Self, ReadError> {
        let mut reader = Reader::new(bytes);
        let n = reader.length()?;
        let entries = bytes.slice_ref(reader.rest());
        for _ in 0..n {
            read_entry(&mut reader)?;
        }
        reader.end()?;
        Ok(Self { entries, n })
    }

    /// Its entries, in order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let mut reader = Reader::new(&self.entries);
        // The structure was checked by `decode`, so this ends after the last entry.
        (0..self.n).map_while(move |_| read_entry(&mut reader).ok())
    }

    /// How many entries it has.
    pub const fn n_entries(&self) -> usize {
        self.n
    }
}

fn read_entry<'a>(reader: &mut Reader<'a>) -> Result<Entry<'a>, ReadError> {
    Ok(Entry {
        client: reader.uint()?,
        clock: reader.uint()?,
        text: reader.str()?,
    })
}

/// Builds an update entry by entry.
#[derive(Debug, Default)]
pub struct Builder {
    entries: Writer,
    n: u64,
}

impl Builder {
    /// Adds an entry; `None` is `null`.
    pub fn push(&mut self, client: ClientId, clock: u64, state: Option<&str>) {
        self.entries
            .uint(client)
            .uint(clock)
            .str(state.unwrap_or("null"));
        self.n += 1;
    }

    /// How many bytes the entries have so far.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry yet.
    pub const fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// The update; `None` when it has no entry.
    pub fn finish(self) -> Option<Bytes> {
        if self.n == 0 {
            return None;
        }
        let mut writer = Writer::with_capacity(self.entries.len() + 4);
        writer.uint(self.n).bytes(&self.entries.finish());
        Some(writer.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(clock: u64, text: &str) -> AwarenessUpdate {
        let mut writer = Writer::default();
        writer.uint(1).uint(5).uint(clock).str(text);
        AwarenessUpdate::decode(&writer.finish()).unwrap()
    }

    fn check(text: &str) -> Result<(), EntryError> {
        one(1, text).entries().next().unwrap().check()
    }

    /// AW1: states are JSON, of bounded length, depth and clock.
    #[test]
    fn aw1_entries_are_checked() {
        assert_eq!(check(r#"{"user":{"name":"[[[[\"{{{"},"n":[1,2]}"#), Ok(()));
        assert_eq!(check("null"), Ok(()));
        for text in ["", "{", "{}x", "undefined", "{'a':1}", "\u{feff}{}"] {
            assert_eq!(check(text), Err(EntryError::NotJson), "{text:?}");
        }
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert_eq!(check(&nested(NESTING_MAX)), Ok(()));
        assert_eq!(check(&nested(NESTING_MAX + 1)), Err(EntryError::TooDeep));
        let sized = |n: usize| format!("\"{}\"", "x".repeat(n - 2));
        assert_eq!(check(&sized(ENTRY_BYTES_MAX)), Ok(()));
        assert_eq!(
            check(&sized(ENTRY_BYTES_MAX + 1)),
            Err(EntryError::TooLarge)
        );
        let update = one(CLOCK_MAX + 1, "{}");
        let entry = update.entries().next().unwrap();
        assert_eq!(entry.check(), Err(EntryError::ClockTooLarge));
    }

    /// AW2: `null` with spaces around it is null, as JSON.parse has it.
    #[test]
    fn aw2_null_is_null() {
        for text in ["null", " null", "null\r\n\t"] {
            assert_eq!(one(1, text).entries().next().unwrap().state(), None);
        }
        for text in ["\"null\"", "{}", "0", "false"] {
            assert_eq!(one(1, text).entries().next().unwrap().state(), Some(text));
        }
    }

    #[test]
    fn what_is_built_reads_back() {
        let mut builder = Builder::default();
        assert_eq!(AwarenessUpdate::decode(&EMPTY).unwrap().n_entries(), 0);
        builder.push(1, 2, Some("{}"));
        builder.push(u64::from(u32::MAX), 0, None);
        let update = AwarenessUpdate::decode(&builder.finish().unwrap()).unwrap();
        let entries: Vec<_> = update
            .entries()
            .map(|entry| (entry.client, entry.clock, entry.state()))
            .collect();
        assert_eq!(
            entries,
            [(1, 2, Some("{}")), (u64::from(u32::MAX), 0, None)]
        );
        assert_eq!(Builder::default().finish(), None);
    }
}
