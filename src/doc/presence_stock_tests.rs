//! The presence table among stock clients, which renew, expire, echo and answer as y-protocols has it.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const ADA: ClientId = 11;
const BOB: ClientId = 22;

/// A stock client, as far as awareness goes: `applyAwarenessUpdate`, `setLocalState`, the 15 s renewal and the 30 s
/// expiry of y-protocols 1.0, and y-websocket's habit of sending on every entry that an update changed.
#[derive(Debug)]
struct Client {
    id: ClientId,
    states: BTreeMap<ClientId, String>,
    meta: BTreeMap<ClientId, (u64, Instant)>,
    outgoing: Vec<Bytes>,
}

impl Client {
    fn new(id: ClientId, now: Instant) -> Self {
        let mut client = Self {
            id,
            states: BTreeMap::new(),
            meta: BTreeMap::new(),
            outgoing: Vec::new(),
        };
        client.set(Some("{}"), now);
        client
    }

    fn set(&mut self, state: Option<&str>, now: Instant) {
        let clock = self.meta.get(&self.id).map_or(0, |(clock, _)| clock + 1);
        match state {
            Some(state) => self.states.insert(self.id, state.to_owned()),
            None => self.states.remove(&self.id),
        };
        self.meta.insert(self.id, (clock, now));
        self.send(&[self.id]);
    }

    fn send(&mut self, clients: &[ClientId]) {
        let mut builder = Builder::default();
        for client in clients {
            let state = self.states.get(client).map(String::as_str);
            builder.push(*client, self.meta[client].0, state);
        }
        self.outgoing.extend(builder.finish());
    }

    fn receive(&mut self, bytes: &Bytes, now: Instant) {
        let update = AwarenessUpdate::decode(bytes).unwrap();
        let mut changed = Vec::new();
        for entry in update.entries() {
            let held = self.meta.get(&entry.client).map(|(clock, _)| *clock);
            let current = held.unwrap_or(0);
            let is_shown = self.states.contains_key(&entry.client);
            let state = entry.state();
            if !(current < entry.clock || (current == entry.clock && state.is_none() && is_shown)) {
                continue;
            }
            let mut clock = entry.clock;
            match state {
                None if entry.client == self.id && is_shown => clock += 1,
                None => {
                    self.states.remove(&entry.client);
                }
                Some(state) => {
                    self.states.insert(entry.client, state.to_owned());
                }
            }
            self.meta.insert(entry.client, (clock, now));
            if state.is_some() || held.is_some() {
                changed.push(entry.client);
            }
        }
        self.send(&changed);
    }

    /// The interval of y-protocols, every 3 s.
    fn tick(&mut self, now: Instant) {
        let age = |(_, at): &(u64, Instant)| now.duration_since(*at);
        if self.states.contains_key(&self.id)
            && age(&self.meta[&self.id]) >= Duration::from_secs(15)
        {
            let state = self.states[&self.id].clone();
            self.set(Some(&state), now);
        }
        let expired: Vec<ClientId> = self
            .states
            .keys()
            .filter(|id| **id != self.id && age(&self.meta[id]) >= Duration::from_secs(30))
            .copied()
            .collect();
        for id in &expired {
            self.states.remove(id);
        }
        self.send(&expired);
    }

    fn sees(&self, id: ClientId) -> Option<&str> {
        self.states.get(&id).map(String::as_str)
    }
}

/// A room of stock clients around one table, with a clock that is set by hand.
struct Room {
    table: Presence<u32>,
    clients: BTreeMap<u32, Client>,
    now: Instant,
}

impl Room {
    fn new() -> Self {
        Self {
            table: Presence::new(),
            clients: BTreeMap::new(),
            now: Instant::now(),
        }
    }

    fn connect(&mut self, session: u32, mut client: Client) {
        self.table.join(session, "user".into());
        if let Some(everybody) = self.table.snapshot(None) {
            client.receive(&everybody, self.now);
        }
        let own = client.id;
        if client.states.contains_key(&own) {
            client.outgoing.clear();
            client.send(&[own]);
        }
        self.clients.insert(session, client);
        self.settle();
    }

    /// The network goes; the client keeps itself and forgets the others, as y-websocket does.
    fn disconnect(&mut self, session: u32) -> Client {
        let mut client = self.clients.remove(&session).unwrap();
        client.states.retain(|id, _| *id == client.id);
        client.outgoing.clear();
        client
    }

    fn set(&mut self, session: u32, state: Option<&str>) {
        let now = self.now;
        self.clients.get_mut(&session).unwrap().set(state, now);
        self.settle();
    }

    /// Carries messages until nobody has anything to say. Panics when that does not come about.
    fn settle(&mut self) {
        for _ in 0..20 {
            let mut quiet = true;
            for session in self.clients.keys().copied().collect::<Vec<_>>() {
                let client = self.clients.get_mut(&session).unwrap();
                for bytes in std::mem::take(&mut client.outgoing) {
                    quiet = false;
                    let update = AwarenessUpdate::decode(&bytes).unwrap();
                    let applied = self.table.apply(session, &update, Trust::Stock, self.now);
                    if let Some(poke) = applied.poke {
                        client.receive(&poke, self.now);
                    }
                }
            }
            while let Some(changes) = self.table.take_changes(self.now) {
                quiet = false;
                for changed in [changes.gone, changes.shown].into_iter().flatten() {
                    for client in self.clients.values_mut() {
                        client.receive(&changed, self.now);
                    }
                }
            }
            if quiet {
                return;
            }
        }
        panic!("presence does not come to rest: {:?}", self.table);
    }

    fn leave(&mut self, session: u32) {
        self.table.leave(session);
        self.settle();
    }

    fn pass(&mut self, seconds: u64, hidden: &[u32]) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            for (session, client) in &mut self.clients {
                if !hidden.contains(session) {
                    client.tick(self.now);
                }
            }
            for (session, poke) in self.table.renewals(self.now) {
                if let Some(client) = self.clients.get_mut(&session) {
                    client.receive(&poke, self.now);
                }
            }
            self.settle();
            if let Some(keyframe) = self.table.keyframe() {
                for client in self.clients.values_mut() {
                    client.receive(&keyframe, self.now);
                }
            }
            self.settle();
        }
    }
}

/// PR6 between stock clients: the person whose removal everybody saw is seen again after a reconnect (y-websocket #122).
#[test]
fn pr6_returning_stock_client_is_seen() {
    let mut room = Room::new();
    room.connect(1, Client::new(ADA, room.now));
    room.connect(2, Client::new(BOB, room.now));
    room.set(1, Some("\"here\""));
    assert_eq!(room.clients[&2].sees(ADA), Some("\"here\""));
    let mut session = 1;
    for next in 3..8 {
        let ada = room.disconnect(session);
        room.leave(session);
        assert_eq!(room.clients[&2].sees(ADA), None);
        room.connect(next, ada);
        assert_eq!(room.clients[&2].sees(ADA), Some("\"here\""), "{next}");
        session = next;
    }
}

/// PR6: the same when the old connection is only found dead after the return.
#[test]
fn pr6_half_open_connection_ends_after_the_return() {
    let mut room = Room::new();
    room.connect(1, Client::new(ADA, room.now));
    room.connect(2, Client::new(BOB, room.now));
    room.set(1, Some("\"a\""));
    let ada = room.disconnect(1);
    room.connect(3, ada);
    assert_eq!(room.clients[&2].sees(ADA), Some("\"a\""));
    room.leave(1);
    assert_eq!(room.clients[&2].sees(ADA), Some("\"a\""));
    room.set(3, Some("\"b\""));
    assert_eq!(room.clients[&2].sees(ADA), Some("\"b\""));
    room.leave(3);
    assert_eq!(room.clients[&2].sees(ADA), None);
}

/// PR7: readers forget after 30 s; a hidden tab, whose timers do not run, is poked in time, and a dead one is gone.
#[test]
fn pr7_hidden_tabs_stay_and_dead_ones_go() {
    let mut room = Room::new();
    room.connect(1, Client::new(ADA, room.now));
    room.connect(2, Client::new(BOB, room.now));
    room.set(1, Some("\"a\""));
    room.set(2, Some("\"b\""));
    for _ in 0..90 {
        room.pass(1, &[1]);
        assert_eq!(room.clients[&2].sees(ADA), Some("\"a\""));
        assert_eq!(room.clients[&1].sees(BOB), Some("\"b\""));
    }
    room.disconnect(1);
    room.leave(1);
    assert_eq!(room.clients[&2].sees(ADA), None);
    room.pass(60, &[]);
    assert_eq!(room.clients[&2].sees(ADA), None);
}

#[derive(Debug, Clone)]
enum Step {
    Connect(u32, ClientId),
    Set(u32, Option<u8>),
    Vanish(u32),
    Leave(u32),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..6u32, 1..5u64).prop_map(|(session, client)| Step::Connect(session, client)),
        (0..6u32, prop::option::of(any::<u8>())).prop_map(|(s, state)| Step::Set(s, state)),
        (0..6u32).prop_map(Step::Vanish),
        (0..6u32).prop_map(Step::Leave),
        (1..40u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever stock clients do (come, go, drop and return with the same id, show nothing, sleep), presence comes to
    /// rest, and then everybody connected sees exactly those who are connected and show something, as they are.
    #[test]
    fn stock_clients_agree(steps in prop::collection::vec(step(), 1..40)) {
        let mut room = Room::new();
        let mut away: BTreeMap<ClientId, Client> = BTreeMap::new();
        let mut half_open = BTreeSet::new();
        for step in steps {
            match step {
                Step::Connect(session, id) => {
                    let is_taken = room.clients.values().any(|client| client.id == id);
                    let is_used = room.clients.contains_key(&session) || half_open.contains(&session);
                    if !is_taken && !is_used {
                        let client = away.remove(&id).unwrap_or_else(|| Client::new(id, room.now));
                        room.connect(session, client);
                    }
                }
                Step::Set(session, state) => {
                    if room.clients.contains_key(&session) {
                        room.set(session, state.map(|n| n.to_string()).as_deref());
                    }
                }
                Step::Vanish(session) => {
                    if room.clients.contains_key(&session) {
                        let client = room.disconnect(session);
                        away.insert(client.id, client);
                        half_open.insert(session);
                    }
                }
                Step::Leave(session) => {
                    if room.clients.contains_key(&session) {
                        let client = room.disconnect(session);
                        away.insert(client.id, client);
                    }
                    half_open.remove(&session);
                    room.leave(session);
                }
                Step::Pass(seconds) => room.pass(seconds, &[0, 3]),
            }
        }
        for session in half_open {
            room.leave(session);
        }
        // Visible tabs renew within 18 s, hidden ones within 25.
        room.pass(30, &[0, 3]);
        let shown: BTreeMap<ClientId, String> = room
            .clients
            .values()
            .filter_map(|client| Some((client.id, client.sees(client.id)?.to_owned())))
            .collect();
        for client in room.clients.values() {
            prop_assert_eq!(&client.states, &shown);
        }
        prop_assert_eq!(room.table.n_shown(), shown.len());
    }
}
