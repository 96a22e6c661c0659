//! What is asked of a gateway that is to be killed.

use std::time::Duration;

use migration_gateway::sandbox::{Cloud, OmsSpec, Operation, SmsSpec, TaskSwitches};
use serde_json::{Value, json};

use crate::support::{
    http::{Answer, Client},
    wait_for,
};

/// A pause that is not over before the process is killed.
const LONG_PAUSE: Duration = Duration::from_hours(1);

/// So many operations on tasks of one service that their list is read.
const CROWD: usize = 25;

/// What is asked of a task, and with that what must become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    Nothing,
    Delete {
        pauses: usize,
    },
    Pause,
    Start,
    /// The keys are in the request, and can be lost with the process.
    StartInline,
    /// A forced delete of a task that is being deleted by force.
    JoinDelete,
    PauseThenDelete,
    PauseThenCancel,
}

/// A task and the request about it that can meet the kill.
pub(super) struct Job {
    pub(super) task: String,
    pub(super) plan: Plan,
    method: &'static str,
    pub(super) path: String,
    body: Option<Value>,
    pub(super) prefer: &'static str,
    key: String,
}

impl Job {
    pub(super) fn new(plan: Plan, task: &str) -> Self {
        let (method, path) = match plan {
            Plan::Delete { pauses: 0 } => ("DELETE", format!("/tasks/{task}")),
            Plan::Delete { .. } | Plan::JoinDelete | Plan::PauseThenDelete => {
                ("DELETE", format!("/tasks/{task}?force=pause"))
            }
            Plan::Pause => ("POST", format!("/tasks/{task}/pause")),
            Plan::Start | Plan::StartInline => ("POST", format!("/tasks/{task}/start")),
            Plan::PauseThenCancel | Plan::Nothing => ("POST", String::new()),
        };
        Self {
            task: task.to_owned(),
            plan,
            method,
            path,
            body: None,
            prefer: "respond-async",
            key: format!("key-of-{task}"),
        }
    }

    fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    fn waits(mut self) -> Self {
        self.prefer = "wait=20";
        self
    }

    /// The answer, if the gateway lived to give it.
    pub(super) fn send(&self, client: &Client, prefer: &str) -> Option<Answer> {
        let mut headers = vec![("Prefer", prefer), ("Idempotency-Key", &self.key)];
        if self.method == "POST" && self.body.is_none() {
            headers.push(("Content-Length", "0"));
        }
        let sent = client.send(self.method, &self.path, &headers, self.body.as_ref());
        sent.ok()
    }
}

/// What is under way when the kill is armed, the requests that come after it, and tasks that nobody
/// asks anything of.
pub(super) struct Wave {
    early: Vec<(String, Plan)>,
    /// Tasks that are being paused until they are brought to rest.
    slow: Vec<String>,
    pub(super) jobs: Vec<Job>,
}

impl Wave {
    /// Begins operations that take their time, and prepares the requests.
    pub(super) fn begin(cloud: &Cloud, client: &Client) -> Self {
        let force = Plan::Delete { pauses: 1 };
        let mut early = vec![
            (cloud.add_oms(OmsSpec::new("other", 3)), Plan::Nothing),
            (cloud.add_sms(SmsSpec::new("other", "ABORT")), Plan::Nothing),
        ];
        let mut jobs = Vec::new();
        let ask = |plan: Plan, task: &str| {
            let job = Job::new(plan, task);
            client.ask(job.method, &job.path, None)
        };
        for task in [long_oms(cloud), long_sms(cloud)] {
            ask(force, &task);
            jobs.push(Job::new(Plan::JoinDelete, &task));
        }
        for task in [long_oms(cloud), long_sms(cloud)] {
            ask(Plan::Pause, &task);
            jobs.push(Job::new(Plan::PauseThenDelete, &task));
        }
        for task in [long_oms(cloud), long_sms(cloud)] {
            let operation = ask(Plan::Pause, &task);
            jobs.push(Job {
                path: format!("/operations/{operation}/cancel"),
                ..Job::new(Plan::PauseThenCancel, &task)
            });
        }
        for job in &jobs {
            wait_for("the pauses at the cloud", || {
                (cloud.count(Operation::Pause, Some(&job.task)) == 1).then_some(())
            });
        }
        for task in [cloud.add_oms(OmsSpec::new("early", 2)), running_sms(cloud)] {
            ask(force, &task);
            early.push((task, force));
        }
        let slow = jobs.iter().map(|job| job.task.clone()).collect();
        jobs.extend(later_jobs(cloud));
        Self { early, slow, jobs }
    }

    /// Adds a start whose keys have to wait for the end of a pause.
    pub(super) fn add_slow_start(&mut self, cloud: &Cloud) {
        let task = cloud.add_oms(OmsSpec::new("slow", 7));
        self.slow.push(task.clone());
        self.jobs
            .push(Job::new(Plan::StartInline, &task).body(inline_keys()));
    }

    /// Adds so many pauses that wait that the list of tasks is read for them.
    pub(super) fn add_crowd(&mut self, cloud: &Cloud, client: &Client) {
        for _ in 0..CROWD {
            let task = long_oms(cloud);
            let job = Job::new(Plan::Pause, &task);
            client.ask(job.method, &job.path, None);
            wait_for("the pause at the cloud", || {
                (cloud.count(Operation::Pause, Some(&task)) == 1).then_some(())
            });
            self.slow.push(task.clone());
            self.early.push((task, Plan::Pause));
        }
    }

    /// Brings the tasks to rest that are being paused for long.
    pub(super) fn let_pauses_end(&mut self, cloud: &Cloud) {
        for task in self.slow.drain(..) {
            assert!(cloud.set_oms_status(&task, 3) || cloud.set_sms_state(&task, "ABORT"));
        }
    }

    pub(super) fn plans(&self) -> impl Iterator<Item = (&str, Plan)> {
        let early = self.early.iter().map(|(task, plan)| (task.as_str(), *plan));
        early.chain(self.jobs.iter().map(|job| (job.task.as_str(), job.plan)))
    }
}

fn running_sms(cloud: &Cloud) -> String {
    cloud.add_sms(SmsSpec::new("web", "RUNNING"))
}

fn long_oms(cloud: &Cloud) -> String {
    slow(cloud, cloud.add_oms(OmsSpec::new("slow", 2)))
}

fn long_sms(cloud: &Cloud) -> String {
    slow(cloud, running_sms(cloud))
}

fn slow(cloud: &Cloud, task: String) -> String {
    let switches = TaskSwitches {
        pause_delay: Some(LONG_PAUSE),
        ..TaskSwitches::default()
    };
    assert!(cloud.switch(&task, switches));
    task
}

fn inline_keys() -> Value {
    let keys = json!({"access_key": "AK", "secret_key": "SK"});
    json!({"source": keys, "destination": keys})
}

/// Requests of every kind; some wait for the end.
fn later_jobs(cloud: &Cloud) -> Vec<Job> {
    let oms = |status| cloud.add_oms(OmsSpec::new("logs", status));
    let sms = |state| cloud.add_sms(SmsSpec::new("web", state));
    let (plain, force) = (Plan::Delete { pauses: 0 }, Plan::Delete { pauses: 1 });
    let named = json!({"source": "archive", "destination": "archive"});
    let inline = inline_keys();
    let refusing = [oms(3), sms("ABORT")];
    for task in &refusing {
        let switches = TaskSwitches {
            refuse_deletes: 2,
            ..TaskSwitches::default()
        };
        assert!(cloud.switch(task, switches));
    }
    let [one, other] = refusing;
    vec![
        Job::new(force, &oms(2)).waits(),
        Job::new(plain, &sms("ABORT")).waits(),
        Job::new(plain, &one),
        Job::new(plain, &other),
        Job::new(Plan::Pause, &oms(2)),
        Job::new(Plan::Start, &oms(3)).body(named.clone()),
        Job::new(Plan::StartInline, &oms(3)).body(inline.clone()),
        Job::new(Plan::Pause, &sms("RUNNING")),
        Job::new(Plan::Start, &sms("ABORT")),
        Job::new(plain, &oms(5)),
        Job::new(force, &sms("RUNNING")),
        Job::new(Plan::StartInline, &oms(4)).body(inline),
        Job::new(Plan::Start, &oms(3)).body(named),
        Job::new(force, &oms(2)),
    ]
}
