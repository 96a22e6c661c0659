//! The gateway's tokens: how many logins there are, and that none is used that is over. Told by the
//! record of the cloud.

use std::{
    io::{self, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use migration_gateway::sandbox::{Cloud, Fault, FaultKind, OmsSpec, Operation, Service, SmsSpec};

use crate::support::{
    gateway::{KEY, Place},
    wait_for,
};

fn delayed_login(cloud: &Cloud, by: Duration) {
    cloud.fault(Fault::on(
        Service::Iam,
        Operation::Login,
        FaultKind::Delay(by),
    ));
}

/// Every request to a service carried a token that was good when it came.
fn assert_only_good_tokens(cloud: &Cloud) {
    for request in cloud.requests() {
        let is_login = request.service == Service::Iam;
        assert!(is_login || request.token_valid, "{request:?}");
    }
}

/// Hangs up by a reset, which a server notices, where a mere end of sending may still want the
/// answer.
fn reset(stream: TcpStream) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build();
    runtime.expect("a runtime").block_on(async {
        stream.set_nonblocking(true).expect("a socket");
        let stream = tokio::net::TcpStream::from_std(stream).expect("a socket");
        let unanswered = stream
            .try_read(&mut [0])
            .expect_err("an answer that is not there");
        assert_eq!(unanswered.kind(), io::ErrorKind::WouldBlock);
        stream.set_zero_linger().expect("a socket");
    });
}

#[test]
fn two_hundred_first_calls_are_one_login_even_if_the_first_caller_hangs_up() {
    let place = Place::new().set("upstream.request_timeout", "\"20s\"");
    let gateway = place.start();
    let cloud = &place.cloud;
    let task = cloud.add_oms(OmsSpec::new("first", 5));
    delayed_login(cloud, Duration::from_secs(2));
    let mut first = TcpStream::connect(gateway.authority()).expect("a connection");
    let request = format!(
        "GET /tasks/{task} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {KEY}\r\n\r\n"
    );
    first
        .write_all(request.as_bytes())
        .expect("to send a request");
    wait_for("the login", || {
        (cloud.count(Operation::Login, None) == 1).then_some(())
    });
    let statuses: Vec<u16> = thread::scope(|scope| {
        let look = || {
            let (client, task) = (gateway.client(), &task);
            scope.spawn(move || client.get(&format!("/tasks/{task}")).status)
        };
        let others: Vec<_> = (0..199).map(|_| look()).collect();
        reset(first);
        others
            .into_iter()
            .map(|other| other.join().expect("an answer"))
            .collect()
    });
    assert_eq!(statuses, [200; 199]);
    assert_eq!(cloud.count(Operation::Login, None), 1);
    assert_eq!(cloud.tokens_issued(), 1);
    assert_only_good_tokens(cloud);
}

#[test]
fn a_service_of_another_region_causes_one_login_and_says_what_to_look_at() {
    let place = Place::new();
    let gateway = place.start();
    let cloud = &place.cloud;
    let (client, oms) = (gateway.client(), cloud.add_oms(OmsSpec::new("right", 5)));
    let sms = cloud.add_sms(SmsSpec::new("wrong", "SUCCESS"));
    let refused = |id: &str| {
        let answer = client.get(&format!("/tasks/{id}"));
        assert_eq!(answer.problem(), "credentials-refused", "{answer:?}");
        assert!(answer.text.contains("another region"), "{answer:?}");
    };
    let elsewhere =
        |service| cloud.fault(Fault::on_any(service, FaultKind::token_refused()).always());
    // One service of two: the other one goes on.
    let fault = elsewhere(Service::Sms);
    wait_for("the service to be tried again", || {
        refused(&sms);
        assert_eq!(client.get(&format!("/tasks/{oms}")).status, 200);
        (fault.fired() >= 4).then_some(())
    });
    assert_eq!(cloud.count(Operation::Login, None), 2);
    fault.cancel();

    // Both, and nothing ever worked.
    let place = Place::new();
    let gateway = place.start();
    let cloud = &place.cloud;
    let (client, oms) = (gateway.client(), cloud.add_oms(OmsSpec::new("wrong", 5)));
    let sms = cloud.add_sms(SmsSpec::new("wrong", "SUCCESS"));
    let faults = [Service::Oms, Service::Sms]
        .map(|service| cloud.fault(Fault::on_any(service, FaultKind::token_refused()).always()));
    wait_for("both services to be tried again", || {
        for id in [&oms, &sms] {
            let answer = client.get(&format!("/tasks/{id}"));
            assert_eq!(answer.problem(), "credentials-refused", "{answer:?}");
        }
        faults.iter().all(|fault| fault.fired() >= 3).then_some(())
    });
    assert_eq!(cloud.count(Operation::Login, None), 2);
}

#[test]
fn tokens_revoked_twice_in_a_row_end_no_operation_and_cost_two_logins() {
    // A turn comes so late that the second token can be revoked before its first use.
    let place = Place::new()
        .set("upstream.requests_per_second", "2")
        .set("upstream.burst", "1");
    let gateway = place.start();
    let (cloud, client) = (&place.cloud, gateway.client());
    let tasks = ["a", "b", "c"].map(|name| cloud.add_oms(OmsSpec::new(name, 2)));
    let read = cloud.add_oms(OmsSpec::new("read", 5));
    assert_eq!(client.get(&format!("/tasks/{read}")).status, 200);
    let operations = tasks.map(|task| client.force_delete(&task));
    cloud.revoke_tokens();
    wait_for("the second token", || {
        (cloud.tokens_issued() == 2).then_some(())
    });
    cloud.revoke_tokens();
    for operation in &operations {
        let ended = client.ended(operation);
        assert_eq!(ended["outcome"], "deleted", "{ended}");
    }
    assert_eq!(client.get(&format!("/tasks/{read}")).status, 200);
    assert_eq!(cloud.count(Operation::Login, None), 3);
    let requests = cloud.requests();
    let dead = requests
        .iter()
        .filter(|request| request.service == Service::Oms && !request.token_valid);
    assert_eq!(dead.count(), 2, "each is sent once after its end");
}

#[test]
fn a_service_that_refuses_fresh_tokens_is_told_of_once_and_every_refusal_counts() {
    let place = Place::new().set("upstream.freshness", "\"0s\"");
    let gateway = place.start();
    let (cloud, client) = (&place.cloud, gateway.client());
    let oms = cloud.add_oms(OmsSpec::new("refused", 5));
    let look = || client.get(&format!("/tasks/{oms}")).status;
    assert_eq!(look(), 200);
    let fault = Fault::on_any(Service::Oms, FaultKind::token_refused());
    let fault = cloud.fault(fault.always());
    wait_for("some refusals", || {
        look();
        (fault.fired() >= 4).then_some(())
    });
    fault.cancel();
    let metrics = gateway.stranger().get("/metrics").text;
    let name = "migration_gateway_upstream_tokens_refused_total{service=\"oms\"}";
    assert!(
        metrics.contains(&format!("{name} {}\n", fault.fired())),
        "{metrics}"
    );
    wait_for("the service to be used again", || {
        (look() == 200).then_some(())
    });
    let log = gateway.log();
    for message in [
        "the service refuses the gateway's credentials, fresh ones too: it is left alone for a while",
        "the service accepts the gateway's credentials again",
    ] {
        assert_eq!(log.matches(message).count(), 1, "{message}: {log}");
    }
}

#[test]
fn a_refusal_in_the_service_s_own_words_causes_no_login() {
    // Every request is to ask the cloud.
    let place = Place::new().set("upstream.freshness", "\"0s\"");
    let gateway = place.start();
    let (cloud, client) = (&place.cloud, gateway.client());
    let sms = cloud.add_sms(SmsSpec::new("web", "RUNNING"));
    assert_eq!(client.get(&format!("/tasks/{sms}")).status, 200);
    for number in 2000..=2014 {
        let code = format!("SMS.{number}");
        let kind = FaultKind::error(401, &code, "The request is wrong.");
        let fault = cloud.fault(Fault::on_any(Service::Sms, kind).always());
        let answer = client.get(&format!("/tasks/{sms}"));
        fault.cancel();
        // It is asked again if it came over a connection that was used before.
        assert!((1..=2).contains(&fault.fired()), "{code}");
        assert!((400..600).contains(&answer.status), "{code}: {answer:?}");
        assert_ne!(
            answer.problem(),
            "credentials-refused",
            "{code}: {answer:?}"
        );
    }
    assert_eq!(client.get(&format!("/tasks/{sms}")).status, 200);
    assert_eq!(cloud.count(Operation::Login, None), 1);
}

#[test]
fn nobody_waits_longer_than_the_limit_for_a_token_service_that_does_not_answer() {
    let place = Place::new().set("upstream.request_timeout", "\"500ms\"");
    let gateway = place.start();
    let cloud = &place.cloud;
    let task = cloud.add_oms(OmsSpec::new("late", 5));
    let fault = cloud.fault(Fault::on(Service::Iam, Operation::Login, FaultKind::Hang));
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..20 {
            let (client, task) = (gateway.client(), &task);
            scope.spawn(move || {
                let answer = client.get(&format!("/tasks/{task}"));
                assert_eq!(answer.problem(), "upstream-timeout", "{answer:?}");
                assert_eq!((answer.status, &answer.json()["sent"]), (504, &"no".into()));
            });
        }
    });
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!((fault.fired(), cloud.count(Operation::Login, None)), (1, 1));
    wait_for("the next login", || {
        (gateway.client().get(&format!("/tasks/{task}")).status == 200).then_some(())
    });
    assert_eq!(cloud.count(Operation::Login, None), 2);
}

#[test]
fn short_lived_tokens_are_replaced_before_they_end() {
    let place = Place::new();
    let cloud = &place.cloud;
    cloud.set_token_lifetime(Duration::from_secs(4));
    let gateway = place.start();
    let (client, task) = (gateway.client(), cloud.add_oms(OmsSpec::new("brief", 5)));
    wait_for("the third login", || {
        assert_eq!(client.get(&format!("/tasks/{task}")).status, 200);
        (cloud.count(Operation::Login, None) >= 3).then_some(())
    });
    assert_only_good_tokens(cloud);
}

#[test]
fn a_process_that_was_suspended_does_not_use_the_token_that_ended_meanwhile() {
    let place = Place::new();
    let cloud = &place.cloud;
    let lifetime = Duration::from_secs(2);
    cloud.set_token_lifetime(lifetime);
    let gateway = place.start();
    let (client, task) = (gateway.client(), cloud.add_oms(OmsSpec::new("asleep", 5)));
    let look = || client.get(&format!("/tasks/{task}"));
    assert_eq!(look().status, 200);
    gateway.signal("STOP");
    let begun = Instant::now();
    wait_for("the token to end", || {
        (begun.elapsed() > lifetime).then_some(())
    });
    gateway.signal("CONT");
    assert_eq!(look().status, 200);
    assert_eq!(cloud.count(Operation::Login, None), 2);

    // Suspended while it logs in: what the login brought is over before anybody can use it.
    let place = Place::new().set("upstream.request_timeout", "\"30s\"");
    let cloud = &place.cloud;
    cloud.set_token_lifetime(lifetime);
    let task = cloud.add_oms(OmsSpec::new("asleep", 5));
    let gateway = place.start();
    delayed_login(cloud, Duration::from_secs(1));
    thread::scope(|scope| {
        let first = scope.spawn(|| gateway.client().get(&format!("/tasks/{task}")));
        wait_for("the login", || {
            (cloud.count(Operation::Login, None) == 1).then_some(())
        });
        gateway.signal("STOP");
        let begun = Instant::now();
        let over = lifetime + Duration::from_millis(300);
        wait_for("the token to end", || {
            (begun.elapsed() > over).then_some(())
        });
        gateway.signal("CONT");
        let answer = first.join().expect("an answer");
        assert_eq!(answer.problem(), "upstream-unavailable", "{answer:?}");
    });
    wait_for("the next login", || {
        (gateway.client().get(&format!("/tasks/{task}")).status == 200).then_some(())
    });
    assert_only_good_tokens(cloud);
}
