"""What the OpenAPI document cannot say, so that a request that the schema allows is one that should be taken.

A rule here is one across parameters, or one of the running configuration. Everything that concerns one value by itself
is in the document. Only requests that are meant to be right are changed; those that are meant to be wrong are left as
they are.
"""

import re
import uuid
import zlib

import schemathesis
from schemathesis import GenerationMode
from schemathesis.core import NOT_SET
from schemathesis.core.parameters import ParameterLocation

#: Requests for these wait for their operation; a test has no time for the default of half a minute.
WAITING = {"pause_task", "start_task", "delete_task", "show_operation"}
#: Requests that are about an operation.
OPERATIONS = {"show_operation", "watch_operation", "cancel_operation"}
#: The ids that belong to OMS unless a service is named (`upstream::oms`).
OMS_ID = re.compile(r"(0|[1-9][0-9]{0,14})\Z")
#: The document's pattern of the header `Prefer`.
PREFER = re.compile(r"(respond-async|wait=[0-9]{1,9})( *, *(respond-async|wait=[0-9]{1,9}))*\Z")
#: A preference about waiting, right or wrong, somewhere in the header.
WAIT = re.compile(r"(^|,)\s*wait\s*(=|;|,|$)", re.IGNORECASE)
#: Ids of tasks that the sandbox begins with (`src/sandbox/seeds.rs`).
OMS_TASKS = [str(204871530992101 + place) for place in range(13)]
SMS_TASKS = [f"7a9a9540-ff28-4869-b9e4-{place:012x}" for place in range(1, 18)]
KEYS = {"access_key": "AK", "secret_key": "SK"}


@schemathesis.hook
def before_call(context, case, kwargs):
    operation = context.operation.definition.raw["operationId"]
    if operation in WAITING:
        preference = case.headers.get("Prefer")
        if preference is None or PREFER.match(preference):
            case.headers["Prefer"] = "respond-async" if preference == "respond-async" else "wait=1"
        elif not WAIT.search(preference):
            # It stays wrong; without a wait that can be read it would be the default one.
            case.headers["Prefer"] = f"{preference}, wait=1"
    if case.meta is not None and case.meta.generation.mode == GenerationMode.POSITIVE:
        make_coherent(operation, case)


def make_coherent(operation: str, case):
    # Only configured projects are taken, and the sandbox has one.
    if "project" in case.query:
        case.query["project"] = "sandbox"
    # A page token is opaque and belongs to a list with the same filters; no schema tells one from another text.
    if operation == "list_tasks":
        case.query.pop("page_token", None)
    # A key that was used for another request is refused, and made-up ones are short.
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = uuid.uuid4().hex
    if "id" not in case.path_parameters or operation in OPERATIONS:
        return
    # Half of the ids that were made up become those of tasks that are there, the same ones every time.
    task_id = str(case.path_parameters["id"])
    number = zlib.crc32(repr((task_id, sorted(case.query.items()))).encode("utf-8", "replace"))
    if task_id not in OMS_TASKS + SMS_TASKS and number % 2:
        tasks = SMS_TASKS if case.query.get("service") == "sms" else OMS_TASKS + SMS_TASKS
        task_id = case.path_parameters["id"] = tasks[number // 2 % len(tasks)]
    # A service takes ids of its own form: OMS the numbers, SMS whatever is not one, and any when it is named.
    if not OMS_ID.match(task_id):
        is_number = task_id.isdigit()
        if is_number or "service" in case.query:
            case.query["service"] = "sms"
    if operation == "start_task":
        # A start of an OMS task needs a body, that of an SMS task must not have one.
        is_oms = case.query.get("service", "oms") == "oms" and OMS_ID.match(task_id)
        if is_oms and case.body is NOT_SET:
            case.body = {"source": KEYS, "destination": KEYS}
            case.media_type = "application/json"
        elif not is_oms and case.body is not NOT_SET:
            case.path_parameters["id"] = OMS_TASKS[2]
            case.query.pop("service", None)


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Lets the gateway ignore preferences that it does not know, as RFC 7240, section 2, wants it to."""
    if type(failure).__name__ != "AcceptedNegativeData" or case.meta is None:
        return True
    wrong = {place for place in case.meta.components if case.meta.is_negative_at(place)}
    preference = str((case.headers or {}).get("Prefer", ""))
    is_ignored = not WAIT.search(preference.removesuffix(", wait=1"))
    return wrong != {ParameterLocation.HEADER} or not is_ignored
