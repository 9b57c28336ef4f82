//! The write ends of a WebTransport link, by channel.
//!
//! A stream's write end lies here between writes, so that closing the link can finish every stream and await what the peer
//! acknowledges, whoever holds the writers. A write takes the end out and puts it back; if its future is dropped in
//! between, the stream is reset, since the peer may hold half a message.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::time::timeout;

use super::halves::SendHalf;
use crate::protocol::frame::frame_prefix;
use crate::transport::{WRITE_STALL, WriteError};

/// Messages up to this size are copied together into one chunk; larger ones are handed over as they are. A chunk costs an
/// allocation and a place in the send queue, a copy of 4 KiB about as much.
const COPY_BYTES_MAX: usize = 4 * 1024;

/// A wait for the peer's acknowledgement of a finished stream.
type Acknowledged = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// One channel's stream, as far as writing is concerned.
enum WriteEnd {
    /// Nobody writes. The bytes are the preamble that a client's first frame takes along.
    Idle(SendHalf, Option<Bytes>),
    /// A write has it.
    Busy,
    /// Finished by us.
    Finished,
    /// Reset, by a write that was cut short or failed.
    Broken,
}

struct Channel {
    write: WriteEnd,
    /// Whether the peer has not ended its side.
    is_reading: bool,
}

#[derive(Default)]
struct Table {
    channels: HashMap<u32, Channel>,
    /// Streams that we finished and the peer may not have acknowledged. Not longer than the streams that the peer may have
    /// open, since an unacknowledged stream counts as open.
    finishing: Vec<Acknowledged>,
}

/// The streams of one link.
#[derive(Default)]
pub(super) struct Streams(Mutex<Table>);

/// The number is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken;

impl Streams {
    fn table(&self) -> MutexGuard<'_, Table> {
        // No code that holds the lock can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a channel's stream. A number is free again when both sides have ended it.
    pub(super) fn add(
        &self,
        channel: u32,
        stream: SendHalf,
        preamble: Option<Bytes>,
    ) -> Result<(), Taken> {
        let mut table = self.table();
        if table.channels.contains_key(&channel) {
            return Err(Taken);
        }
        table.channels.insert(
            channel,
            Channel {
                write: WriteEnd::Idle(stream, preamble),
                is_reading: true,
            },
        );
        Ok(())
    }

    /// The peer has ended its side.
    pub(super) fn read_ended(&self, channel: u32) {
        let mut table = self.table();
        if let Some(entry) = table.channels.get_mut(&channel) {
            entry.is_reading = false;
        }
        table.forget_if_over(channel);
    }

    /// Finishes our side: what was written is still delivered.
    pub(super) fn finish(&self, channel: u32) {
        let mut table = self.table();
        let Some(entry) = table.channels.get_mut(&channel) else {
            return;
        };
        if let WriteEnd::Idle(..) = &entry.write
            && let WriteEnd::Idle(stream, _) =
                std::mem::replace(&mut entry.write, WriteEnd::Finished)
        {
            table
                .finishing
                .retain_mut(|acknowledged| acknowledged.now_or_never().is_none());
            table.finishing.push(finish(stream));
        }
        table.forget_if_over(channel);
    }

    /// Finishes every stream that nobody is writing, and waits until the peer has acknowledged all that was finished.
    pub(super) async fn finish_all(&self) {
        let finishing = {
            let mut table = self.table();
            let mut finishing = std::mem::take(&mut table.finishing);
            for entry in table.channels.values_mut() {
                if let WriteEnd::Idle(..) = &entry.write
                    && let WriteEnd::Idle(stream, _) =
                        std::mem::replace(&mut entry.write, WriteEnd::Finished)
                {
                    finishing.push(finish(stream));
                }
            }
            finishing
        };
        join_all(finishing).await;
    }

    /// Writes messages, each behind its length.
    pub(super) async fn write(&self, channel: u32, frames: &[Bytes]) -> Result<(), WriteError> {
        let mut lease = self.lease(channel)?;
        let mut chunks = chunks(lease.preamble.take(), frames);
        let mut rest = chunks.as_mut_slice();
        let Some(stream) = lease.stream.as_mut() else {
            return Err(WriteError::Broken { channel });
        };
        while !rest.is_empty() {
            // Any progress restarts the clock: only a peer that takes nothing is stuck.
            let written = timeout(WRITE_STALL, stream.quic_mut().write_chunks(rest))
                .await
                .map_err(|_| WriteError::Stalled { after: WRITE_STALL })?
                .map_err(|error| match error {
                    quinn::WriteError::Stopped(_) => WriteError::Stopped { channel },
                    quinn::WriteError::ConnectionLost(_) | quinn::WriteError::ZeroRttRejected => {
                        WriteError::Closed
                    }
                    quinn::WriteError::ClosedStream => WriteError::NotOpen { channel },
                })?;
            rest = &mut rest[written.chunks..];
        }
        lease.give_back();
        Ok(())
    }

    fn lease(&self, channel: u32) -> Result<Lease<'_>, WriteError> {
        let mut table = self.table();
        let Some(entry) = table.channels.get_mut(&channel) else {
            return Err(WriteError::NotOpen { channel });
        };
        match std::mem::replace(&mut entry.write, WriteEnd::Busy) {
            WriteEnd::Idle(stream, preamble) => Ok(Lease {
                streams: self,
                channel,
                stream: Some(stream),
                preamble,
            }),
            WriteEnd::Finished => {
                entry.write = WriteEnd::Finished;
                Err(WriteError::NotOpen { channel })
            }
            WriteEnd::Busy => Err(WriteError::Broken { channel }),
            WriteEnd::Broken => {
                entry.write = WriteEnd::Broken;
                Err(WriteError::Broken { channel })
            }
        }
    }
}

impl Table {
    fn forget_if_over(&mut self, channel: u32) {
        if let Some(entry) = self.channels.get(&channel)
            && !entry.is_reading
            && matches!(entry.write, WriteEnd::Finished | WriteEnd::Broken)
        {
            self.channels.remove(&channel);
        }
    }
}

/// A write end taken out for one write. Dropped without [`Lease::give_back`], it resets the stream.
struct Lease<'a> {
    streams: &'a Streams,
    channel: u32,
    stream: Option<SendHalf>,
    preamble: Option<Bytes>,
}

impl Lease<'_> {
    fn give_back(mut self) {
        if let Some(stream) = self.stream.take() {
            self.put(WriteEnd::Idle(stream, None));
        }
    }

    fn put(&self, write: WriteEnd) {
        let mut table = self.streams.table();
        if let Some(entry) = table.channels.get_mut(&self.channel) {
            entry.write = write;
        }
        table.forget_if_over(self.channel);
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            // It fails when the stream is closed already.
            let _ = stream.quic_mut().reset(quinn::VarInt::from_u32(0));
            self.put(WriteEnd::Broken);
        }
    }
}

/// Finishes a stream and gives the wait for the peer's acknowledgement.
fn finish(mut stream: SendHalf) -> Acknowledged {
    // It fails when the peer has stopped the stream, and then there is nothing to wait for.
    let _ = stream.quic_mut().finish();
    Box::pin(stream.quic().stopped().map(|_| ()))
}

/// The bytes of a write, small messages gathered, large ones as they are.
fn chunks(preamble: Option<Bytes>, frames: &[Bytes]) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    let mut gathered = BytesMut::new();
    gathered.extend_from_slice(&preamble.unwrap_or_default());
    for frame in frames {
        gathered.extend_from_slice(frame_prefix(frame.len()).as_slice());
        if frame.len() <= COPY_BYTES_MAX {
            gathered.extend_from_slice(frame);
        } else {
            chunks.push(gathered.split().freeze());
            chunks.push(frame.clone());
        }
    }
    if !gathered.is_empty() {
        chunks.push(gathered.freeze());
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_messages_share_a_chunk_and_large_ones_are_not_copied() {
        let small = Bytes::from_static(b"ab");
        let large = Bytes::from(vec![7; COPY_BYTES_MAX + 1]);
        let frames = [small.clone(), small.clone(), large.clone(), small];
        let chunks = chunks(Some(Bytes::from_static(&[5])), &frames);
        assert_eq!(chunks.len(), 3);
        assert_eq!(&chunks[0][..7], &[5, 2, b'a', b'b', 2, b'a', b'b']);
        assert_eq!(chunks[1].as_ptr(), large.as_ptr());
        assert_eq!(&chunks[2][..], &[2, b'a', b'b']);
    }
}
