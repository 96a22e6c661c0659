//! A request on its way to its handler: who asks, what is asked about, is it allowed, and what came along.

pub(super) mod auth;
pub(super) mod body;
pub(super) mod guard;
pub(super) mod idempotency;
pub(super) mod prefer;
pub(super) mod query;
