use jiff::Timestamp;
use proptest::{
    collection::vec,
    option,
    prelude::{Just, Strategy, any, prop_oneof},
    sample::select,
    test_runner::{Config, TestRunner},
};

use super::{Place, fresh};
use crate::domain::{
    history::{Attempts, Change, Fault, History},
    operation::{
        EventKind, Failure, Goal, Operation, OperationEvent, OperationId, Outcome, Phase, Reason,
        Status,
    },
    service::{Binding, CallerName, CredentialName, Sent, UpstreamAnswer},
    start::StartRecord,
    store::{Hold, OperationStore as _},
    task::{TaskId, TaskState},
};

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,40}"
}

fn time() -> impl Strategy<Value = Timestamp> {
    (-1_000_000_000_000_000_i64..4_000_000_000_000_000)
        .prop_map(|microseconds| Timestamp::from_microsecond(microseconds).unwrap())
}

fn caller() -> impl Strategy<Value = CallerName> {
    "[a-z0-9-]{1,63}".prop_map(|name| CallerName::parse(&name).unwrap())
}

fn credential() -> impl Strategy<Value = CredentialName> {
    "[a-z0-9-]{1,63}".prop_map(|name| CredentialName::parse(&name).unwrap())
}

fn goal() -> impl Strategy<Value = Goal> {
    prop_oneof![
        any::<bool>().prop_map(|force| Goal::Absent { force }),
        Just(Goal::Paused),
        Just(Goal::Running),
    ]
}

fn change() -> impl Strategy<Value = Option<Change>> {
    option::of(select(&[Change::Pause, Change::Start, Change::Delete][..]))
}

fn sent() -> impl Strategy<Value = Sent> {
    select(&[Sent::No, Sent::Unknown, Sent::Yes][..])
}

fn event() -> impl Strategy<Value = OperationEvent> {
    let state = option::of(select(TaskState::ALL));
    let detail = || option::of(text());
    let kind = prop_oneof![
        Just(EventKind::Accepted),
        Just(EventKind::Joined),
        state.prop_map(EventKind::Observed),
        detail().prop_map(EventKind::PauseSent),
        detail().prop_map(EventKind::StartSent),
        detail().prop_map(EventKind::DeleteSent),
        detail().prop_map(EventKind::Refused),
        text().prop_map(EventKind::Fault),
        Just(EventKind::Resumed),
        Just(EventKind::Superseded),
        Just(EventKind::Cancelled),
        Just(EventKind::Ended),
    ];
    (time(), kind).prop_map(|(at, kind)| OperationEvent { at, kind })
}

fn answer() -> impl Strategy<Value = UpstreamAnswer> {
    let optional = || option::of(text());
    (text(), any::<u16>(), optional(), optional(), optional()).prop_map(
        |(service, status, error_code, error_msg, request_id)| UpstreamAnswer {
            service,
            status,
            error_code,
            error_msg,
            request_id,
        },
    )
}

fn failure() -> impl Strategy<Value = Failure> {
    (select(Reason::ALL), text(), sent(), option::of(answer())).prop_map(
        |(reason, detail, sent, answer)| Failure {
            reason,
            detail,
            sent,
            answer,
        },
    )
}

fn attempts() -> impl Strategy<Value = Attempts> {
    let parts = (any::<[bool; 2]>(), any::<u32>(), option::of(time()));
    parts.prop_map(|([sent, is_fresh], accepted, unanswered)| Attempts {
        sent,
        accepted,
        unanswered,
        is_fresh,
    })
}

fn history() -> impl Strategy<Value = History> {
    let attempts = (attempts(), attempts(), attempts());
    let changes = (change(), option::of(time()), sent());
    let last_fault = option::of((text(), option::of(answer())));
    let parts = (
        changes,
        attempts,
        any::<[u32; 7]>(),
        last_fault,
        option::of(time()),
    );
    parts.prop_map(|(changes, attempts, counts, last_fault, sent_at)| History {
        intent: changes.0,
        sent_at,
        pause: attempts.0,
        start: attempts.1,
        delete: attempts.2,
        pause_in_doubt: counts[0] % 2 == 1,
        paused_from: sent_at,
        started_before: changes.1,
        looks_since_accepted: counts[0],
        failed_looks: counts[1],
        gone_looks: counts[2],
        refusals: counts[3],
        permanent_faults: counts[4],
        reached: changes.2,
        waits: counts[5],
        looks_since_sent: counts[6],
        last_fault: last_fault.map(|(detail, answer)| Fault { detail, answer }),
    })
}

/// An operation as it can be when it is recorded.
fn recorded() -> impl Strategy<Value = Operation> {
    let binding = (text(), text(), text());
    let start = (
        option::of(credential()),
        option::of(credential()),
        any::<(bool, bool)>(),
    );
    (
        goal(),
        binding,
        start,
        vec(caller(), 1..4),
        vec(event(), 0..5),
        time(),
    )
        .prop_map(|(goal, binding, start, mut callers, events, created_at)| {
            callers.sort();
            callers.dedup();
            Operation {
                goal,
                binding: Binding {
                    project_id: binding.0,
                    region: binding.1,
                    endpoint: binding.2,
                },
                start: StartRecord {
                    source: start.0,
                    destination: start.1,
                    inline: start.2.0,
                    migrate_failed_objects: start.2.1,
                },
                requested_by: callers[0].clone(),
                callers,
                events,
                created_at,
                ..fresh("1")
            }
        })
}

/// What a write may change about it.
fn changed(operation: Operation) -> impl Strategy<Value = (Operation, Vec<OperationEvent>)> {
    let words = (
        select(Status::ALL),
        option::of(select(Phase::ALL)),
        option::of(select(Outcome::ALL)),
        option::of(select(TaskState::ALL)),
    );
    let times = (time(), time(), option::of(time()), time());
    let superseded = option::of(time().prop_map(OperationId::at));
    let rest = (option::of(failure()), history(), superseded);
    (words, times, rest, vec(event(), 0..4)).prop_map(move |(words, times, rest, events)| {
        let operation = Operation {
            status: words.0,
            phase: words.1,
            outcome: words.2,
            last_seen: words.3,
            updated_at: times.0,
            deadline_at: times.1,
            finished_at: times.2,
            next_look_at: times.3,
            failure: rest.0,
            history: rest.1,
            superseded_by: rest.2,
            ..operation.clone()
        };
        (operation, events)
    })
}

#[test]
fn an_operation_comes_back_from_a_file_as_it_was_written() {
    comes_back_as_it_was_written(&Place::new());
}

#[test]
fn an_operation_comes_back_from_a_server_as_it_was_written() {
    comes_back_as_it_was_written(&Place::postgres());
}

fn comes_back_as_it_was_written(place: &Place) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let store = runtime.block_on(place.open());
    let mut number = 0;
    let mut runner = TestRunner::new(Config {
        cases: 200,
        failure_persistence: None,
        ..Config::default()
    });
    let cases = recorded().prop_flat_map(|operation| (Just(operation.clone()), changed(operation)));
    let tasks = std::cell::RefCell::new(&mut number);
    runner
        .run(&cases, |(mut operation, (mut changed, events))| {
            let mut number = tasks.borrow_mut();
            **number += 1;
            // Shrinking repeats a case, and a task takes one running operation only.
            operation.id = OperationId::at(operation.created_at);
            operation.task.id = TaskId::parse(&number.to_string()).unwrap();
            (changed.id, changed.task) = (operation.id, operation.task.clone());
            runtime.block_on(async {
                let operation = store.add(operation).await;
                assert_eq!(store.read_back(operation.id).await, operation);
                store.save(&mut changed, &events, Hold::Keep).await.unwrap();
                assert_eq!(store.read_back(operation.id).await, changed);
            });
            Ok(())
        })
        .unwrap();
}
