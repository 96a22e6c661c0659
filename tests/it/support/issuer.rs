//! An issuer of tokens: keys, the place where their public halves are, and tokens of every kind,
//! good and bad.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto, jwk::Jwk};
use migration_gateway::domain::clock::{Clock as _, SystemClock};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};

/// What tokens must say to be for the gateway.
pub(crate) const AUDIENCE: &str = "migration-gateway";

/// A key with its public half.
pub(crate) struct SigningKey {
    pub(crate) id: String,
    pub(crate) algorithm: Algorithm,
    key: EncodingKey,
    /// As it stands in a key set.
    pub(crate) public: Value,
}

impl SigningKey {
    pub(crate) fn elliptic(id: &str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        Self::of(
            id,
            Algorithm::ES256,
            EncodingKey::from_ec_der(&pair.serialize_der()),
        )
    }

    pub(crate) fn rsa(id: &str) -> Self {
        let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key");
        // What is inside the envelope of PKCS#8, whose head has 26 bytes for keys of this size.
        let key = EncodingKey::from_rsa_der(&pair.serialize_der()[26..]);
        Self::of(id, Algorithm::RS256, key)
    }

    fn of(id: &str, algorithm: Algorithm, key: EncodingKey) -> Self {
        let jwk = Jwk::from_encoding_key(&key, algorithm).expect("a public key");
        let mut public = serde_json::to_value(jwk).expect("JSON");
        public["kid"] = json!(id);
        public["use"] = json!("sig");
        Self {
            id: id.to_owned(),
            algorithm,
            key,
            public,
        }
    }

    /// The header that its tokens have.
    pub(crate) fn header(&self) -> Value {
        json!({"alg": format!("{:?}", self.algorithm), "typ": "JWT", "kid": self.id})
    }

    /// A token with this header and these claims, signed with this key whatever the header says.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        sign_with(&self.key, self.algorithm, header, claims)
    }
}

/// A token that is signed with any key and algorithm.
pub(crate) fn sign_with(
    key: &EncodingKey,
    algorithm: Algorithm,
    header: &Value,
    claims: &Value,
) -> String {
    let message = unsigned(header, claims);
    let signature = crypto::sign(message.as_bytes(), key, algorithm).expect("a signature");
    format!("{message}.{signature}")
}

/// The first two parts of a token.
pub(crate) fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

/// Seconds since 1970, so many from here.
pub(crate) fn seconds(from_here: i64) -> i64 {
    SystemClock.now().as_second() + from_here
}

/// The place of the public keys, on a socket of its own.
pub(crate) struct Issuer {
    address: SocketAddr,
    keys: Arc<Mutex<Option<String>>>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    /// Shows these keys.
    pub(crate) fn with(keys: &[&SigningKey]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let issuer = Self {
            address: listener.local_addr().expect("an address"),
            keys: Arc::default(),
            asked: Arc::default(),
        };
        issuer.show(keys);
        let (shown, asked) = (Arc::clone(&issuer.keys), Arc::clone(&issuer.asked));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                asked.fetch_add(1, Ordering::SeqCst);
                answer(&stream, shown.lock().expect("the keys").as_deref());
            }
        });
        issuer
    }

    /// Shows these keys from here on.
    pub(crate) fn show(&self, keys: &[&SigningKey]) {
        let keys: Vec<&Value> = keys.iter().map(|key| &key.public).collect();
        self.show_text(&json!({ "keys": keys }).to_string());
    }

    pub(crate) fn show_text(&self, text: &str) {
        *self.keys.lock().expect("the keys") = Some(text.to_owned());
    }

    /// Closes every connection without an answer from here on.
    pub(crate) fn fall_silent(&self) {
        *self.keys.lock().expect("the keys") = None;
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// What its tokens say in `iss`.
    pub(crate) fn name(&self) -> String {
        format!("http://{}/realm", self.address)
    }

    /// The address of its keys.
    pub(crate) fn keys_url(&self) -> String {
        format!("http://{}/realm/keys?kind=all", self.address)
    }

    /// A section of the configuration for it.
    pub(crate) fn section(&self, name: &str, more: &str) -> String {
        format!(
            "\n[issuers.{name}]\nissuer = \"{}\"\naudience = \"{AUDIENCE}\"\njwks = \"{}\"\n{more}\n",
            self.name(),
            self.keys_url()
        )
    }

    /// The claims of a good token.
    pub(crate) fn claims(&self, subject: &str, groups: &[&str]) -> Value {
        json!({
            "iss": self.name(), "aud": AUDIENCE, "sub": subject, "groups": groups,
            "iat": seconds(-5), "nbf": seconds(-5), "exp": seconds(300),
        })
    }

    /// A good token.
    pub(crate) fn token(&self, key: &SigningKey, subject: &str, groups: &[&str]) -> String {
        key.sign(&key.header(), &self.claims(subject, groups))
    }
}

/// Reads a request, and answers it with the keys; without keys the connection ends.
fn answer(stream: &TcpStream, keys: Option<&str>) {
    let patience = Some(Duration::from_secs(5));
    stream.set_read_timeout(patience).expect("a time limit");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|length| length > 2) {
        line.clear();
    }
    if let Some(keys) = keys {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            keys.len()
        );
        // The gateway may have left.
        let _written = (&mut &*stream).write_all((head + keys).as_bytes());
    }
}
