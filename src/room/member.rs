//! Who is in a room, and what a room says to them.
//!
//! A room knows only members: a browser's session today, a mesh peer or an HTTP call tomorrow. It imports none of them.
//! Members speak to the room through [`super::Handle`]; the room speaks to a member through its [`Mailbox`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::broadcast::Broadcast;
use super::outbox::{Config, Outbox, Pushed, Taken};
use crate::auth::Access;
use crate::ids::Epoch;
use crate::protocol::close::ErrorCode;
use crate::protocol::position::Position;

/// One member of a room, for as long as it is joined. Unique within the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

/// Something a room says to one member. Each dialect has its own words for it.
#[derive(Debug, Clone)]
pub enum Out {
    /// The member is in; the answer to a join.
    Opened(Box<Opened>),
    /// What the member lacks, by the state vector that it sent (never the answer to a join).
    Missing(Bytes),
    /// Somebody else's edit, or the one diff for a member that was behind.
    Update(Arc<Broadcast>),
    /// People's presence.
    Presence(Arc<Broadcast>),
    /// An application's message.
    Message(Arc<Broadcast>),
    /// Every update of this member up to this sequence is in the journal and relayed.
    Seen(u64),
    /// Every update of this member up to this sequence is committed (or was refused).
    Durable(u64),
    /// The room lacks something that this member has: please send what is missing from this state vector.
    SyncRequest(Bytes),
    /// An update of this member was refused.
    Rejected {
        /// The member's own number of the update.
        sequence: u64,
        /// Why.
        code: ErrorCode,
        /// Why, for a person.
        text: String,
        /// Whether sending it again can never help.
        terminal: bool,
    },
    /// What the member may do now.
    Access(Access),
    /// The membership ends.
    Closed(Closing),
}

/// The answer to a join.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The identity of the document's history.
    pub epoch: Epoch,
    /// What the room holds, as a position.
    pub position: Position,
    /// What the member may do.
    pub access: Access,
    /// What the room holds, as an encoded Yjs state vector.
    pub state_vector: Bytes,
    /// What the member lacks; empty when it lacks nothing or did not ask.
    pub missing: Bytes,
    /// Everybody's presence as an awareness update; empty when nobody shows any.
    pub presence: Bytes,
}

/// Why a membership ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// The reason.
    pub code: ErrorCode,
    /// The reason, for a person.
    pub text: String,
    /// The history that took the place of this one, when that is the reason.
    pub replaced_by: Option<Epoch>,
}

impl Closing {
    /// A reason without more to say.
    pub fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
            replaced_by: None,
        }
    }

    /// For a member that provokes answers faster than it reads them.
    pub fn overloaded_reader() -> Self {
        Self::new(
            ErrorCode::Overloaded,
            "this connection asks for more than it reads; it is closed to protect the others",
        )
    }
}

/// Where a room puts what it has to say to one member. Putting never waits; the rules for "full" are those of
/// [`Outbox`].
#[derive(Debug)]
pub struct Mailbox {
    outbox: Mutex<Outbox>,
    ready: Notify,
}

impl Mailbox {
    /// An empty mailbox.
    pub fn new(config: Config) -> Self {
        Self {
            outbox: Mutex::new(Outbox::new(config)),
            ready: Notify::new(),
        }
    }

    /// Puts something in and wakes the writer.
    pub fn put(&self, put: impl FnOnce(&mut Outbox) -> Pushed) -> Pushed {
        let pushed = put(&mut self.lock());
        self.ready.notify_one();
        pushed
    }

    /// An answer to this member.
    pub fn reply(&self, out: Out) -> Pushed {
        self.put(|outbox| outbox.push_reply(out))
    }

    /// Ends the writer without a last word.
    pub fn close(&self) {
        self.lock().close();
        self.ready.notify_one();
    }

    /// Waits until there is something to write and moves it into `batch`. `None` when the mailbox was closed. For one
    /// reader; cancel safe (nothing is taken before it resolves).
    pub async fn take(&self, batch: &mut Vec<Out>) -> Option<Taken> {
        loop {
            {
                let mut outbox = self.lock();
                if outbox.is_ready() {
                    return Some(outbox.take(batch));
                }
                if outbox.is_closed() {
                    return None;
                }
            }
            self.ready.notified().await;
        }
    }

    /// The room's code inside the lock neither panics nor leaves half a change behind; a poisoned lock is usable.
    fn lock(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
