//! Tasks of all services.

pub(super) mod delete;
pub(super) mod list;
pub(super) mod page_token;
mod parameters;
pub(super) mod pause;
pub(super) mod show;
pub(super) mod start;
pub(super) mod view;
pub(super) mod watch;
