//! The names of the trade: tasks, services, operations, callers, and the rules between them.
//!
//! This floor does no input or output and names no framework. Everything above it may use it; it
//! uses nothing of this crate. Ports (traits with more than one implementation) live beside the
//! types they speak of.

pub mod access;
pub mod audit;
pub mod clock;
pub mod decide;
pub mod history;
pub mod operation;
pub mod secret;
pub mod service;
pub mod start;
pub mod store;
pub mod task;
pub(crate) mod words;
