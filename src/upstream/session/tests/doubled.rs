//! Services that send an answer a second time, while the next request is on its way.

use std::{collections::HashMap, thread};

use super::*;
use crate::{
    domain::{
        clock::SystemClock,
        service::{MigrationService, Patience, ProjectName, UpstreamError},
        task::{Task, TaskId},
    },
    upstream::{
        Lane, Parts, Shared, Upstream, keys, oms, secrets::Secrets, unknown::UnknownStates,
    },
};

/// Answers each request as it says, after the answer to the one before on the same connection has
/// come once more.
fn doubling(
    answers: impl Fn(&Seen) -> (u16, String) + Send + Sync + 'static,
) -> impl Fn(&Seen, &mut dyn Write) -> Then + Send + Sync + 'static {
    let last = Mutex::new(HashMap::new());
    move |seen, writer| {
        let (status, body) = answers(seen);
        let before = last
            .lock()
            .unwrap()
            .insert(seen.connection, (status, body.clone()));
        if let Some((status, body)) = before {
            answer(writer, status, "", &body);
            // Apart from the other, or the client would read and forget it together with it.
            thread::sleep(Duration::from_millis(20));
        }
        answer(writer, status, "", &body)
    }
}

fn task(id: &str) -> String {
    json!({"id": id.parse::<u64>().unwrap(), "name": "logs", "status": 2}).to_string()
}

/// Tasks whose number begins with 1 are there, those with 4 are for others, and the rest is gone.
/// Lists hold one task, with the number of the offset.
fn answers(seen: &Seen) -> (u16, String) {
    let coded = |code| json!({"error_code": code, "error_msg": "x"}).to_string();
    if let Some((_, offset)) = seen.path().split_once("offset=") {
        let row: serde_json::Value = serde_json::from_str(&task(offset)).unwrap();
        return (200, json!({"tasks": [row], "count": 1}).to_string());
    }
    let (_, id) = seen.path().rsplit_once('/').unwrap();
    match id.as_bytes()[0] {
        b'1' => (200, task(id)),
        b'4' => (403, coded("OMS.0206")),
        _ => (400, coded("OMS.1009")),
    }
}

fn service(bench: &Bench) -> Rc<dyn MigrationService> {
    (oms::ENTRY.build)(Parts {
        session: bench.session(),
        project_id: PROJECT_ID.to_owned(),
        settings: Arc::new(bench.cloud.settings(&["p"])),
        shared: Shared {
            clock: Arc::new(SystemClock),
            unknown_states: UnknownStates::default(),
            storage_secrets: keys::tests::without_configured(),
        },
        secrets: Secrets::new(bench.metrics.clone()),
    })
}

async fn show(service: &dyn MigrationService, id: &str) -> Result<Option<Task>, UpstreamError> {
    service.show(&TaskId::parse(id).unwrap()).await
}

#[actix_rt::test]
async fn a_task_is_gone_or_forbidden_only_by_an_answer_that_belongs_to_the_request() {
    let bench = Bench::new(doubling(answers));
    let service = service(&bench);
    for round in 0..10 {
        for first in ["9", "4", "11", "12"] {
            let seen = show(&*service, first).await;
            match first {
                "9" => assert!(seen.unwrap().is_none(), "{round}"),
                "4" => {
                    let kind = seen.unwrap_err().kind;
                    assert_eq!(kind, UpstreamErrorKind::Forbidden, "{round}");
                }
                id => {
                    let seen = seen.unwrap().expect(id);
                    assert_eq!(seen.reference.id.as_str(), id, "{round}");
                }
            }
        }
    }
}

#[actix_rt::test]
async fn operations_of_many_callers_at_once_see_their_own_tasks() {
    let bench = Bench::new(doubling(answers));
    let service = service(&bench);
    let caller = async |caller: usize| {
        for turn in 0..10 {
            let is_there = (caller + turn).is_multiple_of(2);
            let id = format!("{}{caller}{turn}", if is_there { 1 } else { 9 });
            let seen = show(&*service, &id).await.unwrap();
            assert_eq!(
                seen.map(|task| task.reference.id.to_string()),
                is_there.then_some(id)
            );
        }
    };
    join_all((0..16).map(caller)).await;
}

#[actix_rt::test]
async fn a_list_has_a_connection_of_its_own() {
    let bench = Bench::new(doubling(answers));
    let service = service(&bench);
    for offset in [7, 8, 9, 7] {
        show(&*service, "11").await.unwrap();
        let page = service.list(offset, 1, &Patience::default()).await.unwrap();
        let [Some(row)] = &page.rows[..] else {
            panic!("one task");
        };
        assert_eq!(row.reference.id.as_str(), offset.to_string());
    }
}

#[actix_rt::test]
async fn what_says_itself_what_it_is_about_costs_one_request() {
    let bench = Bench::new(|seen, writer| {
        let (status, body) = answers(seen);
        answer(writer, status, "", &body)
    });
    let service = service(&bench);
    assert!(show(&*service, "9").await.unwrap().is_none());
    assert_eq!(bench.requests(), 1, "its connection had carried nothing");
    for number in 0..10 {
        let task = show(&*service, &format!("1{number}")).await.unwrap();
        assert!(task.is_some());
    }
    assert_eq!(bench.requests(), 11);
    let own = |seen: &Seen| seen.head.starts_with("GET").then_some(seen.connection);
    let seen = bench.cloud.peer.seen();
    let connections: BTreeSet<usize> = seen.iter().filter_map(own).collect();
    assert_eq!(connections.len(), 1, "it is kept");
    assert!(show(&*service, "9").await.unwrap().is_none());
    assert_eq!(bench.requests(), 13, "it is asked once more, and only once");
}

#[actix_rt::test]
async fn faults_and_throttling_are_not_asked_for_once_more() {
    for (status, kind) in [
        (429, UpstreamErrorKind::Throttled),
        (503, UpstreamErrorKind::Unavailable),
    ] {
        let bench = Bench::new(move |seen, writer| {
            let (fine, body) = answers(seen);
            let is_fault = seen.path().ends_with("/9");
            answer(
                writer,
                if is_fault { status } else { fine },
                "Retry-After: 9\r\n",
                &body,
            )
        });
        let service = service(&bench);
        show(&*service, "11").await.unwrap();
        assert_eq!(show(&*service, "9").await.unwrap_err().kind, kind);
        assert_eq!(bench.requests(), 2);
    }
}

#[actix_rt::test]
async fn a_refusal_that_comes_twice_is_none_of_the_next_token() {
    let bench = Bench::new(doubling(|seen| {
        let dead = seen.header("x-auth-token") == Some("token-0");
        let is_first = seen.path().ends_with("/11");
        if dead && !is_first {
            (
                401,
                json!({"error_code": "APIGW.0307", "error_msg": "x"}).to_string(),
            )
        } else {
            answers(seen)
        }
    }));
    let service = service(&bench);
    for id in ["11", "12", "13", "14"] {
        assert!(show(&*service, id).await.unwrap().is_some());
    }
    assert_eq!(bench.cloud.logins(), 2);
}

#[actix_rt::test]
async fn projects_at_one_endpoint_share_no_connection() {
    let bench = Bench::new(|seen, writer| {
        let (status, body) = answers(seen);
        answer(writer, status, "", &body)
    });
    let mut settings = bench.cloud.settings(&["a", "b"]);
    let name = ServiceName::parse("oms").unwrap();
    for project in settings.projects.values_mut() {
        project.services.insert(name.clone());
        let address = bench.cloud.peer.endpoint().to_string();
        project.endpoints.insert(name.clone(), address);
    }
    let (clock, mut registry) = (bench.cloud.clock.clone(), Registry::default());
    let upstream = Upstream::start(settings, peer::settings(), clock, &mut registry).unwrap();
    let services = upstream.services(Lane::Callers).unwrap();
    for _ in 0..3 {
        for project in ["a", "b"] {
            let project = ProjectName::parse(project).unwrap();
            let service = services.get(&project, &name).unwrap();
            assert!(show(&*service.port, "11").await.unwrap().is_some());
        }
    }
    let seen = bench.cloud.peer.seen();
    let reads: Vec<&Seen> = seen
        .iter()
        .filter(|seen| seen.head.starts_with("GET"))
        .collect();
    let connections: BTreeSet<usize> = reads.iter().map(|seen| seen.connection).collect();
    assert_eq!((reads.len(), connections.len()), (6, 2));
}
