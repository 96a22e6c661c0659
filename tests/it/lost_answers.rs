//! The record does what it was asked for, and its answer gets lost on the way.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

use migration_gateway::sandbox::{OmsSpec, Operation};

use crate::support::{
    gateway::{Gateway, Place},
    http::Answer,
};

/// A way to a server on which the answer to a commit can get lost.
struct Way {
    address: SocketAddr,
    trouble: Arc<Mutex<Trouble>>,
}

#[derive(Default)]
struct Trouble {
    /// The connection whose transaction writes this is cut before its commit is passed on.
    cut_before: Option<String>,
    /// The one after that whose transaction writes this is cut when its commit has been passed on.
    cut_after: Option<String>,
    /// Whether all others are cut then too, and nobody gets through any more.
    closes: bool,
    is_closed: bool,
    /// Their ends at the gateway.
    connections: Vec<TcpStream>,
}

impl Way {
    fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let way = Self {
            address: listener.local_addr().expect("an address"),
            trouble: Arc::default(),
        };
        let trouble = Arc::clone(&way.trouble);
        thread::spawn(move || {
            for near in listener.incoming() {
                let near = near.expect("a connection");
                let mut trouble_now = trouble.lock().expect("trouble");
                if trouble_now.is_closed {
                    continue;
                }
                let far = TcpStream::connect(server).expect("a server");
                let end = near.try_clone().expect("a connection");
                trouble_now.connections.push(end);
                pass_on(near, far, &trouble);
            }
        });
        way
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().expect("trouble")
    }
}

fn pass_on(near: TcpStream, far: TcpStream, trouble: &Arc<Mutex<Trouble>>) {
    let ends = [&near, &far].map(|end| end.try_clone().expect("a connection"));
    let trouble = Arc::clone(trouble);
    thread::spawn(move || requests(ends, &trouble));
    thread::spawn(move || copy([far, near], |_| Cut::None));
}

/// Where a connection is cut.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    None,
    Before,
    After,
}

/// Passes bytes on to the end, or up to a cut: there is no answer to what comes before it.
fn copy([mut from, mut to]: [TcpStream; 2], mut cut: impl FnMut(&[u8]) -> Cut) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        let cut = cut(&bytes[..length]);
        if cut != Cut::None {
            let _ended = from.shutdown(Shutdown::Both);
        }
        if cut == Cut::Before || to.write_all(&bytes[..length]).is_err() || cut == Cut::After {
            break;
        }
    }
    for end in [from, to] {
        // The other direction may have ended it.
        let _ended = end.shutdown(Shutdown::Both);
    }
}

fn requests(ends: [TcpStream; 2], trouble: &Mutex<Trouble>) {
    let mut transaction = String::new();
    copy(ends, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        if text.contains("BEGIN") {
            transaction.clear();
        }
        transaction.push_str(&text);
        let mut trouble = trouble.lock().expect("trouble");
        let is_of = |written: &mut String| transaction.contains(written.as_str());
        if !text.contains("COMMIT") {
            return Cut::None;
        }
        if trouble.cut_before.take_if(is_of).is_some() {
            return Cut::Before;
        }
        if trouble.cut_after.take_if(is_of).is_some() {
            trouble.is_closed = trouble.closes;
            if trouble.is_closed {
                for end in trouble.connections.drain(..) {
                    let _ended = end.shutdown(Shutdown::Both);
                }
            }
            return Cut::After;
        }
        Cut::None
    });
}

/// A gateway that reaches its record by such a way.
fn start() -> (Place, Way, Gateway) {
    let place = Place::postgres();
    let url = place.url();
    let (user, rest) = url.split_once('@').expect("a user");
    let (server, database) = rest.split_once('/').expect("a database");
    let way = Way::to(server.parse().expect("an address"));
    let url = format!("\"{user}@{}/{database}\"", way.address);
    let place = place.set("store.url", &url);
    let gateway = place.start();
    (place, way, gateway)
}

fn delete(gateway: &Gateway, task: &str, key: Option<&str>) -> Answer {
    let mut headers = vec![("Prefer", "respond-async")];
    headers.extend(key.map(|key| ("Idempotency-Key", key)));
    let path = format!("/tasks/{task}?force=pause");
    let client = gateway.client();
    client
        .send("DELETE", &path, &headers, None)
        .expect("an answer")
}

/// Every commit of an operation takes a second from here on.
fn commit_slowly(place: &Place) {
    place.sql(
        "CREATE FUNCTION take_long() RETURNS trigger LANGUAGE plpgsql \
         AS $$ BEGIN PERFORM pg_sleep(1); RETURN NULL; END $$; \
         CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON operations \
         DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION take_long()",
    );
}

#[test]
fn a_second_commit_that_is_still_on_its_way_is_not_said_to_be_none() {
    let (place, way, gateway) = start();
    commit_slowly(&place);
    let task = place.cloud.add_oms(OmsSpec::new("logs", 2));
    way.trouble().cut_before = Some(task.clone());
    way.trouble().cut_after = Some(task.clone());
    let answer = delete(&gateway, &task, Some("the-same"));
    assert_eq!(way.trouble().cut_after, None, "nothing was cut");
    assert_eq!(answer.problem(), "store-unavailable", "{answer:?}");
    assert_eq!(answer.json()["sent"], "unknown", "{answer:?}");
    crate::support::wait_for("the commit", || {
        (place.sql("SELECT 1 FROM operations") == 1).then_some(())
    });
    let again = delete(&gateway, &task, Some("the-same"));
    let id = again.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(gateway.client().ended(&id)["outcome"], "deleted");
    assert_eq!(place.cloud.count(Operation::Delete, Some(&task)), 1);
}

#[test]
fn a_commit_whose_answer_is_lost_is_an_operation_also_if_it_takes_long() {
    let (place, way, gateway) = start();
    commit_slowly(&place);
    let task = place.cloud.add_oms(OmsSpec::new("logs", 2));
    way.trouble().cut_after = Some(task.clone());
    let answer = delete(&gateway, &task, None);
    assert_eq!(way.trouble().cut_after, None, "nothing was cut");
    assert_eq!(answer.status, 202, "{answer:?}");
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(gateway.client().ended(&id)["outcome"], "deleted");
    assert_eq!(place.cloud.count(Operation::Delete, Some(&task)), 1);
    assert_eq!(place.sql("SELECT 1 FROM operations"), 1);
}

#[test]
fn whoever_is_not_told_whether_it_was_recorded_can_safely_repeat_it() {
    for key in [None, Some("the-same")] {
        let (place, way, gateway) = start();
        // It goes on being paused, so that a repeat finds it running.
        let task = place.cloud.add_oms(OmsSpec::new("logs", 7));
        way.trouble().closes = true;
        way.trouble().cut_after = Some(task.clone());
        let answer = delete(&gateway, &task, key);
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.problem(), "store-unavailable");
        assert_eq!(answer.json()["sent"], "unknown", "{answer:?}");
        let detail = answer.json()["detail"].to_string();
        for part in ["may have been recorded", "safe", "Idempotency-Key"] {
            assert!(detail.contains(part), "{detail}");
        }
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
        way.trouble().is_closed = false;
        let again = crate::support::wait_for("the record", || {
            let again = delete(&gateway, &task, key);
            (again.status != 503).then_some(again)
        });
        assert_eq!(again.status, 202, "{again:?}");
        let replayed = again.header("idempotency-replayed");
        assert_eq!(replayed.is_some(), key.is_some(), "{again:?}");
        assert_eq!(place.sql("SELECT 1 FROM operations"), 1);
        assert!(place.cloud.set_oms_status(&task, 3));
        let id = again.json()["id"].as_str().expect("an id").to_owned();
        assert_eq!(gateway.client().ended(&id)["outcome"], "deleted");
    }
}

#[test]
fn a_join_and_a_cancel_whose_answers_are_lost_are_not_said_to_be_none() {
    let (place, way, gateway) = start();
    let task = place.cloud.add_oms(OmsSpec::new("logs", 7));
    let accepted = delete(&gateway, &task, None);
    let id = accepted.json()["id"].as_str().expect("an id").to_owned();
    let unsure = |answer: Answer| {
        assert_eq!(way.trouble().cut_after, None, "nothing was cut");
        assert_eq!(answer.problem(), "store-unavailable", "{answer:?}");
        assert_eq!(answer.json()["sent"], "unknown", "{answer:?}");
        answer.json()["detail"].as_str().expect("text").to_owned()
    };
    way.trouble().cut_after = Some("a-joining-key".to_owned());
    let detail = unsure(delete(&gateway, &task, Some("a-joining-key")));
    assert!(detail.contains("Repeat the request"), "{detail}");
    let again = delete(&gateway, &task, Some("a-joining-key"));
    assert_eq!(again.json()["id"], id, "{again:?}");
    assert!(
        again.header("idempotency-replayed").is_some(),
        "it had joined: {again:?}"
    );
    way.trouble().cut_after = Some("cancelled".to_owned());
    let cancel = format!("/operations/{id}/cancel");
    let cancelling = || {
        let client = gateway.client();
        client.with("POST", &cancel, ("Content-Length", "0"))
    };
    let detail = unsure(cancelling());
    assert!(detail.contains("cancel it again"), "{detail}");
    assert_eq!(cancelling().json()["status"], "cancelled");
}
