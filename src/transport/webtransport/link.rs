//! One WebTransport session as a link: a reader task for each stream, feeding the session's one queue.
//!
//! Streams and what may go wrong with them:
//! - A stream names its channel in a preamble. Until it does, it costs a stream of the client's allowance and a task; after
//!   a deadline it ends the session.
//! - `wtransport` hands streams out one at a time and holds each until the client's WebTransport header on it has
//!   arrived. A lost packet, or a client that opens a stream and stays silent, would then keep every later stream waiting.
//!   So this link also takes streams straight from the QUIC connection and reads that header itself: `wtransport` has at
//!   most one stream in its hands, and all others pass it by.
//! - Large messages: a stream that has a message of more than [`PARTIAL_BYTES_MAX`] in pieces needs the link's one permit
//!   to go on, so that a client with many streams holds one large message in our memory, not one on each stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use wtransport::Connection;

use super::N_STREAMS_RESERVED;
use super::halves::{NotOurs, REQUEST_REJECTED, RecvHalf, SendHalf, SessionHeader};
use super::streams::{Streams, Taken};
use crate::protocol::frame::{
    DATAGRAM_BYTES_MAX, Decoder, FrameError, Preamble, channel_prefix, split_channel,
};
use crate::shutdown::Scope;
use crate::transport::inbox::{Feed, Gone, WeakFeed, inbox};
use crate::transport::{
    CHANNEL_BYTES_MAX, CLOSE_WAIT, CONTROL_CHANNEL, DatagramError, End, Receiver, RecvError,
    WriteError,
};

/// What one stream may hold of an unfinished message before it needs the link's permit for large ones.
const PARTIAL_BYTES_MAX: usize = 256 * 1024;

/// The most bytes taken from a stream at once.
const READ_BYTES_MAX: usize = 64 * 1024;

/// What WebTransport puts before a datagram: the session's number, one byte for all sessions that we accept.
const HEADER_BYTES_MAX: usize = 8;

/// How long a stream may be silent within a message.
const FRAME_STALL: Duration = Duration::from_secs(30);

/// How a link is to behave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    /// Which end we are.
    pub(super) end: End,
    /// How long a new stream has to name its channel.
    pub(super) first_frame_wait: Duration,
    /// Streams that the peer may have open at first.
    pub(super) n_streams: u32,
}

/// What the tasks and handles of one link share.
struct Shared {
    connection: Connection,
    streams: Streams,
    options: Options,
    scope: Scope,
    /// For readers of streams that we open. Weak, so that the queue ends with the last reader.
    feed: WeakFeed,
    /// Set when the session lets documents in.
    is_admitted: CancellationToken,
    /// Set when the control stream is there.
    has_control: CancellationToken,
    /// Set when the session dropped its receiver or closed the link.
    is_over: CancellationToken,
    /// Set when the connection has ended; what had arrived is still read.
    is_lost: CancellationToken,
    large: Arc<Semaphore>,
    n_streams: AtomicU32,
}

/// The sending half.
#[derive(Clone)]
pub(in crate::transport) struct LinkSender {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for LinkSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("webtransport::LinkSender")
            .field("connection", &self.shared.connection.stable_id())
            .finish_non_exhaustive()
    }
}

/// Starts the tasks of a link in `scope`.
pub(super) fn start(
    connection: Connection,
    options: Options,
    scope: &Scope,
) -> (Receiver, LinkSender) {
    let is_over = CancellationToken::new();
    let (feed, inbox) = inbox(is_over.clone());
    let shared = Arc::new(Shared {
        connection,
        streams: Streams::default(),
        options,
        scope: scope.clone(),
        feed: feed.downgrade(),
        is_admitted: CancellationToken::new(),
        has_control: CancellationToken::new(),
        is_over,
        is_lost: CancellationToken::new(),
        large: Arc::new(Semaphore::new(1)),
        n_streams: AtomicU32::new(options.n_streams),
    });
    if options.end == End::Client {
        shared.is_admitted.cancel();
    }
    scope.spawn(accept(shared.clone(), feed));
    (Receiver::new(inbox), LinkSender { shared })
}

/// Accepts streams and datagrams without pause until the connection or the session ends.
async fn accept(shared: Arc<Shared>, feed: Feed) {
    let quic = shared.connection.quic_connection().clone();
    loop {
        let (send, recv) = tokio::select! {
            biased;
            () = shared.is_over.cancelled() => break,
            () = shared.scope.stopping() => break,
            stream = shared.connection.accept_bi() => match stream {
                Ok((send, recv)) => (SendHalf::Session(send), RecvHalf::Session(recv)),
                Err(_) => break,
            },
            stream = quic.accept_bi() => match stream {
                Ok((send, recv)) => (SendHalf::Quic(send), RecvHalf::Quic(recv)),
                Err(_) => break,
            },
            datagram = shared.connection.receive_datagram() => match datagram {
                Ok(datagram) => {
                    shared.take_datagram(&feed, &datagram.payload());
                    continue;
                }
                Err(_) => break,
            },
        };
        let reader = Reader {
            shared: shared.clone(),
            feed: feed.clone(),
            recv,
            input: Bytes::new(),
        };
        shared.scope.spawn(reader.run_incoming(send));
    }
    shared.is_lost.cancel();
    // Already closed when the peer did it. Otherwise the session let the link go, or the server stops.
    shared
        .connection
        .close(wtransport::VarInt::from_u32(0), b"");
}

impl Shared {
    fn take_datagram(&self, feed: &Feed, payload: &Bytes) {
        if !self.is_admitted.is_cancelled() {
            return;
        }
        match split_channel(payload) {
            Ok((channel, bytes)) => {
                feed.datagram(channel, bytes);
            }
            // A datagram is a hint: a bad one is dropped like a lost one.
            Err(error) => tracing::trace!(%error, "drop malformed datagram"),
        }
    }
}

/// The task of one stream.
struct Reader {
    shared: Arc<Shared>,
    feed: Feed,
    recv: RecvHalf,
    /// What was received and not decoded.
    input: Bytes,
}

/// How reading a stream ended.
enum Ended {
    /// The peer finished it.
    Finished,
    /// The peer reset it, or we refused it.
    Reset,
    /// The connection or the session is over.
    Link,
    /// The peer broke the framing.
    Violation(RecvError),
}

impl Ended {
    fn frame(channel: u32, error: FrameError) -> Self {
        Self::Violation(RecvError::Frame { channel, error })
    }
}

impl Reader {
    /// A stream that the peer opened: learn its channel, then read it.
    async fn run_incoming(mut self, send: SendHalf) {
        let wait = self.shared.options.first_frame_wait;
        let channel = match timeout(wait, self.read_channel()).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(Ended::Violation(error))) => return self.violation(error).await,
            Ok(Err(Ended::Finished | Ended::Reset | Ended::Link)) => return,
            Err(_) => return self.violation(RecvError::Incomplete { channel: 0 }).await,
        };
        if let Err(Taken) = self.shared.streams.add(channel, send, None) {
            let error = match channel {
                CONTROL_CHANNEL => RecvError::SecondControl,
                _ => RecvError::DuplicateChannel { channel },
            };
            return self.violation(error).await;
        }
        self.run(channel).await;
    }

    /// A stream whose channel is known and whose write end is in the table.
    async fn run(mut self, channel: u32) {
        if channel == CONTROL_CHANNEL {
            self.shared.has_control.cancel();
        } else {
            tokio::select! {
                () = self.shared.is_admitted.cancelled() => {}
                () = self.shared.is_over.cancelled() => return,
                () = self.shared.is_lost.cancelled() => return,
            }
        }
        match self.read_frames(channel).await {
            Ended::Finished | Ended::Reset => {
                self.shared.streams.read_ended(channel);
                // When the session has gone, nobody needs to know.
                let _ = self.feed.channel_ended(channel).await;
            }
            Ended::Link => {}
            Ended::Violation(error) => self.violation(error).await,
        }
    }

    async fn violation(&self, error: RecvError) {
        // When the session has gone, nobody needs to know.
        let _ = self.feed.violation(error).await;
    }

    /// Reads the stream's header (where `wtransport` has not) and its preamble.
    async fn read_channel(&mut self) -> Result<u32, Ended> {
        if let RecvHalf::Quic(_) = self.recv {
            let mut header = SessionHeader::default();
            let session_id = loop {
                match header.decode(&mut self.input) {
                    Ok(Some(session_id)) => break session_id,
                    Ok(None) => self.fill().await?,
                    Err(NotOurs) => return Err(self.reject()),
                }
            };
            if session_id != self.shared.connection.session_id().into_u64() {
                return Err(self.reject());
            }
        }
        let mut preamble = Preamble::default();
        loop {
            match preamble.decode(&mut self.input) {
                Ok(Some(channel)) => return Ok(channel),
                Ok(None) => self.fill().await?,
                Err(error) => return Err(Ended::frame(0, error)),
            }
        }
    }

    /// Refuses a stream that is no stream of this session: a second request, or something that we do not know.
    fn reject(&mut self) -> Ended {
        // It fails when the peer has reset it already.
        let _ = self.recv.quic_mut().stop(REQUEST_REJECTED);
        Ended::Reset
    }

    async fn read_frames(&mut self, channel: u32) -> Ended {
        let mut decoder = Decoder::new(self.shared.options.end.caps(channel));
        let mut large: Option<OwnedSemaphorePermit> = None;
        loop {
            loop {
                match decoder.decode(&mut self.input) {
                    Ok(Some(bytes)) => {
                        if let Err(Gone) = self.feed.frame(channel, bytes).await {
                            return Ended::Link;
                        }
                        large = None;
                    }
                    Ok(None) => break,
                    Err(error) => return Ended::frame(channel, error),
                }
            }
            if large.is_none() && decoder.pending_bytes() > PARTIAL_BYTES_MAX {
                large = tokio::select! {
                    permit = self.shared.large.clone().acquire_owned() => permit.ok(),
                    () = self.shared.is_over.cancelled() => return Ended::Link,
                };
            }
            let filled = if decoder.is_between_frames() {
                self.fill().await
            } else {
                match timeout(FRAME_STALL, self.fill()).await {
                    Ok(Err(Ended::Finished)) => {
                        Err(Ended::Violation(RecvError::Truncated { channel }))
                    }
                    Ok(filled) => filled,
                    Err(_) => Err(Ended::Violation(RecvError::Incomplete { channel })),
                }
            };
            if let Err(ended) = filled {
                return ended;
            }
        }
    }
}

impl Reader {
    /// Waits for more bytes. Called when all that was received has been decoded.
    async fn fill(&mut self) -> Result<(), Ended> {
        match self.recv.quic_mut().read_chunk(READ_BYTES_MAX, true).await {
            Ok(Some(chunk)) => {
                self.input = chunk.bytes;
                Ok(())
            }
            Ok(None) => Err(Ended::Finished),
            Err(quinn::ReadError::Reset(_)) => Err(Ended::Reset),
            Err(
                quinn::ReadError::ConnectionLost(_)
                | quinn::ReadError::ClosedStream
                | quinn::ReadError::IllegalOrderedRead
                | quinn::ReadError::ZeroRttRejected,
            ) => Err(Ended::Link),
        }
    }
}

impl LinkSender {
    /// Waits for the peer's control stream; false when the link ended before.
    pub(super) async fn control_opened(&self) -> bool {
        tokio::select! {
            biased;
            () = self.shared.has_control.cancelled() => true,
            () = self.shared.is_lost.cancelled() => false,
        }
    }

    /// Opens a channel's stream. Its preamble goes out with the first write.
    pub(in crate::transport) async fn open(&self, channel: u32) -> Result<(), WriteError> {
        let opening = self.shared.connection.open_bi().await;
        let stream = opening.map_err(|_| WriteError::Closed)?.await;
        let (send, recv) = stream.map_err(|_| WriteError::Closed)?;
        let preamble = Bytes::copy_from_slice(channel_prefix(channel).as_slice());
        self.shared
            .streams
            .add(channel, SendHalf::Session(send), Some(preamble))
            .map_err(|Taken| WriteError::Taken { channel })?;
        let reader = Reader {
            shared: self.shared.clone(),
            feed: self.shared.feed.upgrade().ok_or(WriteError::Closed)?,
            recv: RecvHalf::Session(recv),
            input: Bytes::new(),
        };
        self.shared.scope.spawn(reader.run(channel));
        Ok(())
    }

    pub(in crate::transport) async fn write(
        &self,
        channel: u32,
        frames: &[Bytes],
    ) -> Result<(), WriteError> {
        self.shared.streams.write(channel, frames).await
    }

    pub(in crate::transport) fn finish(&self, channel: u32) {
        self.shared.streams.finish(channel);
    }

    pub(in crate::transport) fn datagram(
        &self,
        channel: u32,
        bytes: &[u8],
    ) -> Result<(), DatagramError> {
        let bytes_max = self
            .datagram_bytes_max()
            .ok_or(DatagramError::Unsupported)?;
        if bytes.len() > bytes_max {
            return Err(DatagramError::TooLarge);
        }
        let mut datagram = Vec::with_capacity(CHANNEL_BYTES_MAX + bytes.len());
        datagram.extend_from_slice(channel_prefix(channel).as_slice());
        datagram.extend_from_slice(bytes);
        let quic = self.shared.connection.quic_connection();
        // A newer datagram would push out older ones of other channels.
        if quic.datagram_send_buffer_space() < datagram.len() + HEADER_BYTES_MAX {
            return Err(DatagramError::Full);
        }
        self.shared
            .connection
            .send_datagram(&datagram)
            .map_err(|error| match error {
                wtransport::error::SendDatagramError::NotConnected => DatagramError::Closed,
                wtransport::error::SendDatagramError::UnsupportedByPeer => {
                    DatagramError::Unsupported
                }
                wtransport::error::SendDatagramError::TooLarge => DatagramError::TooLarge,
            })
    }

    pub(in crate::transport) fn datagram_bytes_max(&self) -> Option<usize> {
        let path_max = self.shared.connection.max_datagram_size()?;
        Some(path_max.min(DATAGRAM_BYTES_MAX) - CHANNEL_BYTES_MAX)
    }

    pub(in crate::transport) fn permit_streams(&self, n_documents: u32) {
        let n_streams = n_documents.saturating_add(N_STREAMS_RESERVED);
        let before = self
            .shared
            .n_streams
            .fetch_max(n_streams, Ordering::Relaxed);
        if n_streams > before {
            self.shared
                .connection
                .quic_connection()
                .set_max_concurrent_bi_streams(n_streams.into());
        }
        self.shared.is_admitted.cancel();
    }

    pub(in crate::transport) async fn close(&self) {
        // A QUIC close overtakes what is queued, so the streams are finished and acknowledged first.
        let _ = timeout(CLOSE_WAIT, self.shared.streams.finish_all()).await;
        self.shared
            .connection
            .close(wtransport::VarInt::from_u32(0), b"");
        self.shared.is_over.cancel();
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
