"""Signatures of `_SUCCESS`: by which a consumer tells whose run it is."""

import sys
from pathlib import Path

import minisign
import pytest

from segment.output.signing import PASSWORD, SIGNATURE
from tests.calls import Call
from tests.reliability.tampering import change_json, reseal
from tests.reliability.trouble import street
from tests.runs import Place

PAIR, OTHER = minisign.KeyPair.generate(), minisign.KeyPair.generate()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = street(tmp_path, images=3)
    (tmp_path / "key").write_bytes(bytes(PAIR.secret_key))
    (tmp_path / "key.pub").write_bytes(bytes(PAIR.public_key))
    return place


def test_a_signed_run(place: Place, segment: Call) -> None:
    key, public = f"--sign={place.folder / 'key'}", str(place.folder / "key.pub")
    called = segment(*place.flags(), key)
    assert called.code == 0, called.err
    for how in (public, PAIR.public_key.to_base64().decode()):
        assert segment("audit", str(place.output), f"--verify-with={how}").code == 0
    signature = (place.output / SIGNATURE).read_bytes()
    PAIR.public_key.verify_file(place.output / "_SUCCESS", minisign.Signature.from_bytes(signature))
    number = PAIR.public_key.to_base64()
    assert number
    page = (place.output / "report" / "index.html").read_text()
    key_id = bytes(reversed(bytes(minisign.Signature.from_bytes(signature)._key_id))).hex().upper()
    assert f"by the key {key_id}, not verified here" in page
    assert segment(*place.flags()).code == 0  # nothing to do
    assert (place.output / SIGNATURE).read_bytes() == signature
    assert segment("audit", str(place.output), f"--verify-with={public}").code == 0

    place.add("3.png", 3)
    called = segment(*place.flags(), "--update")
    assert called.code == 0
    assert not (place.output / SIGNATURE).exists()
    called = segment("audit", str(place.output), f"--verify-with={public}")
    assert called.code == 1
    assert called.out.splitlines()[0] == f"wrong: the run is not signed: there is no {SIGNATURE}"
    assert segment(*place.flags(), key).code == 0
    assert segment("audit", str(place.output), f"--verify-with={public}").code == 0


def test_whoever_changes_all_is_told_by_the_signature_alone(place: Place, segment: Call) -> None:
    """Who may write to all of an output can make it agree with itself."""
    assert segment(*place.flags(), f"--sign={place.folder / 'key'}").code == 0
    change_json(place.output / "report" / "summary.json", lambda summary: summary["miou"].update(omz=1.0))
    reseal(place.output)
    assert segment("audit", str(place.output), "--deep").code == 0
    called = segment("audit", str(place.output), f"--verify-with={place.folder / 'key.pub'}")
    assert called.code == 1
    assert called.out.splitlines()[0].startswith(f"wrong: {SIGNATURE} is no signature of _SUCCESS by this key (")


def test_the_key_of_somebody_else(place: Place, segment: Call) -> None:
    assert segment(*place.flags(), f"--sign={place.folder / 'key'}").code == 0
    public = OTHER.public_key.to_base64().decode()
    called = segment("audit", str(place.output), f"--verify-with={public}")
    assert called.code == 1
    for damage in (b"", b"garbage", b"untrusted comment: x\nAAAA\ntrusted comment: y\nBBBB\n", b"\xff" * 99):
        (place.output / SIGNATURE).write_bytes(damage)
        assert segment("audit", str(place.output), f"--verify-with={public}").code == 1
        assert segment("report", str(place.output)).code == 0


def test_without_a_signature_the_page_says_so_and_no_more(place: Place) -> None:
    place.run()
    page = (place.output / "report" / "index.html").read_text()
    assert "not signed" in page
    assert not (place.output / SIGNATURE).exists()


def test_a_key_with_a_password(place: Place, segment: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = minisign.KeyPair.generate()
    pair.secret_key.encrypt("secret", opslimit=minisign.OPSLIMIT // 64, memlimit=minisign.MEMLIMIT // 64)
    (place.folder / "key").write_bytes(bytes(pair.secret_key))
    flags = [*place.flags(), f"--sign={place.folder / 'key'}"]
    called = segment(*flags)
    assert (called.code, called.out) == (2, "")
    assert f"the key has a password; give it as ${PASSWORD}" in called.err
    monkeypatch.setenv(PASSWORD, "wrong")
    called = segment(*flags)
    assert called.code == 2
    assert "wrong password" in called.err
    assert not place.output.exists()  # nothing was begun
    monkeypatch.setenv(PASSWORD, "secret")
    assert segment(*flags).code == 0
    written = [file.read_bytes() for file in place.output.rglob("*") if file.is_file()]
    assert not any(b"secret" in data for data in written)


@pytest.mark.parametrize("content", [None, b"", b"no key", b"\xff\xfe", bytes(PAIR.public_key)])
def test_what_is_no_key_is_refused_before_anything_is_done(place: Place, segment: Call, content: bytes | None) -> None:
    file = place.folder / "other"
    if content is not None:
        file.write_bytes(content)
    called = segment(*place.flags(), f"--sign={file}")
    assert (called.code, called.out) == (2, "")
    assert called.err.startswith(f"error: --sign {file}: ")
    assert not place.output.exists()
    if content != bytes(PAIR.public_key):
        called = segment("audit", str(place.output), f"--verify-with={file}")
        assert called.code == 2
        assert called.err.startswith(f"error: --verify-with {file}: ")


def test_without_the_library(place: Place, segment: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minisign", None)
    called = segment(*place.flags(), f"--sign={place.folder / 'key'}")
    assert called.code == 2
    assert "--sign needs another package: pip install 'segment-job[sign]'" in called.err
