//! A request in the words of HTTP. Every header that leaves is named here.

use awc::{
    ClientRequest,
    http::{
        self, Uri,
        header::{ACCEPT, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT},
    },
};
use bytes::Bytes;

use super::{Endpoint, Method, Request, TransportError, TransportErrorKind, answer::MAX_BODY};
use crate::domain::secret::Secret;

const TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
const AGENT: &str = concat!("migration-gateway/", env!("CARGO_PKG_VERSION"));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A request that can be written, as often as needed.
pub(super) struct Prepared {
    pub(super) method: Method,
    pub(super) secure: bool,
    /// The largest body of an answer that is read.
    pub(super) max_body: usize,
    address: Uri,
    host: HeaderValue,
    token: Option<HeaderValue>,
    body: Option<Bytes>,
}

impl Prepared {
    pub(super) fn new(
        endpoint: &Endpoint,
        token: Option<&Secret>,
        request: &Request,
    ) -> Result<Self, TransportError> {
        let unsendable = || TransportError::new(TransportErrorKind::Unsendable, request.method);
        if !request.path.starts_with('/') {
            return Err(unsendable());
        }
        let address = endpoint.client_address(&request.path);
        let host = HeaderValue::try_from(endpoint.host_header()).map_err(|_| unsendable())?;
        let token = match token {
            None => None,
            Some(secret) => {
                let mut value = HeaderValue::from_str(secret.expose()).map_err(|_| unsendable())?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Self {
            method: request.method,
            secure: endpoint.is_secure(),
            max_body: MAX_BODY,
            address: address.parse().map_err(|_| unsendable())?,
            host,
            token,
            body: request
                .body
                .as_ref()
                .map(|body| Bytes::from(body.to_string())),
        })
    }

    /// The request as this client writes it. The content type is sent with every request, since SMS demands it even
    /// where there is no content.
    pub(super) fn on(&self, client: &awc::Client) -> ClientRequest {
        let method = match self.method {
            Method::Get => http::Method::GET,
            Method::Post => http::Method::POST,
            Method::Delete => http::Method::DELETE,
        };
        let request = client
            .request(method, self.address.clone())
            .insert_header((HOST, self.host.clone()))
            .insert_header((ACCEPT, JSON))
            .insert_header((CONTENT_TYPE, JSON))
            .insert_header((USER_AGENT, AGENT));
        match &self.token {
            None => request,
            Some(token) => request.insert_header((TOKEN, token.clone())),
        }
    }

    pub(super) fn body(&self) -> Bytes {
        self.body.clone().unwrap_or_default()
    }

    pub(super) fn fails(&self, kind: TransportErrorKind) -> TransportError {
        TransportError::new(kind, self.method)
    }
}
