//! An open WebSocket as a link: one task reads, writers take turns.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_util::sync::CancellationToken;

use super::{Framing, Io};
use crate::protocol::frame::{
    Caps, FRAGMENT_BYTES_MAX, FrameError, Reassembler, encode_websocket, split_channel,
};
use crate::shutdown::Scope;
use crate::transport::inbox::{Feed, Gone, inbox};
use crate::transport::{
    CLOSE_WAIT, CONTROL_CHANNEL, CloseReason, End, Receiver, RecvError, WRITE_STALL, WriteError,
};

/// The channel of all frames of a [`Framing::Single`] socket.
const SINGLE_CHANNEL: u32 = 1;

/// What all unfinished messages of one socket may hold together: one initial sync and a half.
const PENDING_BYTES_MAX: usize = Caps::TO_SERVER.sync / 2 * 3;

/// What one writer sends before it lets the next have its turn.
const TURN_BYTES: usize = FRAGMENT_BYTES_MAX;

/// The longest reason in a close frame (a control frame holds 125 bytes, two of them the code).
const REASON_BYTES_MAX: usize = 123;

type Sink = SplitSink<WebSocketStream<Io>, Message>;

/// The write half; `None` when the link is closed or the peer got stuck.
#[expect(
    clippy::disallowed_types,
    reason = "writers of one socket take turns by nature; each holds it for one bounded flush, and the lock is fair"
)]
type SharedSink = tokio::sync::Mutex<Option<Sink>>;

struct Shared {
    sink: SharedSink,
    framing: Framing,
    end: End,
    /// Set when the session lets documents in.
    is_admitted: CancellationToken,
    /// Set when the session dropped its receiver or closed the link.
    is_over: CancellationToken,
    /// Set by `close`: the reader only waits for the peer's close frame.
    is_closing: CancellationToken,
    /// Ends the queue: the session takes what is in it, the reader finds it closed.
    queue_ended: CancellationToken,
    /// Set when the reader has ended.
    is_read: CancellationToken,
}

/// The sending half.
#[derive(Clone)]
pub(in crate::transport) struct LinkSender {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for LinkSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("websocket::LinkSender")
            .field("framing", &self.shared.framing)
            .finish_non_exhaustive()
    }
}

/// Starts the reading task in `scope`.
pub(super) fn start(
    socket: WebSocketStream<Io>,
    framing: Framing,
    end: End,
    scope: &Scope,
) -> (Receiver, LinkSender) {
    let is_over = CancellationToken::new();
    let (feed, inbox) = inbox(is_over.clone());
    let (sink, stream) = socket.split();
    let shared = Arc::new(Shared {
        sink: SharedSink::new(Some(sink)),
        framing,
        end,
        is_admitted: CancellationToken::new(),
        is_over,
        is_closing: CancellationToken::new(),
        queue_ended: feed.ended_token(),
        is_read: CancellationToken::new(),
    });
    if end == End::Client || framing == Framing::Single {
        shared.is_admitted.cancel();
    }
    let reader = Reader {
        shared: shared.clone(),
        feed,
        stream,
        reassembler: Reassembler::new(end.caps(SINGLE_CHANNEL), PENDING_BYTES_MAX),
        scope: scope.clone(),
    };
    scope.spawn(reader.run());
    (Receiver::new(inbox), LinkSender { shared })
}

struct Reader {
    shared: Arc<Shared>,
    feed: Feed,
    stream: SplitStream<WebSocketStream<Io>>,
    reassembler: Reassembler,
    scope: Scope,
}

impl Reader {
    async fn run(mut self) {
        // Dropped last, so that `close` waits for the reader in every case.
        let _is_read = self.shared.is_read.clone().drop_guard();
        loop {
            let message = tokio::select! {
                biased;
                () = self.shared.is_over.cancelled() => return,
                () = self.shared.is_closing.cancelled() => break,
                () = self.scope.stopping() => return,
                message = self.stream.next() => message,
            };
            let taken = match message {
                Some(Ok(Message::Binary(bytes))) => self.take(bytes).await,
                Some(Ok(Message::Text(_))) => self.feed.violation(RecvError::Text).await,
                // Pings were answered. After a close frame the next read sends our answer and gives `None`.
                Some(Ok(
                    Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_),
                )) => Ok(()),
                Some(Err(error)) => {
                    if let Some(violation) = violation_of(&error) {
                        // When the session has gone, nobody needs to know.
                        let _ = self.feed.violation(violation).await;
                        self.linger().await;
                    }
                    return;
                }
                None => return,
            };
            if let Err(Gone) = taken {
                // Closing, or the session dropped its receiver.
                break;
            }
        }
        self.drain().await;
    }

    /// Takes one binary message.
    async fn take(&mut self, bytes: Bytes) -> Result<(), Gone> {
        if self.shared.framing == Framing::Single {
            return self.feed.frame(SINGLE_CHANNEL, bytes).await;
        }
        let (channel, message) = match split_channel(&bytes) {
            Ok(split) => split,
            Err(error) => return self.refuse(CONTROL_CHANNEL, error).await,
        };
        if channel != CONTROL_CHANNEL {
            tokio::select! {
                () = self.shared.is_admitted.cancelled() => {}
                () = self.shared.is_over.cancelled() => return Err(Gone),
                () = self.shared.is_closing.cancelled() => return Err(Gone),
                () = self.scope.stopping() => return Err(Gone),
            }
        }
        // What fragments add up to is judged by the reassembler; on the control channel there are none.
        let pushed = match self.shared.end.caps(channel).check(&message) {
            Ok(_) => self.reassembler.push(channel, message),
            Err(error) => Err(error),
        };
        match pushed {
            Ok(Some(message)) => self.feed.frame(channel, message).await,
            Ok(None) => Ok(()),
            Err(error) => self.refuse(channel, error).await,
        }
    }

    async fn refuse(&self, channel: u32, error: FrameError) -> Result<(), Gone> {
        self.feed
            .violation(RecvError::Frame { channel, error })
            .await
    }

    /// After a violation `tungstenite` reads no more. The socket stays open until the session has closed the link and the
    /// peer has had time to read why: closing it with unread bytes would reset the connection, and the peer's system may
    /// then throw away what it has not read.
    async fn linger(&self) {
        tokio::select! {
            () = self.shared.is_over.cancelled() => {}
            () = self.scope.stopping() => {}
        }
    }

    /// Reads and forgets until the peer's close frame has come, so that ours arrives before the connection is reset.
    async fn drain(&mut self) {
        loop {
            tokio::select! {
                biased;
                () = self.shared.is_over.cancelled() => return,
                () = self.scope.stopping() => return,
                message = self.stream.next() => match message {
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return,
                },
            }
        }
    }
}

/// What the peer did wrong; `None` when the connection just ended.
fn violation_of(error: &Error) -> Option<RecvError> {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            Some(RecvError::Frame {
                channel: CONTROL_CHANNEL,
                error: FrameError::TooLarge {
                    length: *size as u64,
                    cap: *max_size,
                },
            })
        }
        Error::Protocol(
            tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => None,
        Error::Protocol(error) => Some(RecvError::WebSocket {
            detail: error.to_string(),
        }),
        Error::Utf8(_) => Some(RecvError::Text),
        _ => None,
    }
}

impl LinkSender {
    pub(in crate::transport) fn open_gate(&self) {
        self.shared.is_admitted.cancel();
    }

    /// Writes in turns: within one, everything is gathered and flushed once.
    pub(in crate::transport) async fn write(
        &self,
        channel: u32,
        frames: &[Bytes],
    ) -> Result<(), WriteError> {
        let messages = frames
            .iter()
            .cloned()
            .flat_map(|frame| self.encode(channel, frame))
            .map(Message::Binary);
        let mut messages = messages.peekable();
        while messages.peek().is_some() {
            let mut sink = self.shared.sink.lock().await;
            let Some(open) = sink.as_mut() else {
                return Err(WriteError::Closed);
            };
            let turn = async {
                let mut n_bytes = 0;
                while n_bytes < TURN_BYTES
                    && let Some(message) = messages.next()
                {
                    n_bytes += message.len();
                    open.feed(message).await?;
                }
                open.flush().await
            };
            match timeout(WRITE_STALL, turn).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => {
                    *sink = None;
                    return Err(WriteError::Closed);
                }
                Err(_) => {
                    // The others would only wait as long, one after the other.
                    *sink = None;
                    return Err(WriteError::Stalled { after: WRITE_STALL });
                }
            }
        }
        Ok(())
    }

    /// The WebSocket messages of one frame.
    fn encode(&self, channel: u32, frame: Bytes) -> impl Iterator<Item = Bytes> + use<> {
        let (single, multiplexed) = match self.shared.framing {
            Framing::Single => (Some(frame), None),
            Framing::Multiplexed => (None, Some(encode_websocket(channel, &frame))),
        };
        single.into_iter().chain(multiplexed.into_iter().flatten())
    }

    /// Sends the close frame and waits for the peer's.
    pub(in crate::transport) async fn close(&self, reason: &CloseReason) {
        let frame = CloseFrame {
            code: reason.code.ws_close_code().into(),
            reason: cut(&reason.text, REASON_BYTES_MAX).into(),
        };
        let closing = async {
            {
                let mut sink = self.shared.sink.lock().await;
                let Some(open) = sink.as_mut() else { return };
                // It fails when the connection is gone, and then the reader has ended too.
                let _ = open.send(Message::Close(Some(frame))).await;
            }
            // Also wakes a reader that waits for room in the queue.
            self.shared.queue_ended.cancel();
            self.shared.is_closing.cancel();
            self.shared.is_read.cancelled().await;
        };
        let _ = timeout(CLOSE_WAIT, closing).await;
        self.shared.is_over.cancel();
        // A writer that is stuck holds the lock; it drops the socket when it fails.
        if let Ok(mut sink) = self.shared.sink.try_lock() {
            *sink = None;
        }
    }
}

/// The longest beginning of a text that has at most `bytes_max` bytes.
fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_cut_between_characters() {
        assert_eq!(cut("bye", 123), "bye");
        let text = "é".repeat(100);
        assert_eq!(cut(&text, REASON_BYTES_MAX).len(), 122);
    }
}
