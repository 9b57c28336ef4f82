//! Every metric of the server in one struct, each with one sentence.
//!
//! The sentence is both the rustdoc of the field and the help text at `/metrics`: it is written once. [`Metrics`] is
//! shared by `Arc` and handed down, never static, so tests read the counters of exactly the node that they started.
//! Label values are `&'static str` on purpose: nothing that a client chooses can become a label and grow the registry.
//! The types here wrap `prometheus-client`, which no other module imports.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::{counter, gauge, histogram};
use prometheus_client::registry::{Metric, Registry};

/// Upper bounds of the buckets of latencies, in seconds: from a write into the page cache to a store that hangs.
const LATENCY_BUCKETS_S: [f64; 14] = [
    0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
];

/// A number that only grows.
#[derive(Debug, Clone, Default)]
pub struct Counter(counter::Counter);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.inc_by(n);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// A number that goes up and down.
#[derive(Debug, Clone, Default)]
pub struct Gauge(gauge::Gauge);

impl Gauge {
    /// Adds one.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// Takes one away.
    pub fn dec(&self) {
        self.0.dec();
    }

    /// Adds one until the returned guard is dropped.
    #[must_use = "the gauge goes down again when the guard is dropped"]
    pub fn hold(&self) -> Held {
        self.inc();
        Held(self.clone())
    }

    /// One part of the sum that this gauge shows went from `before` to `after`; saturates at `i64::MAX`.
    pub fn moved(&self, before: u64, after: u64) {
        let signed = |value| i64::try_from(value).unwrap_or(i64::MAX);
        self.0.inc_by(signed(after) - signed(before));
    }

    /// Sets the value; saturates at `i64::MAX`.
    pub fn set(&self, value: u64) {
        self.0.set(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// The value now.
    pub fn get(&self) -> i64 {
        self.0.get()
    }
}

/// Keeps a [`Gauge`] one higher for as long as it lives, whatever way its owner ends.
#[derive(Debug)]
pub struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Durations, counted in buckets.
#[derive(Debug, Clone)]
pub struct Histogram {
    inner: histogram::Histogram,
    /// The wrapped type shows its count to the exporter only.
    n_observed: Arc<AtomicU64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            inner: histogram::Histogram::new(LATENCY_BUCKETS_S),
            n_observed: Arc::default(),
        }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        self.inner.observe(duration.as_secs_f64());
        self.n_observed.fetch_add(1, Ordering::Relaxed);
    }

    /// How many durations were observed.
    pub fn count(&self) -> u64 {
        self.n_observed.load(Ordering::Relaxed)
    }
}

/// The labels of one time series: names and values that are part of the program.
type Labels<const N: usize> = [(&'static str, &'static str); N];

/// Counters told apart by `N` labels.
#[derive(Clone)]
pub struct Counters<const N: usize> {
    names: [&'static str; N],
    family: Family<Labels<N>, counter::Counter>,
}

impl<const N: usize> Counters<N> {
    fn new(names: [&'static str; N]) -> Self {
        Self {
            names,
            family: Family::default(),
        }
    }

    /// Adds one to the counter with these label values, in the order of the field's documentation.
    pub fn inc(&self, values: [&'static str; N]) {
        self.add(values, 1);
    }

    /// Adds `n` to the counter with these label values.
    pub fn add(&self, values: [&'static str; N], n: u64) {
        self.family
            .get_or_create(&labels(self.names, values))
            .inc_by(n);
    }

    /// The value of one counter; zero when it was never touched.
    pub fn get(&self, values: [&'static str; N]) -> u64 {
        self.family
            .get(&labels(self.names, values))
            .map_or(0, |counter| counter.get())
    }
}

impl<const N: usize> fmt::Debug for Counters<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Counters{:?}", self.names)
    }
}

/// Gauges told apart by `N` labels.
#[derive(Clone)]
pub struct Gauges<const N: usize> {
    names: [&'static str; N],
    family: Family<Labels<N>, gauge::Gauge>,
}

impl<const N: usize> Gauges<N> {
    fn new(names: [&'static str; N]) -> Self {
        Self {
            names,
            family: Family::default(),
        }
    }

    /// The gauge with these label values, in the order of the field's documentation.
    pub fn with(&self, values: [&'static str; N]) -> Gauge {
        Gauge(self.family.get_or_create_owned(&labels(self.names, values)))
    }

    /// The value of one gauge; zero when it was never touched.
    pub fn get(&self, values: [&'static str; N]) -> i64 {
        self.family
            .get(&labels(self.names, values))
            .map_or(0, |gauge| gauge.get())
    }
}

impl<const N: usize> fmt::Debug for Gauges<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gauges{:?}", self.names)
    }
}

fn labels<const N: usize>(names: [&'static str; N], values: [&'static str; N]) -> Labels<N> {
    std::array::from_fn(|i| (names[i], values[i]))
}

/// What a field hands to the registry.
trait Registered {
    type Inner: Metric;
    fn inner(&self) -> Self::Inner;
}

impl Registered for Counter {
    type Inner = counter::Counter;
    fn inner(&self) -> Self::Inner {
        self.0.clone()
    }
}

impl Registered for Gauge {
    type Inner = gauge::Gauge;
    fn inner(&self) -> Self::Inner {
        self.0.clone()
    }
}

impl Registered for Histogram {
    type Inner = histogram::Histogram;
    fn inner(&self) -> Self::Inner {
        self.inner.clone()
    }
}

impl<const N: usize> Registered for Counters<N> {
    type Inner = Family<Labels<N>, counter::Counter>;
    fn inner(&self) -> Self::Inner {
        self.family.clone()
    }
}

impl<const N: usize> Registered for Gauges<N> {
    type Inner = Family<Labels<N>, gauge::Gauge>;
    fn inner(&self) -> Self::Inner {
        self.family.clone()
    }
}

/// Declares the struct, its documentation and its registration from one list. A name ends as Prometheus wants it
/// (`_seconds`, `_bytes`); the exporter adds `_total` to counters.
macro_rules! metrics {
    ($(#[doc = $help:literal] $field:ident: $type:ty $(= $new:expr)?, $name:literal;)*) => {
        /// The metrics of one node. Every field says what it counts.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: $type,)*
        }

        impl Metrics {
            /// A fresh set, all zero.
            pub fn new() -> Self {
                let mut registry = Registry::with_prefix("syncline");
                $(
                    let $field: $type = metrics!(@new $($new)?);
                    registry.register($name, $help.trim().trim_end_matches('.'), $field.inner());
                )*
                Self { registry, $($field,)* }
            }

            /// The names (without the prefix `syncline_`) and sentences of all metrics, for the documentation.
            pub const DESCRIBED: &[(&str, &str)] = &[$(($name, $help),)*];
        }
    };
    (@new $new:expr) => { $new };
    (@new) => { Default::default() };
}

metrics! {
    /// Sessions that are connected now, by carrier and dialect.
    sessions: Gauges<2> = Gauges::new(["carrier", "dialect"]), "sessions";
    /// Sessions that were admitted since the start, by carrier and dialect.
    sessions_opened: Counters<2> = Counters::new(["carrier", "dialect"]), "sessions_opened";
    /// Handshakes that were refused before a session began, by reason.
    handshakes_refused: Counters<1> = Counters::new(["reason"]), "handshakes_refused";
    /// Bytes received from clients, by carrier.
    bytes_in: Counters<1> = Counters::new(["carrier"]), "received_bytes";
    /// Bytes sent to clients, by carrier.
    bytes_out: Counters<1> = Counters::new(["carrier"]), "sent_bytes";

    /// Rooms (documents with members, or kept warm) that are open now.
    rooms_open: Gauge, "rooms_open";
    /// Documents that were read from the store since the start.
    documents_loaded: Counter, "documents_loaded";
    /// Members who joined a room.
    joins: Counter, "room_joins";
    /// Times that a sender had to wait because a room's inbox was full.
    room_inbox_full: Counter, "room_inbox_full";
    /// Merges of a whole document that rooms computed: a storm of joins shares one.
    room_merges: Counter, "room_merges";

    /// Bytes that the documents of open rooms hold in memory.
    document_bytes: Gauge, "room_document_bytes";

    /// Rows in the logs of the documents that are open, as their rooms count them.
    live_rows: Gauge, "log_live_rows";
    /// Compactions by outcome: done, raced (somebody else was faster), nothing (to fold), failed.
    compactions: Counters<1> = Counters::new(["outcome"]), "compactions";
    /// Compactions of which the snapshot is the merged bytes, since collecting was not possible.
    compactions_merged: Counter, "compactions_merged";
    /// Rows that compactions took out of the log.
    compacted_rows: Counter, "compacted_rows";
    /// Time of a compaction, from when it was due, in seconds.
    compaction_latency: Histogram, "compaction_latency_seconds";

    /// Updates that brought something new and were journalled and relayed.
    updates_admitted: Counter, "updates_admitted";
    /// Updates that brought nothing new, so were neither journalled nor relayed.
    updates_without_news: Counter, "updates_without_news";
    /// Updates of which a part waits for edits that the server lacks.
    updates_parked: Counter, "updates_parked";
    /// Updates that were refused, by error code.
    updates_rejected: Counters<1> = Counters::new(["code"]), "updates_rejected";
    /// Frames with an edit that were put into the outbox of another member.
    relayed_frames: Counter, "relayed_frames";
    /// Times that a slow member's queue was dropped and replaced by one diff.
    resyncs: Counter, "member_resyncs";
    /// Presence messages received from clients.
    presence_in: Counter, "presence_received";
    /// Presence messages sent to members, after those of one tick were joined.
    presence_out: Counter, "presence_sent";

    /// Bytes written to the journal file.
    journal_bytes: Counter, "journal_written_bytes";
    /// Records written to the journal file.
    journal_records: Counter, "journal_records";
    /// Transactions that the store committed.
    commits: Counter, "store_commits";
    /// Log rows that the store committed.
    committed_rows: Counter, "store_committed_rows";
    /// Time from the first row of a batch until its commit, in seconds.
    commit_latency: Histogram, "store_commit_latency_seconds";
    /// Commits that failed and are tried again with the same keys.
    commit_failures: Counter, "store_commit_failures";
    /// Bytes of edits that are relayed but not yet committed.
    unsaved_bytes: Gauge, "unsaved_bytes";

    /// Requests to CRDT workers that were begun.
    worker_requests: Counter, "worker_requests";
    /// Worker processes that had to be replaced, by reason: start, timeout, died, wrong-answer.
    workers_failed: Counters<1> = Counters::new(["reason"]), "workers_failed";
    /// Inputs of failed worker requests that were kept in the quarantine.
    quarantined: Counter, "quarantined_inputs";
    /// Documents over which workers failed twice: they are edited as ever, and merged but not collected for a while.
    flagged_documents: Gauge, "flagged_documents";

    /// HTTP connections that are open now, upgraded ones included.
    http_connections: Gauge, "http_connections";
    /// HTTP connections that were refused, by reason.
    http_refused: Counters<1> = Counters::new(["reason"]), "http_connections_refused";
    /// HTTP requests answered, by class of the status code.
    http_requests: Counters<1> = Counters::new(["status"]), "http_requests";
}

impl Metrics {
    /// Everything, in the text format that Prometheus scrapes.
    pub fn render(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("writing to a String does not fail");
        out
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_rendered_with_its_sentence() {
        let metrics = Metrics::new();
        // A metric with labels appears with its first value.
        drop(metrics.sessions.with(["a", "b"]));
        metrics.sessions_opened.inc(["a", "b"]);
        for labelled in [
            &metrics.handshakes_refused,
            &metrics.bytes_in,
            &metrics.bytes_out,
            &metrics.updates_rejected,
            &metrics.workers_failed,
            &metrics.compactions,
            &metrics.http_refused,
            &metrics.http_requests,
        ] {
            labelled.inc(["a"]);
        }
        let text = metrics.render();
        for (name, sentence) in Metrics::DESCRIBED {
            let help = sentence.trim();
            assert!(
                help.ends_with('.'),
                "{name}: one sentence, with its full stop"
            );
            assert!(
                text.contains(&format!("# HELP syncline_{name} {help}\n")),
                "{name} is missing in:\n{text}"
            );
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = Metrics::DESCRIBED.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Metrics::DESCRIBED.len());
    }

    #[test]
    fn values_are_readable_and_labelled() {
        let metrics = Metrics::new();
        metrics.joins.inc();
        metrics.journal_bytes.add(40);
        metrics.updates_rejected.inc(["invalid_update"]);
        metrics.commit_latency.observe(Duration::from_millis(3));
        let session = metrics.sessions.with(["webtransport", "native"]).hold();
        assert_eq!(metrics.joins.get(), 1);
        assert_eq!(metrics.updates_rejected.get(["invalid_update"]), 1);
        assert_eq!(metrics.updates_rejected.get(["too_large"]), 0);
        assert_eq!(metrics.sessions.get(["webtransport", "native"]), 1);
        assert_eq!(metrics.commit_latency.count(), 1);
        let text = metrics.render();
        assert!(text.contains("syncline_room_joins_total 1\n"), "{text}");
        assert!(
            text.contains("syncline_journal_written_bytes_total 40\n"),
            "{text}"
        );
        assert!(
            text.contains("syncline_sessions{carrier=\"webtransport\",dialect=\"native\"} 1\n"),
            "{text}"
        );
        assert!(
            text.contains("syncline_store_commit_latency_seconds_bucket{le=\"0.005\"} 1\n"),
            "{text}"
        );
        drop(session);
        assert_eq!(metrics.sessions.get(["webtransport", "native"]), 0);
    }
}
