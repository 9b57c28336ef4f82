//! The segment format: golden bytes, and that everything comes back.

use proptest::prelude::*;

use super::*;
use crate::ids::{DocumentName, OrgId};

fn key() -> DocumentKey {
    DocumentKey {
        org: OrgId::default_org(),
        name: DocumentName::new("notes").unwrap(),
    }
}

fn row(origin: u8, sequence: u64, author: &str, time_ms: u64, update: &[u8]) -> LogRow {
    LogRow {
        key: key(),
        epoch: Epoch::from_bytes([7; 16]),
        origin: Origin::from_bytes([origin; 8]),
        sequence,
        author: author.into(),
        time_ms,
        update: Bytes::copy_from_slice(update),
    }
}

fn rows() -> Vec<LogRow> {
    vec![
        row(1, 5, "bob", 1_700_000_000_000, &[1, 1, 9]),
        row(1, 6, "bob", 1_700_000_000_120, &[1, 2, 8]),
        row(1, 9, "ada", 1_700_000_000_100, &[0, 0]),
        row(2, 1, "ada", 1_600_000_000_000, &[]),
    ]
}

/// What ST51 says, by hand. The packed form is up to zstd; what is packed is ours.
#[test]
fn st51_golden_bytes() {
    let sealed = seal_one(&rows());
    let expected = [
        &[7; 16][..], // epoch
        &[4],         // rows
        &[2, 3, b'a', b'd', b'a', 3, b'b', b'o', b'b'],
        &[3], // runs of consecutive sequences
        &[1, 1, 1, 1, 1, 1, 1, 1, 5, 0, 0, 0, 0, 0, 0, 0, 2],
        &[1, 1, 1, 1, 1, 1, 1, 1, 9, 0, 0, 0, 0, 0, 0, 0, 1],
        &[2, 2, 2, 2, 2, 2, 2, 2, 1, 0, 0, 0, 0, 0, 0, 0, 1],
        &[1, 2, 0, 2],                         // two of bob, two of ada
        &[0x80, 0xa0, 0xab, 0xfe, 0xf9, 0x62], // 2 * 1,700,000,000,000
        &[0xf0, 0x01],                         // 2 * 120
        &[39],                                 // 2 * 20 - 1
        &[0xc7, 0xa1, 0xb7, 0x87, 0xe9, 0x05], // 2 * 100,000,000,100 - 1
        &[3, 3, 2, 0],                         // lengths
        &[0, 0],                               // the only one of length 2, as it is
        &[0, 1, 1],                            // the first bytes of those of length 3, as they are
        &[1, 1, 1],                            // the second ones, as differences
        &[0, 9, 8],
    ]
    .concat();
    assert_eq!(content(&rows(), &sealed.info)[..], expected);
    assert_eq!(&sealed.bytes[..8], b"SYNCSEG\x01");
    assert_eq!(usize::from(sealed.bytes[8]), expected.len());
    assert_eq!(unpack(&sealed.bytes[9..], 256).unwrap(), expected);
}

/// A segment as version 1 wrote it, zstd frame included: it must be readable for ever.
const GOLDEN: &str = "\
    53594e43534547017028b52ffd24706502007403070704020361646103626f62030105000201090001020100010102000280\
    a0abfef962f00127c7a1b787e905030302010101010100090808007f8606060619838141c6606090251960019e53fa41";

#[test]
fn st51_a_segment_of_version_1_is_readable_for_ever() {
    let bytes: Vec<u8> = (0..GOLDEN.len() / 2)
        .map(|n| u8::from_str_radix(&GOLDEN[2 * n..2 * n + 2], 16).unwrap())
        .collect();
    let hex: String = seal_one(&rows())
        .bytes
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(
        open(&key(), &bytes).ok(),
        Some(rows()),
        "now it would be {hex}"
    );
}

#[test]
fn st50_a_segment_says_what_is_in_it() {
    let sealed = seal_one(&rows());
    let info = sealed.info;
    assert_eq!((info.n_rows, info.update_bytes), (4, 8));
    assert_eq!(
        (info.from_ms, info.to_ms),
        (1_600_000_000_000, 1_700_000_000_120)
    );
    assert_eq!(info.authors, ["ada".into(), "bob".into()] as [Arc<str>; 2]);
    let ranges: Vec<_> = info
        .ranges
        .iter()
        .map(|range| (range.first, range.last, range.n_rows))
        .collect();
    assert_eq!(ranges, [(5, 9, 3), (1, 1, 1)]);
    assert!(seal(&[]).is_empty());
}

#[test]
fn st52_segments_are_bounded() {
    let many: Vec<LogRow> = (1..=ROWS_MAX as u64 * 2 + 1)
        .map(|n| row(1, n, "ada", n, b"x"))
        .collect();
    let n_rows: Vec<u64> = seal(&many).iter().map(|one| one.info.n_rows).collect();
    assert_eq!(n_rows, [ROWS_MAX as u64, ROWS_MAX as u64, 1]);
    let huge = vec![0; UPDATE_BYTES_MAX + 1];
    let large: Vec<LogRow> = (1..=3).map(|n| row(1, n, "ada", n, &huge)).collect();
    assert_eq!(seal(&large).len(), 3);
    for (sealed, row) in seal(&large).iter().zip(&large) {
        assert_eq!(
            open(&key(), &sealed.bytes).unwrap(),
            std::slice::from_ref(row)
        );
    }
}

#[test]
fn st51_what_is_no_segment_is_named() {
    let bytes = seal_one(&rows()).bytes;
    assert!(matches!(
        open(&key(), b"SYNC"),
        Err(SegmentError::NotASegment)
    ));
    let mut newer = bytes.to_vec();
    newer[7] = 2;
    assert!(matches!(open(&key(), &newer), Err(SegmentError::Newer(2))));
    for at in 9..bytes.len() {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 1;
        assert!(open(&key(), &damaged).is_err(), "byte {at}");
    }
    for n in 0..bytes.len() {
        assert!(open(&key(), &bytes[..n]).is_err(), "{n} bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn st53_every_row_comes_back(
        rows in proptest::collection::btree_map(
            (0..3_u8, prop_oneof![0..20_u64, (u64::MAX / 2 - 5)..(u64::MAX / 2)]),
            (0..3_u8, any::<u64>(), proptest::collection::vec(any::<u8>(), 0..12)),
            1..60,
        )
    ) {
        let rows: Vec<LogRow> = rows
            .iter()
            .map(|((origin, sequence), (author, time_ms, update))| {
                row(*origin, *sequence, ["", "ada", "bob"][usize::from(*author)], *time_ms, update)
            })
            .collect();
        let opened: Vec<LogRow> = seal(&rows)
            .iter()
            .flat_map(|sealed| open(&key(), &sealed.bytes).unwrap())
            .collect();
        prop_assert_eq!(opened, rows);
    }
}
