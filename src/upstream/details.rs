//! The vendor's document as callers may see it: without members named like secrets.

use std::{cell::RefCell, collections::HashMap};

use serde_json::Value;

/// The most names that are remembered on a thread. The documents of all services have some hundred.
const KNOWN_MAX: usize = 1_000;

thread_local! {
    /// Whether names tell a secret: the same ones come with every document, and to find out takes far longer than to
    /// remember.
    static KNOWN: RefCell<HashMap<String, bool>> = RefCell::default();
}

/// Parts of names, without separators and case, that tell a secret.
const SECRET_PARTS: [&str; 16] = [
    "authorization",
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "credential",
    "accesskey",
    "privatekey",
    "apikey",
    "authkey",
    "authenticationkey",
    "connectionstring",
    "jsonauthfile",
    "signature",
];
/// Whole words of names that tell a key: `ak`, `src_sk`, `dstAk`.
const SECRET_WORDS: [&str; 2] = ["ak", "sk"];

/// The document without its members that are named like passwords, keys, tokens and the like, at any depth; JSON that
/// is written inside a text is searched too, since the vendor sends some members that way.
pub(super) fn redacted(mut document: Value) -> Value {
    strip(&mut document);
    document
}

/// Whether anything was removed. The depth is limited by the JSON parser.
fn strip(value: &mut Value) -> bool {
    match value {
        Value::Object(members) => {
            let before = members.len();
            members.retain(|name, _| !names_secret(name));
            let mut removed = members.len() != before;
            for member in members.values_mut() {
                removed |= strip(member);
            }
            removed
        }
        Value::Array(items) => {
            let mut removed = false;
            for item in items {
                removed |= strip(item);
            }
            removed
        }
        Value::String(text) => strip_text(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn strip_text(text: &mut String) -> bool {
    if !text.trim_start().starts_with(['{', '[']) {
        return false;
    }
    let Ok(mut inner) = serde_json::from_str::<Value>(text) else {
        return false;
    };
    let removed = strip(&mut inner);
    if removed {
        *text = inner.to_string();
    }
    removed
}

fn names_secret(name: &str) -> bool {
    KNOWN.with_borrow_mut(|known| {
        if let Some(is_secret) = known.get(name) {
            return *is_secret;
        }
        if known.len() == KNOWN_MAX {
            known.clear();
        }
        let is_secret = is_secret(name);
        known.insert(name.to_owned(), is_secret);
        is_secret
    })
}

fn is_secret(name: &str) -> bool {
    let words = words(name);
    let joined = words.concat();
    words
        .iter()
        .any(|word| SECRET_WORDS.contains(&word.as_str()))
        || SECRET_PARTS.iter().any(|part| joined.contains(part))
}

/// The words of a name in snake, kebab or camel case, in lower case.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut after_lower = false;
    for character in name.chars() {
        let begins_word = character.is_uppercase() && after_lower;
        if begins_word || !character.is_alphanumeric() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut()
            && character.is_alphanumeric()
        {
            word.extend(character.to_lowercase());
        }
        after_lower = character.is_lowercase() || character.is_numeric();
    }
    words
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn members_named_like_secrets_are_removed_at_any_depth() {
        let names = [
            "password",
            "target_password",
            "adminPasswd",
            "Secret",
            "client_secret",
            "token",
            "security_token",
            "X-Auth-Token",
            "ak",
            "sk",
            "src_ak",
            "dstSk",
            "AK",
            "access_key",
            "AccessKey",
            "secret-key",
            "credential",
            "credentials",
            "passphrase",
            "private_key",
            "target_mgmt_private_key",
            "privateKey",
            "connection_string",
            "json_auth_file",
            "source_cdn_authentication_key",
            "INSTALL_PWD",
        ];
        for name in names {
            let document = json!({"a": [{"b": {name: "TOP", "kept": 1}}]});
            assert_eq!(
                redacted(document),
                json!({"a": [{"b": {"kept": 1}}]}),
                "{name}"
            );
        }
    }

    #[test]
    fn other_members_stay() {
        let document = json!({
            "id": 204_871_530_992_144_u64,
            "task_type": "prefix",
            "object_key": ["2025/"],
            "list_file_key": null,
            "kms_key_id": "k-1",
            "disk": {"name": "/dev/vda"},
            "task": "asks",
            "risk": 1,
            "speak": 2,
            "broken": "{not json",
            "text": "[1, 2]",
        });
        assert_eq!(redacted(document.clone()), document);
    }

    #[test]
    fn a_name_is_judged_alike_however_often_and_after_however_many_others() {
        for round in 0..3 {
            for number in 0..KNOWN_MAX {
                let (open, secret) = (format!("size_{number}"), format!("password_{number}"));
                let document = json!({secret: 1, open.clone(): 2});
                assert_eq!(redacted(document), json!({open: 2}), "{round}");
            }
        }
    }

    #[test]
    fn json_inside_a_text_is_searched_too() {
        let inner = json!({"error_code": "SMS.0515", "password": "TOP"}).to_string();
        let stripped = redacted(json!({"error_json": inner}));
        assert_eq!(
            stripped,
            json!({"error_json": "{\"error_code\":\"SMS.0515\"}"})
        );
    }
}
