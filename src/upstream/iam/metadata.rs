//! Temporary keys from the metadata service of the ECS that this program runs on.
//!
//! The page "Obtaining ECS metadata" and the vendor's own SDK: the service is asked for a token of
//! its own first, and for the keys of the machine's agency with it. Where it knows no tokens, or
//! does not answer for one, it is asked without one.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::{
    clerk::{Account, Clerk},
    credential::KeyPair,
    lifetime::Lifetime,
    login::of_answer,
};
use crate::{
    domain::{
        secret::Secret,
        service::{Sent, UpstreamError, UpstreamErrorKind},
    },
    transport::{Endpoint, Header, Method, Request, Response},
    upstream::fault,
};

/// The metadata service, as answers are named after it.
const SERVICE: &str = "ecs-metadata";
const TOKEN_PATH: &str = "/meta-data/latest/api/token";
const KEYS_PATH: &str = "/openstack/latest/securitykey";
const TOKEN_HEADER: &str = "x-metadata-token";
const TTL_HEADER: &str = "x-metadata-token-ttl-seconds";
/// How long a token of the metadata service is asked for: as long as the vendor's SDK does. It is
/// used at once.
const TTL_SECONDS: &str = "21600";
/// How the service says that the machine has no agency.
const NO_AGENCY: &[u8] = b"Please configure Cloud Service Agency first";
/// The longest token or key that is believed.
const LONGEST: usize = 16 << 10;

impl Clerk {
    /// Asks for the keys of the agency, and for how long they last.
    pub(super) async fn fetch_keys(
        &self,
        account: &Account,
    ) -> Result<(KeyPair, Lifetime), UpstreamError> {
        let begun = self.begun();
        let response = self.keys_document(&account.endpoint).await?;
        if response.status != 200 {
            return Err(refusal(&response));
        }
        let malformed = |detail| malformed(&response, detail);
        let keys = KeysWire::read(&response.body)
            .filter(|keys| {
                [&keys.access, &keys.secret, &keys.security_token]
                    .into_iter()
                    .all(|text| is_sane(text))
            })
            .ok_or_else(|| malformed("The metadata service's document could not be read."))?;
        let lifetime = Lifetime::of_keys(begun, keys.expires_at).ok_or_else(|| {
            malformed(
                "The metadata service gave keys with an impossible lifetime, or the clock of this machine is wrong.",
            )
        })?;
        let keys = KeyPair {
            access_key: Secret::new(keys.access),
            secret_key: Secret::new(keys.secret),
            security_token: Some(Secret::new(keys.security_token)),
            project_id: account.project_id.clone(),
        };
        Ok((keys, lifetime))
    }

    /// The answer to the question for keys. A token that is refused is replaced once.
    async fn keys_document(&self, endpoint: &Endpoint) -> Result<Response, UpstreamError> {
        let mut is_last = false;
        loop {
            let token = self.metadata_token(endpoint).await?;
            let headers: Vec<Header> = token
                .into_iter()
                .map(|value| Header {
                    name: TOKEN_HEADER,
                    value,
                })
                .collect();
            let response = self.ask(endpoint, Method::Get, KEYS_PATH, &headers).await?;
            if is_last || response.status != 401 || says_no_agency(&response) {
                return Ok(response);
            }
            is_last = true;
        }
    }

    /// A token of the metadata service; `None` if it knows none.
    async fn metadata_token(&self, endpoint: &Endpoint) -> Result<Option<Secret>, UpstreamError> {
        let ttl = Header {
            name: TTL_HEADER,
            value: Secret::new(TTL_SECONDS),
        };
        let response = match self.ask(endpoint, Method::Put, TOKEN_PATH, &[ttl]).await {
            // Something in between may drop what it does not know.
            Err(error) if error.kind == UpstreamErrorKind::Timeout => return Ok(None),
            answer => answer?,
        };
        match response.status {
            200 => {
                let text = String::from_utf8_lossy(response.body.trim_ascii()).into_owned();
                if !is_sane(&text) {
                    let detail = "The metadata service answered without a well-formed token.";
                    return Err(malformed(&response, detail));
                }
                Ok(Some(Secret::new(text)))
            }
            404 | 405 | 503 => Ok(None),
            _ => Err(refusal(&response)),
        }
    }

    async fn ask(
        &self,
        endpoint: &Endpoint,
        method: Method,
        path: &str,
        headers: &[Header],
    ) -> Result<Response, UpstreamError> {
        let request = Request {
            method,
            path: path.to_owned(),
            body: None,
        };
        let answer = self.local.send(endpoint, headers, &request).await;
        answer.map_err(|error| UpstreamError {
            // Nothing was asked of the migration services.
            sent: Sent::No,
            ..fault::of_transport("The metadata service gave no keys", error)
        })
    }
}

/// Whether a text can be a key or a token.
fn is_sane(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn says_no_agency(response: &Response) -> bool {
    response
        .body
        .windows(NO_AGENCY.len())
        .any(|part| part == NO_AGENCY)
}

fn malformed(response: &Response, detail: &str) -> UpstreamError {
    of_answer(
        SERVICE,
        response,
        UpstreamErrorKind::Malformed,
        detail,
        None,
    )
}

/// What an answer without a token or keys means.
fn refusal(response: &Response) -> UpstreamError {
    use UpstreamErrorKind as Kind;
    let (kind, detail) = match response.status {
        401 if says_no_agency(response) => (
            Kind::CredentialsRefused,
            "This machine has no agency at the cloud: configure one for the ECS.",
        ),
        401 | 403 => (
            Kind::CredentialsRefused,
            "The metadata service refused to give keys.",
        ),
        404 => (
            Kind::Rejected,
            "The metadata service does not know what was asked for.",
        ),
        429 => (Kind::Throttled, "The metadata service asks to slow down."),
        500.. => (
            Kind::Unavailable,
            "The metadata service has a fault of its own.",
        ),
        _ => (
            Kind::Malformed,
            "The metadata service gave an answer that makes no sense.",
        ),
    };
    of_answer(SERVICE, response, kind, detail, None)
}

/// Temporary keys, in the spellings of the metadata service's editions.
#[derive(Deserialize)]
struct KeysWire {
    #[serde(alias = "accessKeyId", alias = "access_key_id")]
    access: String,
    #[serde(alias = "secretAccessKey", alias = "secret_access_key")]
    secret: String,
    #[serde(
        rename = "securitytoken",
        alias = "securityToken",
        alias = "security_token"
    )]
    security_token: String,
    #[serde(alias = "expiration")]
    expires_at: Timestamp,
}

impl KeysWire {
    /// Reads a document: the keys stand below `credential`, below `credentials`, or by themselves.
    fn read(document: &[u8]) -> Option<Self> {
        let mut document: Value = serde_json::from_slice(document).ok()?;
        let below = ["credential", "credentials"]
            .into_iter()
            .find_map(|name| document.get_mut(name).map(Value::take));
        serde_json::from_value(below.unwrap_or(document)).ok()
    }
}
