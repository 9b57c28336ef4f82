//! Updates that are hard on whoever integrates them, most of them refused long before.

use bytes::Bytes;
use syncline::doc::merge;

/// The bytes of a hexadecimal text.
pub(crate) fn hex(text: &str) -> Bytes {
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
        .collect()
}

/// A value in front of the one before: nothing can be joined.
pub(crate) fn value_before(clock: u64) -> Bytes {
    let mut update = vec![1, 1, 7];
    uint(&mut update, clock);
    if clock == 0 {
        update.extend_from_slice(b"\x08\x01\x05array");
    } else {
        update.extend_from_slice(&[0x48, 7]);
        uint(&mut update, clock - 1);
    }
    update.extend_from_slice(&[1, 126, 0]);
    update.into()
}

/// Appends a lib0 varUint.
pub(crate) fn uint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
}

/// The corpus of hostile updates (the first design's `hostile-updates.md`), as far as they are updates.
pub(crate) fn poisons() -> Vec<(&'static str, Bytes)> {
    let nested_values = {
        let mut raw = b"\x01\x01\x07\x00\x08\x01\x01a\x01".to_vec();
        raw.extend_from_slice(&[117, 1].repeat(100_000));
        raw.extend_from_slice(&[126, 0]);
        Bytes::from(raw)
    };
    let nested_maps = {
        let mut raw = vec![1];
        uint(&mut raw, 100_000);
        raw.extend_from_slice(b"\x07\x00\x27\x01\x01m\x01k\x01");
        for parent in 0..99_999 {
            raw.extend_from_slice(&[0x27, 0, 7]);
            uint(&mut raw, parent);
            raw.extend_from_slice(b"\x01k\x01");
        }
        raw.extend_from_slice(&[1, 7, 1, 0, 1]);
        Bytes::from(raw)
    };
    let pushes = {
        let updates: Vec<Bytes> = (0..20_000).map(value_before).collect();
        merge(&updates).unwrap()
    };
    let sets = {
        let mut raw = vec![1];
        uint(&mut raw, 20_000);
        raw.extend_from_slice(&[7, 0]);
        raw.extend_from_slice(&b"\x28\x01\x01m\x01k\x01\x7d\x01".repeat(20_000));
        raw.push(0);
        Bytes::from(raw)
    };
    vec![
        ("1 late", hex("0101f90712080103617272027d027601016b7d0200")),
        (
            "1 overlap",
            hex("0101f90711080103617272027d027601016b7d0200"),
        ),
        ("2a", hex("ffffff7f")),
        ("2b", hex("ffffff5b")),
        ("2c", hex("d0acf30e01940101")),
        ("3", nested_values),
        ("4", nested_maps),
        ("5", hex("0101f907ffffffff0f2800f9076a01610177013700")),
        (
            "6",
            hex("0102f607ffffffff0f2801036d61700175017f2801036d617001770175027f7e00"),
        ),
        ("7", hex("01017272027d027601016b010100")),
        ("8", pushes),
        ("9", sets),
        ("12", hex("0001f00700")),
        (
            "to_json loops",
            hex("0102070027010161016b0004000700 04f09f988000"
                .replace(' ', "")
                .as_str()),
        ),
    ]
}
