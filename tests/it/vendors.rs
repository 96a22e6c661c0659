//! A vendor that breaks the rules of HTTP and TLS: nobody gets the answer of another, or half of
//! one.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};

use crate::support::{
    gateway::{Gateway, Place},
    http::Answer,
    vendor::{Then, Vendor, about, answer, write},
    wait_for,
};

/// A gateway of one thread, so that all callers share its connections, in front of this vendor of
/// OMS, which has this long to answer.
fn in_front_of(vendor: &Vendor, limit: &str) -> (Place, Gateway) {
    let place = Place::new()
        .set("server.workers", "1")
        .set("upstream.request_timeout", &format!("\"{limit}\""))
        .env(
            "MIGRATION_GATEWAY__PROJECTS__DEFAULT__ENDPOINTS__OMS",
            &vendor.url(),
        );
    let gateway = place.start();
    (place, gateway)
}

/// The answer is about the task that was asked for, or it is a problem. Gives the problem, or
/// nothing.
fn own_or_problem(answer: &Answer, id: &str) -> String {
    if answer.status == 200 {
        let body = answer.json();
        assert_eq!(
            (&body["id"], &body["name"]),
            (&id.into(), &format!("task-{id}").into())
        );
        return String::new();
    }
    answer.problem()
}

/// Looks at tasks from many sides at once. Gives how often which problem came; the empty one is
/// none.
fn crowd(gateway: &Gateway, callers: usize, turns: usize) -> BTreeMap<String, usize> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..callers)
            .map(|caller| {
                scope.spawn(move || {
                    let client = gateway.client();
                    let look = |turn: usize| {
                        let id = (1_000 * (caller + 1) + turn).to_string();
                        own_or_problem(&client.get(&format!("/tasks/{id}")), &id)
                    };
                    (0..turns).map(look).collect::<Vec<_>>()
                })
            })
            .collect();
        let mut problems = BTreeMap::new();
        for thread in threads {
            for problem in thread.join().expect("answers of their own") {
                *problems.entry(problem).or_default() += 1;
            }
        }
        problems
    })
}

#[test]
fn an_answer_that_comes_after_an_interim_one_is_given_to_nobody() {
    let vendor = Vendor::start(|asked, writer| {
        if asked.number % 4 == 1 {
            let status = [100, 102, 103, 199][asked.number / 4 % 4];
            let times = if asked.number % 8 == 1 { 1 } else { 10 };
            write(
                writer,
                &format!("HTTP/1.1 {status} X\r\n\r\n").repeat(times),
            );
            thread::sleep(Duration::from_millis(50));
        }
        write(writer, &asked.answer())
    });
    let (_place, gateway) = in_front_of(&vendor, "10s");
    let problems = crowd(&gateway, 8, 20);
    let asked = vendor.asked().len();
    let (spoilt, retries) = ((asked + 2) / 4, asked - 160);
    assert!(retries > 0, "the first are sent again");
    // Whatever was spoilt was sent again or is a problem.
    let lost = problems.get("upstream-malformed").copied().unwrap_or(0);
    assert_eq!(lost, spoilt - retries, "{problems:?}");
    assert_eq!(problems[""], 160 - lost, "{problems:?}");
}

#[test]
fn an_answer_that_nobody_asked_for_is_taken_for_nobodys() {
    // At once, or so much later that somebody may be waiting behind.
    let vendor = Vendor::start(|asked, writer| {
        write(writer, &asked.answer());
        if asked.number % 3 == 0 {
            thread::sleep(Duration::from_millis((asked.number % 5) as u64));
            write(writer, &about("7"));
        }
        Then::KeepOpen
    });
    let (_place, gateway) = in_front_of(&vendor, "10s");
    let problems = crowd(&gateway, 8, 30);
    assert!(problems[""] > 120, "{problems:?}");
    assert!(problems.len() <= 2, "{problems:?}");
}

#[test]
fn one_answer_too_many_does_not_shift_all_that_follow() {
    // The second request is answered about another task first, and about its own when the third may
    // be under way.
    let vendor = Vendor::start(|asked, writer| {
        if asked.number == 1 {
            write(writer, &about("7"));
            thread::sleep(Duration::from_millis(50));
        }
        write(writer, &asked.answer())
    });
    let (_place, gateway) = in_front_of(&vendor, "10s");
    let client = gateway.client();
    let problems: Vec<String> = (100..110)
        .map(|id| id.to_string())
        .map(|id| own_or_problem(&client.get(&format!("/tasks/{id}")), &id))
        .collect();
    assert_eq!(problems, [""; 10]);
    // The second is asked for once more, over one of its own, and those after it go over another
    // one.
    assert_eq!(vendor.connections(), 3);
}

#[test]
fn faults_at_random_give_everybody_their_own_answer_or_a_problem() {
    let fired = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&fired);
    let vendor = Vendor::start(move |asked, writer| {
        let fault = fastrand::usize(..24);
        counted.fetch_add(usize::from(fault < 12), Ordering::SeqCst);
        let whole = asked.answer();
        let (head, body) = whole.split_once("\r\n\r\n").expect("a head");
        let late = |writer: &mut dyn std::io::Write, first: &str| {
            write(writer, first);
            thread::sleep(Duration::from_millis(2));
            write(writer, &whole)
        };
        match fault {
            0 => late(writer, "HTTP/1.1 103 X\r\n\r\n"),
            1 => late(writer, "HTTP/1.1 204 X\r\n\r\n"),
            2 => late(writer, "HTTP/1.1 200 X\r\n\r\n"),
            3 => late(writer, &format!("{head}\r\nupgrade: websocket\r\n\r\n")),
            4 => write(writer, &format!("{whole}{}", about("7"))),
            5 => {
                write(writer, &whole[..whole.len() - 4]);
                Then::Close
            }
            6 => {
                write(writer, &whole);
                Then::Close
            }
            7 => Then::Close,
            8 => write(
                writer,
                &format!("{head}\r\ntransfer-encoding: chunked\r\n\r\n{body}"),
            ),
            9 => write(
                writer,
                &format!("{head}\r\ncontent-encoding: gzip\r\n\r\n{body}"),
            ),
            10 => write(writer, &whole.replacen("200", "999", 1)),
            11 if fastrand::u8(..4) == 0 => Then::KeepOpen,
            _ => write(writer, &whole),
        }
    });
    let (_place, gateway) = in_front_of(&vendor, "1s");
    let problems = crowd(&gateway, 12, 25);
    assert!(fired.load(Ordering::SeqCst) > 100);
    assert!(problems[""] > 120, "{problems:?}");
    for problem in problems.keys() {
        let known = [
            "",
            "upstream-malformed",
            "upstream-unavailable",
            "upstream-timeout",
        ];
        assert!(known.contains(&problem.as_str()), "{problems:?}");
    }
}

/// Answers without sense, and the problem that each is.
fn senseless() -> Vec<(String, &'static str)> {
    let headers = |count: usize| {
        (0..count).fold(String::new(), |mut text, number| {
            write!(text, "x-{number}: y\r\n").expect("text");
            text
        })
    };
    let long = format!("x: {}\r\n", "y".repeat(1 << 20));
    let bomb = String::from_utf8_lossy(&[0x1f; 99]).into_owned();
    let body = "{\"id\":1,\"status\":5}";
    let malformed = [
        "HTTP/1.1 100 Continue\r\n\r\n".to_owned(),
        "HTTP/1.1 103 X\r\n\r\n".repeat(10),
        answer(200, &headers(10_000), body),
        answer(200, &long, body),
        answer(200, "content-encoding: gzip\r\n", &bomb),
        answer(200, "transfer-encoding: chunked\r\n", body),
        answer(200, "content-length: 19\r\n", body),
        answer(200, "upgrade: websocket\r\n", body),
        answer(204, "", body),
        answer(304, "", body),
        answer(600, "", body),
        answer(999, "", body),
        answer(0, "", body),
        answer(99, "", body),
        answer(200, "", body).replacen("200", "2OO", 1),
        answer(200, "", body).replacen("HTTP/1.1", "HTTP/2", 1),
        answer(200, "", &body[..10]),
        answer(200, "", ""),
        "\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64".to_owned(),
        answer(
            302,
            "location: http://169.254.169.254/openstack/latest/securitykey\r\n",
            "",
        ),
    ];
    let mut all: Vec<_> = malformed.map(|text| (text, "upstream-malformed")).into();
    // Nothing more comes, and the connection stays open.
    for stalled in [
        "",
        "HTTP/1.1 2",
        "HTTP/1.1 200 X\r\ncontent-length: 19\r\n\r\n{\"id\":1,",
    ] {
        all.push((stalled.to_owned(), "upstream-timeout"));
    }
    all
}

#[test]
fn an_answer_without_sense_is_a_problem_and_harms_nobody_behind() {
    let answers = senseless();
    let texts: Vec<String> = answers.iter().map(|(text, _)| text.clone()).collect();
    let vendor = Vendor::start(move |asked, writer| {
        let number: usize = asked.id().parse().expect("a number");
        match texts.get(number) {
            Some(text) => write(writer, text),
            None => write(writer, &asked.answer()),
        }
    });
    let (place, gateway) = in_front_of(&vendor, "1s");
    let client = gateway.client();
    for (number, (text, problem)) in answers.iter().enumerate() {
        let begun = Instant::now();
        let answer = client.get(&format!("/tasks/{number}"));
        let start = &text[..text.len().min(60)];
        assert_eq!(&answer.problem(), problem, "{start:?}: {answer:?}");
        assert_eq!(answer.json()["sent"], "no");
        assert!(begun.elapsed() < Duration::from_secs(5), "{start:?}");
        let asked = vendor
            .asked()
            .iter()
            .filter(|asked| asked.id() == number.to_string())
            .count();
        // With its retries.
        assert!((1..=3).contains(&asked), "{start:?}: {asked}");
        // Another task each time, which no look before can answer for.
        let other = (5_000 + number).to_string();
        let behind = client.get(&format!("/tasks/{other}"));
        assert_eq!(own_or_problem(&behind, &other), "", "behind {start:?}");
    }
    assert_eq!(place.cloud.tokens_issued(), 1);
}

#[test]
fn a_byte_a_second_is_too_slow() {
    let vendor = Vendor::start(|asked, writer| {
        for byte in asked.answer().chars() {
            if write(writer, &byte.to_string()) == Then::Close {
                break;
            }
            thread::sleep(Duration::from_secs(1));
        }
        Then::Close
    });
    let (_place, gateway) = in_front_of(&vendor, "1s");
    let begun = Instant::now();
    let problems = crowd(&gateway, 4, 1);
    assert_eq!(
        problems,
        BTreeMap::from([("upstream-timeout".to_owned(), 4)])
    );
    assert_eq!(vendor.asked().len(), 4);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_redirect_takes_the_token_nowhere() {
    let thief = Vendor::start(|asked, writer| write(writer, &asked.answer()));
    let elsewhere = thief.url().replace("127.0.0.1", "localhost");
    let vendor = Vendor::start(move |asked, writer| {
        let location = format!("location: {elsewhere}{}\r\n", asked.path);
        let status = [301, 302, 303, 307, 308][asked.number % 5];
        write(writer, &answer(status, &location, ""))
    });
    let (_place, gateway) = in_front_of(&vendor, "10s");
    let client = gateway.client();
    for _ in 0..5 {
        let answer = client.get("/tasks/7");
        assert_eq!(answer.problem(), "upstream-malformed", "{answer:?}");
    }
    let answer = client.with("DELETE", "/tasks/7?force=pause", ("prefer", "wait=1"));
    assert!([202, 502].contains(&answer.status), "{answer:?}");
    assert!(vendor.asked().len() > 5, "{:?}", vendor.asked());
    assert!(vendor.asked().iter().all(|asked| asked.method == "GET"));
    assert_eq!(thief.connections(), 0);
}

/// A certificate authority, and what a server needs that it vouches for.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    fn server(&self, name: &str, until_year: i32) -> ServerConfig {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(until_year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let secret = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(certificate.der().to_vec())],
                secret,
            )
            .expect("a server")
    }
}

#[test]
fn only_a_server_with_a_good_certificate_is_asked_anything() {
    let (trusted, stranger) = (Authority::new(), Authority::new());
    for (what, config, is_good) in [
        ("a good one", trusted.server("127.0.0.1", 2100), true),
        ("another name", trusted.server("localhost", 2100), false),
        ("an expired one", trusted.server("127.0.0.1", 2002), false),
        (
            "an unknown authority",
            stranger.server("127.0.0.1", 2100),
            false,
        ),
    ] {
        let vendor = Vendor::start_secure(config, |asked, writer| write(writer, &asked.answer()));
        let place = Place::new();
        let roots = place.file("roots.pem");
        fs::write(&roots, trusted.0.pem()).expect("a file");
        let place = place
            .set("upstream.ca_file", &format!("\"{}\"", roots.display()))
            .env(
                "MIGRATION_GATEWAY__PROJECTS__DEFAULT__ENDPOINTS__OMS",
                &vendor.url(),
            );
        let gateway = place.start();
        let answer = gateway.client().get("/tasks/7");
        let problem = own_or_problem(&answer, "7");
        assert!(vendor.connections() > 0, "{what}");
        if is_good {
            assert_eq!(problem, "", "{what}: {answer:?}");
        } else {
            assert_eq!(problem, "upstream-unavailable", "{what}: {answer:?}");
            assert!(
                answer.text.contains("no encrypted connection"),
                "{answer:?}"
            );
            assert!(vendor.asked().is_empty(), "{what}");
        }
    }
}

#[test]
fn connections_that_take_long_do_not_add_up_to_more_than_the_pace() {
    let authority = Authority::new();
    let config = authority.server("127.0.0.1", 2100);
    let vendor = Vendor::start_secure(config, |asked, writer| write(writer, &asked.answer()));
    let place = Place::new();
    let roots = place.file("roots.pem");
    fs::write(&roots, authority.0.pem()).expect("a file");
    let place = place
        .set("upstream.ca_file", &format!("\"{}\"", roots.display()))
        .set("upstream.requests_per_second", "20")
        .set("upstream.burst", "10")
        .set("upstream.request_timeout", "\"15s\"")
        .env(
            "MIGRATION_GATEWAY__PROJECTS__DEFAULT__ENDPOINTS__OMS",
            &vendor.url(),
        );
    let gateway = place.start();
    thread::scope(|scope| {
        let hold = vendor.hold();
        for number in 1..=60 {
            let client = gateway.client();
            scope.spawn(move || {
                let answer = client.get(&format!("/tasks/{number}"));
                assert_eq!(answer.status, 200, "{answer:?}");
            });
        }
        // Time in which forty more tokens would come in, within the time limit of a connection.
        let began = Instant::now();
        wait_for("two seconds", || {
            (began.elapsed() >= Duration::from_secs(2)).then_some(())
        });
        drop(hold);
    });
    let at: Vec<Instant> = vendor.asked().iter().map(|asked| asked.at).collect();
    let within = |from: &Instant| {
        let until = *from + Duration::from_secs(1);
        at.iter().filter(|at| (*from..until).contains(*at)).count()
    };
    let busiest = at.iter().map(within).max().expect("requests");
    assert_eq!(at.len(), 60);
    // Thirty, and a few that came late.
    assert!(
        (15..=33).contains(&busiest),
        "{busiest} requests in a second"
    );
}
