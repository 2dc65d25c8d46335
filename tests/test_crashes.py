"""What really happens to processes: real signals on real workers, and the batch ends as planned all the same."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import redis

from purge.batches import Outcome
from tests.instance import CHECKOUT, Instance

CUSTOMERS, ASKED = 6_000, 4_000


class Shop:
    """A running installation with customers, a purge CSV, and `flask purge` under way in a process of its own."""

    def __init__(self, folder, kind=Instance, **settings):
        self.instance = kind(folder / "shop", CHUNK_SIZE="150", **settings)
        self.file = folder / "people.csv"
        self.instance.flask("init-db", check=True)
        made = ("demo-data", "--customers", str(CUSTOMERS), "--purge-csv", str(self.file), "--rows", str(ASKED))
        self.instance.flask(*made, check=True)
        asked = {row["Customer Email"].strip().lower() for row in csv.DictReader(self.file.open(encoding="utf-8"))}
        self.planned = {id for id, key in self.ask("SELECT id, email_key FROM customer") if key in asked}
        self.bystanders = self.rows_of_others()
        self.purging = []
        self.instance.start()

    def stop(self) -> None:
        for purging in self.purging:
            if purging.poll() is None:
                purging.kill()
                purging.communicate()
        self.instance.stop()

    def ask(self, question: str) -> list[tuple]:
        return self.instance.ask(question)

    def rows_of_others(self) -> dict[str, list[tuple]]:
        """Everything about a thousand customers whom the file does not name, byte for byte."""
        others = [id for (id,) in self.ask("SELECT id FROM customer ORDER BY id") if id not in self.planned][:1_000]
        ids = f"({', '.join(map(str, others))})"
        tables = (
            "address",
            "order",
            "share_link",
            "timeline_event",
            "email_sent",
            "team_note",
            "tag",
            "device",
            "nps_answer",
        )
        found = {table: self.ask(f'SELECT * FROM "{table}" WHERE customer_id IN {ids} ORDER BY id') for table in tables}
        return {**found, "customer": self.ask(f"SELECT * FROM customer WHERE id IN {ids} ORDER BY id")}

    def purge(self, *options: str) -> subprocess.Popen:
        command = [
            sys.executable,
            "-m",
            "flask",
            "--app",
            str(CHECKOUT / "app.py"),
            "purge",
            str(self.file),
            "--yes",
            "--json",
        ]
        purging = subprocess.Popen(
            [*command, *options], env=self.instance.environ, cwd=CHECKOUT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.purging.append(purging)
        return purging

    def workers(self) -> list[int]:
        """Their process ids: the workers' own, or those of their jobs."""
        children = self.instance.children()
        return [pid for pid, command in children.items() if "flask" in command and "worker" in command]

    def purged(self) -> int:
        return self.ask("SELECT coalesce(sum(purged), 0) FROM chunk")[0][0]

    def wait_for(self, what, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < until, self.instance.output
            time.sleep(0.02)

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url((self.instance.folder / "redis.url").read_text())

    def assert_ended_as_planned(self, purging: subprocess.Popen) -> None:
        out, _ = purging.communicate(timeout=600)
        told = json.loads(out)
        assert purging.returncode == 0 and told["state"] == "finished", told
        assert told["rows"] == ASKED == sum(told["outcomes"].values())
        assert told["outcomes"]["purged"] == len(self.planned)
        self.assert_only_the_planned_are_gone()

    def assert_only_the_planned_are_gone(self) -> None:
        """Each row has an outcome, each purge stands there once, and nobody else was touched."""
        assert self.purged() == len(self.planned)
        assert self.ask(f"SELECT {' + '.join(f'sum({outcome})' for outcome in Outcome)} FROM chunk") == [(ASKED,)]
        left = {id for (id,) in self.ask("SELECT id FROM customer")}
        assert not left & self.planned and len(left) == CUSTOMERS - len(self.planned)
        assert self.rows_of_others() == self.bystanders
        recorded = self.ask("SELECT customer_id FROM purge_request WHERE outcome = 'purged'")
        assert sorted(id for (id,) in recorded) == sorted(self.planned)
        if "DATABASE_URL" not in self.instance.environ:
            assert self.ask("PRAGMA foreign_key_check") == []


@pytest.fixture
def shop(tmp_path):
    made = Shop(tmp_path)
    yield made
    made.stop()


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.soak)])
def test_a_worker_killed_in_the_middle_again_and_again(shop, dice, kills):
    purging = shop.purge()
    for _ in range(kills):
        at = shop.purged() + dice.randrange(1, 2 * ASKED // kills)
        shop.wait_for(lambda at=at: shop.purged() >= min(at, len(shop.planned)))
        shop.wait_for(shop.workers)
        os.kill(dice.choice(shop.workers()), signal.SIGKILL)
    shop.assert_ended_as_planned(purging)


def test_all_workers_killed_and_redis_emptied(shop, dice):
    purging = shop.purge()
    at = dice.randrange(1, len(shop.planned) // 2)
    shop.wait_for(lambda: shop.purged() >= at)
    assert shop.instance.kill("flask", "worker") >= 2
    shop.redis().flushall()
    shop.assert_ended_as_planned(purging)


def test_killed_in_the_middle_of_the_check(shop):
    purging = shop.purge()
    shop.wait_for(lambda: shop.ask("SELECT 1 FROM batch WHERE check_attempts = 1"))
    shop.instance.kill("flask", "worker")
    shop.assert_ended_as_planned(purging)


def test_everything_killed_and_started_again(shop, dice):
    purging = shop.purge()
    at = dice.randrange(1, len(shop.planned) // 2)
    shop.wait_for(lambda: shop.purged() >= at)
    purging.kill()
    purging.communicate()
    shop.instance.process.kill()
    shop.instance.process.wait()
    shop.instance.start()
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
    told = [json.loads(one.communicate(timeout=120)[0]) for one in (first, second)]
    assert sum(one["outcomes"]["purged"] for one in told) == len(shop.planned)
    for one in told:
        missed = one["outcomes"]["already_purged"] + one["outcomes"]["not_found"]
        assert sum(one["outcomes"].values()) == ASKED and missed + one["outcomes"]["purged"] >= len(shop.planned)
    recorded = shop.ask("SELECT customer_id FROM purge_request WHERE outcome = 'purged'")
    assert sorted(id for (id,) in recorded) == sorted(shop.planned)
