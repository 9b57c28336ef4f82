//! Ranges of deletions: what is news, and what touches is one.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn range(client: ClientId, start: u32, end: u32) -> DeletedRange {
    DeletedRange { client, start, end }
}

fn insert(index: &mut DeleteIndex, of: DeletedRange) -> Vec<DeletedRange> {
    let mut news = Vec::new();
    index.insert(of, &mut news);
    news
}

#[test]
fn only_what_was_not_deleted_is_news() {
    let mut index = DeleteIndex::default();
    assert_eq!(insert(&mut index, range(1, 5, 10)), [range(1, 5, 10)]);
    assert_eq!(insert(&mut index, range(1, 6, 9)), []);
    assert_eq!(insert(&mut index, range(1, 20, 30)), [range(1, 20, 30)]);
    assert_eq!(
        insert(&mut index, range(1, 0, 40)),
        [range(1, 0, 5), range(1, 10, 20), range(1, 30, 40)]
    );
    assert_eq!(index.n_ranges(), 1);
    // Touching ranges are one.
    assert_eq!(insert(&mut index, range(1, 40, 41)), [range(1, 40, 41)]);
    assert_eq!(insert(&mut index, range(2, 0, 1)), [range(2, 0, 1)]);
    assert_eq!(index.n_ranges(), 2);
    assert_eq!(&index.encoded()[..], [2, 2, 1, 0, 1, 1, 1, 0, 41]);
}

proptest! {
    /// Against a set of units.
    #[test]
    fn it_is_a_set(ranges in proptest::collection::vec((0_u32..60, 1_u32..8), 0..60)) {
        let mut index = DeleteIndex::default();
        let mut units = BTreeSet::new();
        for (start, length) in ranges {
            let news = insert(&mut index, range(1, start, start + length));
            let fresh: Vec<u32> = (start..start + length).filter(|unit| units.insert(*unit)).collect();
            let told: Vec<u32> = news.iter().flat_map(|range| range.start..range.end).collect();
            prop_assert_eq!(fresh, told);
        }
        let runs = units.iter().filter(|unit| **unit == 0 || !units.contains(&(**unit - 1))).count();
        prop_assert_eq!(index.n_ranges(), runs);
        let mut all: Vec<DeletedRange> = units.iter().map(|unit| range(1, *unit, unit + 1)).collect();
        let mut written = Vec::new();
        write_deletes(&mut written, &mut all);
        prop_assert_eq!(&index.encoded()[..], &written[..]);
    }
}
