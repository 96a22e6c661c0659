//! Hears of ends of operations in other processes: whoever records one notifies all who listen.
//!
//! What is told while nobody listens, or no connection stands, is lost: whoever waits for an end
//! looks at times too.

use std::time::Duration;

use sqlx::{AnyConnection, postgres::PgListener};
use tokio::{
    sync::{Mutex, mpsc},
    time::{sleep, timeout},
};

use super::PostgresSettings;
use crate::domain::operation::OperationId;

const CHANNEL: &str = "operation_ended";
/// Ends that wait to be asked for; more are lost.
const MAX_WAITING: usize = 1000;
/// How long to leave a server alone that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// After so much silence the connection is made afresh: it may be a dead one.
const SILENCE_MAX: Duration = Duration::from_mins(1);
/// How long a connection is waited for.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Tells everybody who listens of an end, as soon as this transaction is committed.
pub(in crate::store) async fn tell_end(
    connection: &mut AnyConnection,
    id: OperationId,
) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_notify($1, $2)")
        .bind(CHANNEL)
        .bind(id.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

/// The ends that were heard of.
pub(in crate::store) struct Ends(Option<Mutex<mpsc::Receiver<OperationId>>>);

impl Ends {
    /// Those of an engine that does not tell.
    pub(in crate::store) fn unheard() -> Self {
        Self(None)
    }

    /// Those of a server. Somebody has to attend to the hearing; it ends with this value.
    pub(in crate::store) fn of(
        server: &PostgresSettings,
    ) -> (Self, impl Future<Output = ()> + use<>) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        (Self(Some(Mutex::new(receiver))), hear(server.url(), sender))
    }

    /// The next one, which may never come.
    pub(in crate::store) async fn next(&self) -> OperationId {
        if let Some(receiver) = &self.0
            && let Some(id) = receiver.lock().await.recv().await
        {
            return id;
        }
        std::future::pending().await
    }
}

async fn hear(url: String, ends: mpsc::Sender<OperationId>) {
    let mut was_reported = false;
    while !ends.is_closed() {
        let Err(error) = listen(&url, &ends, &mut was_reported).await else {
            continue;
        };
        if !was_reported {
            tracing::warn!(
                error = %error,
                "ends of operations in other processes are heard of late; trying again"
            );
            was_reported = true;
        }
        sleep(PAUSE).await;
    }
}

/// Passes ends on until there is silence, or nobody to pass them to.
async fn listen(
    url: &str,
    ends: &mpsc::Sender<OperationId>,
    was_reported: &mut bool,
) -> Result<(), sqlx::Error> {
    let connect = async {
        let mut listener = PgListener::connect(url).await?;
        listener.listen(CHANNEL).await?;
        Ok::<_, sqlx::Error>(listener)
    };
    let late = |_| sqlx::Error::PoolTimedOut;
    let mut listener = timeout(CONNECT_MAX, connect).await.map_err(late)??;
    *was_reported = false;
    loop {
        let told = tokio::select! {
            told = timeout(SILENCE_MAX, listener.recv()) => told,
            () = ends.closed() => return Ok(()),
        };
        let Ok(told) = told else { return Ok(()) };
        // Anybody who may connect can notify of anything.
        if let Some(id) = OperationId::parse(told?.payload()) {
            // If there is no room, those who wait look by themselves.
            let _ = ends.try_send(id);
        }
    }
}
