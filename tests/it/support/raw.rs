//! A caller who writes every byte of a request, where a client library would tidy up.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::Value;

use super::gateway::KEY;

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct RawAnswer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl RawAnswer {
    /// The last part of a problem's type.
    pub(crate) fn problem(&self) -> String {
        let document: Value =
            serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"));
        assert_eq!(document["status"], self.status, "{self:?}");
        let kind = document["type"].as_str().expect("a type");
        let slug = kind.strip_prefix("/problems/").expect("a relative type");
        slug.to_owned()
    }
}

/// Sends the bytes and reads one answer, as far as its `Content-Length` says or to the end of the
/// connection. Nothing is sent after `request`, so that an answer to a body that never comes can be
/// seen.
pub(crate) fn exchange(authority: &str, request: &[u8]) -> RawAnswer {
    let mut stream = connect(authority);
    let answer = exchange_on(&mut stream, request);
    answer.unwrap_or_else(|error| {
        panic!("{error} to {:?}", String::from_utf8_lossy(request));
    })
}

/// A connection on which nobody waits for long.
pub(crate) fn connect(authority: &str) -> TcpStream {
    let stream = TcpStream::connect(authority).expect("a connection");
    let patience = Some(Duration::from_secs(20));
    stream.set_read_timeout(patience).expect("a time limit");
    stream
}

/// As [`exchange`], on a connection that is there.
pub(crate) fn exchange_on(
    stream: &mut (impl Read + Write),
    request: &[u8],
) -> io::Result<RawAnswer> {
    stream.write_all(request)?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 16_384];
    loop {
        let read = stream.read(&mut buffer)?;
        bytes.extend_from_slice(&buffer[..read]);
        // What a server says before its answer is none.
        while bytes.starts_with(b"HTTP/1.1 1") {
            let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
                break;
            };
            bytes.drain(..end + 4);
        }
        if let Some(answer) = complete(&bytes, read == 0) {
            return Ok(answer);
        }
        if read == 0 {
            let message = format!("the connection ended after {bytes:?}");
            return Err(io::Error::other(message));
        }
    }
}

/// Sends a target exactly as it is written, with the key of the caller who may do everything.
pub(crate) fn send(authority: &str, method: &str, target: &str) -> RawAnswer {
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n\r\n"
    );
    exchange(authority, request.as_bytes())
}

/// The answer, once all of it is there.
fn complete(bytes: &[u8], at_end: bool) -> Option<RawAnswer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().expect("a length"))
    });
    // Without a length the body goes on to the end of the connection.
    if !at_end && length.is_none_or(|length| body.len() < length) {
        return None;
    }
    let status = head.split(' ').nth(1).expect("a status");
    Some(RawAnswer {
        status: status.parse().expect("a status"),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    })
}
