//! The handle's other side: what tests and the operator of a sandbox do to the cloud, and ask of
//! it.

use std::time::Duration;

use super::{
    Account, Cloud, CloudOptions, Fault, FaultHandle, OmsSpec, Operation, RecordedRequest, Service,
    SmsSpec, StartKeys, TaskSwitches, TemporaryKeys, iam::Scope, seeds,
};

/// A task in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskLine {
    /// The service that runs it, OMS or SMS.
    pub service: Service,
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its state: the word of SMS, or the number of OMS as text.
    pub state: String,
}

/// Options and time.
impl Cloud {
    /// Changes how the cloud behaves from here on. The ports and the account stay as they are.
    pub fn configure(&self, change: impl FnOnce(&mut CloudOptions)) {
        change(&mut self.state().options);
    }

    /// Moves the cloud's clock ahead: tasks progress, tokens age.
    pub fn advance(&self, by: Duration) {
        self.state().advance(by);
    }
}

/// Accounts and tokens.
impl Cloud {
    /// Who may log in, with the present password.
    pub fn account(&self) -> Account {
        self.state().iam.account().clone()
    }

    /// Adds a project that the same user may use; its name is a region's.
    pub fn add_project(&self, id: &str, name: &str) -> Account {
        let mut state = self.state();
        state.iam.add_project(id, name);
        Account {
            project_id: id.to_owned(),
            region: name.to_owned(),
            ..state.iam.account().clone()
        }
    }

    /// Issues a token for the account's first project, past the login call.
    pub fn issue_token(&self) -> String {
        let state = &mut *self.state();
        let (now, scope) = (state.now(), state.iam.account().project_id.clone());
        state.iam.issue(Scope::Project(scope), &state.options, now)
    }

    /// Ends every token that was issued so far.
    pub fn revoke_tokens(&self) {
        self.state().iam.revoke();
    }

    /// Changes the password. That ends every token and unlocks the account.
    pub fn set_password(&self, password: &str) {
        self.state().iam.set_password(password);
    }

    /// Locks the account for logins, or unlocks it. Tokens stay good.
    pub fn lock_account(&self, locked: bool) {
        self.state().iam.set_locked(locked);
    }

    /// How many tokens were issued.
    pub fn tokens_issued(&self) -> usize {
        self.state().iam.issued()
    }

    /// Gives the user one more access key, or another secret key for one that it has.
    pub fn add_access_key(&self, access_key: &str, secret_key: &str) {
        self.state().iam.add_access_key(access_key, secret_key);
    }

    /// Takes an access key away. Returns whether there was such a key.
    pub fn remove_access_key(&self, access_key: &str) -> bool {
        self.state().iam.remove_access_key(access_key)
    }

    /// Issues temporary keys, past the metadata service.
    pub fn issue_temporary_keys(&self) -> TemporaryKeys {
        let state = &mut *self.state();
        let now = state.now();
        state.iam.issue_temporary_keys(&state.options, now)
    }

    /// Ends every temporary key that was issued so far.
    pub fn revoke_temporary_keys(&self) {
        self.state().iam.revoke_temporary_keys();
    }

    /// Ends every token of the metadata service.
    pub fn revoke_metadata_tokens(&self) {
        self.state().iam.revoke_metadata_tokens();
    }

    /// How many temporary keys were issued.
    pub fn temporary_keys_issued(&self) -> usize {
        self.state().iam.temporary_keys_issued()
    }

    /// How long tokens live that are issued from here on.
    pub fn set_token_lifetime(&self, lifetime: Duration) {
        self.configure(|options| options.token_lifetime = lifetime);
    }
}

/// Tasks.
impl Cloud {
    /// Adds tasks in every state of both services and returns them. The ids are the same in every
    /// fresh cloud.
    pub fn seed(&self) -> Vec<TaskLine> {
        seeds::plant(self);
        self.tasks()
    }

    /// Every task, those of OMS first, oldest first.
    pub fn tasks(&self) -> Vec<TaskLine> {
        let state = &mut *self.state();
        let now = state.now();
        let oms = state.oms.settled(now).iter().map(|task| TaskLine {
            service: Service::Oms,
            id: task.id_text(),
            name: task.name.clone(),
            state: task.status.to_string(),
        });
        let sms = state.sms.settled(now).iter().map(|task| TaskLine {
            service: Service::Sms,
            id: task.id.clone(),
            name: task.name.clone(),
            state: task.state.clone(),
        });
        oms.chain(sms).collect()
    }

    /// Adds a task to OMS and returns its id.
    pub fn add_oms(&self, spec: OmsSpec) -> String {
        let state = &mut *self.state();
        let now = state.now();
        state.oms.add(spec, &state.options, now)
    }

    /// Adds a task to SMS and returns its id.
    pub fn add_sms(&self, spec: SmsSpec) -> String {
        let state = &mut *self.state();
        let now = state.now();
        state.sms.add(spec, &state.options, now)
    }

    /// Replaces the peculiarities of a task. Returns whether there is such a task.
    pub fn switch(&self, id: &str, switches: TaskSwitches) -> bool {
        let state = &mut *self.state();
        let now = state.now();
        if let Some(task) = state.oms.get(id, now) {
            task.switches = switches;
            return true;
        }
        let task = state.sms.get(id, now);
        task.map(|task| task.switches = switches).is_some()
    }

    /// The status that an OMS task really has, whatever reads show; `None` if there is no such
    /// task.
    pub fn oms_status(&self, id: &str) -> Option<i64> {
        let state = &mut *self.state();
        let now = state.now();
        state.oms.get(id, now).map(|task| task.status)
    }

    /// Sets an OMS task's status, as another person would. It holds until somebody calls, except
    /// running, which goes on to its end. Returns whether there is such a task.
    pub fn set_oms_status(&self, id: &str, status: i64) -> bool {
        let state = &mut *self.state();
        let now = state.now();
        let task = state.oms.get(id, now);
        task.map(|task| task.set_status(status, now)).is_some()
    }

    /// What the last accepted start of an OMS task brought along; `None` before the first one.
    pub fn oms_start_keys(&self, id: &str) -> Option<StartKeys> {
        let state = &mut *self.state();
        let now = state.now();
        state.oms.get(id, now)?.start_keys.clone()
    }

    /// The state that an SMS task really has, whatever reads show; `None` if there is no such task.
    pub fn sms_state(&self, id: &str) -> Option<String> {
        let state = &mut *self.state();
        let now = state.now();
        state.sms.get(id, now).map(|task| task.state.clone())
    }

    /// Sets an SMS task's state and that of its source server with it, as another person would. It
    /// holds until somebody calls, except running, which goes on to its end. Returns whether there
    /// is such a task.
    pub fn set_sms_state(&self, id: &str, task_state: &str) -> bool {
        let state = &mut *self.state();
        let now = state.now();
        let task = state.sms.get(id, now);
        task.map(|task| task.set_state(task_state, now)).is_some()
    }

    /// Sets the state of an SMS task's source server and of its agent's connection, and nothing
    /// else. An agent that comes back obeys a stop that waits for it. Returns whether there is such
    /// a task.
    pub fn set_sms_source(&self, id: &str, source_state: &str, connected: bool) -> bool {
        let state = &mut *self.state();
        let now = state.now();
        let task = state.sms.get(id, now);
        task.map(|task| task.set_source(source_state, connected, now))
            .is_some()
    }

    /// Removes a task at once, as another person would. Returns whether there was such a task.
    pub fn remove(&self, id: &str) -> bool {
        let state = &mut *self.state();
        state.oms.remove(id) || state.sms.remove(id)
    }
}

/// Faults and records.
impl Cloud {
    /// Lets something go wrong. Faults that were asked for earlier are met first.
    pub fn fault(&self, fault: Fault) -> FaultHandle {
        self.state().faults.arm(fault)
    }

    /// Ends every fault.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// The requests that arrived, at most the last 200 000, in the order of their arrival.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.state().records.all()
    }

    /// How many requests asked for an operation, of one task or of any.
    pub fn count(&self, operation: Operation, task: Option<&str>) -> usize {
        self.state().records.count(operation, task)
    }

    /// Forgets the requests that arrived so far.
    pub fn clear_requests(&self) {
        self.state().records.clear();
    }
}
