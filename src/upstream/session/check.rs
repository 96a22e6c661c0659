//! Whether a credential is dead that a service calls so in words of its own, as opposed to those of
//! the API gateway in front of it.
//!
//! Such words can be about the task just as well, or about the keys of a bucket. So the service is
//! asked for something else: if it says the same to that, it is the credential.

use std::{cell::Cell, rc::Rc, time::Duration};

use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::{Session, class, sending::Sending};
use crate::{
    domain::service::{Patience, Sent, UpstreamError, UpstreamErrorKind},
    transport::Request,
    upstream::{flow::Call, iam::Credential},
};

/// How long a request waits while others find out.
const PATIENCE: Duration = Duration::from_secs(10);

/// How it is found out. Clones are the same.
#[derive(Clone)]
pub(super) struct Check {
    /// A read that is about no task.
    request: Rc<Request>,
    last: Rc<Mutex<Option<Last>>>,
}

/// What was found out, for all who wanted to know before it began.
struct Last {
    began: Instant,
    credential: Credential,
    finding: Finding,
}

#[derive(Clone)]
enum Finding {
    Alive,
    Dead,
    /// The service did not say.
    Unknown(UpstreamError),
}

impl Check {
    pub(super) fn by(request: Request) -> Self {
        Self {
            request: Rc::new(request),
            last: Rc::default(),
        }
    }
}

impl Session {
    /// Whether a credential is dead that the service has just called so. An error if it cannot be
    /// found out.
    pub(super) async fn is_dead(&self, credential: &Credential) -> Result<bool, UpstreamError> {
        let Some(check) = &self.check else {
            return Ok(false);
        };
        let asked = Instant::now();
        let Ok(mut last) = timeout(PATIENCE, check.last.lock()).await else {
            return Err(self.untold());
        };
        let finding = match &*last {
            Some(last) if last.began >= asked && last.credential.is(credential) => {
                last.finding.clone()
            }
            _ if credential.is_refused() => Finding::Dead,
            _ => {
                let began = Instant::now();
                let finding = self.find_out(&check.request, credential).await;
                *last = Some(Last {
                    began,
                    credential: credential.clone(),
                    finding: finding.clone(),
                });
                finding
            }
        };
        match finding {
            Finding::Alive => Ok(false),
            Finding::Dead => Ok(true),
            Finding::Unknown(error) => Err(error),
        }
    }

    async fn find_out(&self, request: &Request, credential: &Credential) -> Finding {
        let sending = Sending {
            session: self,
            request,
            clearance: None,
            tried: Cell::new(None),
        };
        let call = Call {
            method: request.method,
            clearance: None,
            patience: &Patience::default(),
            fresh_connection: true,
        };
        let answer = self.flow.carry(call, &sending).await;
        let outcome = match &answer {
            Ok(response) => class(response.status),
            Err(error) => error.kind.as_str(),
        };
        let service = self.service().as_str();
        self.metrics.request(service, "list", outcome);
        let tried = match answer {
            Ok(_) => sending.tried.take(),
            Err(error) => return Finding::Unknown(error),
        };
        match tried {
            // Another one has taken its place, for whatever reason.
            Some(tried) if tried.credential.is_later_than(credential) => Finding::Dead,
            // Keys that worked before those which others try just now.
            Some(tried) if !tried.credential.is(credential) => Finding::Unknown(self.untold()),
            Some(tried) if tried.is_accepted => Finding::Alive,
            Some(tried) if tried.is_blamed || tried.refusal.is_some() => Finding::Dead,
            Some(_) | None => Finding::Unknown(self.untold()),
        }
    }

    fn untold(&self) -> UpstreamError {
        UpstreamError {
            kind: UpstreamErrorKind::Unavailable,
            sent: Sent::No,
            retry_after: None,
            answer: None,
            detail: format!(
                "The service {} refused a credential of the gateway, and then did not say whether it takes it.",
                self.service()
            ),
        }
    }
}
