//! The one queue between a link's readers and its session.
//!
//! Several readers (one per WebTransport stream) feed one bounded queue. It is bounded twice, by items and by bytes, since
//! a frame may be 2 bytes or 64 MiB. When it is full a reader waits, and so stops reading: QUIC flow control or TCP then
//! pushes back on the peer. Datagrams never wait: one that finds the queue full is dropped, as the network might have.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::{Received, RecvError};

/// Items that may wait. Enough that a burst of small edits is read in one go, few enough to push back soon.
const ITEMS_MAX: usize = 64;

/// Bytes that may wait, whatever the items. One frame larger than this waits alone.
const BYTES_MAX: usize = 1 << 20;

/// The session has gone: nobody reads any more, the reader ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

#[derive(Debug)]
struct Queued {
    item: Result<Received, RecvError>,
    /// Gives the bytes back to the budget when the session has taken the item.
    _bytes: Option<OwnedSemaphorePermit>,
}

/// The writing end. Cheap to clone, one per reader.
#[derive(Debug, Clone)]
pub(super) struct Feed {
    queue: mpsc::Sender<Queued>,
    budget: Arc<Semaphore>,
    ended: CancellationToken,
}

/// A writing end that does not keep the queue from ending.
#[derive(Debug, Clone)]
pub(super) struct WeakFeed {
    queue: mpsc::WeakSender<Queued>,
    budget: Arc<Semaphore>,
    ended: CancellationToken,
}

impl WeakFeed {
    /// The writing end, unless the queue has ended.
    pub(super) fn upgrade(&self) -> Option<Feed> {
        Some(Feed {
            queue: self.queue.upgrade()?,
            budget: self.budget.clone(),
            ended: self.ended.clone(),
        })
    }
}

/// The session's end.
#[derive(Debug)]
pub(super) struct Inbox {
    queue: mpsc::Receiver<Queued>,
    budget: Arc<Semaphore>,
    ended: CancellationToken,
    /// Set when what is queued is lost too (a link that was cut).
    cut: CancellationToken,
    /// Cancelled when the session drops its receiver: the link's tasks end.
    dropped: CancellationToken,
    over: bool,
}

/// A queue whose receiver cancels `dropped` when it is dropped.
pub(super) fn inbox(dropped: CancellationToken) -> (Feed, Inbox) {
    let (sender, receiver) = mpsc::channel(ITEMS_MAX);
    let budget = Arc::new(Semaphore::new(BYTES_MAX));
    let ended = CancellationToken::new();
    (
        Feed {
            queue: sender,
            budget: budget.clone(),
            ended: ended.clone(),
        },
        Inbox {
            queue: receiver,
            budget,
            ended,
            cut: CancellationToken::new(),
            dropped,
            over: false,
        },
    )
}

impl Feed {
    /// See [`WeakFeed`].
    pub(super) fn downgrade(&self) -> WeakFeed {
        WeakFeed {
            queue: self.queue.downgrade(),
            budget: self.budget.clone(),
            ended: self.ended.clone(),
        }
    }

    /// Queues a frame; waits while the queue is full.
    pub(super) async fn frame(&self, channel: u32, bytes: Bytes) -> Result<(), Gone> {
        let n_bytes = bytes.len().clamp(1, BYTES_MAX);
        let n_bytes = u32::try_from(n_bytes).expect("BYTES_MAX fits u32");
        let permit = tokio::select! {
            biased;
            () = self.ended.cancelled() => return Err(Gone),
            permit = self.budget.clone().acquire_many_owned(n_bytes) => permit.map_err(|_| Gone)?,
        };
        self.push(Ok(Received::Frame { channel, bytes }), Some(permit))
            .await
    }

    /// Queues the end of a channel; waits while the queue is full.
    pub(super) async fn channel_ended(&self, channel: u32) -> Result<(), Gone> {
        self.push(Ok(Received::Ended { channel }), None).await
    }

    /// Queues a violation, after what came before it; waits while the queue is full.
    pub(super) async fn violation(&self, error: RecvError) -> Result<(), Gone> {
        self.push(Err(error), None).await
    }

    /// Queues a datagram, or drops it when the queue is full. False when it was dropped.
    pub(super) fn datagram(&self, channel: u32, bytes: Bytes) -> bool {
        self.queue
            .try_send(Queued {
                item: Ok(Received::Datagram { channel, bytes }),
                _bytes: None,
            })
            .is_ok()
    }

    /// The token that [`Feed::end`] cancels.
    pub(super) fn ended_token(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Ends the queue: the session takes what is queued, then `None`. Waiting and later feeds get [`Gone`].
    pub(super) fn end(&self) {
        self.ended.cancel();
    }

    /// Whether the session has gone or the queue was ended.
    pub(super) fn is_ended(&self) -> bool {
        self.ended.is_cancelled() || self.queue.is_closed()
    }

    async fn push(
        &self,
        item: Result<Received, RecvError>,
        bytes: Option<OwnedSemaphorePermit>,
    ) -> Result<(), Gone> {
        let queued = Queued {
            item,
            _bytes: bytes,
        };
        tokio::select! {
            biased;
            () = self.ended.cancelled() => Err(Gone),
            sent = self.queue.send(queued) => sent.map_err(|_| Gone),
        }
    }
}

impl Inbox {
    /// The token that makes what is queued vanish and the queue end, at once.
    pub(super) fn cut_token(&self) -> CancellationToken {
        self.cut.clone()
    }

    /// How many more bytes may wait.
    #[cfg(test)]
    pub(super) fn n_bytes_free(&self) -> usize {
        self.budget.available_permits()
    }

    /// See [`super::Receiver::recv`].
    pub(super) async fn recv(&mut self) -> Result<Option<Received>, RecvError> {
        if self.over {
            return Ok(None);
        }
        let queued = tokio::select! {
            // A cut loses what is queued, an end does not.
            biased;
            () = self.cut.cancelled() => None,
            queued = self.queue.recv() => queued,
            () = self.ended.cancelled() => self.queue.try_recv().ok(),
        };
        match queued {
            Some(Queued { item: Ok(item), .. }) => Ok(Some(item)),
            Some(Queued {
                item: Err(error), ..
            }) => {
                self.over = true;
                Err(error)
            }
            None => {
                self.over = true;
                Ok(None)
            }
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        // Wakes readers that wait for bytes; those that wait for a place are woken by the queue itself.
        self.budget.close();
        self.ended.cancel();
        self.dropped.cancel();
    }
}
