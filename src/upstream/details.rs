//! The vendor's document as callers may see it: without members named like secrets.

use std::{cell::RefCell, collections::HashMap};

use serde_json::Value;

/// The most names that are remembered on a thread. The documents of all services have some hundred.
const KNOWN_MAX: usize = 1_000;

thread_local! {
    /// Whether names tell a secret: the same ones come with every document, and to find out takes
    /// far longer than to remember.
    static KNOWN: RefCell<HashMap<String, bool>> = RefCell::default();
}

/// Parts of names, without separators and case, that tell a secret.
const SECRET_PARTS: [&str; 18] = [
    "authorization",
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "secret",
    "token",
    "credential",
    "accesskey",
    "privatekey",
    "apikey",
    "connectionstring",
    "jsonauthfile",
    "signature",
    "cookie",
    "bearer",
    "sessionid",
];
/// Whole words of names that tell a secret: `dbPass`, `srcsk`. `ak` and `sk` may have a number.
const SECRET_WORDS: [&str; 9] = [
    "ak", "sk", "aksk", "srcak", "srcsk", "dstak", "dstsk", "pass", "jwt",
];
/// What stands before the word "key" in names of keys that open something. Other keys name objects.
const KINDS_OF_KEYS: [&str; 14] = [
    "account",
    "auth",
    "authentication",
    "data",
    "decrypt",
    "decryption",
    "encrypt",
    "encryption",
    "master",
    "session",
    "shared",
    "signing",
    "ssh",
    "storage",
];

/// The document without its members that are named like passwords, keys, tokens and the like, and
/// with what `mask` makes of its texts, at any depth; JSON that is written inside a text is
/// searched too, since the vendor sends some members that way.
pub(super) fn redacted(mut document: Value, mask: &dyn Fn(&str) -> String) -> Value {
    strip(&mut document, mask);
    document
}

/// Whether anything was changed. The depth is limited by the JSON parser.
fn strip(value: &mut Value, mask: &dyn Fn(&str) -> String) -> bool {
    match value {
        Value::Object(members) => {
            let before = members.len();
            members.retain(|name, _| !names_secret(name));
            let mut changed = members.len() != before;
            for member in members.values_mut() {
                changed |= strip(member, mask);
            }
            changed
        }
        Value::Array(items) => {
            let mut changed = false;
            for item in items {
                changed |= strip(item, mask);
            }
            changed
        }
        Value::String(text) => strip_text(text, mask),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn strip_text(text: &mut String, mask: &dyn Fn(&str) -> String) -> bool {
    let shown = match json_inside(text) {
        Some(mut inner) => strip(&mut inner, mask).then(|| inner.to_string()),
        None => Some(mask(text)).filter(|shown| shown != text),
    };
    let changed = shown.is_some();
    if let Some(shown) = shown {
        *text = shown;
    }
    changed
}

fn json_inside(text: &str) -> Option<Value> {
    let json = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    json.starts_with(['{', '[', '"'])
        .then(|| serde_json::from_str(json).ok())
        .flatten()
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
    let names_key = KINDS_OF_KEYS.iter().any(|kind| {
        let compact = format!("{kind}key");
        words.contains(&compact)
            || words
                .windows(2)
                .any(|pair| pair[0] == *kind && pair[1] == "key")
    });
    names_key
        || words.iter().any(|word| is_secret_word(word))
        || SECRET_PARTS.iter().any(|part| joined.contains(part))
}

fn is_secret_word(word: &str) -> bool {
    let stem = word.trim_end_matches(|c: char| c.is_ascii_digit());
    SECRET_WORDS.contains(&stem)
}

/// The words of a name in snake, kebab or camel case, in lower case. The last capital of several
/// begins a word if a small letter follows: `SKValue`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut after_lower, mut after_upper) = (false, false);
    let mut characters = name.chars().peekable();
    while let Some(character) = characters.next() {
        let before_lower = characters.peek().is_some_and(|next| next.is_lowercase());
        let begins_word =
            character.is_uppercase() && (after_lower || (after_upper && before_lower));
        if begins_word || !character.is_alphanumeric() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut()
            && character.is_alphanumeric()
        {
            word.extend(character.to_lowercase());
        }
        after_lower = character.is_lowercase() || character.is_numeric();
        after_upper = character.is_uppercase();
    }
    words
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn redacted(document: Value) -> Value {
        super::redacted(document, &|text| text.replace("hidden", "***"))
    }

    #[test]
    fn texts_are_masked_at_any_depth_and_numbers_and_names_of_members_are_not() {
        let inner = json!({"hidden": [["hidden \u{1}"], 5]}).to_string();
        let document = json!({"a": ["hidden", {"hidden": "a hidden text"}, 5, null], "b": inner});
        let inner = json!({"hidden": [["*** \u{1}"], 5]}).to_string();
        let shown = json!({"a": ["***", {"hidden": "a *** text"}, 5, null], "b": inner});
        assert_eq!(redacted(document), shown);
        let escaped = json!({"b": "{\"a\": \"hidde\\u006e\"}"});
        assert_eq!(redacted(escaped), json!({"b": "{\"a\":\"***\"}"}));
    }

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
            "authKey",
            "pass",
            "dbPass",
            "passcode",
            "aksk",
            "AKSK",
            "src_aksk",
            "srcsk",
            "dstak",
            "sourceAK",
            "SK1",
            "ak2",
            "SKValue",
            "jwt",
            "bearer",
            "Cookie",
            "set-cookie",
            "sessionid",
            "session_id",
            "account_key",
            "accountKey",
            "storage_key",
            "storageKey",
            "shared_key",
            "master_key",
            "encryption_key",
            "decryptKey",
            "encrypted_data_key",
            "ssh_key",
            "sshkey",
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
            "key": "a/b",
            "key_prefix": "a/",
            "start_key": "a",
            "storage_class": "STANDARD",
            "session": 1,
            "account": "a",
            "bypass": true,
            "compass1": 1,
            "sku": "s3.large",
            "akin": 1,
            "disk2": 1,
            "disk": {"name": "/dev/vda"},
            "task": "asks",
            "risk": 1,
            "speak": 2,
            "broken": "{not json",
            "text": "[1, 2]",
            "quoted": "\"a word\"",
            "spaced": "\u{feff} {\"a\": 1}",
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

    #[test]
    fn json_inside_a_text_is_found_behind_a_mark_of_order_space_and_quotes() {
        let inner = json!({"password": "TOP"}).to_string();
        for text in [
            format!("\u{feff}{inner}"),
            format!(" \u{a0}\n{inner} \u{feff}"),
            json!(inner).to_string(),
            json!({"deep": json!([inner]).to_string()}).to_string(),
        ] {
            let stripped = redacted(json!({"text": text})).to_string();
            assert!(!stripped.contains("TOP"), "{stripped}");
        }
    }
}
