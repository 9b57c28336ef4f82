//! Structured tasks: every task is spawned here, belongs to a scope, and is waited for.
//!
//! A [`Scope`] is a cancellation token and a task tracker. `stop` asks its tasks (and those of its children) to end and
//! waits until the deadline. There is no other `spawn` in the program (`.clippy.toml` forbids it), so nothing outlives
//! the node that started it.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;

/// A group of tasks that end together. Cheap to clone; clones are the same scope.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Scope {
    /// A scope without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// A scope that is stopped when this one is, and can be stopped alone. Its tasks are counted apart.
    pub fn child(&self) -> Self {
        Self {
            token: self.token.child_token(),
            tasks: TaskTracker::new(),
        }
    }

    /// Runs a task in this scope. The task must end soon after [`Scope::stopping`] resolves.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(self.tasks.track_future(task))
    }

    /// Resolves when the scope is asked to stop.
    pub fn stopping(&self) -> WaitForCancellationFuture<'_> {
        self.token.cancelled()
    }

    /// Whether the scope was asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Asks every task to stop, without waiting.
    pub fn request_stop(&self) {
        self.token.cancel();
    }

    /// How many tasks of this scope (not of its children) are running.
    pub fn n_tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Asks every task to stop and waits for them. False when some were still running at the deadline.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.token.cancel();
        self.tasks.close();
        timeout(deadline, self.tasks.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn stop_reaches_children_and_reports_a_task_that_will_not_end() {
        let parent = Scope::new();
        let child = parent.child();
        let in_child = child.clone();
        let ended = child.spawn(async move { in_child.stopping().await });
        assert!(parent.stop(Duration::from_secs(1)).await);
        ended.await.unwrap();

        let stubborn = Scope::new();
        let task = stubborn.spawn(std::future::pending::<()>());
        assert!(!stubborn.stop(Duration::from_secs(1)).await);
        task.abort();
    }
}
