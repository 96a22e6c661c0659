//! Who may do what. Pure: the same caller, permission, project and service always give the same
//! answer.

mod pattern;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub use self::pattern::NamePattern;
use super::{
    service::{CallerName, ProjectName, ServiceName},
    words::words,
};

words! {
    /// Something that a caller may be allowed to do.
    Permission {
        /// List and show tasks.
        TasksRead = "tasks:read",
        /// Pause tasks.
        TasksPause = "tasks:pause",
        /// Start tasks.
        TasksStart = "tasks:start",
        /// Delete tasks at rest; with [`Permission::TasksPause`], running ones too.
        TasksDelete = "tasks:delete",
        /// Show operations that the caller asked for or joined.
        OperationsRead = "operations:read",
        /// Show everybody's operations in the projects and with the services of the grant. Not part
        /// of `*`.
        OperationsReadAll = "operations:read-all",
        /// Show the state of the gateway.
        StatusRead = "status:read",
    }
}

impl Permission {
    /// What `*` stands for: everything but [`Permission::OperationsReadAll`].
    pub fn wildcard() -> BTreeSet<Self> {
        let mut all: BTreeSet<Self> = Self::ALL.iter().copied().collect();
        all.remove(&Self::OperationsReadAll);
        all
    }
}

/// A set of names, or all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope<T> {
    /// `*`.
    All,
    /// These only.
    Only(BTreeSet<T>),
}

impl<T: Ord> Scope<T> {
    /// Whether a name is in the set.
    pub fn contains(&self, name: &T) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(name),
        }
    }

    /// The names, if there are only so many; none for all of them.
    pub fn names(&self) -> impl Iterator<Item = &T> {
        let names = match self {
            Self::All => None,
            Self::Only(names) => Some(names),
        };
        names.into_iter().flatten()
    }
}

/// What is granted together. Parts of different grants never add up: a permission holds in the
/// projects, with the services and for the tasks of its own grant only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Where it stands in the configuration, such as `callers.team-a`.
    pub place: String,
    /// What may be done.
    pub permissions: BTreeSet<Permission>,
    /// In which projects.
    pub projects: Scope<ProjectName>,
    /// With which services.
    pub services: Scope<ServiceName>,
    /// To tasks of which names, where it changes them.
    pub tasks: Scope<NamePattern>,
}

/// Projects and services that a permission holds in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The projects.
    pub projects: Scope<ProjectName>,
    /// The services.
    pub services: Scope<ServiceName>,
}

impl Reach {
    /// Whether it is all projects and services.
    pub fn is_all(&self) -> bool {
        self.projects == Scope::All && self.services == Scope::All
    }
}

/// Somebody who asks, and what they may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who that is.
    pub name: CallerName,
    /// What they may do: all that any of these says.
    pub grants: Vec<Grant>,
}

impl Caller {
    /// Whoever sends no credentials: the given permissions, in every project and service.
    pub fn anonymous(permissions: BTreeSet<Permission>) -> Self {
        Self {
            name: CallerName::anonymous(),
            grants: vec![Grant {
                place: "access.anonymous".to_owned(),
                permissions,
                projects: Scope::All,
                services: Scope::All,
                tasks: Scope::All,
            }],
        }
    }

    /// Whether nobody has said who this is.
    pub fn is_anonymous(&self) -> bool {
        self.name == CallerName::anonymous()
    }

    /// Whether the caller has a permission at all, in whatever project and service.
    pub fn has(&self, permission: Permission) -> bool {
        let mut grants = self.grants.iter();
        grants.any(|grant| grant.permissions.contains(&permission))
    }

    /// Where the caller has a permission: in all of these places.
    pub fn reach(&self, permission: Permission) -> Vec<Reach> {
        let grants = self.grants.iter();
        grants
            .filter(|grant| grant.permissions.contains(&permission))
            .map(|grant| Reach {
                projects: grant.projects.clone(),
                services: grant.services.clone(),
            })
            .collect()
    }

    /// Whether the caller may do anything at all.
    pub fn has_any(&self) -> bool {
        let mut grants = self.grants.iter();
        grants.any(|grant| !grant.permissions.is_empty())
    }

    /// Whether the caller may know which projects there are.
    pub fn has_all_projects(&self) -> bool {
        let mut grants = self.grants.iter();
        grants.any(|grant| grant.projects == Scope::All)
    }
}

/// The names that a task must have for what [`authorise`] let through.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "what changes a task must not do so before its name is known to be admitted"]
pub struct TaskNames(Vec<BTreeSet<NamePattern>>);

impl Denied {
    /// What is lacking, in one word.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Permission(permission) => permission.as_str(),
            Self::Project => "project",
            Self::Service(_) => "service",
            Self::TaskName => "task-name",
        }
    }
}

impl TaskNames {
    /// Every name, also one that is not known.
    pub fn all() -> Self {
        Self(Vec::new())
    }

    /// Whether the name does not matter.
    pub fn are_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a task of this name may be changed. `None`: its name is not known.
    pub fn admit(&self, name: Option<&str>) -> bool {
        let matches = |patterns: &BTreeSet<NamePattern>, name: &str| {
            let mut patterns = patterns.iter();
            patterns.any(|pattern| pattern.matches(name))
        };
        let mut limits = self.0.iter();
        limits.all(|patterns| name.is_some_and(|name| matches(patterns, name)))
    }
}

/// Who may name an entry of `storage_credentials`, and in which projects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageGrant {
    /// The callers.
    pub callers: Scope<CallerName>,
    /// The projects.
    pub projects: Scope<ProjectName>,
}

impl StorageGrant {
    /// Whether this caller may name the entry in this project.
    pub fn covers(&self, caller: &CallerName, project: &ProjectName) -> bool {
        self.callers.contains(caller) && self.projects.contains(project)
    }
}

/// What a caller lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The permission.
    #[error("the caller lacks the permission {}", .0.as_str())]
    Permission(Permission),
    /// The project.
    #[error("the caller may not use this project")]
    Project,
    /// The service.
    #[error("the caller may not use the service {0}")]
    Service(ServiceName),
    /// The name of the task, which may not be known.
    #[error("the caller may not change tasks of this name")]
    TaskName,
}

/// Where the configuration grants a caller any of `permissions` for tasks of one service in one
/// project.
pub fn places(
    caller: &Caller,
    permissions: &[Permission],
    project: &ProjectName,
    service: &ServiceName,
) -> Vec<String> {
    let grants_it = |grant: &&Grant| {
        permissions
            .iter()
            .any(|permission| grant.permissions.contains(permission))
            && grant.projects.contains(project)
            && grant.services.contains(service)
    };
    let grants = caller.grants.iter().filter(grants_it);
    grants.map(|grant| grant.place.clone()).collect()
}

/// Whether a caller may do all of `permissions` to tasks of one service in one project, and to
/// tasks of which names. Each permission needs one grant that has it and covers the project and the
/// service.
pub fn authorise(
    caller: &Caller,
    permissions: &[Permission],
    project: &ProjectName,
    service: &ServiceName,
) -> Result<TaskNames, Denied> {
    if let Some(missing) = permissions
        .iter()
        .find(|permission| !caller.has(**permission))
    {
        return Err(Denied::Permission(*missing));
    }
    let mut names = TaskNames::all();
    for permission in permissions {
        let with_it = |grant: &&Grant| grant.permissions.contains(permission);
        let in_project = |grant: &&Grant| grant.projects.contains(project);
        let grants = caller.grants.iter().filter(with_it);
        let mut here: Vec<&Grant> = grants.filter(in_project).collect();
        if here.is_empty() {
            return Err(Denied::Project);
        }
        here.retain(|grant| grant.services.contains(service));
        if here.is_empty() {
            return Err(Denied::Service(service.clone()));
        }
        let mut patterns = BTreeSet::new();
        let mut has_limit = true;
        for grant in here {
            match &grant.tasks {
                Scope::All => has_limit = false,
                Scope::Only(names) => patterns.extend(names.iter().cloned()),
            }
        }
        if has_limit {
            names.0.push(patterns);
        }
    }
    Ok(names)
}
