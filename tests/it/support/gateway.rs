//! The real program, in a process of its own, in front of a simulated cloud.

use std::{
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    time::Duration,
};

use futures_util::TryStreamExt as _;
use migration_gateway::sandbox::{Cloud, CloudOptions};
use sha2::{Digest as _, Sha256};
use sqlx::Connection as _;

use super::{
    PATIENCE,
    authority::{Authority, Certified},
    http::Client,
    postgres::Database,
    wait_for, wait_within,
};

/// The key of the caller who may do everything.
pub(crate) const KEY: &str = "test-key-of-the-caller-who-may-do-everything";

/// The lower-case hex SHA-256 of a key, as the configuration has it.
pub(crate) fn digest(key: &str) -> String {
    hex::encode(Sha256::digest(key))
}

/// A place for a gateway: its cloud, its configuration and its record. A gateway can be started
/// here again and again.
pub(crate) struct Place {
    pub(crate) cloud: Cloud,
    folder: tempfile::TempDir,
    /// Where the record is, unless it is a file.
    database: Option<Database>,
    /// Added to the configuration as it is.
    extra: String,
    /// Lines of the sections, in the form `section.key = value`.
    settings: Vec<(String, String)>,
    /// Variables of the program's environment.
    environment: Vec<(String, String)>,
    /// The lines of the first project's credentials; its user's name and password if there are
    /// none.
    credentials: Option<String>,
    /// The largest file that programs started here can write, in KiB.
    file_limit: Option<u32>,
    /// Whether programs started here may go only where permissions let them, also if root starts
    /// them.
    is_confined: bool,
}

impl Place {
    /// A place with a cloud of these options.
    pub(crate) fn with(options: CloudOptions) -> Self {
        let cloud = Cloud::start(options).expect("a cloud");
        let folder = tempfile::tempdir().expect("a folder");
        let settings = [
            ("server.listen", "\"127.0.0.1:0\""),
            ("server.workers", "2"),
            ("log.format", "\"json\""),
            ("operations.poll_min", "\"20ms\""),
            ("operations.poll_max", "\"200ms\""),
            ("upstream.request_timeout", "\"2s\""),
            ("upstream.requests_per_second", "1000"),
            ("upstream.burst", "1000"),
            ("limits.requests_per_second", "1000000"),
            ("limits.burst", "1000000"),
        ];
        let mut settings: Vec<(String, String)> = settings
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let record = folder.path().join("operations.db");
        let record = format!("\"sqlite://{}\"", record.display());
        settings.push(("store.url".to_owned(), record));
        Self {
            cloud,
            folder,
            database: None,
            extra: String::new(),
            settings,
            environment: Vec::new(),
            credentials: None,
            file_limit: None,
            is_confined: false,
        }
    }

    pub(crate) fn new() -> Self {
        Self::with(CloudOptions::default())
    }

    /// A place whose record is in a database of its own on the server that tests share.
    pub(crate) fn postgres() -> Self {
        Self::new().on(Database::new())
    }

    /// Keeps the record in this database.
    pub(crate) fn on(self, database: Database) -> Self {
        let url = format!("\"{}\"", database.url());
        let password = self.secret("store-password", database.password());
        let place = self.set("store.url", &url).set("store.password", &password);
        Self {
            database: Some(database),
            ..place
        }
    }

    /// The address of its database on a server.
    pub(crate) fn url(&self) -> String {
        self.database.as_ref().expect("a server").url()
    }

    /// Sets a parameter of the server for its database, also for the connections that there are:
    /// they are cut.
    pub(crate) fn configure_server(&self, parameter: &str, value: &str) {
        self.database
            .as_ref()
            .expect("a server")
            .configure(parameter, value);
    }

    /// Whether the record is on a server.
    #[cfg(feature = "kill-points")]
    pub(crate) fn is_on_server(&self) -> bool {
        self.database.is_some()
    }

    /// Sets `section.key`, or a key outside of all sections, to a TOML value.
    pub(crate) fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.retain(|(other, _)| other != key);
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Sets a variable in the environment of programs that are started here.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Has programs that are started here fail to write beyond so many KiB of a file, as on a disk
    /// that is full there.
    pub(crate) fn limit_files(mut self, kib: u32) -> Self {
        self.file_limit = Some(kib);
        self
    }

    /// Has permissions of files count for programs that are started here, also if it is root who
    /// starts them.
    pub(crate) fn confine(mut self) -> Self {
        self.is_confined = true;
        self
    }

    /// The program, as it is started here.
    fn program(&self) -> std::process::Command {
        let program = crate::gateway();
        let script = match (self.file_limit, self.is_confined) {
            (None, false) => return program,
            // Without the signal, which would end the program, the write fails.
            (Some(kib), _) => {
                format!("ulimit -f {kib} && exec env --ignore-signal=XFSZ \"$0\" \"$@\"")
            }
            (None, true) => "[ \"$(id -u)\" != 0 ] || \
                exec setpriv --bounding-set=-dac_override,-dac_read_search \"$0\" \"$@\"; \
                exec \"$0\" \"$@\""
                .to_owned(),
        };
        let mut shell = std::process::Command::new("bash");
        shell.env_clear().args(["-c", &script]);
        shell.arg(program.get_program());
        shell
    }

    /// Adds TOML to the end of the configuration.
    pub(crate) fn add(mut self, toml: &str) -> Self {
        self.extra.push_str(toml);
        self
    }

    /// Adds a caller with this key, and with these lines of TOML.
    pub(crate) fn caller(self, name: &str, key: &str, toml: &str) -> Self {
        let digest = digest(key);
        self.add(&format!(
            "\n[callers.{name}]\nkey_sha256 = \"{digest}\"\n{toml}\n"
        ))
    }

    /// Encrypts connections with a certificate, and asks callers for certificates of an authority.
    pub(crate) fn encrypted(self, listener: &Certified, callers: &Authority) -> Self {
        self.write_pair(listener);
        self.secret("client-ca.pem", &callers.pem());
        let files = [
            ("certificate", "listener.pem"),
            ("private_key", "listener-key.pem"),
            ("client_ca", "client-ca.pem"),
        ];
        files.into_iter().fold(self, |place, (key, name)| {
            let path = format!("\"{}\"", place.file(name).display());
            place.set(&format!("server.tls.{key}"), &path)
        })
    }

    /// Writes the certificate of the listener and its key.
    pub(crate) fn write_pair(&self, listener: &Certified) {
        self.secret("listener.pem", &listener.pem);
        self.secret("listener-key.pem", &listener.key_pem());
    }

    /// Gives the first project other credentials than its user's name and password.
    pub(crate) fn credentials(mut self, toml: &str) -> Self {
        self.credentials = Some(toml.to_owned());
        self
    }

    /// Adds a second project of the same account, whose id and region these are.
    pub(crate) fn project(self, name: &str, id: &str, region: &str) -> Self {
        let password = self.password_credentials();
        self.project_with(name, id, region, &password)
    }

    /// As [`Place::project`], with other credentials.
    pub(crate) fn project_with(self, name: &str, id: &str, region: &str, toml: &str) -> Self {
        self.cloud.add_project(id, region);
        let toml = format!(
            "\n[projects.{name}]\nproject_id = \"{id}\"\nregion = \"{region}\"\n\
             [projects.{name}.endpoints]\niam = \"{}\"\noms = \"{}\"\nsms = \"{}\"\n\
             [projects.{name}.credentials]\n{toml}\n",
            self.cloud.iam_url(),
            self.cloud.oms_url(),
            self.cloud.sms_url(),
        );
        self.set("default_project", "\"default\"").add(&toml)
    }

    /// The lines of credentials with the user's name and password.
    fn password_credentials(&self) -> String {
        let account = self.cloud.account();
        let password = self.secret("password", &account.password);
        format!(
            "kind = \"password\"\ndomain = \"{}\"\nuser = \"{}\"\npassword = {password}",
            account.domain, account.user,
        )
    }

    /// A file in the folder of the place.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes every ended operation one that ended long ago. The gateway must not run.
    pub(crate) fn age_operations(&self) {
        let aged = self.sql("UPDATE operations SET finished_at = 1 WHERE finished_at > 1");
        assert!(aged > 0, "nothing had ended");
    }

    /// Runs a statement in the database, as another process may. Gives how many rows it changed or
    /// found.
    pub(crate) fn sql(&self, statement: &str) -> u64 {
        if let Some(database) = &self.database {
            return database.sql(statement);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            sqlx::any::install_default_drivers();
            let url = format!("sqlite://{}", self.file("operations.db").display());
            let mut database = sqlx::AnyConnection::connect(&url)
                .await
                .expect("the database");
            let mut rows = 0;
            let mut told = sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).fetch_many(&mut database);
            while let Some(told) = told.try_next().await.expect(statement) {
                // SQLite does not count what a `SELECT` finds.
                rows += told.either(|done| done.rows_affected(), |_| 1);
            }
            drop(told);
            database.close().await.expect("an end");
            rows
        })
    }

    /// Writes a file and gives its path as a TOML string.
    pub(crate) fn secret(&self, name: &str, text: &str) -> String {
        let path = self.file(name);
        fs::write(&path, text).expect("a file");
        format!("{{ file = \"{}\" }}", path.display())
    }

    fn configuration(&self) -> String {
        let mut text = String::new();
        for (key, value) in self.settings.iter().filter(|(key, _)| !key.contains('.')) {
            writeln!(text, "{key} = {value}").expect("text");
        }
        let mut sections: Vec<&str> = self
            .settings
            .iter()
            .filter_map(|(key, _)| key.split_once('.'))
            .map(|(section, _)| section)
            .collect();
        sections.dedup();
        sections.sort_unstable();
        sections.dedup();
        for section in sections {
            writeln!(text, "[{section}]").expect("text");
            for (key, value) in &self.settings {
                if let Some(key) = key.strip_prefix(&format!("{section}.")) {
                    writeln!(text, "{key} = {value}").expect("text");
                }
            }
        }
        let account = self.cloud.account();
        let credentials = self.credentials.clone();
        let credentials = credentials.unwrap_or_else(|| self.password_credentials());
        writeln!(
            text,
            "[projects.default]\nproject_id = \"{}\"\nregion = \"{}\"\n\
             [projects.default.endpoints]\niam = \"{}\"\noms = \"{}\"\nsms = \"{}\"\n\
             [projects.default.credentials]\n{credentials}",
            account.project_id,
            account.region,
            self.cloud.iam_url(),
            self.cloud.oms_url(),
            self.cloud.sms_url(),
        )
        .expect("text");
        let digest = digest(KEY);
        writeln!(
            text,
            "[callers.tester]\nkey_sha256 = \"{digest}\"\npermissions = [\"*\"]\nprojects = [\"*\"]"
        )
        .expect("text");
        text + &self.extra
    }

    /// Puts a pipe in the place of a file, to which nobody writes: who opens it waits, as for a
    /// file on a mount that hangs.
    pub(crate) fn make_hang(&self, name: &str) {
        let path = self.file(name);
        fs::remove_file(&path).expect("a file");
        let made = std::process::Command::new("mkfifo").arg(path).status();
        assert!(made.expect("mkfifo").success());
    }

    /// Writes the configuration, and gives its path.
    pub(crate) fn write_configuration(&self) -> PathBuf {
        let file = self.file("gateway.toml");
        fs::write(&file, self.configuration()).expect("a configuration");
        file
    }

    /// Starts the program here, and waits until it says where it listens.
    pub(crate) fn start(&self) -> Gateway {
        self.start_logging("info")
    }

    /// As [`Place::start`], with this much in the log.
    pub(crate) fn start_logging(&self, level: &str) -> Gateway {
        self.start_with(level, Stdio::null())
    }

    /// As [`Place::start`], with its standard output there.
    pub(crate) fn start_writing(&self, stdout: Stdio) -> Gateway {
        self.start_with("info", stdout)
    }

    /// What the program says that does not start here.
    pub(crate) fn refusal(&self) -> String {
        let file = self.write_configuration();
        let output = self
            .program()
            .args(["serve", "--config"])
            .arg(&file)
            .output();
        let output = output.expect("the program");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).expect("text")
    }

    fn start_with(&self, level: &str, stdout: Stdio) -> Gateway {
        let file = self.write_configuration();
        let number = (0..10_000)
            .find(|n| !self.log_file(*n).exists())
            .expect("a free number");
        let log = self.log_file(number);
        let child = self
            .program()
            .env("RUST_LOG", level)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .args(["serve", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(File::create(&log).expect("a log"))
            .spawn()
            .expect("the program");
        let mut gateway = Gateway {
            child,
            log,
            base: String::new(),
        };
        gateway.base = wait_for("the address of the gateway", || gateway.address());
        gateway
    }

    fn log_file(&self, number: u32) -> PathBuf {
        self.file(&format!("gateway-{number}.log"))
    }
}

/// A running gateway. It is killed when the test is over.
pub(crate) struct Gateway {
    child: Child,
    log: PathBuf,
    base: String,
}

impl Gateway {
    /// How much memory it has, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("a running gateway");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
        number.expect("a size").parse().expect("a number")
    }

    /// Where it listens, as it logged.
    fn address(&mut self) -> Option<String> {
        let ended = self.child.try_wait().expect("a child");
        assert!(
            ended.is_none(),
            "the gateway ended with {ended:?}: {}",
            self.log()
        );
        let log = self.log();
        let line = log.lines().find(|line| line.contains("serving"))?;
        // A line of JSON, or one of text.
        let address = match serde_json::from_str::<serde_json::Value>(line) {
            Ok(line) => line["address"].as_str().map(str::to_owned),
            Err(_) => line
                .split("address=")
                .nth(1)
                .and_then(|rest| rest.split(' ').next())
                .map(str::to_owned),
        };
        Some(format!("http://{}", address.expect("an address")))
    }

    /// The caller who may do everything.
    pub(crate) fn client(&self) -> Client {
        self.client_with(KEY)
    }

    /// A caller with this key.
    pub(crate) fn client_with(&self, key: &str) -> Client {
        Client::new(self.base.clone(), Some(key.to_owned()))
    }

    /// A caller without a key.
    pub(crate) fn stranger(&self) -> Client {
        Client::new(self.base.clone(), None)
    }

    /// Somebody who trusts an authority, and may have a certificate or a key, on encrypted
    /// connections.
    pub(crate) fn encrypted(
        &self,
        trusted: &Authority,
        certified: Option<&Certified>,
        key: Option<&str>,
    ) -> Client {
        let base = format!("https://{}", self.authority());
        Client::encrypted(base, key.map(str::to_owned), trusted.for_agent(certified))
    }

    /// `host:port`.
    pub(crate) fn authority(&self) -> &str {
        self.base.strip_prefix("http://").expect("an http address")
    }

    /// Everything that it logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("a log")
    }

    pub(crate) fn log_path(&self) -> &Path {
        &self.log
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it without a warning, as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("to be killed");
        self.child.wait().expect("an end");
    }

    /// Asks it to stop, with this signal.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = std::process::Command::new("kill")
            .args([&format!("-{signal}"), &self.pid().to_string()])
            .status();
        assert!(sent.expect("kill").success());
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        self.ended_within(PATIENCE)
    }

    /// Waits for its end, for so long.
    pub(crate) fn ended_within(&mut self, limit: Duration) -> ExitStatus {
        wait_within(limit, "the end of the gateway", || {
            self.child.try_wait().expect("a child")
        })
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}
