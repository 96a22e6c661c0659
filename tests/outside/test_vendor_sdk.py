"""The simulated cloud as the vendor's own Python SDK sees it, with signed requests.

What the simulator answers must fit the vendor's models, and its refusals must carry the vendor's codes: the simulator
and the SDK are two readings of the same service by different people.
"""

import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkcore.http.http_config import HttpConfig
from huaweicloudsdkoms import v2 as oms_v2
from huaweicloudsdksms import v3 as sms_v3

from conftest import ACCESS_KEY, PROJECT_ID, SECRET_KEY, until


def client(module, name: str, endpoint: str, secret_key: str = SECRET_KEY, access_key: str = ACCESS_KEY):
    config = HttpConfig.get_default_config()
    config.timeout = (5, 10)
    credentials = BasicCredentials(access_key, secret_key, PROJECT_ID)
    builder = getattr(module, name).new_builder()
    return builder.with_http_config(config).with_credentials(credentials).with_endpoints([endpoint]).build()


@pytest.fixture(scope="module")
def oms(addresses):
    return client(oms_v2, "OmsClient", addresses["oms"])


@pytest.fixture(scope="module")
def sms(addresses):
    return client(sms_v3, "SmsClient", addresses["sms"])


def refusal(call, request) -> tuple[int, str]:
    """The status and code with which a call is refused."""
    with pytest.raises(ClientRequestException) as refused:
        call(request)
    assert refused.value.request_id
    return refused.value.status_code, refused.value.error_code


def check_types(model):
    """Every member that the vendor's model declares has the type that it declares, as far as it is there."""
    plain = {"int": int, "str": str, "bool": bool, "float": (int, float), "object": object}
    for member, declared in model.openapi_types.items():
        value = getattr(model, member)
        if value is None:
            continue
        items, declared = (value, declared[5:-1]) if declared.startswith("list[") else ([value], declared)
        for item in items:
            if declared in plain:
                is_right = isinstance(item, plain[declared])
                if declared in ("int", "float"):
                    is_right = is_right and not isinstance(item, bool)
            else:
                is_right = type(item).__name__ == declared
            assert is_right, f"{type(model).__name__}.{member} should be {declared} and is {item!r}"
            if hasattr(item, "openapi_types"):
                check_types(item)


def show_oms(oms, task_id):
    return oms.show_task(oms_v2.ShowTaskRequest(task_id=task_id))


def show_sms(sms, task_id):
    return sms.show_task(sms_v3.ShowTaskRequest(task_id=task_id))


def test_the_models_of_oms_take_every_seeded_state(oms, seeds):
    page = oms.list_tasks(oms_v2.ListTasksRequest(limit=100))
    check_types(page)
    assert page.count == len(page.tasks)
    ids = {str(task.id) for task in page.tasks}
    expected = {task["id"]: task for task in seeds.values() if task["service"] == "oms"}
    assert ids == expected.keys()
    states = set()
    for task_id, task in expected.items():
        shown = show_oms(oms, int(task_id))
        check_types(shown)
        assert (str(shown.id), shown.name) == (task_id, task["name"])
        assert 0 <= shown.progress <= 1
        states.add(shown.status)
    assert states >= {0, 1, 2, 3, 4, 5, 6, 7, 42}


def test_the_models_of_sms_take_every_seeded_state(sms, seeds):
    page = sms.list_tasks(sms_v3.ListTasksRequest(limit=100))
    check_types(page)
    assert page.count == len(page.tasks)
    expected = {task["id"]: task for task in seeds.values() if task["service"] == "sms"}
    assert {task.id for task in page.tasks} == expected.keys()
    states = set()
    for task_id, task in expected.items():
        shown = show_sms(sms, task_id)
        check_types(shown)
        assert (shown.id, shown.name) == (task_id, task["name"])
        states.add(shown.state)
    assert len(states) >= 13 and {"READY", "RUNNING", "ABORT", "DELETING", "RESETING"} <= states


def test_lists_are_paged_and_filtered(oms, sms):
    first = oms.list_tasks(oms_v2.ListTasksRequest(limit=3, offset=0))
    second = oms.list_tasks(oms_v2.ListTasksRequest(limit=3, offset=3))
    assert len({task.id for task in first.tasks + second.tasks}) == 6
    assert first.count == second.count > 6
    paused = oms.list_tasks(oms_v2.ListTasksRequest(status=3, task_name="web logs~/eu")).tasks
    assert paused == []
    named = oms.list_tasks(oms_v2.ListTasksRequest(task_name="web-logs")).tasks
    assert [task.name for task in named] == ["web-logs-eu"]
    ready = sms.list_tasks(sms_v3.ListTasksRequest(state="READY")).tasks
    assert [task.name for task in ready] == ["buildhost05"]
    request = sms_v3.ListTasksRequest(state="NO_SUCH")
    assert refusal(sms.list_tasks, request) == (400, "SMS.9001")


def test_an_oms_task_is_paused_started_and_deleted(oms, seeds):
    task_id = int(seeds["media-library-2025"]["id"])
    stop = oms_v2.StopTaskRequest(task_id=task_id)
    delete = oms_v2.DeleteTaskRequest(task_id=task_id)
    assert refusal(oms.delete_task, delete) == (400, "OMS.0063")
    assert oms.stop_task(stop).status_code == 200
    assert show_oms(oms, task_id).status == 7
    assert refusal(oms.stop_task, stop) == (400, "OMS.0066")
    until(lambda: show_oms(oms, task_id).status, lambda status: status == 3)
    keys = oms_v2.StartTaskReq(src_ak="SRCAK", src_sk="SRCSK", dst_ak="DSTAK", dst_sk="DSTSK")
    start = oms_v2.StartTaskRequest(task_id=task_id, body=keys)
    assert oms.start_task(start).status_code == 200
    assert refusal(oms.start_task, start) == (400, "OMS.0065")
    until(lambda: show_oms(oms, task_id).status, lambda status: status == 2)
    oms.stop_task(stop)
    until(lambda: show_oms(oms, task_id).status, lambda status: status == 3)
    assert oms.delete_task(delete).status_code == 200
    request = oms_v2.ShowTaskRequest(task_id=task_id)
    assert refusal(oms.show_task, request) == (400, "OMS.1009")
    assert refusal(oms.delete_task, delete) == (400, "OMS.1009")


def test_an_oms_task_that_has_ended_says_so(oms, seeds):
    task_id = int(seeds["old-backups"]["id"])
    request = oms_v2.StopTaskRequest(task_id=task_id)
    assert refusal(oms.stop_task, request) == (400, "OMS.0070")


def act(sms, task_id: str, operation: str):
    body = sms_v3.UpdateTaskStatusReq(operation=operation)
    return sms.update_task_status(sms_v3.UpdateTaskStatusRequest(task_id=task_id, body=body))


def test_an_sms_task_is_paused_started_and_deleted(sms, seeds):
    task_id = seeds["webserver01"]["id"]
    delete = sms_v3.DeleteTaskRequest(task_id=task_id)
    assert refusal(sms.delete_task, delete) == (400, "SMS.7719")
    assert act(sms, task_id, "stop").status_code == 200
    assert show_sms(sms, task_id).state == "ABORTING"
    until(lambda: show_sms(sms, task_id).state, lambda state: state == "ABORT")
    assert act(sms, task_id, "start").status_code == 200
    assert show_sms(sms, task_id).source_server.state == "replicate"
    assert refusal(lambda operation: act(sms, task_id, operation), "start") == (400, "SMS.1039")
    act(sms, task_id, "stop")
    until(lambda: show_sms(sms, task_id).state, lambda state: state == "ABORT")
    assert sms.delete_task(delete).status_code == 200
    assert show_sms(sms, task_id).state == "DELETING"
    request = sms_v3.ShowTaskRequest(task_id=task_id)

    def code() -> str:
        try:
            return sms.show_task(request).state
        except ClientRequestException as refused:
            return refused.error_code

    until(code, lambda seen: seen == "SMS.7703")


def test_the_gate_of_sms_is_the_source_server_and_not_the_task(sms, seeds):
    task_id = seeds["cache11"]["id"]
    shown = show_sms(sms, task_id)
    assert (shown.state, shown.source_server.state, shown.connected) == ("ABORT", "syncing", True)
    assert refusal(sms.delete_task, sms_v3.DeleteTaskRequest(task_id=task_id)) == (400, "SMS.7719")
    for operation, code in (("stop", "SMS.1038"), ("restart", "SMS.1040"), ("pause", "SMS.9001")):
        assert refusal(lambda name: act(sms, task_id, name), operation) == (400, code)


def test_a_wrong_signature_and_a_strange_key_are_refused(addresses):
    request = oms_v2.ListTasksRequest()
    wrong = client(oms_v2, "OmsClient", addresses["oms"], secret_key="wrong")
    assert refusal(wrong.list_tasks, request) == (401, "APIGW.0301")
    strange = client(oms_v2, "OmsClient", addresses["oms"], access_key="STRANGE")
    with pytest.raises(ClientRequestException, match="err:ak not exist"):
        strange.list_tasks(request)
