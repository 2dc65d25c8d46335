"""More threads change when things are made and done, and nothing else."""

import os
import subprocess
import sys
import threading
import time
from itertools import count

import pytest

from purge.config import CHECKOUT
from purge.pace import at_once
from tests import PATIENCE

HEAPS_OF_AN_APP = """
import ctypes
from app import create_app
from purge.pace import at_once
create_app()
at_once(lambda number: [bytes(5_000) for _ in range(1_000)], range(9), 3)
library = ctypes.CDLL(None)
library.fdopen.restype = ctypes.c_void_p
output = ctypes.c_void_p(library.fdopen(1, b"w"))
library.malloc_info(0, output)
library.fflush(output)
"""


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_answers_are_in_order(threads):
    usual = sys.getswitchinterval()
    assert at_once(lambda number: number * 2, range(50), threads) == [number * 2 for number in range(50)]
    assert sys.getswitchinterval() == usual


@pytest.mark.parametrize("threads", [1, 2])
def test_one_is_made_ahead_and_no_more(threads):
    done, in_hand = [], []

    def items():
        for number in range(1, 101):
            in_hand.append(number - len(done))  # what was made and is not done
            yield number

    at_once(done.append, items(), threads)
    assert max(in_hand) <= threads + 1


def test_so_many_are_at_work_at_once_and_no_more():
    meeting, here, most = threading.Barrier(2, timeout=PATIENCE), [], []  # who is alone breaks it

    def act(number: int) -> None:
        here.append(number)
        meeting.wait()
        most.append(len(here))
        meeting.wait()
        here.remove(number)

    at_once(act, range(10), 2)
    assert set(most) == {2}


def test_what_breaks_in_a_thread_breaks_here_and_nothing_more_is_begun():
    begun = []

    def act(number):
        begun.append(number)
        return 1 / (3 - number)

    with pytest.raises(ZeroDivisionError):
        at_once(act, count(), 1)
    assert begun == [0, 1, 2, 3]


def test_what_breaks_while_the_next_is_made_breaks_here():
    def broken():
        yield 1
        raise ValueError("line 7")

    done = []
    with pytest.raises(ValueError, match="line 7"):
        at_once(done.append, broken(), 2)
    assert done == [1]


def test_what_broke_a_thread_is_told_and_not_what_that_led_to():
    broken = threading.Event()

    def act(_):
        broken.set()
        raise ValueError("the cause")

    def items():
        yield 1
        broken.wait(PATIENCE)
        raise KeyError("the consequence")

    with pytest.raises(ValueError, match="the cause"):
        at_once(act, items(), 2)


def test_one_thread_breaks_and_what_the_other_does_is_done_first():
    broken, done = threading.Event(), []

    def act(number):
        if number == 1:
            broken.set()
            raise ValueError
        broken.wait(PATIENCE)
        time.sleep(0.1)
        done.append(number)

    with pytest.raises(ValueError):
        at_once(act, [0, 1, 2, 3], 2)
    assert done == [0]


def test_threads_share_one_heap(tmp_path):
    environ = os.environ | {"INSTANCE_PATH": str(tmp_path)}
    command = [sys.executable, "-c", HEAPS_OF_AN_APP]
    told = subprocess.run(command, env=environ, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout
    assert told.count("<heap nr=") == 1
