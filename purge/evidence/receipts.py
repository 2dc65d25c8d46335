"""Receipts: signed, so that whoever is handed one can tell without us that it is ours and whole."""

import base64
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from purge.evidence.keys import key_for

ALGORITHM, KEY_BYTES = "Ed25519", 32


def sign(told: dict[str, Any]) -> dict[str, Any]:
    """The receipt with its signature, which is over `signed_bytes` of what is told."""
    signature = base64.b64encode(_private_key().sign(signed_bytes(told))).decode()
    return {"receipt": told, "signature": {"algorithm": ALGORITHM, "public_key": public_key(), "value": signature}}


def signed_bytes(told: dict[str, Any]) -> bytes:
    """What is signed: JSON with its keys in order and no spaces, which for our values is RFC 8785's."""
    return json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def public_key() -> str:
    """This installation's, 32 bytes in base64: what it signed, anybody can check with it."""
    return base64.b64encode(_private_key().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


class OtherKey(Exception):
    """Signed, or said to be, with another key; str() is that key, as the file has it."""


def read(text: bytes) -> dict[str, Any] | None:
    """What a receipt tells that is to the last sign what this installation signed; None of anything else. Raises OtherKey."""
    try:
        signed = json.loads(text, object_pairs_hook=_once)
        told, key = signed["receipt"], signed["signature"]["public_key"]
        is_a_key = isinstance(key, str) and len(base64.b64decode(key, validate=True)) == KEY_BYTES
        is_ours = signed == sign(told)
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    if is_a_key and key != public_key():
        raise OtherKey(key)
    return told if is_ours else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A name that stands there twice would be read otherwise by another reader."""
    if len(dict(pairs)) != len(pairs):
        raise ValueError
    return dict(pairs)


def _private_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(key_for("receipts"))
