use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{Caller, Denied, Grant, NamePattern, Permission, Scope, TaskNames, authorise};
use crate::domain::service::{CallerName, IssuerName, ProjectName, ServiceName};

fn project(name: &str) -> ProjectName {
    ProjectName::parse(name).unwrap()
}

fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

fn patterns(texts: &[&str]) -> Scope<NamePattern> {
    let pattern = |text: &&str| NamePattern::parse(text).unwrap();
    Scope::Only(texts.iter().map(pattern).collect())
}

fn grant(permissions: &[Permission], projects: &[&str], services: &[&str]) -> Grant {
    Grant {
        place: "callers.team-a".to_owned(),
        permissions: permissions.iter().copied().collect(),
        projects: Scope::Only(projects.iter().map(|name| project(name)).collect()),
        services: Scope::Only(services.iter().map(|name| service(name)).collect()),
        tasks: Scope::All,
    }
}

fn caller(grants: Vec<Grant>) -> Caller {
    let name = CallerName::configured("team-a").unwrap();
    Caller { name, grants }
}

#[test]
fn a_permission_of_one_grant_does_not_hold_in_the_project_of_another() {
    use Permission as P;
    let both = caller(vec![
        grant(&[P::TasksRead, P::TasksDelete], &["a"], &["oms"]),
        grant(&[P::TasksRead, P::TasksPause], &["b"], &["oms", "sms"]),
    ]);
    let (a, b, c) = (project("a"), project("b"), project("c"));
    let (oms, sms) = (service("oms"), service("sms"));
    let may = |needed: &[Permission], project, service| authorise(&both, needed, project, service);
    assert!(may(&[P::TasksDelete], &a, &oms).is_ok());
    assert_eq!(may(&[P::TasksDelete], &b, &oms), Err(Denied::Project));
    assert_eq!(may(&[P::TasksPause], &a, &oms), Err(Denied::Project));
    assert_eq!(
        may(&[P::TasksRead], &a, &sms),
        Err(Denied::Service(sms.clone()))
    );
    assert!(may(&[P::TasksRead], &b, &sms).is_ok());
    assert_eq!(may(&[P::TasksRead], &c, &oms), Err(Denied::Project));
    let missing = Denied::Permission(P::TasksStart);
    assert_eq!(may(&[P::TasksStart], &a, &oms), Err(missing));
    // Nowhere both, although each somewhere.
    for project in [&a, &b] {
        let force = may(&[P::TasksDelete, P::TasksPause], project, &oms);
        assert_eq!(force, Err(Denied::Project));
    }
}

#[test]
fn two_grants_that_cover_the_same_place_add_up() {
    use Permission as P;
    let both = caller(vec![
        grant(&[P::TasksDelete], &["a"], &["oms"]),
        grant(&[P::TasksPause], &["a"], &["oms"]),
    ]);
    let force = [P::TasksDelete, P::TasksPause];
    let names = authorise(&both, &force, &project("a"), &service("oms"));
    assert_eq!(names, Ok(TaskNames::all()));
}

#[test]
fn names_are_those_of_every_permission_that_is_needed() {
    use Permission as P;
    let mut delete = grant(&[P::TasksDelete], &["a"], &["oms"]);
    delete.tasks = patterns(&["logs-*", "tmp"]);
    let mut pause = grant(&[P::TasksPause], &["a"], &["oms"]);
    pause.tasks = patterns(&["logs-2026", "web"]);
    let limited = caller(vec![delete, pause.clone()]);
    let (a, oms) = (project("a"), service("oms"));
    let names = authorise(&limited, &[P::TasksDelete], &a, &oms).unwrap();
    assert!(!names.are_all());
    assert!(names.admit(Some("logs-1")) && names.admit(Some("tmp")));
    assert!(!names.admit(Some("web")) && !names.admit(Some("old-logs-1")));
    assert!(
        !names.admit(None),
        "a name that is not known is not admitted"
    );
    let names = authorise(&limited, &[P::TasksDelete, P::TasksPause], &a, &oms).unwrap();
    assert!(names.admit(Some("logs-2026")));
    for name in ["logs-1", "tmp", "web"] {
        assert!(!names.admit(Some(name)), "{name}");
    }
    // A further grant without a limit lifts it.
    let free = caller(vec![pause, grant(&[P::TasksPause], &["a"], &["oms"])]);
    let names = authorise(&free, &[P::TasksPause], &a, &oms).unwrap();
    assert!(names.are_all() && names.admit(None));
}

#[test]
fn a_caller_without_grants_may_do_nothing() {
    let nobody = caller(Vec::new());
    assert!(!nobody.has_any() && !nobody.has_all_projects());
    for permission in Permission::ALL {
        let denied = authorise(&nobody, &[*permission], &project("a"), &service("oms"));
        assert_eq!(denied, Err(Denied::Permission(*permission)));
    }
}

fn any_grant() -> impl Strategy<Value = Grant> {
    let permissions = proptest::sample::subsequence(Permission::ALL.to_vec(), 0..4);
    let projects = proptest::sample::subsequence(vec!["a", "b"], 0..3);
    let services = proptest::sample::subsequence(vec!["oms", "sms"], 0..3);
    (permissions, projects, services)
        .prop_map(|(permissions, projects, services)| grant(&permissions, &projects, &services))
}

proptest! {
    #[test]
    fn what_is_allowed_is_what_one_grant_allows(
        grants in proptest::collection::vec(any_grant(), 0..4),
        permission in proptest::sample::select(Permission::ALL.to_vec()),
        (in_project, with_service) in (proptest::sample::select(vec!["a", "b"]), proptest::sample::select(vec!["oms", "sms"])),
    ) {
        let (in_project, with_service) = (project(in_project), service(with_service));
        let declared = grants.iter().any(|grant| {
            grant.permissions.contains(&permission)
                && grant.projects.contains(&in_project)
                && grant.services.contains(&with_service)
        });
        let allowed = authorise(&caller(grants), &[permission], &in_project, &with_service);
        prop_assert_eq!(allowed.is_ok(), declared);
    }
}

#[test]
fn the_name_of_a_bearer_never_is_that_of_a_configured_caller() {
    let corp = IssuerName::parse("corp").unwrap();
    for claim in [
        "alice",
        "alice@example.com",
        "auth0|5f7c8ec7c33c6c004bbafe82",
        "repo:octo-org/octo-repo:environment:prod",
        "system:serviceaccount:default:builder",
        "a_b#EXT#@corp.example",
        &"x".repeat(200),
    ] {
        let name = CallerName::of_issuer(&corp, claim).unwrap();
        assert_eq!(name.as_str(), format!("corp:{claim}"));
        assert_eq!(CallerName::parse(name.as_str()), Some(name.clone()));
        assert_eq!(CallerName::configured(name.as_str()), None);
    }
    for claim in [
        "",
        &"x".repeat(201),
        "a b",
        "a\nb",
        "a\u{0}",
        "a\"b",
        "a\\b",
        "a'b",
        "<a>",
        "\u{fc}",
        "a\u{7f}",
        "a,b",
        "*",
        "a%0ab",
    ] {
        assert_eq!(CallerName::of_issuer(&corp, claim), None, "{claim:?}");
        assert_eq!(
            CallerName::parse(&format!("corp:{claim}")),
            None,
            "{claim:?}"
        );
    }
    for text in ["Corp:alice", ":alice", "", "a_b", &"x".repeat(64)] {
        assert_eq!(CallerName::parse(text), None, "{text:?}");
    }
    let configured: BTreeSet<_> = ["alice", "corp"].map(CallerName::configured).into();
    assert!(!configured.contains(&CallerName::of_issuer(&corp, "alice")));
}
