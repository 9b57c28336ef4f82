//! A link within the process: two ends joined by bounded queues, for tests of what lies above.
//!
//! It behaves like the strict carriers: frames arrive in order, a reader that stops makes the writer wait, a message from
//! the client that is too large is a violation at the server, datagrams may be dropped when the queue is full. All channels
//! of one direction share one queue, as over a WebSocket.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::inbox::{Feed, Gone, inbox};
use super::{
    CHANNEL_BYTES_MAX, Carrier, DatagramError, End, Link, Peer, Receiver, RecvError, Sender,
    SenderKind, WRITE_STALL, WriteError,
};
use crate::protocol::frame::DATAGRAM_BYTES_MAX;

/// One direction of the pair, with its way back for closing.
#[derive(Debug, Clone)]
pub(super) struct LinkSender {
    /// The end that receives: its limits are checked.
    to: End,
    to_peer: Feed,
    /// What the peer writes to us: ended together when we close.
    from_peer: Feed,
    cut: CancellationToken,
    stall: Duration,
}

/// Cuts a pair in two, as a network does: both ends see the session over at once, and what was on its way is lost.
#[derive(Debug, Clone)]
pub struct Cut {
    cut: CancellationToken,
    feeds: [Feed; 2],
    inboxes: [CancellationToken; 2],
}

impl Cut {
    /// Cuts the link. Later writes fail with [`WriteError::Closed`].
    pub fn cut(&self) {
        self.cut.cancel();
        self.inboxes.iter().for_each(CancellationToken::cancel);
        self.feeds.iter().for_each(Feed::end);
    }
}

/// Two joined ends: the server's and the client's.
pub fn pair() -> (Link, Link) {
    let (server, client, _) = pair_with_cut();
    (server, client)
}

/// Two joined ends (the server's, the client's) and the knife.
pub fn pair_with_cut() -> (Link, Link, Cut) {
    let (to_server, server_inbox) = inbox(CancellationToken::new());
    let (to_client, client_inbox) = inbox(CancellationToken::new());
    let cut = CancellationToken::new();
    let knife = Cut {
        cut: cut.clone(),
        feeds: [to_server.clone(), to_client.clone()],
        inboxes: [server_inbox.cut_token(), client_inbox.cut_token()],
    };
    let peer = Peer {
        carrier: Carrier::Memory,
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        origin: None,
        host: None,
        path: "/".to_owned(),
        query: None,
    };
    let sender = |to, to_peer: &Feed, from_peer: &Feed| Sender {
        kind: SenderKind::Memory(LinkSender {
            to,
            to_peer: to_peer.clone(),
            from_peer: from_peer.clone(),
            cut: cut.clone(),
            stall: WRITE_STALL,
        }),
    };
    let server = Link {
        receiver: Receiver::new(server_inbox),
        sender: sender(End::Client, &to_client, &to_server),
        peer: peer.clone(),
    };
    let client = Link {
        receiver: Receiver::new(client_inbox),
        sender: sender(End::Server, &to_server, &to_client),
        peer,
    };
    (server, client, knife)
}

impl LinkSender {
    pub(super) async fn write(&self, channel: u32, frames: &[Bytes]) -> Result<(), WriteError> {
        for bytes in frames {
            let pushed = match self.to.caps(channel).check(bytes) {
                Ok(_) => timeout(self.stall, self.to_peer.frame(channel, bytes.clone())).await,
                Err(error) => {
                    let violation = RecvError::Frame { channel, error };
                    timeout(self.stall, self.to_peer.violation(violation)).await
                }
            };
            match pushed {
                Ok(Ok(())) => {}
                Ok(Err(Gone)) => return Err(WriteError::Closed),
                Err(_) => return Err(WriteError::Stalled { after: self.stall }),
            }
        }
        Ok(())
    }

    pub(super) async fn finish(&self, channel: u32) {
        // A reader that is stuck or gone needs no word of the end.
        let _ = timeout(self.stall, self.to_peer.channel_ended(channel)).await;
    }

    pub(super) fn datagram(&self, channel: u32, bytes: &[u8]) -> Result<(), DatagramError> {
        if bytes.len() > DATAGRAM_BYTES_MAX - CHANNEL_BYTES_MAX {
            return Err(DatagramError::TooLarge);
        }
        if self.cut.is_cancelled() || self.to_peer.is_ended() {
            return Err(DatagramError::Closed);
        }
        if self
            .to_peer
            .datagram(channel, Bytes::copy_from_slice(bytes))
        {
            Ok(())
        } else {
            Err(DatagramError::Full)
        }
    }

    pub(super) fn close(&self) {
        self.to_peer.end();
        self.from_peer.end();
    }
}
