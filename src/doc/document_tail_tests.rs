//! Loading, the tail, and what readers are given from it.

use super::*;
use crate::doc::test_support::{At, ORIGIN, Raw, Room, hex, scanned, text, update, vector};

#[test]
fn a_storm_of_joins_costs_one_merge() {
    let mut room = Room::new();
    for _ in 0..50 {
        room.types(7, "x");
    }
    let merges = room.document.n_merges();
    let position = room.document.position().clone();
    let first = room.document.full();
    for _ in 0..100 {
        assert_eq!(room.document.full().as_ptr(), first.as_ptr());
        assert_eq!(
            room.document.diff(&StateVector::new()).as_ptr(),
            first.as_ptr()
        );
        assert_eq!(room.document.since(&position), Some(Bytes::new()));
    }
    assert_eq!(room.document.n_merges(), merges + 1);
}

#[test]
fn a_reader_who_is_behind_gets_the_tail() {
    let mut room = Room::new();
    room.types(7, "ab");
    let behind = room.document.position().clone();
    let keystroke = room.types(7, "c").news[0].clone();
    assert_eq!(room.document.since(&behind), Some(keystroke.clone()));
    room.document.full();
    assert_eq!(
        room.document.since(&behind),
        Some(keystroke),
        "merging forgets nothing"
    );
    room.types(7, "d");
    room.types(9, "z");
    assert_eq!(
        room.document.since(&behind),
        Some(update(
            &[
                (9, 0, &[text(At::Root, "z")]),
                (7, 2, &[text(At::After(7, 1), "cd")])
            ],
            &[]
        ))
    );
    // A position that tells of an update which this document never had.
    let mut ahead = room.document.position().clone();
    ahead.advance(ORIGIN, 99);
    assert_eq!(room.document.since(&ahead), None);
}

#[test]
fn the_tail_is_folded_and_memory_stays_flat() {
    let limits = DocumentLimits {
        tail_updates_max: 10,
        ..DocumentLimits::default()
    };
    let mut room = Room::with(limits);
    let start = room.document.position().clone();
    let mut recent = start.clone();
    for i in 0..100 {
        room.types(7, "x");
        if i == 97 {
            recent = room.document.position().clone();
        }
    }
    assert_eq!(room.document.since(&start), None);
    assert_eq!(
        room.document.since(&recent),
        Some(update(&[(7, 98, &[text(At::After(7, 97), "xx")])], &[]))
    );
    assert_eq!(
        room.document.full(),
        update(&[(7, 0, &[text(At::Root, &"x".repeat(100))])], &[])
    );
    assert!(
        room.document.size_bytes() < 2_000,
        "{}",
        room.document.size_bytes()
    );
}

#[test]
fn a_diff_holds_what_is_lacking_and_all_deletions() {
    let mut room = Room::new();
    room.types(9, "uvw");
    // Enough structs that cannot be joined for the marks to matter.
    let structs: Vec<Raw> = (0..200).map(|_| text(At::Before(9, 0), "ab")).collect();
    room.admit(&update(&[(7, 0, &structs)], &[]));
    room.admit(&update(&[], &[(9, &[(1, 1)])]));
    for known in [
        0, 1, 2, 127, 128, 129, 255, 256, 257, 397, 398, 399, 400, 500,
    ] {
        let diff = room.document.diff(&vector(&[(7, known), (9, 3), (11, 5)]));
        let mut lacking: Vec<Raw> = Vec::new();
        if known < 400 {
            if known % 2 == 1 {
                lacking.push(text(At::Between((7, known - 1), (9, 0)), "b"));
            }
            lacking.extend((known.div_ceil(2)..200).map(|_| text(At::Before(9, 0), "ab")));
        }
        let section = [(7, known, &lacking[..])];
        let sections = if lacking.is_empty() {
            &[][..]
        } else {
            &section[..]
        };
        assert_eq!(diff, update(sections, &[(9, &[(1, 1)])]), "from {known}");
    }
}

#[test]
fn a_document_is_loaded_from_rows_in_any_order() {
    let mut room = Room::new();
    for client in [9, 7, 9, 7, 7] {
        room.types(client, "ab");
    }
    room.admit(&update(
        &[(7, 6, &[text(At::After(9, 3), "q")])],
        &[(9, &[(0, 1)])],
    ));
    let full = room.document.full();
    let mut folded = Position::new();
    folded.advance(ORIGIN, 2);
    let snapshot =
        crate::doc::merge(&[room.log[0].bytes.clone(), room.log[1].bytes.clone()]).unwrap();
    for rotation in 0..4 {
        let mut rows = room.log[2..].to_vec();
        rows.rotate_left(rotation);
        rows.swap(0, 2);
        let mut loaded = Document::load(
            DocumentLimits::default(),
            Some(snapshot.clone()),
            folded.clone(),
            rows,
        )
        .unwrap();
        assert_eq!((loaded.full(), loaded.n_unready()), (full.clone(), 0));
        assert_eq!(loaded.position(), room.document.position());
        assert_eq!(loaded.since(&Position::new()), None);
        assert!(loaded.since(&folded).is_some());
    }
}

/// Session 1373 of the Node fuzz: a row that had waited was filed at the place of the row that released it, and a reader
/// who had seen only the latter never got it.
#[test]
fn a_row_that_waited_stands_at_its_own_place() {
    let mut room = Room::new();
    room.types(7, "a");
    room.types(7, "b");
    let seen = room.document.position().clone();
    room.types(7, "c");
    let mut rows = room.log.clone();
    rows.rotate_right(1);
    let mut loaded =
        Document::load(DocumentLimits::default(), None, Position::new(), rows).unwrap();
    assert_eq!(loaded.since(&seen), Some(room.log[2].bytes.clone()));
}

#[test]
fn rows_behind_a_lost_one_are_kept_and_never_served() {
    let mut room = Room::new();
    for word in ["a", "b", "c"] {
        room.types(7, word);
    }
    let lost = room.log.remove(1);
    let mut loaded = Document::load(
        DocumentLimits::default(),
        None,
        Position::new(),
        room.log.clone(),
    )
    .unwrap();
    assert_eq!((loaded.n_unready(), loaded.n_parked()), (1, 0));
    assert_eq!(loaded.full(), room.log[0].bytes);
    assert_eq!(loaded.position().get(ORIGIN), 3);
    assert_eq!(
        loaded.expire_parked(room.now + Duration::from_secs(1_000)),
        []
    );
    // Its author still has it: with it, what waited is news again.
    let admission = loaded.admit(&scanned(&lost.bytes), room.now).unwrap();
    let all: Vec<_> = admission.all_news().cloned().collect();
    assert_eq!(all, [lost.bytes, room.log[1].bytes.clone()]);
    assert!(admission.resolved.is_empty());
    assert_eq!(loaded.n_unready(), 0);
}

#[test]
fn malformed_rows_are_named() {
    let row = TailUpdate {
        origin: ORIGIN,
        sequence: 5,
        bytes: hex("00"),
    };
    let error =
        Document::load(DocumentLimits::default(), None, Position::new(), vec![row]).unwrap_err();
    assert!(
        matches!(error, LoadError::Row { sequence: 5, .. }),
        "{error}"
    );
    let error = Document::load(
        DocumentLimits::default(),
        Some(hex("ff")),
        Position::new(),
        Vec::new(),
    )
    .unwrap_err();
    assert!(matches!(error, LoadError::Snapshot(_)), "{error}");
}
