//! Tests of `digest`.

use std::time::Instant;

use proptest::collection::vec;
use proptest::prelude::*;
use yrs::Transact as _;

use super::*;
use crate::doc::oracle_tests::{ORIGIN, Step, doc, edit};
use crate::doc::test_support::{At, any, deleted, gc, scanned, text, update};
use crate::doc::{Document, DocumentLimits, TailUpdate, merge};

fn sum(updates: &[&Bytes]) -> ContentSum {
    let mut sum = ContentSum::new();
    updates.iter().for_each(|update| sum.add(&scanned(update)));
    sum
}

#[test]
fn units_count_and_not_how_they_are_written() {
    let whole = update(&[(7, 0, &[text(At::Root, "aé😀b")])], &[]);
    let halves = [
        update(&[(7, 0, &[text(At::Root, "aé")])], &[]),
        update(&[(7, 2, &[text(At::After(7, 1), "😀b")])], &[]),
    ];
    assert_eq!(sum(&[&whole]), sum(&[&halves[1], &halves[0]]));
    let values = update(&[(7, 0, &[any(At::Root, &[1, 2, 3])])], &[]);
    let apart = update(
        &[(7, 0, &[any(At::Root, &[1]), any(At::After(7, 0), &[2, 3])])],
        &[],
    );
    assert_eq!(sum(&[&values]), sum(&[&apart]));
}

#[test]
fn every_difference_counts() {
    let one = |at, structs: &[_]| sum(&[&update(&[(7, at, structs)], &[])]);
    let all = [
        one(0, &[text(At::Root, "ab")]),
        one(0, &[text(At::Root, "ba")]),
        one(1, &[text(At::Root, "ab")]),
        sum(&[&update(&[(8, 0, &[text(At::Root, "ab")])], &[])]),
        one(0, &[any(At::Root, &[97, 98])]),
        one(0, &[gc(2)]),
        ContentSum::new(),
    ];
    for (i, a) in all.iter().enumerate() {
        assert!(all[i + 1..].iter().all(|b| a != b), "{i}");
    }
    assert_eq!(one(0, &[gc(2)]), one(0, &[deleted(At::Root, 2)]));
}

#[test]
fn deletions_count_however_they_are_said() {
    let content = ContentSum::new();
    let digest = |ranges: &[(u64, u64)]| {
        let mut deletes = DeleteIndex::default();
        deletes.insert_all(&scanned(&update(&[], &[(7, ranges)])));
        Digest::new(content, &deletes)
    };
    assert_eq!(digest(&[(0, 2), (2, 3)]), digest(&[(0, 5)]));
    assert_ne!(digest(&[(0, 5)]), digest(&[(0, 4)]));
    assert_ne!(
        digest(&[(0, 5)]),
        Digest::new(content, &DeleteIndex::default())
    );
}

/// What is stored must be read for ever.
#[test]
fn the_encoding_and_the_hash_are_fixed() {
    let log = scanned(&update(
        &[(7, 0, &[text(At::Root, "ab"), any(At::After(7, 1), &[1])])],
        &[(7, &[(0, 1)])],
    ));
    let digest = Digest::of_log([&log]);
    let bytes = digest.encode();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "011995552668ff8625949b5f48b7c56a8e");
    assert_eq!(Digest::decode(&bytes), Ok(digest));
    assert_eq!(Digest::decode(&bytes[1..]), Err(DigestError::Length(16)));
    let mut other = bytes;
    other[0] = 2;
    assert_eq!(Digest::decode(&other), Err(DigestError::Version(2)));
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_log_its_order_its_merge_and_any_cut_have_one_digest(
        steps in vec((0_u8..10, 0_usize..8, 0_usize..1_000, 0_usize..1_000), 1..60),
        cut in 0_usize..60,
    ) {
        let clients = [doc(1, true), doc(200, false)];
        let mut document = Document::new(DocumentLimits::default());
        let mut log: Vec<Bytes> = Vec::new();
        let mut prefix = None;
        for (n, step) in steps.iter().copied().enumerate() {
            let step: Step = step;
            let update = {
                let mut transaction = clients[step.1 % 2].transact_mut();
                edit(&mut transaction, step);
                Bytes::from(transaction.encode_update_v1())
            };
            let admission = document.admit(&scanned(&update), Instant::now()).unwrap();
            for bytes in admission.all_news().cloned() {
                log.push(bytes.clone());
                document.push(TailUpdate { origin: ORIGIN, sequence: log.len() as u64, bytes });
            }
            if n == cut % steps.len() {
                prefix = Some((document.full(), document.state_vector().clone()));
            }
        }
        let scans: Vec<Scanned> = log.iter().map(scanned).collect();
        let digest = Digest::of_log(&scans);
        prop_assert_eq!(Digest::of_log(scans.iter().rev()), digest);
        prop_assert_eq!(Digest::of_log([&scanned(&merge(&log).unwrap())]), digest);
        prop_assert_eq!(Digest::of_log([&scanned(&document.full())]), digest);
        prop_assert_eq!(document.digest(digest.content()), digest);
        let (before, known) = prefix.unwrap();
        let after = document.diff(&known);
        if !known.is_empty() {
            prop_assert_eq!(Digest::of_log([&scanned(&before), &scanned(&after)]), digest);
        }
    }
}
