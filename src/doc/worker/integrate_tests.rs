//! The worker's work in the test's own process, on documents that are known to be harmless.

use proptest::prelude::*;
use yrs::{Array as _, Map as _, Text as _};

use super::*;
use crate::doc::oracle_tests::{Step, apply, content, doc, edit, state, steps};
use crate::doc::test_support::{At, Raw, any, hex, scanned, text, update};

fn ask(task: Task, update: &Bytes) -> Answer {
    answer(&Request {
        id: 1,
        task,
        update: update.clone(),
    })
}

fn visible(update: &Bytes) -> VisibleHash {
    visible_hash(update).unwrap()
}

fn full(doc: &Doc) -> Bytes {
    let nothing = yrs::StateVector::default();
    doc.transact().encode_state_as_update_v1(&nothing).into()
}

#[test]
fn empty_and_malformed_documents_are_answered() {
    let empty = Bytes::from_static(&[0, 0]);
    assert_eq!(
        ask(Task::Collect, &empty),
        Answer::Collected {
            id: 1,
            deletes: empty.clone()
        }
    );
    assert_eq!(
        visible(&empty),
        visible(&update(&[(7, 0, &[crate::doc::test_support::gc(3)])], &[]))
    );
    for (bytes, why) in [
        (Bytes::from_static(&[1]), Refusal::Malformed),
        (
            update(&[(7, 0, &[text(At::After(8, 0), "a")])], &[]),
            Refusal::Holes,
        ),
        // Each waits for the other.
        (
            update(
                &[
                    (8, 0, &[text(At::After(7, 0), "a")]),
                    (7, 0, &[text(At::After(8, 0), "a")]),
                ],
                &[],
            ),
            Refusal::Holes,
        ),
        (
            hex("0101f907ffffffff0f2800f9076a01610177013700"),
            Refusal::Malformed,
        ),
    ] {
        assert_eq!(ask(Task::Collect, &bytes), Answer::Refused { id: 1, why });
    }
}

/// `to_json` of this never ends, since it counts characters where lengths are UTF-16 units.
#[test]
fn an_array_that_holds_astral_text_is_hashed_or_refused_but_never_walked() {
    let array = |rest: &[Raw]| {
        let mut structs = vec![Raw(vec![0x27]).uints(&[1]).text("m").text("k").uints(&[0])];
        structs.extend_from_slice(rest);
        update(&[(7, 0, &structs)], &[])
    };
    let astral = array(&[text(At::In(7, 0), "😀")]);
    assert!(astral.len() <= 33);
    assert_ne!(visible(&astral), visible(&array(&[])));
    let mixed = array(&[text(At::In(7, 0), "😀"), any(At::After(7, 2), &[1])]);
    let why = Refusal::Unsupported;
    assert_eq!(ask(Task::Visible, &mixed), Answer::Refused { id: 1, why });
}

#[test]
fn twenty_thousand_pushes_and_sets_take_little() {
    let pushes: Vec<Raw> = (0..20_000)
        .map(|i| {
            any(
                if i == 0 {
                    At::Root
                } else {
                    At::After(7, i - 1)
                },
                &[1],
            )
        })
        .collect();
    let sets: Vec<Raw> = (0..20_000)
        .map(|_| {
            Raw(vec![0x28])
                .uints(&[1])
                .text("m")
                .text("k")
                .uints(&[1, 125, 1])
        })
        .collect();
    for structs in [pushes, sets] {
        let raw = update(&[(7, 0, &structs)], &[]);
        assert!(matches!(ask(Task::Collect, &raw), Answer::Collected { .. }));
    }
}

#[test]
fn what_can_be_seen_counts_and_nothing_else() {
    let base = || {
        let doc = doc(1, true);
        {
            let mut transaction = doc.transact_mut();
            transaction
                .get_text("rich")
                .unwrap()
                .insert(&mut transaction, 0, "hello world");
            transaction
                .get_array("array")
                .unwrap()
                .push_back(&mut transaction, 1);
            transaction
                .get_map("map")
                .unwrap()
                .insert(&mut transaction, "k", "v");
        }
        doc
    };
    let before = visible(&full(&base()));
    let bold = |on: bool| {
        [(
            std::sync::Arc::from("bold"),
            if on {
                yrs::Any::Bool(true)
            } else {
                yrs::Any::Null
            },
        )]
        .into()
    };
    let changed = |change: &dyn Fn(&mut yrs::TransactionMut<'_>)| {
        let doc = base();
        change(&mut doc.transact_mut());
        visible(&full(&doc))
    };
    assert_eq!(
        before,
        changed(&|t| {
            let rich = t.get_text("rich").unwrap();
            rich.format(t, 0, 5, bold(true));
            rich.format(t, 0, 5, bold(false));
            rich.insert(t, 3, "gone");
            rich.remove_range(t, 3, 4);
        })
    );
    assert_eq!(
        before,
        changed(&|t| {
            let map = t.get_map("map").unwrap();
            map.insert(t, "k", "w");
            map.insert(t, "k", "v");
            map.insert(t, "l", "v");
            map.remove(t, "l");
        })
    );
    let different: [VisibleHash; 4] = [
        changed(&|t| t.get_text("rich").unwrap().format(t, 0, 5, bold(true))),
        changed(&|t| {
            t.get_array("array").unwrap().push_back(t, 1);
        }),
        changed(&|t| {
            t.get_map("map").unwrap().insert(t, "l", "v");
        }),
        changed(&|t| {
            t.get_map("map").unwrap().insert(t, "k", 1);
        }),
    ];
    for (i, hash) in different.iter().enumerate() {
        assert_ne!(*hash, before, "{i}");
        assert!(!different[i + 1..].contains(hash), "{i}");
    }
}

/// Histories of a few clients, some of which collect by themselves.
fn history(steps: &[Step]) -> Bytes {
    let clients = [doc(1, true), doc(200, false), doc(300, true)];
    for &step in steps {
        let client = &clients[step.1 % 3];
        if step.0 < 10 {
            edit(&mut client.transact_mut(), step);
        } else {
            let other = &clients[(step.1 + 1) % 3];
            let lacking = other
                .transact()
                .encode_state_as_update_v1(&client.transact().state_vector());
            apply(client, &lacking);
        }
    }
    let updates: Vec<Bytes> = clients.iter().map(full).collect();
    crate::doc::merge(&updates).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn collecting_on_bytes_is_what_yrs_does(steps in steps()) {
        let raw = history(&steps);
        let deletes = deletes_of(&raw).unwrap();
        let raw = scanned(&raw);
        let (mut ranges, _) = check_ranges(&raw, &scanned(&deletes)).unwrap();
        let collected = collect(&raw, &mut ranges).unwrap();

        let (kept, bytes, yrs) = (doc(9_001, true), doc(9_002, true), doc(9_003, false));
        apply(&kept, raw.bytes());
        apply(&yrs, raw.bytes());
        apply(&bytes, &collected);
        prop_assert_eq!(content(&bytes), content(&kept));
        prop_assert_eq!(state(&bytes), state(&kept));
        prop_assert_eq!(content(&yrs), content(&kept));
        let by_yrs = full(&yrs);
        prop_assert_eq!(delete_only_update(&bytes), delete_only_update(&yrs));
        // What stays of deleted content would cost more to cut out.
        prop_assert!(collected.len() <= by_yrs.len() + by_yrs.len() / 8 + 64, "{} {}", collected.len(), by_yrs.len());
        let said = raw.bytes().len() + deletes.len();
        prop_assert!(collected.len() <= said, "{} {said}", collected.len());
        prop_assert_eq!(visible_hash(&collected), visible_hash(raw.bytes()));
        prop_assert_eq!(visible_hash(&by_yrs), visible_hash(raw.bytes()));
        let mut again = ranges.clone();
        prop_assert_eq!(collect(&scanned(&collected), &mut again).unwrap(), collected);
    }
}
