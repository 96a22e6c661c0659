//! What can be chosen about the simulated cloud. Wherever the vendor's documents contradict each
//! other or are silent, there is a switch.

use std::{fmt, time::Duration};

/// Who may log in, and where its tasks are.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// The name of the account, which the vendor calls a domain.
    pub domain: String,
    /// The name of the user.
    pub user: String,
    /// The user's password.
    pub password: String,
    /// The access key, for requests that are signed.
    pub access_key: String,
    /// The secret key that belongs to it.
    pub secret_key: String,
    /// The id of the project.
    pub project_id: String,
    /// The region, which is the name of the project too.
    pub region: String,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            domain: "sandbox".to_owned(),
            user: "svc-migrate".to_owned(),
            password: "Sandbox-Password-1".to_owned(),
            access_key: "SANDBOXACCESSKEY0001".to_owned(),
            secret_key: "SandboxSecretKey000000000000000000000001".to_owned(),
            project_id: "2c0689c860ad4728a497c91ec0844383".to_owned(),
            region: "cn-north-4".to_owned(),
        }
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Account")
            .field("domain", &self.domain)
            .field("user", &self.user)
            .field("project_id", &self.project_id)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// How the cloud behaves. The defaults follow the present documents, with delays that suit tests.
#[derive(Clone, Debug)]
pub struct CloudOptions {
    /// The ports of IAM, OMS and SMS; 0 takes any that is free.
    pub ports: [u16; 3],
    /// Who may log in.
    pub account: Account,
    /// How long a token lives; the vendor's live 24 hours.
    pub token_lifetime: Duration,
    /// The length of a token in characters, 16 to 16384.
    pub token_length: usize,
    /// Wrong passwords within 15 minutes that lock the account for 15 minutes; `None` never locks
    /// it.
    pub wrong_logins_before_lock: Option<u32>,
    /// In which shape a locked account is told; the documents leave it open.
    pub lock_shape: LockShape,
    /// Whether a token without a project is good for SMS; OMS never takes one.
    pub domain_tokens: DomainTokens,
    /// How long temporary keys live; the vendor's live some hours.
    pub temporary_key_lifetime: Duration,
    /// The metadata service of the simulated ECS.
    pub ecs: Ecs,
    /// Requests that each of OMS and SMS answers in a second before it throttles; `None` never
    /// throttles.
    pub requests_per_second: Option<u32>,
    /// From an accepted stop to the paused state.
    pub pause_delay: Duration,
    /// How long an OMS task waits after an accepted start before it runs.
    pub start_delay: Duration,
    /// How long SMS shows `DELETING` after an accepted delete; zero removes the task at once.
    pub delete_delay: Duration,
    /// How long an added task runs from its beginning to its end, unless it says otherwise.
    pub run_duration: Duration,
    /// The body of an accepted stop, start or delete.
    pub control_body: ControlBody,
    /// How OMS says that a task does not exist.
    pub oms_missing: Missing,
    /// OMS refuses to delete a waiting task (status 1).
    pub oms_refuses_delete_waiting: bool,
    /// OMS lets a retrying task (status 6) be stopped.
    pub oms_stops_retrying: bool,
    /// How SMS says that a task does not exist.
    pub sms_missing: Missing,
    /// With which code SMS refuses to delete a task that its source server is busy with.
    pub sms_gate_code: SmsGateCode,
    /// SMS checks `Content-Type` and the length of bodies as its first version did, with HTTP 401.
    pub sms_legacy_checks: bool,
}

impl CloudOptions {
    /// Delays that a person can watch, and no refusal that the documents do not ask for.
    pub fn for_people() -> Self {
        Self {
            pause_delay: Duration::from_secs(2),
            start_delay: Duration::from_secs(2),
            delete_delay: Duration::from_secs(1),
            oms_stops_retrying: true,
            ..Self::default()
        }
    }
}

impl Default for CloudOptions {
    fn default() -> Self {
        Self {
            ports: [0; 3],
            account: Account::default(),
            token_lifetime: Duration::from_hours(24),
            token_length: 1200,
            wrong_logins_before_lock: Some(5),
            lock_shape: LockShape::Keystone,
            domain_tokens: DomainTokens::Refused,
            temporary_key_lifetime: Duration::from_hours(6),
            ecs: Ecs::WithTokens,
            requests_per_second: None,
            pause_delay: Duration::from_millis(150),
            start_delay: Duration::from_millis(100),
            delete_delay: Duration::from_millis(100),
            run_duration: Duration::from_mins(10),
            control_body: ControlBody::Empty,
            oms_missing: Missing::Http400,
            oms_refuses_delete_waiting: false,
            oms_stops_retrying: false,
            sms_missing: Missing::Http404,
            sms_gate_code: SmsGateCode::Sms7719,
            sms_legacy_checks: false,
        }
    }
}

/// The body of an accepted control call; none is documented, and all of these were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlBody {
    /// No byte.
    Empty,
    /// `{}`.
    Braces,
    /// A word that is no JSON.
    Text,
}

/// The HTTP status of the answer about a task that does not exist; the code in the body stays the
/// service's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// 404.
    Http404,
    /// 400.
    Http400,
}

/// The code with which SMS refuses a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmsGateCode {
    /// `SMS.7719`, seen in the field.
    Sms7719,
    /// `SMS.2015`, of the official table.
    Sms2015,
}

/// What the metadata service of an ECS gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ecs {
    /// Keys, to whoever brings a token that it gave before.
    WithTokens,
    /// Keys to everybody. Whoever asks for a token gets this status.
    WithoutTokens(u16),
    /// No keys, since the ECS has no agency; tokens all the same.
    WithoutAgency,
}

/// The shape of the answer to a login into a locked account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockShape {
    /// As the other errors of the token call.
    Keystone,
    /// `IAM.0061`, as the other calls of IAM.
    Iam0061,
}

/// What a token is good for that has no project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainTokens {
    /// For neither OMS nor SMS.
    Refused,
    /// For SMS.
    GoodForSms,
}

/// What becomes of a task after an accepted stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterStop {
    /// It comes to rest.
    #[default]
    Paused,
    /// It finishes well while it is being stopped.
    Succeeded,
    /// It fails while it is being stopped.
    Failed,
    /// It stays half way for ever.
    Stuck,
}

/// How a run ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunEnd {
    /// Well.
    #[default]
    Success,
    /// With an error of the source.
    Failure,
}

/// Peculiarities of one task. The default has none.
#[derive(Clone, Debug, Default)]
pub struct TaskSwitches {
    /// Instead of the cloud's own pause delay.
    pub pause_delay: Option<Duration>,
    /// Instead of the cloud's own delete delay (SMS).
    pub delete_delay: Option<Duration>,
    /// This many reads after an accepted stop or start still show the state before it.
    pub late_polls: u32,
    /// What a stop leads to.
    pub after_stop: AfterStop,
    /// This many deletes of a task at rest are refused as if it were in progress.
    pub refuse_deletes: u32,
    /// For so long after it came to rest, deletes are refused as if it were in progress.
    pub refuse_deletes_for: Duration,
    /// This many stops are accepted and have no effect.
    pub ignore_stops: u32,
    /// This many starts are accepted and have no effect.
    pub ignore_starts: u32,
    /// This many deletes are accepted and have no effect.
    pub ignore_deletes: u32,
    /// After it came to rest, this many reads still show the source server at work (SMS).
    pub source_lag_polls: u32,
    /// For so long after it came to rest, the source server is still at work (SMS).
    pub source_lag: Duration,
}

impl TaskSwitches {
    /// Takes one of a number of times that are left.
    pub(super) fn take(left: &mut u32) -> bool {
        let some = *left > 0;
        *left = left.saturating_sub(1);
        some
    }
}
