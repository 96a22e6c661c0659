//! `healthcheck`: one request to `/readyz`, for containers without a shell.
//!
//! Of the configuration only the address is read, and whether connections are encrypted. A file
//! that was changed or broken since the gateway was started says nothing about whether the gateway
//! is well.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use migration_gateway::config::{self, Listening};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{self, CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::{ConfigFile, Failure};

/// The longest that the whole check may take.
const LIMIT: Duration = Duration::from_secs(5);
/// The most that is read of an answer, in bytes. It has about 300.
const MOST: u64 = 4096;

pub(super) fn run(file: &ConfigFile) -> Result<(), Failure> {
    // Status 2 would mean something else to container engines, so that every failure is status 1.
    let listening =
        config::load_listen(&file.path).map_err(|faults| Failure::Other(faults.to_string()))?;
    let address = reachable(listening.address);
    let asked = Listening {
        address,
        ..listening
    };
    let answer = ask(asked).map_err(|error| {
        Failure::Other(format!("No answer of the gateway on {address}: {error}."))
    })?;
    let whole = answer.split_once("\r\n\r\n");
    if let Some((head, body)) = whole
        && is_ready(head)
    {
        return super::print(body);
    }
    let told = match whole {
        Some((_, body)) if !body.is_empty() => body,
        Some((head, _)) => head,
        None => &answer,
    };
    Err(Failure::Other(format!(
        "The gateway on {address} is not ready: {told}"
    )))
}

/// Whether the head of an answer begins with a status line of HTTP/1 (RFC 9112, section 4) whose
/// status is 200.
fn is_ready(head: &str) -> bool {
    let line = head.lines().next().unwrap_or_default();
    let mut parts = line.splitn(3, ' ');
    let version = parts.next().and_then(|text| text.strip_prefix("HTTP/1."));
    matches!(version.map(str::as_bytes), Some([minor]) if minor.is_ascii_digit())
        && parts.next() == Some("200")
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
fn ask(gateway: Listening) -> io::Result<String> {
    let until = Instant::now() + LIMIT;
    let socket = TcpStream::connect_timeout(&gateway.address, LIMIT)?;
    let socket = Limited { socket, until };
    if gateway.is_encrypted {
        let name = ServerName::IpAddress(gateway.address.ip().into());
        let connection = ClientConnection::new(Arc::new(client_config()?), name);
        let connection = connection.map_err(io::Error::other)?;
        exchange(gateway.address, StreamOwned::new(connection, socket))
    } else {
        exchange(gateway.address, socket)
    }
}

fn exchange(address: SocketAddr, mut stream: impl Read + Write) -> io::Result<String> {
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A socket on which everything together has a limit.
struct Limited {
    socket: TcpStream,
    until: Instant,
}

impl Limited {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        // A limit of nothing would be taken for none.
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(Some(left))
    }
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(self.left()?)?;
        self.socket.read(buffer).map_err(late)
    }
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(self.left()?)?;
        self.socket.write(bytes).map_err(late)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

/// The system has another name for a limit that ran out.
fn late(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        io::ErrorKind::TimedOut.into()
    } else {
        error
    }
}

fn client_config() -> io::Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(config)
}

/// Takes any certificate whose key the gateway has. Nothing secret is sent and nothing but the
/// state is told, so that it does not matter whose it is: the address is the machine's own, where
/// the certificate's names seldom fit, and a gateway that still uses the one before the one in the
/// file is well.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _above: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
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
