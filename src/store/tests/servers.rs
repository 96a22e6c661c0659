//! What is so on a server only.

use std::{
    error::Error as _,
    fmt::Write as _,
    future::pending,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use super::{
    Place, all_connections, event, fresh, server::Server, settings, task, unreadable::Lines,
};
use crate::{
    domain::{
        operation::{EventKind, Operation},
        secret::Secret,
        store::{Hold, OperationStore as _, StoreError},
    },
    store::{OpenError, PostgresSettings, Settings, SqlOperationStore},
};

async fn refusal(settings: &Settings) -> (OpenError, String) {
    let error = SqlOperationStore::open(settings)
        .await
        .expect_err("this does not open");
    let mut text = format!("{error} {error:?} {settings} {settings:?}");
    let mut source = error.source();
    while let Some(cause) = source {
        write!(text, "\n{cause}").unwrap();
        source = cause.source();
    }
    (error, text)
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_is_named_with_the_reason_and_without_the_password() {
    let place = Place::postgres();
    let database = place.database.as_ref().unwrap();
    place.open().await.close().await.unwrap();
    let opened = async |url: &str, password: &str| {
        let server = PostgresSettings::parse(url).unwrap();
        let server = server.with_password(Secret::new(password));
        refusal(&Settings::Postgres(server)).await
    };
    let good = database.password();
    let address = database.url();

    let (_, text) = opened("postgres://nobody@127.0.0.1:1/d", good).await;
    assert!(text.contains("d at 127.0.0.1:1 cannot be opened"), "{text}");
    assert!(text.contains("refused"), "{text}");
    assert!(!text.contains(good), "{text}");

    let role = format!("reader_{}", fastrand::u32(..));
    database.sql(&format!("CREATE ROLE {role} LOGIN PASSWORD 'canary'"));
    let (_, host) = address.split_once('@').unwrap();
    let (_, text) = opened(&format!("postgres://{role}@{host}"), "canary").await;
    assert!(text.contains("permission denied"), "{text}");
    assert!(!text.contains("canary"), "{text}");
    database.sql(&format!("DROP ROLE {role}"));

    database.configure("default_transaction_read_only", "on");
    let (error, text) = opened(&address, good).await;
    assert!(matches!(error, OpenError::ReadOnly { .. }), "{text}");
    database.configure("default_transaction_read_only", "off");

    database.sql(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9000, 'of tomorrow', true, '', 0)",
    );
    let (error, text) = opened(&address, good).await;
    assert!(
        matches!(error, OpenError::NewerSchema { version: 9000, .. }),
        "{text}"
    );
    assert!(text.contains("a newer version"), "{text}");
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_not_shown() {
    let server = Server::start(None);
    let database = server.database();
    let good = PostgresSettings::parse(&database.url()).unwrap();
    for password in [Some("canary"), None] {
        let server = match password {
            Some(password) => good.clone().with_password(Secret::new(password)),
            None => good.clone(),
        };
        let (_, text) = refusal(&Settings::Postgres(server)).await;
        assert!(text.contains("password"), "{text}");
        assert!(!text.contains("canary"), "{text}");
    }
}

#[tokio::test]
async fn every_connection_is_durable_and_bounded_whatever_the_defaults() {
    let place = Place::postgres();
    let database = place.database.as_ref().unwrap();
    database.configure("synchronous_commit", "off");
    database.configure("default_transaction_isolation", "serializable");
    let store = place.open().await;
    for pool in [&store.database.pools.reader, &store.database.pools.writer] {
        for connection in &mut all_connections(pool).await {
            for (setting, value) in [
                ("synchronous_commit", "on"),
                ("statement_timeout", "3s"),
                ("idle_in_transaction_session_timeout", "3s"),
            ] {
                let found = sqlx::query_scalar::<_, String>("SELECT current_setting($1)");
                let found = found
                    .bind(setting)
                    .fetch_one(&mut **connection)
                    .await
                    .unwrap();
                assert_eq!(found, value, "{setting}");
            }
        }
    }
    let isolation = store.database.write(
        async |mut transaction: crate::store::database::AnyTransaction| {
            let isolation =
                sqlx::query_scalar::<_, String>("SELECT current_setting('transaction_isolation')");
            let isolation = isolation.fetch_one(&mut *transaction).await?;
            Ok(crate::store::database::Written::Nothing(isolation))
        },
    );
    assert_eq!(isolation.await.unwrap(), "read committed");
}

#[tokio::test]
async fn a_statement_that_takes_long_is_no_line_in_the_log() {
    let place = Place::postgres();
    let store = place.open().await;
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    tracing::warn!("a line");
    for pool in [&store.database.pools.reader, &store.database.pools.writer] {
        let slept = sqlx::query("SELECT 1 FROM pg_sleep(1.1)")
            .execute(pool)
            .await;
        slept.unwrap();
    }
    drop(guard);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[tokio::test]
async fn a_server_that_went_away_is_unavailable_and_found_again() {
    let server = Server::start(None);
    let database = server.database();
    let store = SqlOperationStore::open(&settings(&database)).await.unwrap();
    let operation = store.add(fresh("1")).await;
    server.stop();
    let begun = Instant::now();
    let written = store.check().await;
    assert!(
        matches!(written, Err(StoreError::Unavailable(_))),
        "{written:?}"
    );
    let read = store.find(operation.id).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    assert!(begun.elapsed() < Duration::from_secs(20));

    server.start_again();
    let give_up = Instant::now() + Duration::from_secs(30);
    while store.check().await.is_err() {
        assert!(Instant::now() < give_up, "the server is not found again");
    }
    assert_eq!(store.find(operation.id).await.unwrap(), Some(operation));
}

/// A relay in front of a server, and a way to make it forget its connections: they stay open, and
/// nothing comes through any more, as if the server behind them had vanished without a word. It
/// ends with the set.
async fn relay(server: String, tasks: &mut JoinSet<()>) -> (String, watch::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (forget, forgotten) = watch::channel(());
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut near, _)) = listener.accept().await {
            let (server, mut forgotten) = (server.clone(), forgotten.clone());
            forgotten.mark_unchanged();
            connections.spawn(async move {
                let mut far = TcpStream::connect(server).await.unwrap();
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => {}
                    Ok(()) = forgotten.changed() => pending().await,
                }
            });
        }
    });
    (address, forget)
}

#[tokio::test]
async fn connections_to_a_server_that_vanished_are_given_up() {
    let place = Place::postgres();
    let database = place.database.as_ref().unwrap();
    let url = database.url();
    let (head, rest) = url.split_once('@').unwrap();
    let (server, name) = rest.split_once('/').unwrap();
    let mut tasks = JoinSet::new();
    let (relay, forget) = relay(server.to_owned(), &mut tasks).await;
    let server = PostgresSettings::parse(&format!("{head}@{relay}/{name}")).unwrap();
    let server = server.with_password(Secret::new(database.password()));
    let patience = Duration::from_millis(300);
    let store = SqlOperationStore::open_with(&Settings::Postgres(server), patience)
        .await
        .unwrap();
    let operation = store.add(fresh("1")).await;
    // Every connection of both pools is in use when it happens.
    let pools = &store.database.pools;
    let in_use = [
        all_connections(&pools.reader).await,
        all_connections(&pools.writer).await,
    ];
    forget.send(()).unwrap();
    let seven = task("7");
    let asked = (0..500).map(|_| store.running(&seven));
    let begun = Instant::now();
    let answers = join_all(asked).await;
    assert!(answers.iter().all(Result::is_err));
    // One failed statement is the answer to all who wait for it.
    assert!(begun.elapsed() < patience * 8, "{:?}", begun.elapsed());
    drop(in_use);
    let give_up = Instant::now() + Duration::from_secs(20);
    while store.find(operation.id).await.is_err() || store.check().await.is_err() {
        assert!(
            Instant::now() < give_up,
            "dead connections keep their places"
        );
    }
}

#[tokio::test]
async fn a_zero_byte_in_a_text_hinders_nothing() {
    let place = Place::postgres();
    let store = place.open().await;
    let mut operation: Operation = store.add(fresh("1")).await;
    let strange = event(1, EventKind::Fault("before\0after".to_owned()));
    store
        .save(&mut operation, &[strange], Hold::Keep)
        .await
        .unwrap();
    let read = store.read_back(operation.id).await;
    let kind = &read.events.last().unwrap().kind;
    assert_eq!(*kind, EventKind::Fault("before\u{fffd}after".to_owned()));
}
