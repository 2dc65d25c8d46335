"""Processes that do not outlive the one that started them."""

import ctypes
import signal
import sys

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def dies_with_us(number: int = signal.SIGTERM) -> None:
    """In a child, before it becomes another program: have the kernel signal it when its parent dies (Linux)."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, number)
