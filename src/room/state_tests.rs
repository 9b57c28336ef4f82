//! What a room does, as lists of events and the effects that they have. No clock, no task, no I/O.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use yrs::{Doc, ReadTxn, Text, Transact};

use super::broadcast::Broadcast;
use super::config::Config;
use super::event::{Count, Effect, Event, Join, Kind, Refused};
use super::member::{MemberId, Opened, Out};
use super::state::State;
use crate::auth::Access;
use crate::doc::{Document, DocumentLimits, ScanLimits, StateVector, merge, scan};
use crate::ids::{Epoch, Origin};
use crate::protocol::awareness::{AwarenessUpdate, Builder};
use crate::protocol::close::ErrorCode;
use crate::protocol::position::Position;
use crate::store::compaction::draw_generation;

pub(super) const ALICE: MemberId = MemberId(1);
pub(super) const BOB: MemberId = MemberId(2);

/// A room, its clock, and what it did.
pub(super) struct Room {
    pub(super) state: State,
    pub(super) now: Instant,
    epoch: Epoch,
    log: Vec<(u64, Bytes)>,
    said: BTreeMap<MemberId, Vec<Out>>,
    relayed: Vec<(Bytes, Option<MemberId>)>,
    /// The positions that were relayed with updates.
    moved: Vec<Position>,
    pub(super) presence: Vec<Arc<Broadcast>>,
    counts: Vec<Count>,
}

impl Room {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let epoch = Epoch::from_bytes([7; 16]);
        let document = Document::new(DocumentLimits::default());
        let origin = Origin::from_bytes([1; 8]);
        Self {
            state: State::new(Config::default(), document, epoch, origin, now),
            now,
            epoch,
            log: Vec::new(),
            said: BTreeMap::new(),
            relayed: Vec::new(),
            moved: Vec::new(),
            presence: Vec::new(),
            counts: Vec::new(),
        }
    }

    /// One batch of one event.
    pub(super) fn on(&mut self, event: Event) {
        self.batch([event]);
    }

    fn batch(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.state.handle(event, self.now);
        }
        self.state.finish();
        while let Some(effect) = self.state.poll_effect() {
            match effect {
                Effect::Log {
                    sequence, update, ..
                } => self.log.push((sequence, update)),
                Effect::Relay { update, except } => {
                    self.moved.push(update.position().clone());
                    self.relayed.push((update.body().clone(), except));
                }
                Effect::Presence(presence) => self.presence.push(presence),
                Effect::Reply(member, out) => self.said.entry(member).or_default().push(out),
                Effect::CatchUp(member, update) => self
                    .said
                    .entry(member)
                    .or_default()
                    .push(Out::Update(update)),
                Effect::Count(count) => self.counts.push(count),
                Effect::Message { .. } | Effect::Forget(_) => {}
            }
        }
    }

    pub(super) fn join(&mut self, member: MemberId) -> Opened {
        self.on(Event::Join(join(member)));
        match self.heard(member).pop() {
            Some(Out::Opened(opened)) => *opened,
            other => panic!("OPENED was due, not {other:?}"),
        }
    }

    fn update(&mut self, member: MemberId, sequence: u64, kind: Kind, bytes: &Bytes) {
        self.on(update(member, sequence, kind, bytes));
    }

    /// What a member heard since the last time.
    fn heard(&mut self, member: MemberId) -> Vec<Out> {
        self.said.remove(&member).unwrap_or_default()
    }

    pub(super) fn tick_at(&mut self, after: Duration) {
        self.now += after;
        self.on(Event::Tick);
    }
}

fn join(member: MemberId) -> Join {
    Join {
        member,
        user: "".into(),
        access: Access::Write,
        known_epoch: None,
        client_id: Some(member.0),
        state_vector: Some(StateVector::new()),
        position: None,
    }
}

fn update(member: MemberId, sequence: u64, kind: Kind, bytes: &Bytes) -> Event {
    Event::Update {
        member,
        sequence,
        kind,
        update: Ok(scan(bytes, &ScanLimits::default()).unwrap()),
    }
}

fn empty() -> Bytes {
    Bytes::from_static(&[0, 0])
}

/// Edits of one Yjs client, each as bytes.
fn edits(n: usize) -> Vec<Bytes> {
    let doc = Doc::with_client_id(4711);
    let text = doc.get_or_insert_text("text");
    (0..n)
        .map(|_| {
            let before = doc.transact().state_vector();
            text.push(&mut doc.transact_mut(), "x");
            doc.transact().encode_diff_v1(&before).into()
        })
        .collect()
}

pub(super) fn shows(client: u64, clock: u64, state: &str) -> AwarenessUpdate {
    let mut builder = Builder::default();
    builder.push(client, clock, Some(state));
    AwarenessUpdate::decode(&builder.finish().unwrap()).unwrap()
}

fn acks(outs: &[Out]) -> Vec<(&'static str, u64)> {
    outs.iter()
        .filter_map(|out| match out {
            Out::Seen(sequence) => Some(("seen", *sequence)),
            Out::Durable(sequence) => Some(("durable", *sequence)),
            _ => None,
        })
        .collect()
}

#[test]
fn an_edit_is_logged_relayed_to_the_others_seen_and_later_durable() {
    let mut room = Room::new();
    room.join(ALICE);
    room.join(BOB);
    let edit = &edits(1)[0];
    room.update(ALICE, 1, Kind::Live, edit);
    assert_eq!(room.log, [(1, edit.clone())]);
    assert_eq!(room.relayed, [(edit.clone(), Some(ALICE))]);
    assert_eq!(acks(&room.heard(ALICE)), [("seen", 1)]);
    room.on(Event::Durable(1));
    assert_eq!(acks(&room.heard(ALICE)), [("durable", 1)]);
    assert!(room.heard(BOB).is_empty());
}

#[test]
fn a_batch_says_each_acknowledgement_once() {
    let mut room = Room::new();
    room.join(ALICE);
    let edits = edits(100);
    let numbered = edits.iter().zip(1..);
    room.batch(numbered.map(|(edit, n)| update(ALICE, n, Kind::Live, edit)));
    assert_eq!(acks(&room.heard(ALICE)), [("seen", 100)]);
    room.on(Event::Durable(60));
    assert_eq!(acks(&room.heard(ALICE)), [("durable", 60)]);
}

#[test]
fn no_news_is_acknowledged_only_when_the_row_that_made_it_known_is_durable() {
    let mut room = Room::new();
    room.join(ALICE);
    room.join(BOB);
    let edit = &edits(1)[0];
    room.update(ALICE, 1, Kind::Live, edit);
    room.update(BOB, 1, Kind::Answer, edit);
    assert_eq!(room.log.len(), 1, "logged once");
    assert_eq!(room.relayed.len(), 1, "relayed once");
    assert_eq!(acks(&room.heard(BOB)), [("seen", 1)]);
    room.on(Event::Durable(1));
    assert_eq!(acks(&room.heard(BOB)), [("durable", 1)]);
}

#[test]
fn an_empty_answer_in_a_durable_room_is_durable_at_once() {
    let mut room = Room::new();
    room.join(ALICE);
    room.update(ALICE, 1, Kind::Answer, &empty());
    assert_eq!(acks(&room.heard(ALICE)), [("seen", 1), ("durable", 1)]);
}

#[test]
fn a_gap_is_parked_asked_for_once_and_acknowledged_when_filled() {
    let mut room = Room::new();
    room.join(ALICE);
    room.update(ALICE, 1, Kind::Answer, &empty());
    room.heard(ALICE);
    let edits = edits(4);
    room.update(ALICE, 2, Kind::Live, &edits[2]);
    let heard = room.heard(ALICE);
    assert!(matches!(heard[..], [Out::SyncRequest(_)]), "{heard:?}");
    room.update(ALICE, 3, Kind::Live, &edits[3]);
    assert!(room.heard(ALICE).is_empty(), "one question at a time");

    // Bob brings what is missing: Alice's pieces go in, to Bob as well, and are acknowledged.
    room.join(BOB);
    let brought = merge(&edits[..2]).unwrap();
    room.update(BOB, 1, Kind::Answer, &brought);
    let excepts: Vec<_> = room.relayed.iter().map(|(_, except)| *except).collect();
    assert_eq!(excepts[0], Some(BOB));
    assert!(excepts[1..].iter().all(Option::is_none) && excepts.len() > 1);
    room.on(Event::Durable(room.log.last().unwrap().0));
    assert_eq!(acks(&room.heard(ALICE)).last(), Some(&("durable", 3)));
}

#[test]
fn nobody_is_asked_before_their_own_answer_of_the_handshake() {
    let mut room = Room::new();
    room.join(ALICE);
    room.update(ALICE, 1, Kind::Live, &edits(2)[1]);
    assert!(room.heard(ALICE).is_empty());
}

#[test]
fn nobody_is_asked_twice_at_an_unchanged_room() {
    let mut room = Room::new();
    room.join(ALICE);
    room.update(ALICE, 1, Kind::Answer, &empty());
    room.heard(ALICE);
    let edits = edits(3);
    room.update(ALICE, 2, Kind::Live, &edits[1]);
    assert_eq!(room.heard(ALICE).len(), 1);
    // An answer that answers nothing, and another gap: asking again would get the same.
    room.update(ALICE, 3, Kind::Answer, &empty());
    room.heard(ALICE);
    room.update(ALICE, 4, Kind::Live, &edits[2]);
    let asked = room
        .heard(ALICE)
        .iter()
        .any(|out| matches!(out, Out::SyncRequest(_)));
    assert!(!asked);
}

#[test]
fn a_reader_is_refused_news_and_may_say_what_is_known() {
    let mut room = Room::new();
    room.join(ALICE);
    let edits = edits(2);
    room.update(ALICE, 1, Kind::Live, &edits[0]);
    room.on(Event::Join(Join {
        access: Access::Read,
        ..join(BOB)
    }));
    room.heard(BOB);
    room.update(BOB, 1, Kind::Answer, &edits[0]);
    assert_eq!(acks(&room.heard(BOB)), [("seen", 1)]);
    room.update(BOB, 2, Kind::Live, &edits[1]);
    let heard = room.heard(BOB);
    assert!(matches!(
        heard[0],
        Out::Rejected {
            sequence: 2,
            code: ErrorCode::PermissionDenied,
            terminal: true,
            ..
        }
    ));
    assert_eq!(room.log.len(), 1);
    assert!(
        room.counts
            .contains(&Count::Rejected(ErrorCode::PermissionDenied))
    );
}

#[test]
fn a_refused_update_is_settled_in_its_turn() {
    let mut room = Room::new();
    room.join(ALICE);
    let edits = edits(1);
    room.update(ALICE, 1, Kind::Live, &edits[0]);
    room.on(Event::Update {
        member: ALICE,
        sequence: 2,
        kind: Kind::Live,
        update: Err(Refused {
            code: ErrorCode::InvalidUpdate,
            text: "bad".into(),
            terminal: true,
        }),
    });
    room.heard(ALICE);
    room.on(Event::Durable(1));
    assert_eq!(acks(&room.heard(ALICE)), [("durable", 2)]);
}

#[test]
fn while_edits_are_not_taken_they_are_refused_for_a_while_and_asked_for_afterwards() {
    let mut room = Room::new();
    room.join(ALICE);
    room.update(ALICE, 1, Kind::Answer, &empty());
    room.heard(ALICE);
    room.state.set_accepting(false);
    room.update(ALICE, 2, Kind::Live, &edits(1)[0]);
    let heard = room.heard(ALICE);
    assert!(matches!(
        heard[0],
        Out::Rejected {
            code: ErrorCode::Overloaded,
            terminal: false,
            ..
        }
    ));
    assert!(room.log.is_empty());
    room.state.set_accepting(true);
    room.tick_at(Duration::from_millis(1));
    assert!(matches!(room.heard(ALICE)[..], [Out::SyncRequest(_)]));
}

#[test]
fn a_copy_of_another_history_is_not_let_in() {
    let mut room = Room::new();
    let epoch = room.epoch;
    room.on(Event::Join(Join {
        known_epoch: Some(Epoch::from_bytes([9; 16])),
        ..join(ALICE)
    }));
    match &room.heard(ALICE)[..] {
        [Out::Closed(closing)] => {
            assert_eq!(closing.code, ErrorCode::EpochMismatch);
            assert_eq!(closing.replaced_by, Some(epoch));
        }
        other => panic!("{other:?}"),
    }
    room.update(ALICE, 1, Kind::Live, &edits(1)[0]);
    assert!(room.log.is_empty(), "nothing is merged");
    assert_eq!(room.state.n_members(), 0);
}

/// DC7: what a slow member missed is one update, with the position of all of it.
#[test]
fn a_member_that_was_behind_gets_one_diff_with_the_whole_position() {
    let mut room = Room::new();
    room.join(ALICE);
    room.join(BOB);
    let edits = edits(10);
    for (edit, n) in edits.iter().zip(1..) {
        room.update(ALICE, n, Kind::Live, edit);
    }
    room.on(Event::CatchUp {
        member: BOB,
        has: 4,
    });
    match &room.heard(BOB)[..] {
        [Out::Update(diff)] => {
            assert_eq!(diff.body(), &merge(&edits[4..]).unwrap());
            assert_eq!(diff.position(), room.state.document().position());
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_joiner_that_knows_a_position_gets_the_tail_only() {
    let mut room = Room::new();
    room.join(ALICE);
    let edits = edits(3);
    room.update(ALICE, 1, Kind::Live, &edits[0]);
    room.update(ALICE, 2, Kind::Live, &edits[1]);
    let position = room.state.document().position().clone();
    let resume = |member| {
        Event::Join(Join {
            position: Some(position.clone()),
            ..join(member)
        })
    };
    room.on(resume(BOB));
    match room.heard(BOB).pop() {
        Some(Out::Opened(opened)) => assert!(opened.missing.is_empty()),
        other => panic!("{other:?}"),
    }
    room.update(ALICE, 3, Kind::Live, &edits[2]);
    room.on(resume(MemberId(3)));
    match room.heard(MemberId(3)).pop() {
        Some(Out::Opened(opened)) => assert_eq!(opened.missing, edits[2]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_replaced_history_ends_every_membership() {
    let mut room = Room::new();
    room.join(ALICE);
    room.join(BOB);
    let epoch = Epoch::from_bytes([8; 16]);
    room.on(Event::Replaced(epoch));
    for member in [ALICE, BOB] {
        match &room.heard(member)[..] {
            [Out::Closed(closing)] => assert_eq!(closing.replaced_by, Some(epoch)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(room.state.n_members(), 0);
}

/// A compaction found that more is deleted: everybody hears it, under a place of its own, and nothing is logged.
#[test]
fn st44_growth_is_relayed_under_its_generation_and_not_logged() {
    let mut room = Room::new();
    room.join(ALICE);
    room.join(BOB);
    let edits = edits(4);
    for (edit, n) in edits.iter().zip(1..) {
        room.update(ALICE, n, Kind::Live, edit);
    }
    let before = room.state.document().position().clone();
    let mut grown = merge(&edits).unwrap().to_vec();
    assert_eq!(grown.pop(), Some(0), "nothing is deleted so far");
    grown.extend([1, 0xe7, 0x24, 1, 1, 2]); // of client 4711, two units from clock 1 on
    let snapshot = scan(&grown.into(), &ScanLimits::stored()).unwrap();
    let generation = draw_generation();
    room.relayed.clear();
    room.on(Event::Compacted {
        snapshot: snapshot.clone(),
        generation: Some((generation, 5)),
    });
    assert_eq!(room.log.len(), 4, "it is in the snapshot already");
    let growth = Bytes::from_static(&[0, 1, 0xe7, 0x24, 1, 1, 2]);
    assert_eq!(room.relayed, [(growth.clone(), None)]);
    assert_eq!(room.state.document().position().get(generation), 5);

    // Whoever was away meanwhile gets it, and whoever was not gets nothing.
    let mut resume = |position: &Position| {
        room.on(Event::Join(Join {
            position: Some(position.clone()),
            ..join(BOB)
        }));
        match room.heard(BOB).pop() {
            Some(Out::Opened(opened)) => opened,
            other => panic!("{other:?}"),
        }
    };
    let opened = resume(&before);
    assert_eq!(opened.missing, growth);
    assert!(resume(&opened.position).missing.is_empty());

    // Nothing new under no generation is nothing; a generation without growth is told all the same.
    room.relayed.clear();
    for generation in [None, Some((generation, 6))] {
        room.on(Event::Compacted {
            snapshot: snapshot.clone(),
            generation,
        });
    }
    assert_eq!(room.relayed, [(empty(), None)]);
    assert_eq!(room.state.document().position().get(generation), 6);
}

/// A reader may hold on to origins that were dropped; one that tells of an unknown generation is not trusted.
#[test]
fn st44_positions_with_unknown_entries() {
    let mut room = Room::new();
    room.join(ALICE);
    let edits = edits(3);
    for (edit, n) in edits.iter().zip(1..) {
        room.update(ALICE, n, Kind::Live, edit);
    }
    let mut resume = |unknown: Origin| {
        let mut position = room.state.document().position().clone();
        position.advance(unknown, 7);
        room.on(Event::Join(Join {
            position: Some(position),
            ..join(BOB)
        }));
        match room.heard(BOB).pop() {
            Some(Out::Opened(opened)) => opened.missing,
            other => panic!("{other:?}"),
        }
    };
    assert!(resume(Origin::from_bytes([9; 8])).is_empty());
    assert_eq!(resume(draw_generation()), merge(&edits).unwrap());
}

/// PO1: OPENED's position is true of a copy that took OPENED in, whatever the copy's own was, and with the positions of the
/// updates since it stays so: the next OPENED has nothing.
#[test]
fn po1_a_copy_is_where_opened_and_the_updates_since_say() {
    let mut room = Room::new();
    room.join(ALICE);
    let edits = edits(5);
    for (edit, n) in edits[..3].iter().zip(1..) {
        room.update(ALICE, n, Kind::Live, edit);
    }
    let mut mine = Position::of(draw_generation(), 3);
    mine.advance(Origin::from_bytes([1; 8]), 2);
    let resume = |room: &mut Room, position: &Position| {
        room.on(Event::Join(Join {
            position: Some(position.clone()),
            ..join(BOB)
        }));
        match room.heard(BOB).pop() {
            Some(Out::Opened(opened)) => opened,
            other => panic!("{other:?}"),
        }
    };
    let opened = resume(&mut room, &mine);
    assert_eq!(opened.missing, merge(&edits[..3]).unwrap(), "all of it");
    assert_eq!(&opened.position, room.state.document().position());
    // Replaced it serves; merged it would be distrusted again.
    assert!(resume(&mut room, &opened.position).missing.is_empty());
    let mut merged = mine.clone();
    merged.merge_max(&opened.position);
    assert!(!resume(&mut room, &merged).missing.is_empty());

    let mut position = opened.position;
    for (edit, n) in edits[3..].iter().zip(4..) {
        room.update(ALICE, n, Kind::Live, edit);
    }
    for moved in std::mem::take(&mut room.moved) {
        position.merge_max(&moved);
    }
    let again = resume(&mut room, &position);
    assert!(again.missing.is_empty());
    assert_eq!(again.position, position);
}

/// A room whose origin was dropped from the position gives out no sequence again.
#[test]
fn st44_sequences_go_on() {
    let room = Room::new();
    let document = Document::new(DocumentLimits::default());
    let origin = Origin::from_bytes([1; 8]);
    let state = State::new(Config::default(), document, room.epoch, origin, room.now);
    let mut room = Room {
        state: state.counting_from(41),
        ..room
    };
    room.join(ALICE);
    room.update(ALICE, 1, Kind::Live, &edits(1)[0]);
    assert_eq!(room.log[0].0, 42);
    assert_eq!(room.state.n_uncommitted(), 1);
    room.on(Event::Durable(42));
    assert!(room.state.is_durable());
}
