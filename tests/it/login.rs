//! `check-config --login`: whether the cloud lets the gateway in, told before anything is served.

use std::{net::TcpListener, path::Path, process::Output};

use migration_gateway::sandbox::{Ecs, Operation};

use crate::{
    gateway,
    support::{
        credentials::{access_key, ecs_agency},
        gateway::Place,
    },
};

fn check(file: &Path, variables: &[(&str, &str)]) -> Output {
    gateway()
        .args(["check-config", "--login", "--config"])
        .arg(file)
        .envs(variables.iter().copied())
        .output()
        .expect("the program runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("output is UTF-8")
}

#[test]
fn every_project_logs_in_once_and_is_reported() {
    let place = Place::new();
    let second = place
        .cloud
        .add_project("0f5181caba0024e72f89c0045e707b91", "ap-southeast-3");
    let password = place.secret("password-2", &second.password);
    let project = format!(
        "[projects.second]\nproject_id = \"{}\"\nregion = \"{}\"\nservices = [\"oms\"]\n\
         [projects.second.endpoints]\niam = \"{}\"\noms = \"{}\"\n\
         [projects.second.credentials]\nkind = \"password\"\ndomain = \"{}\"\nuser = \"{}\"\n\
         password = {password}\n",
        second.project_id,
        second.region,
        place.cloud.iam_url(),
        place.cloud.oms_url(),
        second.domain,
        second.user,
    );
    let place = place.add(&project);
    let file = place.write_configuration();
    let output = check(&file, &[("MIGRATION_GATEWAY__DEFAULT_PROJECT", "default")]);
    assert_eq!(text(&output.stderr), "");
    assert_eq!(
        text(&output.stdout),
        "The configuration is right: 2 projects, 1 caller.\n\
         Project default: logged in.\nProject second: logged in.\n"
    );
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(place.cloud.tokens_issued(), 2);
    assert_eq!(place.cloud.count(Operation::Login, None), 2);
    assert_eq!(place.cloud.requests().len(), 2, "only logins are sent");
}

/// A place whose first project signs with an access key, and whose second signs with the keys of an
/// ECS.
fn signing_place() -> Place {
    let place = Place::new();
    let (keys, ecs) = (access_key(&place), ecs_agency(&place));
    let second = "0f5181caba0024e72f89c0045e707b91";
    place
        .credentials(&keys)
        .project_with("ecs", second, "ap-southeast-3", &ecs)
}

#[test]
fn where_requests_are_signed_one_list_shows_that_the_cloud_lets_the_gateway_in() {
    let place = signing_place();
    let output = check(&place.write_configuration(), &[]);
    assert_eq!(text(&output.stderr), "");
    assert_eq!(
        text(&output.stdout),
        "The configuration is right: 2 projects, 1 caller.\n\
         Project default: a signed request was answered.\n\
         Project ecs: a signed request was answered.\n"
    );
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(place.cloud.count(Operation::Login, None), 0);
    assert_eq!(place.cloud.count(Operation::List, None), 2);
    assert_eq!(place.cloud.requests().len(), 4);
}

#[test]
fn a_signature_that_the_cloud_refuses_is_a_fault_of_the_configuration() {
    let place = signing_place();
    let file = place.write_configuration();
    place.secret("secret-key", "another-secret-key");
    place
        .cloud
        .configure(|options| options.ecs = Ecs::WithoutAgency);
    let output = check(&file, &[]);
    assert_eq!(output.status.code(), Some(2));
    let message = text(&output.stderr);
    let [signed, ecs] = message.trim_end().lines().collect::<Vec<_>>()[..] else {
        panic!("two lines expected: {message}");
    };
    let begin = "Project default: no login (credentials-refused): The service oms refused";
    assert!(signed.starts_with(begin), "{message}");
    assert!(signed.contains("it answered 401 APIGW.0301"), "{message}");
    assert!(
        ecs.starts_with("Project ecs: no login (credentials-refused): "),
        "{message}"
    );
    assert!(ecs.contains("agency"), "{message}");
    let account = place.cloud.account();
    assert!(!message.contains(&account.access_key), "{message}");
    // The keys are read once more, as another program might have replaced them.
    assert_eq!(place.cloud.count(Operation::List, None), 2);
}

#[test]
fn a_login_that_the_cloud_refuses_is_a_fault_of_the_configuration() {
    let place = Place::new();
    let file = place.write_configuration();
    let written = place.cloud.account().password;
    place.cloud.set_password("another-password");
    let output = check(&file, &[]);
    assert_eq!(output.status.code(), Some(2));
    let message = text(&output.stderr);
    assert!(
        message.starts_with("Project default: no login (credentials-refused): "),
        "{message}"
    );
    assert!(message.contains("it answered 401"), "{message}");
    assert!(!message.contains(&written), "{message}");
    assert_eq!(place.cloud.count(Operation::Login, None), 1);
}

#[test]
fn a_token_service_that_cannot_be_asked_is_no_fault_of_the_configuration() {
    let place = Place::new();
    let file = place.write_configuration();
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", free.local_addr().expect("an address"));
    drop(free);
    let variable = "MIGRATION_GATEWAY__PROJECTS__DEFAULT__ENDPOINTS__IAM";
    let output = check(&file, &[(variable, &address)]);
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(
        message.starts_with("Project default: no login (unavailable): "),
        "{message}"
    );
}

#[test]
fn without_the_option_nobody_logs_in() {
    let place = Place::new();
    let output = gateway()
        .args(["check-config", "--config"])
        .arg(place.write_configuration())
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(place.cloud.count(Operation::Login, None), 0);
}
