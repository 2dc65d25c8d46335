"""What a long job needs to be quick and small: threads while the database works, and one heap for them."""

import ctypes
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from contextvars import copy_context
from typing import TypeVar

Item, Answer = TypeVar("Item"), TypeVar("Answer")

SWITCH_SECONDS = 0.0005
M_ARENA_MAX = -8  # malloc.h


def share_one_heap() -> None:
    """For all threads begun from now on: the C library gives each its own, where what one frees is of no use to the others,
    a hundred megabytes after a million rows."""
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def at_once(act: Callable[[Item], Answer], items: Iterable[Item], threads: int) -> list[Answer]:
    """What `act` says of each, in their order; so many at a time, and the next item is made meanwhile, but no further one."""
    # Python lets a thread that is back from the database wait for up to 5 ms, after each of a block's statements.
    usual = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    begun, at_work = [], set()
    try:
        with ThreadPoolExecutor(threads) as pool:
            try:
                for item in items:
                    if len(at_work) == threads:
                        done, at_work = wait(at_work, return_when=FIRST_COMPLETED)
                        for one in done:  # what broke stops us here and not at the end
                            one.result()
                    begun.append(pool.submit(copy_context().run, act, item))  # the app's context
                    at_work.add(begun[-1])
            finally:
                for one in at_work:  # what broke there may be why no next item could be made
                    one.result()
        return [one.result() for one in begun]
    finally:
        sys.setswitchinterval(usual)
