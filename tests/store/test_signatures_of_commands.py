"""No command says or writes a signature, whatever the input: a list, a tar, Parquet; nor one of a card or weights."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from segment.store.foreign_text import on_terminal
from tests.calls import Call
from tests.here import working_here
from tests.runs import CARD_TOML, Place
from tests.store.test_signed_urls import Source, list_beside_its_images, local_list, parquet, planted, tar
from tests.store.test_signed_urls import site as site
from tests.web import PLANTED, Web

LOOKS = [
    "report", "report -f markdown", "report -f json", "report -f csv", "audit --deep", "status", "score",
    "score -f json", "score -f csv", "label-errors", "label-errors -f csv", "label-errors -f json",
]  # fmt: skip
FORMATS = ("png", "voc", "coco-stuff", "coco-panoptic", "cvat", "label-studio")


@pytest.mark.parametrize("source", [local_list, list_beside_its_images, tar, parquet])
def test_a_signature_is_in_nothing_that_any_command_says_or_writes(
    site: Web, tmp_path: Path, source: Source, segment: Call, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "segment")
    place, said = Place(tmp_path), list[str]()
    weights = site.put("/m/model.onnx", place.weights_path.read_bytes())
    place.card_path.write_text(CARD_TOML)
    site.put("/m/card.toml", CARD_TOML.encode())

    def call(*arguments: str, code: int = 0) -> None:
        with working_here():
            called = segment(*arguments)
        assert called.code == code, called.err
        said.extend((called.out, called.err))

    def flags(output: str) -> list[str]:
        signed = {"weights": site.sign("/m/model.onnx"), "model": site.sign("/m/card.toml")}
        return place.flags(input=source(site, tmp_path), output=str(tmp_path / output), **signed)

    site.signed = True
    call(*flags("out"), "--currency=EUR", "--price-per-hour=1")
    call(*flags("other"), "--log-format=json", "--mask-size=model")
    call(*flags("out"), "--print-job")
    call(*flags("out"), "--update", "--verify")
    _, given, _, *rest = flags("out")
    call("plan", given, *rest, "--images=2")
    for look in LOOKS:
        command, *more = look.split()
        call(command, str(place.output), *more)
    call("compare", str(place.output), str(tmp_path / "other"), "--to", str(tmp_path / "pages"))
    call("models", "show", site.sign("/m/card.toml"))
    call("models", "draft", site.sign("/m/model.onnx"), "--to", str(tmp_path / "draft.toml"))
    call("overlay", str(place.output), "--worst=2", "--to", str(tmp_path / "overlays"))
    for kind in FORMATS:
        call("export", str(place.output), str(tmp_path / "exports" / kind), "-f", kind)
    site.expire()  # and failures
    old = flags("late")
    site.expire()
    call(*old, code=2)
    call("models", "show", old[-1].partition("=")[2] if "model" in old[-1] else site.sign("/m/none.toml"), code=2)
    (tmp_path / "list.csv").unlink(missing_ok=True)  # the user's own
    assert planted(tmp_path) == []
    logged = [record.getMessage() for record in caplog.records]
    assert not [text for text in [*said, *logged] if PLANTED in text or "X-Amz-S" in text]
    assert weights


def test_what_a_program_fails_with_by_itself_is_masked() -> None:
    """A library's own exception, which nobody expected, ends in the same place."""
    error = f"ClientResponseError: 403, url='https://h/a.png?X-Amz-Signature={PLANTED}&X-Goog-Signature={PLANTED}'"
    assert PLANTED not in on_terminal(error)
    assert PLANTED not in on_terminal(json.dumps({"error": f"https://x/c?sv=2&sig={PLANTED}%3D"}))
