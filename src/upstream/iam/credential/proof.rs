//! How requests show who sends them.

use jiff::Timestamp;

use super::super::{
    attempts::Identity,
    signature::{self, DATE_HEADER, Signable},
};
use crate::{
    domain::secret::Secret,
    transport::{CONTENT_TYPE, Endpoint, Header, Request},
};

const TOKEN_HEADER: &str = "x-auth-token";
const PROJECT_HEADER: &str = "x-project-id";
const SECURITY_TOKEN_HEADER: &str = "x-security-token";

/// How a request shows who sends it.
#[derive(Clone, Debug)]
pub(in crate::upstream::iam) enum Proof {
    /// By a token.
    Token {
        text: Secret,
        /// What it was issued for, which no answer may show either.
        password: Secret,
    },
    /// By a signature.
    Keys(KeyPair),
}

/// An access key with its secret key.
#[derive(Clone, Debug)]
pub(in crate::upstream::iam) struct KeyPair {
    pub(in crate::upstream::iam) access_key: Secret,
    pub(in crate::upstream::iam) secret_key: Secret,
    /// Temporary keys have one.
    pub(in crate::upstream::iam) security_token: Option<Secret>,
    /// The vendor's id of the project that requests are for.
    pub(in crate::upstream::iam) project_id: String,
}

/// What is added to a request.
pub(crate) struct Authentication {
    /// The headers that say who sends the request.
    pub(crate) headers: Vec<Header>,
    /// What of the request alone no answer may repeat, beside
    /// [`Credential::mask`](super::Credential::mask).
    pub(crate) signature: Option<Secret>,
}

impl Proof {
    /// The headers that show who sends this request to this address now.
    pub(in crate::upstream::iam) fn authenticate(
        &self,
        endpoint: &Endpoint,
        request: &Request,
        now: Timestamp,
    ) -> Authentication {
        match self {
            Proof::Token { text, .. } => Authentication {
                headers: vec![Header {
                    name: TOKEN_HEADER,
                    value: text.clone(),
                }],
                signature: None,
            },
            Proof::Keys(keys) => keys.sign(endpoint, request, now),
        }
    }

    /// What no answer may repeat.
    pub(in crate::upstream::iam) fn secrets(&self) -> Vec<&Secret> {
        match self {
            Proof::Token { text, password } => vec![text, password],
            Proof::Keys(keys) => [&keys.access_key, &keys.secret_key]
                .into_iter()
                .chain(&keys.security_token)
                .collect(),
        }
    }
}

impl KeyPair {
    /// What the keys are, as a digest.
    pub(in crate::upstream::iam) fn identity(&self) -> Identity {
        Identity::of(&["keys", self.access_key.expose(), self.secret_key.expose()])
    }

    fn sign(&self, endpoint: &Endpoint, request: &Request, now: Timestamp) -> Authentication {
        let (host, date) = (endpoint.host_header(), signature::date(now));
        let mut added = vec![
            (DATE_HEADER, date.as_str()),
            (PROJECT_HEADER, self.project_id.as_str()),
        ];
        if let Some(token) = &self.security_token {
            added.push((SECURITY_TOKEN_HEADER, token.expose()));
        }
        let of_all = [("content-type", CONTENT_TYPE), ("host", host.as_str())];
        let signed = signature::sign(
            &Signable {
                method: request.method.as_str(),
                target: &request.path,
                headers: &[&added[..], &of_all].concat(),
                body: &request.content(),
            },
            &self.access_key,
            &self.secret_key,
            &date,
        );
        let mut headers: Vec<Header> = added
            .into_iter()
            .map(|(name, value)| Header {
                name,
                value: Secret::new(value),
            })
            .collect();
        headers.push(Header {
            name: "authorization",
            value: signed.authorization,
        });
        Authentication {
            headers,
            signature: Some(signed.code),
        }
    }
}
