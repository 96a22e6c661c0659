//! Encrypted connections, and callers who are known by their certificate.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Output,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use migration_gateway::domain::clock::{Clock as _, SystemClock};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, SanType, date_time_ymd};
use rustix::net::{self, AddressFamily, SocketType, sockopt};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, StreamOwned, pki_types::ServerName, version,
};

use crate::support::{
    authority::{Authority, Certified, of_caller},
    gateway::{Gateway, KEY, Place},
    http::Answer,
    issuer::{Issuer, SigningKey},
    raw::{self, RawAnswer},
    wait_for, wait_within,
};

/// Callers who are known by certificates.
const CALLERS: &str = "
[callers.team-a]
certificate = \"team-a.example.com\"
permissions = [\"tasks:read\"]
projects = [\"*\"]
[callers.team-b]
certificate = \"spiffe://example.com/team-b\"
permissions = [\"tasks:read\"]
projects = [\"*\"]
";

/// A gateway with those callers, whom its listener is signed by, and whom callers are signed by.
struct Scene {
    place: Place,
    gateway: Gateway,
    trusted: Authority,
    callers: Authority,
}

impl Scene {
    fn new() -> Self {
        Self::with("")
    }

    /// With more in the configuration.
    fn with(toml: &str) -> Self {
        let (trusted, callers) = (Authority::new(), Authority::new());
        let place = Place::new()
            .set("limits.connections_per_peer", "10000")
            .encrypted(&trusted.listener(), &callers)
            .add(CALLERS)
            .add(toml);
        let gateway = place.start();
        Self {
            place,
            gateway,
            trusted,
            callers,
        }
    }

    /// The answer to `GET /whoami`, on a connection of its own.
    fn whoami(
        &self,
        certified: Option<&Certified>,
        key: Option<&str>,
    ) -> Result<Answer, ureq::Error> {
        let client = self.gateway.encrypted(&self.trusted, certified, key);
        client.send("GET", "/whoami", &[], None)
    }

    /// Who the gateway says it is: name and method.
    fn known(&self, certified: &Certified) -> (String, String) {
        let answer = self.whoami(Some(certified), None).expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        let text = |member: &str| answer.json()[member].as_str().map(str::to_owned);
        (
            text("name").expect("a name"),
            text("authenticated_by").expect("a method"),
        )
    }

    /// A connection whose handshake is over as far as this side can tell.
    fn connect(&self, config: ClientConfig) -> io::Result<Connection> {
        connect(self.gateway.authority(), config)
    }

    fn counted(&self, series: &str) -> f64 {
        let client = self.gateway.encrypted(&self.trusted, None, None);
        let metrics = client.get("/metrics").text;
        let line = metrics.lines().find(|line| line.starts_with(series));
        let value = line.and_then(|line| line.rsplit(' ').next());
        value.map_or(0.0, |value| value.parse().expect("a number"))
    }
}

type Connection = StreamOwned<ClientConnection, TcpStream>;

fn connect(authority: &str, config: ClientConfig) -> io::Result<Connection> {
    let name = ServerName::try_from("localhost").expect("a name");
    let client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut stream = StreamOwned::new(client, raw::connect(authority));
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

fn get(stream: &mut Connection, path: &str) -> io::Result<RawAnswer> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: gateway\r\n\r\n");
    raw::exchange_on(stream, request.as_bytes())
}

#[test]
fn a_caller_is_whom_the_certificate_names() {
    let scene = Scene::new();
    let certificate = "certificate".to_owned();
    for (names, name) in [
        (&["team-a.example.com"][..], "team-a"),
        (&["spiffe://example.com/team-b"], "team-b"),
        (
            &["else.example.com", "team-a.example.com", "https://else"],
            "team-a",
        ),
        (&["team-a.example.com", "team-a.example.com"], "team-a"),
    ] {
        let known = scene.known(&scene.callers.caller(names));
        assert_eq!(known, (name.to_owned(), certificate.clone()), "{names:?}");
    }
    let through_another = of_caller(&["team-a.example.com"]);
    let through_another = scene.callers.sign_through_another(&through_another);
    assert_eq!(scene.known(&through_another).0, "team-a");
    let mut params = of_caller(&["team-a.example.com"]);
    params.not_after = date_time_ymd(2099, 1, 2);
    let answer = scene.whoami(Some(&scene.callers.sign(&params)), None);
    let answer = answer.expect("an answer").json();
    assert_eq!(answer["expires_at"], "2099-01-02T00:00:00Z");
    let client = scene.gateway.encrypted(
        &scene.trusted,
        Some(&scene.callers.caller(&["team-a.example.com"])),
        None,
    );
    assert_eq!(client.get("/tasks").status, 200);
    assert_eq!(client.delete("/tasks/7").problem(), "forbidden");
}

#[test]
fn a_certificate_that_names_nobody_exactly_is_a_credential_that_is_not_known() {
    // Requests without credentials may do something here; whoever shows a certificate does not
    // become one of them.
    let scene = Scene::with("[access]\nanonymous = [\"tasks:read\"]\n");
    let mut only_in_subject = CertificateParams::default();
    only_in_subject
        .distinguished_name
        .push(DnType::CommonName, "team-a.example.com");
    let mut certificates: Vec<Certified> = [
        "team-a.example.com.evil.test",
        "team-a.example.co",
        "team-a",
        "x.team-a.example.com",
        "TEAM-A.example.com",
        "team-a.example.com.",
        "*.example.com",
        "https://team-a.example.com",
        "spiffe://example.com/team-b/",
        "spiffe://example.com/team-b.evil.test",
        "spiffe://example.com/team",
        "spiffe://example.com/team-b?x",
    ]
    .into_iter()
    .map(|name| scene.callers.caller(&[name]))
    .collect();
    certificates.push(scene.callers.sign(&only_in_subject));
    // The name of one kind is none of the other.
    let mut of_other_kinds = CertificateParams::default();
    of_other_kinds.subject_alt_names = vec![
        SanType::URI("team-a.example.com".try_into().expect("ASCII")),
        SanType::DnsName("spiffe://example.com/team-b".try_into().expect("ASCII")),
    ];
    of_other_kinds.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    certificates.push(scene.callers.sign(&of_other_kinds));
    for (index, certified) in certificates.iter().enumerate() {
        let answer = scene.whoami(Some(certified), None).expect("an answer");
        assert_eq!(answer.problem(), "unauthenticated", "{index}: {answer:?}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert_eq!(answer.json()["sent"], "no");
    }
    let refused = "migration_gateway_credentials_refused_total{reason=\"certificate\"}";
    let counted = scene.counted(refused);
    assert!((counted - 14.0).abs() < 0.5, "{counted}");
    // Two callers are not one.
    let both = ["team-a.example.com", "spiffe://example.com/team-b"];
    let answer = scene.whoami(Some(&scene.callers.caller(&both)), None);
    assert_eq!(answer.expect("an answer").problem(), "invalid-request");
    assert_eq!(scene.place.cloud.requests().len(), 0);
}

#[test]
fn a_certificate_that_is_not_to_be_trusted_ends_the_handshake() {
    let scene = Scene::new();
    let named = || of_caller(&["team-a.example.com"]);
    let mut expired = named();
    expired.not_before = date_time_ymd(2020, 1, 1);
    expired.not_after = date_time_ymd(2021, 1, 1);
    let mut early = named();
    early.not_before = date_time_ymd(2120, 1, 1);
    early.not_after = date_time_ymd(2121, 1, 1);
    let mut for_servers = named();
    for_servers.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let mut without_chain = scene.callers.sign_through_another(&named());
    without_chain.chain.truncate(1);
    let good = scene.callers.caller(&["team-a.example.com"]);
    let untrusted = [
        Authority::new().caller(&["team-a.example.com"]),
        scene.trusted.caller(&["team-a.example.com"]),
        scene.callers.sign(&expired),
        scene.callers.sign(&early),
        scene.callers.sign(&for_servers),
        without_chain,
    ];
    for (index, certified) in untrusted.iter().enumerate() {
        for tls13 in [true, false] {
            let mut config = scene.trusted.for_socket(Some(certified));
            if !tls13 {
                config = only_tls12(&scene.trusted, Some(certified));
            }
            let answer = scene
                .connect(config)
                .and_then(|mut stream| get(&mut stream, "/whoami"));
            assert!(answer.is_err(), "{index} {tls13}: {answer:?}");
            // With a key beside it too: the connection is not made.
            let answer = scene.whoami(Some(certified), Some(KEY));
            assert!(answer.is_err(), "{index}: {answer:?}");
        }
    }
    assert!(
        scene.counted("migration_gateway_tls_handshakes_total{result=\"certificate\"}") >= 24.0
    );
    assert_eq!(scene.known(&good).0, "team-a");
    assert_eq!(scene.place.cloud.requests().len(), 0);
}

fn only_tls12(trusted: &Authority, certified: Option<&Certified>) -> ClientConfig {
    trusted.for_versions(certified, &[&version::TLS12])
}

#[test]
fn a_certificate_is_no_must_and_never_one_of_two_credentials() {
    let key = SigningKey::elliptic("k1");
    let issuer = Issuer::with(&[&key]);
    let groups = "[issuers.corp.groups.all]\npermissions = [\"tasks:read\"]\nprojects = [\"*\"]";
    let scene = Scene::with(&issuer.section("corp", groups));
    let token = issuer.token(&key, "alice", &["all"]);
    let named = scene.callers.caller(&["team-a.example.com"]);
    let unnamed = scene.callers.caller(&["nobody.example.com"]);
    let answer = |certified, key| scene.whoami(certified, key).expect("an answer");
    let with_key = answer(None, Some(KEY)).json();
    assert_eq!(with_key["name"], "tester");
    assert_eq!(with_key["authenticated_by"], "key");
    let with_token = answer(None, Some(&token)).json();
    assert_eq!(with_token["authenticated_by"], "token");
    assert_eq!(answer(None, None).problem(), "unauthenticated");
    for certified in [&named, &unnamed] {
        for credential in [KEY, &token, "wrong", ""] {
            let answer = answer(Some(certified), Some(credential));
            assert_eq!(answer.problem(), "invalid-request", "{credential}");
            assert_eq!(answer.json()["sent"], "no");
        }
    }
    assert_eq!(scene.known(&named).0, "team-a");
}

#[test]
fn a_certificate_that_ends_while_the_connection_is_open_is_refused_from_then_on() {
    let scene = Scene::new();
    let mut params = of_caller(&["team-a.example.com"]);
    let now = SystemClock.now().as_second();
    let end = Timestamp::from_second(now + 3).expect("a time");
    // Whole seconds after 1970.
    params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(now.unsigned_abs() + 3);
    let certified = scene.callers.sign(&params);
    let config = scene.trusted.for_socket(Some(&certified));
    let mut stream = scene.connect(config).expect("a connection");
    let first = get(&mut stream, "/whoami").expect("an answer");
    assert_eq!(first.status, 200, "{first:?}");
    assert!(first.body.contains(&end.to_string()), "{first:?}");
    let refused = wait_for("the end of the certificate", || {
        let answer = get(&mut stream, "/whoami").expect("an answer on the same connection");
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(refused.problem(), "unauthenticated");
    assert!(refused.body.contains("has ended"), "{refused:?}");
    assert!(SystemClock.now() >= end);
}

#[test]
fn http_2_is_not_offered() {
    let scene = Scene::new();
    let with = |protocols: &[&str], tls12: bool| {
        let mut config = if tls12 {
            only_tls12(&scene.trusted, None)
        } else {
            scene.trusted.for_socket(None)
        };
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        scene.connect(config)
    };
    for tls12 in [false, true] {
        for (offered, chosen) in [
            (&["h2", "http/1.1"][..], Some(&b"http/1.1"[..])),
            (&["http/1.1"], Some(b"http/1.1")),
            (&[], None),
        ] {
            let mut stream = with(offered, tls12).expect("a connection");
            assert_eq!(stream.conn.alpn_protocol(), chosen);
            assert_eq!(get(&mut stream, "/livez").expect("an answer").status, 200);
        }
        let error = with(&["h2"], tls12).expect_err("no connection");
        assert!(
            error.to_string().contains("NoApplicationProtocol"),
            "{error}"
        );
    }
    // The beginning of HTTP/2 without asking is no request.
    let mut stream = with(&[], false).expect("a connection");
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let answer = raw::exchange_on(&mut stream, preface);
    assert!(answer.as_ref().is_err() || answer.is_ok_and(|answer| answer.status >= 400));
}

/// The greeting of a client whose newest version of TLS is 1 and this many tenths.
fn greeting(tenths: u8) -> Vec<u8> {
    let mut hello = vec![3, tenths + 1];
    hello.extend([7; 32]);
    // No session, one set of algorithms, no compression.
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    // A curve and a kind of signature.
    hello.extend([0, 16, 0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3]);
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("a short one");
    let mut message = vec![1, 0, 0, length(&hello)];
    message.extend(hello);
    let mut record = vec![22, 3, 1, 0, length(&message)];
    record.extend(message);
    record
}

#[test]
fn nothing_older_than_tls_1_2_is_spoken() {
    let scene = Scene::new();
    let first_of = |tenths: u8| {
        let mut stream = raw::connect(scene.gateway.authority());
        stream.write_all(&greeting(tenths)).expect("to send");
        let mut record = [0; 7];
        stream.read_exact(&mut record).expect("an answer");
        record
    };
    // The greeting of the server, of version 1.2.
    assert_eq!(first_of(2)[..3], [22, 3, 3]);
    for tenths in [0, 1] {
        // A fatal alert about the version.
        let record = first_of(tenths);
        assert_eq!((record[0], &record[5..]), (21, &[2, 70][..]), "{record:?}");
    }
}

/// Everything that comes after these bytes until the connection ends.
fn read_to_end(scene: &Scene, bytes: &[u8]) -> Vec<u8> {
    let mut stream = raw::connect(scene.gateway.authority());
    stream.write_all(bytes).expect("to send");
    let mut all = Vec::new();
    // A reset is an end too.
    let _end = stream.read_to_end(&mut all);
    all
}

#[test]
fn a_session_is_never_resumed() {
    let scene = Scene::new();
    let certified = scene.callers.caller(&["team-a.example.com"]);
    for config in [
        scene.trusted.for_socket(Some(&certified)),
        only_tls12(&scene.trusted, Some(&certified)),
    ] {
        for _ in 0..3 {
            // The configuration keeps what could be resumed.
            let mut stream = scene.connect(config.clone()).expect("a connection");
            assert_eq!(get(&mut stream, "/whoami").expect("an answer").status, 200);
            let kind = stream.conn.handshake_kind();
            assert_eq!(kind, Some(HandshakeKind::Full));
        }
    }
}

#[test]
fn clear_text_on_an_encrypted_port_ends_quickly() {
    let scene = Scene::new();
    let began = Instant::now();
    for request in [
        &b"GET /whoami HTTP/1.1\r\nHost: gateway\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0; 600],
    ] {
        let end = read_to_end(&scene, request);
        assert!(!end.starts_with(b"HTTP"), "{end:?}");
    }
    // Below the limit of a handshake: nobody waited for one.
    assert!(began.elapsed() < Duration::from_secs(4));
    assert!(scene.counted("migration_gateway_tls_handshakes_total{result=\"failed\"}") >= 3.0);
}

/// A connection from this address, with a piece of a greeting and no more.
fn stalled(scene: &Scene, from: [u8; 4]) -> TcpStream {
    let gateway: SocketAddr = scene.gateway.authority().parse().expect("an address");
    let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    net::bind(&socket, &SocketAddr::from((from, 0))).expect("an address of its own");
    net::connect(&socket, &gateway).expect("a connection");
    let mut stream = TcpStream::from(socket);
    let patience = Some(Duration::from_secs(20));
    stream.set_read_timeout(patience).expect("a time limit");
    stream.write_all(&[22, 3, 1, 2, 0]).expect("to send");
    stream
}

#[test]
fn handshakes_that_stall_are_ended_and_keep_nobody_out() {
    let scene = Scene::new();
    let began = Instant::now();
    let served = |client: &str| {
        let began = Instant::now();
        let answer = scene.whoami(None, Some(KEY)).expect("an answer");
        assert_eq!(answer.status, 200, "{client}");
        // Nobody waited for the end of a handshake that stalls, which has 5 seconds.
        let took = began.elapsed();
        assert!(took < Duration::from_secs(3), "{client}: {took:?}");
    };
    let count = |result: &str| {
        let series = format!("migration_gateway_tls_handshakes_total{{result=\"{result}\"}}");
        scene.counted(&series)
    };
    // Another address has as many as it may, and more.
    let mut streams: Vec<_> = (0..300).map(|_| stalled(&scene, [127, 0, 0, 2])).collect();
    served("another address");
    wait_for("those beyond to be closed", || {
        (count("shed") >= 44.0).then_some(())
    });
    // This one has too.
    streams.extend((0..300).map(|_| stalled(&scene, [127, 0, 0, 1])));
    served("the same address");
    // All together have.
    for last in 3..6 {
        streams.extend((0..256).map(|_| stalled(&scene, [127, 0, 0, last])));
    }
    served("one of many");
    wait_for("more of them", || (count("shed") >= 300.0).then_some(()));
    for stream in &mut streams {
        // Closed with or without a word: what was sent may not have been read.
        let _end = stream.read_to_end(&mut Vec::new());
        let took = began.elapsed();
        assert!(took < Duration::from_secs(20), "{took:?}");
    }
    assert!(count("late") >= 900.0, "{}", count("late"));
}

#[test]
fn a_head_that_is_too_large_is_refused_here_too() {
    let scene = Scene::new();
    let config = scene.trusted.for_socket(None);
    let mut stream = scene.connect(config).expect("a connection");
    assert_eq!(get(&mut stream, "/livez").expect("an answer").status, 200);
    let head = format!("GET /{} HTTP/1.1", "a".repeat(20_000));
    let answer = raw::exchange_on(&mut stream, head.as_bytes()).expect("an answer");
    assert_eq!(answer.status, 431, "{answer:?}");
    assert_eq!(stream.read(&mut [0; 16]).expect("an orderly end"), 0);
}

#[test]
fn a_stop_waits_for_answers_and_not_for_handshakes() {
    let mut scene = Scene::new();
    let certified = scene.callers.caller(&["team-a.example.com"]);
    let config = scene.trusted.for_socket(Some(&certified));
    let mut idle = scene.connect(config).expect("a connection");
    assert_eq!(get(&mut idle, "/whoami").expect("an answer").status, 200);
    let _stalled = raw::connect(scene.gateway.authority());
    scene.gateway.signal("TERM");
    let status = scene.gateway.ended_within(Duration::from_secs(4));
    assert!(status.success(), "{}", scene.gateway.log());
    // The connection ends with a word, not by being torn.
    assert_eq!(idle.read(&mut [0; 16]).expect("an orderly end"), 0);
}

/// A connection that has hardly any room for what nobody reads.
fn reluctant(address: &SocketAddr) -> TcpStream {
    let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    sockopt::set_socket_recv_buffer_size(&socket, 1).expect("a setting");
    net::connect(&socket, address).expect("a connection");
    TcpStream::from(socket)
}

#[test]
fn an_answer_that_nobody_reads_ends_its_connection_wherever_it_is_stuck() {
    let scene = Scene::new();
    let gateway: SocketAddr = scene.gateway.authority().parse().expect("an address");
    let mut first = scene.connect(scene.trusted.for_socket(None));
    let mut size = |path: &str| {
        let first = first.as_mut().expect("a connection");
        let answer = get(first, path).expect("an answer");
        answer.head.len() + answer.body.len()
    };
    let (large, small) = (size("/openapi.json"), size("/livez"));
    drop(first);
    // The system takes some of it, and TLS has room for 64 KiB before that: some of these end in
    // there.
    let streams: Vec<Connection> = (1..=24)
        .map(|number| {
            let wanted = number * 40_000;
            let (many, few) = (wanted / large, wanted % large / small);
            let name = ServerName::try_from("localhost").expect("a name");
            let config = Arc::new(scene.trusted.for_socket(None));
            let client = ClientConnection::new(config, name).expect("a client");
            let mut stream = StreamOwned::new(client, reluctant(&gateway));
            let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
            let last = "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            let all = ask("/openapi.json").repeat(many) + &ask("/livez").repeat(few) + last;
            stream.write_all(all.as_bytes()).expect("to send");
            stream.flush().expect("to send");
            stream
        })
        .collect();
    let open = || scene.counted("migration_gateway_connections ");
    assert!(open() > 12.0, "{}", open());
    // The limit is 30 seconds from when nothing more is taken.
    let limit = Duration::from_secs(50);
    wait_within(limit, "the end of the connections", || {
        (open() < 2.0).then_some(())
    });
    drop(streams);
}

fn run(place: &Place, command: &str) -> Output {
    crate::gateway()
        .args([command, "--config"])
        .arg(place.write_configuration())
        .output()
        .expect("the program runs")
}

#[test]
fn a_healthcheck_asks_an_encrypted_gateway_too() {
    let mut scene = Scene::new();
    let address = format!("{:?}", scene.gateway.authority());
    scene.place = scene.place.set("server.listen", &address);
    let output = run(&scene.place, "healthcheck");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text, "{\"status\":\"ok\",\"failing\":[]}\n");
    // Also while files with faults wait beside those in use.
    scene.place.secret("listener.pem", "no certificate");
    assert_eq!(run(&scene.place, "healthcheck").status.code(), Some(0));
    // A server that says nothing is not waited for.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("{:?}", silent.local_addr().expect("an address").to_string());
    scene.place = scene.place.set("server.listen", &address);
    let began = Instant::now();
    assert_eq!(run(&scene.place, "healthcheck").status.code(), Some(1));
    assert!(began.elapsed() < Duration::from_secs(15));
}
