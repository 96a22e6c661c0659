//! A caller of the gateway.

use std::{
    io::{BufRead as _, BufReader, Lines},
    time::Duration,
};

use serde_json::Value;
use ureq::{Agent, Body, BodyReader, http, tls::TlsConfig};

use super::{PATIENCE, wait_within};

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    fn read(mut response: http::Response<Body>) -> Self {
        let text = response
            .body_mut()
            .read_to_string()
            .expect("a body of text");
        Self {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text,
        }
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .map(|value| value.to_str().expect("a header of text"))
    }

    /// The last part of a problem's type.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let document = self.json();
        assert_eq!(document["status"], self.status, "{self:?}");
        let kind = document["type"].as_str().expect("a type");
        kind.strip_prefix("/problems/")
            .expect("a relative type")
            .to_owned()
    }
}

/// One event of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) name: String,
    pub(crate) data: Value,
}

/// A stream of events, until it ends.
pub(crate) struct Events {
    lines: Lines<BufReader<BodyReader<'static>>>,
    /// The comments that came so far.
    pub(crate) comments: Vec<String>,
}

impl Events {
    /// Reads a heartbeat, before which there must be no event.
    pub(crate) fn heartbeat(&mut self) {
        for line in self.lines.by_ref() {
            let line = line.expect("a line");
            if line.starts_with(':') {
                return;
            }
            assert_eq!(line, "", "before a heartbeat");
        }
        panic!("the stream ended");
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let (mut id, mut name, mut data) = (None, None, None);
        loop {
            let line = self.lines.next()?.expect("a line");
            let (field, value) = line.split_once(": ").unwrap_or((&line, ""));
            match field {
                "" if line.is_empty() && name.is_none() => {}
                "" if line.is_empty() => break,
                "" | ":" => self.comments.push(value.to_owned()),
                "id" => id = Some(value.to_owned()),
                "event" => name = Some(value.to_owned()),
                "data" => data = Some(serde_json::from_str(value).expect("JSON")),
                "retry" => assert_eq!(value, "2000"),
                other => panic!("{other} is no field of an event"),
            }
        }
        Some(Event {
            id,
            name: name.expect("a name"),
            data: data.expect("data"),
        })
    }
}

/// One who calls the gateway, with or without a key.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    base: String,
    key: Option<String>,
    agent: Agent,
}

impl Client {
    pub(crate) fn new(base: String, key: Option<String>) -> Self {
        Self::encrypted(base, key, TlsConfig::default())
    }

    /// As [`Client::new`], for an address of `https`.
    pub(crate) fn encrypted(base: String, key: Option<String>, tls: TlsConfig) -> Self {
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(Duration::from_mins(1)))
            .build();
        Self {
            base,
            key,
            agent: config.into(),
        }
    }

    /// Sends a request.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, ureq::Error> {
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = match body {
            Some(body) => {
                let request = request.header("content-type", "application/json");
                self.agent
                    .run(request.body(body.to_string()).expect("a request"))
            }
            None => self.agent.run(request.body(()).expect("a request")),
        };
        response.map(Answer::read)
    }

    /// Sends a request with a body that says it is JSON, whatever it is.
    pub(crate) fn raw(&self, method: &str, path: &str, body: Option<&str>) -> Answer {
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("content-type", "application/json")
            .header("content-length", body.map_or(0, str::len));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let request = request.body(body.unwrap_or_default()).expect("a request");
        let answer = self.agent.run(request).map(Answer::read);
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Sends a request that must be answered.
    pub(crate) fn request(&self, method: &str, path: &str) -> Answer {
        self.send(method, path, &[], None)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request("GET", path)
    }

    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.request("DELETE", path)
    }

    pub(crate) fn post(&self, path: &str) -> Answer {
        self.request("POST", path)
    }

    /// Sends JSON.
    pub(crate) fn post_json(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[], Some(body)).expect("an answer")
    }

    /// Asks for something without waiting for its end, and gives the id of the operation.
    pub(crate) fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> String {
        let prefer = [("prefer", "respond-async")];
        let answer = self.send(method, path, &prefer, body).expect("an answer");
        assert_eq!(answer.status, 202, "{method} {path}: {answer:?}");
        answer.json()["id"].as_str().expect("an id").to_owned()
    }

    /// Asks for a forced deletion without waiting for its end, and gives the id of the operation.
    pub(crate) fn force_delete(&self, task: &str) -> String {
        self.ask("DELETE", &format!("/tasks/{task}?force=pause"), None)
    }

    /// An operation, as it stands now.
    pub(crate) fn operation(&self, id: &str) -> Value {
        let answer = self.get(&format!("/operations/{id}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Sends a request with one more header.
    pub(crate) fn with(&self, method: &str, path: &str, header: (&str, &str)) -> Answer {
        self.send(method, path, &[header], None).expect("an answer")
    }

    /// Opens a stream of events, after the event with this id if there is one. The error is what
    /// was answered instead.
    pub(crate) fn watch(&self, path: &str, last: Option<&str>) -> Result<Events, Box<Answer>> {
        let mut request = http::Request::builder().uri(format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let request = request.body(()).expect("a request");
        let response = self.agent.run(request).expect("an answer");
        let header = |name: &str| {
            response
                .headers()
                .get(name)
                .map(http::HeaderValue::as_bytes)
        };
        if header("content-type") != Some(b"text/event-stream") {
            return Err(Box::new(Answer::read(response)));
        }
        assert_eq!(header("cache-control"), Some(&b"no-store"[..]));
        assert_eq!(header("x-accel-buffering"), Some(&b"no"[..]));
        let reader = BufReader::new(response.into_body().into_reader());
        Ok(Events {
            lines: reader.lines(),
            comments: Vec::new(),
        })
    }

    /// The document of an operation once it has ended.
    pub(crate) fn ended(&self, id: &str) -> Value {
        self.ended_within(PATIENCE, id)
    }

    /// As [`Client::ended`], for so long at most.
    pub(crate) fn ended_within(&self, limit: Duration, id: &str) -> Value {
        wait_within(limit, "the end of an operation", || {
            let answer = self.get(&format!("/operations/{id}"));
            assert_eq!(answer.status, 200, "an operation was lost: {answer:?}");
            let operation = answer.json();
            (operation["status"] != "running").then_some(operation)
        })
    }
}
