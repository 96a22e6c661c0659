//! Faults on demand: which requests they meet, and what happens to those.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use super::{
    answer::Answer,
    call::{Call, Operation, Service},
};

/// What happens to a request instead of an ordinary answer. "Effect" is what the request asks for.
#[derive(Clone, Debug)]
pub enum FaultKind {
    /// This answer, and no effect.
    Answer(Answer),
    /// The effect, and then this answer.
    AnswerAfterEffect(Answer),
    /// The effect, and the ordinary answer only after this time.
    Delay(Duration),
    /// The effect and the answer only after this time. The effect comes also when the client went
    /// away meanwhile.
    DelayEffect(Duration),
    /// No effect and no answer, until the client goes away or the cloud stops.
    Hang,
    /// The effect and no answer, until the client goes away or the cloud stops.
    HangAfterEffect,
    /// No effect; the connection ends without a byte.
    DropBeforeEffect,
    /// The effect; then the connection ends without a byte.
    DropAfterEffect,
    /// The effect; the body of the ordinary answer ends before its announced length.
    CutBody,
    /// The effect; an ordinary head, and a body announced as JSON that is none.
    GarbledBody,
    /// A page of some proxy, and no effect.
    HtmlPage {
        /// The HTTP status.
        status: u16,
    },
    /// A redirect, and no effect.
    Redirect {
        /// The HTTP status, 301, 302, 307 or 308.
        status: u16,
        /// The value of `Location`.
        location: String,
    },
    /// These bytes as they are in place of an answer, then the end of the connection; no effect.
    Raw(Vec<u8>),
    /// These bytes before the ordinary answer, for instance an interim answer with status 103.
    Prefix(Vec<u8>),
}

impl FaultKind {
    /// 401 `APIGW.0307`: the token is dead, although it may look alive.
    pub fn token_refused() -> Self {
        Self::error(401, "APIGW.0307", "The token must be updated.")
    }

    /// 429 `APIGW.0308`, without `Retry-After`, which is not documented.
    pub fn throttled() -> Self {
        Self::error(
            429,
            "APIGW.0308",
            "The throttling threshold has been reached: policy user over ratelimit,limit:10,time:1 second",
        )
    }

    /// The denial of a service in its own words: `OMS.0206`, the long `SMS.9004`, or that of the
    /// token call.
    pub fn denied(service: Service) -> Self {
        Self::Answer(match service {
            Service::Iam => {
                Answer::keystone(403, "Forbidden", "You have no right to do this action")
            }
            Service::Oms => Answer::oms_denied(),
            Service::Sms => Answer::sms_denied("sms:server:migrationServer"),
        })
    }

    /// Any error in the shape of OMS and SMS.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        Self::Answer(Answer::error(status, code, message))
    }
}

/// A fault and the requests that it meets.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The service.
    pub service: Service,
    /// The operation; `None` is any.
    pub operation: Option<Operation>,
    /// The task; `None` is any, and none.
    pub task: Option<String>,
    /// So many requests pass before the first one is met.
    pub skip: u32,
    /// So many requests are met.
    pub times: u32,
    /// The part of those that could be met which is, by chance: from 0 to 1.
    pub share: f64,
    /// What happens to them.
    pub kind: FaultKind,
}

impl Fault {
    /// Meets the next request for an operation, of any task.
    pub fn on(service: Service, operation: Operation, kind: FaultKind) -> Self {
        Self {
            operation: Some(operation),
            ..Self::on_any(service, kind)
        }
    }

    /// Meets the next request of a service, whatever it asks for.
    pub fn on_any(service: Service, kind: FaultKind) -> Self {
        Self {
            service,
            operation: None,
            task: None,
            skip: 0,
            times: 1,
            share: 1.0,
            kind,
        }
    }

    /// Only requests about this task.
    #[must_use]
    pub fn task(mut self, id: &str) -> Self {
        self.task = Some(id.to_owned());
        self
    }

    /// So many requests pass first.
    #[must_use]
    pub fn skip(mut self, requests: u32) -> Self {
        self.skip = requests;
        self
    }

    /// So many requests are met.
    #[must_use]
    pub fn times(mut self, requests: u32) -> Self {
        self.times = requests;
        self
    }

    /// Only this part of the requests is met, by chance: from 0 to 1.
    #[must_use]
    pub fn share(mut self, share: f64) -> Self {
        self.share = share;
        self
    }

    /// Every request is met, until the fault is cancelled.
    #[must_use]
    pub fn always(self) -> Self {
        self.times(u32::MAX)
    }

    fn matches(&self, call: &Call) -> bool {
        self.service == call.service
            && self
                .operation
                .is_none_or(|operation| operation == call.route.operation)
            && (self.task.is_none() || self.task == call.route.task)
    }
}

/// Tells how often a fault met a request, and ends it.
#[derive(Clone, Debug)]
pub struct FaultHandle {
    fired: Arc<AtomicU32>,
    left: Arc<AtomicU32>,
}

impl FaultHandle {
    /// How many requests were met.
    pub fn fired(&self) -> u32 {
        self.fired.load(Ordering::SeqCst)
    }

    /// No further request is met.
    pub fn cancel(&self) {
        self.left.store(0, Ordering::SeqCst);
    }
}

struct Armed {
    fault: Fault,
    skip: u32,
    handle: FaultHandle,
}

/// The faults that were asked for, in the order in which they were.
#[derive(Default)]
pub(super) struct Faults(Vec<Armed>);

impl Faults {
    pub(super) fn arm(&mut self, fault: Fault) -> FaultHandle {
        let handle = FaultHandle {
            fired: Arc::new(AtomicU32::new(0)),
            left: Arc::new(AtomicU32::new(fault.times)),
        };
        self.0.push(Armed {
            skip: fault.skip,
            fault,
            handle: handle.clone(),
        });
        handle
    }

    /// The fault for this request: the first that matches, is not used up, has let pass what it
    /// should and that chance picks.
    pub(super) fn meet(&mut self, call: &Call) -> Option<FaultKind> {
        self.0
            .retain(|armed| armed.handle.left.load(Ordering::SeqCst) > 0);
        for armed in self.0.iter_mut().filter(|armed| armed.fault.matches(call)) {
            if armed.skip > 0 {
                armed.skip -= 1;
                continue;
            }
            if fastrand::f64() >= armed.fault.share {
                continue;
            }
            // `always` never counts down, a number of times does.
            if armed.fault.times != u32::MAX {
                armed.handle.left.fetch_sub(1, Ordering::SeqCst);
            }
            armed.handle.fired.fetch_add(1, Ordering::SeqCst);
            return Some(armed.fault.kind.clone());
        }
        None
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
