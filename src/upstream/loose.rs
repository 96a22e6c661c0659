//! Lenient reading of the vendor's documents.
//!
//! Editions of the services differ in which members exist, which are null and which numbers are
//! written as text. A member that cannot be read counts as not told: it must not hide the task that
//! it belongs to.

use jiff::Timestamp;
use serde::{Deserialize as _, Deserializer, de::DeserializeOwned};
use serde_json::Value;

/// A plain value that the vendor writes in more than one way.
pub(super) trait Loose: Sized {
    /// The value, if this is one way of writing it.
    fn read(value: &Value) -> Option<Self>;
}

impl Loose for String {
    /// Text or a number; the empty text is how the vendor writes "none".
    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) if text.is_empty() => None,
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

impl Loose for bool {
    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(flag) => Some(*flag),
            Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
            Value::Null
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => None,
        }
    }
}

impl Loose for f64 {
    /// Finite numbers only.
    fn read(value: &Value) -> Option<Self> {
        let number = match value.as_str() {
            Some(text) => text.trim().parse().ok(),
            None => value.as_f64(),
        };
        number.filter(|number: &f64| number.is_finite())
    }
}

impl Loose for u64 {
    /// Whole numbers as they are, fractions rounded down, nothing below zero.
    fn read(value: &Value) -> Option<Self> {
        match value.as_str() {
            Some(text) => text.trim().parse().ok(),
            None => value.as_u64().or_else(|| value.as_f64().and_then(whole)),
        }
    }
}

/// The whole part of a number that is not negative and small enough to be exact.
pub(super) fn whole(number: f64) -> Option<u64> {
    /// 2^53: up to there every whole number has a floating-point form of its own.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range is checked, and the fraction is to be dropped"
    )]
    (0.0..=EXACT_MAX).contains(&number).then_some(number as u64)
}

/// A moment from milliseconds since 1970; 0 is how the vendor writes "not yet".
pub(super) fn moment(milliseconds: u64) -> Option<Timestamp> {
    let milliseconds = i64::try_from(milliseconds)
        .ok()
        .filter(|&since| since > 0)?;
    Timestamp::from_millisecond(milliseconds).ok()
}

/// For `deserialize_with`: a plain value, or `None` if it is missing, null or something else.
pub(super) fn plain<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Loose,
{
    Value::deserialize(deserializer).map(|value| T::read(&value))
}

/// For `deserialize_with`: a nested object, or `None` if it is missing, null or something else.
pub(super) fn nested<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    Value::deserialize(deserializer).map(|value| object(&value))
}

/// An object with named members; serde alone would take an array for one too.
pub(super) fn object<T: DeserializeOwned>(value: &Value) -> Option<T> {
    value
        .is_object()
        .then(|| T::deserialize(value).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_may_be_written_as_text() {
        assert_eq!(u64::read(&json!("73400320000")), Some(73_400_320_000));
        assert_eq!(u64::read(&json!(284.9)), Some(284));
        assert_eq!(f64::read(&json!("0.5")), Some(0.5));
        assert_eq!(bool::read(&json!("True")), Some(true));
        assert_eq!(String::read(&json!(204_871)), Some("204871".to_owned()));
    }

    #[test]
    fn moments_are_in_milliseconds_and_zero_is_none() {
        assert_eq!(
            moment(1_767_608_131_000),
            "2026-01-05T10:15:31Z".parse().ok()
        );
        for none in [0, u64::MAX, i64::MAX.unsigned_abs()] {
            assert_eq!(moment(none), None, "{none}");
        }
    }

    #[test]
    fn what_is_no_such_value_counts_as_not_told() {
        for value in [
            json!(null),
            json!([]),
            json!({"a": 1}),
            json!("x"),
            json!(true),
        ] {
            assert_eq!(u64::read(&value), None, "{value}");
            assert_eq!(f64::read(&value), None, "{value}");
        }
        for value in [json!(-1), json!(-0.5), json!(1e300), json!("-3")] {
            assert_eq!(u64::read(&value), None, "{value}");
        }
        for value in [json!("NaN"), json!("inf")] {
            assert_eq!(f64::read(&value), None, "{value}");
        }
        for value in [json!(null), json!(""), json!([]), json!(true)] {
            assert_eq!(String::read(&value), None, "{value}");
        }
        assert_eq!(bool::read(&json!(1)), None);
    }
}
