//! Rooms: one for each open document. A room is bytes and members.
//!
//! [`State`] decides (pure), the actor does, [`Registry`] finds or opens. Members talk to a room through a [`Handle`] and
//! listen through a [`Mailbox`]; a room imports neither sessions nor carriers, so a mesh peer or an HTTP call can be a
//! member as well.
//!
//! Tasks: one per open room, in the node's scope; it ends when the room has been without members for a while and
//! everything is committed, when the document's history is replaced, or when the node stops. One more for each
//! [`compaction`] that runs.

mod actor;
mod backlog;
mod broadcast;
mod collector;
pub mod compaction;
mod config;
mod event;
mod member;
mod outbox;
mod registry;
mod settle;
mod state;

#[cfg(test)]
mod presence_tests;
#[cfg(test)]
mod state_tests;

pub use broadcast::{Broadcast, Delivery, Form};
pub use collector::Workers;
pub use config::Config;
pub use event::{Count, Effect, Event, Join, Kind, Refused, Submitted};
pub use member::{Closing, Mailbox, MemberId, Opened, Out};
pub use outbox::{Config as OutboxConfig, Outbox, Pushed, Taken};
pub use registry::{Closed, Handle, OpenError, Parts, Registry};
pub use state::State;
