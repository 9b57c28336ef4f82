//! The rules PR1 to PR9 of the presence table, one test each.

use std::collections::BTreeSet;

use super::*;

const ADA: ClientId = 11;
const BOB: ClientId = 22;

fn one(client: ClientId, clock: u64, state: Option<&str>) -> AwarenessUpdate {
    many(&[(client, clock, state)])
}

fn many(entries: &[(ClientId, u64, Option<&str>)]) -> AwarenessUpdate {
    let mut builder = Builder::default();
    for (client, clock, state) in entries {
        builder.push(*client, *clock, *state);
    }
    AwarenessUpdate::decode(&builder.finish().unwrap()).unwrap()
}

fn read(bytes: Option<Bytes>) -> Vec<(ClientId, u64, Option<String>)> {
    let Some(bytes) = bytes else {
        return Vec::new();
    };
    AwarenessUpdate::decode(&bytes)
        .unwrap()
        .entries()
        .map(|e| (e.client, e.clock, e.state().map(str::to_owned)))
        .collect()
}

/// What a tick tells, those who are gone first.
fn told<S: Copy + Ord + Debug>(
    table: &mut Presence<S>,
    now: Instant,
) -> Vec<(ClientId, u64, Option<String>)> {
    let Some(changes) = table.take_changes(now) else {
        return Vec::new();
    };
    [read(changes.gone), read(changes.shown)].concat()
}

fn native() -> (Presence<u32>, Instant) {
    let mut table = Presence::new();
    table.join(1, "ada".into());
    table.join(2, "bob".into());
    (table, Instant::now())
}

/// PR1: a session that ends takes its entries with it, for everybody at once.
#[test]
fn pr1_entries_end_with_their_session() {
    let (mut table, now) = native();
    table.claim(1, ADA, now).unwrap();
    let applied = table.apply(1, &one(ADA, 3, Some("{\"x\":1}")), Trust::Claimed, now);
    assert_eq!(applied.accepted, [ADA]);
    assert_eq!(told(&mut table, now), [(ADA, 3, Some("{\"x\":1}".into()))]);
    assert_eq!(table.take_changes(now), None);
    table.leave(1);
    assert!(table.is_dirty());
    assert_eq!(told(&mut table, now), [(ADA, 3, None)]);
    assert_eq!(table.snapshot(None), None);
    assert_eq!(table.n_shown(), 0);
}

/// PR1: who was never heard leaves no trace.
#[test]
fn pr1_silent_claims_leave_nothing() {
    let (mut table, now) = native();
    table.claim(1, ADA, now).unwrap();
    table.leave(1);
    assert!(table.slots.is_empty() && table.tombstones.is_empty() && !table.is_dirty());
}

/// PR2: a newer session of the same user takes over; the older one's end then clears nothing.
#[test]
fn pr2_newer_session_takes_over() {
    let (mut table, now) = native();
    table.join(3, "ada".into());
    table.claim(1, ADA, now).unwrap();
    table.apply(1, &one(ADA, 3, Some("1")), Trust::Claimed, now);
    table.take_changes(now);
    table.claim(3, ADA, now).unwrap();
    let applied = table.apply(1, &one(ADA, 4, Some("2")), Trust::Claimed, now);
    assert_eq!((applied.accepted.len(), applied.n_foreign), (0, 1));
    table.leave(1);
    assert!(!table.is_dirty());
    let applied = table.apply(3, &one(ADA, 4, Some("3")), Trust::Claimed, now);
    assert_eq!(applied.accepted, [ADA]);
    table.leave(3);
    assert_eq!(told(&mut table, now), [(ADA, 4, None)]);
}

/// PR2: nobody takes another user's client id, not even after that user left.
#[test]
fn pr2_other_users_are_refused() {
    let (mut table, now) = native();
    table.claim(1, ADA, now).unwrap();
    assert_eq!(table.claim(2, ADA, now), Err(ClaimError::OtherUser));
    table.apply(1, &one(ADA, 1, Some("1")), Trust::Claimed, now);
    table.leave(1);
    assert_eq!(table.claim(2, ADA, now), Err(ClaimError::OtherUser));
    assert_eq!(table.claim(9, ADA, now), Err(ClaimError::NotJoined));
    let applied = table.apply(2, &one(ADA, 9, Some("2")), Trust::Stock, now);
    assert_eq!((applied.accepted.len(), applied.n_foreign), (0, 1));
}

/// PR2: a session owns a bounded number of ids.
#[test]
fn pr2_claims_are_bounded() {
    let (mut table, now) = native();
    for client in 0..CLIENTS_PER_SESSION_MAX as u64 {
        table.claim(1, client, now).unwrap();
    }
    assert_eq!(table.claim(1, 99, now), Err(ClaimError::TooMany));
    assert_eq!(table.claim(1, 0, now), Ok(()));
}

/// PR3: what a session does not own is ignored, entry by entry.
#[test]
fn pr3_foreign_entries_are_ignored() {
    let (mut table, now) = native();
    table.claim(1, ADA, now).unwrap();
    table.claim(2, BOB, now).unwrap();
    table.apply(2, &one(BOB, 5, Some("1")), Trust::Claimed, now);
    table.take_changes(now);
    let update = many(&[(BOB, 6, None), (ADA, 1, Some("1")), (33, 9, Some("9"))]);
    let applied = table.apply(1, &update, Trust::Claimed, now);
    assert_eq!((applied.accepted, applied.n_foreign), (vec![ADA], 2));
    assert_eq!(told(&mut table, now), [(ADA, 1, Some("1".into()))]);
}

/// PR4: a stock session owns the one id that it shows first, and nothing else ever.
#[test]
fn pr4_stock_sessions_claim_by_showing() {
    let (mut table, now) = native();
    // Several living entries, or none, claim nothing.
    let echo = many(&[(ADA, 1, Some("1")), (BOB, 1, Some("1"))]);
    assert_eq!(table.apply(1, &echo, Trust::Stock, now).n_foreign, 2);
    assert_eq!(
        table
            .apply(1, &one(ADA, 1, None), Trust::Stock, now)
            .n_foreign,
        1
    );
    // Entries of people who are gone do not count.
    let update = many(&[(BOB, 1, None), (ADA, 1, Some("1"))]);
    let applied = table.apply(1, &update, Trust::Stock, now);
    assert_eq!((applied.accepted, applied.n_foreign), (vec![ADA], 1));
    let applied = table.apply(1, &one(BOB, 1, Some("1")), Trust::Stock, now);
    assert_eq!(applied.n_foreign, 1);
    // By explicit claims only, showing is not enough.
    let applied = table.apply(2, &one(BOB, 1, Some("1")), Trust::Claimed, now);
    assert_eq!(applied.n_foreign, 1);
}

/// PR4: an echo never takes an id away from a living session, a newer clock does.
#[test]
fn pr4_an_echo_is_no_takeover() {
    let (mut table, now) = native();
    table.join(3, "ada".into());
    table.apply(1, &one(ADA, 4, Some("1")), Trust::Stock, now);
    table.take_changes(now);
    assert_eq!(
        table
            .apply(3, &one(ADA, 4, Some("1")), Trust::Stock, now)
            .n_foreign,
        1
    );
    let applied = table.apply(3, &one(ADA, 5, Some("2")), Trust::Stock, now);
    assert_eq!(applied.accepted, [ADA]);
    table.take_changes(now);
    table.leave(1);
    assert!(!table.is_dirty());
}

/// PR5: overtaken datagrams are dropped, equal clocks say nothing new, and a removal may have an equal clock.
#[test]
fn pr5_clocks_only_grow() {
    let (mut table, now) = native();
    table.claim(1, ADA, now).unwrap();
    let mut apply = |clock, state| {
        let applied = table.apply(1, &one(ADA, clock, state), Trust::Claimed, now);
        assert_eq!(applied.poke, None);
        (applied.accepted.len(), told(&mut table, now))
    };
    assert_eq!(apply(5, Some("5")).0, 1);
    assert_eq!(apply(4, Some("4")).0, 0);
    assert_eq!(apply(5, Some("6")).0, 0);
    assert_eq!(apply(4, None).0, 0);
    assert_eq!(apply(5, None), (1, vec![(ADA, 5, None)]));
    assert_eq!(apply(5, None).0, 0);
    assert_eq!(apply(6, Some("6")), (1, vec![(ADA, 6, Some("6".into()))]));
}

/// PR5: a renewal without a change is relayed, since readers go by it.
#[test]
fn pr5_renewals_are_relayed() {
    let (mut table, now) = native();
    table.claim(1, ADA, now).unwrap();
    table.apply(1, &one(ADA, 5, Some("5")), Trust::Claimed, now);
    table.take_changes(now);
    table.apply(1, &one(ADA, 6, Some("5")), Trust::Claimed, now);
    assert_eq!(told(&mut table, now), [(ADA, 6, Some("5".into()))]);
}

/// PR6: who returns with a clock that readers hold already is poked, not relayed.
#[test]
fn pr6_returning_with_an_old_clock() {
    let (mut table, now) = native();
    table.join(3, "ada".into());
    table.claim(1, ADA, now).unwrap();
    table.apply(1, &one(ADA, 57, Some("1")), Trust::Claimed, now);
    table.leave(1);
    table.take_changes(now);
    table.claim(3, ADA, now).unwrap();
    assert_eq!(read(table.snapshot(Some(ADA))), [(ADA, 57, None)]);
    let applied = table.apply(3, &one(ADA, 0, Some("2")), Trust::Claimed, now);
    assert_eq!(read(applied.poke), [(ADA, 57, None)]);
    assert!(!table.is_dirty());
    let applied = table.apply(3, &one(ADA, 58, Some("2")), Trust::Claimed, now);
    assert_eq!((applied.accepted, applied.poke), (vec![ADA], None));
    assert_eq!(told(&mut table, now), [(ADA, 58, Some("2".into()))]);
    // From here on an old clock is an overtaken datagram.
    let applied = table.apply(3, &one(ADA, 1, Some("1")), Trust::Claimed, now);
    assert_eq!(applied, Applied::default());
}

/// PR7: a page that takes over an id and shows nothing answers the poke by saying so; no ghost remains.
#[test]
fn pr7_a_poke_clears_a_ghost() {
    let (mut table, now) = native();
    table.join(3, "ada".into());
    table.claim(1, ADA, now).unwrap();
    table.apply(1, &one(ADA, 5, Some("1")), Trust::Claimed, now);
    table.claim(3, ADA, now).unwrap();
    table.take_changes(now);
    assert_eq!(table.renewals(now), []);
    let pokes = table.renewals(now + RENEW_AFTER);
    let (to, poke) = &pokes[0];
    assert_eq!((*to, read(Some(poke.clone()))), (3, vec![(ADA, 5, None)]));
    assert_eq!(table.renewals(now + RENEW_AFTER), []);
    assert_eq!(table.renewals(now + RENEW_AFTER + RENEWAL_CHECK).len(), 1);
    table.apply(3, &one(ADA, 5, None), Trust::Claimed, now);
    assert_eq!(told(&mut table, now), [(ADA, 5, None)]);
}

/// PR8: keyframes repeat what was relayed, and for a while who left.
#[test]
fn pr8_keyframes() {
    let (mut table, now) = native();
    assert_eq!(table.keyframe(), None);
    table.claim(1, ADA, now).unwrap();
    table.claim(2, BOB, now).unwrap();
    table.apply(1, &one(ADA, 5, Some("5")), Trust::Claimed, now);
    table.apply(2, &one(BOB, 6, Some("6")), Trust::Claimed, now);
    table.leave(1);
    table.take_changes(now);
    let gone = (ADA, 5, None);
    let here = (BOB, 6, Some("6".to_owned()));
    for _ in 0..REMOVAL_KEYFRAMES {
        assert_eq!(read(table.keyframe()), [gone.clone(), here.clone()]);
    }
    assert_eq!(read(table.keyframe()), std::slice::from_ref(&here));
    assert_eq!(read(table.snapshot(None)), [here]);
}

/// PR8: what must arrive is told apart from what may get lost.
#[test]
fn pr8_who_is_gone_is_told_apart() {
    let (mut table, now) = native();
    table.claim(1, ADA, now).unwrap();
    table.claim(2, BOB, now).unwrap();
    table.apply(1, &one(ADA, 1, Some("1")), Trust::Claimed, now);
    table.apply(2, &one(BOB, 1, Some("1")), Trust::Claimed, now);
    let changes = table.take_changes(now).unwrap();
    assert_eq!((changes.number, changes.gone), (1, None));
    // Gone by a word of its own, gone with its session, and both while others move.
    table.apply(1, &one(ADA, 2, None), Trust::Claimed, now);
    table.apply(2, &one(BOB, 2, Some("2")), Trust::Claimed, now);
    let changes = table.take_changes(now).unwrap();
    assert_eq!(changes.number, 2);
    assert_eq!(read(changes.gone), [(ADA, 2, None)]);
    assert_eq!(read(changes.shown), [(BOB, 2, Some("2".into()))]);
    table.leave(2);
    let changes = table.take_changes(now).unwrap();
    assert_eq!(read(changes.gone), [(BOB, 2, None)]);
    assert_eq!(changes.shown, None);
    assert_eq!(table.take_settled(now + 2 * SETTLED_AFTER), None);
}

/// PR8: a change is repeated once, at the clock that was relayed last, when no newer one has come for a while.
#[test]
fn pr8_the_last_word_is_repeated_once_it_has_settled() {
    let (mut table, start) = native();
    let at = |ms| start + Duration::from_millis(ms);
    table.claim(1, ADA, start).unwrap();
    table.claim(2, BOB, start).unwrap();
    // One moves all the time, the other once.
    for (clock, ms) in (1..=60).zip((0..).step_by(50)) {
        let state = clock.to_string();
        table.apply(1, &one(ADA, clock, Some(&state)), Trust::Claimed, at(ms));
        if clock == 1 {
            table.apply(2, &one(BOB, 1, Some("1")), Trust::Claimed, at(ms));
        }
        let due = table.settles_at().is_some_and(|due| due <= at(ms));
        assert_eq!(due, ms == 400);
        if let Some(settled) = table.take_settled(at(ms)) {
            assert_eq!((ms, settled.since), (400, 1));
            assert_eq!(read(Some(settled.update)), [(BOB, 1, Some("1".into()))]);
        }
        table.take_changes(at(ms));
    }
    // The last move was told at 2,950 ms by the 60th changes; a renewal since is no newer word, only a newer clock.
    table.apply(1, &one(ADA, 61, Some("60")), Trust::Claimed, at(3_200));
    table.take_changes(at(3_200)).unwrap();
    assert_eq!(table.settles_at(), Some(at(3_350)));
    assert_eq!(table.take_settled(at(3_349)), None);
    let settled = table.take_settled(at(3_350)).unwrap();
    assert_eq!(settled.since, 61);
    assert_eq!(read(Some(settled.update)), [(ADA, 61, Some("60".into()))]);
    // Neither a renewal after that nor what a keyframe says is repeated.
    table.apply(1, &one(ADA, 62, Some("60")), Trust::Claimed, at(18_000));
    table.take_changes(at(18_000)).unwrap();
    assert_eq!(table.settles_at(), None);
    table.apply(1, &one(ADA, 63, Some("61")), Trust::Claimed, at(19_000));
    table.take_changes(at(19_000)).unwrap();
    table.apply(2, &one(BOB, 2, Some("2")), Trust::Claimed, at(19_001));
    assert_eq!(read(table.keyframe()).len(), 2);
    assert_eq!((table.settles_at(), table.is_dirty()), (None, false));
}

/// In a crowd whose tick is longer than the time to settle, what moves on is still no last word.
#[test]
fn pr8_what_waits_to_be_told_anew_is_not_repeated() {
    let (mut table, now) = native();
    table.claim(1, ADA, now).unwrap();
    table.apply(1, &one(ADA, 1, Some("1")), Trust::Claimed, now);
    table.take_changes(now);
    table.apply(1, &one(ADA, 2, Some("2")), Trust::Claimed, now);
    assert_eq!(table.take_settled(now + SETTLED_AFTER), None);
    let later = now + 2 * SETTLED_AFTER;
    table.take_changes(later);
    assert_eq!(table.settles_at(), Some(later + SETTLED_AFTER));
}

/// PR9: entries that readers could not take are not relayed; the rest of the update is.
#[test]
fn pr9_unfit_entries() {
    let (mut table, now) = native();
    table.claim(1, ADA, now).unwrap();
    table.claim(1, BOB, now).unwrap();
    let update = many(&[(ADA, 1, Some("{")), (BOB, 1, Some("{}"))]);
    let applied = table.apply(1, &update, Trust::Claimed, now);
    assert_eq!(applied.accepted, [BOB]);
    assert_eq!(applied.refused, Some((ADA, EntryError::NotJson)));
}

/// A tick's message is bounded; the rest follows, longest waiting first, with its latest state.
#[test]
fn ticks_are_bounded_in_crowds() {
    let mut table: Presence<u64> = Presence::new();
    let now = Instant::now();
    for id in 0..1000 {
        table.join(id, "u".into());
        table.claim(id, id, now).unwrap();
        table.apply(id, &one(id, 1, Some("\"first\"")), Trust::Claimed, now);
    }
    let first = told(&mut table, now);
    assert_eq!(first.len(), TICK_ENTRIES_MAX);
    table.apply(999, &one(999, 2, Some("\"latest\"")), Trust::Claimed, now);
    table.apply(0, &one(0, 2, Some("\"again\"")), Trust::Claimed, now);
    let mut rest = Vec::new();
    while table.is_dirty() {
        rest.extend(told(&mut table, now));
    }
    assert_eq!(rest.len(), 1000 - TICK_ENTRIES_MAX + 1);
    assert_eq!(rest[rest.len() - 2], (999, 2, Some("\"latest\"".into())));
    assert_eq!(rest[rest.len() - 1].0, 0);
    let large = format!("\"{}\"", "x".repeat(2000));
    for id in 0..100 {
        table.apply(id, &one(id, 9, Some(&large)), Trust::Claimed, now);
    }
    assert!(table.take_changes(now).unwrap().shown.unwrap().len() < TICK_BYTES_MAX + 2100);
}

/// Memory of people who left is bounded, and none of them is forgotten before readers are told.
#[test]
fn tombstones_are_bounded() {
    let mut table: Presence<u64> = Presence::new();
    let now = Instant::now();
    let mut heard = BTreeSet::new();
    for id in 0..3 * TOMBSTONES_MAX as u64 {
        table.join(id, "u".into());
        table.claim(id, id, now).unwrap();
        table.apply(id, &one(id, 1, Some("1")), Trust::Claimed, now);
        table.leave(id);
    }
    while table.is_dirty() {
        heard.extend(told(&mut table, now).into_iter().map(|(id, ..)| id));
    }
    assert_eq!(heard.len(), 3 * TOMBSTONES_MAX);
    assert!(table.slots.len() <= TOMBSTONES_MAX);
    assert!(table.tombstones.len() <= TOMBSTONES_MAX);
    assert!(table.sessions.is_empty());
}
