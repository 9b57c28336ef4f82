//! The document as bytes: what a client sent is walked, judged and joined without ever being interpreted.
//!
//! In reading order: `scan` is the door; `ledger` judges what of an update is news, with what `park` keeps waiting;
//! `merge`, `snapshot` and `writer` put updates together and cut them; [`Document`] is what a room holds. Integrating
//! updates (yrs) is a hundred times dearer, is not safe on bytes of strangers, and is not needed to relay and store: it
//! happens in the processes of [`worker`] alone. `collect` turns what they find out into a smaller document, and `digest`
//! says in a few bytes whether two documents are the same.

mod admit;
mod collect;
mod content;
mod cuts;
mod delete_index;
mod digest;
mod document;
mod ledger;
mod merge;
mod nesting;
mod park;
mod presence;
mod scan;
mod snapshot;
mod state_vector;
pub mod worker;
mod writer;

#[cfg(test)]
mod oracle_tests;
#[cfg(test)]
#[path = "support_tests.rs"]
mod test_support;

pub use admit::{Admission, AdmitError, Freed};
pub use collect::CollectError;
pub use digest::{ContentSum, Digest, DigestError};
pub use document::{AdoptError, Adopted, Document, DocumentLimits, LoadError, TailUpdate};
pub use merge::{MergeError, merge};
pub use park::ParkId;
pub use presence::{
    Applied, CLIENTS_PER_SESSION_MAX, Changes, ClaimError, Presence, RENEW_AFTER, RENEWAL_CHECK,
    SETTLED_AFTER, Settled, TOMBSTONES_MAX, Trust,
};
pub use scan::{ScanError, ScanLimits, Scanned, scan};
pub use state_vector::{STATE_VECTOR_CLIENTS_MAX, StateVector, StateVectorError};
