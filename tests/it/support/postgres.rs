//! PostgreSQL for tests: the server that `DATABASE_URL` names, or one of this process's own from
//! the installed programs.
//!
//! A server of one's own is watched over by a script that outlives this process: it ends the server
//! and removes its folder when this process has ended, in whatever way.

use std::{
    env, fs,
    io::Write as _,
    net::TcpListener,
    os::unix::{
        fs::{MetadataExt as _, OpenOptionsExt as _},
        process::CommandExt as _,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use sqlx::Connection as _;

/// A server that takes longer to start is broken.
const START_MAX: Duration = Duration::from_mins(1);
/// The user that a gateway is on a server of one's own.
const USER: &str = "gateway";
const PASSWORD: &str = "the password of the gateway: %&?/ä";

/// Reads what is to be done from its standard input, and clears up at its end. No signal to the
/// tests ends it before.
const GUARDIAN: &str = r#"
trap '' HUP INT TERM
bin=$1 folder=$2 port=$3 password=$4
shift 4
more=("$@")
start() {
    "$bin/postgres" -D "$folder/data" -p "$port" -k "$folder" -c listen_addresses=127.0.0.1 -c fsync=off \
        -c max_connections=500 -c unix_socket_permissions=0777 "${more[@]}" >>"$folder/log" 2>&1 &
    server=$!
}
stop() {
    kill -QUIT "$server"
    wait "$server"
}
"$bin/initdb" -D "$folder/data" -U admin -A trust --auth-host="$password" -E UTF8 --locale=C --no-sync >"$folder/log" 2>&1
start
while read -r word; do "$word"; done
stop
rm -rf "$folder"
"#;

/// A server.
pub(crate) struct Server {
    /// Databases are made and removed as this.
    admin: String,
    /// `user@host:port` for gateways.
    address: String,
    /// `?` and parameters for gateways, if there are any.
    query: String,
    password: String,
    guardian: Option<Child>,
}

impl Server {
    /// The one that tests share.
    fn shared() -> Arc<Self> {
        static SHARED: OnceLock<Arc<Server>> = OnceLock::new();
        let server = SHARED.get_or_init(|| match env::var_os("DATABASE_URL") {
            Some(url) => Self::at(url.to_str().expect("DATABASE_URL is text")).into(),
            // Many connections are made there, and passwords cost time.
            None => Self::start_with("trust", None),
        });
        Arc::clone(server)
    }

    /// One that is there already.
    fn at(url: &str) -> Self {
        let (rest, query) = url.split_once('?').unwrap_or((url, ""));
        let parts = rest.split_once("://").and_then(|(_, rest)| {
            let (user, rest) = rest.rsplit_once('@')?;
            Some((user, rest.split_once('/')?.0))
        });
        let (user, host) =
            parts.expect("DATABASE_URL is like postgres://user:password@host/database");
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        Self {
            admin: url.to_owned(),
            address: format!("{user}@{host}"),
            query: if query.is_empty() {
                String::new()
            } else {
                format!("?{query}")
            },
            password: unescaped(password),
            guardian: None,
        }
    }

    /// One of its own, which ends with this value or with the process. Its users need their
    /// passwords on every connection, which may be encrypted if there is a certificate and its key,
    /// as PEM.
    pub(crate) fn start(pair: Option<[&str; 2]>) -> Arc<Self> {
        Self::start_with("scram-sha-256", pair)
    }

    fn start_with(password: &str, pair: Option<[&str; 2]>) -> Arc<Self> {
        let folder = tempfile::Builder::new()
            .prefix("postgres-")
            .tempdir()
            .expect("a folder")
            .keep();
        let port = free_port();
        let mut guardian = Command::new("bash");
        guardian
            .args(["-c", GUARDIAN, "guardian"])
            .args([&programs(), &folder])
            .args([&port.to_string(), password])
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut files = vec![folder.clone()];
        for (name, text) in ["server.crt", "server.key"]
            .into_iter()
            .zip(pair.unwrap_or_default())
        {
            let file = folder.join(name);
            let mut options = fs::OpenOptions::new();
            let opened = options.write(true).create_new(true).mode(0o600).open(&file);
            opened
                .expect("a file")
                .write_all(text.as_bytes())
                .expect("a file");
            files.push(file);
        }
        if pair.is_some() {
            guardian.args(["-c", "ssl=on", "-c"]);
            guardian
                .arg(format!("ssl_cert_file={}", files[1].display()))
                .arg("-c");
            guardian.arg(format!("ssl_key_file={}", files[2].display()));
        }
        give_away(&mut guardian, &files);
        let server = Self {
            guardian: Some(guardian.spawn().expect("bash")),
            admin: format!(
                "postgres://admin@localhost:{port}/postgres?host={}",
                folder.display()
            ),
            address: format!("{USER}@127.0.0.1:{port}"),
            query: String::new(),
            password: PASSWORD.to_owned(),
        };
        let log = || fs::read_to_string(folder.join("log")).unwrap_or_default();
        let up = server.wait_until_up();
        up.unwrap_or_else(|error| panic!("{error}: {}", log()));
        server.admin(&format!(
            "CREATE ROLE {USER} LOGIN CREATEDB PASSWORD '{PASSWORD}'"
        ));
        server.into()
    }

    /// Ends it in the middle of everything, as a crash does, and waits until it lets nobody in.
    pub(crate) fn stop(&self) {
        self.tell("stop");
        let give_up = Instant::now() + START_MAX;
        while run(&self.admin, "SELECT 1").is_ok() {
            assert!(Instant::now() < give_up, "the server does not stop");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts it again after [`Server::stop`], with everything that was committed, and waits until
    /// it lets users in.
    pub(crate) fn start_again(&self) {
        self.tell("start");
        self.wait_until_up().expect("a server");
    }

    fn wait_until_up(&self) -> Result<(), sqlx::Error> {
        let give_up = Instant::now() + START_MAX;
        while let Err(error) = run(&self.admin, "SELECT 1") {
            if Instant::now() > give_up {
                return Err(error);
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn tell(&self, word: &str) {
        let guardian = self.guardian.as_ref().expect("a server of the test's own");
        let mut input = guardian.stdin.as_ref().expect("a pipe");
        writeln!(input, "{word}").expect("a guardian");
    }

    /// Runs a statement as a user who may do everything.
    pub(crate) fn admin(&self, sql: &str) -> u64 {
        run(&self.admin, sql).expect(sql)
    }

    /// A fresh database on it.
    pub(crate) fn database(self: &Arc<Self>) -> Database {
        let name = format!("test_{:016x}", fastrand::u64(..));
        let owner = self.address.split('@').next().expect("a user");
        self.admin(&format!(
            "CREATE DATABASE {name} OWNER \"{owner}\" TEMPLATE template0 ENCODING 'UTF8'"
        ));
        Database {
            server: Arc::clone(self),
            name,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut guardian) = self.guardian.take() {
            drop(guardian.stdin.take());
            let _ended = guardian.wait();
        }
    }
}

/// A database of one test, which goes when it is dropped.
pub(crate) struct Database {
    pub(crate) server: Arc<Server>,
    name: String,
}

impl Database {
    /// One on the server that tests share.
    pub(crate) fn new() -> Self {
        Server::shared().database()
    }

    /// Its address for a gateway.
    pub(crate) fn url(&self) -> String {
        let Self { server, name } = self;
        format!("postgres://{}/{name}{}", server.address, server.query)
    }

    /// The password of a gateway.
    pub(crate) fn password(&self) -> &str {
        &self.server.password
    }

    /// Sets a parameter for it, and cuts the connections that do not know it.
    pub(crate) fn configure(&self, parameter: &str, value: &str) {
        let Self { server, name } = self;
        server.admin(&format!("ALTER DATABASE {name} SET {parameter} = {value}"));
        server.admin(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        ));
    }

    /// Runs statements in it as a user who may do everything. Gives how many rows they changed or
    /// found.
    pub(crate) fn sql(&self, sql: &str) -> u64 {
        let (before, after) = self
            .server
            .admin
            .split_once('?')
            .unwrap_or((&self.server.admin, ""));
        let (host, _) = before.rsplit_once('/').expect("a database");
        run(&format!("{host}/{}?{after}", self.name), sql).expect(sql)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A server that was stopped has nothing to be removed from, and goes itself.
        let _removed = run(
            &self.server.admin,
            &format!("DROP DATABASE {} WITH (FORCE)", self.name),
        );
    }
}

/// Runs statements on a thread of its own, since the caller's may be one of a runtime.
fn run(url: &str, sql: &str) -> Result<u64, sqlx::Error> {
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            let mut connection = sqlx::PgConnection::connect(url).await?;
            let done = sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
                .execute(&mut connection)
                .await?;
            connection.close().await?;
            Ok(done.rows_affected())
        })
    };
    thread::scope(|scope| scope.spawn(work).join().expect("a thread"))
}

/// Has a program that is to run, and the files that it is to have, belong to the user of the
/// server, if this one is root: the server refuses to be.
fn give_away(program: &mut Command, files: &[PathBuf]) {
    if fs::metadata("/proc/self").expect("a process").uid() == 0 {
        let id = |kind| {
            let id = Command::new("id")
                .args([kind, "postgres"])
                .output()
                .expect("id")
                .stdout;
            String::from_utf8_lossy(&id)
                .trim()
                .parse()
                .expect("a user \"postgres\"")
        };
        let (user, group) = (id("-u"), id("-g"));
        for file in files {
            std::os::unix::fs::chown(file, Some(user), Some(group)).expect("a file");
        }
        program.uid(user).gid(group);
    }
}

/// A port that no connection is given by itself: while the server is down, nobody else takes it.
pub(crate) fn free_port() -> u16 {
    (0..1000)
        .map(|_| fastrand::u16(20_000..32_000))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// The folder of the server's programs.
pub(crate) fn programs() -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    let installed = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    folders.extend(installed.map(|version| version.path().join("bin")));
    let mut programs = folders
        .into_iter()
        .filter(|folder| folder.join("initdb").exists());
    programs.next().expect(
        "PostgreSQL is needed: set DATABASE_URL to a server on which databases may be made, or install the package \"postgresql\"",
    )
}

/// A text without the escapes of a URL.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = after
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(code) if byte == b'%' => {
                bytes.push(code);
                rest = &after[2..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).expect("a text")
}
