//! Tests of the files by themselves.

use std::{fs, path::Path};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, KeyPair, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize,
    date_time_ymd,
};
use tempfile::TempDir;

use super::files::{Contents, Settings, TlsFile, check};

/// A folder with a certificate that is its own authority.
fn folder(key: &KeyPair) -> (TempDir, Settings) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2027, 1, 1);
    let certificate = params.self_signed(key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        certificate: folder.path().join("certificate"),
        private_key: folder.path().join("key"),
        client_ca: Some(folder.path().join("ca")),
    };
    fs::write(&settings.certificate, certificate.pem()).unwrap();
    fs::write(&settings.private_key, key.serialize_pem()).unwrap();
    fs::write(folder.path().join("ca"), certificate.pem()).unwrap();
    (folder, settings)
}

fn faults(settings: &Settings) -> Vec<TlsFile> {
    let faults = check(settings).unwrap_err();
    faults.into_iter().map(|fault| fault.file).collect()
}

#[test]
fn keys_of_the_usual_kinds_are_taken() {
    for key in [
        KeyPair::generate().unwrap(),
        KeyPair::generate_for(&PKCS_ED25519).unwrap(),
        KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(),
    ] {
        let (_folder, settings) = folder(&key);
        let validity = check(&settings).unwrap();
        assert_eq!(validity.begins_at.to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(validity.expires_at.to_string(), "2027-01-01T00:00:00Z");
        for (moment, expected) in [
            ("2025-12-31T23:59:59Z", false),
            ("2026-01-01T00:00:00Z", true),
            ("2026-12-31T23:59:59Z", true),
            ("2027-01-01T00:00:00Z", false),
        ] {
            let moment: Timestamp = moment.parse().unwrap();
            assert_eq!(validity.covers(moment), expected, "{moment}");
        }
    }
}

#[test]
fn every_file_with_a_fault_is_named() {
    use TlsFile::{Certificate, ClientCa, PrivateKey};
    let (folder, settings) = folder(&KeyPair::generate().unwrap());
    let good = fs::read_to_string(&settings.certificate).unwrap();
    let key = fs::read_to_string(&settings.private_key).unwrap();
    let other_key = KeyPair::generate().unwrap().serialize_pem();
    let large = good.clone() + &"#".repeat(1 << 20);
    let not_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let path = |name: &str| folder.path().join(name);
    for (certificate, private_key, ca, expected) in [
        (
            good.as_str(),
            other_key.as_str(),
            good.as_str(),
            &[PrivateKey][..],
        ),
        (&key, &key, &good, &[Certificate]),
        (not_der, &key, &good, &[Certificate]),
        (&large, &key, &good, &[Certificate]),
        (&good, &good, &good, &[PrivateKey]),
        (&good, &key, &key, &[ClientCa]),
        (&good, &key, not_der, &[ClientCa]),
        (&good, &key, &format!("{good}{not_der}"), &[ClientCa]),
        ("", "", "", &[Certificate, PrivateKey, ClientCa]),
    ] {
        fs::write(path("certificate"), certificate).unwrap();
        fs::write(path("key"), private_key).unwrap();
        fs::write(path("ca"), ca).unwrap();
        assert_eq!(faults(&settings), expected, "{certificate} {ca}");
    }
    for name in ["certificate", "key", "ca"] {
        fs::remove_file(path(name)).unwrap();
    }
    assert_eq!(faults(&settings), [Certificate, PrivateKey, ClientCa]);
}

#[test]
fn the_content_of_each_file_counts() {
    let (folder, settings) = folder(&KeyPair::generate().unwrap());
    let digest = || Contents::read(&settings).digest();
    let mut seen = vec![digest()];
    assert_eq!(digest(), seen[0]);
    for name in ["certificate", "key", "ca"] {
        let path: &Path = &folder.path().join(name);
        fs::write(path, "other").unwrap();
        seen.push(digest());
        fs::write(path, "").unwrap();
        seen.push(digest());
        fs::remove_file(path).unwrap();
        seen.push(digest());
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 10);
}
