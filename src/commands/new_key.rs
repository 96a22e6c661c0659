//! `new-key`.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use clap::Args;
use migration_gateway::domain::service::CallerName;
use sha2::{Digest as _, Sha256};

use super::Failure;

/// By this, people and scanners for leaked secrets recognise a key.
const PREFIX: &str = "mgw_";

/// Arguments of `new-key`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The caller's name: 1 to 63 characters of a-z, 0-9 and -.
    #[arg(value_parser = caller_name)]
    name: CallerName,
}

fn caller_name(text: &str) -> Result<CallerName, &'static str> {
    let name =
        CallerName::configured(text).ok_or("it must be 1 to 63 characters of a-z, 0-9 and -")?;
    if name == CallerName::anonymous() {
        return Err("it is the name of requests without credentials");
    }
    Ok(name)
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut random = [0_u8; 32];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::Other(format!("There is no randomness: {error}.")))?;
    let key = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(random));
    let name = &arguments.name;
    let digest = hex::encode(Sha256::digest(&key));
    super::print(&format!(
        "{key}\n\n[callers.{name}]\nkey_sha256 = \"{digest}\""
    ))?;
    // Beside the output, so that a program that reads the key is not disturbed.
    super::warn(
        "The first line is the key: give it to the caller, it is kept nowhere. \
         The lines below it belong into the configuration, with `permissions` and `projects`.",
    );
    Ok(())
}
