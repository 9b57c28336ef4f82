//! When a room tells of its people, and how sure (PR8), as lists of events and the effects that they have.

use std::time::Duration;

use super::broadcast::{Broadcast, Delivery};
use super::config::Config;
use super::event::Event;
use super::member::MemberId;
use super::state_tests::{ALICE, BOB, Room, shows};
use crate::doc::{SETTLED_AFTER, Trust};
use crate::protocol::awareness::AwarenessUpdate;

fn moves(member: MemberId, clock: u64, state: &str) -> Event {
    Event::Presence {
        member,
        update: shows(member.0, clock, state),
        trust: Trust::Claimed,
    }
}

/// Client ids with the clocks and states that a message tells of.
fn entries(told: &Broadcast) -> Vec<(u64, u64, Option<String>)> {
    AwarenessUpdate::decode(told.body())
        .unwrap()
        .entries()
        .map(|entry| (entry.client, entry.clock, entry.state().map(str::to_owned)))
        .collect()
}

/// Ticks whenever the room wants to, for a while.
fn pass(room: &mut Room, time: Duration) {
    let until = room.now + time;
    while room.state.next_tick() <= until {
        let wait = room.state.next_tick().saturating_duration_since(room.now);
        room.tick_at(wait);
    }
    room.now = until;
}

#[test]
fn presence_goes_out_at_once_then_once_a_tick_with_the_latest() {
    let mut room = Room::new();
    room.join(ALICE);
    room.join(BOB);
    room.tick_at(Duration::ZERO);
    room.presence.clear();
    room.on(moves(ALICE, 1, "1"));
    assert!(room.state.next_tick() <= room.now, "the first at once");
    room.tick_at(Duration::ZERO);
    assert_eq!(room.presence.len(), 1);
    // Many moves of two people within a tick are one message with the last of each.
    for clock in 2..50 {
        room.on(moves(ALICE, clock, &clock.to_string()));
        room.on(moves(BOB, clock, &clock.to_string()));
    }
    room.tick_at(Duration::from_millis(1));
    assert_eq!(room.presence.len(), 1, "not before the tick");
    room.tick_at(Config::default().presence_tick);
    assert_eq!(room.presence.len(), 2);
    let both = AwarenessUpdate::decode(room.presence[1].body()).unwrap();
    let states: Vec<_> = both.entries().map(|entry| entry.state()).collect();
    assert_eq!(states, [Some("49"), Some("49")]);

    // Leaving clears at once.
    room.on(Event::Leave(ALICE));
    room.tick_at(Duration::ZERO);
    let cleared = AwarenessUpdate::decode(room.presence[2].body()).unwrap();
    assert!(cleared.entries().all(|entry| entry.state().is_none()));
    assert_eq!(room.presence[2].delivery(), Delivery::Sure);
}

#[test]
fn a_keyframe_shows_everybody_now_and_then() {
    let mut room = Room::new();
    room.join(ALICE);
    room.on(moves(ALICE, 1, "{}"));
    room.tick_at(Duration::ZERO);
    room.presence.clear();
    room.tick_at(Config::default().presence_keyframe);
    let deliveries: Vec<_> = room.presence.iter().map(|told| told.delivery()).collect();
    assert_eq!(deliveries, [Delivery::Sure]);
}

/// PR8: while a cursor moves, nothing is said twice; when it has stopped, its last place is, once.
#[test]
fn pr8_a_cursor_moves_by_hints_and_its_last_place_is_repeated() {
    let mut room = Room::new();
    room.join(ALICE);
    room.join(BOB);
    for clock in 1..=60 {
        room.on(moves(ALICE, clock, &clock.to_string()));
        pass(&mut room, Duration::from_millis(50));
    }
    assert!(room.presence.len() >= 60);
    let is_hint = |told: &std::sync::Arc<Broadcast>| told.delivery() == Delivery::Hint;
    assert!(room.presence.iter().all(is_hint));
    let last_hint = room.presence.last().unwrap().number();
    room.presence.clear();
    pass(&mut room, SETTLED_AFTER);
    match &room.presence[..] {
        [repeat] => {
            assert_eq!(repeat.delivery(), Delivery::Repeat);
            assert_eq!(repeat.from(), last_hint);
            assert_eq!(entries(repeat), [(1, 60, Some("60".into()))]);
        }
        other => panic!("{other:?}"),
    }
    pass(&mut room, Duration::from_secs(5));
    assert_eq!(room.presence.len(), 1, "once");
}

/// PR8: who hides, and who leaves, is gone for sure and at once, also in a room where others move.
#[test]
fn pr8_removals_are_sure() {
    let mut room = Room::new();
    for member in [ALICE, BOB] {
        room.join(member);
        room.on(moves(member, 1, "1"));
    }
    pass(&mut room, Duration::from_millis(50));
    room.presence.clear();
    room.on(moves(BOB, 2, "2"));
    room.on(moves(ALICE, 2, "null"));
    pass(&mut room, Config::default().presence_tick);
    room.on(Event::Leave(BOB));
    room.tick_at(Duration::ZERO);
    let told: Vec<_> = room
        .presence
        .iter()
        .map(|told| (told.delivery(), entries(told)))
        .collect();
    let expected = [
        (Delivery::Sure, vec![(1, 2, None)]),
        (Delivery::Hint, vec![(2, 2, Some("2".into()))]),
        (Delivery::Sure, vec![(2, 2, None)]),
    ];
    assert_eq!(told, expected);
}

/// PR8: what settles at about the same time shares a repeat, however many people there are.
#[test]
fn pr8_repeats_are_few() {
    let mut room = Room::new();
    let people: Vec<_> = (1..=100).map(MemberId).collect();
    for member in &people {
        room.join(*member);
    }
    // A hundred people stop one after the other within a second.
    for member in &people {
        room.on(moves(*member, 1, "1"));
        pass(&mut room, Duration::from_millis(10));
    }
    pass(&mut room, Duration::from_secs(1));
    let repeats: Vec<_> = room
        .presence
        .iter()
        .filter(|told| told.delivery() == Delivery::Repeat)
        .collect();
    assert!((5..=7).contains(&repeats.len()), "{}", repeats.len());
    let repeated: usize = repeats.iter().map(|repeat| entries(repeat).len()).sum();
    assert_eq!(repeated, people.len());
}
