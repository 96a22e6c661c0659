//! From a request for a change to its answer: record it, wait as long as the caller likes, say how
//! it stands.

use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, http::header};

use super::{
    operations::view::OperationView,
    plan,
    problem::Problem,
    problem::kinds::ProblemType,
    request::{
        guard::{Head, Known},
        idempotency,
        prefer::Preference,
        target::AllowedTask,
    },
};
use crate::{
    domain::{
        access::{Caller, Denied},
        audit::{AuditUnavailable, Decision, Rule},
        operation::{Goal, Operation, Status},
        start::StartRequest,
        store::IdempotencyKey,
        task::Task,
    },
    operations::{Accepted, Ask, AskError, Operations},
};

/// What is asked for.
pub(super) struct Change {
    /// What is to be true of the task.
    pub(super) goal: Goal,
    /// What a start needs.
    pub(super) start: Option<StartRequest>,
    /// How it is asked for.
    pub(super) terms: Terms,
}

/// How a change is asked for: the parameters that all changes have.
pub(super) struct Terms {
    /// Whether to say only what would be done.
    pub(super) is_dry_run: bool,
    preference: Preference,
    key: Option<String>,
}

impl Terms {
    /// Takes them out of query and headers.
    pub(super) fn read(head: &mut Head<'_>) -> Self {
        Self {
            is_dry_run: head.query.dry_run(),
            preference: Preference::read(head),
            key: idempotency::key(head),
        }
    }
}

impl Change {
    fn ask(self, request: &HttpRequest, known: &Known, on: AllowedTask) -> Ask {
        let key = self.terms.key.map(|key| IdempotencyKey {
            key,
            fingerprint: idempotency::fingerprint(request, self.start.as_ref()),
        });
        Ask {
            caller: known.caller().name.clone(),
            task: on.task,
            names: on.names,
            goal: self.goal,
            start: self.start,
            key,
            running_max: known.state.settings.limits.running_operations,
            auditor: on.auditor,
        }
    }
}

/// Records what is asked for, or joins what runs already, and answers.
pub(super) async fn to_change(
    request: &HttpRequest,
    known: &Known,
    on: AllowedTask,
    change: Change,
) -> Result<HttpResponse, Problem> {
    let (preference, is_dry_run) = (change.terms.preference, change.terms.is_dry_run);
    let ask = change.ask(request, known, on);
    if is_dry_run {
        return plan::answer(&ask, known).await;
    }
    let operations = &known.state.operations;
    let Accepted {
        operation,
        is_replayed,
    } = match operations.start(&known.services, &ask).await {
        Ok(accepted) => accepted,
        Err(error) => {
            note_refusal(&error, &ask).await?;
            return Err(refusal(error, &ask, known).await?);
        }
    };
    let latest = match operations.wait(operation.id, preference.wait()).await {
        Ok(latest) => latest.unwrap_or(operation),
        Err(error) => {
            // It is on record and goes on: an answer that calls it not recorded would be wrong.
            tracing::error!(
                operation.id = %operation.id,
                error = error.with_causes(),
                "the end of an operation cannot be waited for"
            );
            operation
        }
    };
    let said = Said {
        applied: applied(preference, &latest, operations),
        is_replayed,
    };
    let view = OperationView::of(&latest, known).await;
    let problem = match latest.status {
        Status::Succeeded => return Ok(said.in_answer(HttpResponse::Ok()).json(view)),
        Status::Running => {
            return Ok(said
                .in_answer(HttpResponse::Accepted())
                .insert_header((header::LOCATION, known.state.links.operation(latest.id)))
                .insert_header((header::RETRY_AFTER, 1))
                .json(view));
        }
        Status::Failed => match &latest.failure {
            Some(failure) => Problem::operation_failed(failure, view),
            None => Problem::internal(),
        },
        Status::Cancelled => {
            let detail = "The operation was cancelled by the caller who asked for it first.";
            Problem::new(ProblemType::OperationCancelled, detail).ended(view)
        }
        Status::Superseded => {
            let detail = "Another operation on the same task took over.";
            Problem::new(ProblemType::OperationSuperseded, detail).ended(view)
        }
    };
    Err(said.in_problem(problem.sent(latest.history.sent())))
}

/// What an answer says about how the request was taken.
struct Said {
    applied: Option<String>,
    is_replayed: bool,
}

impl Said {
    fn headers(&self) -> impl Iterator<Item = (&'static str, String)> {
        let applied = self
            .applied
            .clone()
            .map(|applied| ("Preference-Applied", applied));
        let replayed = self
            .is_replayed
            .then(|| ("Idempotency-Replayed", "true".to_owned()));
        applied.into_iter().chain(replayed)
    }

    fn in_answer(&self, mut response: HttpResponseBuilder) -> HttpResponseBuilder {
        for header in self.headers() {
            response.insert_header(header);
        }
        response
    }

    fn in_problem(&self, problem: Problem) -> Problem {
        self.headers().fold(problem, |problem, (name, value)| {
            problem.header(name, value)
        })
    }
}

/// Which preference was heeded, the operation having been waited for until it stood like this. A
/// wait that a stop of the gateway cut short was not.
pub(super) fn applied(
    preference: Preference,
    latest: &Operation,
    operations: &Operations,
) -> Option<String> {
    let is_cut_short = latest.status == Status::Running && operations.is_draining();
    match preference {
        Preference::Wait(_) if is_cut_short => None,
        Preference::Default(_) | Preference::Wait(_) | Preference::RespondAsync => {
            preference.applied()
        }
    }
}

/// Notes down what stands against a request, for those who audit it. What failed before anything
/// was decided is no decision.
async fn note_refusal(error: &AskError, ask: &Ask) -> Result<(), AuditUnavailable> {
    let Some(auditor) = &ask.auditor else {
        return Ok(());
    };
    let (decision, rule) = match error {
        AskError::NameDenied => (Decision::Denied, Denied::TaskName.rule()),
        AskError::Refused { reason, .. } => (Decision::Refused, reason.as_str()),
        AskError::Conflict(_) => (Decision::Refused, Rule::OperationConflict.as_str()),
        AskError::TooMany(_) => (Decision::Refused, Rule::RunningOperations.as_str()),
        AskError::KeyReused => (Decision::Refused, Rule::IdempotencyKeyReused.as_str()),
        AskError::NotOffered => (Decision::Refused, Rule::ServiceNotOffered.as_str()),
        AskError::Unseen(_) => (Decision::Refused, Rule::TaskNameUnseen.as_str()),
        AskError::Store(_) | AskError::Unaudited(_) => return Ok(()),
    };
    auditor.turned_down(decision, rule, None).await
}

/// Why nothing was recorded, with what helps the caller on.
pub(super) async fn refusal(error: AskError, ask: &Ask, known: &Known) -> Result<Problem, Problem> {
    let links = &known.state.links;
    let problem = match &error {
        AskError::Conflict(running) => {
            let link = known.may_see(running).then(|| links.operation(running.id));
            return Ok(Problem::from(error).link(link));
        }
        AskError::Refused {
            task: Some(task), ..
        } => {
            let allowed = allowed(task, known.caller());
            return Ok(Problem::from(error).allowed(allowed));
        }
        AskError::Refused { task: None, .. } if matches!(ask.goal, Goal::Absent { .. }) => {
            let deletions = known.state.operations.deletions_of(&ask.task).await?;
            let visible = deletions
                .into_iter()
                .find(|operation| known.may_see(operation));
            let link = visible.map(|operation| links.operation(operation.id));
            Problem::from(error).deleted_by(link)
        }
        AskError::Refused { task: None, .. }
        | AskError::KeyReused
        | AskError::TooMany(_)
        | AskError::NotOffered
        | AskError::NameDenied
        | AskError::Unseen(_)
        | AskError::Unaudited(_)
        | AskError::Store(_) => Problem::from(error),
    };
    Ok(problem)
}

/// What would be accepted instead, in the words of a request.
fn allowed(task: &Task, caller: &Caller) -> Vec<&'static str> {
    let actions = super::tasks::view::actions(task, caller);
    let word = |action| {
        if action == "force_delete" {
            "force=pause"
        } else {
            action
        }
    };
    actions.into_iter().map(word).collect()
}
