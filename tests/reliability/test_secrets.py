"""A planted secret is in nothing that a run on Ray leaves: output, streams, logs and sessions of the cluster, HOME."""

import json
import tempfile
from pathlib import Path

import pytest

from tests.reliability.arena import Arena, note, proxied
from tests.reliability.proxy import Fault


def holders(folder: Path, *words: str) -> list[str]:
    """Files below a folder that hold one of these words, as they are, in UTF-16, or as JSON spells them."""
    spelled = {form for w in words for form in (w.encode(), w.encode("utf-16-le"), json.dumps(w)[1:-1].encode())}
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [str(path) for path in files if any(form in path.read_bytes() for form in spelled)]


def test_a_planted_secret_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "log").write_bytes("x hush \xff".encode("latin-1"))
    (tmp_path / "wide").write_bytes("hush".encode("utf-16-le"))
    (tmp_path / "none").write_bytes(b"silence")
    assert sorted(Path(name).name for name in holders(tmp_path, "hush")) == ["log", "wide"]


def logs_of(session: str) -> list[Path]:
    return [path for path in Path(session).rglob("logs/*") if path.is_file()]


@pytest.mark.slow
@pytest.mark.ray
def test_a_secret_given_by_option_is_nowhere_on_a_cluster(arena: Arena) -> None:
    """Also not where the workers fail with it: what they raise is logged by Ray."""
    server = arena.server
    options = [f"--storage-option=key={server.key}", f"--storage-option=secret={server.secret}"]
    nothing = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    with tempfile.TemporaryDirectory(
        prefix="s-", ignore_cleanup_errors=True
    ) as session:  # short: Ray's sockets are here
        env = {**nothing, "RAY_TMPDIR": session}
        refused = Fault("status", method="PUT", key="/masks/", times=None, code="AccessDenied")
        with proxied(server, refused) as proxy:
            failed = arena.run("secret-ray", proxy, "--engine=ray", *options, **env)
        assert refused.injected
        assert failed.code == 1, failed.text
        assert len(logs_of(session)) > 5
        assert holders(Path(session), server.key, server.secret) == []
        ended = arena.run("secret-ray", None, "--engine=ray", *options, **env)
        assert ended.code == 0, ended.text
        assert len(logs_of(session)) > 5  # its own: those of the first run went with its start
        assert holders(Path(session), server.key, server.secret) == []
    arena.check("secret-ray")  # output and HOME, streams
    note("AccessDenied in Ray's workers, then the user follows the advice", 1, 1, ended.seconds)
