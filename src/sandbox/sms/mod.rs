//! SMS v3: list, show, action and delete of migration tasks.
//!
//! There is no project in its paths: every project token of the account sees every task.

mod task;
mod view;

use serde_json::{Value, json};

pub use task::SmsSpec;

use super::{
    answer::Answer,
    call::{Call, Operation},
    options::{CloudOptions, Missing, SmsGateCode, TaskSwitches},
};
use task::{Refusal, SmsTask};

/// The longest body that the first version took, in bytes.
const LEGACY_BODY_LIMIT: usize = 10_240;

/// States that the list filter is documented to take.
const FILTER_STATES: [&str; 10] = [
    "READY",
    "RUNNING",
    "SYNCING",
    "MIGRATE_SUCCESS",
    "MIGRATE_FAIL",
    "ABORTING",
    "ABORT",
    "DELETING",
    "SYNC_F_ROLLBACKING",
    "SYNC_F_ROLLBACK_SUCCESS",
];

/// The tasks of SMS, oldest first.
#[derive(Default)]
pub(super) struct Sms {
    tasks: Vec<SmsTask>,
    given: u32,
}

impl Sms {
    pub(super) fn add(&mut self, spec: SmsSpec, options: &CloudOptions, now: i64) -> String {
        self.given += 1;
        let task = SmsTask::new(self.given, spec, options, now);
        let id = task.id.clone();
        self.tasks.push(task);
        id
    }

    /// The tasks as they are at this moment, oldest first.
    pub(super) fn settled(&mut self, now: i64) -> &[SmsTask] {
        for task in &mut self.tasks {
            task.settle(now);
        }
        self.tasks.retain(|task| !task.is_gone());
        &self.tasks
    }

    /// One task as it is at this moment.
    pub(super) fn get(&mut self, id: &str, now: i64) -> Option<&mut SmsTask> {
        self.settled(now);
        self.tasks.iter_mut().find(|task| task.id == id)
    }

    pub(super) fn remove(&mut self, id: &str) -> bool {
        let before = self.tasks.len();
        self.tasks.retain(|task| task.id != id);
        self.tasks.len() < before
    }

    /// Answers a call that the gateway let pass.
    pub(super) fn answer(&mut self, call: &Call, options: &CloudOptions, now: i64) -> Answer {
        if let Some(refusal) = options.sms_legacy_checks.then(|| legacy(call)).flatten() {
            return refusal;
        }
        let answer = match &call.route.task {
            None => self.list(call, now),
            Some(id) => self.one(call, id, options, now),
        };
        answer.unwrap_or_else(|refusal| refusal.answer(options))
    }

    fn one(
        &mut self,
        call: &Call,
        id: &str,
        options: &CloudOptions,
        now: i64,
    ) -> Result<Answer, Refusal> {
        let task = self.get(id, now).ok_or(Refusal::Missing)?;
        match call.route.operation {
            Operation::Show => return Ok(Answer::json(200, &task.poll(now))),
            Operation::Pause => task.stop(options, now)?,
            Operation::Start if is_restart(&call.body) => task.restart(now)?,
            Operation::Start => task.start(now)?,
            Operation::Delete => {
                task.check_delete(now)?;
                if !TaskSwitches::take(&mut task.switches.ignore_deletes) {
                    task.delete(options, now);
                }
            }
            // The other documented actions are not simulated; the answer to them is that to an
            // unknown one.
            Operation::Login
            | Operation::MetadataToken
            | Operation::TemporaryKeys
            | Operation::List
            | Operation::Other => {
                return Err(Refusal::BadParameters);
            }
        }
        Ok(Answer::control(options.control_body))
    }

    fn list(&mut self, call: &Call, now: i64) -> Result<Answer, Refusal> {
        let bad = |()| Refusal::BadParameters;
        // Zero is allowed and not explained; the default is the likely reading.
        let limit = match call.number("limit", 100, 0..=200).map_err(bad)? {
            0 => 100,
            limit => limit,
        };
        let offset = call.number("offset", 0, 0..=65_535).map_err(bad)?;
        let state = call.parameter("state");
        if state
            .as_deref()
            .is_some_and(|state| !FILTER_STATES.contains(&state))
        {
            return Err(Refusal::BadParameters);
        }
        let name = call.parameter("name").unwrap_or_default();
        let (id, source) = (call.parameter("id"), call.parameter("source_server_id"));
        let wanted = |task: &&mut SmsTask| {
            state
                .as_deref()
                .is_none_or(|state| task.shown_state() == state)
                && task.name.contains(&name)
                && id.as_ref().is_none_or(|id| task.id == *id)
                && source
                    .as_ref()
                    .is_none_or(|source| task.source_id == *source)
        };
        self.settled(now);
        let mut found: Vec<&mut SmsTask> = self.tasks.iter_mut().rev().filter(wanted).collect();
        let count = found.len();
        let page = found.iter_mut().skip(offset).take(limit);
        let tasks: Vec<Value> = page.map(|task| task.poll_in_list(now)).collect();
        Ok(Answer::json(200, &json!({"count": count, "tasks": tasks})))
    }
}

fn is_restart(body: &[u8]) -> bool {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    body["operation"] == "restart"
}

/// The checks of the first version, which answer 401 although the token is fine.
fn legacy(call: &Call) -> Option<Answer> {
    let (code, message) = match call.header("content-type") {
        None => ("SMS.2005", "The request has no Content-Type."),
        Some(media_type) if !media_type.starts_with("application/json") => {
            ("SMS.2006", "The Content-Type must be application/json.")
        }
        Some(_) if call.body.len() > LEGACY_BODY_LIMIT => (
            "SMS.2004",
            "The request content is longer than 10240 bytes.",
        ),
        Some(_) => return None,
    };
    Some(Answer::error(401, code, message))
}

impl Refusal {
    fn answer(self, options: &CloudOptions) -> Answer {
        let (code, message) = match self {
            Self::NotRunning => (
                "SMS.1038",
                "Only tasks being created or monitored can be paused.",
            ),
            Self::NotPaused => ("SMS.1039", "Only paused tasks can be resumed."),
            Self::NotFailed => ("SMS.1040", "Only failed tasks can be restarted."),
            Self::Gate => match options.sms_gate_code {
                SmsGateCode::Sms7719 => (
                    "SMS.7719",
                    "The source server is still running, the task cannot be deleted.",
                ),
                SmsGateCode::Sms2015 => (
                    "SMS.2015",
                    "Tasks that are running or stopping cannot be deleted.",
                ),
            },
            Self::BadParameters => ("SMS.9001", "Invalid parameters."),
            Self::Missing => ("SMS.7703", "Task doesn't exist."),
        };
        let status = match (self, options.sms_missing) {
            (Self::Missing, Missing::Http404) => 404,
            _ => 400,
        };
        Answer::error(status, code, message)
    }
}
