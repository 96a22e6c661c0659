"""The gateway as a client sees it that a program made of `openapi/openapi.json`; nobody wrote it by hand."""

import re
from datetime import datetime
from http import HTTPStatus

import pytest
from gateway_client import Client
from gateway_client.api.health import livez, metrics, readyz
from gateway_client.api.operations import list_operations, show_operation
from gateway_client.api.tasks import delete_task, list_tasks, pause_task, show_task, start_task
from gateway_client.models import (
    DeleteTaskForce,
    ListTasksService,
    ListTasksState,
    Operation,
    OperationKind,
    OperationList,
    OperationOutcomeType0,
    OperationStatus,
    Problem,
    ShowTaskView,
    StartBody,
    StorageKeys,
    Task,
    TaskList,
    TaskState,
)

from conftest import until


@pytest.fixture(scope="module")
def client(gateway):
    with Client(base_url=gateway, raise_on_unexpected_status=True, timeout=40) as client:
        yield client


@pytest.mark.parametrize("name", ["invoices-archive", "fileserver02"])
def test_a_running_task_is_deleted_by_force(client, seeds, name):
    task_id = seeds[name]["id"]
    shown = show_task.sync(task_id, client=client, view=ShowTaskView.FULL)
    assert isinstance(shown, Task)
    assert shown.state is TaskState.RUNNING
    assert (shown.id, shown.name, shown.project) == (task_id, name, "sandbox")
    assert "force_delete" in shown.actions and "delete" not in shown.actions
    assert shown.details["name"] == name

    refused = delete_task.sync_detailed(task_id, client=client)
    assert refused.status_code == HTTPStatus.CONFLICT
    assert isinstance(refused.parsed, Problem)
    assert refused.parsed.type_ == "/problems/task-in-progress"
    assert refused.parsed.request_id == refused.headers["X-Request-Id"]
    assert "force=pause" in refused.parsed.allowed

    ended = delete_task.sync_detailed(task_id, client=client, force=DeleteTaskForce.PAUSE, prefer="wait=30")
    assert ended.status_code == HTTPStatus.OK
    assert ended.headers["Preference-Applied"] == "wait=30"
    operation = ended.parsed
    assert isinstance(operation, Operation)
    assert operation.kind is OperationKind.DELETE
    assert operation.status is OperationStatus.SUCCEEDED
    assert operation.outcome is OperationOutcomeType0.DELETED
    assert operation.error is None and operation.phase is None
    assert isinstance(operation.finished_at, datetime)
    assert operation.created_at <= operation.finished_at <= operation.deadline_at
    sent = [event.event for event in operation.events if event.event.endswith("_sent")]
    assert sent == ["pause_sent", "delete_sent"]

    assert show_operation.sync(operation.id, client=client) == operation
    listed = list_operations.sync(client=client, task=task_id)
    assert isinstance(listed, OperationList)
    assert [one.id for one in listed.operations] == [operation.id]
    gone = show_task.sync(task_id, client=client)
    assert isinstance(gone, Problem)
    assert gone.type_ == "/problems/task-not-found"


def test_a_caller_that_does_not_wait_looks_at_the_operation_until_it_ends(client, seeds):
    task_id = seeds["slow-to-settle"]["id"]
    accepted = delete_task.sync_detailed(
        task_id, client=client, force=DeleteTaskForce.PAUSE, prefer="respond-async"
    )
    assert accepted.status_code == HTTPStatus.ACCEPTED
    assert accepted.parsed.status is OperationStatus.RUNNING
    assert accepted.headers["Location"] == f"/operations/{accepted.parsed.id}"
    ended = until(
        lambda: show_operation.sync(accepted.parsed.id, client=client, prefer="wait=10"),
        lambda operation: operation.status is not OperationStatus.RUNNING,
        limit=60,
    )
    assert ended.outcome is OperationOutcomeType0.DELETED


def test_a_task_is_started_and_paused(client, seeds):
    keys = StorageKeys(access_key="AK", secret_key="SK")
    oms, sms = seeds["web-logs-eu"]["id"], seeds["mailgate04"]["id"]
    for task_id, body in ((oms, StartBody(source=keys, destination=keys)), (sms, None)):
        arguments = {} if body is None else {"body": body}
        started = start_task.sync(task_id, client=client, prefer="wait=30", **arguments)
        assert isinstance(started, Operation), started
        assert started.outcome is OperationOutcomeType0.STARTED
        paused = pause_task.sync(task_id, client=client, prefer="wait=30")
        assert isinstance(paused, Operation), paused
        assert paused.outcome is OperationOutcomeType0.PAUSED


def test_lists_are_read_page_by_page(client):
    names, token = [], None
    for _ in range(20):
        arguments = {} if token is None else {"page_token": token}
        page = list_tasks.sync(client=client, page_size=7, **arguments)
        assert isinstance(page, TaskList)
        names += [task.name for task in page.tasks]
        token = page.next_page_token
        if token is None:
            break
    assert token is None
    whole = list_tasks.sync(client=client, page_size=200)
    assert names == [task.name for task in whole.tasks]
    failed = list_tasks.sync(client=client, service=ListTasksService.SMS, state=ListTasksState.FAILED)
    assert {task.name for task in failed.tasks} == {"reporting07", "ledger08"}
    assert all(task.error.code == "SMS.0515" for task in failed.tasks)


def test_faults_of_a_request_are_typed_too(client):
    problem = show_task.sync("not-an-id!", client=client)
    assert isinstance(problem, Problem)
    assert [(fault.in_, fault.pointer) for fault in problem.errors] == [("path", "/id")]


def test_probes_and_metrics_are_read(client):
    assert livez.sync(client=client).status == "ok"
    assert readyz.sync(client=client).failing == []
    assert re.search(r"^migration_gateway_http_requests_total\{", metrics.sync(client=client), re.MULTILINE)
