//! Where the gateway is, and who asks.

use std::{
    env, io,
    path::{Path, PathBuf},
};

use clap::Args;
use migration_gateway::{
    client::Settings,
    config,
    domain::secret::{Secret, SecretSource},
};

use crate::commands::Failure;

/// Where a gateway listens by default.
const DEFAULT_ADDRESS: &str = "http://127.0.0.1:8080";
/// Where the key is if no file is named.
const KEY_VARIABLE: &str = "MIGRATION_GATEWAY_KEY";

/// How the gateway is reached.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// Where the gateway is, such as <https://gateway.example.com>.
    #[arg(
        long,
        value_name = "URL",
        env = "MIGRATION_GATEWAY_ADDRESS",
        global = true
    )]
    address: Option<String>,
    /// A file that holds the caller's key.
    #[arg(long, value_name = "FILE", global = true)]
    key_file: Option<PathBuf>,
    /// A PEM file with roots to trust besides the system's.
    #[arg(long, value_name = "FILE", global = true)]
    ca_file: Option<PathBuf>,
    /// Print the documents of the API, one a line, and nothing else.
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// What the file of the person at the terminal says.
#[derive(Debug, Default)]
struct Defaults {
    address: Option<String>,
    key_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

impl Connection {
    /// What holds: the command line before the environment, and that before the file.
    pub(super) fn settings(&self) -> Result<Settings, Failure> {
        let file = Defaults::read()?;
        let address = self.address.clone().or(file.address);
        Ok(Settings {
            address: address.unwrap_or_else(|| DEFAULT_ADDRESS.to_owned()),
            key: key(self.key_file.as_deref(), file.key_file.as_deref())?,
            ca_file: self.ca_file.clone().or(file.ca_file),
        })
    }
}

impl Defaults {
    fn read() -> Result<Self, Failure> {
        let Some(path) = path() else {
            return Ok(Self::default());
        };
        let text = match config::read_text(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(fault(&path, &format!("cannot be read: {error}"))),
        };
        // What a parser says could quote the line, and somebody may have written the key itself
        // there.
        let names = ["address", "key_file", "ca_file"];
        let [address, key_file, ca_file] =
            config::parse_texts(&text, names).map_err(|why| fault(&path, &why))?;
        Ok(Self {
            address,
            key_file: key_file.map(PathBuf::from),
            ca_file: ca_file.map(PathBuf::from),
        })
    }
}

fn fault(path: &Path, why: &str) -> Failure {
    Failure::Usage(format!("Error: {} {why}.", path.display()))
}

/// Where the file is, if there is a place for it.
fn path() -> Option<PathBuf> {
    let set = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let folder = set
        .filter(|folder| folder.is_absolute())
        .or_else(|| Some(env::home_dir()?.join(".config")))?;
    Some(folder.join("migration-gateway/client.toml"))
}

fn key(flag: Option<&Path>, file: Option<&Path>) -> Result<Option<Secret>, Failure> {
    let variable = env::var_os(KEY_VARIABLE).is_some();
    let source = match (flag, variable, file) {
        (Some(path), _, _) | (None, false, Some(path)) => SecretSource::File(path.to_owned()),
        (None, true, _) => SecretSource::Env(KEY_VARIABLE.to_owned()),
        (None, false, None) => return Ok(None),
    };
    let place = match &source {
        SecretSource::File(path) => path.display().to_string(),
        SecretSource::Env(name) => name.clone(),
    };
    let key = config::read_secret(&source);
    key.map(Some)
        .map_err(|why| Failure::Usage(format!("Error: the key ({place}) {why}.")))
}
