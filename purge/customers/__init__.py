"""Customers as an admin meets them: found, listed, looked at."""

from purge.customers.finding import PAGE, Asked, Found, Side, Sort, find, side, total
from purge.customers.folding import spans, words
from purge.customers.profile import SECTIONS, Pageful, pageful, turn_emails

__all__ = [
    "PAGE",
    "SECTIONS",
    "Asked",
    "Found",
    "Pageful",
    "Side",
    "Sort",
    "find",
    "pageful",
    "side",
    "spans",
    "total",
    "turn_emails",
    "words",
]
