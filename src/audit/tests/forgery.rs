//! Random changes of a log by somebody who has not the key. `AUDIT_FUZZ_SECONDS` says for how long
//! (2), `AUDIT_FUZZ_SEED` where the random numbers begin; a change that is not found prints the
//! seed that plays it again.

use std::time::{Duration, Instant};

use fastrand::Rng;

use super::*;
use crate::audit::verify::Walk;

#[expect(
    clippy::disallowed_methods,
    reason = "the two variables belong to this test"
)]
fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Whether files with these contents are a whole log. Never panics, whatever is in them.
fn head_of(contents: &[Vec<u8>]) -> Option<u64> {
    let key = key("k");
    let mut walk = Walk::new(&key, None);
    for content in contents {
        walk.begin_file();
        walk.read(content.as_slice()).unwrap();
        if walk.wrong().is_some() || walk.first_seq.is_none() {
            return None;
        }
    }
    walk.head.map(|head| head.seq)
}

/// A log of several files, with starts and torn tails in it.
async fn valid(rng: &mut Rng) -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..rng.usize(1..4) {
        let log = Log::open(folder.path(), rng.u64(1500..4000), 0);
        log.add_all(rng.usize(1..12)).await;
        let path = log.path.clone();
        log.close().await;
        if rng.bool() {
            let mut bytes = fs::read(&path).unwrap();
            // The beginning of a line has no end.
            let garbage = (0..rng.usize(1..80)).map(|_| rng.u8(b' '..));
            bytes.extend(garbage);
            fs::write(&path, bytes).unwrap();
        }
    }
    let log = Log::open(folder.path(), 1 << 20, 0);
    log.add_all(1).await;
    log.close().await;
    let paths = files(folder.path());
    check(&paths);
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Changes something. What is missing at the end alone is no change that could be found.
fn forge(rng: &mut Rng, log: &[Vec<u8>]) -> (Vec<Vec<u8>>, &'static str) {
    let mut forged = log.to_vec();
    let index = rng.usize(..forged.len());
    let file = &mut forged[index];
    let at = rng.usize(..file.len());
    let ends: Vec<usize> = file
        .iter()
        .enumerate()
        .filter_map(|(at, byte)| (*byte == b'\n').then_some(at + 1))
        .collect();
    let lines = |file: &[u8]| -> Vec<Vec<u8>> {
        file.split_inclusive(|byte| *byte == b'\n')
            .map(<[u8]>::to_vec)
            .collect()
    };
    let what = match rng.u8(..9) {
        0 => {
            file[at] ^= 1 << rng.u8(..8);
            "a bit was changed"
        }
        1 => {
            let mut other = rng.u8(..);
            while other == file[at] {
                other = rng.u8(..);
            }
            file[at] = other;
            "a byte was changed"
        }
        2 => {
            file.remove(at);
            "a byte was removed"
        }
        3 => {
            let byte = rng.u8(..);
            file.insert(at, byte);
            "a byte was inserted"
        }
        4 => {
            let mut parts = lines(file);
            parts.remove(rng.usize(..parts.len()));
            *file = parts.concat();
            "a line was removed"
        }
        5 => {
            let mut parts = lines(file);
            let copy = parts[rng.usize(..parts.len())].clone();
            parts.insert(rng.usize(..=parts.len()), copy);
            *file = parts.concat();
            "a line was repeated"
        }
        6 => {
            let mut parts = lines(file);
            let (one, other) = (rng.usize(..parts.len()), rng.usize(..parts.len()));
            parts.swap(one, other);
            *file = parts.concat();
            "two lines changed places"
        }
        7 => {
            let from = ends[rng.usize(..ends.len())];
            file.drain(..from);
            "the beginning of a file was removed"
        }
        _ => {
            let to = ends[rng.usize(..ends.len())];
            let junk: Vec<u8> = (0..rng.usize(1..200)).map(|_| rng.u8(..)).collect();
            file.splice(to..to, junk);
            "something was inserted between lines"
        }
    };
    (forged, what)
}

/// Whether nothing but the end is missing, or whole files at the beginning: only a head that was
/// noted elsewhere tells.
fn is_cut_off(log: &[Vec<u8>], forged: &[Vec<u8>]) -> bool {
    let (log, forged) = (log.concat(), forged.concat());
    log.starts_with(&forged) && (forged.is_empty() || forged.ends_with(b"\n"))
}

#[tokio::test]
async fn whatever_is_changed_in_a_log_is_found() {
    let seed = variable("AUDIT_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    let lasting = Duration::from_secs(variable("AUDIT_FUZZ_SECONDS").unwrap_or(2));
    let began = Instant::now();
    let mut rng = Rng::with_seed(seed);
    let (mut forgeries, mut found) = (0_u64, 0_u64);
    while began.elapsed() < lasting {
        let log = valid(&mut rng).await;
        let head = head_of(&log);
        assert!(
            head.is_some(),
            "AUDIT_FUZZ_SEED={seed}: a good log is not taken"
        );
        for _ in 0..300 {
            let (forged, what) = forge(&mut rng, &log);
            forgeries += 1;
            if forged == log {
                continue;
            }
            let result = head_of(&forged);
            found += u64::from(result.is_none());
            // A log that is cut at its end is a shorter one, and says so by its head.
            assert!(
                result.is_none() || (is_cut_off(&log, &forged) && result < head),
                "AUDIT_FUZZ_SEED={seed}: {what}, and nothing was found"
            );
        }
    }
    assert!(found > 100, "only {found} of {forgeries} were found");
    println!(
        "{found} of {forgeries} forgeries found; the others left a log that was whole or cut at its end (seed {seed})"
    );
}

#[test]
fn no_bytes_make_the_verifier_fail() {
    let seed = variable("AUDIT_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    let mut rng = Rng::with_seed(seed);
    let parts: [&[u8]; 8] = [
        b"{\"seq\":1,\"kind\":\"opened\",\"previous\":\"",
        b"\",\"hmac\":\"",
        &[b'0'; 64],
        b"\"}",
        b"\n",
        b"{\"seq\":18446744073709551615,\"kind\":\"opened\",\"reason\":\"\\ud800\",\"new_file\":true,\"previous\":\"",
        b"\"torn\":{\"bytes\":0,\"sha256\":\"\"}",
        b"\xff\x00[[[[[",
    ];
    let began = Instant::now();
    let lasting = Duration::from_secs(variable("AUDIT_FUZZ_SECONDS").unwrap_or(2) / 2);
    let mut cases = 0_u64;
    while began.elapsed() < lasting {
        let count = rng.usize(1..12);
        let content: Vec<u8> = (0..count)
            .flat_map(|_| parts[rng.usize(..parts.len())].to_vec())
            .collect();
        assert_eq!(head_of(&[content]), None, "AUDIT_FUZZ_SEED={seed}");
        cases += 1;
    }
    println!("{cases} heaps of bytes, none taken for a log (seed {seed})");
}

#[tokio::test]
async fn the_first_line_that_is_wrong_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path(), 1 << 20, 0);
    log.add_all(6).await;
    let path = log.path.clone();
    log.close().await;
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let line_of = |lines: &[&str]| {
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        wrong(std::slice::from_ref(&path)).map(|(_, line, _)| line)
    };
    assert_eq!(line_of(&lines), None);
    for at in 0..lines.len() {
        let place = at as u64 + 1;
        let changed = lines[at].replacen("\"time\":\"2", "\"time\":\"3", 1);
        let mut forged = lines.clone();
        forged[at] = &changed;
        assert_eq!(line_of(&forged), Some(place), "changed");
        forged[at] = "";
        assert_eq!(line_of(&forged), Some(place), "emptied");
        let mut forged = lines.clone();
        forged.insert(at, lines[at]);
        // The second of two that are the same is the one too many.
        assert_eq!(line_of(&forged), Some(place + 1), "repeated");
        let mut forged = lines.clone();
        forged.remove(at);
        // What is missing at the end is only seen by the head.
        let found = (place < lines.len() as u64).then_some(place);
        assert_eq!(line_of(&forged), found, "removed");
    }
    let other = verify(&key("x"), std::slice::from_ref(&path));
    assert!(matches!(other, Err(VerifyError::Tampered(found)) if found.line == 1));
}

#[tokio::test]
async fn a_line_of_another_log_with_the_same_key_and_number_is_found() {
    let mut logs = Vec::new();
    for _ in 0..2 {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(folder.path(), 1 << 20, 0);
        log.add_all(5).await;
        let path = log.path.clone();
        log.close().await;
        logs.push(fs::read_to_string(&path).unwrap());
    }
    let [one, other] = [0, 1].map(|index| logs[index].lines().collect::<Vec<_>>());
    for at in 1..one.len() {
        let spliced = [&one[..at], &other[at..]].concat().join("\n") + "\n";
        assert_eq!(head_of(&[spliced.into_bytes()]), None, "from line {at} on");
    }
}
