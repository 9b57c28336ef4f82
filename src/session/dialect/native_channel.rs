//! One document of a native session: OPEN to CLOSED. PROTOCOL.md, section DC.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;
use tracing::debug;

use crate::auth;
use crate::doc::{StateVector, Trust};
use crate::ids::CLIENT_ID_MAX;
use crate::protocol::awareness::AwarenessUpdate;
use crate::protocol::close::ErrorCode;
use crate::protocol::message::{self, ClientDocument, Open, Refusal, ServerDocument, encoding};
use crate::room::{Closing, Delivery, Form, Kind, Out};
use crate::session::channel::{Channel, Ended, Request};
use crate::session::context::Session;
use crate::session::outbound::{self, End, Words};
use crate::shutdown::Scope;
use crate::transport::{Sender, Writer};

/// How long a client that takes no more may go on being heard.
const LAST_EDITS_MAX: Duration = Duration::from_secs(2);

/// Something of the client for this document, with the bytes that it holds of the session's bound.
#[derive(Debug)]
pub(super) struct Inbound {
    bytes: Bytes,
    /// `None` for a datagram, which waits only in the queue.
    permit: Option<OwnedSemaphorePermit>,
}

impl Inbound {
    /// A frame.
    pub(super) fn frame(bytes: Bytes, permit: OwnedSemaphorePermit) -> Self {
        Self {
            bytes,
            permit: Some(permit),
        }
    }

    /// A datagram.
    pub(super) fn datagram(bytes: Bytes) -> Self {
        Self {
            bytes,
            permit: None,
        }
    }
}

/// The task of one open document.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) session: Arc<Session>,
    pub(super) sender: Sender,
    pub(super) scope: Scope,
    pub(super) channel: u32,
    pub(super) writer: Writer,
    pub(super) inbound: mpsc::Receiver<Inbound>,
}

impl Document {
    /// Serves the document until the client closes it, the room ends it, or the session goes.
    pub(super) async fn run(mut self, open: Open) {
        let opened = tokio::select! {
            () = self.scope.stopping() => return,
            opened = self.open(open) => opened,
        };
        let channel = match opened {
            Ok(channel) => channel,
            Err(closing) => {
                debug!(
                    code = closing.code.name(),
                    text = closing.text,
                    "document refused"
                );
                // A client that is gone needs no answer.
                let _ = self.writer.write(&[closed(&closing)]).await;
                self.writer.finish().await;
                return;
            }
        };
        let mut words = Native {
            channel: self.channel,
            sender: self.sender,
            last_datagram: 0,
        };
        let gone = {
            let outbound = outbound::write(&channel, &mut self.writer, &mut words);
            let inbound = take_all(&channel, &mut self.inbound);
            tokio::pin!(outbound, inbound);
            tokio::select! {
                end = &mut outbound => {
                    if matches!(end, End::Failed) {
                        // A client that went takes no more words; what it sent before is still on its way to us. The same
                        // future goes on: it may hold a message, and it knows the number of the next.
                        let _ = timeout(LAST_EDITS_MAX, inbound).await;
                    }
                    false
                }
                end = &mut inbound => match end {
                    None => true,
                    Some(closing) => {
                        channel.close(closing);
                        outbound.await;
                        false
                    }
                },
            }
        };
        channel.leave().await;
        if !gone {
            self.writer.finish().await;
        }
    }

    async fn open(&self, open: Open) -> Result<Channel, Closing> {
        if !open.encodings.contains(&encoding::YJS_V1) {
            return Err(Closing::new(
                ErrorCode::UnsupportedVersion,
                "this server sends updates in Yjs encoding 1, which the client did not offer",
            ));
        }
        if open.client > CLIENT_ID_MAX {
            return Err(malformed("the client id is above 2^53"));
        }
        let state_vector = StateVector::decode(&open.state_vector)
            .map_err(|error| malformed(&error.to_string()))?;
        let request = Request {
            known_epoch: open.epoch,
            client_id: Some(open.client),
            state_vector: Some(state_vector),
            position: open.position,
            read_only: open.access == message::Access::Read,
        };
        Channel::open(self.session.clone(), &open.document, request).await
    }
}

/// Takes the client's messages. `None` when the session went; otherwise why the channel ends.
async fn take_all(channel: &Channel, inbound: &mut mpsc::Receiver<Inbound>) -> Option<Closing> {
    let mut sequence = 0;
    while let Some(Inbound { bytes, permit }) = inbound.recv().await {
        let told = if permit.is_some() {
            take(channel, &bytes, &mut sequence).await
        } else {
            presence(channel, &bytes).await
        };
        match told {
            Ok(Ok(())) => {}
            // The room is gone, and its last word is on its way out.
            Ok(Err(Ended)) => std::future::pending().await,
            Err(closing) => return Some(closing),
        }
    }
    None
}

/// Takes one message. The outer error ends the channel.
async fn take(
    channel: &Channel,
    bytes: &Bytes,
    sequence: &mut u64,
) -> Result<Result<(), Ended>, Closing> {
    let message = ClientDocument::decode(bytes).map_err(|error| malformed(&error.to_string()))?;
    let (kind, number, update) = match message {
        Some(ClientDocument::Update { sequence, update }) => (Kind::Live, sequence, update),
        Some(ClientDocument::Sync { sequence, update }) => (Kind::Answer, sequence, update),
        Some(ClientDocument::Presence(update)) => return presence(channel, &update).await,
        Some(ClientDocument::Message(bytes)) => return Ok(channel.message(bytes).await),
        Some(ClientDocument::Close) => {
            return Err(Closing::new(ErrorCode::Normal, "closed as asked"));
        }
        Some(ClientDocument::Open(_)) => return Err(malformed("a second OPEN on one channel")),
        None => return Ok(Ok(())),
    };
    *sequence += 1;
    if number != *sequence {
        return Err(malformed(&format!(
            "update {number} came where {sequence} was due: updates are numbered from 1 without gaps"
        )));
    }
    Ok(channel.update(number, kind, &update).await)
}

async fn presence(channel: &Channel, bytes: &Bytes) -> Result<Result<(), Ended>, Closing> {
    let update = AwarenessUpdate::decode(bytes).map_err(|error| malformed(&error.to_string()))?;
    Ok(channel.presence(update, Trust::Claimed).await)
}

fn malformed(what: &str) -> Closing {
    Closing::new(ErrorCode::InvalidMessage, what)
}

fn closed(closing: &Closing) -> Bytes {
    ServerDocument::Closed(Refusal::with_text(closing.code, closing.text.clone())).encode()
}

/// The native protocol's words.
struct Native {
    channel: u32,
    sender: Sender,
    /// The number of the last presence hint that went by datagram and may be lost; 0 when none did.
    last_datagram: u64,
}

impl Words for Native {
    fn say(&mut self, out: &Out, frames: &mut Vec<Bytes>) -> Option<Closing> {
        frames.push(match out {
            Out::Opened(opened) => ServerDocument::Opened(message::Opened {
                epoch: opened.epoch,
                position: opened.position.clone(),
                access: on_wire(opened.access),
                state_vector: opened.state_vector.clone(),
                update: opened.missing.clone(),
                presence: opened.presence.clone(),
            })
            .encode(),
            Out::Update(update) => update.frame(Form::Native, |update| {
                ServerDocument::Update {
                    position: update.position().clone(),
                    update: update.body().clone(),
                }
                .encode()
            }),
            Out::Presence(presence) => {
                match presence.delivery() {
                    Delivery::Hint => {
                        // What does not fit a datagram, or finds no room, goes on the stream.
                        let sent = self.sender.datagram(self.channel, presence.body());
                        if sent.is_ok() {
                            self.last_datagram = presence.number();
                            return None;
                        }
                    }
                    // All that it repeats went on the stream.
                    Delivery::Repeat if self.last_datagram < presence.from() => return None,
                    Delivery::Repeat | Delivery::Sure => {}
                }
                presence.frame(Form::Native, |presence| {
                    ServerDocument::Presence(presence.body().clone()).encode()
                })
            }
            Out::Message(message) => message.frame(Form::Native, |message| {
                ServerDocument::Message(message.body().clone()).encode()
            }),
            Out::Seen(sequence) => ServerDocument::Seen(*sequence).encode(),
            Out::Durable(sequence) => ServerDocument::Durable(*sequence).encode(),
            Out::SyncRequest(state_vector) => ServerDocument::SyncRequest {
                state_vector: state_vector.clone(),
            }
            .encode(),
            Out::Rejected {
                sequence,
                code,
                text,
                terminal,
            } => ServerDocument::Rejected {
                sequence: *sequence,
                code: *code,
                text: text.clone(),
                terminal: *terminal,
            }
            .encode(),
            Out::Access(access) => ServerDocument::Access(on_wire(*access)).encode(),
            // The native protocol asks with OPEN only, and its end is said by `last`.
            Out::Missing(_) | Out::Closed(_) => return None,
        });
        None
    }

    fn last(&mut self, closing: &Closing, frames: &mut Vec<Bytes>) {
        if let Some(epoch) = closing.replaced_by {
            frames.push(ServerDocument::Replaced(epoch).encode());
        }
        frames.push(closed(closing));
    }
}

fn on_wire(access: auth::Access) -> message::Access {
    match access {
        auth::Access::Read => message::Access::Read,
        auth::Access::Write => message::Access::Write,
    }
}
