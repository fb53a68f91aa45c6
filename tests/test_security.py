"""SECURITY.md: the rights that it lists are those that a run uses."""

import json
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.reliability.arena import Arena, proxied
from tests.reliability.proxy import Fault

SECURITY = Path(__file__).resolve().parents[1] / "SECURITY.md"


def granted() -> dict[str, set[str]]:
    """Actions by bucket, as the policy of SECURITY.md grants them."""
    text = SECURITY.read_text(encoding="utf-8")
    (policy,) = re.findall(r"<!-- policy: begin -->\s*```json\n(.*?)```", text, re.DOTALL)
    found: dict[str, set[str]] = {"INPUT": set(), "OUTPUT": set()}
    for statement in json.loads(policy)["Statement"]:
        assert statement["Effect"] == "Allow"
        found[statement["Resource"].removeprefix("arn:aws:s3:::").partition("/")[0]] |= set(statement["Action"])
    return found


def action(method: str, target: str) -> tuple[str, str]:
    """Bucket and IAM action of an S3 request; see AWS' table of required permissions."""
    url = urlsplit(target)
    bucket, _, key = url.path.strip("/").partition("/")
    asked = parse_qs(url.query, keep_blank_values=True).keys()
    if method == "DELETE":
        return bucket, "s3:AbortMultipartUpload" if "uploadId" in asked else "s3:DeleteObject"
    if method == "POST" and "delete" in asked:
        return bucket, "s3:DeleteObject"
    if method in ("PUT", "POST"):
        return bucket, "s3:PutObject" if key else "s3:CreateBucket"
    assert method in ("GET", "HEAD")
    return bucket, "s3:GetObject" if key else "s3:ListBucket"


@pytest.mark.parametrize(
    ("method", "target", "wanted"),
    [
        ("GET", "/b/a/b.png", "s3:GetObject"),
        ("HEAD", "/b/a", "s3:GetObject"),
        ("GET", "/b?list-type=2&prefix=a", "s3:ListBucket"),
        ("HEAD", "/b", "s3:ListBucket"),
        ("POST", "/b?delete", "s3:DeleteObject"),
        ("POST", "/b/a?uploads", "s3:PutObject"),
        ("PUT", "/b/a?partNumber=1&uploadId=x", "s3:PutObject"),
        ("PUT", "/b", "s3:CreateBucket"),
    ],
)
def test_requests_as_actions(method: str, target: str, wanted: str) -> None:
    assert action(method, target) == ("b", wanted)


def test_a_run_and_its_resumption_use_the_rights_that_are_listed(arena: Arena) -> None:
    """Its input is only read, and nothing of its output deleted but the object with which it was tried."""
    refused = Fault("status", method="(DELETE|POST)", times=None, code="AccessDenied")
    with proxied(arena.server, refused, Fault("status", method="PUT", key="_SUCCESS", code="AccessDenied")) as proxy:
        assert arena.here("rights", proxy).code == 1  # at its last request but few
        assert arena.here("rights", proxy).code == 0
        used: dict[str, set[str]] = {"arena-in": set(), "arena-out": set()}
        for method, target in proxy.log:
            bucket, name = action(method, target)
            if name == "s3:DeleteObject":  # is refused, and the run goes on without it
                assert "_preflight-" in target or method == "POST"
                continue
            used[bucket].add(name)
    rights = granted()
    assert used["arena-in"] == rights["INPUT"]
    assert used["arena-out"] == rights["OUTPUT"] - {"s3:AbortMultipartUpload"}  # of masks too large for one request
