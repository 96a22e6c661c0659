//! Operations: what was asked for, and what became of it.

pub(super) mod cancel;
pub(super) mod list;
pub(super) mod show;
pub(super) mod view;
pub(super) mod watch;
