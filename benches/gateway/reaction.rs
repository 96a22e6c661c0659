//! How long it takes from the moment at which a task has come to rest to the delete that arrives at
//! the cloud, with the default settings: the price of looking once in a while.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use migration_gateway::sandbox::{Cloud, CloudOptions, OmsSpec, Operation, TaskSwitches};

use crate::{
    Outcome, Plan,
    figures::{percentile, row, table},
    gateway::Gateway,
    wait_for,
};

/// The longest that it may take until every task is gone.
const ALL_GONE: Duration = Duration::from_mins(3);

pub(crate) fn measure(plan: &Plan) -> Outcome<String> {
    let mut rows = vec![row([
        "a task pauses within",
        "tasks",
        "median s",
        "p99 s",
        "longest s",
    ])];
    let spans = plan.choose(&[2_u32, 30][..], &[2][..]);
    for &seconds in spans {
        let count = plan.choose(300, 20);
        eprintln!("reaction: {count} tasks, paused within {seconds} s");
        let took = reactions(count, Duration::from_secs(seconds.into()))?;
        let part = |part| format!("{:.2}", percentile(&took, part));
        let mut cells = row([&format!("{seconds} s"), &took.len().to_string()]);
        cells.extend([part(0.5), part(0.99), part(1.0)]);
        rows.push(cells);
    }
    Ok(table(&rows))
}

/// The seconds from paused to deleted of so many tasks, which take up to `longest` to pause, evenly
/// spread.
fn reactions(count: u32, longest: Duration) -> Outcome<Vec<f64>> {
    let cloud = Cloud::start(CloudOptions::default())?;
    let gateway = Gateway::start(&cloud, &cloud.oms_url(), &[])?;
    let delays: HashMap<String, Duration> = (1..=count)
        .map(|number| {
            let delay = longest * number / count;
            let mut spec = OmsSpec::new("slow", 2);
            spec.switches = TaskSwitches {
                pause_delay: Some(delay),
                ..TaskSwitches::default()
            };
            (cloud.add_oms(spec), delay)
        })
        .collect();
    let tasks: Vec<String> = delays.keys().cloned().collect();
    gateway.delete_all(&tasks)?;
    wait_for("all tasks to be gone", ALL_GONE, || {
        Ok(cloud.tasks().is_empty().then_some(()))
    })?;
    let (mut paused, mut deleted) = (HashMap::new(), HashMap::new());
    for request in cloud.requests() {
        let Some(task) = request.task else { continue };
        match request.operation {
            Operation::Pause => {
                paused.entry(task).or_insert(request.at);
            }
            Operation::Delete => {
                deleted.entry(task).or_insert(request.at);
            }
            Operation::Login
            | Operation::MetadataToken
            | Operation::TemporaryKeys
            | Operation::List
            | Operation::Show
            | Operation::Start
            | Operation::Other => {}
        }
    }
    let took = |(task, delay): (&String, &Duration)| -> Option<f64> {
        let rested: Timestamp = paused.get(task)?.checked_add(*delay).ok()?;
        Some(deleted.get(task)?.duration_since(rested).as_secs_f64())
    };
    let all: Option<Vec<f64>> = delays.iter().map(took).collect();
    all.ok_or_else(|| "a task is gone that nobody deleted".into())
}
