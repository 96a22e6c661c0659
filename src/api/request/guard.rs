//! What a request is about and whether its caller may do it, found out before its body is read.
//!
//! These extractors are synchronous and stand first in every handler: actix starts all extractors of a handler before it
//! waits for any. A handler gets its task, and with it the way to a service, only from here, so that forgetting the
//! permission does not compile.

use std::{
    future::{Ready, ready},
    rc::Rc,
};

use actix_web::{FromRequest, HttpMessage as _, HttpRequest, dev::Payload, web};

use super::{audit, auth, query::Query};
use crate::{
    api::{State, problem::Problem},
    domain::{
        access::{self, Caller, Denied, Permission, TaskNames},
        audit::{Attempt, Auditor},
        operation::{Operation, OperationId},
        service::{BoundService, CallerName, ProjectName, ServiceName, ServiceTraits, Services},
        task::{TaskId, TaskRef},
    },
    identity::{Identity, Refusal},
};

/// Something that can be done to a task, with the parameters that it takes.
pub(in crate::api) trait Action: Sized + 'static {
    /// Takes the action's own parameters out of the query.
    fn read(query: &mut Query) -> Self;

    /// What it changes, in one word that those who audit read; `None` if it changes nothing.
    fn change(&self) -> Option<&'static str> {
        None
    }

    /// What the caller needs for it.
    fn permissions(&self) -> &'static [Permission];
}

/// A caller who is known.
pub(in crate::api) struct Known {
    pub(in crate::api) identity: Identity,
    pub(in crate::api) state: web::Data<State>,
    pub(in crate::api) services: Rc<Services>,
}

/// A task that the caller may do `A` to.
pub(in crate::api) struct OnTask<A> {
    pub(in crate::api) known: Known,
    pub(in crate::api) task: TaskRef,
    pub(in crate::api) service: BoundService,
    pub(in crate::api) traits: ServiceTraits,
    /// The names that the task must have if the action changes it.
    pub(in crate::api) names: TaskNames,
    /// Who notes down what is decided, if the action changes something and somebody wants to know.
    pub(in crate::api) auditor: Option<Auditor>,
    pub(in crate::api) action: A,
}

/// A caller who may read operations.
pub(in crate::api) struct OnOperations {
    pub(in crate::api) known: Known,
}

/// A caller who may see how the gateway does.
pub(in crate::api) struct OnStatus {
    pub(in crate::api) known: Known,
}

/// The operation that is named in the path, by a caller who may read operations.
pub(in crate::api) struct OnOperation {
    pub(in crate::api) known: Known,
    pub(in crate::api) id: OperationId,
}

/// The operation that is named in the path, by a caller who may do something to it if it is their own.
pub(in crate::api) struct OnOwnOperation {
    pub(in crate::api) known: Known,
    pub(in crate::api) id: OperationId,
}

/// A caller who may list the tasks of a project.
pub(in crate::api) struct OnTasks<A> {
    pub(in crate::api) known: Known,
    pub(in crate::api) project: ProjectName,
    /// The services to list, in the catalogue's order.
    pub(in crate::api) services: Vec<ServiceName>,
    pub(in crate::api) action: A,
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

    /// Whether the caller may see an operation: they asked for it, joined it, or may see everybody's there.
    pub(in crate::api) fn may_see(&self, operation: &Operation) -> bool {
        self.may_see_on(&operation.task, &operation.callers)
    }

    /// Whether the caller may see an operation on this task that these asked for or joined.
    pub(in crate::api) fn may_see_on(&self, task: &TaskRef, callers: &[CallerName]) -> bool {
        let all = [Permission::OperationsReadAll];
        callers.contains(&self.caller().name)
            || access::authorise(self.caller(), &all, &task.project, &task.service).is_ok()
    }

    fn denied(&self, denied: Denied) -> Problem {
        if self.caller().is_anonymous() {
            auth::unauthenticated(Refusal::Missing)
        } else {
            denied.into()
        }
    }

    fn authorise(
        &self,
        permissions: &[Permission],
        project: &ProjectName,
        service: &ServiceName,
    ) -> Result<TaskNames, Problem> {
        access::authorise(self.caller(), permissions, project, service)
            .map_err(|denied| self.denied(denied))
    }

    fn need(&self, permission: Permission) -> Result<(), Problem> {
        if self.caller().has(permission) {
            Ok(())
        } else {
            Err(self.denied(Denied::Permission(permission)))
        }
    }

    /// The project that is meant. One that is not configured is refused after the faults of the request are told, and
    /// only to those for whom its absence is no secret.
    fn project(&self, query: &mut Query) -> Option<ProjectName> {
        let expected = "the name of a project: 1 to 63 of a-z 0-9 -";
        let named = query.text("project");
        let Some(text) = named else {
            let default = self.state.settings.default_project.clone();
            if default.is_none() {
                query.fault("project", "project is needed: there is no default project.");
            }
            return default;
        };
        let Some(project) = ProjectName::parse(&text) else {
            query.fault("project", format!("project must be {expected}."));
            return None;
        };
        if self.caller().has_all_projects() && !self.state.projects.contains(&project) {
            query.fault("project", "project is not one that the gateway knows.");
            return None;
        }
        Some(project)
    }

    fn service(&self, query: &mut Query) -> Option<ServiceTraits> {
        let names: Vec<&str> = self
            .services
            .catalogue()
            .iter()
            .map(|traits| traits.name.as_str())
            .collect();
        let expected = format!("one of {}", names.join(", "));
        query.parsed("service", &expected, |text| {
            self.services.named(text).cloned()
        })
    }
}

impl<A: Action> OnTask<A> {
    fn of(request: &HttpRequest) -> Result<Self, Problem> {
        let known = Known::of(request)?;
        let mut query = Query::of(request);
        let service = known.service(&mut query);
        let project = known.project(&mut query);
        let action = A::read(&mut query);
        let id = TaskId::parse(request.match_info().get("id").unwrap_or_default());
        let traits = id.as_ref().and_then(|id| match service {
            Some(traits) => (traits.accepts)(id).then_some(traits),
            None => known.services.owner_of(id).cloned(),
        });
        if traits.is_none() {
            query.path_fault(
                "id",
                "The id is not one of a task: OMS ids are numbers of at most 15 digits without leading zeros, \
                 SMS ids have 1 to 36 of 0-9 A-Z a-z - and are not all digits. ?service= overrides the guess.",
            );
        }
        query.end()?;
        let (Some(id), Some(traits), Some(project)) = (id, traits, project) else {
            return Err(Problem::internal());
        };
        let task = TaskRef {
            project,
            service: traits.name.clone(),
            id,
        };
        let needed = action.permissions();
        let auditor = action
            .change()
            .and_then(|change| known.auditor(request, change))
            .map(|auditor| about(auditor, &known, needed, &task));
        let authorised = access::authorise(known.caller(), needed, &task.project, &task.service);
        let names = authorised.map_err(|denied| {
            if let Some(auditor) = &auditor {
                audit::deny(request, &known, auditor.clone(), denied.rule());
            }
            known.denied(denied)
        })?;
        let service = known.services.of(&task).cloned().ok_or_else(|| {
            Problem::fault(
                "query",
                "project",
                "The project does not offer this service.",
            )
        })?;
        Ok(Self {
            known,
            task,
            service,
            traits,
            names,
            auditor,
            action,
        })
    }
}

/// Who notes down what is decided about a task, with where the configuration grants what is needed.
fn about(auditor: Auditor, known: &Known, needed: &[Permission], task: &TaskRef) -> Auditor {
    let granted_by = access::places(known.caller(), needed, &task.project, &task.service);
    Auditor {
        attempt: Attempt {
            project: Some(task.project.clone()),
            service: Some(task.service.clone()),
            task: Some(task.id.clone()),
            ..auditor.attempt
        },
        granted_by: granted_by.join(", "),
        ..auditor
    }
}

impl<A: Action> OnTasks<A> {
    fn of(request: &HttpRequest) -> Result<Self, Problem> {
        let known = Known::of(request)?;
        let mut query = Query::of(request);
        let named = known.service(&mut query);
        let project = known.project(&mut query);
        let action = A::read(&mut query);
        query.end()?;
        let Some(project) = project else {
            return Err(Problem::internal());
        };
        let needed = action.permissions();
        let offered = |name: &ServiceName| known.services.get(&project, name).is_some();
        let services = if let Some(traits) = named {
            // Names of tasks count where a task is changed.
            let _names = known.authorise(needed, &project, &traits.name)?;
            if !offered(&traits.name) {
                let detail = "The project does not offer this service.";
                return Err(Problem::fault("query", "project", detail));
            }
            vec![traits.name]
        } else {
            let mut services = Vec::new();
            for traits in known.services.catalogue() {
                match access::authorise(known.caller(), needed, &project, &traits.name) {
                    Ok(_) if offered(&traits.name) => services.push(traits.name.clone()),
                    // The other services are listed.
                    Ok(_) | Err(Denied::Service(_)) => {}
                    Err(denied) => return Err(known.denied(denied)),
                }
            }
            services
        };
        Ok(Self {
            known,
            project,
            services,
            action,
        })
    }
}

impl OnOperations {
    fn of(request: &HttpRequest) -> Result<Self, Problem> {
        let known = Known::of(request)?;
        known.need(Permission::OperationsRead)?;
        Ok(Self { known })
    }
}

impl OnStatus {
    fn of(request: &HttpRequest) -> Result<Self, Problem> {
        let known = Known::of(request)?;
        Query::of(request).end()?;
        known.need(Permission::StatusRead)?;
        Ok(Self { known })
    }
}

impl OnOperation {
    fn of(request: &HttpRequest) -> Result<Self, Problem> {
        let OnOwnOperation { known, id } = OnOwnOperation::of(request)?;
        known.need(Permission::OperationsRead)?;
        Ok(Self { known, id })
    }
}

impl OnOwnOperation {
    fn of(request: &HttpRequest) -> Result<Self, Problem> {
        let known = Known::of(request)?;
        let mut query = Query::of(request);
        let id = OperationId::parse(request.match_info().get("id").unwrap_or_default());
        if id.is_none() {
            query.path_fault(
                "id",
                "The id is not one of an operation: op_ and 26 characters.",
            );
        }
        query.end()?;
        id.map(|id| Self { known, id })
            .ok_or_else(Problem::internal)
    }
}

macro_rules! extractor {
    ([$($generics:tt)*] $name:ty) => {
        impl<$($generics)*> FromRequest for $name {
            type Error = Problem;
            type Future = Ready<Result<Self, Problem>>;

            fn from_request(request: &HttpRequest, _body: &mut Payload) -> Self::Future {
                ready(Self::of(request))
            }
        }
    };
}

extractor!([] Known);
extractor!([A: Action] OnTask<A>);
extractor!([A: Action] OnTasks<A>);
extractor!([] OnOperations);
extractor!([] OnStatus);
extractor!([] OnOperation);
extractor!([] OnOwnOperation);
