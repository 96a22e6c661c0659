//! Where the next page of a list of tasks begins. Opaque to callers; bound to the filters of the
//! list it came from.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A place in the list over all services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageToken {
    /// The service to go on with.
    #[serde(rename = "s")]
    pub(super) service: String,
    /// How many of its tasks were passed already.
    #[serde(rename = "o")]
    pub(super) offset: u64,
    /// The hash of the filters.
    #[serde(rename = "f")]
    pub(super) filters: String,
}

impl PageToken {
    /// The token as text.
    pub(super) fn encode(&self) -> String {
        // A struct of two texts and a number is always valid JSON.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads a token that [`PageToken::encode`] wrote.
    pub(super) fn decode(text: &str) -> Option<Self> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }
}

/// The hash of filters, short: it guards against mistakes, not against forgery.
pub(super) fn filters_hash(filters: &[&str]) -> String {
    let mut hash = Sha256::new();
    for filter in filters {
        hash.update(filter.len().to_le_bytes());
        hash.update(filter.as_bytes());
    }
    URL_SAFE_NO_PAD.encode(&hash.finalize()[..9])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_reads_back_as_it_was(service in "[a-z]{1,9}", offset: u64, name in ".{0,20}") {
            let token = PageToken { service, offset, filters: filters_hash(&[&name]) };
            prop_assert_eq!(PageToken::decode(&token.encode()), Some(token));
        }

        #[test]
        fn no_text_makes_the_reader_fail_otherwise_than_by_none(text in ".{0,80}") {
            let _read = PageToken::decode(&text);
        }
    }

    #[test]
    fn filters_that_differ_only_in_their_borders_have_different_hashes() {
        assert_ne!(filters_hash(&["ab", "c"]), filters_hash(&["a", "bc"]));
    }
}
