//! The native protocol: a control channel, and one channel for each document. PROTOCOL.md, sections CT and DC.
//!
//! The session's task reads the link, keeps the heartbeat and hands each document's frames to that document's task, so
//! that a document that is being loaded holds up no other. What waits between them is bounded in bytes by the session.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{Instrument, debug, debug_span};

use super::native_channel::{self, Inbound};
use crate::clock::saturating_millis;
use crate::doc::ScanLimits;
use crate::protocol::awareness::ENTRY_BYTES_MAX;
use crate::protocol::close::ErrorCode;
use crate::protocol::frame::FRAGMENT_BYTES_MAX;
use crate::protocol::message::{
    ClientControl, ClientDocument, Hello, Limit, Refusal, ServerControl, ServerDocument, VERSION,
    Welcome, limit_key,
};
use crate::session::context::{Listed, Session};
use crate::shutdown::Scope;
use crate::transport::{CONTROL_CHANNEL, CloseReason, Link, Received, Receiver, Sender, Writer};

/// Frames of one document that may wait for its task, however small they are.
const FRAMES_WAITING_MAX: usize = 64;

/// Streams that a client may open ahead of the documents that it has open. quinn keeps state for every permitted stream,
/// so the permission grows with use.
const STREAMS_AHEAD: u32 = 16;

/// How long the documents' tasks may take to leave their rooms.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// When the node comes back is not known to it: clients of a node that stops look again within this window.
const RECONNECT_WINDOW_MS: u64 = 1_000;

/// Serves one native client until it goes.
pub(in crate::session) async fn run(session: Arc<Session>, link: Link) {
    let Link {
        mut receiver,
        sender,
        ..
    } = link;
    let tasks = session.context.scope.child();
    let mut control = Control {
        writer: sender.writer(CONTROL_CHANNEL),
        session: session.clone(),
        sender: sender.clone(),
        tasks: tasks.clone(),
        channels: HashMap::new(),
    };
    let end = match control.greet(&mut receiver).await {
        Ok(listed) => control.serve(&mut receiver, &listed).await,
        Err(end) => end,
    };
    let reason = match end {
        End::Gone => CloseReason::new(ErrorCode::Normal, ""),
        End::Refused(refusal) => {
            debug!(
                code = refusal.code.name(),
                text = refusal.text,
                "session refused"
            );
            let reason = CloseReason::new(refusal.code, refusal.text.clone());
            control.say(&ServerControl::Error(refusal)).await;
            reason
        }
    };
    // Documents are left before the link is closed: what their clients sent before is in their rooms.
    control.channels.clear();
    tasks.stop(LEAVE_MAX).await;
    sender.close(reason).await;
}

/// How a session ends.
enum End {
    /// The client went.
    Gone,
    /// The server ends it, and says why.
    Refused(Refusal),
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The session's own half of the protocol.
struct Control {
    session: Arc<Session>,
    sender: Sender,
    writer: Writer,
    tasks: Scope,
    /// Channels by number. One whose task has ended stays until its number is used again, so that frames that were under
    /// way are told from frames of a channel that never was.
    channels: HashMap<u32, mpsc::Sender<Inbound>>,
}

impl Control {
    /// Waits for HELLO and answers it.
    async fn greet(&mut self, receiver: &mut Receiver) -> Result<Listed, End> {
        let config = &self.session.context.config;
        let hello = timeout(config.hello, hello(receiver)).await.map_err(|_| {
            Refusal::with_text(
                ErrorCode::InvalidMessage,
                "no HELLO came in time on the control channel",
            )
        })??;
        if !hello.versions.contains(&VERSION) {
            return Err(Refusal::with_text(
                ErrorCode::UnsupportedVersion,
                format!(
                    "this server speaks version {VERSION} of the protocol; please update the client"
                ),
            )
            .into());
        }
        // In development mode nobody is asked who they are; a credential is neither needed nor looked at.
        debug!(
            client = hello.client_name,
            version = hello.client_version,
            "hello"
        );
        let limit = |key, value: usize| Limit {
            key,
            value: value as u64,
        };
        let welcome = Welcome {
            version: VERSION,
            features: Vec::new(),
            session: self.session.id,
            node: self.session.context.node.to_string(),
            user_id: self.session.identity.user.to_string(),
            user_name: self.session.identity.name.to_string(),
            limits: vec![
                limit(
                    limit_key::UPDATE_BYTES,
                    ScanLimits::default().update_bytes_max,
                ),
                limit(
                    limit_key::INITIAL_SYNC_BYTES,
                    ScanLimits::initial_sync().update_bytes_max,
                ),
                limit(limit_key::PRESENCE_BYTES, ENTRY_BYTES_MAX),
                limit(limit_key::DOCUMENTS, config.documents_max),
                limit(limit_key::FRAGMENT_BYTES, FRAGMENT_BYTES_MAX),
            ],
            heartbeat_ms: saturating_millis(config.heartbeat),
            dead_after_ms: saturating_millis(config.dead),
            auth_lifetime_ms: 0,
        };
        if !self.say(&ServerControl::Welcome(welcome)).await {
            return Err(End::Gone);
        }
        self.sender.permit_streams(STREAMS_AHEAD);
        Ok(Listed::enter(&self.session, hello.previous_session))
    }

    /// Serves the client after WELCOME.
    async fn serve(&mut self, receiver: &mut Receiver, listed: &Listed) -> End {
        let context = self.session.context.clone();
        let config = &context.config;
        let mut heartbeat = interval(config.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.reset();
        let mut n_pings: u64 = 0;
        let mut heard = Instant::now();
        let mut leave_by: Option<Instant> = None;
        let mut succeeded_by: Option<Instant> = None;
        loop {
            tokio::select! {
                biased;
                () = context.scope.stopping(), if leave_by.is_none() => {
                    leave_by = Some(Instant::now() + config.drain);
                    let goaway = ServerControl::GoAway {
                        reason: "the server is stopping".into(),
                        reconnect_min_ms: 0,
                        reconnect_max_ms: RECONNECT_WINDOW_MS,
                    };
                    if !self.say(&goaway).await {
                        return End::Gone;
                    }
                }
                () = sleep_until(leave_by.unwrap_or(heard)), if leave_by.is_some() => {
                    return Refusal {
                        retry_after_ms: RECONNECT_WINDOW_MS / 2,
                        ..Refusal::of(ErrorCode::ShuttingDown)
                    }.into();
                }
                () = listed.successor.came(), if succeeded_by.is_none() => {
                    succeeded_by = Some(Instant::now() + config.handover);
                }
                () = sleep_until(succeeded_by.unwrap_or(heard)), if succeeded_by.is_some() => {
                    return Refusal::with_text(
                        ErrorCode::Normal,
                        "this connection was replaced by a newer one",
                    ).into();
                }
                received = receiver.recv() => {
                    match received {
                        Ok(Some(received)) => {
                            if let Err(end) = self.take(received).await {
                                return end;
                            }
                            // After the frame was handed on: while a room pushes back, silence is ours, not the client's.
                            heard = Instant::now();
                        }
                        Ok(None) => return End::Gone,
                        Err(error) => return Refusal::with_text(error.code(), error.to_string()).into(),
                    }
                }
                _ = heartbeat.tick() => {
                    if heard.elapsed() >= config.dead {
                        debug!("the client is silent");
                        return End::Gone;
                    }
                    n_pings += 1;
                    if !self.say(&ServerControl::Ping(n_pings.to_be_bytes())).await {
                        return End::Gone;
                    }
                }
            }
        }
    }

    /// Takes one thing that the client sent.
    async fn take(&mut self, received: Received) -> Result<(), End> {
        match received {
            Received::Frame {
                channel: CONTROL_CHANNEL,
                bytes,
            } => self.take_control(&bytes).await,
            Received::Frame { channel, bytes } => self.take_frame(channel, bytes).await,
            Received::Datagram { channel, bytes } => {
                if let Some(task) = self.channels.get(&channel) {
                    // Presence by datagram is a hint: when its document is busy, the next one is as good.
                    let _ = task.try_send(Inbound::datagram(bytes));
                }
                Ok(())
            }
            Received::Ended {
                channel: CONTROL_CHANNEL,
            } => Err(End::Gone),
            Received::Ended { channel } => {
                self.channels.remove(&channel);
                Ok(())
            }
        }
    }

    async fn take_control(&mut self, bytes: &Bytes) -> Result<(), End> {
        match ClientControl::decode(bytes).map_err(|error| malformed(&error.to_string()))? {
            Some(ClientControl::Ping(bytes)) => {
                if self.say(&ServerControl::Pong(bytes)).await {
                    Ok(())
                } else {
                    Err(End::Gone)
                }
            }
            // A fresh credential holds as long as the session's own: for ever, in development mode.
            Some(ClientControl::Auth(_)) => {
                if self.say(&ServerControl::AuthOk { lifetime_ms: 0 }).await {
                    Ok(())
                } else {
                    Err(End::Gone)
                }
            }
            Some(ClientControl::Pong(_)) | None => Ok(()),
            Some(ClientControl::Hello(_)) => Err(malformed("a second HELLO").into()),
        }
    }

    async fn take_frame(&mut self, channel: u32, bytes: Bytes) -> Result<(), End> {
        if let Some(task) = self.channels.get(&channel)
            && !task.is_closed()
        {
            let inbound = self.permitted(bytes).await;
            // An error: the document ended meanwhile, and what was under way with it.
            let _ = task.send(inbound).await;
            return Ok(());
        }
        match ClientDocument::decode(&bytes) {
            Ok(Some(ClientDocument::Open(open))) => {
                self.channels.retain(|_, task| !task.is_closed());
                let mut writer = self.sender.writer(channel);
                let n_open = self.channels.len();
                if n_open >= self.session.context.config.documents_max {
                    let refusal = Refusal::with_text(
                        ErrorCode::OverQuota,
                        "this connection has as many documents open as it may",
                    );
                    // A client that is gone is noticed by the next read.
                    let _ = writer
                        .write(&[ServerDocument::Closed(refusal).encode()])
                        .await;
                    writer.finish().await;
                    return Ok(());
                }
                let n_open = u32::try_from(n_open).unwrap_or(u32::MAX);
                self.sender
                    .permit_streams(n_open.saturating_add(1 + STREAMS_AHEAD));
                let (task, inbound) = mpsc::channel(FRAMES_WAITING_MAX);
                self.channels.insert(channel, task);
                let document = native_channel::Document {
                    session: self.session.clone(),
                    sender: self.sender.clone(),
                    scope: self.tasks.clone(),
                    channel,
                    writer,
                    inbound,
                };
                self.tasks.spawn(
                    document
                        .run(open)
                        .instrument(debug_span!("channel", number = channel)),
                );
                Ok(())
            }
            // On its way when the channel ended.
            Ok(_) if self.channels.contains_key(&channel) => Ok(()),
            Ok(_) => Err(malformed("the first message of a channel has to be OPEN").into()),
            Err(error) => Err(malformed(&error.to_string()).into()),
        }
    }

    /// Waits until the session may hold this frame too.
    async fn permitted(&self, bytes: Bytes) -> Inbound {
        let most = self.session.context.config.inbound_bytes_max.max(1);
        let n = u32::try_from(bytes.len().clamp(1, most)).unwrap_or(u32::MAX);
        let permit = self
            .session
            .inbound
            .clone()
            .acquire_many_owned(n)
            .await
            .expect("the session's semaphore is never closed");
        Inbound::frame(bytes, permit)
    }

    /// Says something on the control channel; false when the client takes nothing more.
    async fn say(&mut self, message: &ServerControl) -> bool {
        self.writer.write(&[message.encode()]).await.is_ok()
    }
}

/// The first message of a client.
async fn hello(receiver: &mut Receiver) -> Result<Hello, End> {
    loop {
        match receiver.recv().await {
            Ok(Some(Received::Frame {
                channel: CONTROL_CHANNEL,
                bytes,
            })) => {
                return match ClientControl::decode(&bytes) {
                    Ok(Some(ClientControl::Hello(hello))) => Ok(hello),
                    Ok(_) => Err(malformed("the first message has to be HELLO").into()),
                    Err(error) => Err(malformed(&error.to_string()).into()),
                };
            }
            Ok(Some(Received::Datagram { .. })) => {}
            Ok(Some(Received::Frame { .. } | Received::Ended { .. })) => {
                return Err(
                    malformed("the first message has to be HELLO on the control channel").into(),
                );
            }
            Ok(None) => return Err(End::Gone),
            Err(error) => return Err(Refusal::with_text(error.code(), error.to_string()).into()),
        }
    }
}

fn malformed(what: &str) -> Refusal {
    Refusal::with_text(ErrorCode::InvalidMessage, what)
}
