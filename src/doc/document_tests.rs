//! Admission, one test for each rule of the byte room.

use super::*;
use crate::doc::test_support::{
    At, Raw, any, array, deleted, gc, hex, scanned, skip, text, update,
};
use crate::doc::test_support::{Room, vector};

/// What went in of pieces that waited.
fn freed(admission: &Admission) -> Vec<Bytes> {
    admission
        .freed
        .iter()
        .map(|freed| freed.news.clone())
        .collect()
}

fn news(admission: &Admission) -> &[Bytes] {
    assert_eq!(
        (
            admission.parked,
            &admission.resolved[..],
            &admission.dropped[..]
        ),
        (None, &[][..], &[][..])
    );
    &admission.news
}

#[test]
fn live_typing_is_relayed_verbatim() {
    let mut room = Room::new();
    let first = update(&[(7, 0, &[text(At::Root, "ab")])], &[]);
    let second = update(&[(7, 2, &[text(At::After(7, 1), "c")])], &[(7, &[(0, 1)])]);
    for bytes in [first, second] {
        let admission = room.admit(&bytes);
        assert_eq!(news(&admission), std::slice::from_ref(&bytes));
        assert_eq!(
            admission.news[0].as_ptr(),
            bytes.as_ptr(),
            "not even copied"
        );
    }
    assert_eq!(room.document.state_vector(), &vector(&[(7, 3)]));
    assert_eq!(room.document.encoded_state_vector(), hex("010703"));
    assert_eq!(
        room.document.full(),
        update(&[(7, 0, &[text(At::Root, "abc")])], &[(7, &[(0, 1)])])
    );
}

#[test]
fn what_is_known_is_no_news() {
    let mut room = Room::new();
    let bytes = update(&[(7, 0, &[text(At::Root, "ab")])], &[(7, &[(1, 1)])]);
    room.admit(&bytes);
    for known in [
        bytes,
        hex("0000"),
        update(&[], &[(7, &[(1, 1)])]),
        update(&[(7, 1, &[text(At::After(7, 0), "b")])], &[]),
    ] {
        assert_eq!(news(&room.admit(&known)), &[] as &[Bytes]);
    }
    let full = room.document.full();
    assert_eq!(news(&room.admit(&full)), &[] as &[Bytes]);
}

#[test]
fn partly_known_structs_are_trimmed() {
    let cases: Vec<(Raw, u64, Raw)> = vec![
        (text(At::Root, "abcdef"), 2, text(At::After(7, 1), "cdef")),
        (text(At::Root, "a😀b"), 1, text(At::After(7, 0), "😀b")),
        (
            text(At::Root, "a😀b"),
            2,
            text(At::After(7, 1), "\u{fffd}b"),
        ),
        (any(At::Root, &[1, 2, 3]), 1, any(At::After(7, 0), &[2, 3])),
        (deleted(At::Root, 5), 2, deleted(At::After(7, 1), 3)),
        (gc(5), 2, gc(3)),
        // The right origin stays, the left becomes the own previous unit, the parent goes.
        (
            text(At::Before(9, 0), "abc"),
            2,
            text(At::Between((7, 1), (9, 0)), "c"),
        ),
        (
            text(At::Between((9, 0), (9, 1)), "abc"),
            2,
            text(At::Between((7, 1), (9, 1)), "c"),
        ),
        (text(At::In(9, 0), "abc"), 2, text(At::After(7, 1), "c")),
    ];
    for (whole, known, rest) in cases {
        let mut room = Room::new();
        room.types(9, "xy");
        room.types(7, &"k".repeat(known as usize));
        let end = scanned(&update(&[(7, 0, std::slice::from_ref(&whole))], &[])).sections()[0].end;
        let next = text(At::After(7, u64::from(end) - 1), "!");
        let admission = room.admit(&update(
            &[(7, 0, &[whole, next.clone()])],
            &[(9, &[(0, 1)])],
        ));
        let dead = rest.0[0] == 0 || rest.0[0] & 0x1f == 1;
        // What a GC or Deleted struct implies is in the delete set, of its known part too.
        let implied = [(0, u64::from(end))];
        let deletes: &[crate::doc::test_support::TestDeletes<'_>] = if dead {
            &[(9, &[(0, 1)]), (7, &implied)]
        } else {
            &[(9, &[(0, 1)])]
        };
        assert_eq!(
            news(&admission),
            [update(&[(7, known, &[rest, next])], deletes)]
        );
    }
}

#[test]
fn known_deletions_are_dropped() {
    let mut room = Room::new();
    room.types(7, "abcdefgh");
    room.admit(&update(&[], &[(7, &[(2, 2)])]));
    let admission = room.admit(&update(&[], &[(7, &[(0, 1), (1, 5)])]));
    assert_eq!(news(&admission), [update(&[], &[(7, &[(0, 2), (4, 2)])])]);
}

#[test]
fn a_delete_set_out_of_order_is_put_in_order() {
    let mut room = Room::new();
    room.types(7, "abcd");
    room.types(8, "abcd");
    room.types(9, "abcd");
    let mixed = update(
        &[],
        &[(8, &[(0, 1)]), (9, &[(3, 1), (0, 1)]), (7, &[(0, 1)])],
    );
    let ordered = update(
        &[],
        &[(9, &[(0, 1), (3, 1)]), (8, &[(0, 1)]), (7, &[(0, 1)])],
    );
    assert_eq!(news(&room.admit(&mixed)), [ordered]);
}

#[test]
fn a_gap_parks_only_what_lies_behind_it() {
    let mut room = Room::new();
    let holed = update(
        &[
            (9, 0, &[text(At::Root, "z")]),
            (
                7,
                0,
                &[text(At::Root, "a"), skip(2), text(At::After(7, 2), "d")],
            ),
        ],
        &[(9, &[(0, 1)]), (7, &[(0, 1), (3, 1)])],
    );
    let admission = room.admit(&holed);
    let parked = admission.parked.unwrap();
    assert_eq!(
        admission.news,
        [update(
            &[
                (9, 0, &[text(At::Root, "z")]),
                (7, 0, &[text(At::Root, "a")])
            ],
            &[(9, &[(0, 1)]), (7, &[(0, 1)])]
        )]
    );
    assert_eq!(room.document.n_parked(), 1);
    // Half of the gap is not enough.
    assert!(room.types(7, "b").resolved.is_empty());
    let admission = room.types(7, "c");
    assert_eq!(admission.resolved, [parked]);
    assert_eq!(
        freed(&admission)[..],
        [update(
            &[(7, 3, &[text(At::After(7, 2), "d")])],
            &[(7, &[(3, 1)])]
        )]
    );
    assert_eq!(room.document.n_parked(), 0);
    assert_eq!(
        room.document.full(),
        update(
            &[
                (9, 0, &[text(At::Root, "z")]),
                (7, 0, &[text(At::Root, "abcd")])
            ],
            &[(9, &[(0, 1)]), (7, &[(0, 1), (3, 1)])]
        )
    );
}

#[test]
fn every_reference_must_be_known() {
    for at in [
        At::After(9, 1),
        At::Before(9, 1),
        At::Between((9, 0), (9, 1)),
        At::In(9, 1),
    ] {
        let mut room = Room::new();
        room.types(9, "x");
        let hanging = update(&[(7, 0, &[text(at, "a")])], &[]);
        let admission = room.admit(&hanging);
        assert!(admission.news.is_empty());
        let parked = admission.parked.unwrap();
        let admission = room.types(9, "y");
        assert_eq!(
            (admission.resolved.clone(), &freed(&admission)[..]),
            (vec![parked], &[hanging][..])
        );
    }
}

#[test]
fn sections_of_one_update_may_hang_on_each_other() {
    // 7's second item hangs on 9's first, and 9's second on 7's second; 8 hangs on both.
    let woven = update(
        &[
            (9, 0, &[text(At::Root, "a"), text(At::After(7, 1), "d")]),
            (8, 0, &[text(At::Between((9, 1), (7, 1)), "e")]),
            (7, 0, &[text(At::Root, "b"), text(At::After(9, 0), "c")]),
        ],
        &[],
    );
    let mut room = Room::new();
    assert_eq!(news(&room.admit(&woven)), std::slice::from_ref(&woven));
    // Two that wait for one another never go in.
    let ring = update(
        &[
            (6, 0, &[text(At::After(5, 0), "x")]),
            (5, 0, &[text(At::After(6, 0), "y")]),
        ],
        &[],
    );
    let admission = room.admit(&ring);
    assert!(admission.news.is_empty() && admission.parked.is_some());
}

#[test]
fn a_deletion_of_the_unknown_waits() {
    let mut room = Room::new();
    room.types(7, "ab");
    let admission = room.admit(&update(&[], &[(9, &[(0, 2)]), (7, &[(1, 3)])]));
    assert_eq!(admission.news, [update(&[], &[(7, &[(1, 1)])])]);
    let parked = admission.parked.unwrap();
    let admission = room.types(7, "cd");
    assert_eq!(freed(&admission)[..], [update(&[], &[(7, &[(2, 2)])])]);
    assert!(admission.resolved.is_empty());
    let admission = room.types(9, "xyz");
    assert_eq!(freed(&admission)[..], [update(&[], &[(9, &[(0, 2)])])]);
    assert_eq!(admission.resolved, [parked]);
}

#[test]
fn gc_and_deleted_structs_are_deletions() {
    for dead in [gc(2), deleted(At::After(7, 0), 2)] {
        let mut room = Room::new();
        room.types(7, "abc");
        let collected = update(&[(7, 1, std::slice::from_ref(&dead))], &[]);
        // Members hold the units alive: they are told by an update that only deletes.
        assert_eq!(
            news(&room.admit(&collected)),
            [update(&[], &[(7, &[(1, 2)])])]
        );
        assert_eq!(news(&room.admit(&collected)), &[] as &[Bytes]);
        assert_eq!(
            room.document.full(),
            update(&[(7, 0, &[text(At::Root, "abc")])], &[(7, &[(1, 2)])])
        );
    }
    // New ones go as they are, and so does what they imply: a member may hold the units from elsewhere.
    let mut room = Room::new();
    let collected = update(&[(7, 0, &[gc(2)])], &[]);
    assert_eq!(
        news(&room.admit(&collected)),
        [collected.clone(), update(&[], &[(7, &[(0, 2)])])]
    );
    let said = update(&[(8, 0, &[gc(2)])], &[(8, &[(0, 2)])]);
    assert_eq!(news(&room.admit(&said)), std::slice::from_ref(&said));
}

#[test]
fn parking_is_bounded() {
    let limits = DocumentLimits {
        parked_pieces_max: 2,
        parked_bytes_max: 2_000,
        ..DocumentLimits::default()
    };
    let mut room = Room::with(limits);
    let mut far = |clock: u64, word: &str| {
        room.admit(&update(
            &[(7, clock, &[text(At::After(7, clock - 1), word)])],
            &[],
        ))
    };
    let first = far(10, "x").parked.unwrap();
    let second = far(20, "x").parked.unwrap();
    assert_eq!(far(30, "x").dropped, [first]);
    // By bytes; and one that is too large for the bounds by itself is named and dropped.
    assert_eq!(far(40, &"x".repeat(1_200)).dropped.first(), Some(&second));
    let oversized = far(90, &"x".repeat(2_000));
    assert_eq!(oversized.dropped, [oversized.parked.unwrap()]);
    assert!(room.document.n_parked() > 0);
    assert_eq!(
        room.document
            .expire_parked(room.now + Duration::from_secs(29)),
        []
    );
    assert!(
        !room
            .document
            .expire_parked(room.now + Duration::from_secs(30))
            .is_empty()
    );
    assert_eq!(room.document.n_parked(), 0);
}

#[test]
fn a_piece_may_go_in_with_the_one_it_waited_for() {
    let mut room = Room::new();
    // The first waits for 1, the second brings 1 and waits for the first.
    let first = update(&[(8, 0, &[text(At::After(1, 0), "b")])], &[]);
    let waiting = room.admit(&first).parked.unwrap();
    let second = update(
        &[
            (9, 0, &[text(At::After(8, 0), "c")]),
            (1, 0, &[text(At::Root, "a")]),
        ],
        &[],
    );
    let admission = room.admit(&second);
    assert_eq!(
        (admission.parked, admission.resolved),
        (None, vec![waiting])
    );
    assert_eq!(
        room.document.state_vector(),
        &vector(&[(1, 1), (8, 1), (9, 1)])
    );
}

#[test]
fn a_piece_that_became_known_otherwise_is_resolved() {
    let mut room = Room::new();
    let late = update(&[(7, 1, &[text(At::After(7, 0), "b")])], &[]);
    let parked = room.admit(&late).parked.unwrap();
    let admission = room.types(7, "abc");
    assert_eq!(
        (admission.resolved, admission.news.len()),
        (vec![parked], 1)
    );
}

#[test]
fn refusals_change_nothing() {
    let limits = DocumentLimits {
        clients_max: 3,
        nesting_max: 2,
        document_bytes_max: 300,
        ..DocumentLimits::default()
    };
    let mut room = Room::with(limits);
    room.admit(&update(
        &[(7, 0, &[array(At::Root), array(At::In(7, 0))])],
        &[],
    ));
    let before = (room.document.state_vector().clone(), room.document.full());
    // Depth counts through neighbours that only name each other, and over clients.
    let deep = update(
        &[
            (9, 0, &[array(At::In(7, 1)), text(At::Root, "x")]),
            (8, 0, &[array(At::After(9, 0)), text(At::In(8, 0), "y")]),
        ],
        &[(7, &[(0, 1)])],
    );
    assert_eq!(
        room.try_admit(&deep),
        Err(AdmitError::NestedTooDeep { max: 2 })
    );
    let crowd: Vec<_> = (1..5)
        .rev()
        .map(|client| (client, text(At::Root, "x")))
        .collect();
    let sections: Vec<_> = crowd
        .iter()
        .map(|(client, item)| (*client, 0, std::slice::from_ref(item)))
        .collect();
    assert_eq!(
        room.try_admit(&update(&sections, &[])),
        Err(AdmitError::TooManyClients { max: 3 })
    );
    let large = update(&[(7, 2, &[text(At::After(7, 1), &"x".repeat(300))])], &[]);
    assert_eq!(
        room.try_admit(&large),
        Err(AdmitError::DocumentFull { max: 300 })
    );
    assert_eq!(
        (room.document.state_vector().clone(), room.document.full()),
        before
    );
    // What fits still goes in.
    let fits = update(&[(8, 0, &[text(At::In(7, 1), "y")])], &[]);
    assert_eq!(news(&room.admit(&fits)), [fits]);
}
