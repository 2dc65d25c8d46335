"""What really happens to processes: real signals on real workers, and the batch ends as planned all the same."""

import json
import time

import pytest

from purge.batches.check import BLOCK_ROWS
from tests import PATIENCE
from tests.shop import ASKED, Shop


@pytest.fixture
def shop(tmp_path, stock):
    made = Shop(tmp_path, stock)
    yield made
    made.stop()


def go_on(shop, dice, customers: int) -> None:
    """Wait until at most so many more are purged; the batch is still in the middle."""
    at = shop.purged() + dice.randrange(1, customers)
    shop.wait_for(lambda: shop.purged() >= at)


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.soak)])
def test_a_worker_killed_in_the_middle_again_and_again(shop, dice, kills):
    purging = shop.purge()
    for _ in range(kills):
        go_on(shop, dice, len(shop.planned) // (2 * kills))
        shop.wait_for(lambda: shop.kill_a_worker(dice))
        assert shop.purged() < len(shop.planned)
    shop.assert_ended_as_planned(purging)


@pytest.mark.parametrize("times", [2, pytest.param(10, marks=pytest.mark.soak)])
def test_all_workers_killed_and_redis_emptied(shop, dice, times):
    purging = shop.purge()
    for _ in range(times):
        go_on(shop, dice, len(shop.planned) // (2 * times))
        assert shop.instance.kill("flask", "worker") >= 2
        shop.redis().flushall()
        assert shop.purged() < len(shop.planned)
    shop.assert_ended_as_planned(purging)


def test_killed_inside_the_check(shop, dice):
    """Before its first block, between two, and after the last, when repeated rows are told apart and the plan is drawn up."""
    shop.add_rows(6 * BLOCK_ROWS)
    purging = shop.purge()
    for attempt, rows in enumerate([0, *(dice.randrange(1, 4 * BLOCK_ROWS) for _ in range(2)), shop.rows], 1):
        begun = f"SELECT 1 FROM batch WHERE check_attempts = {attempt} AND checked_rows >= {rows}"
        shop.wait_for(lambda begun=begun: shop.ask(begun))
        time.sleep(dice.random() / 10)
        shop.instance.kill("flask", "worker")
        if rows < shop.rows:
            assert shop.ask("SELECT state FROM batch") == [("checking",)]
    shop.assert_ended_as_planned(purging)


@pytest.mark.parametrize("times", [2, pytest.param(10, marks=pytest.mark.soak)])
def test_everything_killed_and_started_again(shop, dice, times):
    purging = shop.purge()
    for _ in range(times):
        go_on(shop, dice, len(shop.planned) // (2 * times))
        purging.kill()
        shop.instance.process.kill()
        shop.instance.process.wait()
        assert shop.purged() < len(shop.planned)
        shop.instance.start(wait=False)  # by the time that its pages answer much of the batch would have run
    purging.communicate()
    shop.wait_for(lambda: shop.ask("SELECT state FROM batch") == [("finished",)])
    shop.assert_only_the_planned_are_gone()


def test_ctrl_c_finishes_the_chunk_in_hand_and_the_next_start_goes_on(shop):
    purging = shop.purge()
    shop.wait_for(lambda: shop.purged() > 0)
    purging.kill()
    purging.communicate()
    assert shop.instance.stop() == 0
    assert shop.purged() < len(shop.planned)
    shop.instance.start()
    shop.wait_for(lambda: shop.ask("SELECT state FROM batch") == [("finished",)])
    shop.assert_only_the_planned_are_gone()


def test_two_batches_with_the_same_people_purge_each_once(shop):
    first, second = shop.purge(), shop.purge()
    told = [json.loads(one.communicate(timeout=PATIENCE)[0]) for one in (first, second)]
    assert sum(one["outcomes"]["purged"] for one in told) == len(shop.planned)
    for one in told:
        missed = one["outcomes"]["already_purged"] + one["outcomes"]["not_found"]
        assert sum(one["outcomes"].values()) == ASKED and missed + one["outcomes"]["purged"] >= len(shop.planned)
    recorded = shop.ask("SELECT customer_id FROM purge_request WHERE outcome = 'purged'")
    assert sorted(id for (id,) in recorded) == sorted(shop.planned)
