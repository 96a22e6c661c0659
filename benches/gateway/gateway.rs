//! The gateway of this build, in front of a simulated cloud.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use migration_gateway::sandbox::Cloud;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use ureq::{Agent, Body, http};

use crate::{
    Outcome,
    process::{Memory, Process},
    wait_for,
};

/// The key of the one caller, who may do everything.
pub(crate) const KEY: &str = "key-of-the-benchmark";

/// So fast that neither the pacer of requests to the cloud nor the limits of a caller ever hold one
/// up.
pub(crate) const NO_PACE: [(&str, &str); 5] = [
    ("upstream.requests_per_second", "1000000"),
    ("upstream.burst", "1000000"),
    ("limits.requests_per_second", "1000000"),
    ("limits.burst", "1000000"),
    ("limits.running_operations", "1000000"),
];

/// A running gateway, with a record of its own that ends with it.
pub(crate) struct Gateway {
    process: Process,
    /// Where it listens, as the beginning of a URL.
    pub(crate) url: String,
    agent: Agent,
    _folder: TempDir,
}

impl Gateway {
    /// Starts the program of this build with these keys beside what it needs in any case, and waits
    /// until it serves. `oms` is the address of that service; everything else is the cloud's.
    pub(crate) fn start(cloud: &Cloud, oms: &str, settings: &[(&str, &str)]) -> Outcome<Self> {
        let program = Path::new(env!("CARGO_BIN_EXE_migration-gateway"));
        Self::start_program(program, cloud, oms, settings)
    }

    /// As [`Gateway::start`], with another build.
    pub(crate) fn start_program(
        program: &Path,
        cloud: &Cloud,
        oms: &str,
        settings: &[(&str, &str)],
    ) -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("gateway.toml");
        fs::write(&file, configuration(cloud, oms, settings, folder.path())?)?;
        let log = folder.path().join("gateway.log");
        let mut command = Command::new(program);
        command.env_clear().args(["serve", "--config"]).arg(&file);
        let mut process = Process::start(&mut command, &log)?;
        let url = wait_for("the gateway", Duration::from_secs(20), || {
            if process.has_ended()? {
                return Err(format!("the gateway ended: {}", fs::read_to_string(&log)?).into());
            }
            address(&log)
        })?;
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build();
        Ok(Self {
            process,
            url,
            agent: agent.into(),
            _folder: folder,
        })
    }

    /// Sends a request without a body, and gives the status of the answer.
    pub(crate) fn send(&self, method: &str, path: &str) -> Outcome<u16> {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {KEY}"))
            .header("prefer", "respond-async")
            .body(())?;
        let mut response: http::Response<Body> = self.agent.run(request)?;
        // Read to its end, so that the connection serves again.
        response.body_mut().read_to_vec()?;
        Ok(response.status().as_u16())
    }

    /// Asks for a forced delete of every task, from some threads at once, and waits for none.
    pub(crate) fn delete_all(&self, tasks: &[String]) -> Outcome<()> {
        const AT_ONCE: usize = 8;
        const PATIENCE: Duration = Duration::from_secs(30);
        let ask = |tasks: &[String]| -> Result<(), String> {
            for task in tasks {
                let path = format!("/tasks/{task}?force=pause");
                // A database that has more to do than it can is asked again.
                let asked = wait_for("a place in the record", PATIENCE, || {
                    match self.send("DELETE", &path)? {
                        202 => Ok(Some(())),
                        503 => Ok(None),
                        status => Err(format!("a delete was answered with {status}").into()),
                    }
                });
                asked.map_err(|error| error.to_string())?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let asking: Vec<_> = tasks
                .chunks(tasks.len().div_ceil(AT_ONCE).max(1))
                .map(|tasks| scope.spawn(move || ask(tasks)))
                .collect();
            for one in asking {
                one.join().map_err(|_| "a thread panicked")??;
            }
            Ok(())
        })
    }

    pub(crate) fn memory(&self) -> Outcome<Memory> {
        self.process.memory()
    }

    pub(crate) fn cpu_seconds(&self) -> Outcome<f64> {
        self.process.cpu_seconds()
    }
}

/// Where a gateway listens, once it has logged that.
fn address(log: &Path) -> Outcome<Option<String>> {
    let text = fs::read_to_string(log)?;
    let Some(line) = text.lines().find(|line| line.contains("\"serving\"")) else {
        return Ok(None);
    };
    let line: serde_json::Value = serde_json::from_str(line)?;
    let address = line["address"].as_str().ok_or("no address in the log")?;
    Ok(Some(format!("http://{address}")))
}

fn configuration(
    cloud: &Cloud,
    oms: &str,
    settings: &[(&str, &str)],
    folder: &Path,
) -> Outcome<String> {
    let account = cloud.account();
    let password: PathBuf = folder.join("password");
    fs::write(&password, &account.password)?;
    let record = format!("\"sqlite://{}\"", folder.join("operations.db").display());
    let mut sections = BTreeMap::from([
        ("server", vec![("listen", "\"127.0.0.1:0\"")]),
        ("log", vec![("format", "\"json\"")]),
        ("store", vec![]),
    ]);
    if !settings.iter().any(|(name, _)| *name == "store.url") {
        sections.entry("store").or_default().push(("url", &record));
    }
    for (name, value) in settings {
        let (section, key) = name.split_once('.').ok_or("a key without a section")?;
        sections.entry(section).or_default().push((key, value));
    }
    let mut text = String::new();
    for (section, keys) in sections {
        writeln!(text, "[{section}]")?;
        for (key, value) in keys {
            writeln!(text, "{key} = {value}")?;
        }
    }
    let digest = hex::encode(Sha256::digest(KEY));
    writeln!(
        text,
        "[projects.default]\nproject_id = \"{}\"\nregion = \"{}\"\n\
         [projects.default.endpoints]\niam = \"{}\"\noms = \"{oms}\"\nsms = \"{}\"\n\
         [projects.default.credentials]\nkind = \"password\"\ndomain = \"{}\"\nuser = \"{}\"\n\
         password = {{ file = \"{}\" }}\n\
         [callers.benchmark]\nkey_sha256 = \"{digest}\"\npermissions = [\"*\"]\nprojects = [\"*\"]",
        account.project_id,
        account.region,
        cloud.iam_url(),
        cloud.sms_url(),
        account.domain,
        account.user,
        password.display(),
    )?;
    Ok(text)
}
