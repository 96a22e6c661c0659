//! Any number of operations that cannot be read cost the others nothing, and are left as they are.

use sqlx::{AssertSqlSafe, Row as _};

use super::{Place, Reader, SqlOperationStore, Version, fresh, lease, moment, unreadable::Lines};
use crate::{
    domain::{
        operation::{Operation, OperationId, Status},
        store::{Counts, Hold, NewOperation, OperationQuery, OperationStore as _},
    },
    store::{
        claim::first_due, engine::Engine, read::select_operations, rows::Reports,
        unreadable::MARKED_MAX,
    },
};

on_both_engines! {
    claims_pass_any_number_of_operations_that_cannot_be_read,
    what_cannot_be_read_is_left_as_it_is,
    what_the_runbook_ends_is_removed_whatever_is_wrong_with_it,
    many_that_cannot_be_read_are_reported_by_their_number,
    what_is_gone_makes_room_for_the_names_of_others,
    a_newer_version_takes_up_at_once_what_an_older_one_could_not_read,
    what_is_mended_is_found_among_many,
    ends_are_told_behind_any_number_that_cannot_be_read,
}

impl SqlOperationStore {
    /// Makes copies of an operation that is to be read by nobody; other tasks, the same look.
    pub(super) async fn copy_as_unreadable(&self, operation: &Operation, copies: usize) {
        let rows = sqlx::raw_sql("SELECT * FROM operations LIMIT 1")
            .fetch_one(&self.database.pools.writer)
            .await
            .unwrap();
        let columns: Vec<_> = rows.columns().iter().map(sqlx::Column::name).collect();
        let values = columns.iter().map(|column| match *column {
            "id" => "'op_' || substr(CAST(100000000000 + n AS TEXT), 2) || substr(id, 15)",
            "task" => "'copy' || CAST(n AS TEXT)",
            "phase" => "'pondering'",
            other => other,
        });
        let values = values.collect::<Vec<_>>().join(", ");
        let columns = columns.join(", ");
        self.meddle(format!(
            "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {copies}) \
             INSERT INTO operations ({columns}) SELECT {values} FROM operations, numbers WHERE id = '{}'",
            operation.id
        ))
        .await;
    }

    pub(super) async fn numbers(&self, sql: &str) -> i64 {
        let found = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&self.database.pools.reader)
            .await;
        found.unwrap()
    }

    async fn marked(&self) -> i64 {
        self.numbers("SELECT COUNT(*) FROM operations WHERE unreadable_by IS NOT NULL")
            .await
    }

    /// Claims as an engine does that is told to come at once, until it is not.
    async fn claim_until_later(&self) -> (Vec<OperationId>, usize) {
        let (mut claimed, mut claims) = (Vec::new(), 0);
        loop {
            claims += 1;
            let claim = self.claim(&lease("me", 10), 1).await.unwrap();
            claimed.extend(claim.operations.iter().map(|one| one.operation.id));
            if claim.next_due_at.is_none_or(|due| due > moment(10)) {
                return (claimed, claims);
            }
        }
    }
}

/// An operation that is due after all others.
async fn last(store: &SqlOperationStore) -> Operation {
    let last = Operation {
        next_look_at: moment(1),
        ..fresh("last")
    };
    store.add(last).await
}

async fn claims_pass_any_number_of_operations_that_cannot_be_read(place: Place) {
    let store = place.open().await;
    let first = store.add(fresh("first")).await;
    store.copy_as_unreadable(&first, 5000).await;
    let last = last(&store).await;
    let (claimed, claims) = store.claim_until_later().await;
    assert_eq!(claimed, [first.id, last.id]);
    let counts = Counts {
        running: 5002,
        unreadable: 5000,
    };
    assert_eq!(store.counts().await.unwrap(), counts);
    assert!(claims <= 5000 / MARKED_MAX + 2, "{claims}");
    assert_eq!(store.marked().await, 5000);
    // They are not come across again, neither by this process nor by the next one.
    for store in [&store, &place.open().await] {
        let next = store.add(fresh("next")).await;
        let claim = store.claim(&lease("me", 10), 1).await.unwrap();
        assert_eq!(claim.operations[0].operation.id, next.id);
        assert_eq!(claim.next_due_at, None);
        let mut end = claim.operations[0].operation.clone();
        end.status = Status::Succeeded;
        end.finished_at = Some(moment(10));
        store.save(&mut end, &[], Hold::Release).await.unwrap();
    }
    assert_eq!(store.marked().await, 5000);
}

#[tokio::test]
async fn due_operations_are_found_by_their_index() {
    let place = Place::new();
    let store = place.open().await;
    let select = select_operations(Engine::Sqlite, &first_due()).0;
    let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {select}")))
        .fetch_all(&store.database.pools.reader)
        .await
        .unwrap();
    let plan: Vec<String> = plan.iter().map(|step| step.get("detail")).collect();
    let expected = "SEARCH operations USING INDEX operations_due (status=? AND next_look_at<?)";
    assert_eq!(plan, [expected]);
}

async fn what_the_runbook_ends_is_removed_whatever_is_wrong_with_it(place: Place) {
    let runbook = include_str!("../../../docs/runbook.md");
    let (_, statement) = runbook.split_once("    UPDATE operations").unwrap();
    let (statement, _) = statement.split_once(';').unwrap();
    let store = place.open().await;
    for (number, damage) in [
        "status = 'thinking'",
        "kind = 'rename'",
        "history = 'none'",
        "next_look_at = 9223372036854775807",
        "version = 9223372036854775807",
        "lease_owner = 'x', lease_until = 9223372036854775807",
    ]
    .into_iter()
    .enumerate()
    {
        let odd = store.add(fresh(&number.to_string())).await.id;
        store
            .meddle(format!("UPDATE operations SET {damage} WHERE id = '{odd}'"))
            .await;
        store.claim_until_later().await;
        let end = statement.replace("$ID", &odd.to_string());
        store.meddle(format!("UPDATE operations{end}")).await;
        let removed = store.remove_ended(moment(0), 10).await.unwrap();
        assert_eq!(removed, 1, "{damage}");
        assert_eq!(store.find(odd).await.unwrap(), None, "{damage}");
        store.add(fresh(&number.to_string())).await;
    }
}

async fn what_cannot_be_read_is_left_as_it_is(place: Place) {
    let store = place.open().await;
    let first = store.add(fresh("first")).await;
    store.copy_as_unreadable(&first, 1).await;
    let mark = "SELECT COUNT(*) FROM operations AS one JOIN kept ON kept.id = one.id WHERE";
    store
        .meddle(
            "CREATE TABLE kept AS SELECT * FROM operations WHERE phase = 'pondering'".to_owned(),
        )
        .await;
    store.claim_until_later().await;
    store.look_again().await.unwrap();
    let any = sqlx::raw_sql("SELECT * FROM kept")
        .fetch_one(&store.database.pools.reader)
        .await
        .unwrap();
    for column in any.columns() {
        let column = sqlx::Column::name(column);
        let same = format!("{mark} one.{column} IS NOT DISTINCT FROM kept.{column}");
        let expected = i64::from(column != "unreadable_by");
        assert_eq!(store.numbers(&same).await, expected, "{column}");
    }
}

async fn many_that_cannot_be_read_are_reported_by_their_number(place: Place) {
    let store = place.open().await;
    let first = store.add(fresh("first")).await;
    store.copy_as_unreadable(&first, 1234).await;
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::ERROR)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let query = OperationQuery {
        limit: 2000,
        ..OperationQuery::default()
    };
    for _ in 0..3 {
        assert_eq!(store.list(&query).await.unwrap().operations.len(), 1);
    }
    assert_eq!(store.reader.reports.named().len(), Reports::NAMED_MAX);
    for count in [100, 1234, 1234, 1235, 3, 3, 1235] {
        store.reader.reports.all(count, std::iter::empty());
    }
    drop(guard);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.matches("column").count(), Reports::NAMED_MAX);
    assert_eq!(text.matches("many operations").count(), 3);
    assert_eq!(text.matches("operations=1235").count(), 2);
}

async fn what_is_gone_makes_room_for_the_names_of_others(place: Place) {
    let store = place.open().await;
    let first = store.add(fresh("first")).await;
    store
        .copy_as_unreadable(&first, Reports::NAMED_MAX - 1)
        .await;
    let last = last(&store).await;
    store
        .meddle(format!(
            "UPDATE operations SET phase = 'x' WHERE id = '{}'",
            last.id
        ))
        .await;
    store.claim_until_later().await;
    assert_eq!(store.reader.reports.named().len(), Reports::NAMED_MAX);
    store
        .meddle("DELETE FROM operations WHERE phase = 'pondering'".to_owned())
        .await;
    assert!(!store.look_again().await.unwrap());
    assert_eq!(store.reader.reports.named(), [last.id.to_string()]);
}

async fn a_newer_version_takes_up_at_once_what_an_older_one_could_not_read(place: Place) {
    let (old, mut newer) = (place.open().await, place.open().await);
    newer.reader = Reader {
        version: Version(old.reader.version.0 + 1),
        ..Reader::default()
    };
    let first = old.add(fresh("first")).await;
    old.copy_as_unreadable(&first, 1500).await;
    assert_eq!(old.claim_until_later().await.0, [first.id]);
    assert_eq!(old.marked().await, 1500);
    // As if it knew the word.
    let knows = "UPDATE operations SET phase = 'observing' WHERE phase = 'pondering'";
    old.meddle(format!("{knows} AND task <> 'copy7'")).await;
    assert_eq!(old.claim_until_later().await.0, []);
    let (claimed, _) = newer.claim_until_later().await;
    assert_eq!(claimed.len(), 1499);
    assert_eq!(newer.marked().await, 1);
    // What the newer one cannot read either is no matter of the older one.
    assert_eq!(old.claim_until_later().await.0, []);
    let mark = "SELECT unreadable_by FROM operations WHERE task = 'copy7'";
    assert_eq!(newer.numbers(mark).await, newer.reader.version.0);
}

async fn what_is_mended_is_found_among_many(place: Place) {
    let store = place.open().await;
    let first = store.add(fresh("first")).await;
    store.copy_as_unreadable(&first, 1700).await;
    store.claim_until_later().await;
    store
        .meddle(
            "UPDATE operations SET phase = 'observing' WHERE task IN ('copy3', 'copy1600')"
                .to_owned(),
        )
        .await;
    // By a process that was started meanwhile, too.
    let store = place.open().await;
    let looks = async || {
        let mut looks = 1;
        while store.look_again().await.unwrap() {
            looks += 1;
        }
        looks
    };
    assert_eq!(looks().await, 4);
    assert_eq!(store.marked().await, 1698);
    assert_eq!(store.claim_until_later().await.0.len(), 2);
    // All at once.
    store
        .meddle("UPDATE operations SET phase = 'observing' WHERE phase = 'pondering'".to_owned())
        .await;
    assert_eq!(looks().await, 4);
    assert_eq!(store.marked().await, 0);
}

async fn ends_are_told_behind_any_number_that_cannot_be_read(place: Place) {
    let store = place.open().await;
    let mut ends = Vec::new();
    for (id, at) in [("first", 5), ("last", 6)] {
        let owing = NewOperation {
            owes_end: true,
            ..NewOperation::new(fresh(id))
        };
        store.create(&owing).await.unwrap();
        let mut end = Operation {
            status: Status::Succeeded,
            phase: None,
            finished_at: Some(moment(at)),
            ..owing.operation
        };
        store.save(&mut end, &[], Hold::Release).await.unwrap();
        ends.push(end);
    }
    store.copy_as_unreadable(&ends[0], 2500).await;
    let owed = |owed: Vec<Operation>| owed.into_iter().map(|one| one.id).collect::<Vec<_>>();
    assert_eq!(owed(store.owed_ends(1).await.unwrap()), [ends[0].id]);
    store.ends_told(&[ends[0].id]).await.unwrap();
    assert_eq!(owed(store.owed_ends(1).await.unwrap()), [ends[1].id]);
    assert_eq!(store.marked().await, 2500);
    assert_eq!(owed(store.owed_ends(9).await.unwrap()), [ends[1].id]);
}
