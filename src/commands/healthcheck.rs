//! `healthcheck`: one request to `/readyz`, for containers without a shell.
//!
//! Of the configuration only the address is read. A file that was changed or broken since the gateway was started says
//! nothing about whether the gateway is well.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use migration_gateway::config;

use super::{ConfigFile, Failure};

/// The longest that the whole check may take.
const LIMIT: Duration = Duration::from_secs(5);
/// The most that is read of an answer, in bytes. It has about 300.
const MOST: usize = 4096;

pub(super) fn run(file: &ConfigFile) -> Result<(), Failure> {
    // Status 2 would mean something else to container engines, so that every failure is status 1.
    let listen =
        config::load_listen(&file.path).map_err(|faults| Failure::Other(faults.to_string()))?;
    let address = reachable(listen);
    let answer = ask(address).map_err(|error| {
        Failure::Other(format!("No answer of the gateway on {address}: {error}."))
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.split(' ').nth(1) == Some("200") {
        super::print(body)
    } else {
        Err(Failure::Other(format!(
            "The gateway on {address} is not ready: {}",
            if body.is_empty() { head } else { body }
        )))
    }
}

/// Where a gateway with this address can be asked from its own machine.
fn reachable(mut listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    listen
}

/// The answer of the gateway, head and body.
fn ask(address: SocketAddr) -> io::Result<String> {
    let until = Instant::now() + LIMIT;
    let left = || {
        let left = until.saturating_duration_since(Instant::now());
        // A limit of nothing would be taken for none.
        (!left.is_zero())
            .then_some(left)
            .ok_or(io::ErrorKind::TimedOut)
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0_u8; 1024];
    while answer.len() < MOST {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            // What the system calls a limit that ran out.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            read => answer.extend_from_slice(&buffer[..read?]),
        }
    }
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::reachable;

    #[test]
    fn an_address_that_means_all_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), asked);
        }
    }
}
