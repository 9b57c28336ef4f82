//! The only place that reads the wall clock. Pure code gets time as an argument; nothing orders edits by it, since a
//! wall clock jumps. It stamps log rows for people, and dates certificates.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, UTC. Zero if the clock stands before 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
pub fn unix_millis() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, saturating_millis)
}

/// A duration in whole milliseconds, as the wire counts them; saturates at `u64::MAX`.
pub fn saturating_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
