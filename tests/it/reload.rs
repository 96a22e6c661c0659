//! Callers change while the gateway runs.

use std::fs;

use crate::support::{
    gateway::{Gateway, KEY, Place},
    issuer::{Issuer, SigningKey},
    wait_for,
};

const ALL: &str = "permissions = [\"*\"]\nprojects = [\"*\"]";
const READ: &str = "the configuration of callers was read again";
const NOBODY: &str =
    "the configuration names no caller: every key and every certificate is refused";
const FAULTY: &str = "the configuration has faults: callers stay as they were";
const LATE: &str = "the configuration was not read in time";

/// Lines of the log with these words.
fn lines(gateway: &Gateway, words: &str) -> usize {
    let log = gateway.log();
    log.lines().filter(|line| line.contains(words)).count()
}

fn status(gateway: &Gateway, key: &str) -> u16 {
    gateway.client_with(key).get("/tasks").status
}

/// Changes the file of the configuration.
fn edit(place: &Place, from: &str, to: &str) {
    let path = place.file("gateway.toml");
    let text = fs::read_to_string(&path).expect("a configuration");
    assert!(text.contains(from), "{from} is not in {text}");
    fs::write(&path, text.replace(from, to)).expect("a configuration");
}

/// Takes a section out of the file of the configuration.
fn remove(place: &Place, section: &str) {
    let path = place.file("gateway.toml");
    let text = fs::read_to_string(&path).expect("a configuration");
    let begin = text.find(&format!("[{section}]")).expect("the section");
    let end = text[begin + 1..]
        .find("\n[")
        .map_or(text.len(), |at| begin + 1 + at);
    fs::write(&path, format!("{}{}", &text[..begin], &text[end..])).expect("a configuration");
}

/// Asks the gateway to read its configuration again, and waits until it has said what became of it.
fn hang_up(gateway: &Gateway, words: &str) {
    let before = lines(gateway, words);
    gateway.signal("HUP");
    wait_for(words, || (lines(gateway, words) > before).then_some(()));
}

#[test]
fn a_hangup_brings_callers_and_takes_them_away_from_one_request_to_the_next() {
    let place = Place::new()
        .caller("goes", "goes", ALL)
        .caller(
            "changes",
            "changes",
            "permissions = [\"tasks:read\"]\nprojects = [\"*\"]",
        )
        .env(
            "MIGRATION_GATEWAY__CALLERS__RULED__PERMISSIONS",
            "tasks:pause",
        )
        .caller("ruled", "ruled", ALL);
    let gateway = place.start();
    for (key, expected) in [
        ("goes", 200),
        ("changes", 200),
        ("comes", 401),
        ("ruled", 403),
    ] {
        assert_eq!(status(&gateway, key), expected, "{key}");
    }
    let running = gateway.client_with("goes");
    assert_eq!(running.post("/tasks/7/pause").status, 404);
    let place = place.caller("comes", "comes", ALL);
    place.write_configuration();
    remove(&place, "callers.goes");
    edit(&place, "\"tasks:read\"", "\"operations:read\"");
    hang_up(&gateway, READ);
    for (key, expected) in [
        ("goes", 401),
        ("comes", 200),
        ("changes", 403),
        ("ruled", 403),
        (KEY, 200),
    ] {
        assert_eq!(status(&gateway, key), expected, "{key}");
    }
    let answer = running.get("/operations");
    assert_eq!(answer.status, 401, "on a connection that is open, too");
}

#[test]
fn a_faulty_file_changes_nothing() {
    let place = Place::new().caller("team", "team", ALL);
    let gateway = place.start();
    let outdated = |value: &str| {
        let metrics = gateway.stranger().get("/metrics").text;
        metrics.contains(&format!("migration_gateway_configuration_outdated {value}"))
    };
    assert!(outdated("0"));
    for (from, to, fault) in [
        (
            "[callers.team]",
            "[callers.team]\nsurprise = \"canary\"",
            "callers.team.surprise",
        ),
        ("[store]", "[store", "is not valid TOML"),
        ("sqlite://", "mysql://", "store.url"),
    ] {
        edit(&place, from, to);
        hang_up(&gateway, FAULTY);
        assert!(outdated("1"), "{fault}");
        let log = gateway.log();
        let line = log
            .lines()
            .rfind(|line| line.contains(FAULTY))
            .expect("a line");
        assert!(line.contains(fault) && !line.contains("canary"), "{line}");
        assert_eq!(status(&gateway, "team"), 200);
        edit(&place, to, from);
    }
    fs::remove_file(place.file("gateway.toml")).expect("a file");
    hang_up(&gateway, FAULTY);
    assert_eq!(status(&gateway, "team"), 200);
    place.write_configuration();
    hang_up(&gateway, READ);
    assert!(outdated("0"));
}

#[test]
fn a_change_of_the_file_is_noticed_without_a_signal() {
    let grant = "permissions = [\"tasks:read\"]\nprojects = [\"*\"]";
    let place = Place::new().caller("team", "team", grant);
    let gateway = place.start();
    assert_eq!(status(&gateway, "team"), 200);
    // As a mounted file changes: by a link that points elsewhere.
    let (file, other) = (place.file("gateway.toml"), place.file("other.toml"));
    let text = fs::read_to_string(&file).expect("a configuration");
    fs::write(&other, text.replace("tasks:read", "tasks:pause")).expect("a file");
    std::os::unix::fs::symlink(&other, place.file("link")).expect("a link");
    fs::rename(place.file("link"), &file).expect("a link");
    wait_for("the change", || {
        (status(&gateway, "team") == 403).then_some(())
    });
    assert_eq!(status(&gateway, KEY), 200);
}

#[test]
fn whatever_else_changes_waits_for_a_restart() {
    let place = Place::new().caller("team", "team", ALL);
    let gateway = place.start();
    let restart = "settings beside those of callers have changed: they are used after a restart";
    hang_up(&gateway, READ);
    assert_eq!(lines(&gateway, restart), 0);
    edit(&place, "poll_max = \"200ms\"", "poll_max = \"300ms\"");
    edit(&place, "[callers.team]", "[callers.group]");
    hang_up(&gateway, READ);
    assert_eq!(lines(&gateway, restart), 1);
    assert_eq!(status(&gateway, "team"), 200);
}

#[test]
fn issuers_come_and_go_and_the_keys_of_those_who_stay_are_kept() {
    let key = SigningKey::elliptic("k1");
    let (first, second) = (Issuer::with(&[&key]), Issuer::with(&[&key]));
    let group = |name: &str| format!("[issuers.{name}.groups.all]\n{ALL}");
    let place = Place::new().add(&first.section("first", &group("first")));
    let gateway = place.start();
    let token = |issuer: &Issuer| issuer.token(&key, "alice", &["all"]);
    assert_eq!(status(&gateway, &token(&first)), 200);
    assert_eq!(status(&gateway, &token(&second)), 401);
    let place = place.add(&second.section("second", &group("second")));
    place.write_configuration();
    hang_up(&gateway, READ);
    first.fall_silent();
    assert_eq!(status(&gateway, &token(&second)), 200);
    assert_eq!(status(&gateway, &token(&first)), 200);
    assert_eq!((first.asked(), second.asked()), (1, 1));
    edit(&place, &first.name(), "https://login.example.com");
    hang_up(&gateway, READ);
    assert_eq!(status(&gateway, &token(&first)), 401);
    assert_eq!(status(&gateway, &token(&second)), 200);
}

#[test]
fn a_file_that_is_being_written_is_used_when_it_is_whole() {
    let place = Place::new().caller("team", "team", ALL);
    let gateway = place.start();
    let path = place.file("gateway.toml");
    let whole = fs::read_to_string(&path).expect("a configuration");
    // What is there first is a configuration too, in which nobody is known.
    let callers = whole.find("[callers.").expect("a caller");
    let part = &whole[..callers];
    for round in 0..2 {
        gateway.signal("HUP");
        let began = std::time::Instant::now();
        while began.elapsed() < std::time::Duration::from_secs(2) {
            let length = began.elapsed().as_millis();
            fs::write(&path, format!("{part}# {length} {round}\n")).expect("a file");
            std::thread::park_timeout(std::time::Duration::from_millis(50));
            assert_eq!(status(&gateway, "team"), 200);
        }
        fs::write(&path, format!("{whole}\n# {round}\n")).expect("a file");
    }
    hang_up(&gateway, READ);
    assert_eq!(status(&gateway, "team"), 200);
    assert_eq!(lines(&gateway, NOBODY), 0);
    fs::write(&path, part).expect("a file");
    hang_up(&gateway, NOBODY);
    assert_eq!(status(&gateway, "team"), 401);
    let log = gateway.log();
    let line = log
        .lines()
        .find(|line| line.contains(NOBODY))
        .expect("a line");
    assert!(line.contains("WARN"), "{line}");
}

#[test]
fn a_secret_that_hangs_is_told_and_does_not_keep_callers_in_for_ever() {
    let place = Place::new().caller("leaked", "leaked", ALL);
    let secret = place.secret("archive", "first-secret");
    let place = place.add(&format!(
        "\n[storage_credentials.archive]\naccess_key = \"AK\"\nsecret_key = {secret}\ncallers = [\"*\"]\n\
         projects = [\"*\"]\n"
    ));
    let gateway = place.start();
    place.make_hang("archive");
    remove(&place, "callers.leaked");
    hang_up(&gateway, LATE);
    let metrics = gateway.client().get("/metrics").text;
    assert!(
        metrics.contains("migration_gateway_configuration_outdated 1"),
        "{metrics}"
    );
    assert_eq!(status(&gateway, "leaked"), 200);
    let faulty = "migration_gateway_configuration_reloads_total{result=\"unread\"} 1";
    assert!(metrics.contains(faulty), "{metrics}");
    // Whoever waits for it goes on, and others do not wait.
    let pipe = place.file("archive-before");
    fs::rename(place.file("archive"), &pipe).expect("a pipe");
    fs::write(place.file("archive"), "second-secret").expect("a file");
    fs::write(pipe, "second-secret").expect("a reader");
    wait_for("the caller to be gone", || {
        (status(&gateway, "leaked") == 401).then_some(())
    });
    assert_eq!(lines(&gateway, LATE), 1);
}

#[test]
fn a_secret_that_hangs_does_not_keep_the_gateway_from_stopping() {
    let place = Place::new();
    let secret = place.secret("archive", "first-secret");
    let place = place.add(&format!(
        "\n[storage_credentials.archive]\naccess_key = \"AK\"\nsecret_key = {secret}\ncallers = [\"*\"]\n\
         projects = [\"*\"]\n"
    ));
    let mut gateway = place.start();
    place.make_hang("archive");
    hang_up(&gateway, LATE);
    gateway.signal("TERM");
    assert!(gateway.ended().success());
}
