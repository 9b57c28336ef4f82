//! How the configuration writes quantities: `"30s"`, `"64MiB"`. A bare number of unknown unit is a bug that waits for a
//! reader, so durations have no bare form; a size without a unit is bytes.
//!
//! Used as `#[serde(with = "crate::units::duration")]` on fields that stay plain `Duration`, `usize` or `u64`. Pure.

use std::time::Duration;

/// Why a text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not a duration.
    #[error(
        "{0:?} is not a duration; write for example \"250ms\", \"30s\", \"5m\", \"1h30m\" or \"13d\""
    )]
    Duration(String),
    /// Not a size.
    #[error("{0:?} is not a size; write for example \"1100B\", \"256KiB\", \"64MiB\" or \"1GiB\"")]
    Size(String),
    /// A quantity that does not fit.
    #[error("{0:?} is too large")]
    TooLarge(String),
}

/// Milliseconds in each unit of time, largest first, as durations are printed.
const TIME_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Bytes in each unit of size, largest first, as sizes are printed. Decimal units are read, never printed.
const SIZE_UNITS: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Decimal units, for who thinks in them.
const DECIMAL_SIZE_UNITS: [(&str, u64); 3] =
    [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];

/// Reads `"1h30m"`; milliseconds are the finest unit.
pub fn parse_duration(text: &str) -> Result<Duration, ParseError> {
    let bad = || ParseError::Duration(text.to_owned());
    let large = || ParseError::TooLarge(text.to_owned());
    let mut rest = text.trim();
    let mut total_ms: u64 = 0;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let (number, after) = split_number(rest).ok_or_else(bad)?;
        let unit_len = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let (_, scale) = TIME_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(bad)?;
        let part = number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(*scale))
            .ok_or_else(large)?;
        total_ms = total_ms.checked_add(part).ok_or_else(large)?;
        rest = after.trim_start();
    }
    Ok(Duration::from_millis(total_ms))
}

/// Writes a duration so that [`parse_duration`] reads it back; below a millisecond is cut off.
pub fn format_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".into();
    }
    let mut out = String::new();
    for (unit, scale) in TIME_UNITS {
        if rest >= scale {
            out.push_str(&(rest / scale).to_string());
            out.push_str(unit);
            rest %= scale;
        }
    }
    out
}

/// Reads `"64MiB"`.
pub fn parse_size(text: &str) -> Result<u64, ParseError> {
    let bad = || ParseError::Size(text.to_owned());
    let (number, unit) = split_number(text.trim()).ok_or_else(bad)?;
    let unit = unit.trim_start();
    let scale = SIZE_UNITS
        .iter()
        .chain(&DECIMAL_SIZE_UNITS)
        .find(|(name, _)| *name == unit)
        .map(|(_, scale)| *scale)
        .or(unit.is_empty().then_some(1))
        .ok_or_else(bad)?;
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(scale))
        .ok_or_else(|| ParseError::TooLarge(text.to_owned()))
}

/// Writes a size in the largest unit that divides it.
pub fn format_size(bytes: u64) -> String {
    let (unit, scale) = SIZE_UNITS
        .into_iter()
        .find(|(_, scale)| bytes >= *scale && bytes.is_multiple_of(*scale))
        .unwrap_or(("B", 1));
    format!("{}{unit}", bytes / scale)
}

/// Digits, then what follows; `None` without digits.
fn split_number(text: &str) -> Option<(&str, &str)> {
    let len = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    (len > 0).then(|| text.split_at(len))
}

/// For `#[serde(with)]` on a `Duration`.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes `"30s"`.
    pub fn serialize<S: Serializer>(duration: &Duration, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&super::format_duration(*duration))
    }

    /// Reads `"30s"`.
    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(input)?;
        super::parse_duration(&text).map_err(D::Error::custom)
    }
}

/// For `#[serde(with)]` on a `usize`, `u64` or `u32` that counts bytes.
pub mod size {
    use std::fmt;
    use std::marker::PhantomData;

    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    /// Writes `"64MiB"`.
    pub fn serialize<T, S>(bytes: &T, out: S) -> Result<S::Ok, S::Error>
    where
        T: Copy + TryInto<u64>,
        S: Serializer,
    {
        let bytes = (*bytes).try_into().unwrap_or(u64::MAX);
        out.serialize_str(&super::format_size(bytes))
    }

    /// Reads `"64MiB"`, or a number of bytes.
    pub fn deserialize<'de, T, D>(input: D) -> Result<T, D::Error>
    where
        T: TryFrom<u64>,
        D: Deserializer<'de>,
    {
        struct Size<T>(PhantomData<T>);

        impl<T: TryFrom<u64>> Visitor<'_> for Size<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"64MiB\", or a number of bytes")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
                let bytes = super::parse_size(text).map_err(E::custom)?;
                T::try_from(bytes).map_err(|_| E::custom(super::ParseError::TooLarge(text.into())))
            }

            fn visit_u64<E: Error>(self, bytes: u64) -> Result<T, E> {
                T::try_from(bytes)
                    .map_err(|_| E::custom(super::ParseError::TooLarge(bytes.to_string())))
            }

            fn visit_i64<E: Error>(self, bytes: i64) -> Result<T, E> {
                let bytes = u64::try_from(bytes)
                    .map_err(|_| E::custom(super::ParseError::Size(bytes.to_string())))?;
                self.visit_u64(bytes)
            }
        }

        input.deserialize_any(Size(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_write() {
        for (text, ms) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1m 30s", 90_000),
            ("13d", 1_123_200_000),
            ("0s", 0),
        ] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse_duration(text), Ok(duration), "{text}");
            assert_eq!(
                parse_duration(&format_duration(duration)),
                Ok(duration),
                "{text}"
            );
        }
        assert_eq!(format_duration(Duration::from_millis(90_500)), "1m30s500ms");
        for bad in ["", "30", "s", "-1s", "1.5s", "30 seconds", "1y"] {
            assert_eq!(parse_duration(bad), Err(ParseError::Duration(bad.into())));
        }
        assert!(matches!(
            parse_duration("99999999999999999999s"),
            Err(ParseError::TooLarge(_))
        ));
    }

    #[test]
    fn sizes_read_and_write() {
        for (text, bytes) in [
            ("64MiB", 64 << 20),
            ("256KiB", 256 << 10),
            ("1100", 1_100),
            ("1100B", 1_100),
            ("2 GiB", 2 << 30),
            ("10MB", 10_000_000),
            ("0", 0),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes), "{text}");
        }
        assert_eq!(format_size(64 << 20), "64MiB");
        for bad in ["", "MiB", "1.5MiB", "64Mib", "64 potatoes", "-1"] {
            assert_eq!(parse_size(bad), Err(ParseError::Size(bad.into())));
        }
    }
}
