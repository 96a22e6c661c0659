//! Problem documents as a caller reads them.

use std::fmt;

use serde_json::Value;

/// An error that the gateway answered with.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The whole document.
    pub document: Value,
    /// The HTTP status.
    pub status: u16,
}

impl Problem {
    /// Reads a document; `None` if it is another one.
    pub fn read(document: Value) -> Option<Self> {
        let status = document["status"].as_u64()?.try_into().ok()?;
        document["type"].as_str()?;
        document["title"].as_str()?;
        Some(Self { document, status })
    }

    /// A member that is a text; an empty one if it is not there.
    pub fn text(&self, name: &str) -> &str {
        self.document[name].as_str().unwrap_or_default()
    }

    /// Whether it is about the caller's rights.
    pub fn is_denial(&self) -> bool {
        matches!(self.status, 401 | 403)
    }

    /// Whether the same request can have a better answer in a while, without anything being
    /// changed.
    pub fn is_passing(&self) -> bool {
        let kind = self.text("type").trim_start_matches("/problems/");
        matches!(
            kind,
            "overloaded" | "rate-limited" | "store-unavailable" | "audit-unavailable"
        )
    }

    /// Whether the gateway does not know whether it took the request on. The same request finds
    /// out.
    pub fn is_unsure(&self) -> bool {
        self.is_passing() && self.text("sent") == "unknown"
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.text("title"), self.text("detail"))
    }
}
