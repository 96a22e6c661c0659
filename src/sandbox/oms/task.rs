//! One OMS task: its status over time, and what each status allows.

use std::{fmt, time::Duration};

use serde::Deserialize;
use serde_json::Value;

use super::super::{
    options::{AfterStop, CloudOptions, RunEnd, TaskSwitches},
    run::{Run, millis},
};

pub(super) const WAITING: i64 = 1;
pub(super) const RUNNING: i64 = 2;
pub(super) const PAUSED: i64 = 3;
pub(super) const FAILED: i64 = 4;
pub(super) const SUCCEEDED: i64 = 5;
pub(super) const RETRYING: i64 = 6;
pub(super) const PAUSING: i64 = 7;

/// The longest key, in bytes.
const KEY_LIMIT: usize = 100;

/// Why OMS refuses a call; each has its own code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    BadStatus,
    BadId,
    InProgress,
    BadParameters,
    Started,
    NotRunning,
    NotJson,
    Complete,
    Missing,
}

/// A task to be added.
#[derive(Clone, Debug)]
pub struct OmsSpec {
    /// Its name.
    pub name: String,
    /// Its status number; any number is taken, also one that is not documented.
    pub status: i64,
    /// The project; `None` is that of the account.
    pub project_id: Option<String>,
    /// `object`, `prefix`, `list` or `url_list`; the last one needs no source keys at a start.
    pub task_type: String,
    /// The task group, empty for none.
    pub group_id: String,
    /// The source's cloud, in the vendor's words.
    pub cloud_type: String,
    /// The number of objects.
    pub objects: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// How much is done at first, in thousandths; it counts for tasks that did not end.
    pub done: u16,
    /// The length of the whole run; `None` is the cloud's own.
    pub run_duration: Option<Duration>,
    /// How a run ends.
    pub run_end: RunEnd,
    /// A change of status that comes by itself, after so long.
    pub then: Option<(Duration, i64)>,
    /// Its peculiarities.
    pub switches: TaskSwitches,
}

impl OmsSpec {
    /// An ordinary task of 12000 objects and 73 GB.
    pub fn new(name: &str, status: i64) -> Self {
        Self {
            name: name.to_owned(),
            status,
            project_id: None,
            task_type: "prefix".to_owned(),
            group_id: String::new(),
            cloud_type: "Aliyun".to_owned(),
            objects: 12_000,
            bytes: 73_400_320_000,
            done: 0,
            run_duration: None,
            run_end: RunEnd::Success,
            then: None,
            switches: TaskSwitches::default(),
        }
    }
}

/// The body of a start call, as it came. OMS shows nothing of it to anybody.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct StartKeys {
    /// The source's access key.
    pub src_ak: Option<String>,
    /// The source's secret key.
    pub src_sk: Option<String>,
    /// The source's token of temporary keys.
    pub src_security_token: Option<String>,
    /// The destination's access key.
    pub dst_ak: Option<String>,
    /// The destination's secret key.
    pub dst_sk: Option<String>,
    /// The destination's token of temporary keys.
    pub dst_security_token: Option<String>,
    /// The connection string of an Azure source.
    pub connection_string: Option<String>,
    /// The key file of a Google source.
    pub json_auth_file: Option<String>,
    /// The key of the source's content delivery network.
    pub source_cdn_authentication_key: Option<String>,
    /// Only the objects that failed before.
    pub migrate_failed_object: bool,
}

impl fmt::Debug for StartKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("StartKeys")
            .field("migrate_failed_object", &self.migrate_failed_object)
            .finish_non_exhaustive()
    }
}

impl StartKeys {
    fn are_complete(&self, task_type: &str) -> bool {
        let given = |key: &Option<String>| {
            key.as_ref()
                .is_some_and(|key| (1..=KEY_LIMIT).contains(&key.len()))
        };
        let source = given(&self.src_ak) && given(&self.src_sk)
            || self.connection_string.is_some()
            || self.json_auth_file.is_some()
            || task_type == "url_list";
        source && given(&self.dst_ak) && given(&self.dst_sk)
    }
}

/// A change of status that comes by itself.
#[derive(Clone, Copy, Debug)]
struct Due {
    at: i64,
    status: i64,
}

/// A task of OMS.
#[derive(Clone, Debug)]
pub(in crate::sandbox) struct OmsTask {
    pub(super) id: u64,
    pub(in crate::sandbox) project_id: String,
    pub(in crate::sandbox) name: String,
    pub(super) task_type: String,
    pub(super) group_id: String,
    pub(super) cloud_type: String,
    pub(super) objects: u64,
    pub(super) bytes: u64,
    pub(super) region: String,
    pub(super) start_time: i64,
    pub(super) run: Run,
    pub(in crate::sandbox) status: i64,
    pub(in crate::sandbox) switches: TaskSwitches,
    pub(in crate::sandbox) start_keys: Option<StartKeys>,
    run_end: RunEnd,
    due: Option<Due>,
    paused_at: i64,
    /// A status that is still shown although it is over, and for how many more reads.
    late: Option<(i64, u32)>,
}

impl OmsTask {
    pub(super) fn new(id: u64, spec: OmsSpec, options: &CloudOptions, now: i64) -> Self {
        let account = &options.account;
        let project_id = spec
            .project_id
            .unwrap_or_else(|| account.project_id.clone());
        let mut task = Self {
            id,
            project_id,
            name: spec.name,
            task_type: spec.task_type,
            group_id: spec.group_id,
            cloud_type: spec.cloud_type,
            objects: spec.objects,
            bytes: spec.bytes,
            region: account.region.clone(),
            start_time: 0,
            run: Run::new(spec.run_duration.unwrap_or(options.run_duration)),
            status: spec.status,
            switches: spec.switches,
            start_keys: None,
            run_end: spec.run_end,
            due: None,
            paused_at: now,
            late: None,
        };
        task.run.set_done(i64::from(spec.done.min(1000)));
        if spec.status > WAITING {
            task.start_time = now - task.run.elapsed(now);
        }
        task.enter(spec.status, now);
        let then = |(after, status)| Due {
            at: now + millis(after),
            status,
        };
        task.due = spec.then.map(then);
        task
    }

    pub(in crate::sandbox) fn id_text(&self) -> String {
        self.id.to_string()
    }

    pub(super) fn has_id(&self, id: &str) -> bool {
        id.parse() == Ok(self.id)
    }

    /// Sets the status from outside. It holds until somebody calls, except running, which goes on
    /// to its end.
    pub(in crate::sandbox) fn set_status(&mut self, status: i64, now: i64) {
        self.late = None;
        self.due = None;
        if status == RUNNING && self.run.is_done(now) {
            self.run.restart();
        }
        self.enter(status, now);
    }

    /// Brings the task to this moment.
    pub(super) fn settle(&mut self, now: i64) {
        // Each round consumes what was due; a run that ends sets nothing due.
        while let Some(due) = self.next().filter(|due| due.at <= now) {
            self.due = None;
            self.enter(due.status, due.at);
        }
    }

    /// What comes next by itself.
    fn next(&self) -> Option<Due> {
        let end = self.run.ends_at().map(|at| Due {
            at,
            status: match self.run_end {
                RunEnd::Success => SUCCEEDED,
                RunEnd::Failure => FAILED,
            },
        });
        match (self.due, end) {
            (Some(due), Some(end)) => Some(if due.at <= end.at { due } else { end }),
            (due, end) => due.or(end),
        }
    }

    fn enter(&mut self, status: i64, at: i64) {
        self.status = status;
        if status == RUNNING {
            if self.start_time == 0 {
                self.start_time = at;
            }
            self.run.begin(at);
        } else {
            self.run.pause(at);
        }
        match status {
            PAUSED => self.paused_at = at,
            SUCCEEDED => self.run.finish(),
            _ => {}
        }
    }

    pub(super) fn stop(&mut self, options: &CloudOptions, now: i64) -> Result<(), Refusal> {
        let can = match self.status {
            RUNNING => true,
            RETRYING => options.oms_stops_retrying,
            SUCCEEDED => return Err(Refusal::Complete),
            _ => false,
        };
        if !can {
            return Err(Refusal::NotRunning);
        }
        if TaskSwitches::take(&mut self.switches.ignore_stops) {
            return Ok(());
        }
        self.be_late();
        self.enter(PAUSING, now);
        let at = now + millis(self.switches.pause_delay.unwrap_or(options.pause_delay));
        let ends = |status| Some(Due { at, status });
        self.due = match self.switches.after_stop {
            AfterStop::Paused => ends(PAUSED),
            AfterStop::Succeeded => ends(SUCCEEDED),
            AfterStop::Failed => ends(FAILED),
            AfterStop::Stuck => None,
        };
        Ok(())
    }

    pub(super) fn start(
        &mut self,
        body: &[u8],
        options: &CloudOptions,
        now: i64,
    ) -> Result<(), Refusal> {
        let body: Value = serde_json::from_slice(body).map_err(|_| Refusal::NotJson)?;
        let keys: StartKeys = serde_json::from_value(body).map_err(|_| Refusal::BadParameters)?;
        if !keys.are_complete(&self.task_type) {
            return Err(Refusal::BadParameters);
        }
        match self.status {
            PAUSED | FAILED => {}
            SUCCEEDED => return Err(Refusal::Complete),
            _ => return Err(Refusal::Started),
        }
        let only_failed = keys.migrate_failed_object;
        self.start_keys = Some(keys);
        if TaskSwitches::take(&mut self.switches.ignore_starts) {
            return Ok(());
        }
        self.be_late();
        if self.status == FAILED && !only_failed || self.run.is_done(now) {
            self.run.restart();
        }
        self.start_time = now;
        self.enter(WAITING, now);
        self.due = Some(Due {
            at: now + millis(options.start_delay),
            status: RUNNING,
        });
        Ok(())
    }

    pub(super) fn check_delete(&mut self, options: &CloudOptions, now: i64) -> Result<(), Refusal> {
        let refused = match self.status {
            RUNNING | RETRYING | PAUSING => true,
            WAITING => options.oms_refuses_delete_waiting,
            // The code is known to come for tasks that rest already.
            PAUSED => {
                let until = self.paused_at + millis(self.switches.refuse_deletes_for);
                TaskSwitches::take(&mut self.switches.refuse_deletes) || now < until
            }
            _ => false,
        };
        if refused {
            Err(Refusal::InProgress)
        } else {
            Ok(())
        }
    }

    /// From here on, some reads still show the present status.
    fn be_late(&mut self) {
        let polls = self.switches.late_polls;
        self.late = (polls > 0).then_some((self.status, polls));
    }

    /// The status that a read shows.
    pub(in crate::sandbox) fn shown_status(&self) -> i64 {
        self.late.map_or(self.status, |(status, _)| status)
    }

    /// Counts a read.
    pub(super) fn count_poll(&mut self) {
        self.late = match self.late {
            Some((status, left)) if left > 1 => Some((status, left - 1)),
            _ => None,
        };
    }
}
