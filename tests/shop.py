"""An installation with customers, some of whom a file names: what faults are tried on, and what must be so after each."""

import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import redis

from purge.batches import Outcome
from tests.instance import START_SECONDS, Instance

CUSTOMERS, ASKED = 6_000, 4_000


class Stock(NamedTuple):
    """Made once: an installation's folder with a purge CSV beside it, and its database's name on PostgreSQL."""

    folder: Path
    database: str | None

    @property
    def file(self) -> Path:
        return self.folder.with_name("people.csv")


def make_stock(folder: Path, **settings: str) -> Stock:
    instance = Instance(folder / "stock", **settings)
    url = instance.environ.get("DATABASE_URL", "")
    stock = Stock(instance.folder, url.rpartition("/")[2] or None)
    instance.flask("init-db", check=True)
    made = ("demo-data", "--customers", str(CUSTOMERS), "--purge-csv", str(stock.file), "--rows", str(ASKED))
    instance.flask(*made, check=True)
    return stock


class Shop:
    """A running installation with a copy of the stock, and `flask purge` under way in a process of its own."""

    def __init__(self, folder: Path, stock: Stock, kind: type[Instance] = Instance, **settings: str):
        shutil.copytree(stock.folder, folder / "shop")
        self.instance = kind(folder / "shop", template=stock.database, CHUNK_SIZE="150", **settings)
        self.file, self.rows = stock.file, ASKED
        asked = {row["Customer Email"].strip().lower() for row in csv.DictReader(self.file.open(encoding="utf-8"))}
        self.planned = {id for id, key in self.ask("SELECT id, email_key FROM customer") if key in asked}
        self.bystanders = self.rows_of_others()
        self.purging = []
        try:
            self.instance.start()
        except BaseException:
            self.instance.stop()
            raise

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
        purging = self.instance.begin_flask("purge", str(self.file), "--yes", "--json", *options)
        self.purging.append(purging)
        return purging

    def add_rows(self, number: int) -> None:
        """So many unknown people at the beginning of the file."""
        header, *asked = self.file.read_text().splitlines()
        self.file, self.rows = self.instance.folder / "long.csv", self.rows + number
        self.file.write_text("\n".join([header, *(f"nobody.at.all.{n}@people.com,," for n in range(number)), *asked]))

    def workers(self) -> list[int]:
        """Their process ids: the workers' own, or those of their jobs."""
        children = self.instance.children()
        return [pid for pid, command in children.items() if "flask" in command and "worker" in command]

    def kill_a_worker(self, dice: random.Random) -> bool:
        """Whether there was one; the one killed before may be seen for a moment longer."""
        if there := self.workers():
            with suppress(ProcessLookupError):
                os.kill(dice.choice(there), signal.SIGKILL)
                return True
        return False

    def purged(self) -> int:
        return self.ask("SELECT coalesce(sum(purged), 0) FROM chunk")[0][0]

    def wait_for(self, what: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        self.instance.wait_for(what, seconds)

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url((self.instance.folder / "redis.url").read_text())

    def assert_ended_as_planned(self, purging: subprocess.Popen) -> None:
        out, _ = purging.communicate(timeout=600)
        told = json.loads(out)
        assert purging.returncode == 0 and told["state"] == "finished", told
        assert told["rows"] == self.rows == sum(told["outcomes"].values())
        assert told["outcomes"]["purged"] == len(self.planned)
        self.assert_only_the_planned_are_gone()

    def assert_only_the_planned_are_gone(self) -> None:
        """Each row has an outcome, each purge stands there once and in the evidence, and nobody else was touched."""
        assert self.purged() == len(self.planned)
        assert self.ask(f"SELECT {' + '.join(f'sum({outcome})' for outcome in Outcome)} FROM chunk") == [(self.rows,)]
        left = {id for (id,) in self.ask("SELECT id FROM customer")}
        assert not left & self.planned and len(left) == CUSTOMERS - len(self.planned)
        assert self.rows_of_others() == self.bystanders
        recorded = self.ask("SELECT customer_id FROM purge_request WHERE outcome = 'purged'")
        assert sorted(id for (id,) in recorded) == sorted(self.planned)
        looked = self.instance.flask("doctor").stdout
        assert set(re.findall(r"^ok +(ledger|audit) ", looked, re.MULTILINE)) == {"ledger", "audit"}, looked
        if "DATABASE_URL" not in self.instance.environ:
            assert self.ask("PRAGMA foreign_key_check") == []
