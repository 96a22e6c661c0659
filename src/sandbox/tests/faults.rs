//! Faults, as the bytes on the wire show them.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use super::{Setup, exchange, parse, read_all, send, until};
use crate::sandbox::{Answer, Fault, FaultKind, OmsSpec, Operation, Service};

/// A cloud, a paused task of OMS, and the line that deletes it.
fn paused() -> (Setup, String, String) {
    let setup = Setup::new(|_| {});
    let id = setup.cloud.add_oms(OmsSpec::new("media-src", 3));
    let project = setup.cloud.account().project_id;
    let line = format!("DELETE /v2/{project}/tasks/{id}");
    (setup, id, line)
}

fn on_delete(kind: FaultKind) -> Fault {
    Fault::on(Service::Oms, Operation::Delete, kind)
}

fn connect(setup: &Setup, line: &str) -> TcpStream {
    send(&setup.cloud.oms_url(), line, &setup.headers(), "")
}

#[test]
fn a_connection_can_end_without_a_byte_before_or_after_the_effect() {
    for (kind, survives) in [
        (FaultKind::DropBeforeEffect, true),
        (FaultKind::DropAfterEffect, false),
    ] {
        let (setup, id, line) = paused();
        let fault = setup.cloud.fault(on_delete(kind));
        assert_eq!(read_all(connect(&setup, &line)), "");
        assert_eq!(setup.cloud.oms_status(&id).is_some(), survives);
        assert_eq!(fault.fired(), 1);
        assert_eq!(setup.cloud.requests()[0].status, None);
        // The next request is answered again.
        let wanted = if survives { 200 } else { 400 };
        assert_eq!(setup.oms("DELETE", &format!("/{id}"), "").status, wanted);
    }
}

#[test]
fn a_kept_connection_can_end_at_its_second_request() {
    let (setup, id, _) = paused();
    let kind = FaultKind::DropBeforeEffect;
    setup
        .cloud
        .fault(Fault::on(Service::Oms, Operation::Show, kind).skip(1));
    let address = setup.cloud.oms_url().replace("http://", "");
    let project = setup.cloud.account().project_id;
    let request = format!(
        "GET /v2/{project}/tasks/{id} HTTP/1.1\r\nhost: {address}\r\n{}\r\n",
        setup.headers(),
    );
    let mut stream = TcpStream::connect(&address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    let is_whole = |text: &str| {
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
        body.is_some_and(|body| serde_json::from_str::<serde_json::Value>(body).is_ok())
    };
    while !is_whole(&text) {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "{text}");
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    assert!(text.starts_with("HTTP/1.1 200"));
    stream.write_all(request.as_bytes()).unwrap();
    assert_eq!(read_all(stream), "");
    assert_eq!(setup.cloud.count(Operation::Show, Some(&id)), 2);
}

#[test]
fn a_body_can_be_cut_after_the_effect() {
    let (setup, id, line) = paused();
    setup.cloud.fault(on_delete(FaultKind::CutBody));
    let reply = parse(&read_all(connect(&setup, &line)));
    assert_eq!((reply.status, reply.body.as_str()), (200, "{"));
    assert_eq!(reply.header("content-length"), Some("64"));
    assert_eq!(setup.cloud.oms_status(&id), None);
    let kind = FaultKind::CutBody;
    setup
        .cloud
        .fault(Fault::on(Service::Oms, Operation::List, kind));
    setup.cloud.seed();
    let reply = setup.oms("GET", "?limit=100", "");
    let length: usize = reply.header("content-length").unwrap().parse().unwrap();
    assert!(reply.body.len() > 1000 && reply.body.len() < length);
    assert_eq!(setup.cloud.requests()[1].status, Some(200));
}

#[test]
fn a_body_can_be_no_json() {
    let (setup, id, line) = paused();
    setup.cloud.fault(on_delete(FaultKind::GarbledBody));
    let reply = parse(&read_all(connect(&setup, &line)));
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert!(serde_json::from_str::<serde_json::Value>(&reply.body).is_err());
    assert_eq!(setup.cloud.oms_status(&id), None);
}

#[test]
fn answers_come_instead_of_the_effect_or_after_it() {
    let (setup, id, line) = paused();
    let busy = Answer::error(503, "OMS.2004", "Busy.").header("Retry-After", "3");
    setup
        .cloud
        .fault(on_delete(FaultKind::Answer(busy.clone())));
    let reply = parse(&read_all(connect(&setup, &line)));
    assert_eq!(
        (reply.status, reply.header("retry-after")),
        (503, Some("3"))
    );
    setup
        .cloud
        .fault(on_delete(FaultKind::HtmlPage { status: 502 }));
    let reply = parse(&read_all(connect(&setup, &line)));
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (502, Some("text/html"))
    );
    setup.cloud.fault(on_delete(FaultKind::Redirect {
        status: 307,
        location: "http://192.0.2.1/".to_owned(),
    }));
    let reply = parse(&read_all(connect(&setup, &line)));
    assert_eq!(reply.header("location"), Some("http://192.0.2.1/"));
    assert_eq!(setup.cloud.oms_status(&id), Some(3));
    setup
        .cloud
        .fault(on_delete(FaultKind::AnswerAfterEffect(busy)));
    assert_eq!(parse(&read_all(connect(&setup, &line))).status, 503);
    assert_eq!(setup.cloud.oms_status(&id), None);
}

#[test]
fn a_hanging_request_ends_with_the_client_or_with_the_cloud() {
    let (setup, id, line) = paused();
    let fault = setup.cloud.fault(on_delete(FaultKind::Hang).times(2));
    let gives_up = connect(&setup, &line);
    until("the first request", || fault.fired() == 1);
    drop(gives_up);
    let mut waits = connect(&setup, &line);
    until("the second request", || fault.fired() == 2);
    waits
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let error = waits.read(&mut [0]).unwrap_err();
    assert!(matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut
    ));
    assert_eq!(setup.cloud.oms_status(&id), Some(3));
    let start = Instant::now();
    setup.cloud.stop();
    assert!(start.elapsed() < Duration::from_secs(5));
    waits
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    assert!(!matches!(waits.read(&mut [0]), Ok(1..)));
}

#[test]
fn an_effect_can_come_although_nothing_was_answered() {
    let (setup, id, line) = paused();
    setup.cloud.fault(on_delete(FaultKind::HangAfterEffect));
    let waits = connect(&setup, &line);
    until("deleted", || setup.cloud.oms_status(&id).is_none());
    drop(waits);
    let id = setup.cloud.add_oms(OmsSpec::new("second", 3));
    let line = line.rsplit_once('/').unwrap().0.to_owned() + "/" + &id;
    let late = Duration::from_millis(50);
    let fault = setup.cloud.fault(on_delete(FaultKind::DelayEffect(late)));
    let gives_up = connect(&setup, &line);
    until("arrived", || fault.fired() == 1);
    drop(gives_up);
    until("deleted", || setup.cloud.oms_status(&id).is_none());
}

#[test]
fn a_delay_keeps_the_answer_back() {
    let (setup, id, line) = paused();
    let time = Duration::from_millis(80);
    setup.cloud.fault(on_delete(FaultKind::Delay(time)));
    let start = Instant::now();
    let stream = connect(&setup, &line);
    until("deleted", || setup.cloud.oms_status(&id).is_none());
    assert_eq!(parse(&read_all(stream)).status, 200);
    assert!(start.elapsed() >= time);
}

#[test]
fn bytes_can_come_before_an_answer_or_instead_of_one() {
    let (setup, id, line) = paused();
    let early = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".to_vec();
    setup.cloud.fault(on_delete(FaultKind::Prefix(early)));
    let text = read_all(connect(&setup, &line));
    let (first, rest) = text.split_once("\r\n\r\n").unwrap();
    assert!(first.starts_with("HTTP/1.1 103"));
    assert_eq!(parse(rest).status, 200);
    assert_eq!(setup.cloud.oms_status(&id), None);
    let any = Fault::on_any(Service::Oms, FaultKind::Raw(b"what".to_vec()));
    setup.cloud.fault(any);
    assert_eq!(read_all(connect(&setup, &line)), "what");
}

#[test]
fn faults_meet_the_requests_they_are_for_and_no_others() {
    let (setup, id, _) = paused();
    let cloud = &setup.cloud;
    let other = cloud.add_oms(OmsSpec::new("other", 3));
    let show = |id: &str| setup.oms("GET", &format!("/{id}"), "").status;
    let fault = cloud.fault(
        Fault::on(Service::Oms, Operation::Show, FaultKind::throttled())
            .task(&id)
            .skip(1)
            .times(2),
    );
    assert_eq!(show(&other), 200);
    let seen: Vec<u16> = (0..4).map(|_| show(&id)).collect();
    assert_eq!(seen, [200, 429, 429, 200]);
    assert_eq!(fault.fired(), 2);
    let always = cloud.fault(Fault::on_any(Service::Oms, FaultKind::token_refused()).always());
    assert_eq!(
        (show(&id), show(&other), setup.oms("GET", "", "").status),
        (401, 401, 401)
    );
    assert_eq!(setup.sms("GET", "", "").status, 200);
    always.cancel();
    assert_eq!(show(&id), 200);
    cloud.fault(Fault::on_any(Service::Oms, FaultKind::throttled()).always());
    cloud.clear_faults();
    assert_eq!(show(&id), 200);
}

#[test]
fn a_fault_can_meet_a_share_of_the_requests() {
    let (setup, id, _) = paused();
    let fault = Fault::on(Service::Oms, Operation::Show, FaultKind::throttled());
    let fault = setup.cloud.fault(fault.always().share(0.3));
    let show = || setup.oms("GET", &format!("/{id}"), "").status;
    let met = (0..200).filter(|_| show() == 429).count();
    // Outside of it once in a billion times.
    assert!((20..=100).contains(&met), "{met}");
    assert_eq!(usize::try_from(fault.fired()).unwrap(), met);
}

#[test]
fn denials_speak_the_language_of_their_service() {
    let setup = Setup::new(|_| {});
    for service in [Service::Iam, Service::Oms, Service::Sms] {
        setup
            .cloud
            .fault(Fault::on_any(service, FaultKind::denied(service)));
    }
    let sms = setup.sms("GET", "", "");
    assert_eq!((sms.status, sms.code().as_str()), (403, "SMS.9004"));
    assert_eq!(sms.json()["details"][0]["error_code"], "SMS.9004");
    assert!(sms.json()["encoded_authorization_message"].is_string());
    let oms = setup.oms("GET", "", "");
    assert_eq!((oms.status, oms.code().as_str()), (403, "OMS.0206"));
    let iam = exchange(&setup.cloud.iam_url(), "POST /v3/auth/tokens", "", "{}");
    assert_eq!(iam.json()["error"]["title"], "Forbidden");
}
