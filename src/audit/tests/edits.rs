//! What somebody who has not the key does to the end of a log, between two runs of the process and
//! under a running one.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    time::Duration,
};

use super::*;

/// What becomes of a log that was changed like this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// Nothing is added.
    Refused,
    /// It is sealed, and whoever verifies is told.
    Named,
    /// It is as it was.
    Mended,
    /// Only the head tells, which somebody noted elsewhere.
    ByHead,
}

use Found::{ByHead, Mended, Named, Refused};

/// Has the form of a line, but for a blank.
const FORGED: &str = "{\"seq\":8,\"time\":\"2026-11-27T11:26:08Z\",\"kind\":\"decision\",\"hmac\":\"0000000000000000000000000000000000000000000000000000000000000000\" }\n";

fn replaced(text: &str, line: usize, from: &str, to: &str) -> String {
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    let changed = lines[line].replacen(from, to, 1);
    assert_ne!(lines[line], changed);
    lines[line] = changed;
    lines.concat()
}

type Edit = (&'static str, fn(&str) -> String, Found);

/// Of a log of seven lines, and what the next start makes of each.
const EDITS: [Edit; 18] = [
    (
        "lines without the form of one",
        |text| format!("{text}{}", FORGED.repeat(3)),
        Refused,
    ),
    ("one such line", |text| format!("{text}{FORGED}"), Refused),
    (
        "such a line without its end",
        |text| format!("{text}{}", FORGED.trim_end()),
        Named,
    ),
    (
        "a line with the form of one",
        |text| format!("{text}{}", FORGED.replace("\" }", "\"}")),
        Refused,
    ),
    (
        "the last line again",
        |text| format!("{text}{}\n", text.lines().last().unwrap()),
        Refused,
    ),
    ("a blank line", |text| format!("{text}\n"), Refused),
    ("blanks", |text| format!("{text}   "), Named),
    ("blanks and an end", |text| format!("{text}   \n"), Refused),
    (
        "a blank in the last line",
        |text| replaced(text, 6, "\"}", "\" }"),
        Refused,
    ),
    (
        "another end of a line",
        |text| replaced(text, 6, "\n", "\r\n"),
        Refused,
    ),
    (
        "the last line changed",
        |text| replaced(text, 6, "rule 5", "rule 9"),
        Refused,
    ),
    (
        "the last line changed and spoilt",
        |text| replaced(text, 6, "hmac", "hmaC"),
        Refused,
    ),
    (
        "the last lines changed and spoilt",
        |text| {
            (3..7).fold(text.to_owned(), |text, line| {
                replaced(&text, line, "\"hmac\":\"", "\"hmac\":\"X")
            })
        },
        Refused,
    ),
    (
        "the first line changed",
        |text| replaced(text, 0, "start", "stars"),
        Refused,
    ),
    (
        "no end of the last line",
        |text| text.trim_end().to_owned(),
        Mended,
    ),
    (
        "no end, and a line behind it",
        |text| format!("{}{FORGED}", text.trim_end()),
        Refused,
    ),
    (
        "half of the last line",
        |text| text[..text.len() - 80].to_owned(),
        Named,
    ),
    (
        "no last line",
        |text| {
            replaced(text, 6, text.lines().last().unwrap(), "")
                .trim_end()
                .to_owned()
                + "\n"
        },
        ByHead,
    ),
];

async fn log_of_seven(folder: &Path) -> (Log, String) {
    let log = Log::open(folder, 1 << 20, 0);
    log.add_all(6).await;
    let text = fs::read_to_string(&log.path).unwrap();
    assert_eq!(text.lines().count(), 7);
    (log, text)
}

#[tokio::test]
async fn what_is_done_to_its_end_between_two_runs_is_found() {
    for (what, edit, expected) in EDITS {
        let folder = tempfile::tempdir().unwrap();
        let (log, text) = log_of_seven(folder.path()).await;
        let path = log.path.clone();
        log.close().await;
        let noted = check(std::slice::from_ref(&path)).head;
        let forged = edit(&text);
        fs::write(&path, &forged).unwrap();
        let log = Log::open(folder.path(), 1 << 20, 0);
        let added = log.add("x").await;
        let _closed = log.audit.close().await;
        let found = match verify(&key("k"), std::slice::from_ref(&path)) {
            Err(_) => {
                assert_eq!(added, Err(AuditUnavailable), "{what}");
                assert_eq!(fs::read_to_string(&path).unwrap(), forged, "{what}");
                Refused
            }
            Ok(verified) if !verified.sealed.is_empty() => Named,
            Ok(_) if fs::read_to_string(&path).unwrap().starts_with(&text) => Mended,
            Ok(_) => {
                assert!(
                    !fs::read_to_string(&path)
                        .unwrap()
                        .contains(&hex::encode(noted.seal))
                );
                ByHead
            }
        };
        assert_eq!(found, expected, "{what}");
    }
}

/// Makes this of the content of a file, and waits until the clock of the file system shows it.
fn overwrite(path: &Path, content: &str) {
    let before = fs::metadata(path).unwrap();
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file.set_len(content.len() as u64).unwrap();
    let changed = |metadata: &fs::Metadata| (metadata.ctime(), metadata.ctime_nsec());
    while changed(&file.metadata().unwrap()) == changed(&before) {
        file.set_permissions(fs::Permissions::from_mode(0o600))
            .unwrap();
    }
}

#[tokio::test]
async fn what_is_done_to_its_end_under_a_running_process_is_found_and_never_sealed() {
    let all = EDITS.map(|(what, edit, _)| async move {
        let folder = tempfile::tempdir().unwrap();
        let (log, text) = log_of_seven(folder.path()).await;
        let forged = edit(&text);
        overwrite(&log.path, &forged);
        assert_eq!(log.add("x").await, Err(AuditUnavailable), "{what}");
        assert!(!log.audit.is_available());
        // Nor does another attempt seal it.
        while log.audit.shared.metrics.failures.get() < 4 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(fs::read_to_string(&log.path).unwrap(), forged, "{what}");
        overwrite(&log.path, &text);
        while log.add("x").await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let verified = check(std::slice::from_ref(&log.path));
        assert_eq!(verified.sealed, [], "{what}");
        assert!(fs::read_to_string(&log.path).unwrap().starts_with(&text));
    });
    futures_util::future::join_all(all).await;
}

#[tokio::test]
async fn a_file_that_is_only_touched_goes_on_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (log, text) = log_of_seven(folder.path()).await;
    overwrite(&log.path, &text);
    log.add("x").await.unwrap();
    let path = log.path.clone();
    log.close().await;
    assert_eq!(check(std::slice::from_ref(&path)).lines, 8);
}
