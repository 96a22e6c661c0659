//! The exchange itself.

use std::{cell::RefCell, sync::Arc, time::Duration};

use rustls::ClientConfig;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{coop::unconstrained, yield_now},
    time::{Instant, timeout},
};

use super::{
    Endpoint, Header, Limits, LoginResponse, Method, Purpose, Request, Response, Settings,
    TransportError, TransportErrorKind, TransportSetupError,
    answer::{self, Head},
    connector::Connector,
    prepared::Prepared,
    sent::noting_reuse,
    tls,
};

/// The most reads, and the most changes, at the same time on one thread.
pub(super) const LIMIT: usize = 64;
/// The longest wait for a free place among them.
const PLACE_WAIT: Duration = Duration::from_secs(5);
/// How long a connection for reads is kept: shorter than any idle limit of a peer worth the name.
const KEEP_ALIVE: Duration = Duration::from_secs(8);

/// HTTP to the vendor, for one thread.
///
/// Reads share kept connections. Everything else has a connection of its own, which is closed
/// afterwards: so it never meets one that the peer is about to close, which would leave open
/// whether the request was carried out.
///
/// Exchanges run inside a [`tokio::task::LocalSet`], as an actix runtime is: the HTTP client spawns
/// onto it.
///
/// A dropped future closes its connection; a request that changes something may have arrived all
/// the same.
pub struct Transport {
    connect_timeout: Duration,
    request_timeout: Duration,
    tls: Option<Arc<ClientConfig>>,
    /// The client that keeps connections. It is replaced as a whole when one of them may hold an
    /// answer that nobody has read, because that one cannot be told from the others.
    kept: RefCell<Clients>,
    single: Clients,
    reads: Arc<Semaphore>,
    changes: Arc<Semaphore>,
}

/// One client for clear text and one for TLS.
#[derive(Clone)]
struct Clients {
    plain: awc::Client,
    encrypted: Option<awc::Client>,
}

/// A place among the exchanges that run at the same time. Dropped, it is another's.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connections {
    Kept,
    Single,
}

impl Transport {
    /// Reads the trusted roots and builds the clients. Nothing is connected yet.
    ///
    /// A machine without any root is an error only for an `https` endpoint, see
    /// [`Transport::check`].
    pub fn new(settings: &Settings) -> Result<Self, TransportSetupError> {
        let tls = tls::client_config(settings.ca_file.as_deref())?;
        Ok(Self::with(settings, tls))
    }

    /// Builds a client that speaks in clear text only, and takes so long for an exchange at most.
    pub fn clear_text(request_timeout: Duration) -> Self {
        let settings = Settings {
            connect_timeout: request_timeout,
            request_timeout,
            ca_file: None,
        };
        Self::with(&settings, None)
    }

    pub(super) fn with(settings: &Settings, tls: Option<Arc<ClientConfig>>) -> Self {
        let clients = |keep_alive| Clients::new(tls.as_ref(), settings.connect_timeout, keep_alive);
        Self {
            connect_timeout: settings.connect_timeout,
            request_timeout: settings.request_timeout,
            kept: RefCell::new(clients(KEEP_ALIVE)),
            single: clients(Duration::ZERO),
            tls,
            reads: Arc::new(Semaphore::new(LIMIT)),
            changes: Arc::new(Semaphore::new(LIMIT)),
        }
    }

    /// The same one with kept connections of its own, for those whose answers must not be taken for
    /// those of others, and with places of its own, for those who must not wait for each other.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self {
            connect_timeout: self.connect_timeout,
            request_timeout: self.request_timeout,
            tls: self.tls.clone(),
            kept: RefCell::new(Clients::new(
                self.tls.as_ref(),
                self.connect_timeout,
                KEEP_ALIVE,
            )),
            single: self.single.clone(),
            reads: Arc::new(Semaphore::new(LIMIT)),
            changes: Arc::new(Semaphore::new(LIMIT)),
        }
    }

    /// Whether an endpoint can be spoken to at all. To be asked at start, so that a missing root
    /// does not show at the first request only.
    pub fn check(&self, endpoint: &Endpoint) -> Result<(), TransportSetupError> {
        if endpoint.is_secure() && self.tls.is_none() {
            return Err(TransportSetupError::NoRoots);
        }
        Ok(())
    }

    /// Sends a request with these headers and reads the whole answer, of whatever status but 1xx.
    /// Redirects are answers like any other.
    ///
    /// A read whose kept connection was closed before the first byte of the answer is sent once
    /// more, on a connection of its own and within the same time limit. Nothing else is sent twice.
    pub async fn send(
        &self,
        endpoint: &Endpoint,
        headers: &[Header],
        request: &Request,
    ) -> Result<Response, TransportError> {
        let prepared = Prepared::new(endpoint, headers, request)?;
        let answer = self.exchange(&prepared).await?;
        Ok(answer.response)
    }

    /// As [`Transport::send`], at a place that was taken before and within narrower limits. Nothing
    /// is sent twice: a read whose kept connection was closed is [`TransportErrorKind::Stale`].
    pub async fn send_once(
        &self,
        (_place, limits): (Place, Limits),
        endpoint: &Endpoint,
        headers: &[Header],
        request: &Request,
    ) -> Result<Response, TransportError> {
        let prepared = Prepared::new(endpoint, headers, request)?;
        let connections = if limits.fresh_connection {
            Connections::Single
        } else {
            prepared.connections()
        };
        let attempt = self.attempt(&prepared, connections);
        let answer = self.in_time(limits.time, &prepared, attempt).await?;
        Ok(answer.response)
    }

    /// A place for an exchange of this method, if one is free.
    pub fn place_now(&self, method: Method) -> Option<Place> {
        self.places(method).try_acquire_owned().ok().map(Place)
    }

    /// Waits for a place for an exchange of this method, until `by` at most.
    /// [`TransportErrorKind::Busy`]: there was none.
    pub async fn place(
        &self,
        method: Method,
        by: Option<Instant>,
    ) -> Result<Place, TransportError> {
        let wait = by.map_or(PLACE_WAIT, |by| {
            PLACE_WAIT.min(by.saturating_duration_since(Instant::now()))
        });
        match timeout(wait, self.places(method).acquire_owned()).await {
            Ok(Ok(place)) => Ok(Place(place)),
            Ok(Err(_)) | Err(_) => Err(TransportError::new(TransportErrorKind::Busy, method)),
        }
    }

    fn places(&self, method: Method) -> Arc<Semaphore> {
        Arc::clone(match method.purpose() {
            Purpose::Read => &self.reads,
            Purpose::Change => &self.changes,
        })
    }

    /// Sends a request for a token, which needs none itself.
    pub async fn login(
        &self,
        endpoint: &Endpoint,
        request: &Request,
    ) -> Result<LoginResponse, TransportError> {
        let prepared = Prepared::new(endpoint, &[], request)?;
        self.exchange(&prepared).await
    }

    /// Reads a document that is open to everybody, of at most so many bytes.
    pub async fn fetch(
        &self,
        endpoint: &Endpoint,
        path: &str,
        max_body: usize,
    ) -> Result<Response, TransportError> {
        let request = Request {
            method: Method::Get,
            path: path.to_owned(),
            body: None,
        };
        let mut prepared = Prepared::new(endpoint, &[], &request)?;
        prepared.max_body = max_body;
        let answer = self.exchange(&prepared).await?;
        Ok(answer.response)
    }

    async fn exchange(&self, prepared: &Prepared) -> Result<LoginResponse, TransportError> {
        let _place = self.place(prepared.method, None).await?;
        let attempts = async {
            let first = self.attempt(prepared, prepared.connections()).await;
            match first {
                Err(TransportErrorKind::Stale) => self.attempt(prepared, Connections::Single).await,
                Ok(_) | Err(_) => first,
            }
        };
        self.in_time(Duration::MAX, prepared, attempts).await
    }

    async fn in_time(
        &self,
        limit: Duration,
        prepared: &Prepared,
        work: impl Future<Output = Result<LoginResponse, TransportErrorKind>>,
    ) -> Result<LoginResponse, TransportError> {
        let result = timeout(self.request_timeout.min(limit), work).await;
        result
            .unwrap_or(Err(TransportErrorKind::Timeout))
            .map_err(|kind| prepared.fails(kind))
    }

    async fn attempt(
        &self,
        prepared: &Prepared,
        connections: Connections,
    ) -> Result<LoginResponse, TransportErrorKind> {
        prepared.status.set(None);
        if connections == Connections::Kept {
            // Lets the runtime look at the sockets: the client gives up a kept connection on which
            // something came unasked, but only if the runtime knows of it.
            yield_now().await;
        }
        let request = match connections {
            Connections::Kept => prepared.on(self.kept.borrow().get(prepared.secure)?),
            // The client honours only its own word here, not the peer's wish to keep the
            // connection.
            Connections::Single => prepared.on(self.single.get(prepared.secure)?).force_close(),
        };
        // Choosing the client and taking a connection from its pool happen in one poll: in between,
        // another exchange could find the pool spoilt and replace it. Hence no budget of the
        // scheduler, which could end the poll, and no limit in the client, which could make it
        // wait; the limit is the one above.
        let sending = unconstrained(request.send_body(prepared.body()));
        let (answer, reuses) = noting_reuse(sending).await;
        let mut answer = answer?;
        prepared.status.set(Some(answer.status().as_u16()));
        // The client puts a connection back as soon as it expects no more of an answer, although
        // the real answer, or a body, may be still to come. Before anybody else is polled, the pool
        // that holds it is given up.
        let fault = answer::fault(&answer);
        if fault.is_some() || answer::is_bodiless(&answer) {
            self.give_up(connections);
        }
        if let Some(kind) = fault {
            return Err(kind);
        }
        let mut head = Head::of(&answer, reuses);
        let token = head.token.take();
        let body = answer.body().limit(prepared.max_body).await?;
        let Some(response) = head.with(body) else {
            self.give_up(connections);
            return Err(TransportErrorKind::Malformed);
        };
        Ok(LoginResponse { response, token })
    }

    fn give_up(&self, connections: Connections) {
        if connections == Connections::Kept {
            self.distrust();
        }
    }

    /// Uses none of the kept connections again. To be called when an answer may have been meant for
    /// another request: then the next ones on its connection would be too.
    pub fn distrust(&self) {
        let fresh = Clients::new(self.tls.as_ref(), self.connect_timeout, KEEP_ALIVE);
        let _spoilt = self.kept.replace(fresh);
    }
}

impl Prepared {
    /// Which connections it goes over, unless it must not share one.
    fn connections(&self) -> Connections {
        match self.method.purpose() {
            Purpose::Read => Connections::Kept,
            Purpose::Change => Connections::Single,
        }
    }
}

impl Clients {
    fn new(
        tls: Option<&Arc<ClientConfig>>,
        connect_timeout: Duration,
        keep_alive: Duration,
    ) -> Self {
        let client = |tls: Option<Arc<ClientConfig>>| {
            let connector = awc::Connector::new()
                .connector(Connector::new(tls))
                .timeout(connect_timeout)
                .conn_keep_alive(keep_alive)
                .limit(0);
            awc::Client::builder()
                .disable_redirects()
                .disable_timeout()
                .no_default_headers()
                .connector(connector)
                .finish()
        };
        Self {
            plain: client(None),
            encrypted: tls.map(|tls| client(Some(Arc::clone(tls)))),
        }
    }

    fn get(&self, secure: bool) -> Result<&awc::Client, TransportErrorKind> {
        if secure {
            self.encrypted.as_ref().ok_or(TransportErrorKind::Tls)
        } else {
            Ok(&self.plain)
        }
    }
}
