//! The words that travel: native frames and messages, error codes, positions, and the y-protocols pieces that other
//! servers' clients speak. Everything here is a pure function of bytes: no async, clock, randomness or I/O, and no input
//! from a peer makes it panic or reserve memory that the peer did not send.
//!
//! The specification follows; unit tests carry the numbers of its rules.
#![doc = include_str!("PROTOCOL.md")]

pub mod varint;

pub mod close;

pub mod position;

pub mod message;

pub mod frame;

pub mod awareness;

pub mod yjs;

#[cfg(test)]
mod properties_tests;
#[cfg(test)]
mod vectors_tests;
