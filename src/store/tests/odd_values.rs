//! Whatever stands in one row concerns that row only.

use std::fs;

use sqlx::{AssertSqlSafe, Row as _, raw_sql};

use super::{Place, Reader, SqlOperationStore, begun, caller, fresh, lease, moment, task};
use crate::domain::{
    operation::{Operation, OperationId, Status},
    store::{
        Creation, Hold, IdempotencyKey, Joining, NewOperation, OperationQuery, OperationStore as _,
        StoreError,
    },
};

on_both_engines! {
    no_value_of_any_column_stands_in_the_way_of_another_operation,
    nor_does_one_in_what_belongs_to_an_operation,
    many_rows_with_odd_moments_stand_in_nobodys_way,
    a_key_whose_operation_is_gone_is_as_if_it_never_were,
}

/// In SQL. Each engine takes those that it can store in a column.
const ODD: [&str; 13] = [
    "-9223372036854775808",
    "9223372036854775807",
    "-1",
    "0",
    "''",
    "'garbage'",
    "NULL",
    "1.5",
    "1767600000000000.5",
    "9e18",
    "X'00ff'",
    "CAST(X'ff41' AS TEXT)",
    "CAST(X'6100ff' AS TEXT)",
];

/// The tables whose rows belong to an operation.
const CHILDREN: [&str; 3] = ["operation_callers", "operation_events", "idempotency_keys"];

impl SqlOperationStore {
    async fn columns(&self, table: &str) -> Vec<String> {
        let sql = format!("SELECT * FROM {table} LIMIT 1");
        let any = raw_sql(AssertSqlSafe(sql))
            .fetch_one(&self.database.pools.writer)
            .await
            .expect("there is a row");
        let names = any.columns().iter();
        names
            .map(|one| sqlx::Column::name(one).to_owned())
            .collect()
    }

    /// Whether the engine takes such a value.
    async fn set(&self, id: OperationId, values: &str) -> bool {
        self.set_in(("operations", "id"), id, values).await
    }

    async fn set_in(&self, (table, key): (&str, &str), id: OperationId, values: &str) -> bool {
        let sql = format!("UPDATE {table} SET {values} WHERE {key} = '{id}'");
        let set = raw_sql(AssertSqlSafe(sql))
            .execute(&self.database.pools.writer)
            .await;
        set.is_ok()
    }

    /// Everything that is asked of the record about more than one operation.
    async fn ask_about_all(&self, ids: &[OperationId]) -> Result<(), StoreError> {
        let query = OperationQuery {
            limit: 10,
            ..OperationQuery::default()
        };
        self.list(&query).await?;
        assert_eq!(
            self.running(&task("plain")).await?.expect("it runs").id,
            ids[0]
        );
        assert!(self.progress(ids).await?.contains_key(&ids[0]));
        self.owed_ends(10).await?;
        self.count_running_of(&caller("team-a")).await?;
        self.count_running(&task("plain").project, &task("plain").service)
            .await?;
        self.remove_ended(moment(-1_000_000), 10).await?;
        self.look_again().await?;
        self.counts().await?;
        self.check().await?;
        Ok(())
    }

    /// What is wrong if the odd operation is in the way of the plain one, or is left alone without
    /// a word.
    async fn go_on(&self, odd: &Operation, mut plain: Operation) -> Result<(), String> {
        let said = |error: StoreError| error.with_causes();
        // The first who claims may have to leave a plain one to the second.
        let mut claimed = Vec::new();
        for seconds in [10, 11, 12] {
            let claim = self.claim(&lease("me", seconds), 1).await.map_err(said)?;
            claimed.extend(claim.operations.into_iter().map(|one| one.operation));
        }
        self.ask_about_all(&[plain.id, odd.id])
            .await
            .map_err(said)?;
        let Some(held) = claimed.iter().find(|one| one.id == plain.id) else {
            return Err("the plain operation is not claimed".to_owned());
        };
        plain = Operation {
            status: Status::Succeeded,
            phase: None,
            finished_at: Some(moment(13)),
            ..held.clone()
        };
        self.save(&mut plain, &[], Hold::Release)
            .await
            .map_err(said)?;
        let is_claimed = claimed.iter().any(|one| one.id == odd.id);
        let reported = self.reader.reports.named();
        match self.find(odd.id).await {
            Ok(None) if reported.is_empty() && !is_claimed => Err("it has no name".to_owned()),
            Err(_) if is_claimed => Err("it is driven".to_owned()),
            Err(_) if !reported.contains(&odd.id.to_string()) => Err("not a word".to_owned()),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

async fn no_value_of_any_column_stands_in_the_way_of_another_operation(place: Place) {
    let mut store = place.open().await;
    store.add(fresh("any")).await;
    let (mut wrong, mut tried) = (Vec::new(), 0);
    for column in store.columns("operations").await {
        for value in ODD {
            store.meddle("DELETE FROM operations".to_owned()).await;
            store.reader = Reader::default();
            let odd = store.add(fresh("odd")).await;
            let owner = if column == "lease_until" {
                "lease_owner = 'x', "
            } else {
                ""
            };
            if !store
                .set(odd.id, &format!("{owner}{column} = {value}"))
                .await
            {
                continue;
            }
            let plain = Operation {
                next_look_at: moment(1),
                ..fresh("plain")
            };
            let plain = store.add(plain).await;
            tried += 1;
            if let Err(why) = store.go_on(&odd, plain).await {
                wrong.push(format!("{column} = {value}: {why}"));
            }
        }
    }
    assert!(tried > 100, "{tried}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

async fn nor_does_one_in_what_belongs_to_an_operation(place: Place) {
    let mut store = place.open().await;
    let (mut wrong, mut tried) = (Vec::new(), 0);
    for table in CHILDREN {
        store.create(&with_key("any")).await.unwrap();
        for column in store.columns(table).await {
            for value in ODD {
                store.meddle("DELETE FROM operations".to_owned()).await;
                store.reader = Reader::default();
                let odd = with_key("odd");
                store.create(&odd).await.unwrap();
                let values = format!("{column} = {value}");
                let key = (table, "operation_id");
                if !store.set_in(key, odd.operation.id, &values).await {
                    continue;
                }
                tried += 1;
                let plain = store.add(fresh("plain")).await;
                if let Err(why) = store.go_on(&odd.operation, plain).await {
                    wrong.push(format!("{table}.{column} = {value}: {why}"));
                }
                let recalled = store.recall(&caller("team-a"), "key").await;
                if matches!(recalled, Err(StoreError::Unavailable(_))) {
                    wrong.push(format!("{table}.{column} = {value}: {recalled:?}"));
                }
            }
        }
    }
    assert!(tried > 30, "{tried}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A fresh operation that a key stands for.
fn with_key(id: &str) -> NewOperation {
    NewOperation {
        key: Some(IdempotencyKey {
            key: "key".to_owned(),
            fingerprint: "what was asked for".to_owned(),
        }),
        ..NewOperation::new(fresh(id))
    }
}

async fn many_rows_with_odd_moments_stand_in_nobodys_way(place: Place) {
    let store = place.open().await;
    for (number, values) in [
        "next_look_at = 9223372036854775807",
        "next_look_at = 253402300800000000",
        "next_look_at = -9223372036854775808",
        "next_look_at = -9223372036854775807",
        "next_look_at = 1.5",
        "version = 9223372036854775807",
        "version = 9223372036854775806",
        "lease_owner = 'x', lease_until = 9223372036854775807",
    ]
    .into_iter()
    .enumerate()
    {
        if place.database.is_some() && values.contains("1.5") {
            // A server makes it a whole number.
            continue;
        }
        let odd = store.add(fresh(&number.to_string())).await;
        assert!(store.set(odd.id, values).await, "{values}");
    }
    let next = store
        .add(Operation {
            next_look_at: moment(20),
            ..fresh("next")
        })
        .await;
    let plain = store
        .add(Operation {
            next_look_at: moment(1),
            ..fresh("plain")
        })
        .await;
    let claim = store.claim(&lease("me", 10), 1).await.unwrap();
    let claimed: Vec<_> = claim
        .operations
        .iter()
        .map(|one| one.operation.id)
        .collect();
    assert_eq!(claimed, [plain.id]);
    assert_eq!(claim.next_due_at, Some(next.next_look_at));
}

async fn a_key_whose_operation_is_gone_is_as_if_it_never_were(place: Place) {
    let store = place.open().await;
    let caller = caller("team-a");
    let unbind = match place.database {
        None => "PRAGMA foreign_keys = OFF",
        Some(_) => {
            "ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_operation_id_fkey"
        }
    };
    store.meddle(unbind.to_owned()).await;
    let loose = async |task: &str| {
        let gone = with_key(task);
        let creation = store.create(&gone).await.unwrap();
        assert!(matches!(creation, Creation::Created), "{creation:?}");
        let id = gone.operation.id;
        store
            .meddle(format!("DELETE FROM operations WHERE id = '{id}'"))
            .await;
        assert_eq!(store.recall(&caller, "key").await.unwrap(), None);
    };
    // A request that begins something,
    loose("1").await;
    let key = IdempotencyKey {
        key: "key".to_owned(),
        fingerprint: "something else".to_owned(),
    };
    let again = NewOperation {
        key: Some(key.clone()),
        ..NewOperation::new(fresh("2"))
    };
    let creation = store.create(&again).await.unwrap();
    assert!(matches!(creation, Creation::Created), "{creation:?}");
    let recalled = store.recall(&caller, "key").await.unwrap();
    let (operation, fingerprint) = recalled.expect("it stands for something");
    assert_eq!(
        (operation.id, &fingerprint),
        (again.operation.id, &key.fingerprint)
    );
    // and one that joins something.
    store
        .meddle("DELETE FROM idempotency_keys".to_owned())
        .await;
    loose("3").await;
    let joining = store
        .join(again.operation.id, &caller, Some(&key), moment(1))
        .await;
    assert_eq!(joining.unwrap(), Joining::Joined);
    let recalled = store.recall(&caller, "key").await.unwrap();
    assert_eq!(recalled.expect("it stands for it").0.id, again.operation.id);
}

#[tokio::test]
async fn a_row_that_belongs_to_no_operation_stands_in_nobodys_way() {
    let place = Place::new();
    let store = place.open().await;
    let mut ids = Vec::new();
    for number in 0..3 {
        let operation = store.add(begun(&number.to_string(), number)).await;
        let joined = store
            .join(operation.id, &caller("team-b"), None, moment(3))
            .await;
        assert_eq!(joined.unwrap(), Joining::Joined);
        ids.push(operation.id);
    }
    store.close().await.unwrap();
    // The second event of the first operation: the length of the head, what its columns are, and
    // the first column. With two other bytes that is no text, and stands before those of all
    // operations, so that a search for the first one comes past it.
    let mut bytes = fs::read(place.file()).unwrap();
    let row = [&[6, 0x47, 1, 6, 25, 0][..], ids[0].to_string().as_bytes()].concat();
    let at = bytes.windows(row.len()).position(|part| part == row);
    let id = at.expect("the row") + 6;
    bytes[id..id + 2].copy_from_slice(&[b'/', 0xff]);
    fs::write(place.file(), bytes).unwrap();

    let store = place.open().await;
    let damaged = store.read_back(ids[0]).await;
    assert_eq!(damaged.events.len(), 1, "the index does not lead to it");
    let query = OperationQuery {
        limit: 10,
        ..OperationQuery::default()
    };
    assert_eq!(store.list(&query).await.unwrap().operations.len(), 3);
    let claim = store.claim(&lease("me", 10), 10).await.unwrap();
    let claimed: Vec<_> = claim
        .operations
        .iter()
        .map(|one| one.operation.id)
        .collect();
    assert_eq!(claimed, ids);
}
