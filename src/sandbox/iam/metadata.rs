//! The metadata service of a simulated ECS. It answers at the address of IAM.

use std::collections::HashSet;

use serde_json::json;

use super::{Iam, six_digits};
use crate::sandbox::{
    answer::Answer,
    call::{Call, Operation},
    options::{CloudOptions, Ecs},
};

const TOKEN_LENGTH: usize = 56;
/// The longest life of a token that may be asked for, in seconds.
const LONGEST_LIFE: u32 = 21_600;

/// The tokens of the metadata service that are good. Their age has no part in it: they are revoked
/// by hand.
#[derive(Default)]
pub(super) struct MetadataTokens(HashSet<String>);

impl MetadataTokens {
    pub(super) fn revoke(&mut self) {
        self.0.clear();
    }
}

impl Iam {
    /// The answer to a request for a token or for keys, if this is one.
    pub(in crate::sandbox) fn metadata(
        &mut self,
        call: &Call,
        options: &CloudOptions,
        now: i64,
    ) -> Option<Answer> {
        match call.route.operation {
            Operation::MetadataToken => Some(self.metadata_token(call, options)),
            Operation::TemporaryKeys => Some(self.temporary_keys(call, options, now)),
            Operation::Login
            | Operation::List
            | Operation::Show
            | Operation::Pause
            | Operation::Start
            | Operation::Delete
            | Operation::Other => None,
        }
    }

    fn metadata_token(&mut self, call: &Call, options: &CloudOptions) -> Answer {
        if let Ecs::WithoutTokens(status) = options.ecs {
            return Answer::text(status, "text/html", "<html></html>");
        }
        let life = call.header("x-metadata-token-ttl-seconds");
        let life = life.and_then(|life| life.parse().ok());
        if !life.is_some_and(|life: u32| (1..=LONGEST_LIFE).contains(&life)) {
            return Answer::text(400, "text/plain", "Bad Request");
        }
        let random = std::iter::repeat_with(fastrand::alphanumeric);
        let token: String = random.take(TOKEN_LENGTH).collect();
        self.metadata_tokens.0.insert(token.clone());
        Answer::text(200, "text/plain", token)
    }

    fn temporary_keys(&mut self, call: &Call, options: &CloudOptions, now: i64) -> Answer {
        let token = call.header("x-metadata-token");
        let is_good = token.is_some_and(|token| self.metadata_tokens.0.contains(token));
        match options.ecs {
            Ecs::WithTokens | Ecs::WithoutAgency if !is_good => {
                return Answer::text(401, "text/plain", "Unauthorized");
            }
            Ecs::WithoutAgency => {
                let text = "Please configure Cloud Service Agency first";
                return Answer::text(401, "text/plain", text);
            }
            Ecs::WithTokens | Ecs::WithoutTokens(_) => {}
        }
        let keys = self.issue_temporary_keys(options, now);
        let credential = json!({
            "access": keys.access_key,
            "secret": keys.secret_key,
            "securitytoken": keys.security_token,
            "expires_at": six_digits(keys.expires_at),
        });
        Answer::json(200, &json!({"credential": credential}))
    }
}
