//! Sessions: one for each client connection, whatever the carrier and the dialect.
//!
//! [`accept`] is the one door: caps, identity and rights are decided behind it and nowhere else. A dialect
//! (`dialect/native`, `dialect/yjs`) owns the words of its clients; [`Channel`](channel::Channel) owns what they mean;
//! `outbound` writes.
//!
//! Tasks: one for each session, and for the native dialect one for each open document, all in the context's scope; they
//! end when the client goes, breaks the protocol or stays silent, or when the node stops.

mod channel;
mod context;
mod dialect;
mod outbound;

use std::sync::Arc;

use tokio::sync::Semaphore;
use tracing::{Instrument, debug, info_span};

pub use context::{Config, Context, Present};

use crate::auth::Identity;
use crate::ids::SessionId;
use crate::protocol::close::ErrorCode;
use crate::transport::{CloseReason, Link};
use context::{Place, Session};

/// Which door the client came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Door {
    /// The native protocol.
    Native,
    /// A stock y-websocket client, which names its one document by the path.
    Yjs {
        /// The document's name, decoded.
        document: String,
    },
}

impl Door {
    /// The dialect's name in logs and metrics.
    pub const fn dialect(&self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Yjs { .. } => "yjs",
        }
    }
}

/// Admits a client connection and serves it to its end. `Host` and `Origin` were checked by the carrier's face.
pub async fn accept(context: Arc<Context>, link: Link, door: Door) {
    let carrier = link.peer.carrier.name();
    let Some(_place) = Place::take(&context) else {
        context.metrics.handshakes_refused.inc(["full"]);
        link.sender
            .close(CloseReason::new(
                ErrorCode::Overloaded,
                "this server has as many connections as it takes",
            ))
            .await;
        return;
    };
    let labels = [carrier, door.dialect()];
    context.metrics.sessions_opened.inc(labels);
    let _open = context.metrics.sessions.with(labels).hold();
    let session = Arc::new(Session {
        id: SessionId::random(),
        // Development mode is all there is: nobody proves anything, so everybody is the same nobody.
        identity: Identity::anonymous(),
        inbound: Arc::new(Semaphore::new(context.config.inbound_bytes_max)),
        context,
    });
    let span = info_span!("session", id = %session.id, carrier, dialect = door.dialect());
    async {
        debug!(peer = %link.peer.address, "session begins");
        match door {
            Door::Native => dialect::native::run(session, link).await,
            Door::Yjs { document } => dialect::yjs::run(session, link, &document).await,
        }
        debug!("session ends");
    }
    .instrument(span)
    .await;
}
