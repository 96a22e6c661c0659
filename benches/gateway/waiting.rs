//! The memory of the gateway when nothing happens, and its memory and CPU time while operations
//! wait for tasks of the simulated cloud that never come to rest.

use std::{thread, time::Duration};

use migration_gateway::sandbox::{
    AfterStop, Cloud, CloudOptions, OmsSpec, Operation, TaskSwitches,
};

use crate::{
    Outcome, Plan,
    figures::{row, table},
    gateway::{Gateway, NO_PACE},
    wait_for,
};

/// By then every wait between two looks has grown to `operations.poll_max`.
pub(crate) const SETTLE: Duration = Duration::from_secs(20);
/// The longest that it may take until every task was asked to pause.
pub(crate) const ALL_PAUSING: Duration = Duration::from_mins(3);

pub(crate) fn measure(plan: &Plan) -> Outcome<String> {
    let mut rows = vec![row([
        "waiting operations",
        "resident MiB",
        "proportional MiB",
        "CPU % of one core",
        "requests to the cloud per second",
    ])];
    let cloud = Cloud::start(CloudOptions::default())?;
    let gateway = Gateway::start(&cloud, &cloud.oms_url(), &NO_PACE)?;
    let mut waiting = 0;
    for wanted in plan.choose([0, 1_000, 10_000], [0, 20, 100]) {
        eprintln!("waiting: {wanted} operations");
        let tasks: Vec<String> = (waiting..wanted).map(|_| cloud.add_oms(stuck())).collect();
        gateway.delete_all(&tasks)?;
        waiting = wanted;
        wait_for("all tasks to be asked to pause", ALL_PAUSING, || {
            Ok((cloud.count(Operation::Pause, None) == waiting).then_some(()))
        })?;
        thread::sleep(plan.choose(SETTLE, Duration::from_secs(2)));
        rows.push(observe(&cloud, &gateway, waiting, plan)?);
        if cloud.count(Operation::Pause, None) != waiting {
            return Err("a task was asked to pause twice".into());
        }
    }
    Ok(table(&rows))
}

/// A running task that stays half way to its pause for ever.
pub(crate) fn stuck() -> OmsSpec {
    let mut spec = OmsSpec::new("stuck", 2);
    spec.run_duration = Some(Duration::from_hours(24));
    spec.switches = TaskSwitches {
        after_stop: AfterStop::Stuck,
        ..TaskSwitches::default()
    };
    spec
}

fn observe(cloud: &Cloud, gateway: &Gateway, waiting: usize, plan: &Plan) -> Outcome<Vec<String>> {
    let time = plan.choose(Duration::from_secs(20), Duration::from_secs(2));
    let requests = || cloud.count(Operation::Show, None) + cloud.count(Operation::List, None);
    let (cpu, asked) = (gateway.cpu_seconds()?, requests());
    thread::sleep(time);
    let cpu = gateway.cpu_seconds()? - cpu;
    let asked = requests() - asked;
    let memory = gateway.memory()?;
    let mebibytes = |bytes: f64| format!("{:.1}", bytes / f64::from(1 << 20));
    #[expect(clippy::cast_precision_loss, reason = "some thousand requests")]
    let asked = asked as f64 / time.as_secs_f64();
    Ok(vec![
        waiting.to_string(),
        mebibytes(memory.resident),
        mebibytes(memory.proportional),
        format!("{:.1}", 100.0 * cpu / time.as_secs_f64()),
        format!("{asked:.1}"),
    ])
}
