//! One thing that many members receive, encoded once for each wire form.
//!
//! A room relays an update to a thousand members; what it costs must be one encoding and a thousand pointer copies. The
//! forms are filled on first use by the members' writers, which know their dialect: the room does not.

use std::sync::OnceLock;

use bytes::Bytes;

use crate::protocol::position::Position;

/// A wire form that members may share. Dialects that frame alike use the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The native protocol's message.
    Native,
    /// A y-protocols message, as y-websocket sends it.
    Yjs,
}

/// How sure a message has to arrive, where a member's path has a quick way that may lose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The quick way will do: something newer follows soon, or a repeat does.
    Hint,
    /// It must arrive.
    Sure,
    /// It repeats hints from [`Broadcast::from`] on: it must reach those to whom one of them went the quick way. Nobody
    /// else needs it.
    Repeat,
}

const N_FORMS: usize = 2;

/// An update, a presence message or an application's message on its way to many members.
#[derive(Debug)]
pub struct Broadcast {
    from: u64,
    number: u64,
    position: Position,
    body: Bytes,
    delivery: Delivery,
    forms: [OnceLock<Bytes>; N_FORMS],
}

impl Broadcast {
    /// An update. `number` is the room's push number after it, `position` the entries that moved with it.
    pub fn update(number: u64, position: Position, body: Bytes) -> Self {
        Self {
            from: number.saturating_sub(1),
            number,
            position,
            body,
            delivery: Delivery::Sure,
            forms: Default::default(),
        }
    }

    /// The one diff for a member that has every push up to `from`: what came after it, up to `number`.
    pub fn catch_up(from: u64, number: u64, position: Position, body: Bytes) -> Self {
        Self {
            from,
            ..Self::update(number, position, body)
        }
    }

    /// An application's message.
    pub fn message(body: Bytes) -> Self {
        Self::update(0, Position::new(), body)
    }

    /// What people show now. `number` counts the room's presence hints, from 1.
    pub fn presence_hint(number: u64, body: Bytes) -> Self {
        Self {
            number,
            delivery: Delivery::Hint,
            ..Self::message(body)
        }
    }

    /// Presence that must arrive: that somebody is gone, the whole table, a word to one member.
    pub fn presence(body: Bytes) -> Self {
        Self::message(body)
    }

    /// What hints told, from number `from` on, and is the last word for now.
    pub fn presence_repeat(from: u64, body: Bytes) -> Self {
        Self {
            from,
            delivery: Delivery::Repeat,
            ..Self::message(body)
        }
    }

    /// The room's push number after this update, or the number of a presence hint; 0 for everything else.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Who has every push up to this one lacks nothing before this update. Of a repeat: the first hint that it repeats.
    pub fn from(&self) -> u64 {
        self.from
    }

    /// The entries of the position that moved with this update.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// The Yjs update, awareness update or application's bytes.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// How sure it has to arrive.
    pub fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// Its size in bytes, for bounds.
    pub fn len(&self) -> usize {
        self.body.len()
    }

    /// Whether it carries nothing.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// The message in one wire form, encoded by the first who asks.
    pub fn frame(&self, form: Form, encode: impl FnOnce(&Self) -> Bytes) -> Bytes {
        self.forms[form as usize]
            .get_or_init(|| encode(self))
            .clone()
    }
}
