//! The one order of all requests whose caller is known: parse, then authorise.
//!
//! [`On`] stands first in every handler, and nothing else there reads the body. A handler gets its
//! task, and with it the way to a service, only from here, so that forgetting the permission does
//! not compile.

use std::{future::Future, pin::Pin, rc::Rc};

use actix_web::{FromRequest, HttpMessage as _, HttpRequest, dev::Payload, web};

use super::{auth, query::Query};
use crate::{
    api::{State, problem::Problem},
    domain::{
        access::{self, Caller, Denied, Permission},
        operation::Operation,
        service::{CallerName, Services},
        task::TaskRef,
    },
    identity::{Identity, Refusal},
};

/// Something that can be done, with the parameters that it takes.
pub(in crate::api) trait Action: Sized + 'static {
    /// What it is done to.
    type Target: Target;
    /// What is made of the body before the action reads it.
    type Body: FromRequest<Error = Problem>;

    /// Takes the action's own parameters out of the query and the headers.
    fn read(head: &mut Head<'_>) -> Self;

    /// Reads the body, if the action has any use for it.
    fn read_body(&mut self, _body: Self::Body, _target: &Self::Target) -> Result<(), Problem> {
        Ok(())
    }

    /// What it changes, in one word that those who audit read; `None` if it changes nothing.
    fn change(&self) -> Option<&'static str> {
        None
    }

    /// What the caller needs for it.
    fn permissions(&self) -> &'static [Permission];
}

/// What something is done to, as path and query name it.
pub(in crate::api) trait Target: Sized {
    /// The same, once it is known that the caller may do it.
    type Allowed;

    /// Reads path and query. `None` if they have faults, which are noted there.
    fn read(head: &mut Head<'_>) -> Option<Self>;

    /// Whether the caller may do this.
    fn authorise<A: Action>(
        &self,
        known: &Known,
        action: &A,
        request: &HttpRequest,
    ) -> Result<Self::Allowed, Problem>;
}

/// The head of a request, read strictly. All of its faults are told together.
pub(in crate::api) struct Head<'r> {
    pub(in crate::api) known: &'r Known,
    pub(in crate::api) request: &'r HttpRequest,
    pub(in crate::api) query: Query,
}

/// A caller who is known.
pub(in crate::api) struct Known {
    pub(in crate::api) identity: Identity,
    pub(in crate::api) state: web::Data<State>,
    pub(in crate::api) services: Rc<Services>,
}

/// A well-formed request of a caller who may do `A`.
pub(in crate::api) struct On<A: Action> {
    pub(in crate::api) known: Known,
    pub(in crate::api) target: <A::Target as Target>::Allowed,
    pub(in crate::api) action: A,
}

impl<A: Action> On<A> {
    async fn of(request: &HttpRequest, body: &mut Payload) -> Result<Self, Problem> {
        let known = Known::of(request)?;
        let mut head = Head {
            known: &known,
            request,
            query: Query::of(request),
        };
        let target = A::Target::read(&mut head);
        let mut action = A::read(&mut head);
        head.query.end()?;
        let target = target.ok_or_else(Problem::internal)?;
        if known.caller().is_anonymous() {
            // Whoever has to say who they are is told so before their body is read.
            let _allowed = target.authorise(&known, &action, request)?;
        }
        let body = A::Body::from_request(request, body).await?;
        action.read_body(body, &target)?;
        let target = target.authorise(&known, &action, request)?;
        Ok(Self {
            known,
            target,
            action,
        })
    }
}

impl<A: Action> FromRequest for On<A> {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, body: &mut Payload) -> Self::Future {
        let (request, mut body) = (request.clone(), body.take());
        Box::pin(async move { Self::of(&request, &mut body).await })
    }
}

impl Known {
    fn of(request: &HttpRequest) -> Result<Self, Problem> {
        let identity = request.extensions().get::<Identity>().cloned();
        let state = request.app_data::<web::Data<State>>().cloned();
        let services = request.app_data::<Rc<Services>>().cloned();
        match (identity, state, services) {
            (Some(identity), Some(state), Some(services)) => Ok(Self {
                identity,
                state,
                services,
            }),
            _ => Err(Problem::internal()),
        }
    }

    /// Who asks.
    pub(in crate::api) fn caller(&self) -> &Caller {
        &self.identity.caller
    }

    /// Whether the caller may see an operation: they asked for it, joined it, or may see
    /// everybody's there.
    pub(in crate::api) fn may_see(&self, operation: &Operation) -> bool {
        self.may_see_on(&operation.task, &operation.callers)
    }

    /// Whether the caller may see an operation on this task that these asked for or joined.
    pub(in crate::api) fn may_see_on(&self, task: &TaskRef, callers: &[CallerName]) -> bool {
        let all = [Permission::OperationsReadAll];
        callers.contains(&self.caller().name)
            || access::authorise(self.caller(), &all, &task.project, &task.service).is_ok()
    }

    /// The answer to a caller who lacks something.
    pub(super) fn denied(&self, denied: Denied) -> Problem {
        if self.caller().is_anonymous() {
            auth::unauthenticated(Refusal::Missing)
        } else {
            denied.into()
        }
    }
}
