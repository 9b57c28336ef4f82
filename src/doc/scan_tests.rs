//! What the scan refuses, with the hostile corpus, and what it lets through.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::doc::test_support::{At, Raw, any, array, gc, hex, skip, text, update};
use crate::doc::{AdmitError, Document, DocumentLimits, StateVector, merge};

fn live(bytes: &Bytes) -> Result<Scanned, ScanError> {
    scan(bytes, &ScanLimits::default())
}

#[test]
fn a_keystroke_is_walked() {
    let keystroke = update(&[(7, 3, &[text(At::After(7, 2), "é")])], &[(7, &[(0, 2)])]);
    let scanned = live(&keystroke).unwrap();
    assert_eq!((scanned.n_structs(), scanned.n_delete_ranges()), (1, 1));
    assert_eq!(scanned.sections()[0].end, 4);
    assert!(!scanned.is_empty());
    assert!(live(&hex("0000")).unwrap().is_empty());
}

#[test]
fn lengths_are_counted_in_utf16_units() {
    let scanned = live(&update(&[(7, 0, &[text(At::Root, "a😀日é")])], &[])).unwrap();
    assert_eq!(scanned.sections()[0].end, 5);
}

type Expected = fn(&ScanError) -> bool;

/// `hostile-updates.md`: the rows that the scan must refuse, by number.
#[test]
fn hostile_updates_are_refused() {
    let mut deep_any = hex("01 01 01 00 08 01 01 61 01").to_vec();
    deep_any.extend([0x75, 0x01].repeat(100_000));
    deep_any.extend([0x7f, 0x00]);
    let corpus: Vec<(&str, Bytes, Expected)> = vec![
        ("2a", hex("ffffff7f"), |e| *e == ScanError::CountTooLarge),
        ("2b", hex("ffffff5b"), |e| *e == ScanError::CountTooLarge),
        ("2c", hex("d0acf30e01940101"), |e| {
            *e == ScanError::CountTooLarge
        }),
        ("3", deep_any.into(), |e| {
            matches!(e, ScanError::ValueTooDeep { .. })
        }),
        ("4", nested(100_000), |e| e.is_limit()),
        (
            "5",
            hex("0101f907ffffffff0f2800f9076a01610177013700"),
            |e| *e == ScanError::ClockTooLarge,
        ),
        (
            "6",
            hex("0102f607ffffffff0f2801036d61700175017f2801036d617001770175027f7e00"),
            |e| *e == ScanError::ClockTooLarge,
        ),
        ("7", hex("01017272027d027601016b010100"), |e| {
            matches!(e, ScanError::UnknownTag { .. })
        }),
        ("8", pushes(20_000), |e| e.is_limit()),
        ("9", map_sets(20_000), |e| e.is_limit()),
        ("12", hex("0001f00700"), |e| {
            *e == ScanError::CountTooLarge || *e == ScanError::ZeroLength
        }),
    ];
    for (name, bytes, expected) in corpus {
        let mut fastest = Duration::MAX;
        for _ in 0..5 {
            let started = Instant::now();
            let error = live(&bytes).unwrap_err();
            fastest = fastest.min(started.elapsed());
            assert!(expected(&error), "{name}: {error}");
        }
        assert!(
            fastest < Duration::from_millis(5),
            "{name} took {fastest:?}"
        );
        assert!(
            merge(&[bytes]).is_err() || matches!(name, "4" | "8" | "9"),
            "{name} is no update"
        );
    }
}

/// `hostile-updates.md`: the rows that are well-formed, and harmless behind admission.
#[test]
fn hostile_updates_that_are_well_formed_do_no_harm() {
    let now = Instant::now();
    // 1: an overlap with a known tail behind a hole: both wait, neither is relayed.
    let mut document = Document::new(DocumentLimits::default());
    for bytes in [
        hex("0101f90712080103617272027d027601016b7d0200"),
        hex("0101f90711080103617272027d027601016b7d0200"),
    ] {
        let admission = document.admit(&live(&bytes).unwrap(), now).unwrap();
        assert!(admission.news.is_empty() && admission.parked.is_some());
    }
    assert_eq!(document.full(), hex("0000"));
    // 4: as an initial sync, with room for the structs: the nesting is what is refused.
    let deep = scan(&nested(100_000), &ScanLimits::initial_sync()).unwrap();
    let error = document.admit(&deep, now).unwrap_err();
    assert_eq!(error, AdmitError::NestedTooDeep { max: 200 });
    assert!(document.state_vector().is_empty());
    // 10: what waits is bounded, and the room stays quick.
    for clock in 1..20_000 {
        let bytes = update(&[(9, clock, &[text(At::After(9, clock - 1), "x")])], &[]);
        document.admit(&live(&bytes).unwrap(), now).unwrap();
    }
    assert_eq!(document.n_parked(), 256);
    assert!(document.size_bytes() < 1 << 20);
    // 11
    assert!(StateVector::decode(&hex("8080808080010101")).is_err());
}

fn nested(depth: u64) -> Bytes {
    let mut structs = vec![Raw(hex("2701016d016b01").to_vec())];
    structs.extend((1..depth).map(|i| Raw(vec![0x27]).uints(&[0, 5, i - 1]).text("k").uints(&[1])));
    update(&[(5, 0, &structs)], &[])
}

fn pushes(n: u64) -> Bytes {
    let mut structs = vec![any(At::Root, &[1])];
    structs.extend((1..n).map(|i| any(At::After(5, i - 1), &[1])));
    update(&[(5, 0, &structs)], &[])
}

fn map_sets(n: usize) -> Bytes {
    let set = Raw(hex("2801016d016b017d01").to_vec());
    update(&[(5, 0, &vec![set; n])], &[])
}

#[test]
fn each_rule_has_its_error() {
    let item = text(At::Root, "x");
    let cases: Vec<(Bytes, ScanError)> = vec![
        (hex("00"), ScanError::Truncated),
        (hex("000000"), ScanError::TrailingBytes),
        (hex("8000"), ScanError::BadInteger),
        (
            update(&[(7, 0, &[text(At::Root, "")])], &[]),
            ScanError::ZeroLength,
        ),
        (update(&[(7, 0, &[gc(0)])], &[]), ScanError::ZeroLength),
        (update(&[], &[(7, &[(1, 0)])]), ScanError::ZeroLength),
        (
            update(&[(7, 1 << 31, &[gc(1)])], &[]),
            ScanError::ClockTooLarge,
        ),
        (
            update(&[(7, 1, &[gc(1 << 31)])], &[]),
            ScanError::ClockTooLarge,
        ),
        (
            update(&[], &[(7, &[(1 << 31, 1)])]),
            ScanError::ClockTooLarge,
        ),
        (
            update(&[(1 << 53, 0, std::slice::from_ref(&item))], &[]),
            ScanError::BadInteger,
        ),
        (
            update(
                &[
                    (7, 0, std::slice::from_ref(&item)),
                    (8, 0, std::slice::from_ref(&item)),
                ],
                &[],
            ),
            ScanError::ClientsOutOfOrder,
        ),
        (
            update(
                &[
                    (7, 0, std::slice::from_ref(&item)),
                    (7, 1, std::slice::from_ref(&item)),
                ],
                &[],
            ),
            ScanError::ClientsOutOfOrder,
        ),
        (
            update(&[(7, 4, &[text(At::After(7, 4), "x")])], &[]),
            ScanError::SelfReference,
        ),
        (
            update(&[(7, 4, &[text(At::Before(7, 5), "x")])], &[]),
            ScanError::SelfReference,
        ),
        (
            update(&[(7, 4, &[text(At::In(7, 9), "x")])], &[]),
            ScanError::SelfReference,
        ),
        // GC and Skip carry no flags; content 0 with flags is neither.
        (
            update(&[(7, 0, &[Raw(hex("80060001").to_vec())])], &[]),
            ScanError::UnknownTag { tag: 0x80 },
        ),
        (
            update(&[(7, 0, &[Raw(hex("0b01017401").to_vec())])], &[]),
            ScanError::UnknownTag { tag: 0x0b },
        ),
        // A text of one byte that is not UTF-8, and half a surrogate pair.
        (
            update(&[(7, 0, &[Raw(hex("0401017401ff").to_vec())])], &[]),
            ScanError::InvalidUtf8,
        ),
        (
            update(&[(7, 0, &[Raw(hex("0401017403eda080").to_vec())])], &[]),
            ScanError::InvalidUtf8,
        ),
        // An embed whose JSON is cut off.
        (
            update(&[(7, 0, &[Raw(hex("05010174017b").to_vec())])], &[]),
            ScanError::InvalidJson,
        ),
        // A weak link, which stock Yjs does not know.
        (
            update(&[(7, 0, &[Raw(hex("0701017407").to_vec())])], &[]),
            ScanError::UnknownTag { tag: 7 },
        ),
        // A subdocument whose options are null.
        (
            update(&[(7, 0, &[Raw(hex("090101740167 7e").to_vec())])], &[]),
            ScanError::UnknownTag { tag: 126 },
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(live(&bytes).unwrap_err(), expected, "{bytes:02x?}");
    }
}

#[test]
fn legacy_and_odd_content_is_taken() {
    for content in [
        // Legacy JSON: two values, one of them undefined.
        "02 010174 02 0131 09756e646566696e6564",
        // An XML hook, and an XML element.
        "0501017404 6e756c6c",
        "07010174050468 6f6f6b",
        "0701017403036469 76",
        // A subdocument with options.
        "09010174016776 00",
        // A format mark.
        "060101740462 6f6c640474727565",
    ] {
        let bytes = update(&[(7, 0, &[Raw(hex(content).to_vec())])], &[]);
        live(&bytes).unwrap_or_else(|error| panic!("{content}: {error}"));
    }
}

#[test]
fn limits_are_limits() {
    let two = update(
        &[
            (8, 0, &[text(At::Root, "x")]),
            (7, 0, &[array(At::Root), skip(2)]),
        ],
        &[(7, &[(0, 1), (5, 1)])],
    );
    let limits = ScanLimits::default();
    assert!(live(&two).is_ok());
    for limits in [
        ScanLimits {
            update_bytes_max: two.len() - 1,
            ..limits
        },
        ScanLimits {
            structs_max: 2,
            ..limits
        },
        ScanLimits {
            clients_max: 1,
            ..limits
        },
        ScanLimits {
            delete_ranges_max: 1,
            ..limits
        },
    ] {
        assert!(scan(&two, &limits).unwrap_err().is_limit());
    }
    let json = format!("{}1{}", "[".repeat(65), "]".repeat(65));
    let embed = update(
        &[(7, 0, &[Raw(vec![5]).uints(&[1]).text("t").text(&json)])],
        &[],
    );
    assert!(live(&embed).unwrap_err().is_limit());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// No bytes make a scan, an admission, a merge or a state vector panic.
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(prop_oneof![any_byte(), 0_u8..12], 0..64)) {
        let _ = StateVector::decode(&bytes);
        let bytes = Bytes::from(bytes);
        if let Ok(scanned) = live(&bytes) {
            let rescanned = rescan(&bytes).unwrap();
            prop_assert_eq!(scanned.n_structs(), rescanned.n_structs());
            let merged = merge(&[bytes.clone(), bytes]).unwrap();
            live(&merged).unwrap();
        }
    }
}

fn any_byte() -> impl Strategy<Value = u8> {
    proptest::num::u8::ANY
}
