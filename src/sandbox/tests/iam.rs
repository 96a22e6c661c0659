//! Tokens and the gateway in front of the services.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Reply, Setup, exchange};
use crate::{
    domain::clock::{Clock as _, SystemClock},
    sandbox::{Cloud, ControlBody, DomainTokens, Ecs, LockShape},
};

fn body_for(user: &str, password: &str, scope: &Value) -> String {
    json!({"auth": {
        "identity": {"methods": ["password"], "password": {"user": {
            "name": user, "password": password, "domain": {"name": "sandbox"},
        }}},
        "scope": scope,
    }})
    .to_string()
}

fn log_in(cloud: &Cloud, password: &str, scope: &Value) -> Reply {
    let body = body_for("svc-migrate", password, scope);
    post(cloud, "/v3/auth/tokens?nocatalog=true", &body)
}

fn post(cloud: &Cloud, path: &str, body: &str) -> Reply {
    let headers = "content-type: application/json;charset=utf8\r\n";
    exchange(&cloud.iam_url(), &format!("POST {path}"), headers, body)
}

fn project(cloud: &Cloud) -> Value {
    json!({"project": {"id": cloud.account().project_id}})
}

/// The status and code of a list of OMS with a token.
fn list(cloud: &Cloud, token: &str) -> (u16, String) {
    let path = format!("GET /v2/{}/tasks", cloud.account().project_id);
    let headers = format!("x-auth-token: {token}\r\n");
    let reply = exchange(&cloud.oms_url(), &path, &headers, "");
    let code = reply.json()["error_code"].as_str().unwrap_or("").to_owned();
    (reply.status, code)
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[test]
fn a_login_gives_a_token_in_a_header_and_its_times_in_the_body() {
    let cloud = Setup::new(|_| {}).cloud;
    let password = cloud.account().password;
    let reply = log_in(&cloud, &password, &project(&cloud));
    assert_eq!(reply.status, 201);
    let token = reply.header("X-Subject-Token").unwrap();
    assert!(token.starts_with("MII"));
    assert!(!reply.body.contains(token));
    let body = reply.json();
    let expires_at = body["token"]["expires_at"].as_str().unwrap();
    assert_eq!(expires_at.len(), "2026-01-04T09:05:22.701000Z".len());
    assert!(expires_at.ends_with("000Z"), "{expires_at}");
    assert_eq!(body["token"]["catalog"], json!([]));
    assert_eq!(body["token"]["project"]["name"], "cn-north-4");
    assert_eq!(list(&cloud, token), refused(200, ""));
    let with_catalog = post(
        &cloud,
        "/v3/auth/tokens",
        &body_for("svc-migrate", &password, &project(&cloud)),
    );
    assert_ne!(with_catalog.json()["token"]["catalog"], json!([]));
}

#[test]
fn a_project_can_be_named_and_a_second_one_is_apart() {
    let cloud = Setup::new(|_| {}).cloud;
    cloud.add_project("9999", "eu-west-101");
    let scope = json!({"project": {"name": "eu-west-101"}, "domain": {"name": "sandbox"}});
    let reply = log_in(&cloud, &cloud.account().password, &scope);
    assert_eq!(reply.json()["token"]["project"]["id"], "9999");
    let token = reply.header("X-Subject-Token").unwrap();
    assert_eq!(list(&cloud, token), refused(403, "APIGW.0310"));
    let unknown = json!({"project": {"id": "no such"}});
    assert_eq!(
        log_in(&cloud, &cloud.account().password, &unknown).status,
        404
    );
}

#[test]
fn wrong_logins_have_the_shape_of_the_token_call() {
    let cloud = Setup::new(|_| {}).cloud;
    let wrong = log_in(&cloud, "wrong", &project(&cloud));
    assert_eq!(wrong.status, 401);
    let error = json!({"error": {"code": 401, "title": "Unauthorized",
        "message": "The username or password is wrong."}});
    assert_eq!(wrong.json(), error);
    for body in [
        "",
        "{",
        "{}",
        r#"{"auth":{"identity":{"methods":["token"]}}}"#,
    ] {
        let malformed = post(&cloud, "/v3/auth/tokens", body);
        assert_eq!(malformed.status, 400);
        assert_eq!(malformed.json()["error"]["code"], 400);
    }
    assert_eq!(cloud.tokens_issued(), 1);
}

#[test]
fn five_wrong_passwords_lock_the_account_for_a_quarter_of_an_hour() {
    let cloud = Setup::new(|options| options.lock_shape = LockShape::Iam0061).cloud;
    let password = cloud.account().password;
    for _ in 0..5 {
        assert_eq!(log_in(&cloud, "wrong", &project(&cloud)).status, 401);
    }
    let locked = log_in(&cloud, &password, &project(&cloud));
    assert_eq!((locked.status, locked.code().as_str()), (401, "IAM.0061"));
    cloud.advance(Duration::from_mins(16));
    assert_eq!(log_in(&cloud, &password, &project(&cloud)).status, 201);
    cloud.lock_account(true);
    cloud.configure(|options| options.lock_shape = LockShape::Keystone);
    let locked = log_in(&cloud, &password, &project(&cloud));
    assert_eq!(locked.json()["error"]["message"], "Account locked.");
    cloud.lock_account(false);
    assert_eq!(log_in(&cloud, &password, &project(&cloud)).status, 201);
}

#[test]
fn a_token_of_the_account_is_no_project_token() {
    let setup = Setup::new(|_| {});
    let cloud = &setup.cloud;
    let reply = log_in(cloud, &cloud.account().password, &Value::Null);
    assert_eq!(reply.json()["token"]["domain"]["name"], "sandbox");
    let token = reply.header("X-Subject-Token").unwrap().to_owned();
    assert_eq!(list(cloud, &token), refused(403, "APIGW.0302"));
    let sms = || {
        let headers = format!("x-auth-token: {token}\r\n");
        exchange(&cloud.sms_url(), "GET /v3/tasks", &headers, "").status
    };
    assert_eq!(sms(), 403);
    cloud.configure(|options| options.domain_tokens = DomainTokens::GoodForSms);
    assert_eq!(sms(), 200);
}

#[test]
fn bad_tokens_and_dead_tokens_are_told_apart() {
    let setup = Setup::new(|_| {});
    let cloud = &setup.cloud;
    assert_eq!(list(cloud, "MIIstrange"), refused(401, "APIGW.0301"));
    assert_eq!(list(cloud, ""), refused(401, "APIGW.0301"));
    cloud.set_token_lifetime(Duration::from_mins(1));
    let short = cloud.issue_token();
    assert_eq!(list(cloud, &short), refused(200, ""));
    cloud.advance(Duration::from_mins(2));
    assert_eq!(list(cloud, &short), refused(401, "APIGW.0307"));
    assert_eq!(list(cloud, &setup.token), refused(200, ""));
    cloud.revoke_tokens();
    assert_eq!(list(cloud, &setup.token), refused(401, "APIGW.0307"));
    let next = cloud.issue_token();
    cloud.set_password("other");
    assert_eq!(list(cloud, &next), refused(401, "APIGW.0307"));
    assert_eq!(log_in(cloud, "other", &project(cloud)).status, 201);
}

#[test]
fn tokens_of_sixteen_kibibytes_are_taken() {
    let setup = Setup::new(|options| options.token_length = 16_384);
    assert_eq!(setup.token.len(), 16_384);
    assert_eq!(list(&setup.cloud, &setup.token), refused(200, ""));
}

#[test]
fn too_many_requests_in_a_second_are_refused() {
    let setup = Setup::new(|options| options.requests_per_second = Some(0));
    let reply = setup.sms("GET", "", "");
    assert_eq!((reply.status, reply.code().as_str()), (429, "APIGW.0308"));
    assert_eq!(list(&setup.cloud, &setup.token), refused(429, "APIGW.0308"));
    setup
        .cloud
        .configure(|options| options.requests_per_second = Some(1000));
    assert_eq!(list(&setup.cloud, &setup.token), refused(200, ""));
}

#[test]
fn a_path_that_does_not_exist_is_the_gateways_404() {
    let setup = Setup::new(|options| options.control_body = ControlBody::Braces);
    let reply = exchange(
        &setup.cloud.oms_url(),
        "GET /v2/tasks",
        &setup.headers(),
        "",
    );
    assert_eq!((reply.status, reply.code().as_str()), (404, "APIGW.0101"));
    assert_eq!(
        reply.json()["request_id"],
        reply.header("x-request-id").unwrap()
    );
    let reply = setup.sms("PATCH", "/1", "");
    assert_eq!((reply.status, reply.code().as_str()), (404, "APIGW.0101"));
}

#[test]
fn a_signature_is_refused_for_a_strange_key_an_old_date_or_wrong_digits() {
    let cloud = Setup::new(|_| {}).cloud;
    let signed = |key: &str, date: &str| {
        let path = format!("GET /v2/{}/tasks", cloud.account().project_id);
        let headers = format!(
            "x-sdk-date: {date}\r\nauthorization: SDK-HMAC-SHA256 Access={key}, SignedHeaders=host;x-sdk-date, Signature=00\r\n"
        );
        let reply = exchange(&cloud.oms_url(), &path, &headers, "");
        assert_eq!((reply.status, reply.code().as_str()), (401, "APIGW.0301"));
        reply.json()["error_msg"].as_str().unwrap().to_owned()
    };
    let says = |reason: &str| format!("Incorrect IAM authentication information: {reason}");
    let known = cloud.account().access_key;
    let present = SystemClock.now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let strange = "Get secretKey failed,ak:AK9,err:ak not exist";
    assert_eq!(signed("AK9", &present), says(strange));
    let expired = "calc ak sk signature fail:signature expired";
    assert_eq!(signed(&known, "20260101T000000Z"), says(expired));
    for date in [present.as_str(), "2026-01-01T00:00:00Z", "yesterday"] {
        assert_eq!(signed(&known, date), says("verify aksk signature fail"));
    }
}

/// Asks the metadata service for keys, with this token if any.
fn temporary_keys(cloud: &Cloud, token: Option<&str>) -> Reply {
    let headers = token.map(|token| format!("x-metadata-token: {token}\r\n"));
    let request = "GET /openstack/latest/securitykey";
    exchange(
        &cloud.metadata_url(),
        request,
        &headers.unwrap_or_default(),
        "",
    )
}

fn metadata_token(cloud: &Cloud, life: &str) -> Reply {
    let headers = format!("x-metadata-token-ttl-seconds: {life}\r\n");
    let request = "PUT /meta-data/latest/api/token";
    exchange(&cloud.metadata_url(), request, &headers, "")
}

#[test]
fn an_ecs_gives_keys_of_its_agency_to_whoever_has_a_token() {
    let cloud = Setup::new(|_| {}).cloud;
    for life in ["", "0", "21601", "x"] {
        assert_eq!(metadata_token(&cloud, life).status, 400, "{life}");
    }
    let token = metadata_token(&cloud, "21600");
    assert_eq!((token.status, token.body.len()), (200, 56));
    let keys = temporary_keys(&cloud, Some(&token.body)).json();
    let member = |name: &str| keys["credential"][name].as_str().unwrap().to_owned();
    assert_eq!(member("access").len(), 20);
    assert_eq!(member("secret").len(), 40);
    assert!(member("securitytoken").len() > 100);
    let ends: Timestamp = member("expires_at").parse().unwrap();
    assert!(ends > SystemClock.now() + SignedDuration::from_hours(5));
    assert_eq!(cloud.temporary_keys_issued(), 1);

    assert_eq!(temporary_keys(&cloud, None).status, 401);
    cloud.revoke_metadata_tokens();
    let refused = temporary_keys(&cloud, Some(&token.body));
    assert_eq!(
        (refused.status, refused.body.as_str()),
        (401, "Unauthorized")
    );
}

#[test]
fn an_ecs_may_know_no_tokens_and_may_have_no_agency() {
    let cloud = Setup::new(|options| options.ecs = Ecs::WithoutTokens(405)).cloud;
    assert_eq!(metadata_token(&cloud, "60").status, 405);
    assert_eq!(temporary_keys(&cloud, None).status, 200);
    cloud.configure(|options| options.ecs = Ecs::WithoutAgency);
    assert_eq!(temporary_keys(&cloud, None).body, "Unauthorized");
    let token = metadata_token(&cloud, "60").body;
    let refused = temporary_keys(&cloud, Some(&token));
    assert_eq!(refused.status, 401);
    assert!(
        refused
            .body
            .contains("Please configure Cloud Service Agency first")
    );
    assert_eq!(cloud.temporary_keys_issued(), 1);
}
