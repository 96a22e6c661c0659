//! Events in the form that goes over the wire (HTML Living Standard, section 9.2).

use actix_web::web::Bytes;
use serde::Serialize;

/// One event.
pub(in crate::api) struct Message {
    /// What a caller who was cut off sends as `Last-Event-ID`. Without one, that of the event
    /// before stands.
    pub(in crate::api) id: Option<String>,
    /// The name by which callers tell events apart.
    pub(in crate::api) name: &'static str,
    /// JSON on one line.
    data: String,
    /// Whether the stream ends with it.
    pub(in crate::api) is_last: bool,
}

impl Message {
    /// An event after which the stream goes on.
    pub(in crate::api) fn new(
        name: &'static str,
        id: Option<String>,
        document: &impl Serialize,
    ) -> Self {
        Self {
            id,
            name,
            // A document of our own types always serialises, and JSON has its newlines escaped.
            data: serde_json::to_string(document).unwrap_or_default(),
            is_last: false,
        }
    }

    /// The same as the last of its stream.
    pub(in crate::api) fn last(self) -> Self {
        Self {
            is_last: true,
            ..self
        }
    }

    pub(super) fn encode(&self) -> Bytes {
        let id = self.id.as_ref().map(|id| format!("id: {id}\n"));
        let id = id.unwrap_or_default();
        format!("{id}event: {}\ndata: {}\n\n", self.name, self.data).into()
    }
}

/// A line that is no event.
pub(super) fn comment(text: &str) -> Bytes {
    format!(": {text}\n\n").into()
}
