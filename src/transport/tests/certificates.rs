//! Certificates that must not be believed: nothing is sent to who shows one.

use std::time::Duration;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, date_time_ymd};

use super::{
    change, failed, get,
    peer::answer,
    tls::{Authority, Handshakes},
};
use crate::{
    domain::service::Sent,
    transport::{Endpoint, Method, Transport, TransportErrorKind},
};

fn params(name: &str) -> CertificateParams {
    CertificateParams::new(vec![name.to_owned()]).unwrap()
}

/// A read and a change end before a byte of them is sent, and the server is told why.
async fn refused(transport: &Transport, endpoint: &Endpoint, handshakes: &Handshakes, why: &str) {
    for request in [get("/"), change(Method::Post)] {
        let result = transport.send(endpoint, &[], &request).await;
        assert_eq!(failed(result), (TransportErrorKind::Tls, Sent::No), "{why}");
        let told = handshakes.recv_timeout(Duration::from_secs(5)).unwrap();
        let told = told.unwrap_err();
        assert!(told.contains(why), "{told} instead of {why}");
    }
}

#[actix_rt::test]
async fn a_certificate_is_good_at_its_time_for_its_name_and_its_purpose_only() {
    let authority = Authority::new();
    let mut expired = params("localhost");
    expired.not_before = date_time_ymd(2020, 1, 1);
    expired.not_after = date_time_ymd(2021, 1, 1);
    let mut early = params("localhost");
    early.not_before = date_time_ymd(2120, 1, 1);
    early.not_after = date_time_ymd(2121, 1, 1);
    let mut client = params("localhost");
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    for (certificate, why) in [
        (expired, "CertificateExpired"),
        (early, "CertificateExpired"),
        (params("example.com"), "BadCertificate"),
        (params("localhost.example.com"), "BadCertificate"),
        (params("127.0.0.1"), "BadCertificate"),
        (CertificateParams::default(), "BadCertificate"),
        (client, "UnsupportedCertificate"),
    ] {
        let (endpoint, handshakes) =
            authority.serve_as(&certificate, "localhost", |_| panic!("nothing is sent"));
        refused(&authority.trusted(), &endpoint, &handshakes, why).await;
    }
    let (endpoint, handshakes) = authority.serve_as(&params("localhost"), "localhost", |writer| {
        answer(writer, 200, "", "{}")
    });
    let trusted = authority.trusted();
    trusted.send(&endpoint, &[], &get("/")).await.unwrap();
    assert!(handshakes.try_recv().unwrap().is_ok());
    let elsewhere = endpoint.to_string().replace("localhost", "127.0.0.1");
    let elsewhere = Endpoint::parse(&elsewhere).unwrap();
    refused(&trusted, &elsewhere, &handshakes, "BadCertificate").await;
}

#[actix_rt::test]
async fn a_certificate_of_a_stranger_is_refused() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (endpoint, handshakes) = authority.serve_as(&params("localhost"), "localhost", |_| {
        panic!("nothing is sent")
    });
    // Both authorities have the same name, so that only the signature tells them apart.
    refused(&stranger.trusted(), &endpoint, &handshakes, "alert").await;
}
