//! Bytes that two programs could read in two ways, or that are no request at all.
//!
//! Every case ends with a complete request to delete a task, in the name of a caller who may. Where
//! the bytes before it are read as they must be, it is answered on its own or never looked at;
//! nothing in it reaches the cloud otherwise.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use migration_gateway::sandbox::{Fault, FaultKind, OmsSpec, Operation, Service};

use crate::support::{
    gateway::{Gateway, KEY, Place},
    raw,
};

/// The statuses of all answers on a connection to which these bytes are sent.
fn statuses(gateway: &Gateway, bytes: &[u8]) -> Vec<u16> {
    let answers = answers(gateway, bytes).into_iter();
    answers.map(|(status, _)| status).collect()
}

/// All answers on a connection to which these bytes are sent, until the other side ends it or
/// everything that was sent is answered: the status, and the rest.
pub(crate) fn answers(gateway: &Gateway, bytes: &[u8]) -> Vec<(u16, String)> {
    let mut stream = TcpStream::connect(gateway.authority()).expect("a connection");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a time limit");
    // The other side may end the connection while this is being written.
    _ = stream.write_all(bytes);
    _ = stream.shutdown(Shutdown::Write);
    let mut answers = Vec::new();
    _ = stream.read_to_end(&mut answers);
    let text = String::from_utf8_lossy(&answers);
    text.split("HTTP/1.1 ")
        .skip(1)
        .map(|answer| {
            let (status, rest) = answer.split_at(3);
            (status.parse().expect("a status"), rest.to_owned())
        })
        .collect()
}

/// Parts that make up most of the cases.
struct Parts {
    /// A request of the same caller without a body, but for the line and what comes after the
    /// fields.
    get: String,
    /// The same with a body that is to come.
    post: String,
    /// The request at the end.
    hidden: String,
}

impl Parts {
    fn new(task: &str) -> Self {
        let fields = format!("Host: gateway\r\nAuthorization: Bearer {KEY}\r\n");
        Self {
            get: format!("GET /whoami HTTP/1.1\r\n{fields}"),
            post: format!("POST /tasks/7/pause HTTP/1.1\r\n{fields}"),
            hidden: format!("DELETE /tasks/{task} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n"),
        }
    }

    /// Ways to say how long a body is that some read and others do not.
    fn lengths(&self) -> Vec<(String, &'static [u16])> {
        let fields: [(&str, &[u16]); 22] = [
            ("Content-Length: 4\r\nTransfer-Encoding: chunked", &[400]),
            ("Transfer-Encoding: chunked\r\nContent-Length: 4", &[400]),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                &[400],
            ),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
                &[400],
            ),
            ("Transfer-Encoding: xchunked", &[400]),
            ("Transfer-Encoding: identity", &[400]),
            ("Transfer-Encoding: gzip, chunked", &[400]),
            ("Transfer-Encoding: chunked, identity", &[400]),
            ("Transfer-Encoding:\x0bchunked", &[400]),
            ("Transfer-Encoding:\r\n chunked", &[400]),
            ("Transfer-Encoding : chunked", &[400]),
            ("Transfer-Encoding\t: chunked", &[400]),
            ("Content-Length: 5\r\nContent-Length: 5", &[400]),
            ("Content-Length: 5\r\nContent-Length: 0", &[400]),
            ("Content-Length: 5, 5", &[400]),
            ("Content-Length: +5", &[400]),
            ("Content-Length: -5", &[400]),
            ("Content-Length: 0x5", &[400]),
            ("Content-Length:", &[400]),
            ("Content-Length: 5 5", &[400]),
            ("Content-Length: 99999999999999999999999", &[400]),
            ("Content-Length: 18446744073709551615", &[400]),
        ];
        let case = |(field, expected)| (format!("{}{field}\r\n\r\n0\r\n\r\n", self.post), expected);
        fields.map(case).into()
    }

    /// Bodies in chunks.
    fn chunks(&self) -> Vec<(String, &'static [u16])> {
        let bodies: [(&str, &[u16]); 14] = [
            ("0\r\n\r\n", &[404, 200]),
            ("0;name=value\r\n\r\n", &[404, 200]),
            (
                "0\r\nAuthorization: Bearer x\r\nContent-Length: 7\r\n\r\n",
                &[404, 200],
            ),
            ("0x0\r\n\r\n", &[400]),
            ("-1\r\n\r\n", &[400]),
            ("10000000000000000\r\n\r\n", &[400]),
            ("1\r\nxy\r\n0\r\n\r\n", &[400]),
            ("1;a\nx\r\n0\r\n\r\n", &[400]),
            ("0\n\n", &[400]),
            // Here an LF alone is no end of a line, and no part of one.
            ("0\r\n\n", &[400]),
            ("0\r\nX: y\n\r\n", &[400]),
            ("0\r\nX: y\r\n\n", &[400]),
            ("0\r\nX: y\r\r\n\r\n", &[400]),
            ("1\r\nx\n0\r\n\r\n", &[400]),
        ];
        let case = |(body, expected)| {
            let head = format!("{}Transfer-Encoding: chunked\r\n\r\n", self.post);
            (head + body, expected)
        };
        bodies.map(case).into()
    }

    /// Heads that are not well formed, or are for somebody else.
    fn heads(&self) -> Vec<(String, &'static [u16])> {
        let get = &self.get;
        let line = |text: &str| get.replacen("GET /whoami HTTP/1.1", text, 1) + "\r\n";
        let with = |field: &str| format!("{get}{field}\r\n\r\n");
        let to = |host: &str| get.replacen("Host: gateway", host, 1) + "\r\n";
        vec![
            (with("X: a\0b"), &[400]),
            (with("X\0: b"), &[400]),
            (with("X: a\r\n b"), &[400]),
            (with("(X): b"), &[400]),
            (with(": b"), &[400]),
            (with("nonsense"), &[400]),
            (with("X: a\rY: b"), &[400]),
            // A line may end without its CR (RFC 9112, section 2.2).
            (with("X: a\nY: b"), &[200, 200]),
            (to(" Host: gateway"), &[400]),
            (to("Host: gateway\r\nHost: gateway"), &[400]),
            (to("Host: gateway\r\nHost: elsewhere"), &[400]),
            (to("X: y"), &[400]),
            (to("Host: a b"), &[400, 200]),
            (to("Host: user@gateway"), &[400, 200]),
            (to("Host: gateway/path"), &[400, 200]),
            (to("Host:"), &[200, 200]),
            (line("GET http://gateway/whoami HTTP/1.1"), &[200, 200]),
            (line("GET http://elsewhere/whoami HTTP/1.1"), &[400, 200]),
            (line("GET http://gateway:81/whoami HTTP/1.1"), &[400, 200]),
            (line("GET http://user@gateway/whoami HTTP/1.1"), &[400, 200]),
            (line("GET elsewhere:80 HTTP/1.1"), &[400, 200]),
            (line("CONNECT elsewhere:443 HTTP/1.1"), &[400]),
            (line("CONNECT /whoami HTTP/1.1"), &[405]),
            (line("TRACE /whoami HTTP/1.1"), &[405, 200]),
            (line("OPTIONS * HTTP/1.1"), &[404, 200]),
            (line("GET ftp://gateway/whoami HTTP/1.1"), &[400, 200]),
            // What stands in front may have ended TLS.
            (line("GET https://gateway/whoami HTTP/1.1"), &[200, 200]),
            (line("get /whoami HTTP/1.1"), &[405, 200]),
            (line("GET  /whoami HTTP/1.1"), &[400]),
            (line("GET\t/whoami HTTP/1.1"), &[400]),
            (line("GET /whoami HTTP/1.1 x"), &[400]),
            (line("GET /whoami HTTP/1.2"), &[400]),
            (line("GET /who\0ami HTTP/1.1"), &[400]),
            (line("PRI * HTTP/2.0"), &[400]),
        ]
    }

    /// Offers and orders that are refused or ignored, and never change what is asked for.
    fn offers(&self) -> Vec<(String, &'static [u16])> {
        let (get, hidden) = (&self.get, &self.hidden);
        let h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
                   HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n";
        let inside = |head: &str| format!("{head}Content-Length: {}\r\n\r\n{hidden}", hidden.len());
        let post_to = |path: &str| self.post.replacen("/tasks/7/pause", path, 1);
        vec![
            // Nothing becomes of the offer, and the connection ends.
            (format!("{get}{h2c}\r\n"), &[200]),
            (inside(&format!("{}{h2c}", self.post)), &[400]),
            // A body that nobody wants is not read, and the connection ends.
            (inside(&self.post), &[400]),
            (inside(get), &[200]),
            (
                format!("{get}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
                &[400],
            ),
            (
                format!(
                    "{}X-HTTP-Method-Override: DELETE\r\nX-HTTP-Method: DELETE\r\nX-Method-Override: DELETE\r\n\r\n",
                    post_to("/whoami")
                ),
                &[405, 200],
            ),
            (
                format!("{}\r\n", post_to("/whoami?_method=DELETE")),
                &[405, 200],
            ),
            (
                format!(
                    "{get}X-Original-URL: /tasks\r\nX-Rewrite-URL: /tasks\r\nForwarded: host=x\r\nX-Forwarded-Prefix: /x\r\n\r\n"
                ),
                &[200, 200],
            ),
            // What is too large is refused before it comes, and what comes after it is not looked
            // at.
            (
                format!(
                    "{}Content-Length: 10737418240\r\n\r\n",
                    post_to("/tasks/7/start")
                ),
                &[413],
            ),
        ]
    }
}

#[test]
fn a_request_is_read_in_one_way_or_not_at_all() {
    let place = Place::new();
    let gateway = place.start();
    let task = place.cloud.add_oms(OmsSpec::new("logs", 2));
    let parts = Parts::new(&task);
    // It runs, so that the request at the end is refused where it is read as one.
    for (bytes, expected) in [
        parts.lengths(),
        parts.chunks(),
        parts.heads(),
        parts.offers(),
    ]
    .concat()
    {
        let expected: Vec<u16> = expected
            .iter()
            .enumerate()
            .map(|(position, status)| if position == 1 { 409 } else { *status })
            .collect();
        let seen = statuses(&gateway, format!("{bytes}{}", parts.hidden).as_bytes());
        assert_eq!(seen, expected, "{bytes:?}");
    }
    for operation in [Operation::Pause, Operation::Delete, Operation::Start] {
        assert_eq!(place.cloud.count(operation, None), 0);
    }
}

#[test]
fn a_body_that_breaks_a_rule_is_refused_at_once_whoever_wants_it() {
    let place = Place::new();
    let gateway = place.start();
    let task = place.cloud.add_oms(OmsSpec::new("logs", 5));
    // Whoever asks the cloud would wait for long.
    let _slow = place
        .cloud
        .fault(Fault::on_any(Service::Oms, FaultKind::Hang));
    let began = Instant::now();
    for (line, expected) in [
        (format!("POST /tasks/{task}/pause"), 400),
        (format!("POST /tasks/{task}/start"), 400),
        (format!("DELETE /tasks/{task}"), 400),
        (format!("GET /tasks/{task}"), 400),
        (format!("HEAD /tasks/{task}"), 400),
        ("GET /tasks".to_owned(), 400),
        // What does not wait for anything is answered before the body is looked at.
        ("GET /livez".to_owned(), 200),
    ] {
        for body in ["zz\r\n", "0\r\nX: y\n\r\n", "0\r\n\n", "1\r\nxy\r\n"] {
            let head = format!(
                "{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\
                 Transfer-Encoding: chunked\r\n\r\n"
            );
            let mut stream = raw::connect(gateway.authority());
            let hidden = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
            stream
                .write_all(format!("{head}{body}{hidden}").as_bytes())
                .expect("to send");
            let mut read = Vec::new();
            // A reset is an end too: not everything that was sent may have been read.
            _ = stream.read_to_end(&mut read);
            let text = String::from_utf8_lossy(&read);
            assert!(
                text.starts_with(&format!("HTTP/1.1 {expected} ")),
                "{line} {body:?}: {text}"
            );
            assert_eq!(
                text.matches("HTTP/1.1").count(),
                1,
                "{line} {body:?}: {text}"
            );
            if expected == 400 {
                assert!(
                    text.contains("connection: close\r\n"),
                    "{line} {body:?}: {text}"
                );
                assert!(text.contains("application/problem+json"), "{line}: {text}");
                assert!(text.contains("ratelimit: "), "{line}: {text}");
                assert!(text.contains("ratelimit-policy: "), "{line}: {text}");
                let has_document = text.contains("/problems/invalid-request");
                assert_eq!(has_document, !line.starts_with("HEAD"), "{line}: {text}");
            }
        }
    }
    // Nobody waited for the end of a body or of a connection, nor for the cloud.
    assert!(began.elapsed() < Duration::from_secs(5));
    for operation in [Operation::Pause, Operation::Delete, Operation::Start] {
        assert_eq!(place.cloud.count(operation, None), 0);
    }
    assert!(!gateway.log().contains("broken off"), "{}", gateway.log());
}

#[test]
fn a_target_with_a_fragment_is_refused_and_ends_the_connection() {
    let place = Place::new();
    let gateway = place.start();
    let task = place.cloud.add_oms(OmsSpec::new("logs", 5));
    let parts = Parts::new(&task);
    let line = |text: &str| parts.get.replacen("GET /whoami HTTP/1.1", text, 1) + "\r\n";
    let start = parts.post.replacen("/pause", "/start", 1);
    let target = format!("/tasks/{task}");
    for bytes in [
        line(&format!("DELETE {target}#?dry_run=true HTTP/1.1")),
        line(&format!(
            "DELETE http://gateway{target}#?dry_run=true HTTP/1.1"
        )),
        line(&format!("DELETE {target}?dry_run=false#true HTTP/1.1")),
        line("GET /whoami# HTTP/1.1"),
        line("GET /livez#x HTTP/1.1").replace("\r\n", "\n"),
        line("GET # HTTP/1.1"),
        // A body ends without the end of a line.
        format!(
            "{start}Content-Length: 2\r\n\r\n{{}}{}",
            line(&format!("DELETE {target}# HTTP/1.1"))
        ),
    ] {
        let seen = statuses(&gateway, format!("{bytes}{}", parts.hidden).as_bytes());
        // What was read together with it is not believed either.
        assert!(
            !seen.is_empty() && seen.iter().all(|status| *status == 400),
            "{seen:?} {bytes:?}"
        );
    }
    // In parts, as a network may bring it.
    let mut stream = TcpStream::connect(gateway.authority()).expect("a connection");
    for part in [
        "DELETE ",
        &target,
        "#",
        "?dry_run=true HTTP/1",
        ".1\r\nHost: x\r\n\r\n",
    ] {
        stream.write_all(part.as_bytes()).expect("to send");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let mut answer = String::new();
    _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("/problems/invalid-request"), "{answer}");
    assert_eq!(place.cloud.count(Operation::Delete, None), 0);
    // Elsewhere the character is one like others.
    for fields in ["Referer: http://x/#y", "X: a#b HTTP/1.0 c", "#: HTTP/1.1"] {
        let bytes = format!("{}{fields}\r\n\r\n", parts.get);
        assert_eq!(statuses(&gateway, bytes.as_bytes()), [200], "{fields}");
    }
}

#[test]
fn what_a_stranger_sends_after_a_refusal_is_not_taken_for_a_request() {
    let place = Place::new();
    let gateway = place.start();
    let task = place.cloud.add_oms(OmsSpec::new("logs", 5));
    let hidden = Parts::new(&task).hidden;
    let length = hidden.len();
    for head in [
        format!("POST /tasks/{task}/start HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"),
        format!(
            "POST /tasks/{task}/start HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n"
        ),
    ] {
        let seen = statuses(&gateway, format!("{head}{hidden}").as_bytes());
        assert_eq!(seen, [401], "{head:?}");
    }
    assert!(place.cloud.requests().is_empty());
}

/// What came as answers to requests with these methods: the line of each, and its body.
fn read_answers<'a>(methods: &[&str], mut bytes: &'a [u8]) -> Vec<(&'a str, &'a [u8])> {
    let mut found = Vec::new();
    for method in methods {
        let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else {
            break;
        };
        let head = std::str::from_utf8(&bytes[..end]).expect("text");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.expect("a length").parse().expect("a number");
        let length = if *method == "HEAD" { 0 } else { length };
        let body;
        (body, bytes) = bytes[end + 4..].split_at(length);
        found.push((head.lines().next().expect("a line"), body));
    }
    assert!(bytes.is_empty(), "{:?}", String::from_utf8_lossy(bytes));
    found
}

#[test]
fn requests_that_follow_closely_are_answered_one_by_one_as_what_they_are() {
    let place = Place::new();
    let gateway = place.start();
    let (large, small) = (40_000, b"{\"status\":\"ok\"".as_slice());
    let fields = format!("Host: x\r\nAuthorization: Bearer {KEY}\r\n");
    let head = |line: &str, more: &str| format!("{line}\r\n{fields}{more}\r\n");
    let chunks = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
    let (get, look) = ("GET /readyz HTTP/1.1", "HEAD /readyz HTTP/1.1");
    let requests = [
        ("GET", head(get, ""), "HTTP/1.1 200"),
        ("HEAD", head(look, ""), "HTTP/1.1 200"),
        (
            "GET",
            head("GET /openapi.json HTTP/1.1", ""),
            "HTTP/1.1 200",
        ),
        (
            "HEAD",
            head("HEAD /openapi.json HTTP/1.1", ""),
            "HTTP/1.1 200",
        ),
        (
            "POST",
            head("POST /tasks/1/start HTTP/1.1", chunks)
                + "1;a\r\n[\r\n1\r\n]\r\n0\r\nA: b\r\n\r\n",
            "HTTP/1.1 400",
        ),
        ("HEAD", head(look, ""), "HTTP/1.1 200"),
        (
            "GET",
            head("GET /readyz HTTP/1.0", "Connection: keep-alive\r\n"),
            "HTTP/1.0 200",
        ),
        ("HEAD", head(look, ""), "HTTP/1.1 200"),
        ("GET", head(get, "Connection: close\r\n"), "HTTP/1.1 200"),
    ];
    let bytes: String = requests.iter().map(|(_, text, _)| text.as_str()).collect();
    // What follows the one that ends the connection is not answered.
    let bytes = bytes + &head(look, "");
    let methods: Vec<&str> = requests.iter().map(|(method, ..)| *method).collect();
    for size in [1_000_000, 7] {
        let mut stream = TcpStream::connect(gateway.authority()).expect("a connection");
        let mut sending = stream.try_clone().expect("a connection");
        let bytes = bytes.clone();
        let sending = std::thread::spawn(move || {
            for part in bytes.as_bytes().chunks(size) {
                // The other side ends the connection before the last of it.
                if sending.write_all(part).is_err() {
                    return;
                }
            }
        });
        let mut read = Vec::new();
        _ = stream.read_to_end(&mut read);
        sending.join().expect("a sender");
        let answers = read_answers(&methods, &read);
        assert_eq!(answers.len(), requests.len());
        for ((method, text, line), (found, body)) in requests.iter().zip(answers) {
            assert!(found.starts_with(line), "{text:?}: {found}");
            let is_large = text.contains("openapi");
            match *method {
                "HEAD" => assert!(body.is_empty()),
                _ if is_large => assert!(body.len() > large, "{}", body.len()),
                "GET" => assert!(body.starts_with(small)),
                _ => assert!(body.starts_with(b"{\"type\":")),
            }
        }
    }
}

#[test]
fn who_asks_for_much_and_does_not_read_it_costs_little() {
    const CONNECTIONS: u64 = 100;
    const REQUESTS: usize = 4;
    let place = Place::new();
    let gateway = place.start();
    let ask = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n";
    let length = gateway
        .stranger()
        .get("/docs/swagger-ui-bundle.js")
        .text
        .len() as u64;
    let before = gateway.resident_kib();
    let streams: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| {
            let mut stream = TcpStream::connect(gateway.authority()).expect("a connection");
            stream
                .write_all(ask.repeat(REQUESTS).as_bytes())
                .expect("to send");
            stream
        })
        .collect();
    // Each has been given something.
    for stream in &streams {
        let patience = Some(Duration::from_secs(20));
        stream.set_read_timeout(patience).expect("a time limit");
        assert_eq!(stream.peek(&mut [0]).expect("an answer"), 1);
    }
    let held = gateway.resident_kib().saturating_sub(before);
    let answers = CONNECTIONS * length / 1024;
    assert!(held < answers / 5, "{held} KiB for {answers} KiB");
    assert_eq!(gateway.stranger().get("/livez").status, 200);
    // Who reads gets all of it.
    let mut stream = streams.into_iter().next().expect("a connection");
    stream.shutdown(Shutdown::Write).expect("to end");
    let mut read = Vec::new();
    stream.read_to_end(&mut read).expect("the answers");
    let answers = read_answers(&["GET"; REQUESTS], &read);
    assert_eq!(answers.len(), REQUESTS);
    assert!(answers.iter().all(|(_, body)| body.len() as u64 == length));
}

#[test]
fn a_head_that_is_too_large_is_refused_before_it_is_kept_and_ends_the_connection() {
    const CONNECTIONS: u64 = 300;
    let place = Place::new();
    let gateway = place.start();
    let whole = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    let part = format!("{whole}GET /livez HTTP/1.1\r\nHost: x\r\nX: ");
    let much = "a".repeat(120_000);
    for (bytes, expected) in [
        (format!("{part}{much}"), vec![200, 431]),
        (format!("{part}{much}\r\n\r\n{whole}"), vec![200, 431]),
        (format!("{whole}{whole}GET /{much}"), vec![200, 200, 431]),
        ("\r\n".repeat(60_000), vec![431]),
    ] {
        let answers = answers(&gateway, bytes.as_bytes());
        let seen: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
        assert_eq!(seen, expected, "{answers:?}");
        let (_, last) = answers.last().expect("an answer");
        assert!(last.contains("connection: close\r\n"), "{last}");
        assert!(last.contains("content-length: 0\r\n"), "{last}");
        assert!(last.contains("\r\ndate: "), "{last}");
    }
    let before = gateway.resident_kib();
    let streams: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| {
            let mut stream = TcpStream::connect(gateway.authority()).expect("a connection");
            let patience = Some(Duration::from_secs(20));
            stream.set_read_timeout(patience).expect("a time limit");
            // The other side may end the connection while this is being written.
            _ = stream.write_all(format!("{part}{much}").as_bytes());
            stream
        })
        .collect();
    let held = gateway.resident_kib().saturating_sub(before);
    assert!(held < CONNECTIONS * 50, "{held} KiB");
    drop(streams);
    // Whoever goes on to send is heard out for a moment, so that no reset overtakes the answer.
    let is_heard_out = (0..20).any(|_| {
        let mut stream = raw::connect(gateway.authority());
        let sent = stream.write_all(format!("{part}{}", &much[..50_000]).as_bytes());
        sent.expect("to send");
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers).expect("no reset");
        let text = String::from_utf8_lossy(&answers);
        assert!(text.contains("HTTP/1.1 431 "), "{text}");
        std::thread::park_timeout(Duration::from_millis(50));
        stream.write_all(b"a").is_ok()
    });
    assert!(is_heard_out);
}

#[test]
fn a_body_that_comes_after_the_answer_is_not_kept_and_ends_the_connection() {
    const CONNECTIONS: u64 = 300;
    let place = Place::new();
    let gateway = place.start();
    let known = format!("Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n");
    let much = "z".repeat(300_000);
    let chunk = format!("Transfer-Encoding: chunked\r\n\r\n280000000\r\n{much}");
    let length = format!("Content-Length: 10737418240\r\n\r\n{much}");
    let small = "Transfer-Encoding: chunked\r\n\r\n".to_owned() + &"1\r\nz\r\n".repeat(50_000);
    let trailer = format!("Transfer-Encoding: chunked\r\n\r\n0\r\nA: {much}");
    let (delete, look) = ("DELETE /tasks/1", "GET /livez");
    for (line, fields, body, expected) in [
        (delete, "", &chunk, 401),
        (delete, "", &length, 401),
        (delete, "", &small, 401),
        (delete, "", &trailer, 401),
        (look, "", &chunk, 200),
        (look, "", &length, 200),
        (delete, known.as_str(), &chunk, 400),
        ("POST /tasks/1/start", &known, &chunk, 413),
        ("POST /tasks/1/start", &known, &length, 413),
    ] {
        let head = format!("{line} HTTP/1.1\r\nHost: x\r\n{fields}");
        let before = gateway.resident_kib();
        let streams: Vec<TcpStream> = (0..CONNECTIONS)
            .map(|_| {
                let mut stream = raw::connect(gateway.authority());
                // The other side may end the connection while this is being written.
                _ = stream.write_all(format!("{head}{body}").as_bytes());
                stream
            })
            .collect();
        let resident = gateway.resident_kib().saturating_sub(before);
        // Of a known caller 64 KiB may have come before a body is too large.
        let most = if expected == 413 { 50 + 64 } else { 50 };
        assert!(
            resident < CONNECTIONS * most,
            "{line} {expected}: {resident} KiB"
        );
        drop(streams);
        // Of one that sends less, more than a body may have and not more than is heard out in any
        // case: no reset takes the answer along.
        let mut stream = raw::connect(gateway.authority());
        _ = stream.write_all(format!("{head}{}", &body[..70_000]).as_bytes());
        let mut answers = Vec::new();
        _ = stream.read_to_end(&mut answers);
        let text = String::from_utf8_lossy(&answers);
        let status = format!("HTTP/1.1 {expected} ");
        assert!(text.starts_with(&status), "{line}: {text}");
        assert!(text.contains("connection: close\r\n"), "{line}: {text}");
        assert_eq!(text.matches("HTTP/1.1").count(), 1, "{line}: {text}");
    }
    // Whoever goes on to send is heard out for a moment, so that no reset overtakes the answer, and
    // no longer.
    let mut stream = raw::connect(gateway.authority());
    let head = format!("{delete} HTTP/1.1\r\nHost: x\r\n");
    let sent = stream.write_all(format!("{head}{}", &chunk[..60_000]).as_bytes());
    sent.expect("to send");
    let mut answers = Vec::new();
    stream.read_to_end(&mut answers).expect("no reset");
    assert!(answers.starts_with(b"HTTP/1.1 401 "));
    let began = Instant::now();
    while stream.write_all(b"z").is_ok() {
        std::thread::park_timeout(Duration::from_millis(20));
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn after_an_answer_that_ends_the_connection_there_is_no_other() {
    let place = Place::new();
    let gateway = place.start();
    let task = place.cloud.add_oms(OmsSpec::new("logs", 5));
    let known = format!("Authorization: Bearer {KEY}\r\n");
    let large = format!("GET /livez HTTP/1.1\r\nX: {}", "a".repeat(17_000));
    for (head, body) in [
        (
            "DELETE /tasks/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n".to_owned(),
            "{}",
        ),
        (
            "DELETE /tasks/1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            "2\r\n{}\r\n0\r\n\r\n",
        ),
        (
            format!("DELETE /tasks/{task} HTTP/1.1\r\nHost: x\r\n{known}Content-Length: 2\r\n\r\n"),
            "{}",
        ),
        (
            format!("GET /tasks/{task} HTTP/1.1\r\nHost: x\r\n{known}Connection: close\r\n\r\n"),
            "",
        ),
    ] {
        let mut stream = raw::connect(gateway.authority());
        stream.write_all(head.as_bytes()).expect("to send");
        stream.peek(&mut [0]).expect("an answer");
        // The other side may have ended the connection.
        _ = stream.write_all(format!("{body}{large}").as_bytes());
        let mut answers = Vec::new();
        _ = stream.read_to_end(&mut answers);
        let text = String::from_utf8_lossy(&answers);
        assert!(text.contains("connection: close\r\n"), "{head}: {text}");
        assert_eq!(text.matches("HTTP/1.1").count(), 1, "{head}: {text}");
    }
}

#[test]
fn who_is_refused_by_the_head_alone_is_not_told_to_go_on() {
    let place = Place::new();
    let gateway = place.start();
    let task = place.cloud.add_oms(OmsSpec::new("logs", 5));
    let ask = |key: &str, length: usize| {
        let head = format!(
            "POST /tasks/{task}/start HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        );
        answers(&gateway, head.as_bytes())
    };
    for (key, length, expected) in [("nobody", 2, 401), ("a.b.c", 2, 401), (KEY, 65_537, 413)] {
        let seen = ask(key, length);
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert_eq!(seen[0].0, expected, "{seen:?}");
        assert!(seen[0].1.contains("x-request-id: "), "{seen:?}");
        assert!(seen[0].1.contains("application/problem+json"), "{seen:?}");
        assert!(seen[0].1.contains("connection: close"), "{seen:?}");
    }
    assert_eq!(ask(KEY, 2)[0].0, 100);
    assert!(place.cloud.requests().is_empty());
}

#[test]
fn every_answer_tells_browsers_to_be_careful_and_nobody_what_made_it() {
    let place = Place::new();
    let gateway = place.start();
    for path in [
        "/tasks",
        "/livez",
        "/nothing",
        "/docs/",
        "/docs/x",
        "/openapi.json",
        "/problems/internal",
    ] {
        let answer = gateway.stranger().get(path);
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{path}"
        );
        assert_eq!(
            answer.header("referrer-policy"),
            Some("no-referrer"),
            "{path}"
        );
        let policy = answer.header("content-security-policy").expect("a policy");
        let source = if path.starts_with("/docs/") {
            "'self'"
        } else {
            "'none'"
        };
        assert!(
            policy.starts_with(&format!("default-src {source};")),
            "{path}: {policy}"
        );
        assert!(
            policy.contains("frame-ancestors 'none'"),
            "{path}: {policy}"
        );
        assert_eq!(
            (answer.header("server"), answer.header("x-powered-by")),
            (None, None)
        );
    }
}

#[test]
fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
    let place = Place::new();
    let gateway = place.start();
    let ask = |host: &str| {
        let head = format!("GET /livez HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        statuses(&gateway, head.as_bytes())
    };
    let long = format!("{}:80", "a".repeat(256));
    for none in [
        "x:abc",
        "x:99999",
        "x:+80",
        "x:-1",
        "x:80:80",
        "[zz]",
        "[::1",
        "[::1]x",
        "[::1]:x",
        "::1",
        "[127.0.0.1]",
        "a,b",
        "*",
        "..",
        ".",
        ".a",
        "a..b",
        "%41",
        "x%00",
        "x'",
        "a;b",
        "a!b",
        "(a)",
        "-",
        "-a",
        "@x",
        "x@",
        "x y",
        "x/y",
        "x?y",
        "x#y",
        ":80",
        &long,
    ] {
        assert_eq!(ask(none), [400], "{none}");
    }
    for good in [
        "",
        "x",
        "x:",
        "x:0",
        "x:65535",
        "X.example.com:80",
        "a-b.example.com.",
        "my_gateway:8080",
        "127.0.0.1",
        "127.0.0.1:8080",
        "[::1]",
        "[::1]:8080",
        "[::ffff:127.0.0.1]",
        "xn--bcher-kva.example",
    ] {
        assert_eq!(ask(good), [200], "{good}");
    }
}

#[test]
fn a_websocket_is_refused_where_anybody_may_read_too() {
    let place = Place::new();
    let gateway = place.start();
    let hidden = Parts::new("7").hidden;
    for path in [
        "/livez",
        "/readyz",
        "/metrics",
        "/docs",
        "/docs/",
        "/openapi.json",
        "/problems/forbidden",
    ] {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n{hidden}"
        );
        let seen = answers(&gateway, head.as_bytes());
        assert_eq!(seen.len(), 1, "{path}: {seen:?}");
        assert_eq!(seen[0].0, 400, "{path}: {seen:?}");
        assert!(
            seen[0].1.contains("/problems/invalid-request"),
            "{path}: {seen:?}"
        );
    }
}

#[test]
fn bytes_that_are_no_request_are_not_logged() {
    let place = Place::new();
    let gateway = place.start();
    // Whoever is answered comes after all that is said of the start.
    assert_eq!(gateway.client().get("/whoami").status, 200);
    let before = gateway.log();
    let endless = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "a".repeat(20_000)
    );
    for (bytes, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\nX: a\0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("\x16\x03\x01\0\0\r\n\r\n", 400),
        ("GET /\x1b[31m HTTP/1.1\r\n\r\n", 400),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (&endless, 431),
    ] {
        assert_eq!(statuses(&gateway, bytes.as_bytes()), [status], "{bytes:?}");
    }
    // This one is logged after whatever the others left.
    assert_eq!(gateway.client().get("/whoami").status, 200);
    let log = gateway.log();
    let fresh: Vec<&str> = log.strip_prefix(&before).expect("more").lines().collect();
    assert_eq!(fresh.len(), 1, "{fresh:?}");
}
