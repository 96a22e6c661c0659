//! Writes that go wrong in the database, so that the program comes to the places that are there for
//! that.

use std::fs;

use crate::support::gateway::Place;

/// Which writes go wrong, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Trouble {
    pub(super) name: &'static str,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// Writes to the database, by a trigger there, and what becomes of them.
    Store(&'static str, [&'static str; 2]),
    /// All writes to the audit log, whose folder is away.
    AuditLog,
}

/// The write is refused: the store is unavailable for it. In the words of both engines.
const REFUSED: [&str; 2] = [
    "SELECT RAISE(ABORT, 'refused')",
    "RAISE EXCEPTION 'refused'",
];
/// The write is taken, and its commit is not: the program cannot know whether it was.
const NOT_COMMITTED: [&str; 2] = [
    "INSERT INTO doubt (id, another) VALUES (1, 2)",
    "INSERT INTO doubt (id, another) VALUES (1, 2); RETURN NEW",
];
/// What that needs: a row whose reference is looked at by the commit.
const DOUBT: &str = "CREATE TABLE doubt (id BIGINT PRIMARY KEY, \
    another BIGINT REFERENCES doubt (id) DEFERRABLE INITIALLY DEFERRED)";
/// The write meets no row, as if somebody else had been faster.
const LOST: [&str; 2] = ["SELECT RAISE(IGNORE)", "RETURN NULL"];

/// Saves of rounds. Taking up, renewing and joining leave `updated_at` alone.
const INTENT: &str = "UPDATE OF updated_at ON operations \
    WHEN NEW.phase IN ('pausing', 'starting', 'deleting') AND NEW.lease_owner IS NOT NULL";
const RESULT: &str = "UPDATE OF updated_at ON operations WHEN OLD.phase IN ('pausing', 'starting') \
    AND NEW.phase IN ('waiting_until_paused', 'waiting_until_running')";
const DELETED: &str = "UPDATE OF updated_at ON operations \
    WHEN OLD.phase = 'deleting' AND NEW.phase = 'verifying'";
const END: &str = "UPDATE OF updated_at ON operations WHEN NEW.status IN ('succeeded', 'failed')";

/// Long enough for a look to be too old to act on, in microseconds.
const INTENT_TAKES_LONG: &str = "UPDATE OF updated_at ON operations \
    WHEN NEW.phase IN ('pausing', 'starting', 'deleting') AND NEW.lease_owner IS NOT NULL \
    AND NEW.updated_at < OLD.updated_at + 7000000";

impl Trouble {
    /// All that lead to a place, each of which is tried; empty if it is reached without.
    pub(super) fn leading_to(point: &str) -> Vec<Self> {
        let trouble = |name, write, how| Self {
            name,
            what: What::Store(write, how),
        };
        let saves = |how| {
            let writes = [
                ("intent", INTENT),
                ("result", RESULT),
                ("deleted", DELETED),
                ("end", END),
            ];
            writes.map(|(name, write)| trouble(name, write, how)).into()
        };
        match point {
            "accept.join.lost" | "accept.create.lost" => {
                vec![trouble("key", "INSERT ON idempotency_keys", LOST)]
            }
            "accept.again.before"
            | "accept.again.after"
            | "accept.find.before"
            | "accept.find.after" => {
                vec![trouble("create", "INSERT ON operations", NOT_COMMITTED)]
            }
            "cancel.save.stale" => {
                let write = "UPDATE OF status ON operations WHEN NEW.status = 'cancelled'";
                vec![trouble("cancel", write, LOST)]
            }
            "engine.claim.failed" => {
                let write = "UPDATE OF lease_owner ON operations \
                     WHEN NEW.updated_at = OLD.updated_at AND NEW.lease_owner IS NOT NULL";
                vec![trouble("claim", write, REFUSED)]
            }
            "engine.renew.failed" => {
                let write = "UPDATE OF lease_until ON operations WHEN NEW.version = OLD.version";
                vec![trouble("renewal", write, REFUSED)]
            }
            "engine.housekeeping.failed" => {
                vec![trouble("removal", "DELETE ON operations", REFUSED)]
            }
            "ends.failed" => {
                let write = "UPDATE OF owes_end ON operations";
                let what = What::AuditLog;
                vec![trouble("told", write, REFUSED), Self { name: "log", what }]
            }
            "round.late.before" | "round.late.saved" => {
                vec![trouble("slow intent", INTENT_TAKES_LONG, REFUSED)]
            }
            "round.retry.before" | "round.retry.after" => saves(REFUSED),
            "round.save.stale" => saves(LOST),
            _ => Vec::new(),
        }
    }

    pub(super) fn begin(self, place: &Place) {
        match self.what {
            What::Store(write, how) => begin_in_database(place, write, how),
            What::AuditLog => move_folder(place, "audit", "audit-aside"),
        }
    }

    /// Whether requests for changes are refused, so that only what was accepted before can end.
    pub(super) fn refuses_changes(self) -> bool {
        self.what == What::AuditLog
    }

    pub(super) fn end(self, place: &Place) {
        match self.what {
            What::Store(..) => {
                place.sql(if place.is_on_server() {
                    "DROP FUNCTION trouble CASCADE"
                } else {
                    "DROP TRIGGER trouble"
                });
                place.sql("DROP TABLE doubt");
            }
            What::AuditLog => move_folder(place, "audit-aside", "audit"),
        }
    }
}

fn begin_in_database(place: &Place, write: &str, [file, server]: [&str; 2]) {
    place.sql(DOUBT);
    place.sql(&if place.is_on_server() {
        let (write, condition) = write.split_once("WHEN").unwrap_or((write, "true"));
        format!(
            "CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN {server}; END $$; \
             CREATE TRIGGER trouble BEFORE {write} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION trouble()"
        )
    } else {
        format!("CREATE TRIGGER trouble BEFORE {write} BEGIN {file}; END")
    });
}

fn move_folder(place: &Place, from: &str, to: &str) {
    fs::rename(place.file(from), place.file(to)).expect("a folder");
}

/// Whether a place is on the way of what the engine does once in a minute.
pub(super) fn is_of_the_housekeeping(point: &str) -> bool {
    [
        "engine.keys.",
        "engine.removal.",
        "engine.again.",
        "engine.housekeeping.",
    ]
    .iter()
    .any(|prefix| point.starts_with(prefix))
}

/// Operations that ended long ago, more than are removed within a minute: as long as there are some
/// the house is kept every second. No gateway may run.
pub(super) fn make_history(place: &Place) {
    place.start().kill();
    let id = if place.is_on_server() {
        "lpad(CAST(n AS TEXT), 26, '0')"
    } else {
        "printf('%026d', n)"
    };
    let made = place.sql(&format!(
        "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 9000) \
         INSERT INTO operations (id, project, service, task, project_id, region, endpoint, kind, \
         inline_credentials, migrate_failed_objects, status, requested_by, created_at, updated_at, \
         deadline_at, finished_at, next_look_at, history, version) \
         SELECT {id}, 'default', 'oms', 'old', 'id', 'region', 'endpoint', 'pause', \
         0, 0, 'cancelled', 'tester', 1, 1, 1, 1, 1, '{{}}', 1 FROM numbers",
    ));
    assert_eq!(made, 9000);
}
