//! The cloud as a client sees it, by a client that is nothing but a socket.

mod faults;
mod iam;
mod oms;
mod sms;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{Cloud, CloudOptions};

const LIMIT: Duration = Duration::from_secs(10);

/// An hour, for delays that only `advance` can end.
const LONG: Duration = Duration::from_hours(1);

/// What came back.
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn code(&self) -> String {
        self.json()["error_code"].as_str().unwrap().to_owned()
    }
}

/// Sends a request and leaves the connection open.
fn send(url: &str, request: &str, headers: &str, body: &str) -> TcpStream {
    let host = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let length = body.len();
    let text = format!(
        "{request} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

/// Everything that comes until the end of the connection.
fn read_all(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn parse(text: &str) -> Reply {
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Reply {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

fn exchange(url: &str, request: &str, headers: &str, body: &str) -> Reply {
    parse(&read_all(send(url, request, headers, body)))
}

/// A cloud and a token for it.
struct Setup {
    cloud: Cloud,
    token: String,
}

impl Setup {
    fn new(change: impl FnOnce(&mut CloudOptions)) -> Self {
        let mut options = CloudOptions::default();
        change(&mut options);
        let cloud = Cloud::start(options).unwrap();
        let token = cloud.issue_token();
        Self { cloud, token }
    }

    fn headers(&self) -> String {
        format!(
            "x-auth-token: {}\r\ncontent-type: application/json\r\n",
            self.token
        )
    }

    fn oms(&self, method: &str, rest: &str, body: &str) -> Reply {
        let project = self.cloud.account().project_id;
        let request = format!("{method} /v2/{project}/tasks{rest}");
        exchange(&self.cloud.oms_url(), &request, &self.headers(), body)
    }

    fn sms(&self, method: &str, rest: &str, body: &str) -> Reply {
        let request = format!("{method} /v3/tasks{rest}");
        exchange(&self.cloud.sms_url(), &request, &self.headers(), body)
    }

    fn act(&self, id: &str, operation: &str) -> Reply {
        let body = json!({"operation": operation}).to_string();
        self.sms("POST", &format!("/{id}/action"), &body)
    }
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "waited too long: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_stopped_cloud_gives_its_ports_back() {
    // Another test may be given a port that just became free, hence more than one try.
    let comes_back = || {
        let cloud = Cloud::start(CloudOptions::default()).unwrap();
        let address = cloud.iam_url().replace("http://", "");
        cloud.stop();
        let refused = TcpStream::connect(&address).is_err();
        let port = address.rsplit(':').next().unwrap().parse().unwrap();
        let options = CloudOptions {
            ports: [port, 0, 0],
            ..CloudOptions::default()
        };
        let again = Cloud::start(options);
        refused && again.is_ok_and(|again| again.iam_url() == cloud.iam_url())
    };
    assert!((0..5).any(|_| comes_back()));
}

#[test]
fn a_handle_goes_to_any_thread() {
    fn takes<T: Clone + Send + Sync + 'static>(_: &T) {}
    let cloud = Cloud::start(CloudOptions::default()).unwrap();
    takes(&cloud);
    let handle = cloud.clone();
    drop(cloud);
    let tasks = std::thread::spawn(move || handle.seed().len());
    assert_eq!(tasks.join().unwrap(), 30);
}

#[test]
fn seeds_have_stable_ids_and_every_state() {
    let (one, other) = (Setup::new(|_| {}), Setup::new(|_| {}));
    let seeds = one.cloud.seed();
    assert_eq!(seeds, other.cloud.seed());
    for status in ["0", "1", "2", "3", "4", "5", "6", "7", "42"] {
        assert!(seeds.iter().any(|task| task.state == status), "{status}");
    }
    let states = "READY RUNNING SYNCING MIGRATE_SUCCESS SYNC_SUCCESS MIGRATE_FAIL SYNC_FAIL ABORTING \
        ABORT SKIPPING DELETING RESETING SYNC_F_ROLLBACKING SYNC_F_ROLLBACK_SUCCESS";
    for state in states.split(' ') {
        assert!(seeds.iter().any(|task| task.state == state), "{state}");
    }
    let oms = one.oms("GET", "?limit=100", "").json();
    assert_eq!(oms["count"], 13);
    assert_eq!(oms["tasks"].as_array().unwrap().len(), 13);
    let sms = one.sms("GET", "", "").json();
    assert_eq!(sms["tasks"].as_array().unwrap().len(), 17);
}

#[test]
fn the_record_knows_what_was_asked_and_keeps_no_token() {
    let setup = Setup::new(|_| {});
    let id = setup.cloud.add_oms(super::OmsSpec::new("a", 2));
    setup.oms("POST", &format!("/{id}/stop?x=1"), "");
    let headers = "x-auth-token: strange\r\naccept: text/plain\r\n";
    exchange(&setup.cloud.sms_url(), "GET /v3/tasks", headers, "");
    let [stop, list] = setup.cloud.requests().try_into().unwrap();
    assert_eq!(stop.operation, super::Operation::Pause);
    assert_eq!(stop.task.as_deref(), Some(id.as_str()));
    assert_eq!((stop.query.as_str(), stop.status), ("x=1", Some(200)));
    assert_eq!((stop.token, stop.token_valid), (Some(0), true));
    assert_eq!((list.token, list.token_valid), (None, false));
    assert_eq!(list.status, Some(401));
    assert_eq!(list.header("accept"), Some("text/plain"));
    assert_eq!(list.header("x-auth-token"), None);
    assert_eq!(setup.cloud.count(super::Operation::Pause, Some(&id)), 1);
    assert_eq!(setup.cloud.count(super::Operation::Pause, Some("7")), 0);
    setup.cloud.clear_requests();
    assert!(setup.cloud.requests().is_empty());
}
