//! Random histories of several yrs clients through a document, and arbitrary damage to their updates, against yrs itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use yrs::types::{Attrs, ToJson};
use yrs::updates::decoder::Decode;
use yrs::updates::encoder::Encode;
use yrs::{
    Any, Array, ArrayPrelim, ClientID, Doc, GetString, Map, MapPrelim, OffsetKind, Options,
    ReadTxn, Text, TextPrelim, Transact, TransactionMut, Update, Xml, XmlElementPrelim,
    XmlFragment, XmlTextPrelim,
};

use crate::doc::{Document, DocumentLimits, ScanLimits, StateVector, TailUpdate, merge, scan};
use crate::ids::Origin;
use crate::protocol::position::Position;

pub(super) const ORIGIN: Origin = Origin::from_bytes([1; 8]);

pub(super) fn doc(client: u64, skip_gc: bool) -> Doc {
    let doc = Doc::with_options(Options {
        offset_kind: OffsetKind::Utf16,
        skip_gc,
        cleanup_formatting: false,
        ..Options::with_client_id(ClientID::new(client))
    });
    doc.get_or_insert_text("text");
    doc.get_or_insert_text("rich");
    doc.get_or_insert_array("array");
    doc.get_or_insert_map("map");
    doc.get_or_insert_xml_fragment("xml");
    doc
}

pub(super) fn apply(doc: &Doc, update: &[u8]) {
    let update = Update::decode_v1(update).expect("yrs reads what we write");
    doc.transact_mut()
        .apply_update(update)
        .expect("yrs takes what we write");
}

pub(super) fn state(doc: &Doc) -> StateVector {
    StateVector::decode(&doc.transact().state_vector().encode_v1()).unwrap()
}

/// Values with the entries of maps in order.
fn show(value: &Any) -> String {
    match value {
        Any::Array(values) => format!("{:?}", values.iter().map(show).collect::<Vec<_>>()),
        Any::Map(entries) => {
            let entries: BTreeMap<_, _> = entries
                .iter()
                .map(|(key, value)| (key, show(value)))
                .collect();
            format!("{entries:?}")
        }
        _ => format!("{value:?}"),
    }
}

pub(super) fn content(doc: &Doc) -> String {
    let txn = doc.transact();
    let text = txn.get_text("text").unwrap().get_string(&txn);
    let rich = txn.get_text("rich").unwrap().get_string(&txn);
    let array = show(&txn.get_array("array").unwrap().to_json(&txn));
    let map = show(&txn.get_map("map").unwrap().to_json(&txn));
    let xml = txn.get_xml_fragment("xml").unwrap().get_string(&txn);
    format!("{text} {rich} {array} {map} {xml}")
}

/// One random step: what, by or for which client, and two numbers for it.
pub(super) type Step = (u8, usize, usize, usize);

const WORDS: [&str; 6] = ["a", "xyz", "é", "日本", "😀", "b😀c"];

/// A UTF-16 offset in `text` that splits no surrogate pair: two stock peers differ when one is split.
fn boundary(text: &str, wish: usize) -> u32 {
    let units: Vec<u16> = text.encode_utf16().collect();
    let at = wish % (units.len() + 1);
    let inside = at < units.len() && (0xdc00..=0xdfff).contains(&units[at]);
    (at + usize::from(inside)) as u32
}

pub(super) fn edit(txn: &mut TransactionMut<'_>, (what, _, a, b): Step) {
    let text = txn.get_text("text").unwrap();
    let rich = txn.get_text("rich").unwrap();
    let array = txn.get_array("array").unwrap();
    let map = txn.get_map("map").unwrap();
    let xml = txn.get_xml_fragment("xml").unwrap();
    let spot = |len: u32| (a as u32) % (len + 1);
    let span = |len: u32| {
        let from = (a as u32) % len.max(1);
        (from, (1 + b as u32 % 5).min(len - from.min(len)))
    };
    let key = ["k", "l", "m"][b % 3];
    match what {
        0..=2 => {
            let now = text.get_string(txn);
            text.insert(txn, boundary(&now, a), WORDS[b % WORDS.len()]);
        }
        3 => {
            let now = text.get_string(txn);
            let from = boundary(&now, a);
            let to = boundary(&now, from as usize + 1 + b % 6);
            if from < to {
                text.remove_range(txn, from, to - from);
            }
        }
        4 => {
            let bold: Attrs = [(Arc::from("bold"), Any::Bool(true))].into_iter().collect();
            let len = rich.len(txn);
            match b % 4 {
                0 => rich.insert_with_attributes(txn, spot(len), "bold", bold),
                1 => drop(rich.insert_embed(
                    txn,
                    spot(len),
                    Any::from_json(r#"{"img":[1,null]}"#).unwrap(),
                )),
                2 => rich.insert(txn, spot(len), "plain"),
                _ if len > 0 => {
                    let (from, n) = span(len);
                    rich.format(txn, from, n, bold);
                }
                _ => {}
            }
        }
        5 => {
            let len = array.len(txn);
            match b % 4 {
                0 => array.insert_range(
                    txn,
                    spot(len),
                    [Any::from(a as f64), Any::Null, Any::from("s")],
                ),
                1 => drop(array.insert(
                    txn,
                    spot(len),
                    ArrayPrelim::from([Any::from(1), Any::from(2)]),
                )),
                2 => drop(array.insert(txn, spot(len), MapPrelim::from([("in", Any::from(true))]))),
                _ => drop(array.push_back(txn, TextPrelim::new("nested"))),
            }
        }
        6 => {
            let len = array.len(txn);
            if len > 0 {
                let (from, n) = span(len);
                array.remove_range(txn, from, n);
            }
        }
        7 => match a % 4 {
            0 => drop(map.remove(txn, key)),
            1 => drop(map.insert(txn, key, MapPrelim::from([("deep", Any::from(b as f64))]))),
            _ => drop(map.insert(txn, key, Any::from(a as f64))),
        },
        8 => {
            let len = xml.len(txn);
            match b % 4 {
                0 => drop(xml.insert(txn, spot(len), XmlTextPrelim::new("t"))),
                1 if len > 0 => xml.remove(txn, a as u32 % len),
                _ => {
                    let element = xml.insert(txn, spot(len), XmlElementPrelim::empty("p"));
                    element.insert_attribute(txn, "at", "v");
                    element.insert(txn, 0, XmlTextPrelim::new("in"));
                }
            }
        }
        _ => {
            // Into what is nested, when there is something.
            match array.get(txn, a as u32 % array.len(txn).max(1)) {
                Some(yrs::Out::YArray(nested)) => nested.insert_range(txn, 0, [Any::from(7)]),
                Some(yrs::Out::YText(nested)) => nested.push(txn, "more"),
                Some(yrs::Out::YMap(nested)) => drop(nested.insert(txn, key, Any::from("v"))),
                _ => {}
            }
        }
    }
}

/// A client: its document, what it has not sent, and all that it ever made.
struct Client {
    doc: Doc,
    outbox: Vec<Bytes>,
    history: Vec<Bytes>,
}

/// The server: a document, its log, and every update that it was sent.
struct Server {
    document: Document,
    log: Vec<TailUpdate>,
    raw: Vec<Bytes>,
    now: Instant,
}

impl Server {
    fn receive(&mut self, update: &Bytes) {
        self.raw.push(update.clone());
        let scanned = scan(update, &ScanLimits::default()).expect("yrs writes what we read");
        let admission = self.document.admit(&scanned, self.now).unwrap();
        for bytes in admission.all_news().cloned() {
            scan(&bytes, &ScanLimits::default()).expect("we read what we write");
            let update = TailUpdate {
                origin: ORIGIN,
                sequence: self.log.len() as u64 + 1,
                bytes,
            };
            self.log.push(update.clone());
            self.document.push(update);
        }
    }

    /// The client sends all that the server lacks by its state vector, and gets all that it lacks itself.
    fn sync(&mut self, client: &Client) {
        let known = yrs::StateVector::decode_v1(&self.document.encoded_state_vector()).unwrap();
        let lacking = client.doc.transact().encode_state_as_update_v1(&known);
        self.receive(&lacking.into());
        apply(&client.doc, &self.document.diff(&state(&client.doc)));
    }
}

fn run(steps: &[Step], n_clients: usize, tail_updates_max: usize) {
    let limits = DocumentLimits {
        tail_updates_max,
        ..DocumentLimits::default()
    };
    let mut server = Server {
        document: Document::new(limits),
        log: Vec::new(),
        raw: Vec::new(),
        now: Instant::now(),
    };
    let mut clients: Vec<Client> = (0..n_clients)
        .map(|i| Client {
            doc: doc(1 + 100 * i as u64, i % 2 == 0),
            outbox: Vec::new(),
            history: Vec::new(),
        })
        .collect();
    // A reader that keeps up by positions alone.
    let reader = doc(9_999, true);
    let mut read = Position::new();
    let mut created = Vec::new();
    for &step in steps {
        let (what, who, a, b) = step;
        let index = who % n_clients;
        let other = (who + 1) % n_clients;
        let client = &mut clients[index];
        match what {
            0..=9 => {
                let mut txn = client.doc.transact_mut();
                edit(&mut txn, step);
                let update = Bytes::from(txn.encode_update_v1());
                if update[..] != [0, 0] {
                    client.outbox.push(update.clone());
                    created.push(update.clone());
                    client.history.push(update);
                }
            }
            10 | 11 if !client.outbox.is_empty() => {
                let at = if what == 10 {
                    0
                } else {
                    a % client.outbox.len()
                };
                let update = client.outbox.remove(at);
                server.receive(&update);
            }
            12 if !client.history.is_empty() => {
                let update = client.history[a % client.history.len()].clone();
                server.receive(&update);
            }
            13 if !client.history.is_empty() => {
                let some: Vec<Bytes> = client
                    .history
                    .iter()
                    .skip(a % 3)
                    .step_by(1 + b % 3)
                    .cloned()
                    .collect();
                server.receive(&merge(&some).unwrap());
                if let Ok(merged) = yrs::merge_updates_v1(&some) {
                    server.receive(&merged.into());
                }
            }
            14 => apply(&client.doc, &server.document.diff(&state(&client.doc))),
            15 => server.sync(client),
            16 => {
                let lacking = clients[other]
                    .doc
                    .transact()
                    .encode_state_as_update_v1(&clients[index].doc.transact().state_vector());
                apply(&clients[index].doc, &lacking);
            }
            _ => {
                match server.document.since(&read) {
                    Some(update) if update.is_empty() => {}
                    Some(update) => apply(&reader, &update),
                    None => apply(&reader, &server.document.diff(&state(&reader))),
                }
                read = server.document.position().clone();
                assert_eq!(&state(&reader), server.document.state_vector());
            }
        }
    }
    for _ in 0..2 {
        clients.iter().for_each(|client| server.sync(client));
    }
    let newcomer = doc(9_998, true);
    apply(&newcomer, &server.document.full());
    let expected = (content(&newcomer), server.document.state_vector().clone());
    let same = |doc: &Doc, who: &str| assert_eq!((content(doc), state(doc)), expected, "{who}");
    same(&newcomer, "newcomer");
    clients
        .iter()
        .for_each(|client| same(&client.doc, "client"));
    if let Some(update) = server
        .document
        .since(&read)
        .filter(|update| !update.is_empty())
    {
        apply(&reader, &update);
        same(&reader, "reader by position");
    }
    // In the order of their making: yrs 0.28.1 panics when an update overlaps a hole that it has noted.
    let oracle = doc(9_997, true);
    created.iter().for_each(|update| apply(&oracle, update));
    same(&oracle, "oracle");
    // The raw log merged in reverse, and the stored log loaded in reverse, are the same document.
    let reversed: Vec<Bytes> = server.raw.iter().rev().cloned().collect();
    let merged = doc(9_996, true);
    apply(&merged, &merge(&reversed).unwrap());
    same(&merged, "merged");
    let rows = server.log.iter().rev().cloned().collect();
    let mut loaded = Document::load(limits, None, Position::new(), rows).unwrap();
    assert_eq!(
        (loaded.n_unready(), loaded.state_vector()),
        (0, &expected.1)
    );
    let from_loaded = doc(9_995, true);
    apply(&from_loaded, &loaded.full());
    same(&from_loaded, "loaded");
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(
        (0_u8..19, 0_usize..8, 0_usize..1_000, 0_usize..1_000),
        1..120,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn a_document_is_what_yrs_makes_of_the_raw_updates(steps in steps(), n_clients in 2_usize..6, tail in 4_usize..60) {
        run(&steps, n_clients, tail);
    }

    /// Valid updates with damaged bytes are refused or harmless: no panic, and what is served can be read again.
    #[test]
    fn damaged_updates_never_panic(steps in steps(), damage in vec((0_usize..10_000, 0_usize..10_000, 0_u8..=255), 1..200)) {
        let client = doc(5, true);
        let mut updates = Vec::new();
        for step in steps {
            let mut txn = client.transact_mut();
            edit(&mut txn, (step.0 % 10, step.1, step.2, step.3));
            updates.push(txn.encode_update_v1());
        }
        updates.push(client.transact().encode_state_as_update_v1(&yrs::StateVector::default()));
        let mut document = Document::new(DocumentLimits::default());
        let mut served = Vec::new();
        for (which, at, byte) in damage {
            let mut bytes = updates[which % updates.len()].clone();
            if which % 3 > 0 {
                let at = at % bytes.len();
                bytes[at] = if which % 2 == 0 { byte } else { bytes[at] ^ (1 << (byte % 8)) };
            }
            if which % 7 == 0 {
                bytes.truncate(at % (bytes.len() + 1));
            }
            let Ok(scanned) = scan(&bytes.into(), &ScanLimits::default()) else { continue };
            let Ok(admission) = document.admit(&scanned, Instant::now()) else { continue };
            for bytes in admission.all_news().cloned() {
                let update = TailUpdate { origin: ORIGIN, sequence: served.len() as u64 + 1, bytes };
                served.push(update.bytes.clone());
                document.push(update);
            }
        }
        let full = document.full();
        for bytes in [full.clone(), merge(&served).unwrap(), document.diff(&[(5, 3)].into_iter().collect())] {
            scan(&bytes, &ScanLimits::initial_sync()).unwrap();
        }
        let mut again = Document::load(DocumentLimits::default(), Some(full.clone()), Position::new(), Vec::new()).unwrap();
        prop_assert_eq!(again.full(), full);
        prop_assert_eq!(again.state_vector(), document.state_vector());
    }
}
