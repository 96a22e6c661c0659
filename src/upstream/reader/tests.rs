use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::{
    domain::{clock::SystemClock, task::DeleteGate},
    upstream::{UnknownStates, keys, oms, sms},
};

const ID: &str = "204871530992144";

fn reader(service: &str, dialect: &Dialect) -> (Reader, UnknownStates) {
    let unknown_states = UnknownStates::default();
    let shared = Shared {
        clock: Arc::new(SystemClock),
        unknown_states: unknown_states.clone(),
        storage_secrets: keys::tests::without_configured(),
    };
    let project = ProjectName::parse("prod").unwrap();
    let service = ServiceName::parse(service).unwrap();
    let names = Names::new(["acme", "svc-migrate"]);
    (
        Reader::new(project, (service, names), dialect, &shared),
        unknown_states,
    )
}

fn oms() -> (Reader, UnknownStates) {
    reader("oms", &oms::DIALECT)
}

fn sms() -> (Reader, UnknownStates) {
    reader("sms", &sms::DIALECT)
}

fn response(status: u16, body: &Value) -> Response {
    raw(status, body.to_string())
}

fn raw(status: u16, body: String) -> Response {
    Response {
        status,
        body: Bytes::from(body),
        request_id: None,
        retry_after: None,
        is_doubtful: false,
    }
}

fn id(text: &str) -> TaskId {
    TaskId::parse(text).unwrap()
}

fn show(status: u16, body: &Value) -> Result<Option<Task>, UpstreamError> {
    oms().0.task(&response(status, body), &id(ID))
}

#[test]
fn texts_for_callers_do_not_name_the_account_or_the_user() {
    let told = json!({
        "error_code": "SMS.9004",
        "error_msg": "User svc-migrate of Acme has no right to acme_1.",
    });
    let (reader, _) = sms();
    let error = reader.receipt(&response(403, &told)).unwrap_err();
    let answer = error.answer.unwrap();
    assert_eq!(answer.error_code.as_deref(), Some("SMS.9004"));
    let shown = "User *** of *** has no right to ***_1.";
    assert_eq!(answer.error_msg.as_deref(), Some(shown));
    let told = json!({"error_code": "svc-migrate"});
    let error = reader.receipt(&response(403, &told)).unwrap_err();
    assert_eq!(error.answer.unwrap().error_code.as_deref(), Some("***"));
}

#[test]
fn a_task_that_was_asked_for_is_shown() {
    let task = show(200, &json!({"id": 204_871_530_992_144_u64, "status": 3})).unwrap();
    assert_eq!(task.unwrap().reference.id, id(ID));
}

#[test]
fn a_document_is_shown_without_secrets_names_and_the_keys_of_its_starts() {
    let (reader, _) = oms();
    let start =
        json!({"dst_sk": "svc-migrate.key", "src_ak": "abcdef", "migrate_failed_object": false});
    reader.hide_texts(&id(ID), Some(&start));
    let document = json!({
        "id": 204_871_530_992_144_u64, "status": 4, "src_node": {"sk": "TOP", "bucket": "acme_1"},
        "error_reason": {"error_code": "abcdef", "error_msg": "Wrong: svc-migrate.key."},
        "told": ["The key svc-migrate.key is wrong.", "HPUA0T3EXAMPLEKEY123"],
    });
    let shown = json!({
        "id": 204_871_530_992_144_u64, "status": 4, "src_node": {"bucket": "acme_1"},
        "error_reason": {"error_code": "***", "error_msg": "Wrong: ***."},
        "told": ["The key *** is wrong.", "***"],
    });
    let task = reader.task(&response(200, &document), &id(ID));
    let task = task.unwrap().unwrap();
    assert_eq!(task.details, shown);
    let error = task.error.unwrap();
    assert_eq!(
        (error.code.as_str(), error.message.as_str()),
        ("***", "Wrong: ***.")
    );
    let page = json!({"count": 1, "tasks": [document]});
    let page = reader.page(&response(200, &page)).unwrap();
    let row = page.rows[0].as_ref().unwrap();
    assert_eq!((&row.error, &row.details), (&Some(error), &Value::Null));
}

#[test]
fn a_missing_task_is_none_and_not_an_error() {
    let gone = json!({"error_code": "OMS.1009", "error_msg": "No resources found."});
    assert_eq!(show(400, &gone).unwrap(), None);
    assert_eq!(
        oms().0.task(&raw(404, String::new()), &id(ID)).unwrap(),
        None
    );
    let gone = json!({"error_code": "SMS.7703", "error_msg": "Task doesn't exist"});
    for status in [400, 403, 404] {
        let seen = sms().0.task(&response(status, &gone), &id("7a9a9540"));
        assert_eq!(seen.unwrap(), None);
    }
}

#[test]
fn an_answer_about_something_else_is_malformed() {
    for body in [
        json!({"id": 204_871_530_992_145_u64, "status": 3}),
        json!({"id": 204_871_530_992_144_u64}),
        json!({"status": 3}),
        json!({}),
        json!([]),
        json!("text"),
        json!({"error_code": "OMS.1009", "error_msg": "No resources found."}),
    ] {
        let error = show(200, &body).unwrap_err();
        assert_eq!(error.kind, UpstreamErrorKind::Malformed, "{body}");
        assert!(!error.detail.contains("204871530992145"));
    }
}

#[test]
fn codes_of_sms_mean_what_its_table_says() {
    use UpstreamErrorKind::{Forbidden, Refused, Rejected, Unavailable};
    for (status, code, read, change) in [
        (400, "SMS.2015", Rejected, Refused),
        (400, "SMS.7719", Rejected, Refused),
        (400, "SMS.1038", Rejected, Refused),
        (400, "SMS.1039", Rejected, Refused),
        (400, "SMS.1040", Rejected, Refused),
        (401, "SMS.2003", Rejected, Refused),
        (401, "SMS.2005", Rejected, Refused),
        (403, "SMS.9004", Forbidden, Forbidden),
        (403, "SMS.2002", Forbidden, Forbidden),
        (500, "SMS.2007", Unavailable, Unavailable),
        (500, "SMS.6301", Unavailable, Unavailable),
    ] {
        let answer = response(status, &json!({"error_code": code, "error_msg": "m"}));
        let (reader, _) = sms();
        assert_eq!(
            reader.task(&answer, &id("a")).unwrap_err().kind,
            read,
            "{code}"
        );
        assert_eq!(reader.receipt(&answer).unwrap_err().kind, change, "{code}");
    }
}

#[test]
fn a_state_that_is_not_known_is_shown_and_counted() {
    let (reader, unknown) = sms();
    for (state, count) in [("CUTOVER_FAIL", 1), ("ABORT", 1), ("NEW_STATE", 2)] {
        let answer = response(200, &json!({"id": "a", "state": state}));
        let task = reader.task(&answer, &id("a")).unwrap().unwrap();
        assert_eq!(task.upstream_state, state);
        assert_eq!(unknown.of("sms"), count);
    }
    assert_eq!(unknown.of("oms"), 0);
}

#[test]
fn a_page_keeps_the_order_and_counts_rows_that_cannot_be_read() {
    let (reader, unknown) = oms();
    let page = reader
        .page(&response(
            200,
            &json!({"count": "7", "tasks": [
                {"id": 3, "status": 2}, {"id": 1, "status": 9}, {"id": "x/y", "status": 2}, 5, null,
                {"id": 2, "status": 3},
            ]}),
        ))
        .unwrap();
    let ids: Vec<Option<&str>> = page
        .rows
        .iter()
        .map(|row| row.as_ref().map(|task| task.reference.id.as_str()))
        .collect();
    assert_eq!(ids, [Some("3"), Some("1"), None, None, None, Some("2")]);
    assert_eq!(page.total, 7);
    assert_eq!(unknown.of("oms"), 1);
    assert!(
        page.rows
            .iter()
            .flatten()
            .all(|task| task.gate == DeleteGate::Open)
    );
}

#[test]
fn an_empty_page_is_a_page() {
    for body in [
        json!({"count": 0, "tasks": []}),
        json!({"count": 0, "tasks": null}),
        json!({"count": 0}),
    ] {
        let page = oms().0.page(&response(200, &body)).unwrap();
        assert_eq!((page.rows.len(), page.total), (0, 0));
    }
}

#[test]
fn what_is_no_list_is_malformed() {
    for body in [
        json!({}),
        json!([]),
        json!(null),
        json!({"tasks": []}),
        json!([[], 0]),
        json!({"count": 2}),
        json!({"count": 2, "tasks": {}}),
        json!({"count": -1, "tasks": []}),
        json!({"id": 1, "status": 2}),
    ] {
        let error = oms().0.page(&response(200, &body)).unwrap_err();
        assert_eq!(error.kind, UpstreamErrorKind::Malformed, "{body}");
    }
}

#[test]
fn a_missing_list_does_not_mean_that_tasks_are_gone() {
    let error = oms().0.page(&raw(404, String::new())).unwrap_err();
    assert_eq!(error.kind, UpstreamErrorKind::Rejected);
    assert_eq!(error.answer.unwrap().status, 404);
}
