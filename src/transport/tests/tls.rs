//! Encrypted exchanges.

use std::{
    io::{BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, mpsc},
    thread,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tempfile::NamedTempFile;

use super::{
    change, failed, get,
    peer::{Then, answer, read_request, settings, write},
};
use crate::{
    domain::service::Sent,
    transport::{Endpoint, Method, Settings, Transport, TransportErrorKind, TransportSetupError},
};

pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: NamedTempFile,
}

/// How each handshake ended at the server: with the protocol that the client chose, or with what
/// the client said.
pub(super) type Handshakes = mpsc::Receiver<Result<Option<Vec<u8>>, String>>;

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), issuer.pem()).unwrap();
        Self { issuer, file }
    }

    pub(super) fn trusted(&self) -> Transport {
        let ca_file = Some(self.file.path().to_owned());
        Transport::new(&Settings {
            ca_file,
            ..settings()
        })
        .unwrap()
    }

    /// A TLS server for this name that would speak HTTP/2 if asked.
    fn serve(&self, name: &str, script: fn(&mut dyn Write) -> Then) -> (Endpoint, Handshakes) {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        self.serve_as(&params, name, script)
    }

    /// As [`Authority::serve`], with another certificate.
    pub(super) fn serve_as(
        &self,
        params: &CertificateParams,
        name: &str,
        script: fn(&mut dyn Write) -> Then,
    ) -> (Endpoint, Handshakes) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(certificate.der().to_vec())],
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (ended, handshakes) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (config, ended) = (Arc::clone(&config), ended.clone());
                thread::spawn(move || serve_one(config, stream.unwrap(), &ended, script));
            }
        });
        (
            Endpoint::parse(&format!("https://{name}:{port}")).unwrap(),
            handshakes,
        )
    }
}

fn serve_one(
    config: Arc<ServerConfig>,
    mut stream: TcpStream,
    ended: &mpsc::Sender<Result<Option<Vec<u8>>, String>>,
    script: fn(&mut dyn Write) -> Then,
) {
    let mut connection = ServerConnection::new(config).unwrap();
    while connection.is_handshaking() {
        if let Err(error) = connection.complete_io(&mut stream) {
            let _ = ended.send(Err(error.to_string()));
            return;
        }
    }
    let _ = ended.send(Ok(connection.alpn_protocol().map(<[u8]>::to_vec)));
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    while read_request(&mut stream).is_some() {
        if script(stream.get_mut()) == Then::Close {
            let inner = stream.get_mut();
            inner.conn.send_close_notify();
            let _ = inner.conn.complete_io(&mut inner.sock);
            return;
        }
    }
}

#[actix_rt::test]
async fn an_encrypted_exchange_offers_http_1_1_only_and_keeps_its_connection() {
    let authority = Authority::new();
    let (endpoint, chosen) = authority.serve("localhost", |writer| answer(writer, 200, "", "{}"));
    let transport = authority.trusted();
    transport.check(&endpoint).unwrap();
    for _ in 0..3 {
        let response = transport.send(&endpoint, &[], &get("/")).await.unwrap();
        assert_eq!(&response.body[..], b"{}");
    }
    transport
        .send(&endpoint, &[], &change(Method::Post))
        .await
        .unwrap();
    let chosen: Vec<_> = chosen.try_iter().collect();
    assert_eq!(chosen, vec![Ok(Some(b"http/1.1".to_vec())); 2]);
}

#[actix_rt::test]
async fn an_address_is_a_name_too() {
    let authority = Authority::new();
    let (endpoint, _chosen) = authority.serve("127.0.0.1", |writer| answer(writer, 200, "", "{}"));
    authority
        .trusted()
        .send(&endpoint, &[], &get("/"))
        .await
        .unwrap();
}

#[actix_rt::test]
async fn a_body_that_is_cut_by_an_orderly_end_of_tls_is_not_taken_for_a_whole_one() {
    for script in [
        |writer: &mut dyn Write| {
            write(writer, "HTTP/1.1 200 X\r\ncontent-length: 10\r\n\r\n{}");
            Then::Close
        },
        |writer: &mut dyn Write| {
            write(
                writer,
                "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
            );
            Then::Close
        },
    ] {
        let authority = Authority::new();
        let (endpoint, handshakes) = authority.serve("localhost", script);
        let transport = authority.trusted();
        let read = transport.send(&endpoint, &[], &get("/")).await;
        assert_eq!(failed(read), (TransportErrorKind::Malformed, Sent::No));
        let result = transport.send(&endpoint, &[], &change(Method::Post)).await;
        assert_eq!(
            failed(result),
            (TransportErrorKind::Malformed, Sent::Unknown)
        );
        assert_eq!(handshakes.try_iter().count(), 2);
    }
}

#[actix_rt::test]
async fn a_peer_without_tls_is_not_spoken_to_in_clear_text() {
    let peer = super::peer::Peer::start(|_, writer| answer(writer, 200, "", "{}"));
    let secured = peer.endpoint().to_string().replace("http://", "https://");
    let authority = Authority::new();
    let result = authority
        .trusted()
        .send(
            &Endpoint::parse(&secured).unwrap(),
            &[],
            &change(Method::Post),
        )
        .await;
    // The peer waits for the end of a line that never comes, or closes; either way it has seen no
    // request.
    assert_eq!(failed(result).1, Sent::No);
    assert!(peer.seen().is_empty());
}

#[test]
fn a_file_of_roots_that_is_missing_or_holds_none_is_refused() {
    let with = |path: &std::path::Path| {
        Transport::new(&Settings {
            ca_file: Some(path.to_owned()),
            ..settings()
        })
        .err()
    };
    let empty = NamedTempFile::new().unwrap();
    assert!(matches!(
        with(empty.path()),
        Some(TransportSetupError::CaFileEmpty(_))
    ));
    let good = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    std::fs::write(empty.path(), good.cert.pem() + bad).unwrap();
    let told = with(empty.path()).unwrap().to_string();
    assert!(told.contains("certificate 2 in the file "), "{told}");
    let missing = with(std::path::Path::new("/nonexistent/roots.pem"));
    assert!(matches!(missing, Some(TransportSetupError::CaFile(..))));
}

#[actix_rt::test]
async fn a_machine_without_roots_can_speak_to_itself_only() {
    let transport = Transport::with(&settings(), None);
    let peer = super::peer::Peer::start(|_, writer| answer(writer, 200, "", "{}"));
    transport.check(&peer.endpoint()).unwrap();
    transport
        .send(&peer.endpoint(), &[], &get("/"))
        .await
        .unwrap();
    let secure = Endpoint::parse("https://localhost").unwrap();
    assert!(matches!(
        transport.check(&secure),
        Err(TransportSetupError::NoRoots)
    ));
    let result = transport.send(&secure, &[], &change(Method::Post)).await;
    assert_eq!(failed(result), (TransportErrorKind::Tls, Sent::No));
}
