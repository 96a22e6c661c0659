//! Tests of the files by themselves.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use jiff::Timestamp;
use prometheus_client::{encoding::text::encode, registry::Registry};
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, KeyPair, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize,
    date_time_ymd,
};
use tempfile::TempDir;
use tokio::time::timeout;

use super::{
    PATIENCE, READINGS_MAX, Tls,
    files::{Contents, Settings, TlsFile, check},
};
use crate::domain::clock::Clock;

/// A clock that shows what it is set to.
struct SetClock(Mutex<Timestamp>);

impl SetClock {
    fn at(time: &str) -> Arc<Self> {
        Arc::new(Self(Mutex::new(time.parse().unwrap())))
    }

    fn set(&self, time: &str) {
        *self.0.lock().unwrap() = time.parse().unwrap();
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    fn uptime(&self) -> Duration {
        Duration::ZERO
    }
}

/// A certificate that is its own authority, good for a year.
fn certificate(key: &KeyPair, from: i32) -> String {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(from + 1, 1, 1);
    params.self_signed(key).unwrap().pem()
}

/// A folder with a certificate.
fn folder(key: &KeyPair) -> (TempDir, Settings) {
    let certificate = certificate(key, 2026);
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        certificate: folder.path().join("certificate"),
        private_key: folder.path().join("key"),
        client_ca: Some(folder.path().join("ca")),
    };
    fs::write(&settings.certificate, &certificate).unwrap();
    fs::write(&settings.private_key, key.serialize_pem()).unwrap();
    fs::write(folder.path().join("ca"), &certificate).unwrap();
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

/// How often files were taken and refused, and whether others are there than those in use.
fn told(registry: &Registry) -> [String; 3] {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    [
        "tls_reloads_total{result=\"ok\"} ",
        "tls_reloads_total{result=\"faulty\"} ",
        "tls_outdated ",
    ]
    .map(|name| {
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap_or("0").to_owned()
    })
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_yet_is_told_of_once_and_used_once_it_is() {
    let key = KeyPair::generate().unwrap();
    let (_folder, settings) = folder(&key);
    let clock = SetClock::at("2026-12-01T00:00:00Z");
    let mut registry = Registry::default();
    let tls = Tls::start(settings.clone(), Arc::clone(&clock) as _, &mut registry).unwrap();
    let before = tls.current().digest;
    let mut seen = before;
    let next = certificate(&key, 2027);
    fs::write(&settings.certificate, &next).unwrap();
    for _ in 0..3 {
        tls.look(&mut seen, false).await;
        assert_eq!(told(&registry), ["0", "1", "1"]);
        assert_eq!(tls.current().digest, before);
    }
    // Whoever asks is told again.
    tls.look(&mut seen, true).await;
    assert_eq!(told(&registry), ["0", "2", "1"]);
    clock.set("2027-01-01T00:00:00Z");
    for _ in 0..3 {
        tls.look(&mut seen, false).await;
        assert_eq!(told(&registry), ["1", "2", "0"]);
        assert_ne!(tls.current().digest, before);
    }
    // Whoever takes a change back is told too.
    fs::write(&settings.certificate, "").unwrap();
    tls.look(&mut seen, false).await;
    assert_eq!(told(&registry), ["1", "3", "1"]);
    fs::write(&settings.certificate, &next).unwrap();
    tls.look(&mut seen, false).await;
    assert_eq!(told(&registry), ["2", "3", "0"]);
}

#[test]
fn a_file_that_keeps_its_reader_waiting_is_none() {
    let (_folder, settings) = folder(&KeyPair::generate().unwrap());
    fs::remove_file(&settings.private_key).unwrap();
    let made = Command::new("mkfifo").arg(&settings.private_key).status();
    assert!(made.unwrap().success());
    assert_eq!(faults(&settings), [TlsFile::PrivateKey]);
}

#[tokio::test(start_paused = true)]
async fn readings_that_hang_are_a_fault_and_do_not_end_the_looking() {
    let (_folder, settings) = folder(&KeyPair::generate().unwrap());
    let clock = SetClock::at("2026-12-01T00:00:00Z");
    let mut registry = Registry::default();
    let tls = Tls::start(settings, clock, &mut registry).unwrap();
    let mut seen = tls.current().digest;
    let (release, released) = mpsc::channel::<()>();
    let released = Arc::new(Mutex::new(released));
    for _ in 0..READINGS_MAX {
        tls.look(&mut seen, false).await;
        assert_eq!(told(&registry), ["0", "0", "0"]);
        let released = Arc::clone(&released);
        let hanging = tls.read(move || released.lock().map(|released| released.recv()).is_ok());
        let limited = timeout(2 * PATIENCE, hanging);
        // By itself the time does not go on while a thread is busy.
        let (read, ()) = tokio::join!(limited, async {
            tokio::time::advance(PATIENCE).await;
            tokio::time::advance(PATIENCE).await;
        });
        assert_eq!(read, Ok(None));
    }
    // There may be no more threads that hang.
    assert_eq!(tls.0.readings.available_permits(), 0);
    for _ in 0..2 {
        tokio::join!(tls.look(&mut seen, false), tokio::time::advance(PATIENCE));
        assert_eq!(told(&registry), ["0", "1", "1"]);
    }
    drop(release);
    tls.look(&mut seen, false).await;
    assert_eq!(told(&registry), ["1", "1", "0"]);
}
