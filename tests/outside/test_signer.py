"""The gateway's signer against the vendor's own, over random requests.

Both are given the same requests, other ones in each run, and have to agree on every signature. The gateway's side is
`examples/sign.rs`, whose path `.ci/outside` tells: a program of a few lines around the function that signs what the
gateway sends, so that nothing stands between the two signers.
"""

import json
import os
import random
import re
import string
import subprocess
from datetime import datetime, timedelta
from urllib.parse import quote, quote_plus

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer

REQUESTS = 500
#: Everything that has a meaning in an address, in a form or in a signed text, and characters of two to four bytes.
ODD = " !\"#$%&'()*+,/:;<=>?@[\\]^`{|}~-_.\u00e9\u00df\u65e5\u5fd7\u0416\u05d0\U0001f680"
PLAIN = string.ascii_letters + string.digits


def text(dice: random.Random, least: int, most: int) -> str:
    letters = PLAIN + ODD if dice.random() < 0.7 else PLAIN
    return "".join(dice.choice(letters) for _ in range(dice.randint(least, most)))


def visible(dice: random.Random, length: int) -> str:
    return "".join(dice.choice(PLAIN + "+/=-_.") for _ in range(length))


def escaped(dice: random.Random, plain: str, in_query: bool) -> str:
    """One of the ways in which a text can stand in an address."""
    if in_query:
        way = dice.choice([lambda: quote_plus(plain), lambda: quote(plain, safe="~"), lambda: quote(plain, safe="/:,~!$'()*;@")])
    else:
        way = dice.choice([lambda: quote(plain, safe="~"), lambda: quote(plain, safe="!$&'()*+,;=:@~")])
    if dice.random() < 0.5:
        return way()
    return re.sub("%[0-9A-F]{2}", lambda escape: escape[0].lower(), way())


def request(dice: random.Random) -> tuple[SdkRequest, str, BasicCredentials]:
    """A request as the vendor's SDK has it, its address as it is sent, and keys."""
    segments = [text(dice, 1, 12).replace("/", "") or "x" for _ in range(dice.randint(0, 5))]
    path = "/" + "/".join(escaped(dice, segment, in_query=False) for segment in segments)
    if segments and dice.random() < 0.2:
        path += "/"
    names = [text(dice, 1, 8) for _ in range(3)]
    # Few names, so that many are repeated; some values are empty.
    query = [(dice.choice(names), text(dice, 0, 10)) for _ in range(dice.randint(0, 6))]
    sent = [f"{escaped(dice, name, True)}={escaped(dice, value, True)}" for name, value in query]
    target = path + ("?" + "&".join(sent) if sent else "")
    moment = datetime(2026, 1, 1) + timedelta(seconds=dice.randint(0, 10**9))
    headers = {"X-Sdk-Date": moment.strftime("%Y%m%dT%H%M%SZ"), "X-Project-Id": f"{dice.getrandbits(128):032x}"}
    if dice.random() < 0.7:
        headers["Content-Type"] = dice.choice(["application/json", "application/json;charset=utf8"])
    if dice.random() < 0.5:
        headers["X-Security-Token"] = visible(dice, dice.randint(1, 2000))
    if dice.random() < 0.3:
        headers["User-Agent"] = "  a name with spaces around "
    body = json.dumps({text(dice, 0, 9): text(dice, 0, 200)}, ensure_ascii=dice.random() < 0.5)
    signed = SdkRequest(
        method=dice.choice(["GET", "POST", "PUT", "DELETE"]),
        schema="https",
        host=dice.choice(["oms.cn-north-4.myhuaweicloud.com", "127.0.0.1:8090"]),
        resource_path=path,
        query_params=query,
        header_params=headers,
        body=body if dice.random() < 0.5 else "",
    )
    return signed, target, BasicCredentials(visible(dice, 20), visible(dice, 40), "project")


def test_both_signers_agree_on_random_requests():
    seed = random.SystemRandom().getrandbits(64)
    dice = random.Random(seed)
    lines, expected = [], []
    for _ in range(REQUESTS):
        unsigned, target, keys = request(dice)
        body = unsigned.body
        signed = Signer(keys).sign(unsigned)
        headers = {name.lower(): value for name, value in signed.header_params.items()}
        expected.append(headers.pop("authorization"))
        line = {"method": signed.method, "target": target, "headers": headers, "body": body}
        lines.append(json.dumps({**line, "access_key": keys.ak, "secret_key": keys.sk}))
    ours = subprocess.run(
        [os.environ["SIGNER"]], input="\n".join(lines), capture_output=True, encoding="utf-8", timeout=60, check=True
    ).stdout.splitlines()
    assert len(ours) == REQUESTS
    for line, our, their in zip(lines, ours, expected, strict=True):
        assert our == their, f"seed {seed}: {line}"
