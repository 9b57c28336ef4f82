//! The integration tests, one binary: it links once.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

#[path = "../contract/mod.rs"]
mod contract;

mod collecting;
mod command;
mod idle;
mod kill;
mod leaving;
mod native;
mod poison;
mod presence;
mod sessions;
mod slow;
mod support;
mod trace;
mod workers;
