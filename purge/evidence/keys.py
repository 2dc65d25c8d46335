"""Keys for the evidence, made from LEDGER_KEY, so that there is one secret to keep with the database."""

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from flask import current_app


def key_for(purpose: str) -> bytes:
    """32 bytes, another 32 for each purpose (HKDF, RFC 5869)."""
    return HKDF(SHA256(), 32, salt=None, info=f"purge {purpose}".encode()).derive(current_app.config["LEDGER_KEY"])
