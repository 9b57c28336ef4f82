//! State vectors on the wire.

use super::*;
use crate::doc::test_support::hex;

#[test]
fn it_goes_through_its_wire_form_descending() {
    let vector: StateVector = [(1, 5), (300, 2), ((1 << 53) - 1, 7)].into_iter().collect();
    let encoded = vector.encode();
    assert_eq!(&encoded[..2], [3, 0xff]);
    assert_eq!(StateVector::decode(&encoded).unwrap(), vector);
    assert_eq!((vector.get(300), vector.get(2)), (2, 0));
}

#[test]
fn counts_are_not_believed() {
    assert!(matches!(
        StateVector::decode(&hex("ffffffff7f0000")),
        Err(StateVectorError::Malformed(ScanError::CountTooLarge))
    ));
    assert!(StateVector::decode(&hex("00ff")).is_err());
    assert!(StateVector::decode(&[]).is_err());
}

#[test]
fn zero_clocks_and_repetitions_do_not_count() {
    assert!(StateVector::decode(&hex("010500")).unwrap().is_empty());
    assert_eq!(StateVector::decode(&hex("0205070503")).unwrap().get(5), 7);
}
