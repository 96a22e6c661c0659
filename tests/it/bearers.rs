//! Bearer tokens: whose are taken, what they allow, and everything that is tried to pass for one.

use std::{fs, thread};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use migration_gateway::sandbox::OmsSpec;
use serde_json::{Value, json};

use crate::support::{
    gateway::{Gateway, KEY, Place},
    http::Answer,
    issuer::{AUDIENCE, Issuer, SigningKey, seconds, sign_with, unsigned},
    raw, wait_for,
};

/// What members of the one group of most tests may do.
const READERS: &str = "[issuers.corp.groups.readers]\npermissions = [\"tasks:read\", \"operations:read\"]\nprojects = [\"*\"]";

fn ask(gateway: &Gateway, token: &str) -> Answer {
    gateway.client_with(token).get("/tasks")
}

fn assert_refused(gateway: &Gateway, token: &str, words: &str, what: &str) {
    let answer = ask(gateway, token);
    assert_eq!(answer.status, 401, "{what}: {answer:?}");
    assert_eq!(answer.problem(), "unauthenticated", "{what}");
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{what}");
    let detail = answer.json()["detail"]
        .as_str()
        .expect("a detail")
        .to_owned();
    assert!(detail.contains(words), "{what}: {detail}");
}

/// The number of a counter with these words in its line.
fn counted(gateway: &Gateway, words: &[&str]) -> f64 {
    let metrics = gateway.stranger().get("/metrics").text;
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter(|line| words.iter().all(|word| line.contains(word)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[test]
fn a_token_makes_a_caller_of_its_own_who_may_do_what_its_groups_may() {
    let (key, issuer_of) = (SigningKey::elliptic("k1"), Issuer::with);
    let issuer = issuer_of(&[&key]);
    let place = Place::new()
        .project("other", "8b0c6a30cfa04b2a9f4ce1fd9a8a8f11", "cn-east-3")
        .add(&issuer.section(
            "corp",
            "[issuers.corp.groups.watchers]\npermissions = [\"tasks:read\"]\nprojects = [\"*\"]\n\
             [issuers.corp.groups.\"/Teams/Pausers\"]\npermissions = [\"tasks:pause\", \"operations:read\"]\nprojects = [\"default\"]\nservices = [\"oms\"]",
        ));
    let gateway = place.start();
    let with =
        |groups: &[&str]| gateway.client_with(&issuer.token(&key, "alice@example.com", groups));
    let pause = |groups: &[&str], path: &str| with(groups).post(path).status;
    // In the one project it is not there, in the other it may not be asked for.
    let both = ["watchers", "/Teams/Pausers", "strangers"];
    assert_eq!(pause(&both, "/tasks/7/pause?project=default"), 404);
    assert_eq!(pause(&both, "/tasks/7/pause?project=other"), 403);
    assert_eq!(pause(&both, "/tasks/a-7/pause?project=default"), 403);
    for project in ["default", "other"] {
        let path = format!("/tasks?project={project}");
        assert_eq!(with(&["watchers"]).get(&path).status, 200, "{project}");
        let pauser = with(&["/Teams/Pausers"]).get(&path);
        assert_eq!(pauser.status, 403, "{pauser:?}");
        for groups in [&[][..], &["strangers"], &["Watchers"], &["*"]] {
            let answer = with(groups).get(&path);
            assert_eq!(
                (answer.status, answer.problem().as_str()),
                (403, "forbidden")
            );
        }
    }
    let task = place.cloud.add_oms(OmsSpec::new("owned", 2));
    let path = format!("/tasks/{task}/pause");
    let owner = with(&both);
    let operation = owner.ended(&owner.ask("POST", &path, None));
    assert_eq!(operation["requested_by"], "corp:alice@example.com");
    // Another bearer is another caller, and a name of the configuration is never a bearer's.
    let id = operation["id"].as_str().expect("an id");
    let other = gateway.client_with(&issuer.token(&key, "bob", &both));
    for stranger in [&other, &gateway.client()] {
        assert_eq!(stranger.get(&format!("/operations/{id}")).status, 404);
    }
    // One group as a text, as some issuers write it.
    let mut claims = issuer.claims("alice", &[]);
    claims["groups"] = json!("watchers");
    assert_eq!(ask(&gateway, &key.sign(&key.header(), &claims)).status, 200);
}

/// A gateway that takes tokens of one issuer with two keys, and what is needed to try it.
struct Trial {
    place: Place,
    gateway: Gateway,
    issuer: Issuer,
    key: SigningKey,
    rsa: SigningKey,
}

/// Sets a member of an object; null takes it away.
fn set(object: &mut Value, member: &str, value: Value) {
    if value.is_null() {
        object.as_object_mut().expect("an object").remove(member);
    } else {
        object[member] = value;
    }
}

impl Trial {
    fn begin() -> Self {
        let (key, rsa) = (SigningKey::elliptic("k1"), SigningKey::rsa("k2"));
        let mut second = SigningKey::elliptic("k3");
        second.public["use"] = json!("enc");
        let other = SigningKey::elliptic("k4");
        let issuer = Issuer::with(&[&key, &rsa, &second, &other]);
        let place = Place::new().add(&issuer.section("corp", READERS));
        let gateway = place.start();
        Self {
            place,
            gateway,
            issuer,
            key,
            rsa,
        }
    }

    fn claims(&self) -> Value {
        self.issuer.claims("alice", &["readers"])
    }

    /// A good token but for one member of its claims; null takes the member away.
    fn claiming(&self, member: &str, value: Value) -> String {
        let mut claims = self.claims();
        set(&mut claims, member, value);
        self.key.sign(&self.key.header(), &claims)
    }

    /// A good token but for one member of its header.
    fn heading(&self, member: &str, value: Value) -> String {
        let mut header = self.key.header();
        set(&mut header, member, value);
        self.key.sign(&header, &self.claims())
    }
}

#[test]
fn whatever_is_wrong_with_the_claims_of_a_token_it_is_refused() {
    let trial = Trial::begin();
    let good = [
        trial.claiming("none", Value::Null),
        trial.claiming("aud", json!(["other", AUDIENCE])),
        trial.claiming("nbf", Value::Null),
        trial.claiming("iat", Value::Null),
        // Clocks differ a little.
        trial.claiming("exp", json!(seconds(-10))),
        trial.claiming("nbf", json!(seconds(10))),
        trial.claiming("iat", json!(seconds(10))),
        trial.claiming("exp", json!(4_000_000_000.5)),
        trial.rsa.sign(&trial.rsa.header(), &trial.claims()),
    ];
    for (index, token) in good.iter().enumerate() {
        let answer = ask(&trial.gateway, token);
        assert_eq!(answer.status, 200, "{index}: {answer:?}");
    }
    trial.place.cloud.clear_requests();
    let issuer = trial.issuer.name();
    #[rustfmt::skip]
    let bad = [
        ("aud", json!("other"), "not for this gateway"),
        ("aud", json!(["other"]), "not for this gateway"),
        ("aud", json!([]), "not for this gateway"),
        ("aud", json!(format!("{AUDIENCE}/")), "not for this gateway"),
        ("aud", json!({"0": AUDIENCE}), "claim"),
        ("aud", json!(7), "claim"),
        ("aud", Value::Null, "claim"),
        ("iss", json!("http://other.example"), "that the gateway knows"),
        ("iss", json!(format!("{issuer}/")), "that the gateway knows"),
        ("iss", json!(issuer.to_uppercase()), "that the gateway knows"),
        ("iss", json!([issuer]), "that the gateway knows"),
        ("iss", Value::Null, "that the gateway knows"),
        ("exp", json!(seconds(-120)), "has ended"),
        ("exp", json!(0), "has ended"),
        ("exp", json!(-1), "claim"),
        ("exp", json!(seconds(300).to_string()), "claim"),
        ("exp", json!(1e300), "claim"),
        ("exp", Value::Null, "claim"),
        ("nbf", json!(seconds(120)), "not valid yet"),
        ("nbf", json!("soon"), "claim"),
        ("iat", json!(seconds(120)), "not valid yet"),
        ("iat", json!("today"), "claim"),
        ("sub", Value::Null, "claim"),
        ("sub", json!(7), "claim"),
        ("sub", json!(""), "claim"),
        ("sub", json!("a b"), "claim"),
        ("sub", json!("a\nb"), "claim"),
        ("sub", json!("a\"b"), "claim"),
        ("sub", json!("\u{fc}"), "claim"),
        ("sub", json!("x".repeat(201)), "claim"),
        ("groups", json!("x".repeat(9000)), "too long"),
    ];
    for (member, value, words) in bad {
        let what = format!("{member} {value}");
        let token = trial.claiming(member, value);
        assert_refused(&trial.gateway, &token, words, &what);
    }
    assert!(trial.place.cloud.requests().is_empty());
    assert!(counted(&trial.gateway, &["credentials_refused", "token-audience"]) >= 4.0);
    assert!(trial.gateway.log().contains("a token was not accepted"));
}

#[test]
fn whoever_makes_a_token_does_not_choose_how_it_is_checked() {
    let trial = Trial::begin();
    let (thief, claims) = (SigningKey::elliptic("thief"), trial.claims());
    let elsewhere = Issuer::with(&[&thief]);
    let stolen = |member: &str, value: Value| {
        let mut header = thief.header();
        header["kid"] = json!(trial.key.id);
        header[member] = value;
        thief.sign(&header, &claims)
    };
    let jwk = thief.public.clone();
    let good = trial.key.sign(&trial.key.header(), &claims);
    assert_eq!(ask(&trial.gateway, &good).status, 200);
    trial.place.cloud.clear_requests();
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let none = |alg: &str| unsigned(&json!({"alg": alg, "typ": "JWT", "kid": "k1"}), &claims);
    let mut others = claims.clone();
    others["sub"] = json!("mallory");
    let tampered = unsigned(&trial.key.header(), &others);
    #[rustfmt::skip]
    let bad = [
        ("none", format!("{}.", none("none")), "not of a form"),
        ("None", format!("{}.", none("None")), "not of a form"),
        ("none with a signature", format!("{}.{signature}", none("none")), "not of a form"),
        ("no algorithm", trial.heading("alg", Value::Null), "not of a form"),
        ("an unknown algorithm", trial.heading("alg", json!("ES1024")), "not of a form"),
        ("an algorithm that is not configured", trial.heading("alg", json!("ES384")), "algorithm"),
        ("PS256 with a key for RS256", {
            let header = json!({"alg": "PS256", "typ": "JWT", "kid": "k2"});
            trial.rsa.sign(&header, &claims)
        }, "algorithm"),
        ("the key of another kind", {
            let header = json!({"alg": "RS256", "typ": "JWT", "kid": "k1"});
            trial.rsa.sign(&header, &claims)
        }, "no such key"),
        ("the other key", trial.heading("kid", json!("k4")), "signature is wrong"),
        ("a key for another purpose", trial.heading("kid", json!("k3")), "no such key"),
        ("an unknown key", trial.heading("kid", json!("k9")), "no such key"),
        ("no key, where there are two", trial.heading("kid", Value::Null), "no such key"),
        ("an embedded key", stolen("jwk", jwk.clone()), "signature is wrong"),
        ("the address of a key set", stolen("jku", json!(elsewhere.keys_url())), "signature is wrong"),
        ("the address of a certificate", stolen("x5u", json!(elsewhere.keys_url())), "signature is wrong"),
        ("an unknown key with an address", {
            let mut header = thief.header();
            header["jku"] = json!(elsewhere.keys_url());
            header["jwk"] = jwk.clone();
            thief.sign(&header, &claims)
        }, "no such key"),
        ("something critical", trial.heading("crit", json!(["exp"])), "not of a form"),
        ("a token of another type", trial.heading("typ", json!("logout+jwt")), "not of a form"),
        ("no signature", format!("{message}."), "signature is wrong"),
        ("half a signature", format!("{message}.{}", &signature[..40]), ""),
        ("other claims", format!("{tampered}.{signature}"), "signature is wrong"),
        ("a fourth part", format!("{good}.x"), "that the gateway knows"),
        ("two parts", message.to_owned(), "that the gateway knows"),
        ("no JSON", format!("x.y.{signature}"), "that the gateway knows"),
        ("points", "..".to_owned(), "that the gateway knows"),
    ];
    for (what, token, words) in bad {
        assert_refused(&trial.gateway, &token, words, what);
    }
    assert_eq!(elsewhere.asked(), 0, "nobody follows addresses in a token");
    assert!(trial.place.cloud.requests().is_empty());
    // Nothing of it stuck.
    assert_eq!(ask(&trial.gateway, &good).status, 200);
}

#[test]
fn a_public_key_is_no_shared_secret() {
    let trial = Trial::begin();
    // The public key as the secret of a HMAC, in every form that somebody may have taken it for.
    let text = |member: &str| trial.rsa.public[member].as_str().expect("text").to_owned();
    let modulus = BASE64_URL_SAFE_NO_PAD.decode(text("n")).expect("base64");
    let secrets = [
        modulus,
        text("n").into_bytes(),
        trial.rsa.public.to_string().into_bytes(),
        Vec::new(),
    ];
    for secret in secrets {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let header = json!({"alg": format!("{algorithm:?}"), "typ": "JWT", "kid": "k2"});
            let key = EncodingKey::from_secret(&secret);
            let token = sign_with(&key, algorithm, &header, &trial.claims());
            assert_refused(&trial.gateway, &token, "algorithm", "a shared secret");
        }
    }
    assert!(trial.place.cloud.requests().is_empty());
}

#[test]
fn a_flood_of_unknown_keys_costs_one_fetch() {
    let trial = Trial::begin();
    let good = trial.issuer.token(&trial.key, "alice", &["readers"]);
    assert_eq!(ask(&trial.gateway, &good).status, 200);
    let before = trial.issuer.asked();
    assert_eq!(before, 1, "the keys are fetched once at the start");
    thread::scope(|scope| {
        for thread in 0..10 {
            let trial = &trial;
            scope.spawn(move || {
                for number in 0..100 {
                    let id = format!("random-{thread}-{number}");
                    let token = trial.heading("kid", json!(id));
                    assert_eq!(ask(&trial.gateway, &token).status, 401);
                }
            });
        }
    });
    assert_eq!(trial.issuer.asked(), before + 1);
    let fetched = counted(
        &trial.gateway,
        &["issuer_keys_fetched", "\"corp\"", "\"ok\""],
    );
    assert!((fetched - 2.0).abs() < 0.1, "{fetched}");
    assert_eq!(ask(&trial.gateway, &good).status, 200);
    assert!(trial.place.cloud.tokens_issued() <= 1);
}

#[test]
fn a_fresh_key_of_an_issuer_is_taken_at_its_first_use_and_an_old_one_goes() {
    let (old, fresh) = (SigningKey::elliptic("old"), SigningKey::rsa("fresh"));
    let issuer = Issuer::with(&[&old]);
    let place = Place::new().add(&issuer.section("corp", READERS));
    let gateway = place.start();
    let (by_old, by_fresh) = (
        issuer.token(&old, "alice", &["readers"]),
        issuer.token(&fresh, "alice", &["readers"]),
    );
    assert_eq!(ask(&gateway, &by_old).status, 200);
    issuer.show(&[&old, &fresh]);
    assert_eq!(ask(&gateway, &by_fresh).status, 200);
    assert_eq!(ask(&gateway, &by_old).status, 200);
    // A single key needs no id. Two tokens with unknown ids have to be 30 seconds apart, so a
    // second gateway asks.
    issuer.show(&[&fresh]);
    let gateway = place.start();
    assert_eq!(ask(&gateway, &by_fresh).status, 200);
    assert_refused(&gateway, &by_old, "no such key", "the old key");
    let mut header = fresh.header();
    header.as_object_mut().expect("a header").remove("kid");
    let nameless = fresh.sign(&header, &issuer.claims("alice", &["readers"]));
    assert_eq!(ask(&gateway, &nameless).status, 200);
}

#[test]
fn keys_serve_through_an_outage_for_the_configured_time_and_no_longer() {
    let key = SigningKey::elliptic("k1");
    let issuer = Issuer::with(&[&key]);
    let place =
        Place::new().add(&issuer.section("corp", &format!("jwks_max_age = \"4s\"\n{READERS}")));
    let gateway = place.start();
    let token = issuer.token(&key, "alice", &["readers"]);
    assert_eq!(ask(&gateway, &token).status, 200);
    issuer.fall_silent();
    let before = issuer.asked();
    wait_for("a fetch in vain", || {
        (issuer.asked() > before).then_some(())
    });
    assert_eq!(ask(&gateway, &token).status, 200, "{}", gateway.log());
    let refused = wait_for("the end of the keys", || {
        let answer = ask(&gateway, &token);
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(
        (refused.status, refused.problem().as_str()),
        (401, "unauthenticated")
    );
    assert_refused(&gateway, &token, "cannot be checked", "no keys");
    // What is no key set is no end of the outage.
    for text in ["", "{}", "[]", "{\"keys\": {}}"] {
        let before = issuer.asked();
        issuer.show_text(text);
        wait_for("another fetch", || {
            (issuer.asked() > before + 1).then_some(())
        });
        assert_eq!(ask(&gateway, &token).status, 401, "{text}");
    }
    issuer.show_text(&format!(
        "{{\"keys\": [], \"x\": \"{}\"}}",
        "x".repeat(1 << 20)
    ));
    let before = issuer.asked();
    wait_for("another fetch", || {
        (issuer.asked() > before + 1).then_some(())
    });
    assert_eq!(ask(&gateway, &token).status, 401);
    assert!(counted(&gateway, &["credentials_refused", "issuer-keys"]) >= 1.0);
    for line in [
        "the keys of an issuer cannot be fetched; the old ones are used",
        "there are no keys of an issuer; its tokens are refused",
    ] {
        assert!(gateway.log().contains(line), "{line}");
    }
    issuer.show(&[&key]);
    wait_for("the return of the keys", || {
        (ask(&gateway, &token).status == 200).then_some(())
    });
}

#[test]
fn keys_in_a_file_are_read_again() {
    let (first, second) = (SigningKey::rsa("first"), SigningKey::elliptic("second"));
    let issuer = Issuer::with(&[]);
    let place = Place::new();
    let file = place.file("keys.json");
    let section = issuer.section("corp", READERS).replace(
        &format!("\"{}\"", issuer.keys_url()),
        &format!("{{ file = \"{}\" }}", file.display()),
    );
    let place = place.add(&section);
    let write = |keys: &[&SigningKey]| {
        let keys: Vec<&Value> = keys.iter().map(|key| &key.public).collect();
        fs::write(&file, json!({ "keys": keys }).to_string()).expect("a file");
    };
    write(&[&first]);
    let gateway = place.start();
    let token = |key: &SigningKey| issuer.token(key, "alice", &["readers"]);
    assert_eq!(ask(&gateway, &token(&first)).status, 200);
    write(&[&second]);
    assert_eq!(ask(&gateway, &token(&second)).status, 200);
    assert_refused(&gateway, &token(&first), "no such key", "the first key");
    assert_eq!(issuer.asked(), 0);
}

#[test]
fn more_than_one_credential_is_no_credential() {
    let trial = Trial::begin();
    let token = trial.issuer.token(&trial.key, "alice", &["readers"]);
    let asked = |values: [&str; 2]| {
        let headers = values.map(|value| format!("Authorization: Bearer {value}\r\n"));
        let request = format!(
            "GET /tasks HTTP/1.1\r\nHost: gateway\r\n{}\r\n",
            headers.concat()
        );
        raw::exchange(trial.gateway.authority(), request.as_bytes())
    };
    for values in [
        [KEY, KEY],
        [KEY, &token],
        [&token, "wrong"],
        ["wrong", "wrong"],
        ["", KEY],
    ] {
        let answer = asked(values);
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (400, "invalid-request")
        );
    }
    assert!(trial.place.cloud.requests().is_empty());
}

#[test]
fn an_issuer_that_withdraws_its_keys_is_obeyed() {
    let key = SigningKey::elliptic("k1");
    for text in [
        "{\"keys\": []}",
        "{\"keys\": [{\"kty\": \"oct\", \"k\": \"c2VjcmV0\", \"kid\": \"k1\"}]}",
    ] {
        let issuer = Issuer::with(&[&key]);
        let section = issuer.section("corp", &format!("jwks_max_age = \"2s\"\n{READERS}"));
        let place = Place::new().add(&section);
        let gateway = place.start();
        let token = issuer.token(&key, "alice", &["readers"]);
        assert_eq!(ask(&gateway, &token).status, 200);
        issuer.show_text(text);
        wait_for("the withdrawal", || {
            (ask(&gateway, &token).status == 401).then_some(())
        });
        // They are not old: the issuer has said that there are none.
        assert_refused(&gateway, &token, "has no such key", text);
        let line = "an issuer shows no key that can be used; its tokens are refused";
        let log = gateway.log();
        let told = log.lines().filter(|one| one.contains(line));
        assert_eq!(told.filter(|one| one.contains("WARN")).count(), 1, "{log}");
        assert!(counted(&gateway, &["issuer_keys_fetched", "no-keys"]) >= 1.0);
        issuer.show(&[&key]);
        wait_for("the return of the keys", || {
            (ask(&gateway, &token).status == 200).then_some(())
        });
    }
}

#[test]
fn of_several_keys_with_one_name_each_is_tried() {
    let keys = [1, 2, 3].map(|_| SigningKey::elliptic("same"));
    let issuer = Issuer::with(&keys.each_ref());
    let place = Place::new().add(&issuer.section("corp", READERS));
    let gateway = place.start();
    for key in &keys {
        let token = issuer.token(key, "alice", &["readers"]);
        assert_eq!(ask(&gateway, &token).status, 200);
    }
    let forged = issuer.token(&SigningKey::elliptic("same"), "alice", &["readers"]);
    assert_refused(&gateway, &forged, "signature", "the key of somebody else");
}

#[test]
fn an_issuer_with_more_keys_than_are_kept_is_told_of_once() {
    let keys: Vec<SigningKey> = (0..66)
        .map(|number| SigningKey::elliptic(&format!("k{number}")))
        .collect();
    let issuer = Issuer::with(&keys.iter().collect::<Vec<_>>());
    let section = issuer.section("corp", &format!("jwks_max_age = \"1s\"\n{READERS}"));
    let place = Place::new().add(&section);
    let gateway = place.start();
    let of = |index: usize| issuer.token(&keys[index], "alice", &["readers"]);
    assert_eq!(ask(&gateway, &of(63)).status, 200);
    assert_refused(
        &gateway,
        &of(64),
        "has no such key",
        "the key after the last",
    );
    let before = issuer.asked();
    wait_for("two more fetches", || {
        (issuer.asked() > before + 2).then_some(())
    });
    let log = gateway.log();
    let line = "an issuer shows more keys than are kept; the rest is left out";
    assert_eq!(log.matches(line).count(), 1, "{log}");
    assert!(
        log.contains("\"left_out\":2") || log.contains("left_out=2"),
        "{log}"
    );
}
