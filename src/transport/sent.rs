//! The moment in which a request goes.
//!
//! Only the stream knows it: it comes after a wait for a connection, which the HTTP client hides. The client connects and
//! writes inside the future of the exchange, so that the stream finds here what that future was given.

use std::{any::Any, cell::RefCell};

tokio::task_local! {
    static HELD: RefCell<Option<Box<dyn Any>>>;
}

/// Does this work, an exchange, and holds `what` until the first byte of a request is about to be written, after its
/// connection was made; if none is, until the work ends.
pub async fn until_sent<T>(what: impl Any, work: impl Future<Output = T>) -> T {
    HELD.scope(RefCell::new(Some(Box::new(what))), work).await
}

/// A request goes.
pub(super) fn sent() {
    // Not all exchanges hold something.
    let held = HELD.try_with(RefCell::take);
    drop(held);
}
