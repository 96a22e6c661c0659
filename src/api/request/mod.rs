//! A request on its way to its handler: who asks, what is asked, and is it allowed.

pub(super) mod audit;
pub(super) mod auth;
pub(super) mod body;
pub(super) mod form;
pub(super) mod guard;
pub(super) mod idempotency;
mod json;
pub(super) mod prefer;
pub(super) mod query;
pub(super) mod rate;
pub(super) mod target;

/// Whether the name of something unknown is so plain that an answer can repeat it: it can be a
/// secret in the wrong place.
fn is_plain_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    (1..=32).contains(&name.len()) && name.bytes().all(is_plain)
}
