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
/// How long a connection without requests is kept, and one that still sends the body of a request that was answered.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a caller is heard out whose head was refused.
const PARTING_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest that an answer may wait to be read to its end, from when the connection first takes no more of it.
const READER_TIMEOUT: Duration = Duration::from_secs(30);
/// The same, where the answer can be had again elsewhere and is in the way here.
const IMPATIENT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often it is asked what does not tell by itself: whether an answer is in the way, and whether a connection was reset from
/// which nothing is read.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What a connection is at. Clones are the same one; it lives on the thread of its connection.
#[derive(Clone, Default)]
pub struct Exchange(Rc<State>);

#[derive(Default)]
struct State {
    framing: Cell<Framing>,
    phase: Cell<Phase>,
    /// Whether something is kept for after the request that is being read.
    has_kept: Cell<bool>,
    /// Says whether the answer is in the way.
    is_in_the_way: RefCell<Option<Box<dyn Fn() -> bool>>>,
    /// Whoever is to be woken when more may be read than before.
    reader: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy)]
enum Phase {
    /// Between requests; by when the next head is to be complete if something of it is there, or the body of the last one.
    Between { by: Option<Instant>, is_head: bool },
    /// A request is being answered.
    Answering,
}

impl Default for Phase {
    fn default() -> Self {
        Self::Between {
            by: None,
            is_head: false,
        }
    }
}

impl Exchange {
    /// Notes that a head is complete, and what follows it. The request is being answered until what this returns is dropped.
    #[must_use]
    pub fn begin(&self, body: BodyLength) -> Answering {
        self.with(|framing| framing.begin(body));
        self.0.phase.set(Phase::Answering);
        self.0.is_in_the_way.take();
        if self.0.has_kept.get() {
            self.wake();
        }
        Answering(self.clone())
    }

    /// Notes that the answer goes on and on, and is not waited for any more once this is so: its reader goes on elsewhere.
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

    /// Whether caller and gateway may not agree where requests begin and end, so that no other one is to follow: a target had a
    /// fragment, which none may have (RFC 9112, section 3.2), or a body broke a rule of chunks.
    pub fn is_in_doubt(&self) -> bool {
        self.has_fragment() || self.is_broken()
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
            Phase::Between { by, .. } => by,
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
        let is_between = self.is_between();
        self.0.phase.set(Phase::Between {
            by: (!is_between).then(|| Instant::now() + IDLE_TIMEOUT),
            is_head: false,
        });
        if self.0.has_kept.get() || !is_between {
            self.wake();
        }
    }

    /// Whether a head is larger than any may be.
    pub(super) fn is_too_large(&self) -> bool {
        self.0.framing.get().is_too_large()
    }

    /// Notes that nothing more is expected, and that the caller is to end the connection soon.
    pub(super) fn part(&self) {
        self.0.phase.set(Phase::Between {
            by: Some(Instant::now() + PARTING_TIMEOUT),
            is_head: true,
        });
    }

    /// How many of these bytes belong to the request that is being read.
    pub(super) fn take(&self, bytes: &[u8]) -> usize {
        let taken = self.with(|framing| framing.take(bytes));
        if let Phase::Between { is_head: false, .. } = self.0.phase.get()
            && self.0.framing.get().is_head()
        {
            self.0.phase.set(Phase::Between {
                by: Some(Instant::now() + HEAD_TIMEOUT),
                is_head: true,
            });
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

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.end();
    }
}
