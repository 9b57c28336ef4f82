//! One document on one session: the membership in a room, seen from the client's side.
//!
//! Every dialect opens documents here, so every dialect has the same scan, the same limits and the same rights. The
//! dialect owns the words; this owns what they mean.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use tracing::debug;

use super::context::Session;
use crate::auth::Access;
use crate::doc::{ScanLimits, StateVector, Trust, scan};
use crate::ids::{ClientId, DocumentKey, DocumentName, Epoch};
use crate::protocol::awareness::AwarenessUpdate;
use crate::protocol::close::ErrorCode;
use crate::protocol::position::Position;
use crate::room::{Closing, Event, Handle, Join, Kind, Mailbox, MemberId, OpenError, Out, Refused};

/// Refused updates after which a channel is closed: an honest client freezes at the first terminal refusal.
const REFUSALS_MAX: u32 = 16;

/// What a client asks for when it opens a document.
#[derive(Debug, Default)]
pub(super) struct Request {
    /// The history that its copy belongs to.
    pub(super) known_epoch: Option<Epoch>,
    /// The Yjs client id that it edits under.
    pub(super) client_id: Option<ClientId>,
    /// What it holds.
    pub(super) state_vector: Option<StateVector>,
    /// Up to where it received updates.
    pub(super) position: Option<Position>,
    /// Whether it asks for reading only.
    pub(super) read_only: bool,
}

/// A member of a room.
#[derive(Debug)]
pub(super) struct Channel {
    room: Handle,
    member: MemberId,
    mailbox: Arc<Mailbox>,
    session: Arc<Session>,
    n_refused: AtomicU32,
}

/// The room ended; the last word is in the mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended;

impl Channel {
    /// Opens a document. The answer of the room comes through the mailbox; an error is to be told by the dialect.
    pub(super) async fn open(
        session: Arc<Session>,
        document: &str,
        request: Request,
    ) -> Result<Self, Closing> {
        let name = DocumentName::new(document)
            .map_err(|error| Closing::new(ErrorCode::InvalidMessage, error.to_string()))?;
        let key = DocumentKey {
            org: session.identity.org.clone(),
            name,
        };
        let registry = &session.context.registry;
        let granted = session.context.auth.access(&session.identity);
        let access = if request.read_only {
            Access::Read
        } else {
            granted
        };
        let room = registry.open(&key).await.map_err(|error| {
            debug!(document = %key, %error, "open a document");
            refusal(&error)
        })?;
        let channel = Self {
            member: registry.next_member(),
            mailbox: registry.mailbox(),
            room,
            session,
            n_refused: AtomicU32::new(0),
        };
        let join = Join {
            member: channel.member,
            user: channel.session.identity.user.clone(),
            access,
            known_epoch: request.known_epoch,
            client_id: request.client_id,
            state_vector: request.state_vector,
            position: request.position,
        };
        // A room that is gone told the mailbox, or never saw it.
        if channel
            .room
            .join(join, channel.mailbox.clone())
            .await
            .is_err()
        {
            return Err(Closing::new(
                ErrorCode::Overloaded,
                "the document is being opened again; try once more",
            ));
        }
        Ok(channel)
    }

    /// What the room says to this member.
    pub(super) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// An edit. It is scanned here, outside the room, so that a large one delays nobody else's.
    pub(super) async fn update(
        &self,
        sequence: u64,
        kind: Kind,
        bytes: &Bytes,
    ) -> Result<(), Ended> {
        let limits = match kind {
            Kind::Live => ScanLimits::default(),
            Kind::Answer => ScanLimits::initial_sync(),
        };
        let update = scan(bytes, &limits).map_err(|error| Refused {
            code: if error.is_limit() {
                ErrorCode::TooLarge
            } else {
                ErrorCode::InvalidUpdate
            },
            text: error.to_string(),
            terminal: true,
        });
        if update.is_err() && self.n_refused.fetch_add(1, Ordering::Relaxed) >= REFUSALS_MAX {
            self.close(Closing::new(
                ErrorCode::InvalidUpdate,
                "too many updates of this connection were refused",
            ));
        }
        self.tell(Event::Update {
            member: self.member,
            sequence,
            kind,
            update,
        })
        .await
    }

    /// The client asks what it lacks.
    pub(super) async fn missing(&self, state_vector: StateVector) -> Result<(), Ended> {
        self.tell(Event::Missing {
            member: self.member,
            state_vector,
        })
        .await
    }

    /// People's presence.
    pub(super) async fn presence(
        &self,
        update: AwarenessUpdate,
        trust: Trust,
    ) -> Result<(), Ended> {
        self.session.context.metrics.presence_in.inc();
        self.tell(Event::Presence {
            member: self.member,
            update,
            trust,
        })
        .await
    }

    /// The client asks for everybody's presence.
    pub(super) async fn query_presence(&self) -> Result<(), Ended> {
        self.tell(Event::QueryPresence(self.member)).await
    }

    /// An application's message to everybody else.
    pub(super) async fn message(&self, bytes: Bytes) -> Result<(), Ended> {
        self.tell(Event::Message {
            member: self.member,
            bytes,
        })
        .await
    }

    /// The writer can write again after the member fell behind.
    pub(super) async fn catch_up(&self, has: u64) -> Result<(), Ended> {
        self.tell(Event::CatchUp {
            member: self.member,
            has,
        })
        .await
    }

    /// Ends the channel from this side, with a last word to the client after what already waits for it.
    pub(super) fn close(&self, closing: Closing) {
        self.mailbox.reply(Out::Closed(closing));
    }

    /// Leaves the room. What was handed to it before stays.
    pub(super) async fn leave(self) {
        // An error means that the room is gone, and we with it.
        let _ = self.tell(Event::Leave(self.member)).await;
    }

    async fn tell(&self, event: Event) -> Result<(), Ended> {
        self.room.tell(event).await.map_err(|_| Ended)
    }
}

/// However the session's task ends: the room finds a closed mailbox and forgets the member.
impl Drop for Channel {
    fn drop(&mut self) {
        self.mailbox.close();
    }
}

/// What a client may read about a document that cannot be opened.
fn refusal(error: &OpenError) -> Closing {
    match error {
        OpenError::Deleted => Closing::new(ErrorCode::NotFound, "this document was deleted"),
        OpenError::Quarantined => Closing::new(
            ErrorCode::NotFound,
            "this document is closed while its operators look into it",
        ),
        OpenError::Store(_) => Closing::new(
            ErrorCode::Overloaded,
            "the document cannot be loaded at the moment; try again",
        ),
        OpenError::Document(_) => Closing::new(
            ErrorCode::Internal,
            "the stored document cannot be read; its operators have to look into it",
        ),
        OpenError::Stopping => Closing::new(ErrorCode::ShuttingDown, "the server is stopping"),
    }
}
