//! What documents say to people.

use indicatif::{HumanBytes, HumanCount, HumanDuration};
use migration_gateway::client::{Client, Problem};
use serde_json::Value;

/// A member as text; nothing if it is not there.
pub(super) fn of<'a>(document: &'a Value, name: &str) -> &'a str {
    document[name].as_str().unwrap_or_default()
}

/// A text of somebody else's in one line, without orders to the terminal.
pub(super) fn plain(text: &str) -> String {
    text.replace(|character: char| character.is_control(), "\u{fffd}")
}

/// As [`plain`], of a text that has several lines.
pub(super) fn lines(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(plain).collect();
    lines.join("\n")
}

/// Columns as wide as what stands in them.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let plain = |row: &Vec<String>| row.iter().map(|cell| plain(cell)).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(plain).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths);
        let cells = cells.map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Names and values, those that are empty left out.
fn members(rows: Vec<(&str, String)>) -> String {
    let rows = rows.into_iter().filter(|(_, value)| !value.is_empty());
    let rows: Vec<_> = rows
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect();
    table(&rows)
}

pub(super) fn task_row(task: &Value) -> Vec<String> {
    let text = |name| of(task, name).to_owned();
    vec![
        text("id"),
        text("service"),
        text("project"),
        text("state"),
        percent(task),
        text("name"),
    ]
}

pub(super) fn task(task: &Value) -> String {
    let text = |name| of(task, name).to_owned();
    let error = &task["error"];
    let mut told = members(vec![
        ("id", text("id")),
        ("name", text("name")),
        ("service", text("service")),
        ("project", text("project")),
        (
            "state",
            format!("{} ({})", of(task, "state"), of(task, "upstream_state")),
        ),
        ("progress", percent(task)),
        ("bytes", bytes(task)),
        ("objects", objects(task)),
        ("speed", speed(task)),
        ("left", left(task)),
        ("started", text("started_at")),
        ("error", join([of(error, "code"), of(error, "message")])),
        ("possible", list(&task["actions"])),
        ("operation", text("operation")),
        ("seen", text("observed_at")),
    ]);
    if let Some(details) = task.get("details") {
        let details = serde_json::to_string_pretty(details).unwrap_or_default();
        for line in details.lines() {
            told.push('\n');
            told.push_str(&plain(line));
        }
    }
    told
}

/// A task in one line, without its name.
pub(super) fn progress(task: &Value) -> String {
    join([of(task, "state"), &percent(task), &numbers(task)])
}

/// What a bar does not show of a task.
pub(super) fn numbers(task: &Value) -> String {
    let objects = named("objects", &objects(task));
    join([
        &bytes(task),
        &objects,
        &speed(task),
        &named("left", &left(task)),
    ])
}

pub(super) fn operation_row(operation: &Value) -> Vec<String> {
    let text = |name| of(operation, name).to_owned();
    vec![
        text("id"),
        kind(operation),
        of(&operation["task"], "id").to_owned(),
        text("status"),
        text("outcome"),
        text("created_at"),
    ]
}

pub(super) fn operation(operation: &Value) -> String {
    let text = |name| of(operation, name).to_owned();
    let task = &operation["task"];
    let error = &operation["error"];
    let told = members(vec![
        ("id", text("id")),
        ("kind", kind(operation)),
        (
            "task",
            join([of(task, "id"), of(task, "service"), of(task, "project")]),
        ),
        ("status", text("status")),
        ("phase", text("phase")),
        ("outcome", text("outcome")),
        ("error", join([of(error, "title"), of(error, "detail")])),
        ("asked by", text("requested_by")),
        ("created", text("created_at")),
        ("deadline", text("deadline_at")),
        ("ended", text("finished_at")),
    ]);
    let events = operation["events"].as_array().into_iter().flatten();
    events.fold(told, |told, one| format!("{told}\n{}", event(one)))
}

fn kind(operation: &Value) -> String {
    match of(operation, "force") {
        "" => of(operation, "kind").to_owned(),
        force => format!("{} --force {force}", of(operation, "kind")),
    }
}

/// One event of an operation in one line.
pub(super) fn event(event: &Value) -> String {
    let parts = ["at", "event", "state", "code", "request_id"];
    join(parts.map(|name| of(event, name)))
}

/// How an operation stands, in one line.
pub(super) fn end(operation: &Value) -> String {
    let task = of(&operation["task"], "id");
    let (id, status) = (of(operation, "id"), of(operation, "status"));
    let what = format!("{id}: {} of task {task}", kind(operation));
    plain(&match of(operation, "outcome") {
        "" => format!("{what}: {status}"),
        outcome => format!("{what}: {status} ({outcome})"),
    })
}

/// A problem, and where to read what to do about it.
pub(super) fn problem(problem: &Problem, client: &Client) -> String {
    let page = problem.text("type");
    let page = if page.starts_with('/') {
        client.page(page)
    } else {
        page.to_owned()
    };
    let faults = problem.document["errors"].as_array().into_iter().flatten();
    // The only one of a request is its detail.
    let faults = faults.map(|fault| of(fault, "detail"));
    let faults: Vec<_> = faults
        .filter(|fault| *fault != problem.text("detail"))
        .collect();
    let upstream = &problem.document["upstream"];
    let upstream = ["service", "error_code", "error_msg"].map(|name| of(upstream, name));
    let told = members(vec![
        ("  allowed", list(&problem.document["allowed"])),
        ("  faults", faults.join(" ")),
        ("  cloud", join(upstream)),
        (
            "  operation",
            of(&problem.document["operation"], "id").to_owned(),
        ),
        ("  request", problem.text("request_id").to_owned()),
        ("  see", page),
    ]);
    format!("{}\n{told}", plain(&format!("Error: {problem}")))
}

/// A number with its name behind it, if there is one.
fn named(name: &str, number: &str) -> String {
    if number.is_empty() {
        return String::new();
    }
    format!("{number} {name}")
}

fn percent(task: &Value) -> String {
    let progress = task["progress"].as_f64();
    progress.map_or_else(String::new, |progress| format!("{:.0} %", progress * 100.0))
}

fn bytes(task: &Value) -> String {
    let amount = &task["bytes"];
    match (amount["done"].as_u64(), amount["total"].as_u64()) {
        (Some(done), Some(total)) => format!("{} of {}", HumanBytes(done), HumanBytes(total)),
        _ => String::new(),
    }
}

fn objects(task: &Value) -> String {
    let counts = &task["objects"];
    let count = |name: &str| counts[name].as_u64();
    let (Some(succeeded), Some(total)) = (count("succeeded"), count("total")) else {
        return String::new();
    };
    let others = ["failed", "skipped"].map(|name| match count(name) {
        None | Some(0) => String::new(),
        Some(number) => format!(", {} {name}", HumanCount(number)),
    });
    let (succeeded, total) = (HumanCount(succeeded), HumanCount(total));
    format!("{succeeded} of {total}{}", others.concat())
}

fn speed(task: &Value) -> String {
    let speed = task["bytes_per_second"].as_u64().filter(|speed| *speed > 0);
    speed.map_or_else(String::new, |speed| format!("{}/s", HumanBytes(speed)))
}

fn left(task: &Value) -> String {
    let seconds = task["remaining_seconds"].as_u64();
    let seconds = seconds.filter(|seconds| *seconds > 0);
    seconds.map_or_else(String::new, |seconds| {
        let left = std::time::Duration::from_secs(seconds);
        HumanDuration(left).to_string()
    })
}

fn list(texts: &Value) -> String {
    let texts = texts.as_array().into_iter().flatten();
    let texts: Vec<_> = texts.filter_map(Value::as_str).collect();
    texts.join(", ")
}

fn join<const N: usize>(parts: [&str; N]) -> String {
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    plain(&parts.collect::<Vec<_>>().join("  "))
}
