//! Links in answers. They are relative, or begin with the configured public address; never with
//! what a request says of itself.

use crate::domain::{
    operation::OperationId,
    service::{ProjectName, Services},
    task::TaskRef,
};

/// Makes links.
#[derive(Clone, Debug)]
pub(super) struct Links {
    base: String,
    default_project: Option<ProjectName>,
}

impl Links {
    /// Links below `public_url`, or relative ones.
    pub(super) fn new(public_url: Option<String>, default_project: Option<ProjectName>) -> Self {
        Self {
            base: public_url.unwrap_or_default(),
            default_project,
        }
    }

    /// The link to an operation.
    pub(super) fn operation(&self, id: OperationId) -> String {
        format!("{}/operations/{id}", self.base)
    }

    /// The link to a task, with as much of a query as is needed to find it again.
    pub(super) fn task(&self, task: &TaskRef, services: &Services) -> String {
        let mut query = Vec::new();
        if self.default_project.as_ref() != Some(&task.project) {
            query.push(format!("project={}", task.project));
        }
        if services
            .owner_of(&task.id)
            .is_none_or(|owner| owner.name != task.service)
        {
            query.push(format!("service={}", task.service));
        }
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{}/tasks/{}{mark}{}", self.base, task.id, query.join("&"))
    }
}
