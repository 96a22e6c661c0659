//! What becomes of a log when its file is full, torn, replaced, or cannot be written.

use std::{fs::OpenOptions, io::Write as _, sync::Arc};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::audit::{strangers::LINES_MAX, verify::Stretch};

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn a_log_that_is_closed_and_opened_again_goes_on_and_verifies() {
    let folder = tempfile::tempdir().unwrap();
    for run in 1..=3 {
        let log = Log::open(folder.path(), 1 << 20, 0);
        log.add_all(4).await;
        log.close().await;
        let verified = check(&files(folder.path()));
        assert_eq!(verified.lines, run * 5);
        assert_eq!(verified.head.seq, run * 5);
        assert_eq!(verified.before.seq, 0);
    }
    let lines = lines(&folder.path().join("audit.log"));
    assert_eq!(lines[5]["kind"], "opened");
    assert_eq!(lines[5]["reason"], "start");
    assert_eq!(lines[5]["previous"], lines[4]["hmac"]);
}

#[tokio::test]
async fn full_files_are_set_aside_and_link_and_only_so_many_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path(), 2000, 3);
    log.add_all(100).await;
    log.close().await;
    let files = files(folder.path());
    assert_eq!(files.len(), 4, "{files:?}");
    let verified = check(&files);
    assert!(verified.before.seq > 0);
    // A file that is missing in between is found, and so is another order.
    let gap = [files[0].clone(), files[2].clone()];
    assert!(matches!(
        wrong(&gap),
        Some((file, 1, Wrong::Order { due, found })) if file == files[2] && found > due
    ));
    let swapped = [files[1].clone(), files[0].clone()];
    assert!(matches!(wrong(&swapped), Some((file, 1, Wrong::Order { .. })) if file == files[0]));
    // One file by itself is whole; joined with another it is none.
    assert!(wrong(&files[1..2]).is_none());
    let joined = folder.path().join("joined");
    fs::write(
        &joined,
        [fs::read(&files[0]).unwrap(), fs::read(&files[1]).unwrap()].concat(),
    )
    .unwrap();
    let first = fs::read_to_string(&files[0]).unwrap().lines().count() as u64;
    assert_eq!(
        wrong(std::slice::from_ref(&joined)),
        Some((joined, first + 1, Wrong::Beginning))
    );
}

#[tokio::test]
async fn a_log_whose_file_was_set_aside_last_goes_on_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path(), 2000, 0);
    log.add_all(20).await;
    log.close().await;
    // As after a crash between the two steps of setting aside.
    let before = files(folder.path());
    let newest = before.last().unwrap();
    fs::rename(newest, folder.path().join("audit.log.0000000000009999")).unwrap();
    let log = Log::open(folder.path(), 2000, 0);
    log.add_all(1).await;
    log.close().await;
    assert_eq!(check(&files(folder.path())).before.seq, 0);
}

#[tokio::test]
async fn the_beginning_of_a_line_is_sealed_at_the_next_start_and_named() {
    for tail in [
        &b"{\"seq\":5,\"time"[..],
        b" ",
        b"\0\0\0\0\0",
        &vec![0xff; 65_535],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        for _ in 0..2 {
            let log = Log::open(folder.path(), 1 << 20, 0);
            log.add_all(3).await;
            log.close().await;
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(tail).unwrap();
            assert!(matches!(
                wrong(&files(folder.path())),
                Some((_, _, Wrong::Form))
            ));
        }
        let log = Log::open(folder.path(), 1 << 20, 0);
        log.add_all(1).await;
        log.close().await;
        let verified = check(&files(folder.path()));
        assert_eq!(verified.lines, 10);
        let sealed = |after| Stretch {
            file: path.clone(),
            line: after + 1,
            after,
            bytes: tail.len() as u64,
            sha256: hex::encode(Sha256::digest(tail)),
        };
        // The second begins one line further down, since the first takes one.
        let second = Stretch {
            line: 10,
            ..sealed(8)
        };
        assert_eq!(verified.sealed, [sealed(4), second]);
        // What was sealed cannot be changed either.
        let bytes = fs::read(&path).unwrap();
        let at = bytes
            .windows(tail.len())
            .position(|part| part == tail)
            .unwrap();
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fs::write(&path, changed).unwrap();
        assert!(wrong(&files(folder.path())).is_some());
    }
}

#[tokio::test]
async fn what_no_crash_leaves_behind_is_not_sealed() {
    for tail in [
        &b"\n"[..],
        b"\0\0\0\0\n\0\0",
        b"x\n\ny\n\n",
        b"{\"seq\":4}\n",
        &vec![0xff; 65_536],
        &vec![0xff; 200_000],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(folder.path(), 1 << 20, 0);
        log.add_all(3).await;
        let path = log.path.clone();
        log.close().await;
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(tail).unwrap();
        let found = fs::read(&path).unwrap();
        let log = Log::open(folder.path(), 1 << 20, 0);
        assert_eq!(log.add("x").await, Err(AuditUnavailable));
        assert_eq!(fs::read(&path).unwrap(), found);
    }
}

#[tokio::test]
async fn files_that_others_put_there_do_not_push_out_what_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path(), 2000, 3);
    log.add_all(100).await;
    let kept = files(folder.path());
    assert_eq!(kept.len(), 4);
    let oldest = fs::read(&kept[0]).unwrap();
    let first = kept[0]
        .extension()
        .unwrap()
        .to_str()
        .unwrap()
        .parse::<u64>()
        .unwrap();
    let named = |number: String| folder.path().join(format!("audit.log.{number}"));
    let strange = [
        // Behind all others, before them and between them, and longer than a number.
        named("9999999999999999".to_owned()),
        named("99999999999999999999999".to_owned()),
        named(format!("{:016}", first + 1)),
        named(format!("{:016}", first - 1)),
        // The number of a genuine one in another form.
        named(format!("{first:017}")),
    ];
    for file in &strange {
        fs::write(file, &oldest).unwrap();
    }
    let pipe = named("9999999999999998".to_owned());
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    // Enough for one file more.
    while kept[0].exists() {
        log.add("rule").await.unwrap();
    }
    assert!(kept[1..].iter().all(|file| file.exists()));
    log.add_all(100).await;
    let path = log.path.clone();
    log.close().await;
    assert!(pipe.exists() && strange.iter().all(|file| file.exists()));
    let mut genuine = files(folder.path());
    genuine.retain(|file| *file != pipe && !strange.contains(file));
    assert_eq!(genuine.len(), 4);
    assert_eq!(genuine.last(), Some(&path));
    check(&genuine);
}

#[tokio::test]
async fn a_line_cut_anywhere_is_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let log = Log::open(folder.path(), 1 << 20, 0);
    log.add_all(2).await;
    log.close().await;
    let whole = fs::read(&path).unwrap();
    for cut in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
        fs::write(&path, &whole[..cut]).unwrap();
        let log = Log::open(folder.path(), 1 << 20, 0);
        log.add_all(1).await;
        log.close().await;
        check(&files(folder.path()));
    }
}

#[tokio::test]
async fn nothing_is_added_behind_a_line_that_was_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let log = Log::open(folder.path(), 1 << 20, 0);
    log.add_all(5).await;
    log.close().await;
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("rule 2", "rule 7")).unwrap();
    let log = Log::open(folder.path(), 1 << 20, 0);
    assert_eq!(log.add("x").await, Err(AuditUnavailable));
    assert!(!log.audit.is_available());
    assert_eq!(wrong(std::slice::from_ref(&path)).unwrap().1, 4);
    // It recovers by itself once the file is out of the way, as a log of its own.
    fs::rename(&path, folder.path().join("evidence.log")).unwrap();
    while log.add("x").await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    check(std::slice::from_ref(&path));
    log.close().await;
}

#[tokio::test]
async fn a_file_that_is_moved_emptied_or_removed_is_begun_afresh_and_the_lines_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let log = Log::open(folder.path(), 1 << 20, 0);
    log.add_all(3).await;
    let moved = folder.path().join("a.1");
    fs::rename(&path, &moved).unwrap();
    log.add_all(3).await;
    let copied = folder.path().join("a.2");
    fs::copy(&path, &copied).unwrap();
    OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    log.add_all(3).await;
    assert_eq!(lines(&path)[0]["reason"], "replaced");
    assert_eq!(check(&[moved.clone(), copied, path.clone()]).lines, 12);
    fs::remove_file(&path).unwrap();
    log.add_all(1).await;
    assert_eq!(wrong(&[moved, path.clone()]).unwrap().1, 1);
    // An older state of the file is not taken for the log.
    let old = fs::read(&path).unwrap();
    log.add_all(1).await;
    fs::write(&path, old).unwrap();
    assert_eq!(log.add("x").await, Err(AuditUnavailable));
    log.audit.close().await.unwrap_err();
}

#[tokio::test]
async fn what_cannot_be_written_is_refused_and_goes_on_when_it_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let log = Log::open(&inner, 1 << 20, 0);
    log.add_all(2).await;
    let aside = folder.path().join("aside");
    fs::rename(&inner, &aside).unwrap();
    assert_eq!(log.add("x").await, Err(AuditUnavailable));
    fs::rename(&aside, &inner).unwrap();
    while log.add("y").await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let path = log.path.clone();
    log.close().await;
    check(std::slice::from_ref(&path));
    let rules: Vec<_> = lines(&path)
        .iter()
        .map(|line| line["rule"].clone())
        .collect();
    assert!(
        !rules.contains(&"x".into()) && rules.contains(&"y".into()),
        "{rules:?}"
    );
}

#[tokio::test]
async fn two_processes_do_not_write_to_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let first = Log::open(folder.path(), 1 << 20, 0);
    first.add_all(1).await;
    let second = Log::open(folder.path(), 1 << 20, 0);
    assert_eq!(second.add("x").await, Err(AuditUnavailable));
    first.add_all(1).await;
    first.close().await;
    check(&files(folder.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_all_get_their_lines_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::open(folder.path(), 20_000, 0));
    let mut all = tokio::task::JoinSet::new();
    for number in 0..300 {
        let log = Arc::clone(&log);
        all.spawn(async move { log.add(&format!("rule {number}")).await });
    }
    while let Some(added) = all.join_next().await {
        added.unwrap().unwrap();
    }
    Arc::into_inner(log).unwrap().close().await;
    let files = files(folder.path());
    assert!(files.len() > 1);
    assert_eq!(check(&files).lines, 300 + files.len() as u64);
}

#[tokio::test]
async fn what_was_turned_down_is_written_though_nobody_waits() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path(), 1 << 20, 0);
    for number in 0..200 {
        let denied = Decided {
            decision: Decision::Denied,
            ..decided(&format!("rule {number}"))
        };
        drop(log.audit.record(vec![Entry::Decided(denied)]));
    }
    let path = log.path.clone();
    log.close().await;
    assert_eq!(check(std::slice::from_ref(&path)).lines, 201);
}

#[tokio::test]
async fn a_flood_of_strangers_is_ten_lines_and_a_count() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path(), 1 << 20, 0);
    for _ in 0..100_000 {
        log.audit.note_stranger(decided("missing"));
    }
    let path = log.path.clone();
    log.close().await;
    check(std::slice::from_ref(&path));
    let lines = lines(&path);
    let own = lines
        .iter()
        .filter(|line| line["rule"] == "missing")
        .count();
    assert_eq!(own, LINES_MAX as usize);
    let last = lines.last().unwrap();
    assert_eq!(last["kind"], "strangers");
    assert_eq!(last["count"], 100_000 - u64::from(LINES_MAX));
}

#[tokio::test]
async fn whatever_a_value_holds_it_stays_in_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path(), 1 << 20, 0);
    let nasty = "\n{\"seq\":9}\r\u{0}\u{1b}[2J\u{7f}\u{85}\u{9b}\u{2028}\u{2029}\u{202e}\u{feff}\u{1f600}\u{d7ff}\",\"hmac\":\"";
    log.add(nasty).await.unwrap();
    log.add(&nasty.repeat(10_000)).await.unwrap();
    let path = log.path.clone();
    log.close().await;
    check(std::slice::from_ref(&path));
    let bytes = fs::read(&path).unwrap();
    assert!(
        bytes
            .iter()
            .all(|byte| (b' '..=b'~').contains(byte) || *byte == b'\n')
    );
    let lines = lines(&path);
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[1]["rule"], nasty);
    assert_eq!(lines[2]["rule"].as_str().unwrap().chars().count(), 515);
    assert!(bytes.len() < 10_000);
}

#[test]
fn a_short_key_is_none() {
    assert!(Key::new(&Secret::new("k".repeat(31))).is_none());
    assert_eq!(format!("{:?}", key("k")), "[redacted]");
}
