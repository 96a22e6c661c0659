//! Named places between the acceptance of a request and the end of its operation, at which tests
//! kill the process.
//!
//! The places are there with the feature `kill-points` only, which is for tests: without it the
//! macro is nothing, and a build without debug assertions refuses it. With it,
//! `MIGRATION_GATEWAY_KILL_POINT=name:count` kills the process with SIGKILL when it comes to that
//! place for that time, counted from the moment at which the file exists that
//! `MIGRATION_GATEWAY_KILL_ARMED_BY` names, or from the beginning if it names none.
//!
//! A place stands before and after each await and each write, those of the housekeeping and of the
//! audit log among them, and wherever a store or an audit log that fails leads to, or a store that
//! somebody else was faster at. There is none where a round panicked or is given up because the
//! process stops while the store is away, nor where a request is refused, nor after a round has
//! looked whether its own write is on record: nothing is awaited or written there, or nothing that
//! an operation rests on.

#[cfg(all(feature = "kill-points", not(debug_assertions)))]
compile_error!("the feature kill-points is for tests, and has no place in a release");

/// Every place, in the order in which an operation comes to them.
#[cfg(any(test, feature = "kill-points"))]
pub const KILL_POINTS: [&str; 93] = [
    "accept.recall.before",
    "accept.recall.after",
    "accept.running.before",
    "accept.running.after",
    "accept.join.before",
    "accept.join.after",
    "accept.join.lost",
    "accept.former.before",
    "accept.former.after",
    "accept.look.before",
    "accept.look.after",
    "accept.note.before",
    "accept.note.after",
    "accept.supersede.before",
    "accept.create.before",
    "accept.create.after",
    "accept.again.before",
    "accept.again.after",
    "accept.find.before",
    "accept.find.after",
    "accept.create.lost",
    "accept.supersede.recorded",
    "accept.supersede.announced",
    "accept.wake.before",
    "accept.wake.after",
    "wait.show.before",
    "wait.show.after",
    "wait.woken",
    "cancel.find.before",
    "cancel.find.after",
    "cancel.note.before",
    "cancel.note.after",
    "cancel.show.before",
    "cancel.show.after",
    "cancel.save.before",
    "cancel.save.after",
    "cancel.save.stale",
    "cancel.announced",
    "engine.claim.before",
    "engine.claim.after",
    "engine.claim.failed",
    "engine.round.begun",
    "engine.renew.before",
    "engine.renew.after",
    "engine.renew.failed",
    "engine.keys.before",
    "engine.keys.after",
    "engine.removal.before",
    "engine.removal.after",
    "engine.again.before",
    "engine.again.after",
    "engine.housekeeping.failed",
    "board.lock.before",
    "board.lock.after",
    "board.count.before",
    "board.count.after",
    "board.page.before",
    "board.page.after",
    "round.look.before",
    "round.look.after",
    "round.intent.before",
    "round.intent.saved",
    "round.late.before",
    "round.late.saved",
    "round.pause.before",
    "round.pause.after",
    "round.start.before",
    "round.start.after",
    "round.delete.before",
    "round.delete.after",
    "round.accepted.before",
    "round.accepted.saved",
    "round.failed.before",
    "round.failed.saved",
    "round.retry.before",
    "round.retry.after",
    "round.save.stale",
    "round.rest.before",
    "round.rest.saved",
    "round.end.before",
    "round.end.saved",
    "round.end.announced",
    "engine.round.ended",
    "engine.round.followed",
    "engine.woken",
    "ends.owed.before",
    "ends.owed.after",
    "ends.note.before",
    "ends.note.after",
    "ends.told.before",
    "ends.told.after",
    "ends.failed",
    "ends.woken",
];

/// A place at which tests can kill the process. Nothing without the feature `kill-points`.
#[cfg(feature = "kill-points")]
macro_rules! kill_point {
    ($name:literal) => {
        $crate::operations::kill_point::reached($name)
    };
}
/// A place at which tests can kill the process. Nothing without the feature `kill-points`.
#[cfg(not(feature = "kill-points"))]
macro_rules! kill_point {
    ($name:literal) => {};
}
pub(crate) use kill_point;

/// Counts that the process came to this place, and kills it if that is what was asked for.
#[cfg(feature = "kill-points")]
pub(crate) fn reached(name: &str) {
    use std::{
        io::{self, Write as _},
        sync::atomic::Ordering,
    };

    let Some(wish) = wish() else { return };
    let is_armed = wish.armed_by.as_ref().is_none_or(|file| file.exists());
    if wish.name != name || !is_armed || wish.left.fetch_sub(1, Ordering::Relaxed) != 1 {
        return;
    }
    // The kill shows as well if this cannot be written.
    let _unheard = writeln!(io::stderr(), "killed at {name}");
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
        .expect("a process may always kill itself");
}

/// Where to kill the process.
#[cfg(feature = "kill-points")]
struct Wish {
    name: String,
    /// How often the place is to be reached until then; it goes on below zero.
    left: std::sync::atomic::AtomicI64,
    armed_by: Option<std::path::PathBuf>,
}

/// What the environment asks for, read once.
#[cfg(feature = "kill-points")]
#[expect(
    clippy::disallowed_methods,
    reason = "this is for tests, and no part of the configuration"
)]
fn wish() -> Option<&'static Wish> {
    static WISH: std::sync::OnceLock<Option<Wish>> = std::sync::OnceLock::new();
    let read = || {
        let value = std::env::var("MIGRATION_GATEWAY_KILL_POINT").ok()?;
        let (name, count) = value.split_once(':')?;
        Some(Wish {
            name: name.to_owned(),
            left: count.parse().ok().map(std::sync::atomic::AtomicI64::new)?,
            armed_by: std::env::var_os("MIGRATION_GATEWAY_KILL_ARMED_BY").map(Into::into),
        })
    };
    WISH.get_or_init(read).as_ref()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::KILL_POINTS;

    #[test]
    fn every_listed_place_is_in_the_program_once_and_no_other_is() {
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("the folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = fs::read_to_string(path).expect("a file");
                let names = text.split("kill_point!(\"").skip(1);
                found.extend(names.map(|rest| rest.split('"').next().expect("a name").to_owned()));
            }
        }
        found.sort_unstable();
        let mut listed = KILL_POINTS.map(str::to_owned);
        listed.sort_unstable();
        assert_eq!(found, listed);
    }
}
