//! Syncline: a self-hosted server for documents that many people edit at once.
//!
//! Modules in the order in which they are best read; `ARCHITECTURE.md` has the map and the rules of who may import whom.

pub mod ids;
pub mod clock;
pub mod shutdown;

pub mod protocol;
pub mod doc;
pub mod auth;
pub mod limits;
pub mod telemetry;

pub mod transport;
pub mod store;

pub mod room;
pub mod session;

pub mod http;
pub mod config;
pub mod node;
pub mod cli;
