//! The moment in which a request goes.
//!
//! Only the stream knows it: it comes after a wait for a connection, which the HTTP client hides.
//! The client connects and writes inside the future of the exchange, so that the stream finds here
//! what that future was given.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    io,
};

/// Whether a request is still good.
type Check = Box<dyn Fn() -> bool>;

/// Marks a request that was not good any more when it was about to be written.
#[derive(Debug, thiserror::Error)]
#[error("the request was withdrawn")]
struct Withdrawn;

/// Whether an error says that a request was not written, see [`while_good`].
pub(super) fn is_withdrawn(error: &io::Error) -> bool {
    matches!(error.get_ref(), Some(inner) if inner.is::<Withdrawn>())
}

tokio::task_local! {
    static HELD: RefCell<Option<Box<dyn Any>>>;
    static CHECK: RefCell<Option<Check>>;
    static REUSES: Cell<bool>;
}

/// Does this work, an exchange, and holds `what` until the first byte of a request is about to be
/// written, after its connection was made; if none is, until the work ends.
pub async fn until_sent<T>(what: impl Any, work: impl Future<Output = T>) -> T {
    HELD.scope(RefCell::new(Some(Box::new(what))), work).await
}

/// This work, an exchange, to be done in a task of its own: it goes on to hold there what this task
/// holds by [`until_sent`].
pub fn taken_along<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let held = HELD.try_with(RefCell::take).ok().flatten();
    HELD.scope(RefCell::new(held), work)
}

/// Does this work, an exchange, unless its request is not good any more when its first byte is
/// about to be written: that is
/// [`TransportErrorKind::Withdrawn`](super::TransportErrorKind::Withdrawn).
pub async fn while_good<T>(
    is_good: impl Fn() -> bool + 'static,
    work: impl Future<Output = T>,
) -> T {
    let check: Check = Box::new(is_good);
    CHECK.scope(RefCell::new(Some(check)), work).await
}

/// Does this work, an exchange, and tells whether its request went over a connection that had
/// carried another one.
pub(super) async fn noting_reuse<T>(work: impl Future<Output = T>) -> (T, bool) {
    let noting = async {
        let done = work.await;
        (done, REUSES.with(Cell::get))
    };
    REUSES.scope(Cell::new(false), noting).await
}

/// A request goes, unless this fails, over a connection that has carried another one or not.
pub(super) fn sent(reuses: bool) -> io::Result<()> {
    // Not all exchanges have something to check or to hold. It is taken, since nothing can be
    // withdrawn after the first byte.
    let check = CHECK.try_with(RefCell::take);
    if check.is_ok_and(|check| check.is_some_and(|is_good| !is_good())) {
        return Err(io::Error::other(Withdrawn));
    }
    let held = HELD.try_with(RefCell::take);
    drop(held);
    if reuses {
        // Connections are closed outside of exchanges, and TLS writes something then.
        _ = REUSES.try_with(|noted| noted.set(true));
    }
    Ok(())
}
