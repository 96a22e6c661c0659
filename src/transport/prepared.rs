//! A request in the words of HTTP. Every header that leaves is named here, or by whoever sends the
//! request.

use std::cell::Cell;

use awc::{
    ClientRequest,
    http::{
        self, Uri,
        header::{ACCEPT, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT},
    },
};
use bytes::Bytes;

use super::{
    Endpoint, Header, Method, Request, TransportError, TransportErrorKind, answer::MAX_BODY,
};

const AGENT: &str = concat!("migration-gateway/", env!("CARGO_PKG_VERSION"));
const JSON: HeaderValue = HeaderValue::from_static(super::CONTENT_TYPE);

/// A request that can be written, as often as needed.
pub(super) struct Prepared {
    pub(super) method: Method,
    pub(super) secure: bool,
    /// The largest body of an answer that is read.
    pub(super) max_body: usize,
    address: Uri,
    host: HeaderValue,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    /// The status of the answer, once its head has come.
    pub(super) status: Cell<Option<u16>>,
}

impl Prepared {
    pub(super) fn new(
        endpoint: &Endpoint,
        headers: &[Header],
        request: &Request,
    ) -> Result<Self, TransportError> {
        let unsendable = || TransportError::new(TransportErrorKind::Unsendable, request.method);
        if !request.path.starts_with('/') {
            return Err(unsendable());
        }
        let address = endpoint.client_address(&request.path);
        let host = HeaderValue::try_from(endpoint.host_header()).map_err(|_| unsendable())?;
        let mut own = Vec::with_capacity(headers.len());
        for header in headers {
            let name = HeaderName::try_from(header.name).map_err(|_| unsendable())?;
            let value = HeaderValue::from_str(header.value.expose());
            let mut value = value.map_err(|_| unsendable())?;
            value.set_sensitive(true);
            own.push((name, value));
        }
        Ok(Self {
            method: request.method,
            secure: endpoint.is_secure(),
            max_body: MAX_BODY,
            address: address.parse().map_err(|_| unsendable())?,
            host,
            headers: own,
            body: request.content(),
            status: Cell::new(None),
        })
    }

    /// The request as this client writes it. The content type is sent with every request, since SMS
    /// demands it even where there is no content.
    pub(super) fn on(&self, client: &awc::Client) -> ClientRequest {
        let method = match self.method {
            Method::Get => http::Method::GET,
            Method::Post => http::Method::POST,
            Method::Put => http::Method::PUT,
            Method::Delete => http::Method::DELETE,
        };
        let mut request = client.request(method, self.address.clone());
        for (name, value) in &self.headers {
            request = request.insert_header((name.clone(), value.clone()));
        }
        request
            .insert_header((HOST, self.host.clone()))
            .insert_header((ACCEPT, JSON))
            .insert_header((CONTENT_TYPE, JSON))
            .insert_header((USER_AGENT, AGENT))
    }

    pub(super) fn body(&self) -> Bytes {
        self.body.clone()
    }

    pub(super) fn fails(&self, kind: TransportErrorKind) -> TransportError {
        TransportError {
            status: self.status.get(),
            ..TransportError::new(kind, self.method)
        }
    }
}
