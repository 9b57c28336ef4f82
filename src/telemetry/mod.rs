//! What the server tells its operator: logs to standard error, and metrics as documented data.
//!
//! Both are plain values that are passed down. There is no global registry, so that a test can start two nodes in one
//! process and read the counters of each.

pub mod logging;
pub mod metrics;

pub use metrics::Metrics;
