//! The names of things: newtypes, so that a session id is never handed over where a document epoch is meant.
//!
//! Identifiers that must be unguessable or unique (`SessionId`, `Epoch`, `Origin`, `NodeId`) are random bytes from the
//! operating system; the others are validated text. No type here knows how it is stored or sent.

use std::fmt;
use std::sync::Arc;

use ring::rand::{SecureRandom, SystemRandom};

/// A Yjs client id: chosen at random by each Yjs document instance, below 2^53.
pub type ClientId = u64;

/// The largest client id: JavaScript counts exactly up to here (Yjs 14 draws 53-bit ids, Yjs 13 32-bit ones).
pub const CLIENT_ID_MAX: ClientId = (1 << 53) - 1;

/// The longest document name, in bytes of UTF-8. Long enough for a path of a few parts, short enough for a database key.
pub const DOCUMENT_NAME_BYTES_MAX: usize = 512;

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $n:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $n]);

        impl $name {
            /// The length in bytes.
            pub const LEN: usize = $n;

            /// A fresh one, from the operating system's randomness.
            pub fn random() -> Self {
                let mut bytes = [0; $n];
                SystemRandom::new()
                    .fill(&mut bytes)
                    .expect("the operating system provides randomness");
                Self(bytes)
            }

            /// From its bytes, as stored or received.
            pub const fn from_bytes(bytes: [u8; $n]) -> Self {
                Self(bytes)
            }

            /// From a slice; `None` when the length is not `LEN`.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; $n] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

random_id!(
    /// One client connection: a browser tab, a server-side agent.
    SessionId,
    16
);
random_id!(
    /// The identity of a document's history. A document that is wiped and made again gets a new one, so that a client
    /// that holds the old history is told instead of merged (which would double the content).
    Epoch,
    16
);
random_id!(
    /// One incarnation of one node: drawn afresh at every start. Log rows are keyed by `(origin, sequence)`, so that a
    /// sequence that a crash lost is never given out again under the same key.
    Origin,
    8
);
random_id!(
    /// One node, for as long as its data directory lives.
    NodeId,
    8
);

/// The organisation (tenant) that a session belongs to. It comes from the session, never from the wire.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrgId(Arc<str>);

impl OrgId {
    /// The organisation of a server without authentication.
    pub fn default_org() -> Self {
        Self("default".into())
    }

    /// From its stored text.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for OrgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// A document's name within its organisation: UTF-8, 1 to [`DOCUMENT_NAME_BYTES_MAX`] bytes, no control characters. It
/// may contain `/` and any script.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentName(Arc<str>);

/// Why a text cannot be a document's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DocumentNameError {
    /// The name is the empty string.
    #[error("the document name is empty")]
    Empty,
    /// The name is longer than [`DOCUMENT_NAME_BYTES_MAX`].
    #[error("the document name is longer than {DOCUMENT_NAME_BYTES_MAX} bytes")]
    TooLong,
    /// The name contains a control character, which would not survive logs, URLs and every database.
    #[error("the document name contains a control character")]
    Control,
}

impl DocumentName {
    /// Checks and takes a name.
    pub fn new(text: &str) -> Result<Self, DocumentNameError> {
        if text.is_empty() {
            return Err(DocumentNameError::Empty);
        }
        if text.len() > DOCUMENT_NAME_BYTES_MAX {
            return Err(DocumentNameError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(DocumentNameError::Control);
        }
        Ok(Self(text.into()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for DocumentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// What names a document everywhere inside the server. Organisation first: no lookup joins two organisations.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DocumentKey {
    /// The tenant.
    pub org: OrgId,
    /// The document within it.
    pub name: DocumentName,
}

impl fmt::Display for DocumentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.org.as_str(), self.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(DocumentName::new(""), Err(DocumentNameError::Empty));
        assert_eq!(DocumentName::new("a\0b"), Err(DocumentNameError::Control));
        assert_eq!(
            DocumentName::new(&"x".repeat(513)),
            Err(DocumentNameError::TooLong)
        );
        assert_eq!(
            DocumentName::new("notes/日本 %20").unwrap().as_str(),
            "notes/日本 %20"
        );
    }

    #[test]
    fn random_ids_differ_and_print_as_hex() {
        assert_ne!(Origin::random(), Origin::random());
        assert_eq!(
            Origin::from_bytes([0, 1, 2, 3, 4, 5, 6, 255]).to_string(),
            "00010203040506ff"
        );
    }
}
