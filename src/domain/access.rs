//! Who may do what. Pure: the same caller, permission, project and service always give the same answer.

use std::collections::BTreeSet;

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
        /// Show everybody's operations. Not part of `*`.
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
}

/// Somebody who asks, and what they may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The name in the configuration.
    pub name: CallerName,
    /// What they may do.
    pub permissions: BTreeSet<Permission>,
    /// In which projects.
    pub projects: Scope<ProjectName>,
    /// With which services.
    pub services: Scope<ServiceName>,
}

impl Caller {
    /// Whoever sends no credentials: the given permissions, in every project and service.
    pub fn anonymous(permissions: BTreeSet<Permission>) -> Self {
        Self {
            name: CallerName::anonymous(),
            permissions,
            projects: Scope::All,
            services: Scope::All,
        }
    }

    /// Whether nobody has said who this is.
    pub fn is_anonymous(&self) -> bool {
        self.name == CallerName::anonymous()
    }

    /// Whether the caller has a permission at all, in whatever project and service.
    pub fn has(&self, permission: Permission) -> bool {
        self.permissions.contains(&permission)
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
}

/// Whether a caller may do all of `permissions` to the tasks of one service in one project.
pub fn authorise(
    caller: &Caller,
    permissions: &[Permission],
    project: &ProjectName,
    service: &ServiceName,
) -> Result<(), Denied> {
    if let Some(missing) = permissions
        .iter()
        .find(|permission| !caller.has(**permission))
    {
        return Err(Denied::Permission(*missing));
    }
    if !caller.projects.contains(project) {
        return Err(Denied::Project);
    }
    if !caller.services.contains(service) {
        return Err(Denied::Service(service.clone()));
    }
    Ok(())
}
