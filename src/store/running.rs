//! Which operation runs on a task, for many who ask at the same time.
//!
//! Every look of a caller asks this, and a statement costs far more in turns from thread to thread
//! than in the database. So whoever asks while a statement is under way is answered by the next
//! one, together with all others. An answer is never older than its question.

use std::{collections::HashMap, fmt::Write as _, sync::Arc, time::Duration};

use sqlx::{
    AnyConnection, Arguments as _, AssertSqlSafe,
    any::{AnyArguments, AnyRow},
};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::timeout,
};

use super::{
    database::{Pools, unavailable},
    engine::Engine,
    rows::{self, Columns, Reports, Unreadable},
};
use crate::domain::{
    operation::OperationId,
    service::{CallerName, ProjectName, ServiceName},
    store::{Running, StoreError},
    task::{TaskId, TaskRef},
};

/// The most questions that wait for a statement.
const MAX_WAITING: usize = 10_000;
/// The most questions that one statement answers. Each number of tasks is a statement of its own to
/// the database.
const TOGETHER: usize = 50;

type Answer = Result<Option<Running>, StoreError>;

/// Where questions are handed in. Whoever answers them ends with it.
pub(super) struct Desk(mpsc::Sender<Question>);

/// What [`answer`] works on.
pub(super) type Questions = mpsc::Receiver<Question>;

/// A task, and who wants to know what runs on it.
pub(super) struct Question {
    task: TaskRef,
    reply: oneshot::Sender<Answer>,
}

impl Desk {
    pub(super) fn open() -> (Self, Questions) {
        let (sender, questions) = mpsc::channel(MAX_WAITING);
        (Self(sender), questions)
    }

    /// What runs on a task at a moment after this call.
    pub(super) async fn ask(&self, task: &TaskRef) -> Answer {
        let (reply, answer) = oneshot::channel();
        let question = Question {
            task: task.clone(),
            reply,
        };
        self.0.try_send(question).map_err(|error| match error {
            TrySendError::Full(_) => unavailable("too many ask what runs on a task"),
            TrySendError::Closed(_) => nobody_answers(),
        })?;
        answer.await.unwrap_or_else(|_| Err(nobody_answers()))
    }

    /// Whether there is somebody who answers.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.0.is_closed() {
            return Err(nobody_answers());
        }
        Ok(())
    }
}

fn nobody_answers() -> StoreError {
    unavailable("nobody answers what runs on a task")
}

/// Answers questions until nobody can ask any more, each within about twice `limit`: whoever has
/// waited while the database failed is told of that failure, so that a long queue does not wait for
/// as many failures as it has parts.
pub(super) async fn answer(
    pools: Pools,
    mut questions: Questions,
    reports: Arc<Reports>,
    limit: Duration,
) {
    let mut together = Vec::with_capacity(TOGETHER);
    while questions.recv_many(&mut together, TOGETHER).await > 0 {
        let mut asked: HashMap<TaskRef, Vec<oneshot::Sender<Answer>>> = HashMap::new();
        for question in together.drain(..) {
            asked.entry(question.task).or_default().push(question.reply);
        }
        let tasks: Vec<&TaskRef> = asked.keys().collect();
        let found = timeout(limit, read(&pools, &tasks, &reports)).await;
        let found = found.unwrap_or_else(|elapsed| Err(unavailable(elapsed)));
        if found.is_err() {
            while let Ok(question) = questions.try_recv() {
                asked.entry(question.task).or_default().push(question.reply);
            }
        }
        for (task, replies) in asked {
            for reply in replies {
                let answer = match &found {
                    Ok(running) => Ok(running.get(&task).cloned()),
                    Err(error) => Err(unavailable(error.with_causes())),
                };
                // Whoever asked may have left.
                let _ = reply.send(answer);
            }
        }
    }
}

async fn read(
    pools: &Pools,
    tasks: &[&TaskRef],
    reports: &Reports,
) -> Result<HashMap<TaskRef, Running>, StoreError> {
    let mut connection = pools.reader.acquire().await?;
    let rows = select(&mut connection, tasks).await?;
    let mut running: HashMap<TaskRef, Running> = HashMap::new();
    for row in &rows {
        // One that cannot be read must not hide the others.
        if let Some((task, id, caller)) = reports.readable(part(row)) {
            let one = running.entry(task).or_insert_with(|| Running {
                id,
                callers: Vec::new(),
            });
            one.callers.push(caller);
        }
    }
    Ok(running)
}

/// One statement, so that it sees the record at one moment without a transaction around it.
async fn select(
    connection: &mut AnyConnection,
    tasks: &[&TaskRef],
) -> Result<Vec<AnyRow>, StoreError> {
    let mut sql = String::from("WITH wanted (project, service, task) AS (VALUES ");
    let mut arguments = AnyArguments::default();
    for (index, task) in tasks.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        let first = 3 * index + 1;
        write!(sql, "{comma}(${first}, ${}, ${})", first + 1, first + 2).map_err(unavailable)?;
        for text in [
            task.project.as_str(),
            task.service.as_str(),
            task.id.as_str(),
        ] {
            arguments.add(text).map_err(unavailable)?;
        }
    }
    let engine = Engine::of(connection);
    let of_operation = rows::columns(engine, "operations", &["project", "service", "task", "id"]);
    let caller = rows::columns(engine, "operation_callers", &["caller"]);
    write!(
        sql,
        ") SELECT {of_operation}, {caller} \
         FROM wanted JOIN operations ON operations.project = wanted.project \
         AND operations.service = wanted.service AND operations.task = wanted.task \
         JOIN operation_callers ON operation_id = operations.id \
         WHERE status = 'running' ORDER BY operations.id, number"
    )
    .map_err(unavailable)?;
    // The text is made of constants and numbers.
    Ok(sqlx::query_with(AssertSqlSafe(sql), arguments)
        .fetch_all(connection)
        .await?)
}

/// The task, the operation and one of its callers.
fn part(row: &AnyRow) -> Result<(TaskRef, OperationId, CallerName), Unreadable> {
    let columns = Columns::new(row, rows::id_of(row)?);
    let task = TaskRef {
        project: columns.word("project", ProjectName::parse)?,
        service: columns.word("service", ServiceName::parse)?,
        id: columns.word("task", TaskId::parse)?,
    };
    let caller = columns.word("caller", CallerName::parse)?;
    Ok((task, columns.id()?, caller))
}
