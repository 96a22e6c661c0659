use std::{
    error::Error as _,
    fs,
    future::Future,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;

use super::{Place, all_connections, fresh, lease, open};
use crate::{
    domain::store::{NewOperation, OperationStore as _, StoreError},
    store::{OpenError, Settings, SqlOperationStore},
};

fn assert_unavailable<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(error @ StoreError::Unavailable(_)) => error.source().unwrap().to_string(),
        other => panic!("{other:?}"),
    }
}

async fn refusal(path: &Path) -> OpenError {
    let settings = Settings::Sqlite {
        path: path.to_owned(),
    };
    SqlOperationStore::open(&settings)
        .await
        .expect_err("this does not open")
}

async fn impatient(place: &Place) -> SqlOperationStore {
    let settings = Settings::Sqlite { path: place.file() };
    SqlOperationStore::open_with(&settings, Duration::from_millis(100))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_missing_file_is_made_for_nobody_elses_eyes() {
    let place = Place::new();
    let store = place.open().await;
    store.add(fresh("1")).await;
    for suffix in ["", "-wal", "-shm"] {
        let mut file = place.file().into_os_string();
        file.push(suffix);
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn a_statement_that_takes_long_is_no_line_in_the_log() {
    let place = Place::new();
    let store = place.open().await;
    for pool in [&store.database.pools.reader, &store.database.pools.writer] {
        let settings = &pool.connect_options().log_settings;
        assert_eq!(settings.slow_statements_level.as_str(), "OFF");
    }
}

#[tokio::test]
async fn every_connection_is_durable_and_strict() {
    let place = Place::new();
    let store = place.open().await;
    for pool in [&store.database.pools.reader, &store.database.pools.writer] {
        for connection in &mut all_connections(pool).await {
            let mode = sqlx::query_scalar::<_, String>("PRAGMA journal_mode");
            assert_eq!(mode.fetch_one(&mut **connection).await.unwrap(), "wal");
            for (pragma, value) in [
                ("PRAGMA synchronous", 2),
                ("PRAGMA foreign_keys", 1),
                ("PRAGMA busy_timeout", 3000),
            ] {
                let found = sqlx::query_scalar::<_, i64>(pragma);
                let found = found.fetch_one(&mut **connection).await.unwrap();
                assert_eq!(found, value, "{pragma}");
            }
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_in_the_files_without_an_orderly_end() {
    let place = Place::new();
    let store = place.open().await;
    let operation = store.add(fresh("1")).await;

    let crashed = Place::new();
    for suffix in ["", "-wal"] {
        let (mut from, mut to) = (
            place.file().into_os_string(),
            crashed.file().into_os_string(),
        );
        from.push(suffix);
        to.push(suffix);
        fs::copy(from, to).unwrap();
    }
    let restarted = crashed.open().await;
    assert_eq!(restarted.read_back(operation.id).await, operation);
}

#[tokio::test]
async fn a_closed_store_refuses_and_opens_again_with_everything_in_it() {
    let place = Place::new();
    let store = place.open().await;
    let operation = store.add(fresh("1")).await;
    store.close().await.unwrap();
    assert_unavailable(store.find(operation.id).await);
    assert_unavailable(store.create(&NewOperation::new(fresh("2"))).await);

    let store = place.open().await;
    assert_eq!(store.read_back(operation.id).await, operation);
    assert_eq!(store.counts().await.unwrap().running, 1);
}

#[tokio::test]
async fn any_name_of_a_file_will_do() {
    let place = Place::new();
    let mut names = [
        "#1.db",
        "50%25.db",
        ":memory:",
        "a b.db",
        "größe.db",
        "what?.db",
    ];
    for name in names {
        let store = open(place.folder.path().join(name)).await;
        store.add(fresh("1")).await;
        store.close().await.unwrap();
    }
    let files = fs::read_dir(place.folder.path()).unwrap();
    let mut found: Vec<_> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    names.sort_unstable();
    assert_eq!(found, names);
}

#[tokio::test]
async fn processes_that_start_together_on_a_fresh_file_all_open_it() {
    for _ in 0..5 {
        let place = Place::new();
        let all = futures_util::future::join_all((0..4).map(|_| place.open())).await;
        all[0].add(fresh("1")).await;
        assert_eq!(all[3].counts().await.unwrap().running, 1);
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_named_with_the_reason() {
    let place = Place::new();
    let folder = place.folder.path();

    let missing = refusal(&folder.join("nowhere/gateway.db")).await;
    assert!(
        matches!(missing, OpenError::FolderMissing(_)),
        "{missing:?}"
    );
    assert!(
        missing
            .to_string()
            .contains("nowhere/gateway.db does not exist")
    );

    let is_folder = refusal(folder).await;
    assert!(
        matches!(is_folder, OpenError::NotWritable { .. }),
        "{is_folder:?}"
    );

    let below_a_file = folder.join("file");
    fs::write(&below_a_file, "").unwrap();
    let not_a_folder = refusal(&below_a_file.join("gateway.db")).await;
    assert!(
        matches!(not_a_folder, OpenError::NotWritable { .. }),
        "{not_a_folder:?}"
    );

    let garbage = folder.join("garbage.db");
    fs::write(&garbage, "This is a diary. ".repeat(1000)).unwrap();
    let refused = refusal(&garbage).await;
    assert!(matches!(refused, OpenError::NotADatabase(_)), "{refused:?}");
    assert!(refused.to_string().contains("garbage.db is not a database"));
}

#[tokio::test]
async fn a_file_or_folder_without_the_right_to_write_is_refused() {
    let place = Place::new();
    place.open().await.close().await.unwrap();
    let (file, folder) = (place.file(), place.folder.path().to_owned());
    let forbid = |path: &PathBuf, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    forbid(&file, 0o400);
    if fs::OpenOptions::new().append(true).open(&file).is_ok() {
        // Permissions do not bind this user (root).
        return;
    }
    let refused = refusal(&file).await;
    assert!(
        matches!(refused, OpenError::NotWritable { .. }),
        "{refused:?}"
    );

    forbid(&file, 0o600);
    forbid(&folder, 0o500);
    let refused = refusal(&file).await;
    let fresh = refusal(&folder.join("fresh.db")).await;
    forbid(&folder, 0o700);
    assert!(
        matches!(refused, OpenError::NotWritable { .. }),
        "{refused:?}"
    );
    assert!(matches!(fresh, OpenError::NotWritable { .. }), "{fresh:?}");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let place = Place::new();
    let store = place.open().await;
    let row = "INSERT INTO _sqlx_migrations \
               (version, description, success, checksum, execution_time) \
               VALUES (9000, 'later', TRUE, x'00', 0)";
    store.meddle(row.to_owned()).await;
    store.close().await.unwrap();

    let refused = refusal(&place.file()).await;
    assert!(
        matches!(refused, OpenError::NewerSchema { version: 9000, .. }),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_file_that_was_replaced_or_removed_is_not_written_to() {
    let place = Place::new();
    let store = place.open().await;
    let other = place.folder.path().join("other");
    fs::write(&other, "garbage").unwrap();
    fs::rename(&other, place.file()).unwrap();
    let reason = assert_unavailable(store.create(&NewOperation::new(fresh("1"))).await);
    assert!(reason.contains("replaced"), "{reason}");
    assert_unavailable(store.check().await);

    fs::remove_file(place.file()).unwrap();
    assert_unavailable(store.check().await);
    assert_unavailable(store.claim(&lease("a", 0), 1).await);
}

#[tokio::test]
async fn a_file_that_took_the_place_for_a_while_is_not_read_from_afterwards() {
    let place = Place::new();
    let store = impatient(&place).await;
    let operation = store.add(fresh("1")).await;
    let aside = place.folder.path().join("aside");
    fs::rename(place.file(), &aside).unwrap();
    fs::write(place.file(), "").unwrap();
    assert_unavailable(store.find(operation.id).await);

    fs::rename(&aside, place.file()).unwrap();
    assert_eq!(store.find(operation.id).await.unwrap(), Some(operation));
}

#[tokio::test]
async fn a_file_overwritten_with_garbage_is_unavailable() {
    let place = Place::new();
    let store = impatient(&place).await;
    let operation = store.add(fresh("1")).await;
    store
        .meddle("PRAGMA wal_checkpoint(TRUNCATE)".to_owned())
        .await;
    let length = usize::try_from(fs::metadata(place.file()).unwrap().len()).unwrap();
    fs::write(place.file(), vec![b'x'; length]).unwrap();
    assert_unavailable(store.find(operation.id).await);
}

#[tokio::test]
async fn a_database_that_turned_read_only_is_unavailable() {
    let place = Place::new();
    let store = place.open().await;
    let operation = store.add(fresh("1")).await;
    store.meddle("PRAGMA query_only = ON".to_owned()).await;
    assert_unavailable(store.check().await);
    assert_unavailable(store.create(&NewOperation::new(fresh("2"))).await);
    let mut changed = operation.clone();
    let saved = store.save(&mut changed, &[], crate::domain::store::Hold::Keep);
    assert_unavailable(saved.await);
    assert_eq!(changed, operation);

    store.meddle("PRAGMA query_only = OFF".to_owned()).await;
    assert_eq!(store.counts().await.unwrap().running, 1);
}

#[tokio::test]
async fn a_full_disk_is_unavailable_and_leaves_nothing_half_written() {
    let place = Place::new();
    let store = place.open().await;
    store.meddle("PRAGMA max_page_count = 1".to_owned()).await;
    let mut large = fresh("1");
    large.binding.endpoint = "x".repeat(100_000);
    let reason = assert_unavailable(store.create(&NewOperation::new(large.clone())).await);
    assert!(reason.contains("full"), "{reason}");
    assert_eq!(store.find(large.id).await.unwrap(), None);

    // The connection that failed is replaced by another, which has no such limit.
    store.add(large).await;
}

#[tokio::test]
async fn a_lock_that_another_process_keeps_is_waited_for_with_a_limit() {
    let place = Place::new();
    let store = impatient(&place).await;
    let other = place.open().await;
    let lock = other
        .database
        .pools
        .writer
        .begin_with("BEGIN IMMEDIATE")
        .await
        .unwrap();
    let begun = Instant::now();
    let reason = assert_unavailable(store.check().await);
    assert!(reason.contains("locked"), "{reason}");
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(
        store.find(fresh("1").id).await.unwrap(),
        None,
        "reads go on"
    );

    lock.rollback().await.unwrap();
    assert_eq!(store.counts().await.unwrap().running, 0);
}

#[tokio::test]
async fn a_busy_pool_is_waited_for_with_a_limit() {
    let place = Place::new();
    let store = impatient(&place).await;
    let taken = store.database.pools.writer.acquire().await.unwrap();
    assert_unavailable(store.check().await);
    drop(taken);
    assert_eq!(store.counts().await.unwrap().running, 0);
}

#[tokio::test]
async fn what_was_begun_is_ended_when_the_caller_goes_away() {
    let place = Place::new();
    let store = place.open().await;
    let operation = fresh("1");
    let unfinished = store
        .create(&NewOperation::new(operation.clone()))
        .now_or_never();
    assert!(unfinished.is_none(), "the caller went away in the middle");

    let give_up = Instant::now() + Duration::from_secs(5);
    while store.find(operation.id).await.unwrap().is_none() {
        assert!(Instant::now() < give_up, "the operation was not recorded");
    }
}

/// Wakes a thread that waits for a future without any runtime.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn it_works_on_a_thread_without_a_runtime() {
    let place = Place::new();
    block_on(async {
        let store = place.open().await;
        store.add(fresh("1")).await;
        assert_eq!(store.counts().await.unwrap().running, 1);
    });
}
