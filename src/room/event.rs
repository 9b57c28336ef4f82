//! What can happen to a room, and what a room wants done: the words between [`super::State`] and its shell.

use std::sync::Arc;

use bytes::Bytes;

use super::broadcast::Broadcast;
use super::member::{MemberId, Out};
use crate::auth::Access;
use crate::doc::{Scanned, StateVector, Trust};
use crate::ids::{ClientId, Epoch, Origin};
use crate::protocol::awareness::AwarenessUpdate;
use crate::protocol::close::ErrorCode;
use crate::protocol::position::Position;

/// A member that wants in.
#[derive(Debug)]
pub struct Join {
    /// Its id.
    pub member: MemberId,
    /// Who it is, as log rows and presence name the author.
    pub user: Arc<str>,
    /// What it may do.
    pub access: Access,
    /// The history that it believes this document has, when it holds a copy.
    pub known_epoch: Option<Epoch>,
    /// The Yjs client id that it will edit under, when it says so at once.
    pub client_id: Option<ClientId>,
    /// What it holds, when it says so at once: the answer carries what it lacks.
    pub state_vector: Option<StateVector>,
    /// Up to where it received updates of this document, when it comes back.
    pub position: Option<Position>,
}

/// An update as the session hands it over: scanned, or refused before it reached the room.
pub type Submitted = Result<Scanned, Refused>;

/// Why an update is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The reason.
    pub code: ErrorCode,
    /// The reason, for a person.
    pub text: String,
    /// Whether sending it again can never help.
    pub terminal: bool,
}

/// What an update of a member is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An edit as it was made.
    Live,
    /// Everything that the room lacks, by the state vector that it sent: the end of the handshake, or the answer to a
    /// question.
    Answer,
}

/// Everything that can happen to a room.
#[derive(Debug)]
pub enum Event {
    /// A member wants in.
    Join(Join),
    /// A member sends an edit.
    Update {
        /// Who.
        member: MemberId,
        /// The member's own number of it.
        sequence: u64,
        /// What it is for.
        kind: Kind,
        /// The edit.
        update: Submitted,
    },
    /// A member asks what it lacks.
    Missing {
        /// Who.
        member: MemberId,
        /// What it holds.
        state_vector: StateVector,
    },
    /// A member tells of people's presence.
    Presence {
        /// Who.
        member: MemberId,
        /// The entries.
        update: AwarenessUpdate,
        /// How far the entries are the member's own.
        trust: Trust,
    },
    /// A member asks for everybody's presence.
    QueryPresence(MemberId),
    /// A member sends an application's message to everybody else.
    Message {
        /// Who.
        member: MemberId,
        /// The application's bytes.
        bytes: Bytes,
    },
    /// A member that was behind can read again.
    CatchUp {
        /// Who.
        member: MemberId,
        /// It has every push up to this one.
        has: u64,
    },
    /// A member is gone.
    Leave(MemberId),
    /// Every row of this room up to this sequence is committed.
    Durable(u64),
    /// The store has a new snapshot of this document.
    Compacted {
        /// The snapshot: all that the rows of the log held, and possibly more deletions.
        snapshot: Scanned,
        /// The place of what is in it and is no row, when there is such.
        generation: Option<(Origin, u64)>,
    },
    /// The store holds another history under this name: this one is over.
    Replaced(Epoch),
    /// Time passed.
    Tick,
}

/// Something that the actor has to do.
#[derive(Debug)]
pub enum Effect {
    /// Write this to the journal and hand it to the committer. Comes before every effect that tells of it.
    Log {
        /// The row's sequence.
        sequence: u64,
        /// Who wrote it.
        author: Arc<str>,
        /// The update.
        update: Bytes,
    },
    /// Relay an update.
    Relay {
        /// The update.
        update: Arc<Broadcast>,
        /// Its author, who has it.
        except: Option<MemberId>,
    },
    /// Show presence to everybody.
    Presence(Arc<Broadcast>),
    /// Give an application's message to everybody but its sender.
    Message {
        /// The message.
        message: Arc<Broadcast>,
        /// Its sender.
        except: MemberId,
    },
    /// Tell one member something.
    Reply(MemberId, Out),
    /// Give a member that was behind its one diff.
    CatchUp(MemberId, Arc<Broadcast>),
    /// Forget a member after what was said to it.
    Forget(MemberId),
    /// Count something.
    Count(Count),
}

/// What a room counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// An update with news.
    Admitted,
    /// An update without.
    NoNews,
    /// Part of an update waits for what it depends on.
    Parked,
    /// An update was refused.
    Rejected(ErrorCode),
}

impl Refused {
    /// For a member that may only read.
    pub fn read_only() -> Self {
        Self {
            code: ErrorCode::PermissionDenied,
            text: "you may read this document, not edit it".into(),
            terminal: true,
        }
    }

    /// For the time in which the node cannot keep more edits.
    pub fn not_accepting() -> Self {
        Self {
            code: ErrorCode::Overloaded,
            text: "the server cannot save edits at the moment; keep them, it will ask for them"
                .into(),
            terminal: false,
        }
    }
}
