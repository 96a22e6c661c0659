//! Signs requests with this program's signer, so that another program can compare: one JSON object
//! a line on standard input, the value of `Authorization` a line on standard output.
//! `tests/outside/test_signer.py` says what an object has.

use std::{
    collections::BTreeMap,
    error::Error,
    io::{self, Write as _},
};

use migration_gateway::{
    domain::secret::Secret,
    upstream::iam::signature::{DATE_HEADER, Signable, sign},
};

#[derive(serde::Deserialize)]
struct Line {
    method: String,
    target: String,
    headers: BTreeMap<String, String>,
    body: String,
    access_key: String,
    secret_key: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    for line in io::stdin().lines() {
        let line: Line = serde_json::from_str(&line?)?;
        let headers: Vec<(&str, &str)> = line
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let request = Signable {
            method: &line.method,
            target: &line.target,
            headers: &headers,
            body: line.body.as_bytes(),
        };
        let (access_key, secret_key) = (Secret::new(line.access_key), Secret::new(line.secret_key));
        let signature = sign(
            &request,
            &access_key,
            &secret_key,
            &line.headers[DATE_HEADER],
        );
        writeln!(io::stdout(), "{}", signature.authorization.expose())?;
    }
    Ok(())
}
