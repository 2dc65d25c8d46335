"""Bytes that the database keeps for us but cannot read: AES-256-GCM under a key made from SECRET_KEY."""

import hashlib
import os

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from flask import current_app

NONCE_BYTES = 12


class Seal:
    """Seals and opens for one purpose; `place` is sealed with the bytes, so that they are read only where they were kept."""

    def __init__(self, purpose: str):
        key = f"{purpose}:{current_app.config['SECRET_KEY']}"
        self._cipher = AESGCM(hashlib.sha256(key.encode()).digest())

    def close(self, content: bytes, place: str) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, content, place.encode())

    def open(self, sealed: bytes, place: str) -> bytes:
        return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place.encode())
