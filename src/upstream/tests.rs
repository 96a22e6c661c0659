use std::collections::BTreeMap;

use std::time::Duration;

use crate::domain::clock::SystemClock;

use super::*;

fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

fn project(services: &[&str]) -> ProjectSettings {
    let endpoints = ["oms", "sms"].map(|name| {
        let address = default_endpoint(&service(name), "cn-north-4").unwrap();
        (service(name), address)
    });
    ProjectSettings {
        project_id: "0215ef11e49d4743be23dd97a1561e91".to_owned(),
        region: "cn-north-4".to_owned(),
        services: services.iter().map(|name| service(name)).collect(),
        iam_endpoint: default_iam_endpoint("cn-north-4").unwrap(),
        endpoints: endpoints.into(),
        credentials: CredentialSettings::Password {
            domain: "acme".to_owned(),
            user: "gateway".to_owned(),
            password: SecretSource::Env("PASSWORD".to_owned()),
        },
    }
}

#[test]
fn the_catalogue_is_oms_then_sms() {
    let rows: Vec<_> = catalogue()
        .into_iter()
        .map(|traits| {
            (
                traits.name.to_string(),
                traits.page_limit,
                traits.start_needs_credentials,
            )
        })
        .collect();
    let expected = [
        ("oms".to_owned(), 100, true),
        ("sms".to_owned(), 200, false),
    ];
    assert_eq!(rows, expected);
}

#[test]
fn no_id_belongs_to_two_services() {
    for text in [
        "0",
        "007",
        "191297407830872",
        "1234567890123456",
        "7a9a9540-ff28",
        "-",
        "0a",
    ] {
        let id = TaskId::parse(text).unwrap();
        let owners = catalogue()
            .iter()
            .filter(|traits| (traits.owns)(&id))
            .count();
        assert!(owners <= 1, "{text}");
    }
}

#[test]
fn endpoints_follow_the_region() {
    let oms = default_endpoint(&service("oms"), "la-south-2");
    assert_eq!(
        oms.as_deref(),
        Some("https://oms.la-south-2.myhuaweicloud.com")
    );
    let sms = default_endpoint(&service("sms"), "la-south-2");
    assert_eq!(
        sms.as_deref(),
        Some("https://sms.ap-southeast-3.myhuaweicloud.com")
    );
    let iam = default_iam_endpoint("la-south-2");
    assert_eq!(
        iam.as_deref(),
        Some("https://iam.la-south-2.myhuaweicloud.com")
    );
    let iam = default_iam_endpoint("eu-west-101");
    assert_eq!(
        iam.as_deref(),
        Some("https://iam.eu-west-101.myhuaweicloud.eu")
    );
    assert_eq!(default_endpoint(&service("cts"), "la-south-2"), None);
}

#[test]
fn what_is_no_region_never_becomes_a_host() {
    let long = "a".repeat(64);
    for region in [
        "",
        "cn north",
        "cn.evil",
        "cn/x",
        "cn@evil",
        "CN-NORTH-4",
        "-cn",
        "cn-",
        &long,
    ] {
        assert_eq!(default_iam_endpoint(region), None, "{region}");
        assert_eq!(default_endpoint(&service("oms"), region), None, "{region}");
        assert_eq!(default_endpoint(&service("sms"), region), None, "{region}");
    }
}

#[test]
fn a_project_has_the_services_that_it_offers() {
    let name = |text| ProjectName::parse(text).unwrap();
    let settings = Settings {
        freshness: Duration::from_millis(500),
        projects: BTreeMap::from([
            (name("both"), project(&["oms", "sms"])),
            (name("one"), project(&["oms"])),
        ]),
        storage_credentials: BTreeMap::new(),
        pace: flow::tests::PACE,
    };
    let transport = transport::Settings {
        connect_timeout: Duration::from_secs(1),
        request_timeout: Duration::from_secs(1),
        ca_file: None,
    };
    let clock = Arc::new(SystemClock);
    let upstream = Upstream::start(settings, transport, clock, &mut Registry::default()).unwrap();
    let status = upstream.status();
    let ways = status
        .iter()
        .flat_map(|project| &project.services)
        .map(|one| (one.project.as_str(), one.service.as_str()));
    assert_eq!(
        ways.collect::<Vec<_>>(),
        [("both", "oms"), ("both", "sms"), ("one", "oms")]
    );
    let services = upstream.services(Lane::Callers).unwrap();
    assert!(services.get(&name("one"), &service("sms")).is_none());
    for (project, of) in [("both", "oms"), ("both", "sms"), ("one", "oms")] {
        let bound = services.get(&name(project), &service(of)).unwrap();
        assert_eq!(bound.binding.project_id, "0215ef11e49d4743be23dd97a1561e91");
        assert_eq!(bound.binding.region, "cn-north-4");
        assert_eq!(
            bound.binding.endpoint,
            format!("https://{of}.cn-north-4.myhuaweicloud.com")
        );
    }
}
