//! IAM: one user, its projects and keys, and what was issued to it.

pub(super) mod gateway;
mod keys;
mod metadata;
mod signature;

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::{Value, json};

pub use self::keys::TemporaryKeys;
use self::{keys::Keys, metadata::MetadataTokens};
use super::{
    answer::Answer,
    call::Call,
    options::{Account, CloudOptions, LockShape},
    run::millis,
};

/// Tokens that are remembered; the oldest go first and are unknown from then on.
const TOKENS_KEPT: usize = 10_000;

/// The default policy of the console: 15 minutes for both the window of wrong attempts and the
/// lock.
const LOCK_MILLIS: i64 = 15 * 60 * 1000;

const DOMAIN_ID: &str = "d78cbac186b744899480f25bd022f468";
const USER_ID: &str = "7116d09f88fa41908676fdd4b039e0a1";

/// What a token is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// One project, by id.
    Project(String),
    /// The account, for global services.
    Domain,
}

/// An issued token, without its text.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) index: usize,
    pub(super) scope: Scope,
    expires_at: i64,
    revoked: bool,
}

impl Token {
    pub(super) fn is_alive(&self, now: i64) -> bool {
        !self.revoked && now < self.expires_at
    }
}

/// The state of IAM.
pub(super) struct Iam {
    account: Account,
    /// Id and name of every project.
    projects: Vec<(String, String)>,
    tokens: HashMap<String, Token>,
    issued: usize,
    keys: Keys,
    metadata_tokens: MetadataTokens,
    /// Locked by hand.
    locked: bool,
    /// Locked by wrong passwords, until this moment.
    locked_until: i64,
    wrong_logins: Vec<i64>,
}

impl Iam {
    pub(super) fn new(account: Account) -> Self {
        let mut keys = Keys::default();
        keys.add(&account.access_key, &account.secret_key);
        Self {
            keys,
            metadata_tokens: MetadataTokens::default(),
            projects: vec![(account.project_id.clone(), account.region.clone())],
            account,
            tokens: HashMap::new(),
            issued: 0,
            locked: false,
            locked_until: 0,
            wrong_logins: Vec::new(),
        }
    }

    pub(super) fn account(&self) -> &Account {
        &self.account
    }

    pub(super) fn add_project(&mut self, id: &str, name: &str) {
        self.projects.push((id.to_owned(), name.to_owned()));
    }

    /// A changed password ends every token at once, and whoever sets one unlocks the account.
    pub(super) fn set_password(&mut self, password: &str) {
        password.clone_into(&mut self.account.password);
        self.revoke();
        self.wrong_logins.clear();
        self.locked_until = 0;
    }

    pub(super) fn set_locked(&mut self, locked: bool) {
        self.locked = locked;
        self.locked_until = 0;
    }

    pub(super) fn revoke(&mut self) {
        for token in self.tokens.values_mut() {
            token.revoked = true;
        }
    }

    pub(super) fn issued(&self) -> usize {
        self.issued
    }

    pub(super) fn add_access_key(&mut self, access_key: &str, secret_key: &str) {
        self.keys.add(access_key, secret_key);
    }

    pub(super) fn remove_access_key(&mut self, access_key: &str) -> bool {
        self.keys.remove(access_key)
    }

    pub(super) fn issue_temporary_keys(
        &mut self,
        options: &CloudOptions,
        now: i64,
    ) -> TemporaryKeys {
        let life = millis(options.temporary_key_lifetime);
        self.keys.issue(now.saturating_add(life))
    }

    pub(super) fn revoke_temporary_keys(&mut self) {
        self.keys.revoke_temporary();
    }

    pub(super) fn revoke_metadata_tokens(&mut self) {
        self.metadata_tokens.revoke();
    }

    pub(super) fn temporary_keys_issued(&self) -> usize {
        self.keys.issued()
    }

    /// Whether there is a project with this id.
    fn has_project(&self, id: &str) -> bool {
        self.projects.iter().any(|(known, _)| known == id)
    }

    pub(super) fn token(&self, text: &str) -> Option<&Token> {
        self.tokens.get(text)
    }

    /// Issues a token; the ones before it stay good.
    pub(super) fn issue(&mut self, scope: Scope, options: &CloudOptions, now: i64) -> String {
        if self.tokens.len() >= TOKENS_KEPT {
            let oldest = self.tokens.iter().min_by_key(|(_, token)| token.index);
            if let Some(text) = oldest.map(|(text, _)| text.clone()) {
                self.tokens.remove(&text);
            }
        }
        let length = options.token_length.clamp(16, 16_384);
        // Real tokens are signed messages, which begin like this in Base64.
        let text: String = "MII"
            .chars()
            .chain(std::iter::repeat_with(fastrand::alphanumeric))
            .take(length)
            .collect();
        let token = Token {
            index: self.issued,
            scope,
            expires_at: now.saturating_add(millis(options.token_lifetime)),
            revoked: false,
        };
        self.issued += 1;
        self.tokens.insert(text.clone(), token);
        text
    }

    /// `POST /v3/auth/tokens` with a password. All its errors have the shape of this call.
    pub(super) fn login(&mut self, call: &Call, options: &CloudOptions, now: i64) -> Answer {
        let wanted = serde_json::from_slice(&call.body)
            .ok()
            .as_ref()
            .and_then(Login::read);
        let Some(login) = wanted else {
            return Answer::keystone(400, "Bad Request", "The request body is invalid");
        };
        if self.locked || now < self.locked_until {
            return locked(options.lock_shape);
        }
        if !login.is_by(&self.account) {
            self.count_wrong(options, now);
            return Answer::keystone(401, "Unauthorized", "The username or password is wrong.");
        }
        let project = login.project.map(|wanted| self.project(&wanted).cloned());
        let scope = match project {
            None => Scope::Domain,
            Some(Some((id, _))) => Scope::Project(id),
            Some(None) => return Answer::keystone(404, "Not Found", "Could not find project."),
        };
        let text = self.issue(scope.clone(), options, now);
        let catalog = call
            .parameter("nocatalog")
            .is_none_or(|value| value.is_empty());
        let expires_at = now.saturating_add(millis(options.token_lifetime));
        let body = self.token_body(&scope, now, expires_at, catalog);
        Answer::json(201, &body).header("X-Subject-Token", &text)
    }

    fn count_wrong(&mut self, options: &CloudOptions, now: i64) {
        self.wrong_logins.retain(|at| now - at < LOCK_MILLIS);
        self.wrong_logins.push(now);
        let wrong = u32::try_from(self.wrong_logins.len()).unwrap_or(u32::MAX);
        if options
            .wrong_logins_before_lock
            .is_some_and(|most| wrong >= most)
        {
            self.locked_until = now + LOCK_MILLIS;
            self.wrong_logins.clear();
        }
    }

    fn project(&self, wanted: &Wanted) -> Option<&(String, String)> {
        self.projects.iter().find(|(id, name)| match wanted {
            Wanted::Id(wanted) => wanted == id,
            Wanted::Name(wanted) => wanted == name,
        })
    }

    fn token_body(&self, scope: &Scope, now: i64, expires_at: i64, catalog: bool) -> Value {
        let domain = json!({"id": DOMAIN_ID, "name": self.account.domain});
        let mut token = json!({
            "methods": ["password"],
            "issued_at": six_digits(now),
            "expires_at": six_digits(expires_at),
            "roles": [{"id": "0", "name": "te_admin"}, {"id": "0", "name": "op_gated_eip_ipv6"}],
            "user": {
                "id": USER_ID, "name": self.account.user, "password_expires_at": "",
                "domain": domain,
            },
            "catalog": [],
        });
        match scope {
            Scope::Domain => token["domain"] = domain,
            Scope::Project(id) => {
                let project = self.project(&Wanted::Id(id.clone()));
                let name = project.map_or("", |(_, name)| name.as_str());
                token["project"] = json!({"id": id, "name": name, "domain": domain});
            }
        }
        if catalog {
            token["catalog"] = json!([{
                "id": "100a6a3477f1495286579b819d399e36", "name": "iam", "type": "identity",
                "endpoints": [{
                    "id": "33e1cbdd86d34e89a63cf8ad16a5f49f", "interface": "public",
                    "region": "*", "region_id": "*", "url": "https://iam.sandbox.invalid/v3",
                }],
            }]);
        }
        json!({"token": token})
    }
}

/// The way a project is asked for.
enum Wanted {
    Id(String),
    Name(String),
}

/// What the body of a login says.
struct Login {
    /// Id and name: the id is enough, a name goes with its domain.
    user: (Option<String>, Option<String>),
    /// Id and name.
    domain: (Option<String>, Option<String>),
    password: String,
    project: Option<Wanted>,
}

impl Login {
    /// Reads the password method; `None` if the body has another shape.
    fn read(body: &Value) -> Option<Self> {
        let auth = body.get("auth")?;
        let identity = auth.get("identity")?;
        if *identity.get("methods")? != json!(["password"]) {
            return None;
        }
        let user = identity.get("password")?.get("user")?;
        let text = |value: &Value, name: &str| value[name].as_str().map(str::to_owned);
        let domain = (text(&user["domain"], "id"), text(&user["domain"], "name"));
        let user_names = (text(user, "id"), text(user, "name"));
        let by_name = user_names.1.is_some() && (domain.0.is_some() || domain.1.is_some());
        if user_names.0.is_none() && !by_name {
            return None;
        }
        // With both a project and a domain, the project wins; with neither, the token is for the
        // account.
        let project = &auth["scope"]["project"];
        let wanted = match (text(project, "id"), text(project, "name")) {
            (Some(id), _) => Some(Wanted::Id(id)),
            (None, Some(name)) => Some(Wanted::Name(name)),
            (None, None) if project.is_null() => None,
            (None, None) => return None,
        };
        Some(Self {
            user: user_names,
            domain,
            password: text(user, "password")?,
            project: wanted,
        })
    }

    fn is_by(&self, account: &Account) -> bool {
        let is = |given: &Option<String>, known: &str| given.as_deref() == Some(known);
        let domain = is(&self.domain.0, DOMAIN_ID) || is(&self.domain.1, &account.domain);
        let by_name = is(&self.user.1, &account.user) && domain;
        (is(&self.user.0, USER_ID) || by_name) && self.password == account.password
    }
}

fn locked(shape: LockShape) -> Answer {
    match shape {
        LockShape::Keystone => Answer::keystone(401, "Unauthorized", "Account locked."),
        LockShape::Iam0061 => Answer::error(401, "IAM.0061", "Account locked."),
    }
}

/// A moment as IAM writes it: UTC, six digits of a second's fraction.
fn six_digits(millis: i64) -> String {
    let moment = Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX);
    moment.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::six_digits;

    #[test]
    fn times_have_six_digits_of_a_fraction() {
        assert_eq!(six_digits(1_767_431_122_701), "2026-01-03T09:05:22.701000Z");
        assert_eq!(six_digits(1_767_431_122_000), "2026-01-03T09:05:22.000000Z");
    }
}
