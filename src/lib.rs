//! Syncline: a self-hosted server for documents that many people edit at once.
//!
//! Modules in the order in which they are best read; `ARCHITECTURE.md` has the map and the rules of who may import whom.

pub mod clock;
pub mod ids;
pub mod shutdown;
pub mod units;

pub mod auth;
pub mod doc;
pub mod limits;
pub mod protocol;
pub mod telemetry;

pub mod store;
pub mod transport;

pub mod room;
pub mod session;

pub mod cli;
pub mod config;
pub mod http;
pub mod node;
