//! Tests of `upkeep`.

use std::time::Instant;

use proptest::prelude::*;
use yrs::updates::decoder::Decode as _;
use yrs::{ReadTxn as _, Transact as _};

use super::*;
use crate::doc::collect::{check_ranges, collect};
use crate::doc::oracle_tests::{ORIGIN, Step, apply, content, doc, edit, state, steps};
use crate::doc::test_support::{At, deleted, gc, scanned, text, update};
use crate::doc::worker::deletes_for_tests;
use crate::doc::{DocumentLimits, TailUpdate};
use crate::protocol::position::Position;

fn load(snapshot: &Bytes) -> Document {
    let snapshot = Some(snapshot.clone());
    Document::load(
        DocumentLimits::default(),
        snapshot,
        Position::new(),
        Vec::new(),
    )
    .unwrap()
}

#[test]
fn collected_content_is_gone_and_the_tail_stays() {
    let raw = update(&[(7, 0, &[text(At::Root, "abcd")])], &[(7, &[(1, 2)])]);
    let mut document = load(&raw);
    let tail = update(&[(9, 0, &[text(At::After(7, 2), "x")])], &[]);
    assert_eq!(
        document
            .admit(&scanned(&tail), Instant::now())
            .unwrap()
            .news,
        std::slice::from_ref(&tail)
    );
    document.push(TailUpdate {
        origin: ORIGIN,
        sequence: 1,
        bytes: tail,
    });
    let before = document.state_vector().clone();
    let parts = [
        text(At::Root, "a"),
        deleted(At::After(7, 0), 2),
        text(At::After(7, 2), "d"),
    ];
    let collected = update(&[(7, 0, &parts)], &[(7, &[(1, 2)])]);
    assert_eq!(
        document.adopt(&scanned(&collected)),
        Ok(Adopted { growth: None })
    );
    let expected = update(
        &[(9, 0, &[text(At::After(7, 2), "x")]), (7, 0, &parts)],
        &[(7, &[(1, 2)])],
    );
    assert_eq!(document.full(), expected);
    assert_eq!(document.state_vector(), &before);
}

#[test]
fn growth_is_what_the_document_does_not_know_by_then() {
    let mut document = load(&update(&[(7, 0, &[text(At::Root, "abcd")])], &[]));
    let known = update(&[], &[(7, &[(0, 1)])]);
    document.admit(&scanned(&known), Instant::now()).unwrap();
    document.push(TailUpdate {
        origin: ORIGIN,
        sequence: 1,
        bytes: known,
    });
    let collected = update(&[(7, 0, &[gc(3), text(At::After(7, 2), "d")])], &[]);
    let growth = document.adopt(&scanned(&collected)).unwrap().growth;
    assert_eq!(growth, Some(update(&[], &[(7, &[(1, 2)])])));
    assert_eq!(
        document.adopt(&scanned(&collected)),
        Ok(Adopted { growth: None })
    );
}

#[test]
fn a_state_of_another_document_is_refused() {
    let mut document = load(&update(&[(7, 0, &[text(At::Root, "abcd")])], &[]));
    let full = document.full();
    for other in [
        update(&[(8, 0, &[text(At::Root, "a")])], &[]),
        update(&[(7, 0, &[text(At::Root, "abcde")])], &[]),
        update(&[], &[(7, &[(3, 2)])]),
    ] {
        assert_eq!(document.adopt(&scanned(&other)), Err(AdoptError::NotOurs));
    }
    assert_eq!(document.full(), full);
}

/// A document, its log, a member who got every update as it was relayed, and clients who sync now and then.
struct Room {
    document: Document,
    n_log: u64,
    member: yrs::Doc,
    log: Vec<Bytes>,
    sum: ContentSum,
}

impl Room {
    fn receive(&mut self, update: &Bytes) {
        let admission = self
            .document
            .admit(&scanned(update), Instant::now())
            .unwrap();
        for bytes in admission.all_news().cloned() {
            self.push(bytes);
        }
    }

    fn push(&mut self, bytes: Bytes) {
        self.n_log += 1;
        apply(&self.member, &bytes);
        self.log.push(bytes.clone());
        self.sum.add(&scanned(&bytes));
        self.document.push(TailUpdate {
            origin: ORIGIN,
            sequence: self.n_log,
            bytes,
        });
    }

    fn sync(&mut self, client: &yrs::Doc) {
        let known = yrs::StateVector::decode_v1(&self.document.encoded_state_vector()).unwrap();
        let lacking = client.transact().encode_state_as_update_v1(&known);
        self.receive(&lacking.into());
        apply(client, &self.document.diff(&state(client)));
    }

    fn step(&mut self, clients: &[yrs::Doc], step: Step) {
        let client = &clients[step.1 % clients.len()];
        if step.0 < 10 {
            let update = {
                let mut transaction = client.transact_mut();
                edit(&mut transaction, step);
                Bytes::from(transaction.encode_update_v1())
            };
            // Some edits are sent at once, others wait for the next sync.
            if !step.2.is_multiple_of(3) {
                self.receive(&update);
            }
        } else {
            self.sync(client);
        }
    }
}

fn run(before: &[Step], after: &[Step], tail_updates_max: usize) {
    let limits = DocumentLimits {
        tail_updates_max,
        ..DocumentLimits::default()
    };
    let mut room = Room {
        document: Document::new(limits),
        n_log: 0,
        member: doc(9_999, true),
        log: Vec::new(),
        sum: ContentSum::new(),
    };
    let clients: Vec<yrs::Doc> = (0..3).map(|i| doc(1 + 100 * i, i == 1)).collect();
    before.iter().for_each(|step| room.step(&clients, *step));
    let raw = scanned(&room.document.full());
    let found = scanned(&deletes_for_tests(raw.bytes()));
    let (mut ranges, _) = check_ranges(&raw, &found).unwrap();
    let collected = scanned(&collect(&raw, &mut ranges).unwrap());
    after.iter().for_each(|step| room.step(&clients, *step));

    let state_before = room.document.state_vector().clone();
    let size_before = room.document.full().len();
    let adopted = room.document.adopt(&collected).unwrap();
    assert_eq!(room.document.state_vector(), &state_before);
    if let Some(growth) = adopted.growth {
        room.push(growth);
    }
    let snapshot = room.document.full();
    assert!(snapshot.len() <= size_before + raw.n_structs() * 8 + 64);
    let newcomer = doc(9_998, true);
    apply(&newcomer, &snapshot);
    let same = |a: &yrs::Doc, b: &yrs::Doc| {
        assert_eq!((content(a), state(a)), (content(b), state(b)));
    };
    same(&newcomer, &room.member);
    // The log, collected or not, deletes the same; the sum is carried.
    let log: Vec<Scanned> = room.log.iter().map(scanned).collect();
    assert_eq!(room.document.digest(room.sum), Digest::of_log(&log));

    // A server that restarts from the collected state, and those who hold the raw one, go on together.
    room.document = load(&snapshot);
    for _ in 0..2 {
        clients.iter().for_each(|client| room.sync(client));
    }
    apply(&newcomer, &room.document.full());
    for client in clients.iter().chain([&newcomer]) {
        same(client, &room.member);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn members_with_the_raw_and_the_collected_document_converge(before in steps(), after in steps(), tail in 4_usize..60) {
        run(&before, &after, tail);
    }
}
