//! The forms of values: each function reads one form and says in its error what is wanted, never
//! what was found.

use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo};

use super::reader::Entry;

/// What a reading ends in: the value, or the rest of a sentence that begins with the key.
pub(super) type Reading<T> = Result<T, String>;

/// A text that is not empty and has no control characters.
pub(super) fn text(entry: &Entry) -> Reading<String> {
    match entry.text() {
        Some(text) if !text.is_empty() && !text.contains(char::is_control) => Ok(text.to_owned()),
        _ => Err("must be a text that is not empty".to_owned()),
    }
}

/// A text that may be empty, which means that the key is not set.
pub(super) fn text_or_empty(entry: &Entry) -> Reading<Option<String>> {
    match entry.text() {
        Some("") => Ok(None),
        _ => text(entry).map(Some),
    }
}

/// A duration with a unit, a day being 24 hours, within limits that belong to it.
pub(super) fn duration(least: Duration, most: Duration) -> impl Fn(&Entry) -> Reading<Duration> {
    move |entry| {
        entry
            .text()
            .and_then(parse_duration)
            .filter(|duration| (least..=most).contains(duration))
            .ok_or_else(|| {
                format!(
                    "must be a duration with a unit, such as \"30s\", \"500ms\" or \"2d\", from {} to {}",
                    show(least),
                    show(most)
                )
            })
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let span: Span = text.parse().ok()?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(duration).ok()
}

fn show(duration: Duration) -> String {
    SignedDuration::try_from(duration).map_or_else(|_| "no limit".to_owned(), |d| format!("{d:#}"))
}

/// A size in bytes, written with a unit, within limits that belong to it.
pub(super) fn size(least: usize, most: usize) -> impl Fn(&Entry) -> Reading<usize> {
    move |entry| {
        entry
            .text()
            .and_then(parse_size)
            .filter(|size| (least..=most).contains(size))
            .ok_or_else(|| {
                format!(
                    "must be a size in B, KiB or MiB, such as \"1MiB\", from {least} B to {most} B"
                )
            })
    }
}

fn parse_size(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit: usize = match unit.trim_start() {
        "B" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(unit)
}

/// A whole number within limits that belong to it.
pub(super) fn number(least: usize, most: usize) -> impl Fn(&Entry) -> Reading<usize> {
    move |entry| {
        entry
            .number()
            .and_then(|number| usize::try_from(number).ok())
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| format!("must be a whole number from {least} to {most}"))
    }
}

/// A SHA-256 digest in lower-case hex.
pub(super) fn digest(entry: &Entry) -> Reading<[u8; 32]> {
    entry
        .text()
        .and_then(parse_digest)
        .ok_or_else(|| "must be a SHA-256 digest: 64 digits of lower-case hex".to_owned())
}

fn parse_digest(text: &str) -> Option<[u8; 32]> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let mut digest = [0; 32];
    hex::decode_to_slice(text, &mut digest).ok()?;
    Some(digest)
}
