"""An Ed25519 signature over the root of a run's checksums (RFC 8032), in ``signature.json``.

It proves that whoever holds the key has vouched for exactly these files. It proves nothing about how
they came about. Needs the package ``cryptography`` (``pip install 'aiprof[sign]'``).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field

from profiler.errors import InputFileError, UsageError
from profiler.results.checksums import (
    CHECKSUMS_FILE,
    MAX_CHECKSUMS_BYTES,
    SIGNATURE_FILE,
    Checksums,
    read_checksums,
)
from profiler.results.fields import Identifier
from profiler.results.read import printable, read_limited
from profiler.results.record_base import SCHEMA_VERSION, Record
from profiler.results.verify_files import Finding
from profiler.results.whole_files import write_whole_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAX_KEY_BYTES: Final = 64 * 1024
MAX_SIGNATURE_BYTES: Final = 4096
REMEDY: Final = "signatures need the package cryptography: pip install 'aiprof[sign]'"


class Signature(Record):
    """The content of ``signature.json``.

    Attributes:
        schema_version: of this format.
        algorithm: always ``ed25519``.
        public_key: 32 bytes in hex.
        root: of the checksums that were signed.
        signature: 64 bytes in hex, over :func:`message` of the root.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    algorithm: Literal["ed25519"] = "ed25519"
    public_key: Identifier
    root: Identifier
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]

    def encoded(self) -> bytes:
        """Return the file's content."""
        return json.dumps(self.model_dump(mode="json"), indent=1).encode() + b"\n"


@dataclass(frozen=True)
class Signed:
    """What is known of a run's signature.

    Attributes:
        fingerprint: of the public key, as ``ssh-keygen -l`` shows it.
        checked: whether the signature was checked; not without ``cryptography``.
        trusted: whether it is by the key that was asked for; None when none was.
    """

    fingerprint: str
    checked: bool
    trusted: bool | None


def message(root: str) -> bytes:
    """Return the bytes that are signed for a root."""
    return f"aiprof signature 1\n{root}\n".encode()


def fingerprint(public_key: bytes) -> str:
    """Return ``SHA256:…`` over the key in SSH's wire format, as ``ssh-keygen -l`` does."""
    name = b"ssh-ed25519"
    wire = b"".join(len(part).to_bytes(4, "big") + part for part in (name, public_key))
    return "SHA256:" + base64.b64encode(hashlib.sha256(wire).digest()).decode().rstrip("=")


def sign_run(path: Path, key_file: Path) -> Signed:
    """Sign a closed run and write ``signature.json``.

    Args:
        path: the run.
        key_file: private Ed25519 key, PEM (PKCS 8) or OpenSSH, without a passphrase.

    Raises:
        InputFileError: the run is not closed, or the key cannot be used.
        UsageError: ``cryptography`` is not installed.
    """
    key = _private_key(key_file)
    where = path / CHECKSUMS_FILE
    try:
        root = read_checksums(read_limited(where, MAX_CHECKSUMS_BYTES)).root
    except ValueError as error:
        raise InputFileError([f"{where}: is not as aiprof wrote it: {error}"]) from None
    public = key.public_key().public_bytes_raw()
    signature = Signature(public_key=public.hex(), root=root, signature=key.sign(message(root)).hex())
    write_whole_file(path / SIGNATURE_FILE, signature.encoded())
    return Signed(fingerprint(public), checked=True, trusted=None)


def new_key(path: Path) -> str:
    """Write a new private key (PEM, for its owner only) and ``path.pub``; return the fingerprint.

    Raises:
        UsageError: a file is there already or cannot be written, or ``cryptography`` is not installed.
    """
    serialization, ed25519 = _cryptography()
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    public_path = path.with_name(path.name + ".pub")
    for file, content, mode in ((path, private, 0o600), (public_path, public + b"\n", 0o644)):
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except OSError as error:
            raise UsageError(f"{file}: cannot be written: {error.strerror}; choose another name") from None
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(content)
    return fingerprint(key.public_key().public_bytes_raw())


def check_signature(
    path: Path, checksums: Checksums | None, trusted: Path | None, findings: list[Finding]
) -> Signed | None:
    """Check a run's signature, if there is one; what does not verify is added to ``findings``.

    Args:
        path: the run.
        checksums: of the run, or None where they cannot be read.
        trusted: file of the public key that must have signed, or None.
        findings: added to.

    Raises:
        InputFileError: ``trusted`` cannot be read.
        UsageError: ``trusted`` is given and ``cryptography`` is not installed.
    """
    wanted = None if trusted is None else _public_key(trusted)

    def fault(what: str) -> None:
        findings.append(Finding(SIGNATURE_FILE, "", ("the origin of every figure",), what))

    if not os.path.lexists(path / SIGNATURE_FILE):
        if wanted is not None:
            fault("is missing: nobody has signed this run")
        return None
    try:
        data = read_limited(path / SIGNATURE_FILE, MAX_SIGNATURE_BYTES)
        signature = Signature.model_validate_json(data, strict=True)
        if signature.encoded() != data:
            raise ValueError("spelled otherwise")
    except (InputFileError, ValueError) as error:
        fault(f"is not as aiprof wrote it: {printable(str(error).splitlines()[0])[:200]}")
        return None
    public = bytes.fromhex(signature.public_key)
    if checksums is None or signature.root != checksums.root:
        fault("was made for other files than these")
    checked = _checks(public, signature, fault)
    known = None if wanted is None else wanted == public
    if known is False:
        fault(f"is by {fingerprint(public)}, not by the trusted key {fingerprint(wanted or b'')}")
    return Signed(fingerprint(public), checked=checked, trusted=known)


def _checks(public: bytes, signature: Signature, fault: Any) -> bool:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(
            bytes.fromhex(signature.signature), message(signature.root)
        )
    except (InvalidSignature, ValueError):
        fault("is not a signature of this key over these files")
    return True


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise UsageError(REMEDY) from None
    return serialization, ed25519


def _key_data(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_KEY_BYTES)
    except OSError as error:
        raise InputFileError([f"{path}: cannot be read: {error.strerror}"]) from None


def _private_key(path: Path) -> Ed25519PrivateKey:
    serialization, ed25519 = _cryptography()
    data = _key_data(path)
    load = (
        serialization.load_ssh_private_key
        if b"OPENSSH PRIVATE" in data
        else serialization.load_pem_private_key
    )
    try:
        key = load(data, password=None)
    except TypeError:
        raise InputFileError([f"{path}: is protected by a passphrase; give a key without one"]) from None
    except Exception:  # whatever the library says of a file that is no key
        key = None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        how = "make one with `aiprof sign --new-key FILE` or `ssh-keygen -t ed25519`"
        raise InputFileError([f"{path}: is not a private Ed25519 key; {how}"])
    found: Ed25519PrivateKey = key
    return found


def _public_key(path: Path) -> bytes:
    serialization, ed25519 = _cryptography()
    data = _key_data(path)
    for load in (serialization.load_ssh_public_key, serialization.load_pem_public_key):
        try:
            key = load(data)
        except Exception:  # whatever the library says of a file that is no key
            continue
        if isinstance(key, ed25519.Ed25519PublicKey):
            raw: bytes = key.public_bytes_raw()
            return raw
    raise InputFileError([f"{path}: is not a public Ed25519 key (PEM, or a line of ssh-keygen)"])
