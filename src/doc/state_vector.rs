//! What a document or a reader holds: for each client, the clock that comes next.
//!
//! It comes from strangers in OPEN and in step 1, so decoding believes no count; and it is an ordered map rather than a
//! hash map, since the keys are chosen by strangers too.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::doc::content::{Cursor, write_uint};
use crate::doc::scan::ScanError;
use crate::ids::{CLIENT_ID_MAX, ClientId};

/// Client to next clock. Clients with clock 0 are not listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateVector(BTreeMap<ClientId, u64>);

/// The most entries that [`StateVector::decode`] takes: as many clients as a document may have.
pub const STATE_VECTOR_CLIENTS_MAX: usize = 1 << 20;

/// Why bytes are not a state vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateVectorError {
    /// It lists more than [`STATE_VECTOR_CLIENTS_MAX`] clients.
    #[error("the state vector lists more than {STATE_VECTOR_CLIENTS_MAX} clients")]
    TooManyClients,
    /// It is not well-formed.
    #[error("the state vector is malformed: {0}")]
    Malformed(#[from] ScanError),
}

impl StateVector {
    /// Of an empty document.
    pub fn new() -> Self {
        Self::default()
    }

    /// From its wire form: `u count`, then `u client, u clock` for each. A client listed twice counts with its larger clock.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateVectorError> {
        let mut cursor = Cursor::new(bytes, 0);
        let count = cursor.count(2)?;
        if count as usize > STATE_VECTOR_CLIENTS_MAX {
            return Err(StateVectorError::TooManyClients);
        }
        let mut vector = Self::new();
        for _ in 0..count {
            let client = cursor.uint()?;
            let clock = cursor.uint()?;
            vector.raise(client, clock);
        }
        if cursor.left() > 0 {
            return Err(ScanError::TrailingBytes.into());
        }
        Ok(vector)
    }

    /// To its wire form, clients descending as Yjs writes them.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(4 + 8 * self.0.len());
        write_uint(&mut out, self.0.len() as u64);
        for (client, clock) in self.0.iter().rev() {
            write_uint(&mut out, *client);
            write_uint(&mut out, *clock);
        }
        out.into()
    }

    /// The clock that comes next of a client; 0 when nothing is held of it.
    #[inline]
    pub fn get(&self, client: ClientId) -> u64 {
        self.0.get(&client).copied().unwrap_or(0)
    }

    /// Whether it is of an empty document.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many clients it lists.
    pub fn n_clients(&self) -> usize {
        self.0.len()
    }

    /// Its entries, ascending by client.
    pub fn iter(&self) -> impl Iterator<Item = (ClientId, u64)> + '_ {
        self.0.iter().map(|(client, clock)| (*client, *clock))
    }

    /// Whether everything that `other` holds is held here.
    pub fn covers(&self, other: &Self) -> bool {
        other
            .iter()
            .all(|(client, clock)| self.get(client) >= clock)
    }

    /// Raises a client's clock; never lowers it.
    pub(super) fn raise(&mut self, client: ClientId, clock: u64) {
        debug_assert!(client <= CLIENT_ID_MAX, "scan and decode bound client ids");
        if clock > 0 {
            let entry = self.0.entry(client).or_insert(0);
            *entry = clock.max(*entry);
        }
    }

    /// Takes a raise back: `clock` is what stood there before.
    pub(super) fn restore(&mut self, client: ClientId, clock: u64) {
        if clock == 0 {
            self.0.remove(&client);
        } else {
            self.0.insert(client, clock);
        }
    }
}

impl FromIterator<(ClientId, u64)> for StateVector {
    fn from_iter<I: IntoIterator<Item = (ClientId, u64)>>(entries: I) -> Self {
        let mut vector = Self::new();
        for (client, clock) in entries {
            vector.raise(client, clock);
        }
        vector
    }
}

#[cfg(test)]
#[path = "state_vector_tests.rs"]
mod tests;
