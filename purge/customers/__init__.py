"""Customers as an admin meets them: found, listed, looked at."""

from purge.customers.finding import Asked, Side, Sort, find, is_here, side, total
from purge.customers.folding import spans, words
from purge.customers.profile import SECTIONS, pageful, turn_emails

__all__ = [
    "SECTIONS",
    "Asked",
    "Side",
    "Sort",
    "find",
    "is_here",
    "pageful",
    "side",
    "spans",
    "total",
    "turn_emails",
    "words",
]
