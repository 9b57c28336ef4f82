//! Carriers: how frames reach a session and leave it, whatever lies underneath.
//!
//! A session must not care whether its client came over WebTransport, over a WebSocket or through memory in a test. So
//! every carrier is turned into a [`Link`]: one [`Receiver`] that yields the frames of all channels in the order in which
//! each channel sent them, and one [`Sender`] that hands out a [`Writer`] per channel. The types are concrete (an enum
//! inside, no trait objects, no generics), and no type of `quinn`, `wtransport` or `tungstenite` crosses this module's
//! line.
//!
//! What is promised about tasks: every task that a link needs runs in the [`crate::shutdown::Scope`] that the listener
//! or dialler was given, and ends when the link's [`Receiver`] is dropped, when [`Sender::close`] has run, or when the
//! scope stops. What is promised about memory: the one queue of a link is bounded (`inbox.rs`); a receiver that is not polled
//! makes the carrier stop reading, so QUIC or TCP pushes back on the peer.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::protocol::close::ErrorCode;
use crate::protocol::frame::{Caps, DATAGRAM_BYTES_MAX, FrameError};

pub mod dial;
mod inbox;
pub mod keys;
pub mod memory;
pub mod tls;
mod udp;
pub mod websocket;
pub mod webtransport;

/// The channel that carries HELLO, WELCOME, heartbeats and errors.
pub const CONTROL_CHANNEL: u32 = 0;

/// How long a write may make no progress before the peer counts as stuck. Longer than any honest pause of a browser tab
/// (which reads in its network process), short enough that a stuck peer's memory comes back.
pub const WRITE_STALL: Duration = Duration::from_secs(30);

/// How long [`Sender::close`] waits for the peer to acknowledge what was written before. After that the connection is
/// closed without.
pub const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// The most bytes that a channel number takes on the wire (varUint of a `u32`).
const CHANNEL_BYTES_MAX: usize = 5;

/// What lies under a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// One QUIC stream per channel, and datagrams.
    WebTransport,
    /// One TCP connection shared by all channels.
    WebSocket,
    /// Queues in this process, for tests.
    Memory,
}

impl Carrier {
    /// The name in logs, metrics and `WELCOME`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WebTransport => "webtransport",
            Self::WebSocket => "websocket",
            Self::Memory => "memory",
        }
    }
}

/// What the carrier knows of the other side before its first frame. Every text is the client's own claim, unchecked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// What lies under the link.
    pub carrier: Carrier,
    /// The address that the connection came from (that of a proxy, when there is one).
    pub address: SocketAddr,
    /// The `Origin` header: the web page's origin; browsers always send it, other clients may lie or leave it out.
    pub origin: Option<String>,
    /// The `Host` header or `:authority`.
    pub host: Option<String>,
    /// The path of the request, as sent (percent-encodings not resolved), without the query.
    pub path: String,
    /// What came after `?`, as sent. May hold a token: never log it.
    pub query: Option<String>,
}

/// An accepted connection, ready for a session.
#[derive(Debug)]
pub struct Link {
    /// Frames from the peer.
    pub receiver: Receiver,
    /// Writers to the peer.
    pub sender: Sender,
    /// Who the peer says it is.
    pub peer: Peer,
}

/// One thing that came from the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// One whole message of a channel, within the limit of its type, not decoded further.
    Frame {
        /// The channel it came on; 0 is control.
        channel: u32,
        /// The message: `varUint type` and its fields.
        bytes: Bytes,
    },
    /// One datagram; may be lost, doubled or late.
    Datagram {
        /// The channel it names. Nothing says that this channel is open.
        channel: u32,
        /// The awareness update.
        bytes: Bytes,
    },
    /// The peer finished or reset that channel's stream. Over WebSocket a channel ends with a message instead.
    Ended {
        /// The channel that ended.
        channel: u32,
    },
}

/// The peer broke the protocol's framing. The session says ERROR with [`RecvError::code`] and closes; the receiver yields
/// nothing more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecvError {
    /// A frame is malformed, or larger than its type or its channel may be.
    #[error("channel {channel}: {error}")]
    Frame {
        /// The channel it came on; 0 also when the channel number itself was unreadable.
        channel: u32,
        /// What is wrong with it.
        error: FrameError,
    },
    /// A second stream named the control channel.
    #[error("a second control stream was opened")]
    SecondControl,
    /// A stream named a channel number that another stream still has.
    #[error("channel {channel} was opened twice")]
    DuplicateChannel {
        /// The number that was taken.
        channel: u32,
    },
    /// A stream was opened and named no channel in time, or a message was begun and not completed in time.
    #[error("channel {channel}: a message was begun and not completed in time")]
    Incomplete {
        /// The channel it came on; 0 also when the stream never named one.
        channel: u32,
    },
    /// A stream was finished within a message.
    #[error("channel {channel}: the stream ended within a message")]
    Truncated {
        /// The channel it came on; 0 also when the stream never named one.
        channel: u32,
    },
    /// A WebSocket text message: the protocol is binary.
    #[error("a text message was received, the protocol is binary")]
    Text,
    /// The WebSocket protocol itself was broken.
    #[error("the WebSocket protocol was broken: {detail}")]
    WebSocket {
        /// What was wrong, for a person.
        detail: String,
    },
}

impl RecvError {
    /// What to tell the peer.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Frame { error, .. } => error.code(),
            Self::SecondControl
            | Self::DuplicateChannel { .. }
            | Self::Incomplete { .. }
            | Self::Truncated { .. }
            | Self::Text
            | Self::WebSocket { .. } => ErrorCode::InvalidMessage,
        }
    }
}

/// What a server accepts on the control channel: messages of the control channel and no others, so that a client that has
/// not said who it is cannot make the server hold more than a HELLO.
const CONTROL_CAPS: Caps = Caps {
    open: Caps::TO_SERVER.other,
    update: Caps::TO_SERVER.other,
    sync: Caps::TO_SERVER.other,
    presence: Caps::TO_SERVER.other,
    message: Caps::TO_SERVER.other,
    fragment: Caps::TO_SERVER.other,
    ..Caps::TO_SERVER
};

/// Which end of the link this is: the limits of message types bind the client, who is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Server,
    Client,
}

impl End {
    /// What this end accepts on a channel.
    const fn caps(self, channel: u32) -> Caps {
        match (self, channel) {
            (Self::Server, CONTROL_CHANNEL) => CONTROL_CAPS,
            (Self::Server, _) => Caps::TO_SERVER,
            (Self::Client, _) => Caps::TO_CLIENT,
        }
    }
}

/// Why frames could not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The peer has not opened that channel, or it has ended.
    #[error("channel {channel} is not open")]
    NotOpen {
        /// The channel of the writer.
        channel: u32,
    },
    /// The number to open names a channel that is open.
    #[error("channel {channel} is already open")]
    Taken {
        /// The number asked for.
        channel: u32,
    },
    /// An earlier write of this channel was cut short (its future was dropped), so that the peer holds half a message.
    #[error("an earlier write on channel {channel} was cut short")]
    Broken {
        /// The channel of the writer.
        channel: u32,
    },
    /// The peer told us to stop sending on this channel. The others go on.
    #[error("the peer stopped channel {channel}")]
    Stopped {
        /// The channel of the writer.
        channel: u32,
    },
    /// The peer took nothing for [`WRITE_STALL`].
    #[error("the peer took nothing for {} s", .after.as_secs())]
    Stalled {
        /// How long we waited.
        after: Duration,
    },
    /// The connection is gone.
    #[error("the connection is closed")]
    Closed,
}

/// Why a datagram was not sent. Datagrams are hints, so each of these is a reason to use the channel's stream, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// This carrier or this peer has no datagrams.
    #[error("datagrams are not supported")]
    Unsupported,
    /// Longer than [`Sender::datagram_bytes_max`].
    #[error("the datagram is too large")]
    TooLarge,
    /// The send buffer is full; the datagram was dropped.
    #[error("the datagram buffer is full")]
    Full,
    /// The connection is gone.
    #[error("the connection is closed")]
    Closed,
}

/// Why a link is closed. The words for the client were sent before, as a message; these are for carriers that have a place
/// for them (the WebSocket close frame) and for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseReason {
    /// The reason as a number of the protocol.
    pub code: ErrorCode,
    /// The reason for a person. Cut to what the carrier can hold.
    pub text: String,
}

impl CloseReason {
    /// A reason with its text.
    pub fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}

/// The receiving half of a link. Dropping it ends the link's tasks and, over WebTransport, the connection at once: to say
/// goodbye, call [`Sender::close`] first and drop this after.
#[derive(Debug)]
pub struct Receiver {
    inbox: inbox::Inbox,
}

impl Receiver {
    fn new(inbox: inbox::Inbox) -> Self {
        Self { inbox }
    }

    /// The next thing from the peer; `None` when the session is over, whoever ended it (also when the peer vanished).
    ///
    /// Frames of one channel come in order; channels are merged as they arrive. Not calling this is how a session pushes
    /// back: the queue holds at most 64 items or 1 MiB (one larger frame alone), then the carrier stops reading.
    ///
    /// # Errors
    /// A [`RecvError`] is a violation of the framing by the peer. After it, the receiver yields `None`.
    ///
    /// # Cancel safety
    /// Cancel safe: a dropped future loses nothing.
    pub async fn recv(&mut self) -> Result<Option<Received>, RecvError> {
        self.inbox.recv().await
    }
}

/// The sending half of a link. Cheap to clone; all clones are the same link.
#[derive(Debug, Clone)]
pub struct Sender {
    kind: SenderKind,
}

#[derive(Debug, Clone)]
enum SenderKind {
    WebTransport(webtransport::LinkSender),
    WebSocket(websocket::LinkSender),
    Memory(memory::LinkSender),
}

impl Sender {
    /// The writer of a channel that the peer opened (the server's side). One writer per channel at a time: two would mix
    /// their frames, and the first to be dropped ends the channel. Whether the channel is open shows when it writes.
    pub fn writer(&self, channel: u32) -> Writer {
        Writer {
            channel,
            is_cut_short: false,
            kind: self.kind.clone(),
        }
    }

    /// Opens a channel (the client's side) and gives its writer. Over WebTransport this opens a stream, waiting until the
    /// server permits one more; its preamble travels with the first frame. The other carriers have nothing to open.
    ///
    /// # Errors
    /// [`WriteError::Closed`] when the connection is gone, [`WriteError::Taken`] when the number is in use (where streams
    /// are counted).
    pub async fn open(&self, channel: u32) -> Result<Writer, WriteError> {
        if let SenderKind::WebTransport(sender) = &self.kind {
            sender.open(channel).await?;
        }
        Ok(self.writer(channel))
    }

    /// Sends a datagram for a channel, without waiting.
    ///
    /// # Errors
    /// See [`DatagramError`]; none of them ends the link by itself.
    pub fn datagram(&self, channel: u32, bytes: &[u8]) -> Result<(), DatagramError> {
        match &self.kind {
            SenderKind::WebTransport(sender) => sender.datagram(channel, bytes),
            SenderKind::WebSocket(_) => Err(DatagramError::Unsupported),
            SenderKind::Memory(sender) => sender.datagram(channel, bytes),
        }
    }

    /// The most bytes that [`Sender::datagram`] takes now, on any channel; `None` when there are no datagrams.
    pub fn datagram_bytes_max(&self) -> Option<usize> {
        match &self.kind {
            SenderKind::WebTransport(sender) => sender.datagram_bytes_max(),
            SenderKind::WebSocket(_) => None,
            SenderKind::Memory(_) => Some(DATAGRAM_BYTES_MAX - CHANNEL_BYTES_MAX),
        }
    }

    /// Opens the link for documents. Until this is called the native carriers deliver the control channel only: streams
    /// that the client opened before WELCOME are accepted and not read, and a WebSocket is not read past the first frame
    /// of another channel. From then on the client may have `n_documents` streams open at once besides control (where the
    /// carrier counts them). Call it again to raise the number; it is never lowered.
    ///
    /// A WebSocket with [`websocket::Framing::Single`] and the memory link deliver everything from the start.
    pub fn permit_streams(&self, n_documents: u32) {
        match &self.kind {
            SenderKind::WebTransport(sender) => sender.permit_streams(n_documents),
            SenderKind::WebSocket(sender) => sender.open_gate(),
            SenderKind::Memory(_) => {}
        }
    }

    /// Ends the link: waits until the peer has acknowledged what was written before (at most [`CLOSE_WAIT`]), then closes
    /// the connection. Afterwards writers fail and the receiver yields `None` after what it holds.
    ///
    /// The ERROR or CLOSED message must have been written before: no close code reaches a page over WebTransport. Over
    /// WebSocket the close frame carries the code and the text.
    pub async fn close(&self, reason: CloseReason) {
        tracing::debug!(code = %reason.code, text = reason.text, "close link");
        match &self.kind {
            SenderKind::WebTransport(sender) => sender.close().await,
            SenderKind::WebSocket(sender) => sender.close(&reason).await,
            SenderKind::Memory(sender) => sender.close(),
        }
    }
}

/// The write end of one channel.
///
/// Dropping it ends our side of the channel where the carrier can say so without waiting (WebTransport finishes the
/// stream); [`Writer::finish`] is the spoken form.
#[derive(Debug)]
pub struct Writer {
    channel: u32,
    /// Set while a write runs: still set when the next one begins, if the last was dropped.
    is_cut_short: bool,
    kind: SenderKind,
}

impl Writer {
    /// The channel that it writes.
    pub fn channel(&self) -> u32 {
        self.channel
    }

    /// Writes whole messages, in order, in one gathered flush. Each is one message without framing: the carrier adds the
    /// length, the channel, the fragments. Returns when the carrier has taken all of them into its bounded buffers.
    ///
    /// # Errors
    /// See [`WriteError`]. After an error some of the frames may have been sent, and the channel takes no more.
    ///
    /// # Cancel safety
    /// Not cancel safe: after a dropped call the channel is broken and says so ([`WriteError::Broken`]), since the peer
    /// may hold half a message. Messages that earlier calls wrote are not affected.
    pub async fn write(&mut self, frames: &[Bytes]) -> Result<(), WriteError> {
        if self.is_cut_short {
            return Err(WriteError::Broken {
                channel: self.channel,
            });
        }
        self.is_cut_short = true;
        match &self.kind {
            SenderKind::WebTransport(sender) => sender.write(self.channel, frames).await,
            SenderKind::WebSocket(sender) => sender.write(self.channel, frames).await,
            SenderKind::Memory(sender) => sender.write(self.channel, frames).await,
        }?;
        self.is_cut_short = false;
        Ok(())
    }

    /// Says that nothing more is written on this channel. The peer receives everything that was written.
    pub async fn finish(self) {
        if let SenderKind::Memory(sender) = &self.kind {
            sender.finish(self.channel).await;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let SenderKind::WebTransport(sender) = &self.kind {
            sender.finish(self.channel);
        }
    }
}

#[cfg(test)]
mod contract_tests;
#[cfg(test)]
mod test_links;
#[cfg(test)]
mod websocket_tests;
