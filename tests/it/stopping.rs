//! The process is told to stop, and the next one goes on.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::json;

use migration_gateway::sandbox::{Fault, FaultKind, OmsSpec, Operation, Service, SmsSpec};

use crate::support::{
    gateway::{Gateway, Place},
    http::Answer,
    stuck, wait_for,
};

/// A gateway's connection that stays open.
struct Idle(TcpStream);

impl Idle {
    fn open(gateway: &Gateway) -> Self {
        let mut idle = Self(TcpStream::connect(gateway.authority()).expect("a connection"));
        idle.0
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a socket");
        assert_eq!(idle.get("/livez").as_deref(), Some("200"));
        idle
    }

    /// The status of the answer, or nothing if the connection was ended.
    fn get(&mut self, path: &str) -> Option<String> {
        write!(self.0, "GET {path} HTTP/1.1\r\nHost: gateway\r\n\r\n").ok()?;
        let mut bytes = [0; 4096];
        let read = self.0.read(&mut bytes).ok()?;
        let head = String::from_utf8_lossy(&bytes[..read]);
        Some(head.get(9..12)?.to_owned())
    }
}

#[test]
fn a_signal_lets_waiting_requests_go_and_the_next_start_finishes_the_work() {
    thread::scope(|scope| {
        for signal in ["TERM", "INT"] {
            for upstream_hangs in [false, true] {
                scope.spawn(move || stop_and_go_on(signal, upstream_hangs));
            }
        }
    });
}

fn stop_and_go_on(signal: &str, upstream_hangs: bool) {
    let drain_timeout = Duration::from_secs(5);
    let place = Place::new()
        .set("server.drain_timeout", "\"5s\"")
        .set("upstream.request_timeout", "\"60s\"");
    let cloud = &place.cloud;
    let id = cloud.add_oms(stuck());
    let hanging = cloud.add_sms(SmsSpec::new("web", "RUNNING"));
    let mut gateway = place.start();
    let client = gateway.client();
    let (mut operations, mut unaccepted) = (Vec::new(), None);
    if upstream_hangs {
        let fault = Fault::on(Service::Sms, Operation::Pause, FaultKind::Hang).task(&hanging);
        let fault = cloud.fault(fault);
        operations.push(client.force_delete(&hanging));
        wait_for("the fault", || (fault.fired() == 1).then_some(()));
        unaccepted = Some(hang_before_acceptance(&place, &gateway));
    }
    let mut idle = Idle::open(&gateway);
    let began = thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let path = format!("/tasks/{id}?force=pause");
            client.with("DELETE", &path, ("Prefer", "wait=60"))
        });
        wait_for("the pause", || {
            (cloud.count(Operation::Pause, Some(&id)) == 1).then_some(())
        });
        let began = Instant::now();
        gateway.signal(signal);
        let answer = waiting.join().expect("an answer");
        let status = (answer.status, &answer.json()["status"]);
        assert_eq!(status, (202, &json!("running")), "{answer:?}");
        let applied = answer.header("preference-applied");
        assert_eq!(applied, None, "it was cut short");
        operations.extend(answer.json()["id"].as_str().map(str::to_owned));
        began
    });
    assert!(began.elapsed() < drain_timeout, "it waited to the end");
    if upstream_hangs {
        assert_says_that_it_stops(&gateway);
        assert_eq!(idle.get("/readyz").as_deref(), Some("503"));
    }
    for path in ["/readyz", "/tasks"] {
        let status = idle.get(path);
        assert!(
            status.as_deref().is_none_or(|status| status == "503"),
            "{status:?}"
        );
    }
    let status = gateway.ended();
    assert_eq!(status.code(), Some(0), "{}", gateway.log());
    let took = began.elapsed();
    let limit = if upstream_hangs {
        drain_timeout + Duration::from_secs(2)
    } else {
        drain_timeout
    };
    assert!(took < limit, "{took:?}");

    cloud.set_oms_status(&id, 3);
    let gateway = place.start();
    for operation in operations {
        assert_eq!(gateway.client().ended(&operation)["outcome"], "deleted");
    }
    if let Some((task, request)) = unaccepted {
        let answer = request.join().expect("a request");
        assert!(answer.is_none_or(|answer| answer.status >= 500));
        let answer = gateway.client().get(&format!("/operations?task={task}"));
        assert_eq!(answer.json()["operations"], json!([]));
    }
}

#[test]
fn a_request_that_is_being_answered_keeps_the_port_open_until_it_is() {
    let place = Place::new().set("upstream.request_timeout", "\"60s\"");
    let task = place.cloud.add_oms(OmsSpec::new("logs", 5));
    let slow = FaultKind::Delay(Duration::from_secs(5));
    let fault = Fault::on(Service::Oms, Operation::Show, slow).task(&task);
    let fault = place.cloud.fault(fault);
    let mut gateway = place.start();
    let client = gateway.client();
    thread::scope(|scope| {
        let reading = scope.spawn(|| client.get(&format!("/tasks/{task}")));
        wait_for("the fault", || (fault.fired() == 1).then_some(()));
        gateway.signal("TERM");
        wait_for("the stop", || {
            (gateway.stranger().get("/readyz").status == 503).then_some(())
        });
        assert_says_that_it_stops(&gateway);
        let answer = reading.join().expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
    });
    assert_eq!(gateway.ended().code(), Some(0), "{}", gateway.log());
}

#[test]
fn a_request_too_many_is_refused_at_once_and_probes_are_not() {
    let place = Place::new().set("limits.concurrent_requests", "2");
    let task = place.cloud.add_oms(stuck());
    let gateway = place.start();
    let client = gateway.client();
    let operation = client.force_delete(&task);
    let path = format!("/operations/{operation}");
    let waits = || {
        // Whoever looks whether both wait may have the last place.
        wait_for("a place", || {
            let answer = client.with("GET", &path, ("Prefer", "wait=60"));
            (answer.status == 200).then_some(answer)
        })
    };
    thread::scope(|scope| {
        let waiting = [scope.spawn(waits), scope.spawn(waits)];
        let refused = wait_for("both to wait", || {
            let answer = client.get(&path);
            (answer.status != 200).then_some(answer)
        });
        assert_eq!((refused.status, &*refused.problem()), (503, "overloaded"));
        assert_eq!(refused.header("retry-after"), Some("1"));
        assert_eq!(gateway.stranger().get("/readyz").status, 200);
        place.cloud.set_oms_status(&task, 3);
        for answer in waiting {
            let answer = answer.join().expect("an answer");
            assert_eq!(answer.json()["outcome"], "deleted", "{answer:?}");
        }
    });
    assert_eq!(client.get(&path).status, 200);
}

/// A round or a request is in flight, so that whoever comes is answered.
fn assert_says_that_it_stops(gateway: &Gateway) {
    let stranger = gateway.stranger();
    let ready = stranger.get("/readyz");
    assert_eq!(ready.status, 503, "{ready:?}");
    assert_eq!(ready.json()["failing"], json!(["draining"]));
    let task = "/tasks/191297407830872?force=pause";
    for (method, path) in [("GET", "/tasks"), ("DELETE", task), ("GET", "/elsewhere")] {
        let answer = gateway.client().with(method, path, ("accept", "*/*"));
        assert_eq!(answer.status, 503, "{method} {path}: {answer:?}");
        assert_eq!(answer.problem(), "overloaded");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }
    for path in [
        "/livez",
        "/metrics",
        "/problems/overloaded",
        "/openapi.json",
        "/docs/",
    ] {
        assert_eq!(stranger.get(path).status, 200, "{path}");
    }
}

/// A request that hangs at its first look, so that it is not accepted yet.
fn hang_before_acceptance(
    place: &Place,
    gateway: &Gateway,
) -> (String, JoinHandle<Option<Answer>>) {
    let task = place.cloud.add_oms(OmsSpec::new("logs", 2));
    let fault = Fault::on(Service::Oms, Operation::Show, FaultKind::Hang).task(&task);
    let fault = place.cloud.fault(fault);
    let (client, path) = (gateway.client(), format!("/tasks/{task}?force=pause"));
    let request = thread::spawn(move || client.send("DELETE", &path, &[], None).ok());
    wait_for("the fault", || (fault.fired() == 1).then_some(()));
    (task, request)
}

#[test]
fn an_operation_is_given_up_if_its_project_is_another_after_a_restart() {
    let place = Place::new();
    let id = place.cloud.add_oms(stuck());
    let mut gateway = place.start();
    let operation = gateway.client().force_delete(&id);
    wait_for("the pause", || {
        (place.cloud.count(Operation::Pause, None) == 1).then_some(())
    });
    gateway.signal("TERM");
    assert!(gateway.ended().success());
    place.cloud.set_oms_status(&id, 3);
    let place = place.env("MIGRATION_GATEWAY__PROJECTS__DEFAULT__REGION", "cn-south-1");
    let gateway = place.start();
    let operation = gateway.client().ended(&operation);
    assert_eq!(operation["error"]["type"], "/problems/project-changed");
    assert_eq!(operation["error"]["status"], 502);
    assert_eq!(operation["error"]["sent"], "yes");
    assert_eq!(place.cloud.count(Operation::Delete, None), 0);
}
