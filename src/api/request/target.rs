//! What requests are about, and what their callers need for it.

use actix_web::HttpRequest;

use super::{
    audit,
    guard::{Action, Head, Known, Target},
};
use crate::{
    api::problem::Problem,
    domain::{
        access::{self, Denied, TaskNames},
        audit::{Attempt, Auditor},
        operation::OperationId,
        service::{BoundService, ProjectName, ServiceName, ServiceTraits},
        task::{TaskId, TaskRef},
    },
};

/// The task that is named in the path.
pub(in crate::api) struct NamedTask {
    task: TaskRef,
    pub(in crate::api) traits: ServiceTraits,
}

/// A task that the caller may do something to.
pub(in crate::api) struct AllowedTask {
    pub(in crate::api) task: TaskRef,
    pub(in crate::api) service: BoundService,
    /// The names that the task must have if the action changes it.
    pub(in crate::api) names: TaskNames,
    /// Who notes down what is decided, if the action changes something and somebody wants to know.
    pub(in crate::api) auditor: Option<Auditor>,
}

/// The tasks of a project, of one service or of all.
pub(in crate::api) struct NamedProject {
    project: ProjectName,
    service: Option<ServiceTraits>,
}

/// Tasks of a project that the caller may list.
pub(in crate::api) struct AllowedProject {
    pub(in crate::api) project: ProjectName,
    /// The services to list, in the catalogue's order.
    pub(in crate::api) services: Vec<ServiceName>,
}

impl Target for NamedTask {
    type Allowed = AllowedTask;

    fn read(head: &mut Head<'_>) -> Option<Self> {
        let named = service(head);
        let project = project(head);
        let id = TaskId::parse(head.request.match_info().get("id").unwrap_or_default());
        let traits = id.as_ref().and_then(|id| match named {
            Some(traits) => (traits.accepts)(id).then_some(traits),
            None => head.known.services.owner_of(id).cloned(),
        });
        if traits.is_none() {
            head.query.path_fault(
                "id",
                "The id is not one of a task: OMS ids are numbers of at most 15 digits without leading zeros, \
                 SMS ids have 1 to 36 of 0-9 A-Z a-z - and are not all digits. ?service= overrides the guess.",
            );
        }
        let (id, traits, project) = (id?, traits?, project?);
        let task = TaskRef {
            project,
            service: traits.name.clone(),
            id,
        };
        Some(Self { task, traits })
    }

    fn authorise<A: Action>(
        &self,
        known: &Known,
        action: &A,
        request: &HttpRequest,
    ) -> Result<AllowedTask, Problem> {
        let (task, needed) = (&self.task, action.permissions());
        let auditor = action.change().and_then(|change| {
            let auditor = known.auditor(request, change)?;
            let granted_by =
                access::places(known.caller(), needed, &task.project, &task.service).join(", ");
            Some(Auditor {
                attempt: Attempt {
                    project: Some(task.project.clone()),
                    service: Some(task.service.clone()),
                    task: Some(task.id.clone()),
                    ..auditor.attempt
                },
                granted_by,
                ..auditor
            })
        });
        let authorised = access::authorise(known.caller(), needed, &task.project, &task.service);
        let names = authorised.map_err(|denied| {
            if let Some(auditor) = &auditor {
                audit::deny(request, auditor, denied.rule());
            }
            known.denied(denied)
        })?;
        let service = known.services.of(task).cloned().ok_or_else(not_offered)?;
        Ok(AllowedTask {
            task: task.clone(),
            service,
            names,
            auditor,
        })
    }
}

impl Target for NamedProject {
    type Allowed = AllowedProject;

    fn read(head: &mut Head<'_>) -> Option<Self> {
        let service = service(head);
        let project = project(head)?;
        Some(Self { project, service })
    }

    fn authorise<A: Action>(
        &self,
        known: &Known,
        action: &A,
        _request: &HttpRequest,
    ) -> Result<AllowedProject, Problem> {
        let project = &self.project;
        let authorise = |service: &ServiceName| {
            access::authorise(known.caller(), action.permissions(), project, service)
        };
        let offered = |name: &ServiceName| known.services.get(project, name).is_some();
        let mut services = Vec::new();
        if let Some(ServiceTraits { name, .. }) = &self.service {
            // Names of tasks count where a task is changed.
            let _names = authorise(name).map_err(|denied| known.denied(denied))?;
            if !offered(name) {
                return Err(not_offered());
            }
            services.push(name.clone());
        } else {
            for ServiceTraits { name, .. } in known.services.catalogue() {
                match authorise(name) {
                    Ok(_) if offered(name) => services.push(name.clone()),
                    // The other services are listed.
                    Ok(_) | Err(Denied::Service(_)) => {}
                    Err(denied) => return Err(known.denied(denied)),
                }
            }
        }
        Ok(AllowedProject {
            project: project.clone(),
            services,
        })
    }
}

/// The operation that is named in the path.
impl Target for OperationId {
    type Allowed = Self;

    fn read(head: &mut Head<'_>) -> Option<Self> {
        let id = Self::parse(head.request.match_info().get("id").unwrap_or_default());
        if id.is_none() {
            let detail = "The id is not one of an operation: op_ and 26 characters.";
            head.query.path_fault("id", detail);
        }
        id
    }

    fn authorise<A: Action>(
        &self,
        known: &Known,
        action: &A,
        request: &HttpRequest,
    ) -> Result<Self, Problem> {
        ().authorise(known, action, request)?;
        Ok(*self)
    }
}

/// Nothing that path or query name.
impl Target for () {
    type Allowed = ();

    fn read(_head: &mut Head<'_>) -> Option<Self> {
        Some(())
    }

    fn authorise<A: Action>(
        &self,
        known: &Known,
        action: &A,
        _request: &HttpRequest,
    ) -> Result<(), Problem> {
        let mut needed = action.permissions().iter();
        match needed.find(|needed| !known.caller().has(**needed)) {
            Some(missing) => Err(known.denied(Denied::Permission(*missing))),
            None => Ok(()),
        }
    }
}

fn not_offered() -> Problem {
    Problem::fault(
        "query",
        "project",
        "The project does not offer this service.",
    )
}

/// The project that is meant. That one is not configured is told only to those for whom its absence
/// is no secret.
fn project(head: &mut Head<'_>) -> Option<ProjectName> {
    let (known, query) = (head.known, &mut head.query);
    let Some(text) = query.text("project") else {
        let default = known.state.settings.default_project.clone();
        if default.is_none() {
            query.fault("project", "project is needed: there is no default project.");
        }
        return default;
    };
    let Some(project) = ProjectName::parse(&text) else {
        let detail = "project must be the name of a project: 1 to 63 of a-z 0-9 -.";
        query.fault("project", detail);
        return None;
    };
    if known.caller().has_all_projects() && !known.state.projects.contains(&project) {
        query.fault("project", "project is not one that the gateway knows.");
        return None;
    }
    Some(project)
}

/// The service that is named.
fn service(head: &mut Head<'_>) -> Option<ServiceTraits> {
    let services = &head.known.services;
    let catalogue = services.catalogue().iter();
    let names: Vec<&str> = catalogue.map(|traits| traits.name.as_str()).collect();
    let expected = format!("one of {}", names.join(", "));
    head.query
        .parsed("service", &expected, |text| services.named(text).cloned())
}
