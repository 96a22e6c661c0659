//! What is noted down is done, and what is done was noted down, whether or not the caller is still
//! there.

use std::{future::pending, panic::resume_unwind};

use tokio::task::spawn_local;
use tracing::Instrument as _;

use super::{Ask, AskError, kill_point};
use crate::{
    domain::{audit::AuditUnavailable, operation::OperationId},
    operations::{Course, Operations},
};

impl Operations {
    /// Notes down what is going to be done, and by which operation, unless that was the last that
    /// was noted: a race that is lost leads here again. Then does it. A caller who hangs up in
    /// between stops neither.
    pub(super) fn noted<T: 'static>(
        &self,
        ask: &Ask,
        (noted, fresh): (&mut Option<(OperationId, Course)>, (OperationId, Course)),
        act: impl AsyncFnOnce(Self, Ask) -> Result<T, AskError> + 'static,
    ) -> impl Future<Output = Result<T, AskError>> {
        let is_noted = noted.replace(fresh) == Some(fresh);
        let (operations, ask) = (self.clone(), ask.clone());
        to_its_end(async move {
            if !is_noted {
                ask.note(fresh).await?;
            }
            act(operations, ask).await
        })
    }
}

impl Ask {
    async fn note(
        &self,
        (operation, course): (OperationId, Course),
    ) -> Result<(), AuditUnavailable> {
        let Some(auditor) = &self.auditor else {
            return Ok(());
        };
        kill_point!("accept.note.before");
        let written = auditor.allowed(operation, Some(course.as_str())).await;
        kill_point!("accept.note.after");
        written
    }
}

/// Carries something to its end, also if whoever waits for it goes away. Only the end of the
/// thread's runtime ends it. It is begun by the call.
pub(crate) fn to_its_end<T: 'static>(
    work: impl Future<Output = T> + 'static,
) -> impl Future<Output = T> {
    let working = spawn_local(work.in_current_span());
    async {
        let ended = match working.await {
            Ok(done) => return done,
            Err(ended) => ended,
        };
        match ended.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // Whoever waits ends with the runtime too.
            Err(_) => pending().await,
        }
    }
}
