"""Knowing an address again without keeping it."""

import hmac
from collections.abc import Callable

from flask import current_app


def fingerprinter() -> Callable[[str], bytes]:
    """What turns a normal form (purge.email_address) into its fingerprint: HMAC-SHA-256, 32 bytes; the key is no row of the database."""
    key = current_app.config["LEDGER_KEY"]
    return lambda email_key: hmac.digest(key, email_key.encode(), "sha256")
