"""Signatures of `_SUCCESS` in minisign's format (Ed25519), by py-minisign, from the extra `sign`.

`_SUCCESS` holds the digests of the manifest, the plan and `run.json`, so its signature covers the whole run. Also
without this package `minisign -Vm _SUCCESS -p KEY.pub` checks it.
"""

import base64
import binascii
import os
from pathlib import Path
from typing import Any

from segment.errors import UsageError
from segment.store.names import shown

SIGNATURE = "_SUCCESS.minisig"
PASSWORD = "SEGMENT_SIGN_PASSWORD"  # name of the environment variable; command lines are seen by all on a machine


class Signer:
    """Signs with a secret key of minisign.

    Args:
        path: local file of the key, as `minisign -G` writes it.

    Raises:
        UsageError: the file is no such key, or its password is missing or wrong; the package is not installed.
    """

    def __init__(self, path: str) -> None:
        minisign = _library("--sign")
        try:
            self._key = minisign.SecretKey.from_bytes(_read(path, "--sign"))
            if self._key.is_encrypted():
                password = os.environ.get(PASSWORD)
                if password is None:
                    raise UsageError(f"--sign {shown(path)}: the key has a password; give it as ${PASSWORD}")
                self._key.decrypt(password)
        except minisign.Error as error:
            raise UsageError(f"--sign {shown(path)}: {error}; `minisign -G` makes a secret key") from None

    def sign(self, data: bytes, comment: str) -> bytes:
        """Return the content of the signature's file; the same for the same data and comment."""
        return (
            bytes(self._key.sign(data, untrusted_comment="signature of a run of segment", trusted_comment=comment))
            + b"\n"
        )


class PublicKey:
    """Verifies signatures with a public key of minisign.

    Args:
        key: local file of the key, or the key itself, as `minisign -P` takes it.

    Raises:
        UsageError: it is no such key; the package is not installed.
    """

    def __init__(self, key: str) -> None:
        self._minisign = _library("--verify-with")
        try:
            if Path(key).is_file():
                self._key = self._minisign.PublicKey.from_bytes(_read(key, "--verify-with"))
            else:
                self._key = self._minisign.PublicKey.from_base64(key)
        except ValueError as error:
            why = f"{error}; give the file of minisign's public key, or the key itself"
            raise UsageError(f"--verify-with {shown(key)}: {why}") from None

    def fault(self, data: bytes, signature: bytes) -> str | None:
        """Return why a signature is not this key's of these bytes, in words; None if it is."""
        try:
            self._key.verify(data, self._minisign.Signature.from_bytes(signature))
        except ValueError as error:
            return str(error)
        return None


def signer_of(signature: bytes | None) -> str:
    """Return the id of the key that a signature names, as minisign shows it; `""` without a signature.

    It is not verified: whoever wrote the signature chose it.
    """
    try:
        return base64.b64decode((signature or b"").splitlines()[1], validate=True)[9:1:-1].hex().upper()
    except (IndexError, binascii.Error):
        return ""


def _library(option: str) -> Any:
    try:
        import minisign
    except ImportError:
        raise UsageError(f"{option} needs another package: pip install 'segment-job[sign]'") from None
    return minisign


def _read(path: str, option: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{option} {shown(path)}: {error.strerror}") from None
