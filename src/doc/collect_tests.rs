//! Tests of `collect`.

use super::*;
use crate::doc::test_support::{At, Raw, any, array, deleted, gc, scanned, skip, text, update};

fn collected(raw: &Bytes) -> Bytes {
    let raw = scanned(raw);
    check(&raw).unwrap();
    let mut deletes = DeleteIndex::default();
    deletes.insert_all(&raw);
    collect(&raw, &mut deletes).unwrap()
}

#[test]
fn deleted_text_loses_its_content_and_keeps_its_place() {
    let long = "x".repeat(100);
    let raw = update(
        &[(
            7,
            0,
            &[
                text(At::Root, &format!("a{long}😀é{long}b")),
                text(At::After(7, 204), "gh"),
            ],
        )],
        &[(7, &[(1, 100), (104, 100), (205, 2)])],
    );
    let expected = update(
        &[(
            7,
            0,
            &[
                text(At::Root, "a"),
                deleted(At::After(7, 0), 100),
                text(At::After(7, 100), "😀é"),
                deleted(At::After(7, 103), 100),
                text(At::After(7, 203), "b"),
                deleted(At::After(7, 204), 2),
            ],
        )],
        &[(7, &[(1, 100), (104, 100), (205, 2)])],
    );
    assert_eq!(collected(&raw), expected);
    assert_eq!(collected(&expected), expected, "once is enough");
}

#[test]
fn what_is_not_worth_cutting_out_stays() {
    for ranges in [&[(1, 2), (4, 1)][..], &[(0, 3)], &[(3, 3)], &[(1, 4)]] {
        let raw = update(&[(7, 0, &[text(At::Root, "abcdef")])], &[(7, ranges)]);
        assert_eq!(collected(&raw), raw);
    }
    let values = any(At::Root, &[1; 40]);
    let raw = update(&[(7, 0, std::slice::from_ref(&values))], &[(7, &[(3, 30)])]);
    let expected = update(
        &[(
            7,
            0,
            &[
                any(At::Root, &[1; 3]),
                deleted(At::After(7, 2), 30),
                any(At::After(7, 32), &[1; 7]),
            ],
        )],
        &[(7, &[(3, 30)])],
    );
    assert_eq!(collected(&raw), expected);
}

/// A stranger deletes every other stretch of a long text: linear all the same.
#[test]
fn many_deletions_in_one_struct_cost_no_more_than_its_length() {
    let n = 20_000;
    let long = text(At::Root, &"😀xxxxxxxxxxxxxxxxxx".repeat(2 * n));
    let ranges: Vec<(u64, u64)> = (0..n as u64).map(|i| (40 * i + 1, 19)).collect();
    for lengths in [1, 19] {
        let ranges: Vec<_> = ranges.iter().map(|(at, _)| (*at, lengths)).collect();
        let raw = update(&[(7, 0, std::slice::from_ref(&long))], &[(7, &ranges)]);
        assert!(collected(&raw).len() <= raw.len() + n);
    }
}

#[test]
fn children_of_a_deleted_type_become_lengths() {
    // An array in the root with a value, an array in it with a text, a sibling of the text from another client.
    let raw = update(
        &[
            (9, 0, &[text(At::After(7, 3), "xy")]),
            (
                7,
                0,
                &[
                    array(At::Root),
                    any(At::In(7, 0), &[1]),
                    array(At::After(7, 1)),
                    text(At::In(7, 2), "t"),
                    text(At::After(7, 0), "live"),
                ],
            ),
        ],
        &[(9, &[(0, 2)]), (7, &[(0, 4)])],
    );
    let expected = update(
        &[
            (9, 0, &[gc(2)]),
            (
                7,
                0,
                &[deleted(At::Root, 1), gc(3), text(At::After(7, 0), "live")],
            ),
        ],
        &[(9, &[(0, 2)]), (7, &[(0, 4)])],
    );
    assert_eq!(collected(&raw), expected);
    assert_eq!(collected(&expected), expected);
}

#[test]
fn content_that_another_encoder_would_change_stays_as_it_is() {
    // A BigInt (122), and a subdocument with options.
    let big = Raw(vec![8]).uints(&[1]).text("t").uints(&[1]);
    let big = Raw([&big.0[..], &[122, 0, 0, 0, 0, 0, 0, 0, 9]].concat());
    let subdocument = Raw(vec![0x89]).uints(&[7, 0]).text("guid");
    let subdocument = Raw([&subdocument.0[..], &[118, 1, 4], b"meta", &[125, 5]].concat());
    let raw = update(
        &[(7, 0, &[big, subdocument, text(At::After(7, 1), "ab")])],
        &[(7, &[(2, 1)])],
    );
    let small = collected(&raw);
    let at = |bytes: &Bytes| bytes.windows(4).position(|window| window == b"meta");
    // The text is cut in two structs, so only their number differs before it.
    let end = at(&raw).unwrap() + 6;
    assert_eq!(raw[2..end], small[2..end]);
}

#[test]
fn what_workers_cannot_do_is_told_before_they_are_asked() {
    let hole = update(&[(7, 0, &[text(At::Root, "a"), skip(2)])], &[]);
    let late = update(&[(7, 1, &[text(At::Root, "a")])], &[]);
    let json = update(
        &[(
            7,
            0,
            &[Raw(vec![2]).uints(&[1]).text("t").uints(&[1]).text("1")],
        )],
        &[],
    );
    let hook = update(
        &[(
            7,
            0,
            &[Raw(vec![7]).uints(&[1]).text("t").uints(&[5]).text("h")],
        )],
        &[],
    );
    for (raw, error) in [
        (hole, CollectError::Holes),
        (late, CollectError::Holes),
        (json, CollectError::Unsupported),
        (hook, CollectError::Unsupported),
    ] {
        assert_eq!(check(&scanned(&raw)), Err(error));
    }
}

#[test]
fn ranges_that_do_not_fit_are_refused() {
    let raw = scanned(&update(
        &[(7, 0, &[text(At::Root, "abcd"), gc(1)])],
        &[(7, &[(1, 1)])],
    ));
    let judge = |ranges: &[(u64, u64)]| check_ranges(&raw, &scanned(&update(&[], &[(7, ranges)])));
    let (_, growth) = judge(&[(1, 1), (4, 1)]).unwrap();
    assert_eq!(growth, []);
    let (_, growth) = judge(&[(0, 2), (4, 1)]).unwrap();
    let added = DeletedRange {
        client: 7,
        start: 0,
        end: 1,
    };
    assert_eq!(growth, [added]);
    for wrong in [&[(1, 1)][..], &[(4, 1)], &[(1, 5)]] {
        assert!(judge(wrong).is_err(), "{wrong:?}");
    }
    let elsewhere = update(&[], &[(8, &[(0, 1)]), (7, &[(1, 1), (4, 1)])]);
    assert!(check_ranges(&raw, &scanned(&elsewhere)).is_err());
    assert!(check_ranges(&raw, &raw).is_err(), "structs are no ranges");
}
