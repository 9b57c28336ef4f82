//! Tests of the journal: its bytes, damage at every place, and the life of its segments.

use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use crate::ids::{DocumentKey, DocumentName, Epoch, OrgId};

use super::record::VERSION;
use super::*;

fn row(sequence: u64, update: impl Into<Bytes>) -> LogRow {
    LogRow {
        key: DocumentKey {
            org: OrgId::default_org(),
            name: DocumentName::new("notes/日本").unwrap(),
        },
        epoch: Epoch::from_bytes([7; 16]),
        origin: Origin::from_bytes(*b"origin-1"),
        sequence,
        author: "ada".into(),
        time_ms: 1_700_000_000_000,
        update: update.into(),
    }
}

struct Fixture {
    dir: TempDir,
    config: Config,
}

impl Fixture {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            config: Config::default(),
        }
    }

    /// As a new incarnation does.
    fn open(&self) -> (Journal, Replay) {
        Journal::open(self.config.clone(), self.dir.path(), Origin::random()).unwrap()
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
    }

    /// Replaces what is there by one segment with these bytes.
    fn put(&self, bytes: &[u8]) {
        for file in self.files() {
            fs::remove_file(file).unwrap();
        }
        fs::write(self.dir.path().join("0000000000000001.journal"), bytes).unwrap();
    }

    fn read_one(&self) -> OldSegment {
        let (journal, mut replay) = self.open();
        let old = replay.next().unwrap().unwrap();
        assert!(replay.next().is_none());
        drop(journal);
        old
    }
}

/// The bytes of a segment with these rows, and where each record ends.
fn segment(rows: &[LogRow]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = encode_header(Origin::from_bytes([1; 8])).to_vec();
    let mut ends = vec![bytes.len()];
    for row in rows {
        encode_row(row, &mut bytes);
        ends.push(bytes.len());
    }
    (bytes, ends)
}

#[test]
fn st20_what_was_appended_is_replayed_with_its_keys() {
    let fixture = Fixture::new();
    let rows = [row(1, "one"), row(2, ""), row(3, vec![9; 100_000])];
    {
        let (journal, replay) = fixture.open();
        assert_eq!(replay.n_left(), 0);
        let segment = journal.append(&rows[..2]).unwrap();
        assert_eq!(journal.append(&rows[2..]).unwrap(), segment);
        // Dropped with rows held, as by a kill: the file stays.
    }
    for _ in 0..2 {
        let (journal, replay) = fixture.open();
        assert_eq!((replay.n_left(), journal.n_segments()), (1, 1));
        let old: Vec<OldSegment> = replay.map(Result::unwrap).collect();
        assert_eq!(old[0].rows, rows);
        assert_eq!(old[0].damage, None);
    }
}

#[test]
fn st21_the_format_does_not_change_under_a_version() {
    let (bytes, _) = segment(&[row(258, "hi")]);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        concat!(
            // Magic, version, origin, checksum.
            "53594e434a524e4c",
            "01000000",
            "0101010101010101",
            "5fc5afb5",
            // Length, checksum, kind, epoch, origin, sequence, time.
            "4d000000",
            "5e7afa7a",
            "01",
            "07070707070707070707070707070707",
            "6f726967696e2d31",
            "0201000000000000",
            "0068e5cf8b010000",
            // Lengths, organisation, document, author, update.
            "07000000",
            "0c000000",
            "03000000",
            "64656661756c74",
            "6e6f7465732fe697a5e69cac",
            "616461",
            "6869",
        )
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn st21_any_row_round_trips(
        org in "\\PC{0,20}", name in "\\PC{1,40}", author in ".{0,20}", time_ms: u64,
        sequence in 1..=crate::store::SEQUENCE_MAX, epoch: [u8; 16], origin: [u8; 8],
        update in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let wanted = LogRow {
            key: DocumentKey { org: OrgId::new(org), name: DocumentName::new(&name).unwrap() },
            epoch: Epoch::from_bytes(epoch),
            origin: Origin::from_bytes(origin),
            sequence,
            author: author.into(),
            time_ms,
            update: update.into(),
        };
        let (bytes, _) = segment(std::slice::from_ref(&wanted));
        prop_assert_eq!(decode_rows(&bytes.into()), (vec![wanted], End::Clean));
    }

    #[test]
    fn st23_no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let (mut file, _) = segment(&[row(1, "one")]);
        file.extend(bytes);
        let (rows, _) = decode_rows(&file.into());
        prop_assert!(!rows.is_empty());
    }
}

#[test]
fn st22_a_tail_torn_at_any_byte_costs_only_the_record_that_was_being_written() {
    let rows = [row(1, "first"), row(2, vec![3; 40]), row(3, "third")];
    let (bytes, ends) = segment(&rows);
    let fixture = Fixture::new();
    for cut in 0..=bytes.len() {
        fixture.put(&bytes[..cut]);
        let old = fixture.read_one();
        let n_whole = ends.iter().filter(|end| **end <= cut).count();
        let good_len = if n_whole == 0 { 0 } else { ends[n_whole - 1] };
        assert_eq!(old.rows, rows[..n_whole.saturating_sub(1)], "cut at {cut}");
        let torn = Damage::Torn {
            n_bytes: (cut - good_len) as u64,
        };
        // A file of no bytes at all is a header that was never written.
        let is_torn = cut != good_len || cut == 0;
        assert_eq!(old.damage, is_torn.then_some(torn), "cut at {cut}");
        // It is cut off, so that it is not reported twice.
        assert_eq!(fs::metadata(&old.path).unwrap().len(), good_len as u64);
    }
}

#[test]
fn st23_a_rotten_byte_anywhere_stops_there_and_is_reported() {
    let rows = [row(1, "first"), row(2, vec![3; 40]), row(3, "third")];
    let (bytes, ends) = segment(&rows);
    let fixture = Fixture::new();
    for at in 0..ends[2] {
        for flip in [0x01, 0x80] {
            let mut rotten = bytes.clone();
            rotten[at] ^= flip;
            fixture.put(&rotten);
            // A version number is believed only with its checksum, so no rot looks like a newer format.
            let old = fixture.read_one();
            let n_good = ends.iter().filter(|end| **end <= at).count();
            let offset = if n_good == 0 { 0 } else { ends[n_good - 1] };
            assert_eq!(old.rows, rows[..n_good.saturating_sub(1)], "byte {at}");
            let corrupt = Damage::Corrupt {
                offset: offset as u64,
                n_bytes: (bytes.len() - offset) as u64,
            };
            assert_eq!(old.damage, Some(corrupt), "byte {at}");
            assert_eq!(fs::read(&old.path).unwrap(), rotten, "the evidence is kept");
        }
    }
}

#[test]
fn st21_a_newer_format_is_refused_and_left_alone() {
    let fixture = Fixture::new();
    let (mut bytes, _) = segment(&[row(1, "one")]);
    bytes[8..12].copy_from_slice(&(VERSION + 1).to_le_bytes());
    let crc = crc::crc32c(&[&bytes[..20]]);
    bytes[20..24].copy_from_slice(&crc.to_le_bytes());
    fixture.put(&bytes);
    let error = Journal::open(Config::default(), fixture.dir.path(), Origin::random()).unwrap_err();
    assert!(matches!(error, OpenError::Newer { version: 2, .. }));
    assert!(error.to_string().contains("newer syncline"));
    assert_eq!(fs::read(&fixture.files()[0]).unwrap(), bytes);
}

#[test]
fn st25_segments_rotate_and_go_when_all_their_rows_are_released() {
    let mut fixture = Fixture::new();
    fixture.config.segment_bytes = 1_000;
    let (journal, _) = fixture.open();
    let first = journal.append(&[row(1, vec![0; 500])]).unwrap();
    let second = journal.append(&[row(2, vec![0; 500])]).unwrap();
    assert_ne!(first, second);
    // Larger than a segment: one of its own, whole.
    let third = journal
        .append(&[row(3, vec![0; 3_000]), row(4, vec![0; 3_000])])
        .unwrap();
    let fourth = journal.append(&[row(5, "")]).unwrap();
    assert_eq!(journal.n_segments(), 4);
    let on_disk = |fixture: &Fixture| -> u64 {
        let files = fixture.files();
        files.iter().map(|f| fs::metadata(f).unwrap().len()).sum()
    };
    assert_eq!(journal.bytes(), on_disk(&fixture));

    journal.release(third, 1);
    journal.release(second, 1);
    assert_eq!(journal.n_segments(), 3);
    journal.release(third, 1);
    journal.release(first, 1);
    assert_eq!((journal.n_segments(), fixture.files().len()), (1, 1));
    assert_eq!(journal.bytes(), on_disk(&fixture));

    // The active one stays while it is small, and a clean stop leaves nothing.
    journal.release(fourth, 1);
    assert_eq!(journal.n_segments(), 1);
    drop(journal);
    assert_eq!(fixture.files().len(), 0);
}

#[test]
fn st25_a_large_active_segment_goes_as_soon_as_nothing_in_it_is_held() {
    let fixture = Fixture::new();
    let (journal, _) = fixture.open();
    let segment = journal.append(&[row(1, vec![0; 300_000])]).unwrap();
    journal.release(segment, 1);
    assert_eq!((journal.n_segments(), journal.bytes()), (0, 0));
    assert_ne!(journal.append(&[row(2, "")]).unwrap(), segment);
}

#[test]
fn st26_a_full_journal_says_so_and_takes_rows_again_after_a_release() {
    let mut fixture = Fixture::new();
    fixture.config.segment_bytes = 1_000;
    fixture.config.bytes_max = 2_500;
    let (journal, _) = fixture.open();
    let first = journal.append(&[row(1, vec![0; 900])]).unwrap();
    journal.append(&[row(2, vec![0; 900])]).unwrap();
    let full = journal.append(&[row(3, vec![0; 900])]);
    assert!(matches!(full, Err(AppendError::Full { bytes_max: 2_500 })));
    journal.release(first, 1);
    journal.append(&[row(3, vec![0; 900])]).unwrap();
}

#[test]
fn st26_a_failed_write_leaves_no_half_record_in_front_of_later_ones() {
    let fixture = Fixture::new();
    let (journal, _) = fixture.open();
    let first = journal.append(&[row(1, "one")]).unwrap();
    // A file that can be neither written nor cut: the worst that a broken disk does.
    let path = fixture.files()[0].clone();
    journal.state().active.as_mut().unwrap().file = File::open(&path).unwrap();
    assert!(matches!(
        journal.append(&[row(2, "two")]),
        Err(AppendError::Io(_))
    ));
    let second = journal.append(&[row(2, "two")]).unwrap();
    assert_ne!(first, second);
    journal.release(first, 1);
    drop(journal);
    assert_eq!(fixture.read_one().rows, [row(2, "two")]);
}

#[test]
fn st24_new_segments_come_after_old_ones_and_foreign_files_are_left_alone() {
    let fixture = Fixture::new();
    fs::write(fixture.dir.path().join("README"), "mine").unwrap();
    fs::write(fixture.dir.path().join("0000000000000009.damaged"), "kept").unwrap();
    {
        let (journal, _) = fixture.open();
        journal.append(&[row(1, "one")]).unwrap();
    }
    {
        let (journal, _) = fixture.open();
        journal.append(&[row(2, "two")]).unwrap();
    }
    let (_journal, replay) = fixture.open();
    let rows: Vec<LogRow> = replay.flat_map(|old| old.unwrap().rows).collect();
    assert_eq!(rows, [row(1, "one"), row(2, "two")]);
    assert_eq!(fixture.files().len(), 4);
}
