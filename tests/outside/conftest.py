"""Where the program under test is: it says so in its log, whose path `.ci/outside` tells."""

import json
import os
import time
import urllib.request
from pathlib import Path

import pytest

#: The simulated account, as `src/sandbox/options.rs` has it. It is open to everybody and gives access to nothing.
ACCESS_KEY = "SANDBOXACCESSKEY0001"
SECRET_KEY = "SandboxSecretKey000000000000000000000001"
PROJECT_ID = "2c0689c860ad4728a497c91ec0844383"


@pytest.fixture(scope="session")
def addresses() -> dict[str, str]:
    """The base URLs of the gateway and of the simulated services."""
    for line in Path(os.environ["SANDBOX_LOG"]).read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry["message"] == "the sandbox answers":
            return {name: entry[name] for name in ("gateway", "iam", "oms", "sms")}
    pytest.fail("the log does not say where the sandbox is")


@pytest.fixture(scope="session")
def gateway(addresses: dict[str, str]) -> str:
    """The base URL of the gateway."""
    return addresses["gateway"]


@pytest.fixture(scope="session")
def seeds(gateway: str) -> dict[str, dict]:
    """The tasks that the sandbox began with, by name, as the gateway showed them before any test."""
    with urllib.request.urlopen(f"{gateway}/tasks?page_size=200", timeout=10) as answer:
        page = json.load(answer)
    assert page["next_page_token"] is None
    return {task["name"]: task for task in page["tasks"]}


def until(look, wanted, limit: float = 20.0):
    """Looks until what is seen is wanted, for so many seconds at most, and returns what was seen last."""
    deadline = time.monotonic() + limit
    while not wanted(seen := look()):
        assert time.monotonic() < deadline, f"seen last: {seen}"
        time.sleep(0.2)
    return seen
