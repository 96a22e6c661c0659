//! Where a PostgreSQL database is, and how it is spoken to.

use std::{
    collections::BTreeMap, ffi::OsString, fmt, fs, io, net::IpAddr, os::unix::ffi::OsStringExt as _,
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use crate::{domain::secret::Secret, store::open::escaped};

const PORT: u16 = 5432;
const ADDRESS: &str = "must be like \"postgres://user@host/database\"";
const PASSWORD: &str =
    "must not hold a password: keep it in a file, and name that in store.password";

/// A database on a server, which is reached over the network or by a socket in a folder.
///
/// A server on another machine has to prove by its certificate that it is the one that is named,
/// unless something else is written. Connections within the machine are not encrypted, unless that
/// is written.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    user: String,
    host: String,
    port: u16,
    database: String,
    /// `host`, `sslmode` and `sslrootcert`, as a URL has them.
    parameters: BTreeMap<String, String>,
    password: Option<Secret>,
}

impl PostgresSettings {
    /// Reads `postgres://user@host:port/database`, after which `?` and parameters may come:
    /// `sslmode` (`verify-full`, `verify-ca`, `require` or `disable`), `sslrootcert` (a file of
    /// further roots), or, with no host before it, `host` (the folder of the server's socket). Also
    /// looks whether the roots can be used. The error is the rest of a sentence about the URL, and
    /// shows nothing of it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let rest = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"))
            .ok_or(ADDRESS)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').ok_or(ADDRESS)?;
        let (user, host) = authority.rsplit_once('@').ok_or(ADDRESS)?;
        if user.contains(':') {
            return Err(PASSWORD.to_owned());
        }
        let (host, port) = with_port(host).ok_or(ADDRESS)?;
        if !is_name(user) || !is_name(database) || !is_host(host) {
            return Err(ADDRESS.to_owned());
        }
        let mut parameters = BTreeMap::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            check(name, value)?;
            if parameters
                .insert(name.to_owned(), value.to_owned())
                .is_some()
            {
                return Err("names a parameter twice".to_owned());
            }
        }
        let is_socket = parameters.contains_key("host");
        if is_socket != host.is_empty() {
            return Err(
                "must have either a host, or the folder of a socket as the parameter \"host\""
                    .to_owned(),
            );
        }
        if is_socket && parameters.len() > 1 {
            return Err("has parameters of encryption, which a socket does not have".to_owned());
        }
        let mode = if is_socket || is_loopback(host) {
            "disable"
        } else {
            "verify-full"
        };
        let mode = || mode.to_owned();
        let mode = parameters.entry("sslmode".to_owned()).or_insert_with(mode);
        // The driver does not look at them otherwise.
        let are_roots_used = mode.starts_with("verify");
        if let Some(path) = parameters.get("sslrootcert") {
            if !are_roots_used {
                return Err(
                    "has \"sslrootcert\", which goes with \"verify-full\" or \"verify-ca\" as \"sslmode\" only"
                        .to_owned(),
                );
            }
            check_roots(path)?;
        }
        Ok(Self {
            user: user.to_owned(),
            // A URL cannot be without one.
            host: if is_socket { "localhost" } else { host }.to_owned(),
            port,
            database: database.to_owned(),
            parameters,
            password: None,
        })
    }

    /// With a password for the user.
    #[must_use]
    pub fn with_password(self, password: Secret) -> Self {
        Self {
            password: Some(password),
            ..self
        }
    }

    /// The URL for the driver. Whatever is not said here the driver would take from variables of
    /// the environment.
    pub(super) fn url(&self) -> String {
        let Self {
            user,
            host,
            port,
            database,
            parameters,
            password,
        } = self;
        let mut url = format!(
            "postgres://{user}@{host}:{port}/{database}?application_name=migration-gateway"
        );
        let password = password.as_ref().map_or("", Secret::expose);
        for (name, value) in [("password", escaped(password).as_str())]
            .into_iter()
            .chain(
                parameters
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str())),
            )
        {
            url = url + "&" + name + "=" + value;
        }
        url
    }
}

/// The database as a message names it.
impl fmt::Display for PostgresSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            host,
            port,
            database,
            ..
        } = self;
        match self.parameters.get("host") {
            Some(folder) => write!(formatter, "{database} at {folder} (port {port})"),
            None => write!(formatter, "{database} at {host}:{port}"),
        }
    }
}

/// A host, which may be missing, and its port.
fn with_port(host: &str) -> Option<(&str, u16)> {
    // The colons in the brackets of an IPv6 address are none before a port.
    match host
        .rfind(':')
        .filter(|colon| !host[*colon..].contains(']'))
    {
        Some(colon) => {
            let port = host[colon + 1..].parse().ok().filter(|port| *port > 0)?;
            Some((&host[..colon], port))
        }
        None => Some((host, PORT)),
    }
}

/// Escaped letters are left to the driver.
fn is_name(name: &str) -> bool {
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-%".contains(&byte);
    !name.is_empty() && name.bytes().all(in_name)
}

fn is_host(host: &str) -> bool {
    let in_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    host.bytes().all(in_host) || address(host).is_some()
}

/// An IP address, which has brackets if it is an IPv6 address.
fn address(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
        None => host.parse().ok().map(IpAddr::V4),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || address(host).is_some_and(|address| address.is_loopback())
}

fn check(name: &str, value: &str) -> Result<(), String> {
    let in_path = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-%".contains(&byte);
    let is_path = value.starts_with('/') && value.bytes().all(in_path);
    match (name, value) {
        ("sslmode", "verify-full" | "verify-ca" | "require" | "disable") => Ok(()),
        ("sslmode", _) => Err(
            "must have \"verify-full\", \"verify-ca\", \"require\" or \"disable\" as \"sslmode\""
                .to_owned(),
        ),
        ("sslrootcert" | "host", _) if is_path => Ok(()),
        ("sslrootcert" | "host", _) => Err(format!("must have an absolute path as \"{name}\"")),
        ("password", _) => Err(PASSWORD.to_owned()),
        _ => Err(
            "has a parameter that is not known: there are \"sslmode\", \"sslrootcert\" and \"host\""
                .to_owned(),
        ),
    }
}

/// Whether the driver can use all certificates of a file, whose path is as a URL has it.
fn check_roots(path: &str) -> Result<(), String> {
    let names = |what: String| format!("names a file as \"sslrootcert\" that {what}");
    let unreadable = |error: io::Error| names(format!("cannot be read: {error}"));
    let file = unescaped(path);
    // Reading a pipe waits for whoever writes to it.
    if !fs::metadata(&file).map_err(unreadable)?.is_file() {
        return Err(names("is not a regular file".to_owned()));
    }
    let text = fs::read(file).map_err(unreadable)?;
    let certificates = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| names("is not PEM".to_owned()))?;
    if certificates.is_empty() {
        return Err(names("has no certificate in the form PEM".to_owned()));
    }
    let mut roots = RootCertStore::empty();
    for (number, certificate) in (1..).zip(certificates) {
        let unusable = |error| names(format!("cannot be used: certificate {number}: {error}"));
        roots.add(certificate).map_err(unusable)?;
    }
    Ok(())
}

/// A path without the escapes of a URL.
fn unescaped(path: &str) -> OsString {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after
            .get(..2)
            .and_then(|digits| str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let (read, left) = match code {
            Some(code) if byte == b'%' => (code, &after[2..]),
            Some(_) | None => (byte, after),
        };
        bytes.push(read);
        rest = left;
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(url: &str) -> String {
        let settings = PostgresSettings::parse(url).expect(url);
        let settings = settings.with_password(Secret::new("p&?/ä"));
        let url = settings.url();
        let name = "application_name=migration-gateway&password=p%26%3F/%C3%A4&";
        assert!(url.contains(name), "{url}");
        assert!(!format!("{settings:?} {settings}").contains("p%26"));
        url.replace(name, "")
    }

    #[test]
    fn roots_are_taken_from_no_pipe_which_could_keep_its_reader_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let url = format!("postgres://u@db/d?sslrootcert={}", pipe.display());
        let (sender, parsed) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(PostgresSettings::parse(&url).map(|_| ())));
        let parsed = parsed.recv_timeout(std::time::Duration::from_secs(10));
        let refused = parsed.expect("an answer").unwrap_err();
        assert!(refused.contains("not a regular file"), "{refused}");
    }

    #[test]
    fn a_server_elsewhere_is_verified_unless_something_else_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let roots = folder.path().join("ä b.pem");
        let certified = rcgen::generate_simple_self_signed(["db".to_owned()]).unwrap();
        fs::write(&roots, certified.cert.pem()).unwrap();
        let with_roots = format!(
            "u@localhost:5432/d?sslmode=verify-ca&sslrootcert={}",
            escaped(roots.to_str().unwrap())
        );
        for (written, meant) in [
            ("u@db/d", "u@db:5432/d?sslmode=verify-full"),
            ("u@10.0.0.7:6543/d", "u@10.0.0.7:6543/d?sslmode=verify-full"),
            (
                "u@[2001:db8::1]/d",
                "u@[2001:db8::1]:5432/d?sslmode=verify-full",
            ),
            ("u@localhost/d", "u@localhost:5432/d?sslmode=disable"),
            ("u@127.0.0.2/d", "u@127.0.0.2:5432/d?sslmode=disable"),
            ("u@[::1]:1/d", "u@[::1]:1/d?sslmode=disable"),
            ("u@db/d?sslmode=disable", "u@db:5432/d?sslmode=disable"),
            (&with_roots, &with_roots),
            (
                "u@/d?host=/run/pg",
                "u@localhost:5432/d?host=/run/pg&sslmode=disable",
            ),
            ("u%20v@db/d%20e", "u%20v@db:5432/d%20e?sslmode=verify-full"),
        ] {
            assert_eq!(
                url(&format!("postgresql://{written}")),
                format!("postgres://{meant}")
            );
        }
    }

    #[test]
    fn whatever_else_is_refused_without_showing_it() {
        for (written, advice) in [
            ("u:canary@db/d", "store.password"),
            ("u@db/d?password=canary", "store.password"),
            ("db/canary", "postgres://user@host/database"),
            ("u@db", "postgres://user@host/database"),
            ("u@db/", "postgres://user@host/database"),
            ("@db/canary", "postgres://user@host/database"),
            ("u@a,canary/d", "postgres://user@host/database"),
            ("u@db:canary/d", "postgres://user@host/database"),
            ("u@db:0/d", "postgres://user@host/database"),
            ("u@2001:db8::1/d", "postgres://user@host/database"),
            ("u@/d", "folder of a socket"),
            ("u@db/d?host=/canary", "folder of a socket"),
            ("u@/d?host=/canary&sslmode=require", "socket"),
            ("u@/d?host=canary", "absolute path"),
            ("u@db/d?sslrootcert=canary", "absolute path"),
            ("u@db/d?sslmode=prefer", "verify-full"),
            ("u@db/d?sslmode=disable&sslmode=require", "twice"),
            ("u@db/d?sslrootcert=/canary", "cannot be read"),
            ("u@db/d?sslrootcert=/canary&sslmode=require", "verify-ca"),
            ("u@localhost/d?sslrootcert=/canary", "verify-ca"),
            ("u@db/d?options=canary", "not known"),
        ] {
            let fault = PostgresSettings::parse(&format!("postgres://{written}"));
            let fault = fault.expect_err(written);
            assert!(fault.contains(advice), "{written}: {fault}");
            assert!(!fault.contains("canary"), "{fault}");
        }
    }
}
