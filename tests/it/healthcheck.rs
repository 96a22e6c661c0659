//! `healthcheck`: what a container engine learns by it.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    gateway,
    support::{
        gateway::Place,
        postgres::{Server, free_port, programs},
        wait_for,
    },
};

/// Checks by a configuration of this text.
fn check(toml: &str) -> Output {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("gateway.toml");
    fs::write(&file, toml).expect("a file");
    gateway()
        .args(["healthcheck", "--config"])
        .arg(&file)
        .output()
        .expect("the program runs")
}

fn listening_on(address: &str) -> String {
    format!("[server]\nlisten = \"{address}\"\n")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("output is UTF-8")
}

/// A peer that takes one connection, reads a request, sends this and closes.
fn answering(answer: &'static str) -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let peer = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = Vec::new();
        let mut byte = [0_u8];
        while !request.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).expect("a request");
            request.push(byte[0]);
        }
        stream.write_all(answer.as_bytes()).expect("to answer");
        String::from_utf8(request).expect("text")
    });
    (address, peer)
}

#[test]
fn a_gateway_that_is_ready_is_status_0_also_when_it_listens_everywhere() {
    let place = Place::new();
    let running = place.start();
    let (_, port) = running.authority().rsplit_once(':').expect("a port");
    for address in [running.authority(), &format!("0.0.0.0:{port}")] {
        let output = check(&listening_on(address));
        assert_eq!(text(&output.stderr), "", "{address}");
        assert_eq!(output.status.code(), Some(0), "{address}");
        assert_eq!(text(&output.stdout), "{\"status\":\"ok\",\"failing\":[]}\n");
    }
}

#[test]
fn a_variable_lies_over_the_address_of_the_file() {
    let place = Place::new();
    let running = place.start();
    let output = gateway()
        .args(["healthcheck", "--config"])
        .arg(place.file("gateway.toml"))
        .env("MIGRATION_GATEWAY__SERVER__LISTEN", running.authority())
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn faults_elsewhere_in_the_configuration_say_nothing_about_a_running_gateway() {
    let place = Place::new();
    let running = place.start();
    let output = check(&format!(
        "default_project = 1\n{}worker = 3\n[servr]\n",
        listening_on(running.authority())
    ));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_gateway_that_is_not_ready_is_status_1_with_what_fails() {
    let (address, peer) = answering(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 41\r\n\r\n\
         {\"status\":\"failing\",\"failing\":[\"store\"]}",
    );
    let output = check(&listening_on(&address));
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let message = text(&output.stderr);
    assert!(message.contains("\"failing\":[\"store\"]"), "{message}");
    let request = peer.join().expect("a request");
    assert!(request.starts_with("GET /readyz HTTP/1.1\r\n"), "{request}");
    assert!(
        request.contains(&format!("Host: {address}\r\n")),
        "{request}"
    );
}

#[test]
fn a_gateway_without_its_database_is_not_ready_and_its_log_says_why() {
    let place = Place::new();
    let running = place.start();
    let file = place.file("operations.db");
    fs::rename(&file, place.file("elsewhere.db")).expect("to be moved");
    fs::write(&file, "").expect("a file");
    let output = wait_for("the loss to be noticed", || {
        let output = check(&listening_on(running.authority()));
        (output.status.code() != Some(0)).then_some(output)
    });
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(message.contains("\"store\""), "{message}");
    let reason = "the store is unavailable: the database file was replaced by another";
    assert!(running.log().contains(reason), "{}", running.log());
}

#[test]
fn whatever_is_no_gateway_is_status_1() {
    let endless = format!("HTTP/1.1 200 OK\r\nServer: {}", "x".repeat(5000)).leak();
    for answer in [
        endless,
        "",
        "200",
        "SSH-2.0-x 201\r\n",
        "HTTP/1.1 404 200\r\n\r\n200",
        "garbage 200 yes\r\n\r\n{}",
        "HTTP/2 200 OK\r\n\r\n{}",
        "HTTP/1.1 2000 OK\r\n\r\n{}",
        "HTTP/1.1  200 OK\r\n\r\n{}",
        "HTTP/1.10 200 OK\r\n\r\n{}",
        "HTTP/1.x 200 OK\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n{}",
    ] {
        let (address, _peer) = answering(answer);
        let output = check(&listening_on(&address));
        assert_eq!(output.status.code(), Some(1), "{answer:?}");
        assert!(!output.stderr.is_empty(), "{answer:?}");
    }
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("an address").to_string();
    drop(free);
    let output = check(&listening_on(&address));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_gateway_that_does_not_answer_is_given_up_after_a_few_seconds() {
    // It takes connections and never reads from them.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let began = Instant::now();
    let output = check(&listening_on(&address));
    assert_eq!(output.status.code(), Some(1));
    assert!(began.elapsed() < Duration::from_secs(20));
    let message = text(&output.stderr);
    assert!(message.contains("timed out"), "{message}");
}

#[test]
fn an_address_that_cannot_be_read_is_status_1_too() {
    let output = check(&listening_on("everywhere"));
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(message.contains("server.listen"), "{message}");
}

#[test]
fn the_database_of_the_compose_file_is_healthy_once_it_answers_over_the_network() {
    let compose = Path::new(env!("CARGO_MANIFEST_DIR")).join("compose.yaml");
    let compose = fs::read_to_string(compose).expect("the compose file");
    let check = |line: &str| {
        let check = line.trim().strip_prefix("test: [CMD, pg_isready, ")?;
        let words = check.strip_suffix(']')?.split(", ");
        Some(words.map(str::to_owned).collect::<Vec<String>>())
    };
    let check = compose.lines().find_map(check).expect("a check");
    let sockets = TempDir::new().expect("a folder");
    let ready = |port: u16, arguments: &[String]| {
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::split_paths(&path).chain([programs()]);
        Command::new("pg_isready")
            .args(arguments)
            .env("PATH", env::join_paths(path).expect("a path"))
            .env("PGHOST", sockets.path())
            .env("PGPORT", port.to_string())
            .status()
            .expect("pg_isready")
            .success()
    };
    // While the image sets the database up, its server answers on a socket alone.
    let port = free_port();
    let socket = sockets.path().join(format!(".s.PGSQL.{port}"));
    let socket = UnixListener::bind(socket).expect("a socket");
    thread::spawn(move || {
        for stream in socket.incoming() {
            let mut stream = stream.expect("a connection");
            let _request = stream.read(&mut [0; 1024]).expect("a request");
            // "AuthenticationOk" of the protocol.
            stream.write_all(b"R\0\0\0\x08\0\0\0\0").expect("an answer");
        }
    });
    assert!(ready(port, &[]), "the socket does not answer");
    assert!(!ready(port, &check), "healthy before it can be reached");

    let server = Server::start(None);
    let url = server.database().url();
    let (_, port) = url.rsplit_once(':').expect("a port");
    let (port, _) = port.split_once('/').expect("a port");
    assert!(ready(port.parse().expect("a port"), &check));
}
