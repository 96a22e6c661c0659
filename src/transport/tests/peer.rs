//! A scripted HTTP peer on a loopback socket.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crate::transport::{Endpoint, Settings};

/// A request as it came over the wire.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Which connection it came over, from 0.
    pub(crate) connection: usize,
    /// Which request of all connections it was, from 0.
    pub(crate) number: usize,
    /// Request line and headers.
    pub(crate) head: String,
    /// The body, by its announced length.
    pub(crate) body: String,
}

impl Seen {
    /// The path and the query.
    pub(crate) fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// What follows an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// The next request of the connection.
    KeepOpen,
    /// An orderly close.
    Close,
}

/// A peer that runs until the test ends.
pub(crate) struct Peer {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

impl Peer {
    /// Answers every request with what the script writes.
    pub(crate) fn start(
        script: impl Fn(&Seen, &mut dyn Write) -> Then + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            connections: Arc::default(),
        };
        let (seen, connections) = (Arc::clone(&peer.seen), Arc::clone(&peer.connections));
        let script = Arc::new(script);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
                let connection = connections.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || serve(connection, stream.unwrap(), &seen, &*script));
            }
        });
        peer
    }

    /// Its base address.
    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::parse(&format!("http://{}", self.address)).unwrap()
    }

    /// Everything that was asked so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many connections were made so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn serve(
    connection: usize,
    stream: TcpStream,
    seen: &Mutex<Vec<Seen>>,
    script: &dyn Fn(&Seen, &mut dyn Write) -> Then,
) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    while let Some((head, body)) = read_request(&mut reader) {
        let mut all = seen.lock().unwrap();
        let request = Seen {
            connection,
            number: all.len(),
            head,
            body,
        };
        all.push(request.clone());
        drop(all);
        if script(&request, &mut writer) == Then::Close {
            return;
        }
    }
}

/// The head and the body of the next request, or `None` when the client has gone.
pub(crate) fn read_request(reader: &mut dyn BufRead) -> Option<(String, String)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8(body).unwrap()))
}

/// Writes a whole answer with a JSON body.
pub(crate) fn answer(writer: &mut dyn Write, status: u16, headers: &str, body: &str) -> Then {
    let length = body.len();
    write(
        writer,
        &format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{headers}\r\n{body}"),
    )
}

/// Writes bytes as they are. A client that has gone is no concern of the peer.
pub(crate) fn write(writer: &mut dyn Write, text: &str) -> Then {
    match writer
        .write_all(text.as_bytes())
        .and_then(|()| writer.flush())
    {
        Ok(()) => Then::KeepOpen,
        Err(_) => Then::Close,
    }
}

/// Settings with limits that are short for a person and long for a machine.
pub(crate) fn settings() -> Settings {
    Settings {
        connect_timeout: Duration::from_secs(5),
        request_timeout: Duration::from_secs(5),
        ca_file: None,
    }
}
