//! Merging bytes: overlaps, holes, and what wins.

use super::*;
use crate::doc::test_support::{At, any, deleted, gc, hex, skip, text, update};

#[test]
fn nothing_merges_to_nothing() {
    assert_eq!(merge(&[]).unwrap(), hex("0000"));
    assert_eq!(merge(&[hex("0000"), hex("0000")]).unwrap(), hex("0000"));
    assert!(matches!(
        merge(&[hex("0000"), hex("00")]),
        Err(MergeError::Malformed { index: 1, .. })
    ));
}

#[test]
fn keystrokes_become_one_struct() {
    let keys: Vec<Bytes> = (0..300)
        .map(|i| {
            let at = if i == 0 {
                At::Root
            } else {
                At::After(7, i - 1)
            };
            update(&[(7, i, &[text(at, "x")])], &[])
        })
        .collect();
    assert_eq!(
        merge(&keys).unwrap(),
        update(&[(7, 0, &[text(At::Root, &"x".repeat(300))])], &[])
    );
}

#[test]
fn only_halves_of_one_item_are_joined() {
    let first = update(&[(7, 0, &[text(At::Root, "ab")])], &[]);
    for second in [
        // After another unit, with another right origin, other content.
        text(At::After(7, 0), "c"),
        text(At::Between((7, 1), (9, 0)), "c"),
        any(At::After(7, 1), &[1]),
    ] {
        let merged = merge(&[
            first.clone(),
            update(&[(7, 2, std::slice::from_ref(&second))], &[]),
        ]);
        let apart = update(&[(7, 0, &[text(At::Root, "ab"), second])], &[]);
        assert_eq!(merged.unwrap(), apart);
    }
    let joined = update(&[(7, 0, &[any(At::Between((9, 0), (9, 1)), &[1, 2])])], &[]);
    let halves = [
        update(&[(7, 0, &[any(At::Between((9, 0), (9, 1)), &[1])])], &[]),
        update(&[(7, 1, &[any(At::Between((7, 0), (9, 1)), &[2])])], &[]),
    ];
    assert_eq!(merge(&halves).unwrap(), joined);
}

#[test]
fn values_of_one_key_stay_single() {
    // Two sets of one key: the second names the first as its left origin and carries the key bit.
    let first = hex("01010700280101740161017d0100");
    let second = hex("01010701a80700017d0200");
    let merged = merge(&[first, second]).unwrap();
    assert_eq!(merged, hex("01020700280101740161017d01a80700017d0200"));
}

#[test]
fn holes_become_skips_but_never_at_the_start() {
    let late = update(&[(7, 5, &[text(At::After(7, 4), "x")])], &[]);
    let later = update(&[(7, 8, &[text(At::After(7, 7), "y")])], &[]);
    assert_eq!(
        merge(&[later, late]).unwrap(),
        update(
            &[(
                7,
                5,
                &[
                    text(At::After(7, 4), "x"),
                    skip(2),
                    text(At::After(7, 7), "y")
                ]
            )],
            &[]
        )
    );
    let leading = update(&[(7, 0, &[skip(5), text(At::After(7, 4), "x")])], &[]);
    let alone = update(&[(7, 5, &[text(At::After(7, 4), "x")])], &[]);
    assert_eq!(merge(&[leading]).unwrap(), alone);
}

#[test]
fn a_later_update_fills_a_hole() {
    let holed = update(
        &[(
            7,
            0,
            &[text(At::Root, "a"), skip(1), text(At::After(7, 1), "c")],
        )],
        &[],
    );
    let filling = update(&[(7, 1, &[text(At::After(7, 0), "b")])], &[]);
    let whole = update(&[(7, 0, &[text(At::Root, "abc")])], &[]);
    assert_eq!(merge(&[holed, filling]).unwrap(), whole);
}

#[test]
fn overlaps_are_cut() {
    let first = update(&[(7, 0, &[text(At::Root, "abc")])], &[]);
    let second = update(&[(7, 1, &[text(At::After(7, 0), "bcde")])], &[]);
    let whole = update(&[(7, 0, &[text(At::Root, "abcde")])], &[]);
    assert_eq!(merge(&[second, first]).unwrap(), whole);
}

#[test]
fn a_cut_pair_leaves_replacement_characters() {
    let whole = update(&[(7, 0, &[text(At::Root, "a😀b")])], &[]);
    let gone = update(&[(7, 2, &[gc(1)])], &[]);
    assert_eq!(
        merge(&[whole.clone(), gone]).unwrap(),
        update(
            &[(
                7,
                0,
                &[
                    text(At::Root, "a\u{fffd}"),
                    gc(1),
                    text(At::After(7, 2), "b")
                ]
            )],
            &[]
        )
    );
    let gone = update(&[(7, 1, &[deleted(At::After(7, 0), 1)])], &[]);
    assert_eq!(
        merge(&[whole, gone]).unwrap(),
        update(
            &[(
                7,
                0,
                &[
                    text(At::Root, "a"),
                    deleted(At::After(7, 0), 1),
                    text(At::After(7, 1), "\u{fffd}b")
                ]
            )],
            &[]
        )
    );
}

#[test]
fn the_deletion_wins_and_deleted_over_gc() {
    let alive = update(&[(7, 0, &[text(At::Root, "abcdef")])], &[]);
    let dead = update(&[(7, 1, &[deleted(At::After(7, 0), 2), gc(2)])], &[]);
    let collected = update(&[(7, 2, &[gc(2)])], &[]);
    let expected = update(
        &[(
            7,
            0,
            &[
                text(At::Root, "a"),
                deleted(At::After(7, 0), 2),
                gc(2),
                text(At::After(7, 4), "f"),
            ],
        )],
        &[],
    );
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let updates = order.map(|i| [&alive, &dead, &collected][i].clone());
        assert_eq!(merge(&updates).unwrap(), expected);
    }
}

#[test]
fn clients_descend_and_deletes_are_joined() {
    let one = update(
        &[(7, 0, &[text(At::Root, "a")])],
        &[(7, &[(0, 1)]), (9, &[(4, 2)])],
    );
    let other = update(&[(9, 0, &[text(At::Root, "b")])], &[(9, &[(0, 1), (6, 1)])]);
    assert_eq!(
        merge(&[one, other]).unwrap(),
        update(
            &[
                (9, 0, &[text(At::Root, "b")]),
                (7, 0, &[text(At::Root, "a")])
            ],
            &[(9, &[(0, 1), (4, 3)]), (7, &[(0, 1)])]
        )
    );
}
