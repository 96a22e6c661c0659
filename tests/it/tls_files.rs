//! The files of the listener change while the gateway runs, and are checked before it does.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use rcgen::{CertificateParams, date_time_ymd};
use rustls::{
    ClientConnection, StreamOwned,
    pki_types::{CertificateDer, ServerName},
};

use crate::support::{
    authority::{Authority, Certified},
    gateway::{Gateway, KEY, Place},
    raw, wait_for,
};

const TEAM_A: &str = "\n[callers.team-a]\ncertificate = \"team-a.example.com\"\n\
     permissions = [\"tasks:read\"]\nprojects = [\"*\"]\n";
const READ: &str = "the files of the listener were read again";
const FAULTY: &str = "the files of the listener have faults";

fn lines(gateway: &Gateway, words: &str) -> usize {
    let log = gateway.log();
    log.lines().filter(|line| line.contains(words)).count()
}

/// Asks the gateway to look at its files, and waits until it has said what became of it.
fn hang_up(gateway: &Gateway, words: &str) {
    let before = lines(gateway, words);
    gateway.signal("HUP");
    wait_for(words, || (lines(gateway, words) > before).then_some(()));
}

/// The certificate that a fresh connection is shown.
fn shown(gateway: &Gateway, trusted: &Authority) -> CertificateDer<'static> {
    let config = Arc::new(trusted.for_socket(None));
    let name = ServerName::try_from("localhost").expect("a name");
    let client = ClientConnection::new(config, name).expect("a client");
    let mut stream = StreamOwned::new(client, raw::connect(gateway.authority()));
    let request = b"GET /livez HTTP/1.1\r\nHost: gateway\r\n\r\n";
    let answer = raw::exchange_on(&mut stream, request).expect("an answer");
    assert_eq!(answer.status, 200);
    let chain = stream.conn.peer_certificates().expect("a certificate");
    chain[0].clone().into_owned()
}

fn metric(gateway: &Gateway, trusted: &Authority, series: &str) -> String {
    let metrics = gateway.encrypted(trusted, None, None).get("/metrics").text;
    let line = metrics.lines().find(|line| line.starts_with(series));
    let value = line.and_then(|line| line.rsplit(' ').next());
    value.unwrap_or_default().to_owned()
}

/// Ends what goes on until it is stopped, also when a test fails.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_certificate_is_replaced_without_a_request_being_dropped() {
    let (trusted, callers) = (Authority::new(), Authority::new());
    let place = Place::new()
        .encrypted(&trusted.listener(), &callers)
        .add(TEAM_A);
    let gateway = place.start();
    let before = shown(&gateway, &trusted);
    let (stop, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    let outdated = || metric(&gateway, &trusted, "migration_gateway_tls_outdated ");
    let counted = |result: &str| {
        let series = format!("migration_gateway_tls_reloads_total{{result=\"{result}\"}}");
        metric(&gateway, &trusted, &series)
    };
    let team = callers.caller(&["team-a.example.com"]);
    thread::scope(|scope| {
        let stopping = Stopping(&stop);
        for keeps in [true, true, false, false] {
            let (gateway, trusted, team) = (&gateway, &trusted, &team);
            let (stop, answers) = (&stop, &answers);
            scope.spawn(move || {
                let client = || gateway.encrypted(trusted, Some(team), None);
                let kept = client();
                while !stop.load(Ordering::SeqCst) {
                    let answer = if keeps {
                        kept.get("/whoami")
                    } else {
                        client().get("/whoami")
                    };
                    assert_eq!(answer.status, 200, "{answer:?}");
                    answers.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let more = |number: usize| {
            let from = answers.load(Ordering::SeqCst);
            wait_for("answers", || {
                (answers.load(Ordering::SeqCst) >= from + number).then_some(())
            });
        };
        more(20);
        let fresh = trusted.listener();
        // Half of it: a certificate without its key.
        place.secret("listener.pem", &fresh.pem);
        hang_up(&gateway, FAULTY);
        assert_eq!(
            (outdated().as_str(), counted("faulty").as_str()),
            ("1", "1")
        );
        assert_eq!(shown(&gateway, &trusted), before);
        more(20);
        place.write_pair(&fresh);
        hang_up(&gateway, READ);
        assert_eq!((outdated().as_str(), counted("ok").as_str()), ("0", "1"));
        assert_eq!(shown(&gateway, &trusted), fresh.chain[0]);
        more(20);
        drop(stopping);
    });
    let log = gateway.log();
    let faulty = log
        .lines()
        .find(|line| line.contains(FAULTY))
        .expect("a line");
    assert!(
        faulty.contains("server.tls.private_key is not the key of the certificate"),
        "{faulty}"
    );
    assert!(!log.contains("PRIVATE") && !log.contains(&team.key_pem()[40..60]));
}

#[test]
fn faulty_files_change_nothing_and_are_told_of_once_for_each_change() {
    let (trusted, callers) = (Authority::new(), Authority::new());
    let good = trusted.listener();
    let place = Place::new().encrypted(&good, &callers).add(TEAM_A);
    let gateway = place.start();
    let mut ended = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    ended.not_after = date_time_ymd(2020, 1, 1);
    let ended = trusted.sign(&ended);
    let half = &good.pem[..good.pem.len() / 2];
    let (ended_pem, ended_key) = (ended.pem.as_str(), ended.key_pem());
    let team = callers.caller(&["team-a.example.com"]);
    let none = "names a file that has no";
    for (number, (writes, fault)) in [
        (
            &[("listener.pem", "canary")][..],
            format!("certificate {none}"),
        ),
        (&[("listener.pem", half)], format!("certificate {none}")),
        (
            &[
                ("listener.pem", ended_pem),
                ("listener-key.pem", &ended_key),
            ],
            "certificate is not valid at this time".to_owned(),
        ),
        (
            &[("listener-key.pem", "canary")],
            format!("private_key {none}"),
        ),
        (&[("client-ca.pem", "canary")], format!("client_ca {none}")),
        (&[("client-ca.pem", "")], format!("client_ca {none}")),
    ]
    .into_iter()
    .enumerate()
    {
        for (name, text) in writes {
            place.secret(name, text);
        }
        hang_up(&gateway, FAULTY);
        let log = gateway.log();
        let line = log.lines().rfind(|line| line.contains(FAULTY));
        let line = line.expect("a line");
        assert!(line.contains(&fault) && !log.contains("canary"), "{line}");
        assert_eq!(lines(&gateway, FAULTY), number + 1);
        assert_eq!(shown(&gateway, &trusted), good.chain[0]);
        let client = gateway.encrypted(&trusted, Some(&team), None);
        assert_eq!(client.get("/whoami").status, 200);
    }
    place.write_pair(&good);
    fs::remove_file(place.file("client-ca.pem")).expect("a file");
    hang_up(&gateway, FAULTY);
    assert!(
        gateway
            .log()
            .contains("client_ca names a file that cannot be read")
    );
    place.secret("client-ca.pem", &callers.pem());
    hang_up(&gateway, READ);
    assert_eq!(
        metric(&gateway, &trusted, "migration_gateway_tls_outdated "),
        "0"
    );
    assert_eq!(
        metric(
            &gateway,
            &trusted,
            "migration_gateway_tls_certificate_expires_timestamp_seconds "
        ),
        // The end that certificates of tests have.
        date_time_ymd(4096, 1, 1).unix_timestamp().to_string()
    );
}

#[test]
fn callers_follow_their_authority_also_on_connections_that_are_open() {
    let (trusted, old, fresh) = (Authority::new(), Authority::new(), Authority::new());
    let place = Place::new()
        .encrypted(&trusted.listener(), &old)
        .add(TEAM_A);
    let gateway = place.start();
    let by_old = old.caller(&["team-a.example.com"]);
    let by_fresh = fresh.caller(&["team-a.example.com"]);
    let client = |certified: &Certified| gateway.encrypted(&trusted, Some(certified), None);
    let whoami = |certified| client(certified).send("GET", "/whoami", &[], None);
    let open = client(&by_old);
    assert_eq!(open.get("/whoami").status, 200);
    assert!(whoami(&by_fresh).is_err());
    // Both for a while.
    place.secret("client-ca.pem", &(old.pem() + &fresh.pem()));
    hang_up(&gateway, READ);
    assert_eq!(open.get("/whoami").status, 200);
    assert_eq!(whoami(&by_old).expect("an answer").status, 200);
    assert_eq!(whoami(&by_fresh).expect("an answer").status, 200);
    place.secret("client-ca.pem", &fresh.pem());
    hang_up(&gateway, READ);
    let refused = open.get("/whoami");
    assert_eq!(refused.problem(), "unauthenticated");
    assert!(refused.text.contains("trusted no more"), "{refused:?}");
    assert!(whoami(&by_old).is_err());
    assert_eq!(whoami(&by_fresh).expect("an answer").status, 200);
    // And back: the connection was not ended.
    place.secret("client-ca.pem", &old.pem());
    hang_up(&gateway, READ);
    assert_eq!(open.get("/whoami").status, 200);
}

#[test]
fn a_change_of_the_files_is_noticed_without_a_signal() {
    let (trusted, callers) = (Authority::new(), Authority::new());
    let (first, second) = (trusted.listener(), trusted.listener());
    // As a container mounts them: files behind a link, which is changed as a whole.
    let place = Place::new().encrypted(&first, &callers);
    for (folder, pair) in [("first", &first), ("second", &second)] {
        fs::create_dir(place.file(folder)).expect("a folder");
        place.secret(&format!("{folder}/listener.pem"), &pair.pem);
        place.secret(&format!("{folder}/listener-key.pem"), &pair.key_pem());
    }
    symlink("first", place.file("mounted")).expect("a link");
    for name in ["listener.pem", "listener-key.pem"] {
        fs::remove_file(place.file(name)).expect("a file");
        symlink(format!("mounted/{name}"), place.file(name)).expect("a link");
    }
    let gateway = place.start();
    assert_eq!(shown(&gateway, &trusted), first.chain[0]);
    symlink("second", place.file("fresh")).expect("a link");
    fs::rename(place.file("fresh"), place.file("mounted")).expect("a link");
    wait_for("the certificate", || {
        (shown(&gateway, &trusted) == second.chain[0]).then_some(())
    });
    assert_eq!((lines(&gateway, READ), lines(&gateway, FAULTY)), (1, 0));
}

#[test]
fn a_caller_loses_its_certificate_with_the_next_configuration() {
    let (trusted, callers) = (Authority::new(), Authority::new());
    let place = Place::new()
        .encrypted(&trusted.listener(), &callers)
        .add(TEAM_A);
    let gateway = place.start();
    let team = callers.caller(&["team-a.example.com"]);
    let open = gateway.encrypted(&trusted, Some(&team), None);
    assert_eq!(open.get("/whoami").status, 200);
    let path = place.file("gateway.toml");
    let text = fs::read_to_string(&path).expect("a configuration");
    fs::write(
        &path,
        text.replace("team-a.example.com", "team-b.example.com"),
    )
    .expect("a file");
    hang_up(&gateway, "the configuration of callers was read again");
    assert_eq!(open.get("/whoami").problem(), "unauthenticated");
}

fn check(place: &Place) -> Output {
    crate::gateway()
        .args(["check-config", "--config"])
        .arg(place.write_configuration())
        .output()
        .expect("the program runs")
}

#[test]
fn what_is_wrong_with_the_files_is_found_before_anything_starts() {
    let (trusted, callers) = (Authority::new(), Authority::new());
    let good = trusted.listener();
    let place = || Place::new().encrypted(&good, &callers).add(TEAM_A);
    let output = check(&place());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("Warning"));

    let all = place();
    for name in ["listener.pem", "listener-key.pem", "client-ca.pem"] {
        all.secret(name, "canary");
    }
    let mismatch = place();
    mismatch.secret("listener-key.pem", &trusted.listener().key_pem());
    let unreadable = place();
    let key = unreadable.file("listener-key.pem");
    fs::remove_file(&key).expect("a file");
    fs::create_dir(&key).expect("a folder");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o700)).expect("a mode");
    for (place, wanted) in [
        (
            all,
            &[
                "server.tls.certificate (in",
                "server.tls.private_key (in",
                "server.tls.client_ca (in",
            ][..],
        ),
        (mismatch, &["is not the key of the certificate"]),
        (
            unreadable,
            &["server.tls.private_key (in", "cannot be read"],
        ),
        (
            place().set("server.tls.surprise", "1"),
            &["server.tls.surprise (in", "is not a known key"],
        ),
        (
            place().add(&TEAM_A.replace("callers.team-a", "callers.team-b")),
            &[
                "callers.team-b.certificate (in",
                "is the same as that of callers.team-a",
            ],
        ),
        (
            Place::new().add(TEAM_A),
            &[
                "callers.team-a.certificate (in",
                "is of use only with server.tls.client_ca",
            ],
        ),
        (
            Place::new().set("server.tls.certificate", "\"listener.pem\""),
            &["server.tls.private_key (in", "is required"],
        ),
    ] {
        let output = check(&place);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        for words in wanted {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!text.contains("canary"), "{text}");
    }
}

#[test]
fn a_certificate_that_has_ended_is_warned_of() {
    let (trusted, callers) = (Authority::new(), Authority::new());
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
    let place = Place::new().encrypted(&trusted.sign(&params), &callers);
    let output = check(&place);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    let warning =
        "server.tls.certificate is valid from 2020-01-01T00:00:00Z to 2021-01-01T00:00:00Z only";
    assert!(text.contains(warning), "{text}");
    let gateway = place.start();
    assert_eq!(lines(&gateway, "is not valid at this time"), 1);
    // A good one takes its place.
    place.write_pair(&trusted.listener());
    hang_up(&gateway, READ);
    let client = gateway.encrypted(&trusted, None, Some(KEY));
    assert_eq!(client.get("/tasks").status, 200);
}

#[test]
fn a_pipe_is_refused_and_the_files_are_looked_at_on() {
    let (trusted, callers) = (Authority::new(), Authority::new());
    let first = trusted.listener();
    let place = Place::new().encrypted(&first, &callers);
    let mut gateway = place.start();
    // Whoever opened it would wait for a writer for ever.
    place.make_hang("listener-key.pem");
    hang_up(&gateway, FAULTY);
    let fault = "server.tls.private_key names a file that cannot be read: it is not a regular file";
    assert!(gateway.log().contains(fault), "{}", gateway.log());
    assert_eq!(shown(&gateway, &trusted), first.chain[0]);
    let output = check(&place);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    fs::remove_file(place.file("listener-key.pem")).expect("a file");
    let second = trusted.listener();
    place.write_pair(&second);
    hang_up(&gateway, READ);
    assert_eq!(shown(&gateway, &trusted), second.chain[0]);
    gateway.signal("TERM");
    assert!(gateway.ended().success());
}
