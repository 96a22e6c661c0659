//! What a good configuration means.

use std::time::Duration;

use super::{MINIMAL, complete, valid};
use crate::{
    config::Config,
    domain::{
        access::{Permission, Scope},
        secret::SecretSource,
        service::{CallerName, ProjectName, ServiceName},
    },
    identity::Key,
    store,
    telemetry::Format,
    upstream::{AccessKeySource, CredentialSettings},
};

#[test]
fn the_record_may_be_on_a_server() {
    let text = format!(
        "[store]\nurl = \"postgres://gateway@db/operations\"\npassword = {{ file = \"SECRET\" }}\n{MINIMAL}"
    );
    let config = valid(&text, &[]);
    assert!(matches!(config.store, store::Settings::Postgres(_)));
    assert_eq!(config.store.to_string(), "operations at db:5432");
    assert!(!format!("{:?}", config.store).contains("canary"));
}

#[test]
fn what_is_left_out_has_its_documented_default() {
    let config = valid(MINIMAL, &[]);
    assert_eq!(config.api.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.api.public_url, None);
    assert!(config.api.trusted_proxies.is_empty());
    assert!(config.api.workers >= 1);
    assert_eq!(config.api.default_wait, Duration::from_secs(30));
    assert_eq!(config.api.max_wait, Duration::from_mins(2));
    assert_eq!(config.api.drain_timeout, Duration::from_secs(30));
    assert_eq!(config.api.max_body, 1_048_576);
    let limits = config.api.limits;
    assert_eq!(limits.concurrent_requests, 10_000);
    assert_eq!(limits.running_operations, 1000);
    assert_eq!(
        (limits.rate.requests_per_second, limits.rate.burst),
        (100, 200)
    );
    assert_eq!((limits.streams.all, limits.streams.per_caller), (1000, 100));
    let connections = config.connections;
    assert_eq!((connections.all, connections.per_peer), (10_000, 1000));
    assert_eq!(config.api.default_project, ProjectName::parse("prod"));
    assert!(!config.identity.anonymous.has_any());
    assert!(config.identity.callers.is_empty() && config.identity.issuers.is_empty());
    assert_eq!(config.telemetry.level, "info");
    assert_eq!(config.telemetry.format, Format::Auto);
    assert!(matches!(config.store, store::Settings::Sqlite { .. }));
    assert_eq!(config.store.to_string(), "migration-gateway.db");
    assert_eq!(config.operations.deadline, Duration::from_mins(30));
    assert_eq!(config.operations.poll_min, Duration::from_millis(500));
    assert_eq!(config.operations.poll_max, Duration::from_secs(10));
    assert_eq!(config.operations.concurrency, 64);
    assert_eq!(config.operations.history, Duration::from_hours(720));
    assert_eq!(config.transport.connect_timeout, Duration::from_secs(3));
    assert_eq!(config.transport.request_timeout, Duration::from_secs(15));
    assert_eq!(config.transport.ca_file, None);
    assert_eq!(config.upstream.freshness, Duration::from_millis(500));
    assert_eq!(config.upstream.pace.requests_per_second, 50);
    assert_eq!(config.upstream.pace.burst, 100);
    assert!(config.upstream.storage_credentials.is_empty());
}

#[test]
fn a_project_offers_every_service_at_the_addresses_of_its_region() {
    let config = valid(MINIMAL, &[]);
    let prod = ProjectName::parse("prod").expect("a name");
    let project = &config.upstream.projects[&prod];
    assert_eq!(
        project.iam_endpoint,
        "https://iam.cn-north-4.myhuaweicloud.com"
    );
    let addresses: Vec<(&str, &str)> = project
        .endpoints
        .iter()
        .map(|(service, address)| (service.as_str(), address.as_str()))
        .collect();
    assert_eq!(
        addresses,
        [
            ("oms", "https://oms.cn-north-4.myhuaweicloud.com"),
            ("sms", "https://sms.cn-north-4.myhuaweicloud.com"),
        ]
    );
}

#[test]
fn the_reference_says_the_defaults_of_the_program() {
    let reference = include_str!("../../../config/gateway.toml")
        .replace("env = \"IAM_PASSWORD\"", "file = \"SECRET\"")
        .replace("env = \"ARCHIVE_SECRET_KEY\"", "file = \"SECRET\"")
        .replace("env = \"AUDIT_KEY\"", "file = \"SECRET\"");
    let reference = valid(&reference, &[]);
    let audit =
        "[audit]\npath = \"/var/log/migration-gateway/audit.log\"\nkey = { file = \"SECRET\" }";
    let minimal = valid(&format!("{MINIMAL}{audit}"), &[]);
    assert!(valid(MINIMAL, &[]).audit.is_none());
    let settings = |config: &Config| {
        let mut api = config.api.clone();
        api.storage_grants.clear();
        format!(
            "{api:#?} {:#?} {:#?} {:#?} {:#?} {:#?} {:#?}",
            config.audit,
            config.telemetry,
            config.store,
            config.operations,
            config.transport,
            config.upstream.pace
        )
    };
    assert_eq!(settings(&reference), settings(&minimal));
    let prod = ProjectName::parse("prod").expect("a name");
    let endpoints = |config: &Config| config.upstream.projects[&prod].endpoints.clone();
    assert_eq!(endpoints(&reference), endpoints(&minimal));
}

#[test]
fn each_kind_of_credentials_is_read() {
    let password = "kind = \"password\"
domain = \"acme\"
user = \"gateway\"
password = { file = \"SECRET\" }";
    assert!(MINIMAL.contains(password));
    let read = |by: &str, variables: &[(&str, &str)]| {
        let config = valid(&MINIMAL.replace(password, by), variables);
        let project = config.upstream.projects.into_values().next();
        project.expect("a project").credentials
    };
    let secret_key = "kind = \"access-key\"\nsecret_key = { file = \"SECRET\" }\n";
    let written = read(&format!("{secret_key}access_key = \"AK\""), &[]);
    assert!(matches!(
        written,
        CredentialSettings::AccessKey { access_key: AccessKeySource::Written(key), .. } if key == "AK"
    ));
    let variable = (
        "MIGRATION_GATEWAY__PROJECTS__PROD__CREDENTIALS__ACCESS_KEY",
        "AK",
    );
    assert!(matches!(
        read(secret_key, &[variable]),
        CredentialSettings::AccessKey { access_key: AccessKeySource::Written(key), .. } if key == "AK"
    ));
    let kept = read(
        &format!("{secret_key}access_key = {{ file = \"SECRET\" }}"),
        &[],
    );
    assert!(matches!(
        kept,
        CredentialSettings::AccessKey {
            access_key: AccessKeySource::Kept(SecretSource::File(_)),
            secret_key: SecretSource::File(_),
        }
    ));
    for (by, address) in [
        ("kind = \"ecs-agency\"", "http://169.254.169.254"),
        (
            "kind = \"ecs-agency\"\nmetadata_address = \"http://127.0.0.1:8090\"",
            "http://127.0.0.1:8090",
        ),
    ] {
        let CredentialSettings::EcsAgency { metadata_address } = read(by, &[]) else {
            panic!("another kind was read");
        };
        assert_eq!(metadata_address, address);
    }
}

#[test]
fn callers_and_storage_keys_are_read() {
    let text = complete().replace(
        "permissions = [\"*\"]\nprojects = [\"*\"]",
        "permissions = [\"tasks:read\"]\nprojects = [\"prod\"]\nservices = [\"oms\"]",
    );
    let config = valid(&text, &[]);
    let [configured] = config.identity.callers.as_slice() else {
        panic!("one caller expected");
    };
    let only = Key {
        sha256: [0xaa; 32],
        expires: None,
    };
    assert_eq!(configured.keys, [only]);
    let [grant] = configured.caller.grants.as_slice() else {
        panic!("one grant expected");
    };
    assert_eq!(grant.permissions, [Permission::TasksRead].into());
    let prod = ProjectName::parse("prod").expect("a name");
    assert_eq!(grant.projects, Scope::Only([prod.clone()].into()));
    let oms = ServiceName::parse("oms").expect("a name");
    assert_eq!(grant.services, Scope::Only([oms].into()));
    assert_eq!(grant.tasks, Scope::All);
    let stored = config
        .upstream
        .storage_credentials
        .values()
        .next()
        .expect("keys");
    assert!(matches!(stored.secret_key, SecretSource::File(_)));
    let team = CallerName::parse("team-a").expect("a name");
    assert_eq!(stored.grant.callers, Scope::Only([team].into()));
    assert_eq!(stored.grant.projects, Scope::Only([prod].into()));
}

#[test]
fn a_star_leaves_out_other_peoples_operations() {
    let config = valid(&complete(), &[]);
    let grant = &config.identity.callers[0].caller.grants[0];
    assert_eq!(grant.permissions, Permission::wildcard());
    assert_eq!(grant.services, Scope::All);
    let more = complete().replace(
        "[\"*\"]\nprojects",
        "[\"*\", \"operations:read-all\"]\nprojects",
    );
    let config = valid(&more, &[]);
    assert!(
        config.identity.callers[0]
            .caller
            .has(Permission::OperationsReadAll)
    );
}

#[test]
fn the_environment_lies_over_the_file() {
    let config = valid(
        &complete(),
        &[
            ("MIGRATION_GATEWAY__SERVER__LISTEN", "0.0.0.0:9000"),
            ("MIGRATION_GATEWAY__SERVER__WORKERS", "3"),
            ("MIGRATION_GATEWAY__OPERATIONS__HISTORY", "1d 12h"),
            (
                "MIGRATION_GATEWAY__ACCESS__ANONYMOUS",
                "tasks:read, status:read",
            ),
            ("MIGRATION_GATEWAY__PROJECTS__PROD__SERVICES", "oms"),
            (
                "MIGRATION_GATEWAY__CALLERS__TEAM-A__PERMISSIONS",
                "tasks:pause",
            ),
            ("MIGRATION_GATEWAY__DEFAULT_PROJECT", "prod"),
        ],
    );
    assert_eq!(config.api.listen.to_string(), "0.0.0.0:9000");
    assert_eq!(config.api.workers, 3);
    assert_eq!(config.operations.history, Duration::from_hours(36));
    let anonymous = [Permission::TasksRead, Permission::StatusRead];
    let granted = &config.identity.anonymous.grants[0].permissions;
    assert_eq!(*granted, anonymous.into());
    let project = config.upstream.projects.values().next().expect("a project");
    assert_eq!(project.services.len(), 1);
    assert_eq!(project.endpoints.len(), 1);
    let grant = &config.identity.callers[0].caller.grants[0];
    assert_eq!(grant.permissions, [Permission::TasksPause].into());
}

#[test]
fn an_endpoint_on_this_machine_may_do_without_tls() {
    for address in [
        "http://127.0.0.1:9001",
        "http://[::1]:9001",
        "http://localhost",
    ] {
        let line = format!("region = \"cn-north-4\"\nendpoints.oms = \"{address}\"\n");
        let text = complete().replace("region = \"cn-north-4\"\n", &line);
        let config = valid(&text, &[]);
        let project = config.upstream.projects.values().next().expect("a project");
        let oms = ServiceName::parse("oms").expect("a name");
        assert_eq!(project.endpoints[&oms], address);
    }
}
