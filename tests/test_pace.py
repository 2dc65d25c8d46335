"""A second thread changes when things are made, and nothing else."""

import sys
from itertools import count, islice

import pytest

from purge.pace import ahead, together


def test_made_ahead_they_are_the_same_in_the_same_order():
    usual = sys.getswitchinterval()
    assert list(ahead(iter(range(1000)))) == list(range(1000))
    assert sys.getswitchinterval() == usual


def test_one_is_made_ahead_and_no_more():
    made = []
    items = ahead(made.append(number) or number for number in count())
    assert list(islice(items, 3)) == [0, 1, 2]
    items.close()
    assert made == [0, 1, 2, 3]


def test_what_breaks_in_the_other_thread_breaks_here():
    def broken():
        yield 1
        raise ValueError("line 7")

    items = ahead(broken())
    assert next(items) == 1
    with pytest.raises(ValueError, match="line 7"):
        next(items)
    with pytest.raises(ZeroDivisionError):
        together(lambda number: 1 / number, [1, 0, 2])


def test_together_answers_in_order():
    assert together(lambda number: number * 2, range(50)) == [number * 2 for number in range(50)]
