//! The settings of a sandbox.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use crate::{
    api::{self, Limits, RateLimit, StreamLimits},
    config::Config,
    domain::{
        access::{Caller, Permission},
        secret::SecretSource,
        service::{ProjectName, ServiceName},
    },
    identity,
    listener::ConnectionLimits,
    operations,
    sandbox::Cloud,
    store, transport,
    upstream::{self, Pace},
};

/// Whoever tries the gateway out may send what they like.
const NO_LIMIT: RateLimit = RateLimit {
    requests_per_second: 1_000_000,
    burst: 1_000_000,
};
/// The longest that one request to the cloud may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// The settings of a gateway in front of a simulated cloud, for whoever tries it out.
pub(super) fn settings(
    listen: SocketAddr,
    cloud: &Cloud,
    password: SecretSource,
    database: PathBuf,
) -> Config {
    let account = cloud.account();
    let project = ProjectName::parse("sandbox").expect("the name is well formed");
    let endpoints: BTreeMap<ServiceName, String> = upstream::catalogue()
        .into_iter()
        .filter_map(|service| {
            let url = match service.name.as_str() {
                "oms" => cloud.oms_url(),
                "sms" => cloud.sms_url(),
                _ => return None,
            };
            Some((service.name, url))
        })
        .collect();
    let project_settings = upstream::ProjectSettings {
        project_id: account.project_id,
        region: account.region,
        services: endpoints.keys().cloned().collect(),
        iam_endpoint: cloud.iam_url(),
        endpoints,
        credentials: upstream::CredentialSettings::Password {
            domain: account.domain,
            user: account.user,
            password,
        },
    };
    Config {
        audit: None,
        api: api(listen, project.clone()),
        listener: None,
        connections: ConnectionLimits {
            all: 10_000,
            per_peer: 10_000,
        },
        identity: identity::Settings {
            anonymous: Caller::anonymous(Permission::ALL.iter().copied().collect()),
            callers: Vec::new(),
            issuers: Vec::new(),
        },
        telemetry: crate::telemetry::Settings::default(),
        store: store::Settings::Sqlite { path: database },
        operations: operations::Settings {
            deadline: Duration::from_mins(30),
            poll_min: Duration::from_millis(500),
            poll_max: Duration::from_secs(10),
            exchange_max: REQUEST_TIMEOUT,
            concurrency: 64,
            history: Duration::from_hours(24),
        },
        transport: transport::Settings {
            connect_timeout: Duration::from_secs(3),
            request_timeout: REQUEST_TIMEOUT,
            ca_file: None,
        },
        upstream: upstream::Settings {
            freshness: Duration::from_millis(500),
            projects: BTreeMap::from([(project, project_settings)]),
            storage_credentials: BTreeMap::new(),
            pace: Pace {
                requests_per_second: 50,
                burst: 100,
            },
        },
    }
}

fn api(listen: SocketAddr, project: ProjectName) -> api::Settings {
    api::Settings {
        listen,
        public_url: None,
        trusted_proxies: Vec::new(),
        workers: 2,
        default_wait: Duration::from_secs(30),
        max_wait: Duration::from_mins(2),
        drain_timeout: Duration::from_secs(5),
        max_body: 1 << 20,
        limits: Limits {
            streams: StreamLimits {
                all: 1000,
                per_caller: 1000,
            },
            concurrent_requests: 10_000,
            running_operations: 10_000,
            rate: NO_LIMIT,
        },
        default_project: Some(project),
        storage_grants: BTreeMap::new(),
    }
}
