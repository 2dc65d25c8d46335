"""Python's garbage collector, where very many small things are made."""

import gc
from contextlib import contextmanager


@contextmanager
def loaded_stays():
    """What is loaded now is not looked through again for every few rows; that was a fifth of a check's time."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
