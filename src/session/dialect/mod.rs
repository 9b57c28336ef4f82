//! The words of each kind of client. All enter through [`super::accept`] and open documents through the same channel.

pub(super) mod native;
mod native_channel;
pub(super) mod yjs;
