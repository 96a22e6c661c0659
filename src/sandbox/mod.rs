//! A simulated cloud: IAM, OMS v2 and SMS v3 on three loopback ports, over real HTTP.
//!
//! It is a reading of the vendor's documentation that shares no code with the clients under test,
//! so that a mistake in one is not repeated in the other. It keeps everything in memory, holds
//! tasks that really progress, and plays third parties, slow agents and faults of the network on
//! demand. It has no create calls, no task groups and no synchronisation tasks. A request is let in
//! by a token, or signed with an access key of the account, which can be a temporary one of the
//! metadata service.

mod answer;
mod call;
mod control;
mod faults;
mod iam;
mod oms;
mod options;
mod record;
mod run;
mod seeds;
mod server;
mod sms;
mod state;
#[cfg(test)]
mod tests;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use server::Server;
use state::State;

pub use answer::Answer;
pub use call::{Operation, Service};
pub use control::TaskLine;
pub use faults::{Fault, FaultHandle, FaultKind};
pub use iam::TemporaryKeys;
pub use oms::{OmsSpec, StartKeys};
pub use options::{
    Account, AfterStop, CloudOptions, ControlBody, DomainTokens, Ecs, LockShape, Missing, RunEnd,
    SmsGateCode, TaskSwitches,
};
pub use record::RecordedRequest;
pub use sms::SmsSpec;

/// What the threads of the server and the handles share.
type Shared = Arc<Mutex<State>>;

/// A running simulated cloud. Clones are handles to the same one; it stops with the last of them.
#[derive(Clone)]
pub struct Cloud {
    shared: Shared,
    server: Arc<Server>,
}

impl Cloud {
    /// Starts the three services on 127.0.0.1 and returns when they listen. It needs no runtime of
    /// the caller's.
    ///
    /// Fails when a port cannot be bound or a thread cannot be started.
    pub fn start(options: CloudOptions) -> io::Result<Self> {
        let ports = options.ports;
        let shared: Shared = Arc::new(Mutex::new(State::new(options)));
        let server = Server::start(ports, Arc::clone(&shared))?;
        Ok(Self {
            shared,
            server: Arc::new(server),
        })
    }

    /// Stops the services: connections are cut, whatever hangs ends, and the ports are free when
    /// this returns.
    pub fn stop(&self) {
        self.server.stop();
    }

    /// The base URL of IAM, without a slash at its end.
    pub fn iam_url(&self) -> String {
        self.server.url(Service::Iam)
    }

    /// The base URL of the metadata service of a simulated ECS, without a slash at its end. It is
    /// that of IAM.
    pub fn metadata_url(&self) -> String {
        self.iam_url()
    }

    /// The base URL of OMS, without a slash at its end.
    pub fn oms_url(&self) -> String {
        self.server.url(Service::Oms)
    }

    /// The base URL of SMS, without a slash at its end.
    pub fn sms_url(&self) -> String {
        self.server.url(Service::Sms)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.shared)
    }
}

/// The state. A panic of another holder leaves it usable, since every change of it is a plain
/// assignment.
fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
