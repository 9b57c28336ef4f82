//! What sessions share, and what one session is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};

use crate::auth::{Identity, Mode};
use crate::ids::{NodeId, SessionId};
use crate::room::Registry;
use crate::shutdown::Scope;
use crate::telemetry::Metrics;
use crate::units;

/// What the operator may set for sessions.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Time from the connection to HELLO. A client sends it in its first flight.
    #[serde(with = "units::duration")]
    pub hello: Duration,
    /// Time between the server's PINGs.
    #[serde(with = "units::duration")]
    pub heartbeat: Duration,
    /// Time without any message after which the other side is dead. Browsers throttle the timers of hidden tabs,
    /// not their message handlers, so an answered PING is enough to live.
    #[serde(with = "units::duration")]
    pub dead: Duration,
    /// Documents that one session may have open at once.
    pub documents_max: usize,
    /// Sessions of this node. Above it new ones are refused with `overloaded`.
    pub sessions_max: usize,
    /// Bytes of one session's frames that may wait for their rooms. Above it the session stops reading, and QUIC or TCP
    /// pushes back.
    #[serde(with = "units::size")]
    pub inbound_bytes_max: usize,
    /// Time that a session goes on after its client has come back on another: the other opens the documents meanwhile, and
    /// takes the presence over.
    #[serde(with = "units::duration")]
    pub handover: Duration,
    /// Time that a session goes on after GOAWAY when the node stops: time for the last commits to be acknowledged.
    #[serde(with = "units::duration")]
    pub drain: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hello: Duration::from_secs(5),
            heartbeat: Duration::from_secs(10),
            dead: Duration::from_secs(25),
            documents_max: 1_000,
            sessions_max: 100_000,
            inbound_bytes_max: 4 << 20,
            handover: Duration::from_secs(5),
            drain: Duration::from_millis(500),
        }
    }
}

/// What all sessions of a node share.
#[derive(Debug)]
pub struct Context {
    /// The knobs.
    pub config: Config,
    /// The open documents.
    pub registry: Registry,
    /// How sessions prove who they are.
    pub auth: Mode,
    /// This node, as clients see it.
    pub node: NodeId,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where sessions run. Stopped before the rooms' scope, so that the last acknowledgements can go out.
    pub scope: Scope,
    /// How many sessions there are.
    pub n_sessions: AtomicUsize,
    /// The native sessions that there are, for those who come back.
    pub present: Present,
}

/// The native sessions of a node by id.
#[derive(Debug, Default)]
pub struct Present(Mutex<HashMap<SessionId, Arc<Successor>>>);

/// How a session hears that its client has come back on another one.
#[derive(Debug)]
pub(super) struct Successor {
    user: Arc<str>,
    came: Notify,
}

impl Successor {
    /// Resolves when a newer session of the same user has named this one as its previous. Cancel safe.
    pub(super) async fn came(&self) {
        self.came.notified().await;
    }
}

/// Keeps a session in the list for as long as it lives.
#[derive(Debug)]
pub(super) struct Listed {
    context: Arc<Context>,
    id: SessionId,
    pub(super) successor: Arc<Successor>,
}

impl Listed {
    /// Lists a session, and tells the one that it takes the place of.
    pub(super) fn enter(session: &Session, previous: Option<SessionId>) -> Self {
        let user = &session.identity.user;
        let successor = Arc::new(Successor {
            user: user.clone(),
            came: Notify::new(),
        });
        let mut present = session.context.present.lock();
        if let Some(before) = previous.and_then(|id| present.get(&id))
            && before.user == *user
        {
            before.came.notify_one();
        }
        present.insert(session.id, successor.clone());
        Self {
            context: session.context.clone(),
            id: session.id,
            successor,
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.context.present.lock().remove(&self.id);
    }
}

impl Present {
    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Successor>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One client connection that was admitted.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) identity: Identity,
    pub(super) context: Arc<Context>,
    /// Bytes of frames that may wait for rooms.
    pub(super) inbound: Arc<Semaphore>,
}

/// Counts a session for as long as it lives.
#[derive(Debug)]
pub(super) struct Place(Arc<Context>);

impl Place {
    /// A place, unless the node is full.
    pub(super) fn take(context: &Arc<Context>) -> Option<Self> {
        let before = context.n_sessions.fetch_add(1, Ordering::Relaxed);
        let place = Self(context.clone());
        (before < context.config.sessions_max).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.n_sessions.fetch_sub(1, Ordering::Relaxed);
    }
}
