"""No command says or writes a signature, whatever the input: a list, a tar, Parquet; nor one of a card or weights."""

import json
import logging
from pathlib import Path

import pytest

from segment.store.foreign_text import on_terminal
from tests.calls import Call
from tests.runs import CARD_TOML, Place
from tests.store.test_signed_urls import Source, list_beside_its_images, local_list, parquet, planted, tar
from tests.store.test_signed_urls import site as site
from tests.web import PLANTED, Web

LOOKS = ("report", "report -f json", "audit --deep", "status", "score -f json", "label-errors -f csv")
FORMATS = ("png", "coco-stuff", "label-studio")  # one without ids of its own, one with ids, one with URLs


@pytest.mark.parametrize("source", [local_list, list_beside_its_images, tar, parquet])
def test_a_signature_is_in_nothing_that_any_command_says_or_writes(
    site: Web, tmp_path: Path, source: Source, segment: Call, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "segment")
    place, said = Place(tmp_path), list[str]()
    site.put("/m/model.onnx", place.weights_path.read_bytes())
    site.put("/m/card.toml", CARD_TOML.encode())

    def call(*arguments: str, code: int = 0) -> None:
        called = segment(*arguments)
        assert called.code == code, called.err
        said.extend((called.out, called.err))

    def flags() -> list[str]:
        signed = {"weights": site.sign("/m/model.onnx"), "model": site.sign("/m/card.toml")}
        return place.flags(input=source(site, tmp_path), allow_input=[site.url], **signed)

    out = str(place.output)
    call(*flags(), "--log-format=json")
    call(*flags(), "--print-job")
    call(*flags(), "--update", "--verify")
    _, given, _, *rest = flags()
    call("plan", given, *rest, "--images=2")
    for look in LOOKS:
        command, *more = look.split()
        call(command, out, *more)
    call("compare", out, out, "--to", str(tmp_path / "pages"))
    call("models", "show", site.sign("/m/card.toml"))
    call("models", "draft", site.sign("/m/model.onnx"), "--to", str(tmp_path / "draft.toml"))
    call("overlay", out, "--worst=2", "--to", str(tmp_path / "overlays"))
    for kind in FORMATS:
        call("export", out, str(tmp_path / "exports" / kind), "-f", kind)
    late, gone = flags(), site.sign("/m/none.toml")
    site.expire()  # and failures
    call(*late, code=1)
    call("models", "show", gone, code=1)
    (tmp_path / "list.csv").unlink(missing_ok=True)  # the user's own
    assert planted(tmp_path) == []
    logged = [record.getMessage() for record in caplog.records]
    assert not [text for text in [*said, *logged] if PLANTED in text or "X-Amz-S" in text]


def test_what_a_program_fails_with_by_itself_is_masked() -> None:
    """A library's own exception, which nobody expected, ends in the same place."""
    error = f"ClientResponseError: 403, url='https://h/a.png?X-Amz-Signature={PLANTED}&X-Goog-Signature={PLANTED}'"
    assert PLANTED not in on_terminal(error)
    assert PLANTED not in on_terminal(json.dumps({"error": f"https://x/c?sv=2&sig={PLANTED}%3D"}))
