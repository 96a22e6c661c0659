//! An answer before it is sent, and the error bodies of the three services.

use serde_json::{Value, json};

use super::options::ControlBody;

/// A complete HTTP answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The media type; `None` sends no `Content-Type`.
    pub content_type: Option<String>,
    /// Further headers, in the order in which they are sent.
    pub headers: Vec<(String, String)>,
    /// The body, sent with its length.
    pub body: Vec<u8>,
}

impl Answer {
    /// A JSON body.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::text(status, "application/json", body.to_string())
    }

    /// A body of any media type.
    pub fn text(status: u16, content_type: &str, body: impl Into<String>) -> Self {
        Self {
            status,
            content_type: Some(content_type.to_owned()),
            headers: Vec::new(),
            body: body.into().into_bytes(),
        }
    }

    /// No body at all.
    pub fn empty(status: u16) -> Self {
        Self {
            status,
            content_type: None,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// An error in the shape of OMS and SMS: `error_code` and `error_msg`.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        Self::json(status, &json!({"error_code": code, "error_msg": message}))
    }

    /// An error of the token call, in the shape that only it has: a numeric code below `error`.
    pub fn keystone(status: u16, title: &str, message: &str) -> Self {
        let error = json!({"error": {"code": status, "message": message, "title": title}});
        Self::json(status, &error)
    }

    /// The long denial of SMS: `SMS.9004` with parameters, details and an encoded message.
    pub fn sms_denied(action: &str) -> Self {
        let why = format!(
            "You do not have permission to perform action {action} on resource sms:server:*."
        );
        let whole =
            format!("The current account does not have the permission to execute policy. {why}");
        Self::json(
            403,
            &json!({
                "error_code": "SMS.9004",
                "error_msg": whole,
                "encoded_authorization_message": "b2JmdXNjYXRlZA==",
                "error_param": [why],
                "details": [{"error_code": "SMS.9004", "error_msg": why}],
            }),
        )
    }

    /// The denial of OMS: `OMS.0206`.
    pub fn oms_denied() -> Self {
        Self::error(
            403,
            "OMS.0206",
            "Insufficient permissions. You do not have the OMS operation permissions.",
        )
    }

    /// An error of the API gateway that stands before a service; it names the request.
    pub(super) fn gateway(status: u16, code: &str, message: &str, request_id: &str) -> Self {
        let error = json!({"error_code": code, "error_msg": message, "request_id": request_id});
        Self::json(status, &error)
    }

    /// The answer to an accepted control call, for which no body is documented.
    pub(super) fn control(body: ControlBody) -> Self {
        match body {
            ControlBody::Empty => Self::empty(200),
            ControlBody::Braces => Self::json(200, &json!({})),
            ControlBody::Text => Self::text(200, "text/plain", "success"),
        }
    }

    /// The same answer with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}
