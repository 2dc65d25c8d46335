"""What lets a long job go quicker: a second thread while the database works, and a collector that leaves it alone."""

import gc
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import TypeVar

Item, Answer = TypeVar("Item"), TypeVar("Answer")

TOGETHER = 2
SWITCH_SECONDS = 0.0005


@contextmanager
def loaded_stays():
    """What is loaded now is not looked through again for every few rows; that was a fifth of a check's time."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, none of them None, each made while the one before is in use."""
    # Python lets a thread that is back from the database wait for up to 5 ms, after each of a block's statements.
    usual = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    here = copy_context()  # the app's
    try:
        with ThreadPoolExecutor(1) as thread:
            next_one = thread.submit(here.run, next, items, None)
            while (item := next_one.result()) is not None:
                next_one = thread.submit(here.run, next, items, None)
                yield item
    finally:
        sys.setswitchinterval(usual)


def together(ask: Callable[[Item], Answer], items: Iterable[Item]) -> list[Answer]:
    """What `ask` says of each, in their order, two at a time; for what is asked of the database."""
    each = [(copy_context(), item) for item in items]  # one cannot be entered twice at once
    with ThreadPoolExecutor(TOGETHER) as threads:
        return list(threads.map(lambda one: one[0].run(ask, one[1]), each))
