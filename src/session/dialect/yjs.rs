//! The y-websocket dialect: one document per WebSocket, in the words of y-protocols.
//!
//! For stock clients (`y-websocket` 1 to 3, `@y/websocket` 4). PROTOCOL.md, section "YW". They know neither durability nor
//! epochs nor a refusal of one update; what they lack they lack, but what they are told is true.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::doc::{StateVector, Trust};
use crate::protocol::awareness::AwarenessUpdate;
use crate::protocol::close::ErrorCode;
use crate::protocol::yjs::Message;
use crate::room::{Closing, Delivery, Form, Kind, Out};
use crate::session::channel::{Channel, Ended, Request};
use crate::session::context::Session;
use crate::session::outbound::{self, End, Words};
use crate::transport::{CloseReason, Link, Received, Receiver};

/// Stock clients close when nothing came for 30 s (WebSocket pings do not count in browsers), and look every 3 s. Room
/// keyframes do not come when nobody shows presence, so this is the channel's own.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// How long a client that is refused for good waits for the word of it.
const FINAL_PAUSE: Duration = Duration::from_millis(500);

/// How long a client that takes no more may go on being heard.
const LAST_EDITS_MAX: Duration = Duration::from_secs(2);

/// The one document of such a link.
const CHANNEL: u32 = 1;

/// Serves one stock client until it goes.
pub(in crate::session) async fn run(session: Arc<Session>, link: Link, document: &str) {
    let Link {
        mut receiver,
        sender,
        ..
    } = link;
    let mut writer = sender.writer(CHANNEL);
    let closing = match Channel::open(session.clone(), document, Request::default()).await {
        Ok(channel) => {
            let closing = {
                let mut words = Yjs;
                let outbound = outbound::write(&channel, &mut writer, &mut words);
                let inbound = inbound(&channel, &mut receiver);
                tokio::pin!(outbound, inbound);
                tokio::select! {
                    end = &mut outbound => {
                        if matches!(end, End::Failed) {
                            // A client that went takes no more words; what it sent before is still on its way to us.
                            // The same future goes on: it may hold a message.
                            let _ = timeout(LAST_EDITS_MAX, inbound).await;
                        }
                        end.into_closing()
                    }
                    closing = &mut inbound => {
                        channel.close(closing);
                        outbound.await.into_closing()
                    }
                    () = session.context.scope.stopping() => {
                        // The last commits are not waited for: nothing in this dialect tells of them.
                        channel.close(Closing::new(ErrorCode::ShuttingDown, "the server is stopping"));
                        outbound.await.into_closing()
                    }
                }
            };
            channel.leave().await;
            closing
        }
        Err(closing) => {
            let mut frames = Vec::new();
            Yjs.last(&closing, &mut frames);
            if let Err(error) = writer.write(&frames).await {
                debug!(%error, "refuse a document");
            }
            closing
        }
    };
    // Clients before 3.1 reset their backoff whenever a socket opens, and come again after 100 ms whatever the code says:
    // a final refusal costs them this pause, and us several times less.
    if !closing.code.is_retryable() && closing.code != ErrorCode::Normal {
        tokio::select! {
            () = session.context.scope.stopping() => {}
            () = gone(&mut receiver) => {}
            () = sleep(FINAL_PAUSE) => {}
        }
    }
    sender
        .close(CloseReason::new(closing.code, closing.text))
        .await;
}

/// Waits until the client has gone, whatever it still says.
async fn gone(receiver: &mut Receiver) {
    while let Ok(Some(_)) = receiver.recv().await {}
}

/// Takes the client's messages until it goes or breaks the protocol.
async fn inbound(channel: &Channel, receiver: &mut Receiver) -> Closing {
    let mut sequence = 0;
    loop {
        let bytes = match receiver.recv().await {
            Ok(Some(Received::Frame { bytes, .. })) => bytes,
            Ok(Some(Received::Datagram { .. } | Received::Ended { .. })) => continue,
            Ok(None) => return Closing::new(ErrorCode::Normal, ""),
            Err(error) => return Closing::new(error.code(), error.to_string()),
        };
        match take(channel, &bytes, &mut sequence).await {
            Ok(Ok(())) => {}
            // The room is gone and told the mailbox why.
            Ok(Err(Ended)) => std::future::pending().await,
            Err(closing) => return closing,
        }
    }
}

/// Takes one message. The outer error ends the connection.
async fn take(
    channel: &Channel,
    bytes: &Bytes,
    sequence: &mut u64,
) -> Result<Result<(), Ended>, Closing> {
    let malformed = |what: &str| Closing::new(ErrorCode::InvalidMessage, what.to_owned());
    let message = Message::decode(bytes).map_err(|error| malformed(&error.to_string()))?;
    let told = match message {
        Some(Message::SyncStep1(state_vector)) => {
            let state_vector = StateVector::decode(&state_vector)
                .map_err(|error| malformed(&error.to_string()))?;
            channel.missing(state_vector).await
        }
        Some(Message::SyncStep2(update)) => {
            *sequence += 1;
            channel.update(*sequence, Kind::Answer, &update).await
        }
        Some(Message::Update(update)) => {
            *sequence += 1;
            channel.update(*sequence, Kind::Live, &update).await
        }
        Some(Message::Awareness(update)) => {
            let update =
                AwarenessUpdate::decode(&update).map_err(|error| malformed(&error.to_string()))?;
            channel.presence(update, Trust::Stock).await
        }
        Some(Message::QueryAwareness) => channel.query_presence().await,
        // Stock clients send no auth message, and what a later one sends beyond this is not for us.
        Some(Message::Denied(_)) | None => Ok(()),
    };
    Ok(told)
}

/// The words of y-protocols.
struct Yjs;

impl Words for Yjs {
    fn say(&mut self, out: &Out, frames: &mut Vec<Bytes>) -> Option<Closing> {
        match out {
            Out::Opened(opened) => {
                frames.push(Message::SyncStep1(opened.state_vector.clone()).encode());
                if !opened.presence.is_empty() {
                    frames.push(Message::Awareness(opened.presence.clone()).encode());
                }
            }
            Out::Missing(update) => frames.push(Message::SyncStep2(update.clone()).encode()),
            Out::Update(update) => frames.push(update.frame(Form::Yjs, |update| {
                Message::Update(update.body().clone()).encode()
            })),
            // Nothing was lost on the way to a WebSocket.
            Out::Presence(presence) if presence.delivery() == Delivery::Repeat => {}
            Out::Presence(presence) => frames.push(presence.frame(Form::Yjs, |presence| {
                Message::Awareness(presence.body().clone()).encode()
            })),
            Out::SyncRequest(state_vector) => {
                frames.push(Message::SyncStep1(state_vector.clone()).encode())
            }
            // No words for a refusal of one update. A terminal one ends the connection (a client whose update was refused
            // sends nothing admissible afterwards); a passing one is followed by our step 1.
            Out::Rejected {
                code,
                text,
                terminal: true,
                ..
            } => return Some(Closing::new(*code, text.clone())),
            Out::Rejected { .. }
            | Out::Seen(_)
            | Out::Durable(_)
            | Out::Access(_)
            | Out::Message(_)
            | Out::Closed(_) => {}
        }
        None
    }

    fn last(&mut self, closing: &Closing, frames: &mut Vec<Bytes>) {
        if closing.code == ErrorCode::PermissionDenied {
            frames.push(Message::Denied(closing.text.clone()).encode());
        }
    }

    fn filler(&self) -> Option<(Duration, Bytes)> {
        // An awareness update of nobody.
        Some((
            SILENCE_MAX,
            Message::Awareness(Bytes::from_static(&[0])).encode(),
        ))
    }
}
