//! What a connection is at, as those who read it and those who answer on it tell each other.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::Waker,
    time::Duration,
};

use tokio::time::Instant;

use super::framing::{BodyLength, Framing};

/// The longest that the head of a request may take.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a caller is heard out who was given the last answer.
const PARTING_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest that an answer may wait to be read to its end, from when the connection first takes
/// no more of it.
const READER_TIMEOUT: Duration = Duration::from_secs(30);
/// The same, where the answer can be had again elsewhere and is in the way here.
const IMPATIENT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often it is asked what does not tell by itself: whether an answer is in the way, and whether
/// a connection was reset from which nothing is read.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How much of a body is read that nobody asks for: a small one leaves its connection open, if it
/// is read before the answer is given, and is known if it breaks a rule.
const UNASKED_MAX: usize = 4 * 1024;

/// What a connection is at. Clones are the same one; it lives on the thread of its connection.
#[derive(Clone, Default)]
pub struct Exchange(Rc<State>);

#[derive(Default)]
struct State {
    framing: Cell<Framing>,
    phase: Cell<Phase>,
    /// How much more of the body may be read.
    allowance: Cell<usize>,
    /// Whether the answer ends the connection.
    is_last: Cell<bool>,
    /// Whether something is kept for after the request that is being read.
    has_kept: Cell<bool>,
    /// Says whether the answer is in the way.
    is_in_the_way: RefCell<Option<Box<dyn Fn() -> bool>>>,
    /// Whoever is to be woken when more may be read than before.
    reader: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy)]
enum Phase {
    /// Between requests; by when the next head is to be complete if something of it is there.
    Between { by: Option<Instant> },
    /// A request is being answered.
    Answering,
    /// The last answer was given; by when the caller is to end the connection, once that answer was
    /// sent.
    Parting { by: Option<Instant> },
}

impl Default for Phase {
    fn default() -> Self {
        Self::Between { by: None }
    }
}

impl Exchange {
    /// Notes that a head is complete, and what follows it. The request is being answered until what
    /// this returns is dropped.
    #[must_use]
    pub fn begin(&self, body: BodyLength) -> Answering {
        self.with(|framing| framing.begin(body));
        self.0.phase.set(Phase::Answering);
        self.0.allowance.set(UNASKED_MAX);
        self.0.is_last.set(false);
        self.0.is_in_the_way.take();
        if self.0.has_kept.get() {
            self.wake();
        }
        Answering(self.clone())
    }

    /// Notes that the body is to be read, however long it is.
    pub fn ask_for_body(&self) {
        self.0.allowance.set(usize::MAX);
        if self.0.has_kept.get() {
            self.wake();
        }
    }

    /// Notes that the answer ends the connection.
    pub fn end_after_answer(&self) {
        self.0.is_last.set(true);
    }

    /// Notes that the answer goes on and on, and is not waited for any more once this is so: its
    /// reader goes on elsewhere.
    pub fn give_up_when(&self, is_in_the_way: impl Fn() -> bool + 'static) {
        *self.0.is_in_the_way.borrow_mut() = Some(Box::new(is_in_the_way));
    }

    /// How long an answer may wait to be read, and when that is to be asked again.
    pub(super) fn patience(&self) -> (Duration, Option<Duration>) {
        match &*self.0.is_in_the_way.borrow() {
            Some(is_in_the_way) if is_in_the_way() => (IMPATIENT_TIMEOUT, None),
            Some(_) => (READER_TIMEOUT, Some(LOOK_EVERY)),
            None => (READER_TIMEOUT, None),
        }
    }

    /// Whether no other request can follow: the body is not complete, or broke a rule of chunks; or
    /// caller and gateway may not agree where requests begin and end, since a target had a
    /// fragment, which none may have (RFC 9112, section 3.2); or somebody noted that the answer
    /// ends the connection.
    pub fn must_end(&self) -> bool {
        self.0.is_last.get() || self.has_fragment() || !self.0.framing.get().is_whole()
    }

    /// Whether the target of a request had a fragment.
    pub fn has_fragment(&self) -> bool {
        self.0.framing.get().has_fragment()
    }

    /// Whether the body of the request broke a rule of chunks.
    pub fn is_broken(&self) -> bool {
        self.0.framing.get().is_broken()
    }

    /// By when the caller must have gone on with what it began to send, if it began.
    pub(super) fn limit(&self) -> Option<Instant> {
        match self.0.phase.get() {
            Phase::Between { by } | Phase::Parting { by } => by,
            Phase::Answering => None,
        }
    }

    /// Whether the next byte is the first of a head.
    pub(super) fn is_between(&self) -> bool {
        self.0.framing.get().is_between()
    }

    /// Notes whether something is kept for after the request that is being read.
    pub(super) fn keeps(&self, has_kept: bool) {
        self.0.has_kept.set(has_kept);
    }

    /// Notes who is to be woken when more may be read than before.
    pub(super) fn wait(&self, waker: &Waker) {
        let mut reader = self.0.reader.borrow_mut();
        match &mut *reader {
            Some(reader) => reader.clone_from(waker),
            None => *reader = Some(waker.clone()),
        }
    }

    fn end(&self) {
        self.with(Framing::end);
        let is_last = self.0.is_last.get() || !self.is_between();
        self.0.phase.set(if is_last {
            Phase::Parting { by: None }
        } else {
            Phase::Between { by: None }
        });
        if self.0.has_kept.get() {
            self.wake();
        }
    }

    /// Whether a request is being answered.
    pub(super) fn is_answering(&self) -> bool {
        matches!(self.0.phase.get(), Phase::Answering)
    }

    /// Whether the last answer was given, so that nothing the caller sends means anything.
    pub(super) fn is_parting(&self) -> bool {
        matches!(self.0.phase.get(), Phase::Parting { .. })
    }

    /// Whether the last answer was sent.
    pub(super) fn has_parted(&self) -> bool {
        matches!(self.0.phase.get(), Phase::Parting { by: Some(_) })
    }

    /// Whether a head is larger than any may be.
    pub(super) fn is_too_large(&self) -> bool {
        self.0.framing.get().is_too_large()
    }

    /// Notes that the last answer was sent, and that the caller is to end the connection soon.
    pub(super) fn part(&self) {
        let by = Some(Instant::now() + PARTING_TIMEOUT);
        self.0.phase.set(Phase::Parting { by });
        self.wake();
    }

    /// How many of these bytes belong to the request that is being read, and may be read already.
    pub(super) fn take(&self, bytes: &[u8]) -> usize {
        let State {
            phase, allowance, ..
        } = &*self.0;
        let is_answering = self.is_answering();
        let bytes = if is_answering {
            &bytes[..bytes.len().min(allowance.get())]
        } else {
            bytes
        };
        let taken = self.with(|framing| framing.take(bytes));
        if is_answering {
            allowance.set(allowance.get() - taken);
        } else if let Phase::Between { by: None } = phase.get()
            && self.0.framing.get().is_head()
        {
            let by = Some(Instant::now() + HEAD_TIMEOUT);
            phase.set(Phase::Between { by });
        }
        taken
    }

    fn with<T>(&self, act: impl FnOnce(&mut Framing) -> T) -> T {
        let mut framing = self.0.framing.get();
        let result = act(&mut framing);
        self.0.framing.set(framing);
        result
    }

    pub(super) fn wake(&self) {
        if let Some(reader) = self.0.reader.take() {
            reader.wake();
        }
    }
}

/// A request that is being answered.
pub struct Answering(Exchange);

impl Answering {
    /// Whether the body of the request broke a rule of chunks.
    pub fn is_broken(&self) -> bool {
        self.0.is_broken()
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.end();
    }
}
