//! `GET /tasks/{id}` through the gateway, and through an nginx that adds a fixed token: the same
//! upstream, an nginx that answers at once with a document of OMS; the same number of workers; both
//! write a line to a file for each request. What all ask for is another task with each request, so
//! that no look serves twice; beside that the gateway alone is asked for one task by everybody. The
//! same once more with `upstream.freshness` off. They are measured in turn, round after round, so
//! that a change of the machine's mood meets both.

use std::{thread, time::Duration};

use migration_gateway::sandbox::{Cloud, CloudOptions, OmsSpec};
use ureq::http;

use crate::{
    Outcome, Plan,
    figures::{median, row, table},
    gateway::{Gateway, NO_PACE},
    nginx::Nginx,
    wrk::{self, Load, Tasks},
};

const CONNECTIONS: [usize; 3] = [1, 16, 64];

/// Somebody who answers.
struct Subject {
    name: &'static str,
    url: String,
    tasks: Tasks,
}

pub(crate) fn measure(plan: &Plan) -> Outcome<String> {
    let cloud = Cloud::start(CloudOptions::default())?;
    let token = cloud.issue_token();
    let project_id = cloud.account().project_id;
    let workers = thread::available_parallelism()?.get();
    let upstream = Nginx::cloud(workers, &document(&cloud, &project_id, &token)?)?;
    let proxy = Nginx::proxy(workers, &upstream, &project_id, &token)?;
    let gateway = Gateway::start(&cloud, &upstream.url(), &NO_PACE)?;
    let no_freshness = ("upstream.freshness", "\"0s\"");
    let settings = [NO_PACE.as_slice(), &[no_freshness]].concat();
    let forgetful = Gateway::start(&cloud, &upstream.url(), &settings)?;
    let subject = |name, url: &str, tasks| Subject {
        name,
        url: url.to_owned(),
        tasks,
    };
    let mut subjects = vec![
        subject("nginx", &proxy.url(), Tasks::Each),
        subject("gateway, each for another task", &gateway.url, Tasks::Each),
        subject("gateway, all for one task", &gateway.url, Tasks::One),
        subject(
            "freshness off, each for another task",
            &forgetful.url,
            Tasks::Each,
        ),
        subject(
            "freshness off, all for one task",
            &forgetful.url,
            Tasks::One,
        ),
    ];
    let other = match &plan.against {
        Some(program) => {
            let other = Gateway::start_program(program, &cloud, &upstream.url(), &NO_PACE)?;
            subjects.push(subject(
                "other build, each for another task",
                &other.url,
                Tasks::Each,
            ));
            subjects.push(subject(
                "other build, all for one task",
                &other.url,
                Tasks::One,
            ));
            Some(other)
        }
        None => None,
    };
    let mut rows = vec![row([
        "",
        "connections",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "requests/s to nginx",
        "p50 to nginx",
        "p99 to nginx",
    ])];
    for connections in CONNECTIONS {
        rows.extend(compare(&subjects, connections, plan)?);
    }
    drop(other);
    Ok(table(&rows))
}

/// The document of a task as OMS shows it, with a place for the id.
fn document(cloud: &Cloud, project_id: &str, token: &str) -> Outcome<String> {
    let task = cloud.add_oms(OmsSpec::new("logs-2026", 2));
    let url = format!("{}/v2/{project_id}/tasks/{task}", cloud.oms_url());
    let request = http::Request::get(url)
        .header("x-auth-token", token)
        .body(())?;
    let text = ureq::run(request)?.body_mut().read_to_string()?;
    Ok(text.replace(&task, "$1"))
}

/// The rows of all subjects at this many connections: medians of the rounds, and medians of the
/// ratios within a round.
fn compare(subjects: &[Subject], connections: usize, plan: &Plan) -> Outcome<Vec<Vec<String>>> {
    let (rounds, seconds) = plan.choose((5, 3), (1, 1));
    let time = Duration::from_secs(seconds);
    for subject in subjects {
        wrk::run(
            &subject.url,
            subject.tasks,
            connections,
            Duration::from_secs(1),
        )?;
    }
    let mut measured: Vec<Vec<Load>> = vec![Vec::new(); subjects.len()];
    for round in 1..=rounds {
        eprintln!("reads: {connections} connections, round {round} of {rounds}");
        for (loads, subject) in measured.iter_mut().zip(subjects) {
            loads.push(wrk::run(&subject.url, subject.tasks, connections, time)?);
        }
    }
    let middle = |loads: &[Load], value: fn(&Load) -> f64| {
        median(&loads.iter().map(value).collect::<Vec<_>>())
    };
    let ratio = |loads: &[Load], value: fn(&Load) -> f64| {
        let ratios = loads.iter().zip(&measured[0]);
        median(
            &ratios
                .map(|(own, nginx)| value(own) / value(nginx))
                .collect::<Vec<_>>(),
        )
    };
    let values: [fn(&Load) -> f64; 3] = [
        |load| load.requests_per_second,
        |load| load.median,
        |load| load.p99,
    ];
    let rows = subjects.iter().zip(&measured).map(|(subject, loads)| {
        let [speed, p50, p99] = values.map(|value| middle(loads, value));
        let ratios = values.map(|value| format!("{:.2}", ratio(loads, value)));
        let mut cells = row([subject.name, &connections.to_string()]);
        cells.extend([
            format!("{speed:.0}"),
            format!("{p50:.2}"),
            format!("{p99:.2}"),
        ]);
        cells.extend(ratios);
        cells
    });
    Ok(rows.collect())
}
