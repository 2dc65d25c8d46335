"""Receipts: signed, so that whoever is handed one can tell without us that it is ours and whole."""

import base64
import json
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from purge.evidence.keys import key_for

ALGORITHM = "Ed25519"


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


def read(text: bytes) -> dict[str, Any] | None:
    """What a receipt tells that this installation signed; None of anything else, or where a character was changed."""
    try:
        signed = json.loads(text)
        told, signature = signed["receipt"], base64.b64decode(signed["signature"]["value"], validate=True)
        _private_key().public_key().verify(signature, signed_bytes(told))
    except (ValueError, LookupError, TypeError, RecursionError, InvalidSignature):
        return None
    return told


def _private_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(key_for("receipts"))
