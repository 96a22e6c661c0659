//! Everything the cloud knows, and the way of a request through it. One lock stands around it.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    answer::Answer,
    call::{Call, Operation, Service},
    faults::{FaultKind, Faults},
    iam::{
        Iam,
        gateway::{self, Throttle},
    },
    oms::Oms,
    options::CloudOptions,
    record::{RecordId, Records},
    run::millis,
    sms::Sms,
};
use crate::domain::clock::{Clock as _, SystemClock};

/// The state of the whole cloud.
pub(super) struct State {
    pub(super) options: CloudOptions,
    pub(super) iam: Iam,
    pub(super) oms: Oms,
    pub(super) sms: Sms,
    pub(super) faults: Faults,
    pub(super) records: Records,
    throttle: Throttle,
    /// How far the cloud's clock is ahead of the machine's, in milliseconds.
    ahead: i64,
}

impl State {
    pub(super) fn new(options: CloudOptions) -> Self {
        Self {
            iam: Iam::new(options.account.clone()),
            options,
            oms: Oms::default(),
            sms: Sms::default(),
            faults: Faults::default(),
            records: Records::default(),
            throttle: Throttle::default(),
            ahead: 0,
        }
    }

    /// The present moment in milliseconds since 1970.
    pub(super) fn now(&self) -> i64 {
        SystemClock
            .now()
            .as_millisecond()
            .saturating_add(self.ahead)
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.ahead = self.ahead.saturating_add(millis(by));
    }

    /// Records a request and finds the fault that meets it.
    pub(super) fn open(&mut self, call: &Call) -> (RecordId, Option<FaultKind>) {
        let now = self.now();
        let at = Timestamp::from_millisecond(now).unwrap_or(Timestamp::MAX);
        let visitor = gateway::visitor(&self.iam, call, now);
        (self.records.open(call, at, visitor), self.faults.meet(call))
    }

    /// Does what a request asks for.
    pub(super) fn answer(&mut self, call: &Call) -> Answer {
        let now = self.now();
        let answer = match call.service {
            Service::Iam => self.iam_answer(call, now),
            Service::Oms | Service::Sms => self.service_answer(call, now),
        };
        let id_header = match call.service {
            Service::Iam => "X-IAM-Trace-Id",
            Service::Oms | Service::Sms => "X-Request-Id",
        };
        answer.header(id_header, &call.request_id)
    }

    fn iam_answer(&mut self, call: &Call, now: i64) -> Answer {
        if let Some(answer) = self.iam.metadata(call, &self.options, now) {
            return answer;
        }
        if call.route.operation == Operation::Login {
            self.iam.login(call, &self.options, now)
        } else {
            Answer::error(404, "IAM.0004", "Could not find API.")
        }
    }

    fn service_answer(&mut self, call: &Call, now: i64) -> Answer {
        let limit = self.options.requests_per_second;
        let over = self.throttle.is_over(call.service, limit, now);
        if let Some(refusal) = gateway::refusal(call, &mut self.iam, &self.options, over, now) {
            return refusal;
        }
        match call.service {
            Service::Sms => self.sms.answer(call, &self.options, now),
            Service::Iam | Service::Oms => self.oms.answer(call, &self.options, now),
        }
    }
}
