//! What the outside learns from an admission: what is news, what waits, and why an update is refused.
//!
//! The judging itself is `ledger`; the waiting is `park`; `document` puts them together.

use bytes::Bytes;

use crate::doc::park::ParkId;

/// What an update brought to a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// What to journal, push and relay, each as an entry of its own and in this order: the update verbatim or trimmed to
    /// what is new, then deletions that it implied. Empty (and `freed` too) = no news: acknowledge, store nothing, relay
    /// nothing.
    pub news: Vec<Bytes>,
    /// The same of parked pieces of earlier updates whose turn has come, after `news`. Their authors are others; the
    /// author of this update lacks them too.
    pub freed: Vec<Freed>,
    /// Part of this update waits under this name for something that the document lacks. It must not be acknowledged
    /// before the name comes back in `resolved`. When it comes back in `dropped` (of this or a later admission, or from
    /// `expire_parked`), ask the client for what is missing: its next step 2 carries it again.
    pub parked: Option<ParkId>,
    /// Pieces of earlier updates that are fully in now.
    pub resolved: Vec<ParkId>,
    /// Pieces that were given up, pushed out by the bounds; possibly the one just parked.
    pub dropped: Vec<ParkId>,
}

impl Admission {
    /// Everything that went in, in the order in which it has to be pushed.
    pub fn all_news(&self) -> impl Iterator<Item = &Bytes> {
        self.news
            .iter()
            .chain(self.freed.iter().map(|freed| &freed.news))
    }
}

/// News of a piece that was parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freed {
    /// The name under which it waited.
    pub piece: ParkId,
    /// What went in, as an update.
    pub news: Bytes,
}

/// Why an update is refused although it is well-formed. The document is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdmitError {
    /// The document would pass `DocumentLimits::document_bytes_max`.
    #[error("the document would be larger than {max} bytes")]
    DocumentFull {
        /// The limit, in bytes.
        max: usize,
    },
    /// The document would pass `DocumentLimits::clients_max`.
    #[error("the document would have more than {max} clients")]
    TooManyClients {
        /// The limit.
        max: usize,
    },
    /// A type would lie deeper than `DocumentLimits::nesting_max`.
    #[error("types are nested deeper than {max}")]
    NestedTooDeep {
        /// The limit.
        max: usize,
    },
    /// The bytes are not what was scanned. No scan lets this happen; it is an error and not a panic so that a mistake of
    /// ours refuses one update and not a whole room.
    #[error("the update changed after it was scanned: {0}")]
    Inconsistent(#[from] crate::doc::scan::ScanError),
}
