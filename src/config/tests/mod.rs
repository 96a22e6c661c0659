//! Tests of the configuration as a whole.

mod accepted;
mod people;
mod refused;
mod reported;

use std::io::Write as _;

use tempfile::NamedTempFile;

use super::{Config, fault::Faults, load_with, source::Variables};

/// The text of a configuration with everything that is required and nothing else.
const MINIMAL: &str = r#"
[projects.prod]
project_id = "0215ef11e49d4743be23dd97a1561e91"
region = "cn-north-4"
[projects.prod.credentials]
kind = "password"
domain = "acme"
user = "gateway"
password = { file = "SECRET" }
"#;

/// A caller and storage keys, to stand after [`MINIMAL`].
const PEOPLE: &str = r#"
[callers.team-a]
key_sha256 = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
permissions = ["*"]
projects = ["*"]
[storage_credentials.archive]
access_key = "AK"
secret_key = { file = "SECRET" }
callers = ["team-a"]
projects = ["prod"]
"#;

/// A configuration with one of everything.
fn complete() -> String {
    format!("{MINIMAL}{PEOPLE}")
}

/// Loads a text whose secrets are in a file, with variables of the environment.
fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, Faults> {
    let mut secret = NamedTempFile::new().expect("a file for the secret");
    writeln!(secret, "canary-secret-of-thirty-two-bytes-or-more").expect("the secret is written");
    let text = text.replace("SECRET", &secret.path().display().to_string());
    let mut file = NamedTempFile::new().expect("a file for the configuration");
    file.write_all(text.as_bytes())
        .expect("the text is written");
    let variables: Variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned())))
        .collect();
    load_with(file.path(), variables)
}

fn valid(text: &str, variables: &[(&str, &str)]) -> Config {
    load(text, variables).unwrap_or_else(|faults| panic!("{faults}"))
}

/// The faults of a configuration, one a line, without the heading.
fn faults(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let faults = load(text, variables).expect_err("the configuration should be refused");
    let text = faults.to_string();
    text.lines()
        .skip(1)
        .map(|line| line.trim().to_owned())
        .collect()
}
