//! Every message there and back, and what a decoder refuses.

use super::*;

/// MS2: an unknown odd type is skipped, an unknown even one is an error.
#[test]
fn ms2_unknown_types() {
    let odd = Bytes::from_static(&[101, 1, 2, 3]);
    assert_eq!(ClientDocument::decode(&odd), Ok(None));
    assert_eq!(ClientControl::decode(&odd), Ok(None));
    assert_eq!(ServerDocument::decode(&odd), Ok(None));
    assert_eq!(ServerControl::decode(&odd), Ok(None));
    let even = Bytes::from_static(&[100]);
    assert_eq!(
        ClientDocument::decode(&even),
        Err(DecodeError::UnknownType(100))
    );
}

/// MS3: a known type that does not belong on the channel, or in the direction, is an error even when it is odd.
#[test]
fn ms3_misplaced_types() {
    let presence = ClientDocument::Presence(Bytes::from_static(&[0])).encode();
    assert_eq!(
        ClientControl::decode(&presence),
        Err(DecodeError::Misplaced(kind::PRESENCE))
    );
    let seen = ServerDocument::Seen(1).encode();
    assert_eq!(
        ClientDocument::decode(&seen),
        Err(DecodeError::Misplaced(kind::SEEN))
    );
    // A fragment is put together before anything is decoded.
    assert_eq!(
        ServerDocument::decode(&Bytes::from_static(&[62, 1])),
        Err(DecodeError::Misplaced(kind::FRAGMENT))
    );
}

/// MS4: nothing may follow the last field.
#[test]
fn ms4_trailing_bytes() {
    assert_eq!(
        ClientDocument::decode(&Bytes::from_static(&[58, 0])),
        Err(DecodeError::Read(ReadError::Trailing))
    );
}

/// CT2: a credential never reaches a log by way of `Debug`.
#[test]
fn ct2_credentials_are_not_printed() {
    let auth = ClientControl::Auth(Credential::Token("secret".into()));
    assert!(!format!("{auth:?}").contains("secret"));
}

/// DC2: sequences count from 1.
#[test]
fn dc2_sequence_zero_is_refused() {
    let zero = DecodeError::BadValue {
        field: "sequence",
        value: 0,
    };
    assert_eq!(
        ClientDocument::decode(&Bytes::from_static(&[36, 0, 0])),
        Err(zero)
    );
    assert_eq!(
        ClientDocument::decode(&Bytes::from_static(&[40, 0, 0])),
        Err(zero)
    );
}

/// EC3: an unknown code is no reason to fail; the message's own word on retrying holds.
#[test]
fn ec3_unknown_error_code() {
    let mut writer = start(kind::CLOSED, 8);
    writer.uint(900).str("later").uint(0).uint(7);
    let decoded = ServerDocument::decode(&writer.finish());
    let refusal = Refusal {
        code: ErrorCode::Internal,
        text: "later".into(),
        retryable: false,
        retry_after_ms: 7,
    };
    assert_eq!(decoded, Ok(Some(ServerDocument::Closed(refusal))));
}

/// Byte fields are slices of the frame.
#[test]
fn byte_fields_are_not_copied() {
    let frame = ClientDocument::Update {
        sequence: 1,
        update: Bytes::from_static(b"update"),
    }
    .encode();
    let Ok(Some(ClientDocument::Update { update, .. })) = ClientDocument::decode(&frame) else {
        panic!("not an UPDATE");
    };
    assert_eq!(update.as_ptr(), frame[3..].as_ptr());
}

/// MS5: a list's count reserves nothing.
#[test]
fn ms5_lists_are_capped() {
    assert_eq!(
        ClientControl::decode(&Bytes::from_static(&[0, 65])),
        Err(DecodeError::LongList("versions"))
    );
    assert_eq!(
        ClientControl::decode(&Bytes::from_static(&[0, 0xff, 0xff, 0x03])),
        Err(DecodeError::LongList("versions"))
    );
}
