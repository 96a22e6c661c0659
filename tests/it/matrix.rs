//! Who may do what, tried for every kind of caller, permission, project, service and route: what is
//! allowed is what the configuration declares, and nothing else.

use std::{collections::BTreeSet, fmt::Write as _, thread};

use migration_gateway::sandbox::{OmsSpec, SmsSpec};

use serde_json::json;

use crate::support::{
    authority::Authority,
    gateway::{KEY, Place},
    http::{Answer, Client},
    issuer::{Issuer, SigningKey},
};

#[rustfmt::skip]
const PERMISSIONS: [&str; 7] = [
    "tasks:read", "tasks:pause", "tasks:start", "tasks:delete", "operations:read", "operations:read-all", "status:read",
];
const PROJECTS: [&str; 2] = ["default", "other"];
/// Each service, and the id of a task of it that is not there.
const SERVICES: [(&str, &str); 2] = [("oms", "7"), ("sms", "a-7")];

/// Routes of a task: method, what follows its path, and what is needed.
const ON_TASK: [(&str, &str, &[&str]); 5] = [
    ("GET", "?", &["tasks:read"]),
    ("POST", "/pause?", &["tasks:pause"]),
    ("POST", "/start?", &["tasks:start"]),
    ("DELETE", "?", &["tasks:delete"]),
    ("DELETE", "?force=pause&", &["tasks:delete", "tasks:pause"]),
];
const ON_OPERATIONS: [&str; 2] = ["/operations", "/operations/op_01JGZ4K8W3M5N7P9R1T3V5X7Z9"];

/// What is declared together: permissions, in a project, with a service. No project and no service:
/// all of them.
#[derive(Clone, Debug)]
struct Declared {
    permissions: Vec<&'static str>,
    place: Option<(&'static str, &'static str)>,
}

impl Declared {
    /// One of each permission, project and service, what a forced delete needs, and what is needed
    /// to see the operations of others.
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for project in PROJECTS {
            for (service, _) in SERVICES {
                let single = PERMISSIONS.map(|permission| vec![permission]);
                let force = vec!["tasks:delete", "tasks:pause"];
                let see = vec!["operations:read", "operations:read-all"];
                all.extend(
                    single
                        .into_iter()
                        .chain([force, see])
                        .map(|permissions| Self {
                            permissions,
                            place: Some((project, service)),
                        }),
                );
            }
        }
        all
    }

    fn toml(&self) -> String {
        let (project, service) = self.place.expect("a place");
        let permissions = &self.permissions;
        format!(
            "permissions = {permissions:?}\nprojects = [\"{project}\"]\nservices = [\"{service}\"]\n"
        )
    }

    fn covers(&self, permission: &str, project: &str, service: &str) -> bool {
        let is_here = self.place.is_none_or(|place| place == (project, service));
        is_here && self.permissions.contains(&permission)
    }
}

/// An operation of another caller.
#[derive(Clone)]
struct Foreign {
    id: String,
    task: String,
    project: &'static str,
    service: &'static str,
}

impl Foreign {
    /// One for each project and service.
    fn all(place: &Place, owner: &Client) -> Vec<Self> {
        let mut all = Vec::new();
        for project in PROJECTS {
            for (service, _) in SERVICES {
                let task = match service {
                    "oms" => place.cloud.add_oms(OmsSpec::new("theirs", 3)),
                    _ => place.cloud.add_sms(SmsSpec::new("theirs", "ABORT")),
                };
                let paused = owner.post(&format!("/tasks/{task}/pause"));
                assert_eq!(paused.status, 200, "{paused:?}");
                let id = paused.json()["id"].as_str().expect("an id").to_owned();
                place.sql(&format!(
                    "UPDATE operations SET project = '{project}' WHERE id = '{id}'"
                ));
                all.push(Self {
                    id,
                    task,
                    project,
                    service,
                });
            }
        }
        all
    }
}

/// The ids of all operations that are listed for a caller, by pages of one.
fn listed(client: &Client, query: &str) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let mut next = String::new();
    loop {
        let page = client.get(&format!("/operations?page_size=1{query}{next}"));
        assert_eq!(page.status, 200, "{page:?}");
        let page = page.json();
        let operations = page["operations"].as_array().expect("operations");
        let is_last = page["next_page_token"].is_null();
        assert!(operations.len() == 1 || is_last, "a short page: {page}");
        ids.extend(
            operations
                .iter()
                .map(|one| one["id"].as_str().expect("an id").to_owned()),
        );
        if is_last {
            return ids;
        }
        let token = page["next_page_token"].as_str().expect("a token");
        next = format!("&page_token={token}");
    }
}

/// Tries to see every operation of another caller, and says where it was otherwise than declared.
fn wrong_sights(client: &Client, declared: &[Declared], foreign: &[Foreign]) -> Vec<String> {
    let reads = |one: &Declared| one.permissions.contains(&"operations:read");
    if !declared.iter().any(reads) {
        return Vec::new();
    }
    let mut wrongs = Vec::new();
    let mut expected = BTreeSet::new();
    for one in foreign {
        let is_shown = is_declared(declared, &["operations:read-all"], one.project, one.service);
        if is_shown {
            expected.insert(one.id.clone());
        }
        let only = listed(client, &format!("&task={}", one.task));
        let status = client.get(&format!("/operations/{}", one.id)).status;
        if (status == 200) != is_shown || only.contains(&one.id) != is_shown {
            wrongs.push(format!(
                "{declared:?}: {status} {only:?} in {} {}",
                one.project, one.service
            ));
        }
    }
    let all = listed(client, "");
    if all != expected {
        wrongs.push(format!(
            "{declared:?}: {all:?} are listed, and not {expected:?}"
        ));
    }
    wrongs
}

/// What a caller may do by its declarations.
fn is_declared(all: &[Declared], needed: &[&str], project: &str, service: &str) -> bool {
    needed.iter().all(|one| {
        all.iter()
            .any(|declared| declared.covers(one, project, service))
    })
}

/// Whether the request got past the question whether its caller may ask. `denied` is the status of
/// a no.
fn is_let_in(answer: &Answer, denied: u16) -> bool {
    match answer.status {
        200 | 404 => true,
        status if status == denied => {
            assert_eq!(answer.json()["sent"], "no", "{answer:?}");
            false
        }
        _ => panic!("neither in nor out: {answer:?}"),
    }
}

/// Tries every route, and says where it was otherwise than declared.
fn wrongs(client: &Client, declared: &[Declared], denied: u16) -> Vec<String> {
    let mut wrongs = Vec::new();
    let mut check = |method: &str, path: &str, expected: bool| {
        let answer = if path.contains("/7/start") {
            let keys = json!({"destination": {"access_key": "a", "secret_key": "b"}});
            client.post_json(path, &keys)
        } else {
            client.request(method, path)
        };
        if is_let_in(&answer, denied) != expected {
            wrongs.push(format!("{declared:?}: {method} {path}: {answer:?}"));
        }
    };
    for project in PROJECTS {
        for (service, id) in SERVICES {
            for (method, rest, needed) in ON_TASK {
                let expected = is_declared(declared, needed, project, service);
                check(
                    method,
                    &format!("/tasks/{id}{rest}project={project}"),
                    expected,
                );
            }
            let expected = is_declared(declared, &["tasks:read"], project, service);
            let path = format!("/tasks?project={project}&service={service}");
            check("GET", &path, expected);
        }
    }
    let reads = |one: &Declared| one.permissions.contains(&"operations:read");
    for path in ON_OPERATIONS {
        check("GET", path, declared.iter().any(reads));
    }
    check(
        "GET",
        "/whoami",
        declared.iter().any(|one| !one.permissions.is_empty()) || denied == 403,
    );
    wrongs
}

fn place() -> Place {
    Place::new().project("other", "8b0c6a30cfa04b2a9f4ce1fd9a8a8f11", "cn-east-3")
}

/// Tries several callers at the same time.
fn try_all<T: Sync>(
    (place, owner): (&Place, &Client),
    callers: &[(T, Vec<Declared>)],
    client: impl Fn(&T) -> Client + Copy + Send + Sync,
) {
    let foreign = &Foreign::all(place, owner);
    let wrong: Vec<String> = thread::scope(|scope| {
        let chunks: Vec<_> = callers.chunks(callers.len().div_ceil(4)).collect();
        let tried: Vec<_> = chunks
            .into_iter()
            .map(|chunk| {
                scope.spawn(move || {
                    let of = |(credential, declared): &(T, Vec<Declared>)| {
                        let client = client(credential);
                        let mut wrongs = wrongs(&client, declared, 403);
                        wrongs.extend(wrong_sights(&client, declared, foreign));
                        wrongs
                    };
                    chunk.iter().flat_map(of).collect::<Vec<_>>()
                })
            })
            .collect();
        tried
            .into_iter()
            .flat_map(|one| one.join().expect("answers"))
            .collect()
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn callers_with_keys_may_do_what_is_declared() {
    let mut place = place();
    let mut callers = Vec::new();
    for (index, declared) in Declared::all().into_iter().enumerate() {
        let name = format!("caller-{index}");
        place = place.caller(&name, &name, &declared.toml());
        callers.push((name, vec![declared]));
    }
    let gateway = place.start();
    try_all((&place, &gateway.client()), &callers, |key| {
        gateway.client_with(key)
    });
}

#[test]
fn callers_with_certificates_may_do_what_is_declared() {
    let (trusted, authority) = (Authority::new(), Authority::new());
    let mut place = place().encrypted(&trusted.listener(), &authority);
    let mut callers = Vec::new();
    for (index, declared) in Declared::all().into_iter().enumerate() {
        let name = match index % 2 {
            0 => format!("caller-{index}.example.com"),
            _ => format!("spiffe://example.com/caller-{index}"),
        };
        let toml = declared.toml();
        place = place.add(&format!(
            "\n[callers.caller-{index}]\ncertificate = \"{name}\"\n{toml}"
        ));
        callers.push((authority.caller(&[&name]), vec![declared]));
    }
    let gateway = place.start();
    let owner = gateway.encrypted(&trusted, None, Some(KEY));
    try_all((&place, &owner), &callers, |certified| {
        gateway.encrypted(&trusted, Some(certified), None)
    });
}

#[test]
fn bearers_of_tokens_may_do_what_is_declared_for_each_of_their_groups() {
    let key = SigningKey::elliptic("k1");
    let issuer = Issuer::with(&[&key]);
    let all = Declared::all();
    let mut groups = String::new();
    for (index, declared) in all.iter().enumerate() {
        let toml = declared.toml();
        writeln!(groups, "[issuers.corp.groups.group-{index}]\n{toml}").expect("text");
    }
    let place = place().add(&issuer.section("corp", &groups));
    let token = |indexes: &[usize]| {
        let names: Vec<String> = indexes
            .iter()
            .map(|index| format!("group-{index}"))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        issuer.token(&key, "alice", &names)
    };
    let mut callers: Vec<_> = (0..all.len())
        .map(|index| (token(&[index]), vec![all[index].clone()]))
        .collect();
    // Two and three groups: what one allows does not reach into the place of another.
    for index in 0..all.len() {
        let other = (index * 11 + 5) % all.len();
        let third = (index * 7 + 3) % all.len();
        let several = [index, other, third];
        let several = if index % 2 == 0 {
            &several[..2]
        } else {
            &several[..]
        };
        let declared = several.iter().map(|index| all[*index].clone()).collect();
        callers.push((token(several), declared));
    }
    callers.push((token(&[]), Vec::new()));
    let gateway = place.start();
    try_all((&place, &gateway.client()), &callers, |token| {
        gateway.client_with(token)
    });
}

#[test]
fn requests_without_credentials_may_do_what_is_declared_everywhere() {
    let mut place = place();
    for permission in PERMISSIONS {
        place = place.set("access.anonymous", &format!("[\"{permission}\"]"));
        let gateway = place.start();
        let declared = Declared {
            permissions: vec![permission],
            place: None,
        };
        let wrong = wrongs(&gateway.stranger(), &[declared], 401);
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
