//! OMS v2: list, show, stop, start and delete of migration tasks, with the documented codes.
//!
//! Almost every error is HTTP 400; the code in the body tells them apart.

mod task;
mod view;

use serde_json::{Value, json};

pub use task::{OmsSpec, StartKeys};

use super::{
    answer::Answer,
    call::{Call, Operation},
    options::{CloudOptions, Missing, TaskSwitches},
};
use task::{OmsTask, Refusal};

/// The first id that is given out; like all real ones it has 15 digits and does not fit 32 bits.
const FIRST_ID: u64 = 204_871_530_992_101;

/// Status values that the list filter is documented to take.
const FILTER_STATUS: [i64; 6] = [1, 2, 3, 4, 5, 7];

/// The tasks of OMS, oldest first.
#[derive(Default)]
pub(super) struct Oms {
    tasks: Vec<OmsTask>,
    given: u64,
}

impl Oms {
    pub(super) fn add(&mut self, spec: OmsSpec, options: &CloudOptions, now: i64) -> String {
        let id = FIRST_ID + self.given;
        self.given += 1;
        self.tasks.push(OmsTask::new(id, spec, options, now));
        id.to_string()
    }

    /// The tasks as they are at this moment, oldest first.
    pub(super) fn settled(&mut self, now: i64) -> &[OmsTask] {
        for task in &mut self.tasks {
            task.settle(now);
        }
        &self.tasks
    }

    /// One task as it is at this moment.
    pub(super) fn get(&mut self, id: &str, now: i64) -> Option<&mut OmsTask> {
        let task = self.tasks.iter_mut().find(|task| task.has_id(id))?;
        task.settle(now);
        Some(task)
    }

    pub(super) fn remove(&mut self, id: &str) -> bool {
        let before = self.tasks.len();
        self.tasks.retain(|task| !task.has_id(id));
        self.tasks.len() < before
    }

    /// Answers a call that the gateway let pass.
    pub(super) fn answer(&mut self, call: &Call, options: &CloudOptions, now: i64) -> Answer {
        let project = call.route.project.clone().unwrap_or_default();
        let answer = match &call.route.task {
            None => self.list(call, &project, now),
            Some(id) => self.one(call, id, options, now),
        };
        answer.unwrap_or_else(|refusal| refusal.answer(options.oms_missing))
    }

    fn one(
        &mut self,
        call: &Call,
        id: &str,
        options: &CloudOptions,
        now: i64,
    ) -> Result<Answer, Refusal> {
        let digits = id.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || !(1..=15).contains(&id.len()) {
            return Err(Refusal::BadId);
        }
        let project = call.route.project.as_deref();
        let own = |task: &&mut OmsTask| Some(task.project_id.as_str()) == project;
        let task = self.get(id, now).filter(own).ok_or(Refusal::Missing)?;
        match call.route.operation {
            Operation::Show => return Ok(Answer::json(200, &task.poll(now))),
            Operation::Pause => task.stop(options, now)?,
            Operation::Start => task.start(&call.body, options, now)?,
            Operation::Delete => {
                task.check_delete(options, now)?;
                if !TaskSwitches::take(&mut task.switches.ignore_deletes) {
                    self.remove(id);
                }
            }
            Operation::Login
            | Operation::MetadataToken
            | Operation::TemporaryKeys
            | Operation::List
            | Operation::Other => return Err(Refusal::Missing),
        }
        Ok(Answer::control(options.control_body))
    }

    fn list(&mut self, call: &Call, project: &str, now: i64) -> Result<Answer, Refusal> {
        let bad = |()| Refusal::BadParameters;
        let limit = call.number("limit", 10, 1..=100).map_err(bad)?;
        let offset = call.number("offset", 0, 0..=2_147_483_647).map_err(bad)?;
        let status = match call.parameter("status") {
            None => None,
            Some(text) => {
                let status = text.parse().ok();
                let known = status.filter(|status| FILTER_STATUS.contains(status));
                Some(known.ok_or(Refusal::BadStatus)?)
            }
        };
        let name = call.parameter("task_name").unwrap_or_default();
        if name.contains(['^', '<', '>', '&', '"', '\'']) || name.chars().count() > 255 {
            return Err(Refusal::BadParameters);
        }
        let group = call.parameter("group_id");
        let wanted = |task: &&mut OmsTask| {
            task.project_id == project
                && status.is_none_or(|status| task.shown_status() == status)
                && task.name.contains(&name)
                && group.as_ref().is_none_or(|group| task.group_id == *group)
        };
        self.settled(now);
        // The order is not documented; the newest first is the likely one.
        let mut found: Vec<&mut OmsTask> = self.tasks.iter_mut().rev().filter(wanted).collect();
        let count = found.len();
        let page = found.iter_mut().skip(offset).take(limit);
        let tasks: Vec<Value> = page.map(|task| task.poll(now)).collect();
        Ok(Answer::json(200, &json!({"tasks": tasks, "count": count})))
    }
}

impl Refusal {
    fn answer(self, missing: Missing) -> Answer {
        let (code, message) = match self {
            Self::BadStatus => ("OMS.0052", "Invalid value for parameter state."),
            Self::BadId => ("OMS.0054", "Invalid task ID."),
            Self::InProgress => ("OMS.0063", "The task is in progress."),
            Self::BadParameters => ("OMS.0064", "Invalid request parameters."),
            Self::Started => ("OMS.0065", "The task has already started."),
            Self::NotRunning => (
                "OMS.0066",
                "Failed to pause the task. The task is not in progress.",
            ),
            Self::NotJson => ("OMS.0067", "The request parameters are not in JSON format."),
            Self::Complete => (
                "OMS.0070",
                "The task is complete. You cannot start or stop it.",
            ),
            Self::Missing => ("OMS.1009", "No resources found."),
        };
        let status = match (self, missing) {
            (Self::Missing, Missing::Http404) => 404,
            _ => 400,
        };
        Answer::error(status, code, message)
    }
}
