//! nginx, as the cloud that answers at once, and as the proxy to compare with.

use std::{
    fs,
    io::ErrorKind,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use crate::{Outcome, process::Process, wait_for};

/// A running nginx, with a folder of its own that ends with it.
pub(crate) struct Nginx {
    _process: Process,
    address: SocketAddr,
    _folder: TempDir,
}

impl Nginx {
    /// Serves a task's document at the path of OMS, whatever the task's id is. `document` says `$1`
    /// for the id.
    pub(crate) fn cloud(workers: usize, document: &str) -> Outcome<Self> {
        if document.contains(['\'', '\\']) {
            return Err("the document cannot be quoted".into());
        }
        Self::start(workers, |address| {
            format!(
                "access_log off;\n\
                 server {{ listen {address} backlog=4096; default_type application/json;\n\
                 location ~ ^/v2/[0-9a-f]+/tasks/([0-9]+)$ {{ return 200 '{document}'; }}\n\
                 location / {{ return 500; }} }}"
            )
        })
    }

    /// Passes requests for tasks on to `cloud`, over connections that are kept, with this token.
    pub(crate) fn proxy(
        workers: usize,
        cloud: &Self,
        project_id: &str,
        token: &str,
    ) -> Outcome<Self> {
        Self::start(workers, |address| {
            let cloud = cloud.address;
            format!(
                "access_log access.log;\n\
                 upstream cloud {{ server {cloud}; keepalive 256; keepalive_requests 1000000; }}\n\
                 server {{ listen {address} backlog=4096;\n\
                 location /tasks/ {{\n\
                 proxy_pass http://cloud/v2/{project_id}/tasks/;\n\
                 proxy_http_version 1.1; proxy_set_header Connection '';\n\
                 proxy_set_header Authorization ''; proxy_set_header X-Auth-Token '{token}'; }} }}"
            )
        })
    }

    /// The beginning of its URLs.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn start(workers: usize, http: impl FnOnce(SocketAddr) -> String) -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let free = TcpListener::bind("127.0.0.1:0")?;
        let address = free.local_addr()?;
        drop(free);
        let file = folder.path().join("nginx.conf");
        fs::write(&file, configuration(workers, folder.path(), &http(address)))?;
        let mut command = Command::new("nginx");
        command.arg("-p").arg(folder.path()).arg("-c").arg(&file);
        let log = folder.path().join("nginx.log");
        let mut process = Process::start(&mut command, &log).map_err(missing)?;
        wait_for("nginx", Duration::from_secs(10), || {
            if process.has_ended()? {
                return Err(format!("nginx ended: {}", fs::read_to_string(&log)?).into());
            }
            Ok(TcpStream::connect(address).ok())
        })?;
        Ok(Self {
            _process: process,
            address,
            _folder: folder,
        })
    }
}

fn configuration(workers: usize, folder: &Path, http: &str) -> String {
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {}/{name};\n", folder.display()))
        .concat();
    format!(
        "daemon off;\nworker_processes {workers};\npid nginx.pid;\nerror_log stderr;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n{temporary}keepalive_requests 1000000;\n{http}\n}}\n"
    )
}

/// The error, or what to do if the program is not there.
pub(crate) fn missing(error: Box<dyn std::error::Error>) -> Box<dyn std::error::Error> {
    let is_missing = error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == ErrorKind::NotFound);
    if is_missing {
        return "nginx and wrk are needed: apt-get install nginx-light wrk".into();
    }
    error
}
