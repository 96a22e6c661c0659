//! Streams of server-sent events: what callers watch, as it happens.
//!
//! A stream is a [`Feed`] with what every stream has around it: heartbeats, a longest time, and an
//! end at once when the gateway stops or the caller may not watch any more. An event is made when
//! the connection takes it, so that nothing piles up for a reader who is slow; whoever comes late
//! is told what is true then. Events have ids, by which a caller who was cut off goes on where it
//! was (`Last-Event-ID`).

pub(super) mod message;
pub(super) mod places;

use std::{convert::Infallible, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Version, header},
    web::Bytes,
};
use futures_util::stream;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use self::{message::Message, places::Place};
use super::{
    problem::Problem,
    request::{
        auth,
        guard::{Head, Known},
    },
};
use crate::listener::Exchange;

/// How often something is sent, so that nobody on the way takes the connection for dead, and a
/// caller who is gone is noticed. Also how often it is asked again whether the caller may watch.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// The longest that a stream lasts. Its caller connects again, and goes on where it was.
const DURATION_MAX: Duration = Duration::from_mins(15);
/// What every stream begins with: how long to wait before connecting again, in milliseconds.
const BEGINNING: &[u8] = b"retry: 2000\n\n";

/// What is watched.
pub(super) trait Feed {
    /// What is to be told next, once it is there; `None` ends the stream. Whoever breaks this off
    /// misses nothing if they ask again.
    async fn next(&mut self) -> Option<Message>;

    /// The caller who watches.
    fn known(&mut self) -> &mut Known;

    /// Whether the caller, as they are known now, may watch.
    fn is_allowed(&self) -> bool;
}

/// The answer to a caller who has seen the end: nothing more will come, so there is nothing to
/// connect again for.
pub(super) fn nothing_more() -> HttpResponse {
    HttpResponse::NoContent().finish()
}

/// The answer that streams a feed, for as long as it has its place.
pub(super) fn answer(
    feed: impl Feed + 'static,
    place: Place,
    request: HttpRequest,
) -> HttpResponse {
    let mut feed = feed;
    let knows_chunks = request.version() >= Version::HTTP_11;
    let exchange = request.conn_data::<Exchange>().cloned();
    let stream = Stream {
        changes: feed.known().state.identities.changes(),
        feed,
        stage: Stage::Before,
        time: Time::new(),
        request,
        _place: place,
    };
    let mut response = HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        // Of some proxies: they pass on each event as it comes.
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(stream::unfold(stream, Stream::next));
    if !knows_chunks {
        // The body ends with the connection (RFC 9112, section 6.3).
        response.head_mut().no_chunking(true);
        if let Some(exchange) = exchange {
            exchange.end_after_answer();
        }
    }
    response
}

/// The header that names the last event that a caller has seen.
const LAST_ID: &str = "Last-Event-ID";
/// What is wrong with one that names none.
const UNKNOWN_ID: &str =
    "Last-Event-ID must be the id of an event of this stream; leave it out to be told everything.";

/// The `Last-Event-ID` of a request: what `parse` makes of it. A fault of the request if that is
/// nothing, or if there are several.
pub(super) fn last_id<T>(head: &mut Head<'_>, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    let mut values = head.request.headers().get_all(LAST_ID);
    let value = values.next()?;
    let only = value.to_str().ok().filter(|_| values.next().is_none());
    let id = only.and_then(parse);
    if id.is_none() {
        head.query.header_fault(LAST_ID, UNKNOWN_ID);
    }
    id
}

/// The answer to a `Last-Event-ID` that is well formed and still that of no event.
pub(super) fn unknown_id() -> Problem {
    Problem::fault("header", LAST_ID, UNKNOWN_ID)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Before,
    Going,
    Over,
}

/// When something is due that no feed has to do with.
struct Time {
    ends_at: Instant,
    beats_at: Instant,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Beat,
    End,
}

impl Time {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            ends_at: now + DURATION_MAX,
            beats_at: now + HEARTBEAT,
        }
    }

    /// Waits for the next thing. It stays due until [`Time::beaten`].
    async fn due(&self) -> Due {
        if self.ends_at <= self.beats_at {
            sleep_until(self.ends_at).await;
            Due::End
        } else {
            sleep_until(self.beats_at).await;
            Due::Beat
        }
    }

    fn beaten(&mut self) {
        self.beats_at = Instant::now() + HEARTBEAT;
    }
}

struct Stream<F> {
    feed: F,
    stage: Stage,
    time: Time,
    /// Told when others are known than before.
    changes: watch::Receiver<()>,
    request: HttpRequest,
    _place: Place,
}

/// Why a stream does not wait for its feed any longer.
enum Woken {
    Told(Option<Message>),
    Beat,
    CallersChanged,
    Over(&'static str),
}

impl<F: Feed> Stream<F> {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let bytes = match self.stage {
            Stage::Before => {
                self.stage = Stage::Going;
                if let Some(exchange) = self.request.conn_data::<Exchange>() {
                    // A reader who does not read must not hold a stop: nothing that is told here
                    // would come through.
                    let operations = self.feed.known().state.operations.clone();
                    exchange.give_up_when(move || operations.is_draining());
                }
                Bytes::from_static(BEGINNING)
            }
            Stage::Going => self.go_on().await?,
            Stage::Over => return None,
        };
        Some((Ok(bytes), self))
    }

    async fn go_on(&mut self) -> Option<Bytes> {
        loop {
            match self.woken().await {
                Woken::Told(message) => {
                    let message = message?;
                    if message.is_last {
                        self.stage = Stage::Over;
                    }
                    return Some(message.encode());
                }
                Woken::Over(why) => return Some(self.end(why)),
                Woken::Beat | Woken::CallersChanged if !self.is_still_allowed().await => {
                    return Some(self.end("the caller may not watch this any more"));
                }
                Woken::Beat => {
                    self.time.beaten();
                    return Some(message::comment(""));
                }
                Woken::CallersChanged => {}
            }
        }
    }

    async fn woken(&mut self) -> Woken {
        let operations = self.feed.known().state.operations.clone();
        tokio::select! {
            biased;
            () = operations.draining() => Woken::Over("the gateway is stopping"),
            // An error means that nobody can change who is known.
            Ok(()) = self.changes.changed() => Woken::CallersChanged,
            due = self.time.due() => match due {
                Due::Beat => Woken::Beat,
                Due::End => Woken::Over("connect again"),
            },
            told = self.feed.next() => Woken::Told(told),
        }
    }

    /// Ends the stream with a comment, so that whoever looks at it knows why.
    fn end(&mut self, why: &str) -> Bytes {
        self.stage = Stage::Over;
        message::comment(why)
    }

    /// Whether the credentials of the request are still this caller's, and the caller may still
    /// watch.
    async fn is_still_allowed(&mut self) -> bool {
        let known = self.feed.known();
        let state = known.state.clone();
        let Ok(identity) = auth::find(&self.request, &state).await else {
            return false;
        };
        let is_same = identity.caller.name == known.caller().name;
        known.identity = identity;
        is_same && self.feed.is_allowed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_beats_every_fifteen_seconds_and_ends_after_fifteen_minutes() {
        let (began, mut time) = (Instant::now(), Time::new());
        let mut beats = 0;
        while time.due().await == Due::Beat {
            beats += 1;
            assert_eq!(began.elapsed(), beats * Duration::from_secs(15));
            // Whatever broke off the waiting, it is due at the same moment.
            assert_eq!(time.due().await, Due::Beat);
            time.beaten();
        }
        assert_eq!(began.elapsed(), Duration::from_mins(15));
        assert_eq!(beats, 59);
    }
}
