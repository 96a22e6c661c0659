//! Bodies of requests. They are read once the caller is known, with a limit on their size and time;
//! whatever is wrong in them is told by its place, never by its value, since values can be secrets.

use std::{
    future::{Future, Ready, ready},
    pin::Pin,
    time::Duration,
};

use actix_web::{FromRequest, HttpRequest, dev::Payload, http::header, web};
use futures_util::StreamExt as _;
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::{
    api::{
        problem::{Problem, RequestFault, kinds::ProblemType},
        request::{
            is_plain_name,
            json::{self, Document},
        },
    },
    domain::secret::Secret,
    listener::Exchange,
};

/// How long the body of a request may take to arrive. Nothing else limits it.
const ARRIVAL_MAX: Duration = Duration::from_secs(10);

/// A body that means nothing, since the request only reads: it is left where it is.
pub(in crate::api) struct Unread;

impl FromRequest for Unread {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(_request: &HttpRequest, _body: &mut Payload) -> Self::Future {
        ready(Ok(Self))
    }
}

/// A request that brings no body. One that does is refused, since whoever sent it expects something
/// of it.
///
/// Some client libraries send a body of no bytes in chunks, which is no body, but has to be read to
/// be known as one.
pub(in crate::api) struct NoBody;

impl FromRequest for NoBody {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, body: &mut Payload) -> Self::Future {
        let headers = request.headers();
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .is_some_and(|length| length != "0");
        let chunked = headers.contains_key(header::TRANSFER_ENCODING);
        if chunked {
            ask_for(request);
        }
        let mut body = body.take();
        Box::pin(async move {
            if announced {
                return Err(unwanted());
            }
            // No chunk is empty but the last one, which the stream leaves out.
            let first = if chunked {
                timeout(ARRIVAL_MAX, body.next()).await
            } else {
                Ok(None)
            };
            match first {
                Ok(None) => Ok(Self),
                Ok(Some(Ok(_))) => Err(unwanted()),
                Ok(Some(Err(_))) => Err(Problem::fault("body", "", "The body cannot be read.")),
                Err(_) => Err(late()),
            }
        })
    }
}

/// Has the body of a request read from its connection.
fn ask_for(request: &HttpRequest) {
    if let Some(exchange) = request.conn_data::<Exchange>() {
        exchange.ask_for_body();
    }
}

fn unwanted() -> Problem {
    Problem::fault("body", "", "This request takes no body.")
}

fn late() -> Problem {
    Problem::fault("body", "", "The body did not arrive in time.")
}

/// The largest body of a start, the only request that brings one. The longest keys for two buckets
/// have 33 KiB, nearly all of it two security tokens of 16,384 characters; as much again is room
/// for what encoders write with a backslash.
pub(in crate::api) const START_MAX: usize = 64 << 10;

/// The bytes of a start's body.
pub(in crate::api) struct StartBytes {
    bytes: web::Bytes,
    is_json: bool,
}

impl StartBytes {
    /// Whether there was a body at all.
    pub(in crate::api) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl FromRequest for StartBytes {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, body: &mut Payload) -> Self::Future {
        let is_json = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
        ask_for(request);
        let bytes = web::Bytes::from_request(request, body);
        Box::pin(async move {
            let Ok(bytes) = timeout(ARRIVAL_MAX, bytes).await else {
                return Err(late());
            };
            match bytes {
                Ok(bytes) => Ok(Self { bytes, is_json }),
                Err(error) if error.as_response_error().status_code() == 413 => Err(Problem::new(
                    ProblemType::PayloadTooLarge,
                    "The body is too large.",
                )),
                Err(_) => Err(Problem::fault("body", "", "The body cannot be read.")),
            }
        })
    }
}

fn repeated_member(pointer: String) -> RequestFault {
    RequestFault {
        location: "body",
        pointer,
        detail: "A member of an object may be given once only.".to_owned(),
    }
}

/// The members of a JSON object, taken out one by one; whatever is left at the end is a fault.
pub(in crate::api) struct JsonReader {
    prefix: String,
    members: Map<String, Value>,
    faults: Vec<RequestFault>,
}

impl JsonReader {
    /// Reads a body that must be one JSON object.
    pub(in crate::api) fn of(body: &StartBytes) -> Result<Self, Problem> {
        if body.is_empty() {
            return Err(Problem::fault(
                "body",
                "",
                "A JSON object is needed in the body.",
            ));
        }
        if !body.is_json {
            let detail = "The body must be JSON: send Content-Type: application/json.";
            return Err(Problem::fault("header", "Content-Type", detail));
        }
        match json::read(&body.bytes) {
            Ok(Document {
                value: Value::Object(members),
                repeated,
            }) => Ok(Self {
                prefix: String::new(),
                members,
                faults: repeated.into_iter().map(repeated_member).collect(),
            }),
            Ok(_) => Err(Problem::fault(
                "body",
                "",
                "The body must be a JSON object.",
            )),
            Err(error) => {
                let (line, column) = (error.line(), error.column());
                let detail = format!("The body is not JSON: line {line}, column {column}.");
                Err(Problem::fault("body", "", detail))
            }
        }
    }

    /// Takes a member out.
    pub(in crate::api) fn take(&mut self, member: &str) -> Option<Value> {
        self.members.remove(member)
    }

    /// Takes a member out that is `true` or `false`.
    pub(in crate::api) fn boolean(&mut self, member: &str) -> Option<bool> {
        let value = self.take(member)?.as_bool();
        if value.is_none() {
            self.fault(member, format!("{member} must be true or false."));
        }
        value
    }

    /// Takes a member out that is a secret text of at most so many characters, visible ASCII only,
    /// since it goes into a request to the cloud.
    pub(in crate::api) fn secret(
        &mut self,
        member: &str,
        length_max: usize,
        is_required: bool,
    ) -> Option<Secret> {
        match self.take(member) {
            None | Some(Value::Null) if !is_required => None,
            Some(Value::String(text))
                if (1..=length_max).contains(&text.len())
                    && text.bytes().all(|byte| byte.is_ascii_graphic()) =>
            {
                Some(Secret::new(text))
            }
            _ => {
                self.fault(
                    member,
                    format!(
                        "{member} must be a text of 1 to {length_max} visible ASCII characters."
                    ),
                );
                None
            }
        }
    }

    /// A reader for an object inside this one.
    pub(in crate::api) fn nested(&self, member: &str, members: Map<String, Value>) -> Self {
        Self {
            prefix: format!("{}/{member}", self.prefix),
            members,
            faults: Vec::new(),
        }
    }

    /// Adds a fault.
    pub(in crate::api) fn fault(&mut self, member: &str, detail: impl Into<String>) {
        self.faults.push(RequestFault {
            location: "body",
            pointer: format!("{}/{member}", self.prefix),
            detail: detail.into(),
        });
    }

    /// Hands the faults of an object to the one around it.
    pub(in crate::api) fn end_into(mut self, outer: &mut Self) {
        self.refuse_the_rest();
        outer.faults.append(&mut self.faults);
    }

    /// All faults, members that nobody asked for included.
    pub(in crate::api) fn end(mut self) -> Result<(), Problem> {
        self.refuse_the_rest();
        if self.faults.is_empty() {
            Ok(())
        } else {
            Err(Problem::invalid(self.faults))
        }
    }

    fn refuse_the_rest(&mut self) {
        for (member, _) in std::mem::take(&mut self.members) {
            if is_plain_name(&member) {
                self.fault(&member, "This member is not known.");
            } else {
                let detail = "A member of this object is not known; its name is not repeated here.";
                self.faults.push(RequestFault {
                    location: "body",
                    pointer: self.prefix.clone(),
                    detail: detail.to_owned(),
                });
            }
        }
    }
}
