//! A vendor on a raw socket, which writes every byte of its answers, and the errors in them,
//! itself.

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, RwLock, RwLockWriteGuard,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Its number among all requests, from 0.
    pub(crate) number: usize,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) head: String,
    pub(crate) at: Instant,
}

impl Asked {
    /// A header, if it came.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find_map(|(field, value)| field.eq_ignore_ascii_case(name).then_some(value))
    }

    /// The id of the task that was asked for.
    pub(crate) fn id(&self) -> &str {
        self.path.rsplit('/').next().expect("a last part")
    }

    /// A whole answer about that task.
    pub(crate) fn answer(&self) -> String {
        about(self.id())
    }
}

/// A whole answer about a task of OMS that has succeeded.
pub(crate) fn about(id: &str) -> String {
    let number: u64 = id.parse().expect("a number");
    answer(
        200,
        "",
        &json!({"id": number, "name": format!("task-{id}"), "status": 5}).to_string(),
    )
}

/// A whole answer.
pub(crate) fn answer(status: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{headers}\r\n{body}")
}

/// Writes, and tells whether somebody still reads.
pub(crate) fn write(writer: &mut dyn Write, text: &str) -> Then {
    let written = writer
        .write_all(text.as_bytes())
        .and_then(|()| writer.flush());
    if written.is_ok() {
        Then::KeepOpen
    } else {
        Then::Close
    }
}

/// What follows an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    KeepOpen,
    Close,
}

trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

/// A vendor that runs until the tests end.
pub(crate) struct Vendor {
    address: SocketAddr,
    is_secure: bool,
    asked: Arc<Mutex<Vec<Asked>>>,
    connections: Arc<AtomicUsize>,
    hold: Arc<RwLock<()>>,
}

impl Vendor {
    /// Answers every request with what the script writes.
    pub(crate) fn start(
        script: impl Fn(&Asked, &mut dyn Write) -> Then + Send + Sync + 'static,
    ) -> Self {
        Self::with(None, script)
    }

    /// As [`Vendor::start`], over TLS.
    pub(crate) fn start_secure(
        config: ServerConfig,
        script: impl Fn(&Asked, &mut dyn Write) -> Then + Send + Sync + 'static,
    ) -> Self {
        Self::with(Some(Arc::new(config)), script)
    }

    fn with(
        tls: Option<Arc<ServerConfig>>,
        script: impl Fn(&Asked, &mut dyn Write) -> Then + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let vendor = Self {
            address: listener.local_addr().expect("an address"),
            is_secure: tls.is_some(),
            asked: Arc::default(),
            connections: Arc::default(),
            hold: Arc::default(),
        };
        let (asked, connections) = (Arc::clone(&vendor.asked), Arc::clone(&vendor.connections));
        let hold = Arc::clone(&vendor.hold);
        let script = Arc::new(script);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("a connection");
                connections.fetch_add(1, Ordering::SeqCst);
                let (asked, script, tls) = (Arc::clone(&asked), Arc::clone(&script), tls.clone());
                let hold = Arc::clone(&hold);
                thread::spawn(move || {
                    drop(hold.read().expect("a test that goes on"));
                    serve(layered(stream, tls), &asked, &*script);
                });
            }
        });
        vendor
    }

    /// Its base address.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.is_secure { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Everything that was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("the requests").clone()
    }

    /// How many connections were made so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Until this is dropped, connections are accepted and nothing is read from those that come
    /// meanwhile, nor any handshake made.
    pub(crate) fn hold(&self) -> RwLockWriteGuard<'_, ()> {
        self.hold.write().expect("a test that goes on")
    }
}

fn layered(stream: TcpStream, tls: Option<Arc<ServerConfig>>) -> Box<dyn Stream> {
    match tls {
        None => Box::new(stream),
        Some(config) => {
            let connection = ServerConnection::new(config).expect("a configuration");
            Box::new(StreamOwned::new(connection, stream))
        }
    }
}

fn serve(
    stream: Box<dyn Stream>,
    asked: &Mutex<Vec<Asked>>,
    script: &dyn Fn(&Asked, &mut dyn Write) -> Then,
) {
    let mut stream = BufReader::new(stream);
    while let Some(head) = read(&mut stream) {
        let mut words = head.split(' ').map(str::to_owned);
        let (method, path) = (words.next(), words.next());
        let mut all = asked.lock().expect("the requests");
        let request = Asked {
            number: all.len(),
            method: method.expect("a method"),
            path: path.expect("a path"),
            head,
            at: Instant::now(),
        };
        all.push(request.clone());
        drop(all);
        if script(&request, stream.get_mut()) == Then::Close {
            return;
        }
    }
}

/// The head of the next request, whose body is left out; `None` when the client has gone.
fn read(stream: &mut BufReader<Box<dyn Stream>>) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    Some(head)
}
