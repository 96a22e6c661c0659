use sha2::{Digest as _, Sha256};

use super::{canonical_request, check, signature};
use crate::sandbox::{
    Service,
    call::{Call, Route},
    iam::keys::Keys,
};

const DATE: &str = "20260101T000000Z";
/// The moment of `DATE`.
const NOW: i64 = 1_767_225_600_000;
const PROJECT: &str = "2c0689c860ad4728a497c91ec0844383";

const ACCESS_KEY: &str = "EXAMPLEAK0123456789A";
const SECRET_KEY: &str = "exampleSecretKey0123456789abcdefABCDEF01";

fn keys() -> Keys {
    let mut keys = Keys::default();
    keys.add(ACCESS_KEY, SECRET_KEY);
    keys
}

/// Whether the signature is right, or why it is wrong.
fn checked(call: &Call, now: i64) -> Result<(), String> {
    check(call, &mut keys(), now).unwrap().map(|_| ())
}

/// A request whose headers are all signed.
struct Vector {
    call: Call,
    names: String,
    digest: &'static str,
    signature: &'static str,
}

impl Vector {
    fn new(
        request: &str,
        headers: &[(&str, &str)],
        body: &str,
        [digest, signature]: [&'static str; 2],
    ) -> Self {
        let (method, target) = request.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut headers: Vec<(String, String)> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(";");
        headers.push((
            "authorization".to_owned(),
            format!(
                "SDK-HMAC-SHA256 Access=EXAMPLEAK0123456789A, SignedHeaders={names}, Signature={signature}"
            ),
        ));
        let call = Call {
            service: Service::Oms,
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers,
            body: body.as_bytes().to_vec(),
            route: Route::find(Service::Oms, method, path, b""),
            request_id: String::new(),
        };
        Self {
            call,
            names,
            digest,
            signature,
        }
    }
}

/// Results of the vendor's own program.
fn vectors() -> [Vector; 4] {
    let oms = ("host", "oms.cn-north-4.myhuaweicloud.com");
    let json = ("content-type", "application/json");
    let (project, date) = (("x-project-id", PROJECT), ("x-sdk-date", DATE));
    [
        Vector::new(
            &format!(
                "GET /v2/{PROJECT}/tasks?limit=10&offset=0&status=2&task_name=%E6%97%A5%E5%BF%97%20a~b%2Fc"
            ),
            &[json, oms, project, date],
            "",
            [
                "e63de1ee6ec185c949844bde9c48893705a6393911db81ed6fee82a78cb6b929",
                "0bf5a4b1f0f84ed45eaa0d642125303646990a77d42805a38dd47905c8d8ebd5",
            ],
        ),
        Vector::new(
            "POST /v3/tasks/7a9a9540-ff28-4869-b9e4-855fbe120001/action",
            &[
                json,
                ("host", "sms.ap-southeast-3.myhuaweicloud.com"),
                project,
                date,
                ("x-security-token", "ExampleSecurityToken=="),
            ],
            r#"{"operation":"stop"}"#,
            [
                "8090a64b888893e57c73a7e1655947ce771fa834fe52333ce56bf0e42e65fbbd",
                "27e228eb38cc802ae89e2ea52c81902188dfbf371d2f646e693b46677f5a9bba",
            ],
        ),
        Vector::new(
            &format!("POST /v2/{PROJECT}/tasks/191297407830872/stop"),
            &[json, oms, project, date],
            "",
            [
                "18e10f3ed2bd3c1f956928b29da2d0da346dd6d7f33b31d582bf990bee7cd1b1",
                "24e670f77c5d66b4818d4e63fcd7525cd56694ab929ca0e5d23d66c828b85c2f",
            ],
        ),
        Vector::new(
            "GET /v3/auth/domains",
            &[
                ("host", "iam.myhuaweicloud.com"),
                ("x-domain-id", "d78cbac186b744899480f25bd022f468"),
                date,
            ],
            "",
            [
                "1a016b376b48fd9d4cd4636d8f9b839c7368718c0a936818225e18ddc5c22b81",
                "7dff64aa16f1da89d3238e12cc35a024f9bdcd5a846a44c6c1a8f87ffc059621",
            ],
        ),
    ]
}

#[test]
fn signatures_are_those_of_the_vendors_own_program() {
    for vector in vectors() {
        let canonical = canonical_request(&vector.call, &vector.names).unwrap();
        assert_eq!(
            hex::encode(Sha256::digest(&canonical)),
            vector.digest,
            "{canonical}"
        );
        let made = signature(&canonical, DATE, SECRET_KEY);
        assert_eq!(made, vector.signature);
        // The security token of one of them is that of no key here.
        let refused = vector
            .call
            .header("x-security-token")
            .map(|_| "decrypt token fail");
        let found = checked(&vector.call, NOW);
        assert_eq!(found.err().as_deref(), refused);
    }
}

#[test]
fn every_part_of_a_request_is_covered_by_its_signature() {
    let changes: [fn(&mut Call); 5] = [
        |call| call.method = "DELETE".to_owned(),
        |call| call.path.push_str("/x"),
        |call| call.query = "limit=11".to_owned(),
        |call| call.body.push(b' '),
        |call| call.headers[0].1.push('x'),
    ];
    for change in changes {
        for mut vector in vectors() {
            change(&mut vector.call);
            let found = checked(&vector.call, NOW);
            assert_eq!(found, Err("verify aksk signature fail".to_owned()));
        }
    }
}

#[test]
fn the_date_may_be_a_quarter_of_an_hour_away() {
    let [vector, ..] = vectors();
    let at = |now| checked(&vector.call, now).is_ok();
    let quarter = 15 * 60 * 1000;
    assert!(at(NOW + quarter) && at(NOW - quarter));
    assert!(!at(NOW + quarter + 1) && !at(NOW - quarter - 1));
}

#[test]
fn a_key_is_locked_for_five_minutes_after_more_than_five_wrong_signatures_on_end() {
    let [right, ..] = vectors();
    let [mut wrong, ..] = vectors();
    wrong.call.query.push('1');
    let mut keys = keys();
    let mut is_right = |vector: &Vector, now| {
        let found = check(&vector.call, &mut keys, now).unwrap();
        found.map(|_| ())
    };
    let five = 5 * 60 * 1000;
    for _ in 0..5 {
        assert!(is_right(&wrong, NOW).is_err());
    }
    assert!(is_right(&right, NOW).is_ok());
    for _ in 0..6 {
        assert!(is_right(&wrong, NOW).is_err());
    }
    let locked = Err("AK access failed to reach the limit,forbidden".to_owned());
    assert_eq!(is_right(&right, NOW), locked);
    assert_eq!(is_right(&right, NOW + five - 1), locked);
    assert!(is_right(&right, NOW + five).is_ok());
}

#[test]
fn a_temporary_key_is_good_until_its_end_and_with_its_own_security_token() {
    let mut keys = Keys::default();
    let issued = keys.issue(NOW + 1);
    let [vector, ..] = vectors();
    let canonical = canonical_request(&vector.call, &vector.names).unwrap();
    let signature = signature(&canonical, DATE, &issued.secret_key);
    let mut found = |token: Option<&str>, now| {
        let [mut vector, ..] = vectors();
        vector.call.headers.pop();
        let (access_key, names) = (&issued.access_key, &vector.names);
        let header = format!(
            "SDK-HMAC-SHA256 Access={access_key}, SignedHeaders={names}, Signature={signature}"
        );
        let headers = &mut vector.call.headers;
        headers.push(("authorization".to_owned(), header));
        headers.extend(token.map(|token| ("x-security-token".to_owned(), token.to_owned())));
        let found = check(&vector.call, &mut keys, now).unwrap();
        found.map(|_| ())
    };
    let refused = Err("decrypt token fail".to_owned());
    assert_eq!(found(Some(&issued.security_token), NOW), Ok(()));
    assert_eq!(found(Some(&issued.security_token), NOW + 1), refused);
    assert_eq!(found(Some("another"), NOW), refused);
    assert_eq!(found(None, NOW), refused);
}

#[test]
fn only_listed_headers_count_and_host_and_date_must_be_among_them() {
    let [mut vector, ..] = vectors();
    let added = ("user-agent".to_owned(), "any".to_owned());
    vector.call.headers.push(added);
    assert_eq!(checked(&vector.call, NOW), Ok(()));
    for names in ["x-sdk-date", "host", "host;missing;x-sdk-date", ""] {
        let text = canonical_request(&vector.call, names).unwrap_or_default();
        let signature = signature(&text, DATE, SECRET_KEY);
        let header = format!(
            "SDK-HMAC-SHA256 Access=EXAMPLEAK0123456789A, SignedHeaders={names}, Signature={signature}"
        );
        let place = vector
            .call
            .headers
            .iter()
            .position(|(name, _)| name == "authorization");
        vector.call.headers[place.unwrap()].1 = header;
        assert!(checked(&vector.call, NOW).is_err(), "{names}");
    }
}
