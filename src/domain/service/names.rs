//! What projects, services, callers and the like are called.

use std::{fmt, sync::Arc};

fn is_name(text: &str) -> bool {
    let in_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(in_name)
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Accepts 1 to 63 characters of `a-z 0-9 -`.
            pub fn parse(text: &str) -> Option<Self> {
                is_name(text).then(|| Self(Arc::from(text)))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

name! {
    /// The short name of a migration service, such as `oms`.
    ServiceName
}
name! {
    /// The name that the configuration gives to a project of the cloud.
    ProjectName
}
name! {
    /// The name of an entry of `storage_credentials` in the configuration.
    CredentialName
}
name! {
    /// The name that the configuration gives to an issuer of tokens.
    IssuerName
}

/// Who asks: a name of the configuration, or `ISSUER:claim` for the bearer of a token. The two
/// never meet, since no name of the configuration has a colon. The text goes into rows, logs and
/// answers as it is.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallerName(Arc<str>);

impl CallerName {
    /// The longest value of a claim that can name a caller.
    pub const CLAIM_MAX: usize = 200;

    /// A name of either form, as [`CallerName::as_str`] gives it.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            Some((issuer, claim)) => Self::of_issuer(&IssuerName::parse(issuer)?, claim),
            None => Self::configured(text),
        }
    }

    /// The name of a caller in the configuration: 1 to 63 characters of `a-z 0-9 -`.
    pub fn configured(text: &str) -> Option<Self> {
        is_name(text).then(|| Self(Arc::from(text)))
    }

    /// The name of whoever brings a token of this issuer. The claim has 1 to
    /// [`CallerName::CLAIM_MAX`] ASCII letters, digits and `. _ ~ - @ + = # / : |`, which all
    /// subjects in common use are made of; nothing in it can break a line or end a quotation.
    pub fn of_issuer(issuer: &IssuerName, claim: &str) -> Option<Self> {
        let fits = (1..=Self::CLAIM_MAX).contains(&claim.len());
        let clean = claim
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._~-@+=#/:|".contains(&byte));
        (fits && clean).then(|| Self(Arc::from(format!("{issuer}:{claim}"))))
    }

    /// The name under which requests without credentials act. The configuration refuses a caller of
    /// that name.
    pub fn anonymous() -> Self {
        Self(Arc::from("anonymous"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CallerName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for CallerName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
