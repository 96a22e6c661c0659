//! A client of a gateway, for the commands `tasks` and `operations` of this program.
//!
//! It speaks HTTP as any other caller would, blocks while it waits, and shares nothing with the
//! gateway but the words. Redirects are not followed and no proxy is used, so that the key goes to
//! the address that was given and nowhere else. Certificates are verified against the system's
//! roots and those of one more file.

mod error;
mod events;
mod problem;

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::crypto::aws_lc_rs;
use serde_json::Value;
use ureq::{
    Agent, Body, Timeout,
    http::{Request, Response, Uri, header, uri::Scheme},
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};

pub use self::{
    error::ClientError,
    events::{Event, Events},
    problem::Problem,
};
use crate::domain::secret::Secret;

/// The longest that a connection may take to be made, TLS not included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that nothing may come: two heartbeats of a stream of events and more, and longer
/// than a request waits.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// The longest that one exchange may take: longer than a stream of events lasts.
const EXCHANGE_MAX: Duration = Duration::from_mins(20);

/// Where a gateway is, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `http://` or `https://`, a host, and perhaps a port and a path that the API is below.
    pub address: String,
    /// The caller's key; requests are anonymous without one.
    pub key: Option<Secret>,
    /// A PEM file with roots to trust besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// What is asked for. It may hold keys to storage, so that it is not to be shown.
#[expect(missing_debug_implementations, reason = "a body may hold secrets")]
#[derive(Clone)]
pub struct Ask<'a> {
    /// `GET`, `POST` or `DELETE`.
    pub method: &'a str,
    /// The path and the query, encoded.
    pub target: &'a str,
    /// Headers beside those that every request has.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub body: Option<Value>,
}

impl<'a> Ask<'a> {
    /// A request without a body.
    pub fn new(method: &'a str, target: &'a str) -> Self {
        Self {
            method,
            target,
            headers: Vec::new(),
            body: None,
        }
    }
}

/// A gateway, seen by one caller.
#[derive(Clone, Debug)]
pub struct Client {
    base: String,
    key: Option<Secret>,
    /// Whether what is sent goes over a network in clear text.
    is_open: bool,
    agent: Agent,
}

impl Client {
    /// Makes ready. Nothing is sent.
    pub fn new(settings: &Settings) -> Result<Self, ClientError> {
        let (base, uri) = base(&settings.address)?;
        let is_encrypted = uri.scheme() == Some(&Scheme::HTTPS);
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("migration-gateway/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_per_read(Some(SILENCE_MAX))
            .timeout_per_write(Some(SILENCE_MAX))
            .timeout_global(Some(EXCHANGE_MAX));
        if is_encrypted {
            config = config.tls_config(tls(settings.ca_file.as_deref())?);
        }
        Ok(Self {
            base,
            key: settings.key.clone(),
            is_open: !is_encrypted && !is_loopback(&uri),
            agent: config.build().into(),
        })
    }

    /// Whether the caller's key would go over a network in clear text.
    pub fn shows_key(&self) -> bool {
        self.key.is_some() && self.is_open
    }

    /// The address of a page about an error, to be read in a browser.
    pub fn page(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The document at an address.
    pub fn get(&self, target: &str) -> Result<Value, ClientError> {
        Ok(self.send(&Ask::new("GET", target))?.1)
    }

    /// Sends a request once, and gives the status and the document of a good answer.
    pub fn send(&self, ask: &Ask<'_>) -> Result<(u16, Value), ClientError> {
        let mut response = self.exchange(ask)?;
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string();
        let text = text.map_err(|error| self.unreachable(error))?;
        let document = serde_json::from_str(&text).map_err(|_| {
            self.answered(
                status,
                &format!("its answer of status {status} is not JSON"),
            )
        })?;
        if response.status().is_success() {
            Ok((status, document))
        } else {
            Err(self.refused(status, document))
        }
    }

    /// Opens a stream of events, after the one with this id if there is one. `None`: nothing more
    /// is to come.
    pub fn watch(&self, target: &str, after: Option<&str>) -> Result<Option<Events>, ClientError> {
        let mut ask = Ask::new("GET", target);
        ask.headers.push(("accept", "text/event-stream".to_owned()));
        if let Some(after) = after {
            ask.headers.push(("last-event-id", after.to_owned()));
        }
        let mut response = self.exchange(&ask)?;
        let status = response.status().as_u16();
        let kind = response.headers().get(header::CONTENT_TYPE);
        match status {
            204 => Ok(None),
            200 if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) => {
                Ok(Some(Events::read(response.into_body())))
            }
            _ => {
                let text = response.body_mut().read_to_string();
                let text = text.map_err(|error| self.unreachable(error))?;
                let document = serde_json::from_str(&text).unwrap_or_default();
                Err(self.refused(status, document))
            }
        }
    }

    fn exchange(&self, ask: &Ask<'_>) -> Result<Response<Body>, ClientError> {
        let mut request = Request::builder()
            .method(ask.method)
            .uri(format!("{}{}", self.base, ask.target));
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", key.expose()));
        }
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        let sent = match &ask.body {
            Some(body) => request
                .header(header::CONTENT_TYPE, "application/json")
                .body(body.to_string())
                .map_err(ureq::Error::from)
                .and_then(|request| self.agent.run(request)),
            None => request
                .body(())
                .map_err(ureq::Error::from)
                .and_then(|request| self.agent.run(request)),
        };
        let response = sent.map_err(|error| self.unreachable(error))?;
        if response.status().is_redirection() {
            // Whoever is behind it is not who the key is for.
            return Err(self.foreign("it redirects, which is not followed"));
        }
        Ok(response)
    }

    fn refused(&self, status: u16, document: Value) -> ClientError {
        match Problem::read(document) {
            Some(problem) => ClientError::Problem(Box::new(problem)),
            None => self.answered(status, &format!("it answers with status {status}")),
        }
    }

    fn unreachable(&self, error: ureq::Error) -> ClientError {
        if matches!(error, ureq::Error::Timeout(Timeout::PerRead)) {
            return self.silent(SILENCE_MAX);
        }
        ClientError::Unreachable {
            address: self.base.clone(),
            source: Box::new(error),
        }
    }

    /// Of a gateway of which nothing was heard for so long.
    pub fn silent(&self, silence: Duration) -> ClientError {
        ClientError::Silent {
            address: self.base.clone(),
            silence,
        }
    }

    /// Of an answer that no gateway gives; `why` goes on a sentence about who gave it.
    pub fn foreign(&self, why: &str) -> ClientError {
        ClientError::Foreign {
            address: self.base.clone(),
            why: why.to_owned(),
            status: None,
        }
    }

    /// As [`Client::foreign`], of an answer with this status.
    fn answered(&self, status: u16, why: &str) -> ClientError {
        ClientError::Foreign {
            address: self.base.clone(),
            why: why.to_owned(),
            status: Some(status),
        }
    }
}

/// Whether an address is on this machine.
fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address: IpAddr| address.is_loopback())
}

/// An address without a slash at its end, as it is written and as it is understood.
fn base(address: &str) -> Result<(String, Uri), ClientError> {
    let base = address.trim_end_matches('/');
    let fault = || {
        let expected =
            "the address must be http:// or https://, a host, and perhaps a port and a path";
        ClientError::Settings(expected.to_owned())
    };
    let uri: Uri = base.parse().map_err(|_| fault())?;
    let is_web = [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&uri.scheme());
    let host = uri.authority().ok_or_else(fault)?;
    if !is_web || host.as_str().contains('@') || uri.query().is_some() || base.contains('#') {
        return Err(fault());
    }
    Ok((base.to_owned(), uri))
}

/// Who is trusted.
fn tls(ca_file: Option<&Path>) -> Result<TlsConfig, ClientError> {
    let system = rustls_native_certs::load_native_certs().certs;
    let mut roots: Vec<_> = system
        .iter()
        .map(|root| Certificate::from_der(root).to_owned())
        .collect();
    if let Some(path) = ca_file {
        let fault = |why: &dyn fmt::Display| {
            ClientError::Settings(format!(
                "the roots in {} cannot be used: {why}",
                path.display()
            ))
        };
        let text = std::fs::read(path).map_err(|error| fault(&error))?;
        let before = roots.len();
        for item in parse_pem(&text) {
            if let PemItem::Certificate(root) = item.map_err(|error| fault(&error))? {
                roots.push(root);
            }
        }
        if roots.len() == before {
            return Err(fault(&"there is no certificate in it"));
        }
    }
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
        .build())
}

/// A text as part of a query.
pub fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            use fmt::Write as _;
            // A string takes whatever is written to it.
            _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_of_the_web_and_holds_no_secret() {
        for (address, read) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            (
                "https://gateway.example.com/",
                "https://gateway.example.com",
            ),
            ("https://example.com/gateway", "https://example.com/gateway"),
        ] {
            assert_eq!(base(address).unwrap().0, read);
        }
        for address in [
            "",
            "gateway",
            "127.0.0.1:8080",
            "ftp://example.com",
            "http://",
            "https://user:word@example.com",
            "https://example.com?x=1",
            "https://example.com#x",
        ] {
            assert!(base(address).is_err(), "{address}");
        }
    }

    #[test]
    fn a_key_is_shown_to_a_network_only_in_clear_text() {
        for (address, key, shows) in [
            ("http://192.0.2.1", Some("k"), true),
            ("http://192.0.2.1", None, false),
            ("HTTP://192.0.2.1", Some("k"), true),
            ("http://127.0.0.1.example.com", Some("k"), true),
            ("http://localhost.example.com", Some("k"), true),
            ("HTTP://LOCALHOST:8080", Some("k"), false),
            ("HTTPS://192.0.2.1", Some("k"), false),
            ("http://127.0.0.1:8080", Some("k"), false),
            ("http://[::1]:8080", Some("k"), false),
            ("http://localhost", Some("k"), false),
            ("https://192.0.2.1", Some("k"), false),
        ] {
            let settings = Settings {
                address: address.to_owned(),
                key: key.map(Secret::new),
                ca_file: None,
            };
            assert_eq!(
                Client::new(&settings).unwrap().shows_key(),
                shows,
                "{address}"
            );
        }
    }

    #[test]
    fn a_text_keeps_its_place_in_a_query() {
        assert_eq!(encoded("a&b=c d/ä-_.~"), "a%26b%3Dc%20d%2F%C3%A4-_.~");
    }
}
