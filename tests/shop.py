"""An installation with customers, some of whom a file names: what faults are tried on, and what must be so after each."""

import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import redis

from app import create_app
from purge import email_address
from purge.batches import Outcome
from purge.extensions import db
from purge.models import Customer
from tests import PATIENCE
from tests.instance import Instance
from tests.people import add_customer

CUSTOMERS, ASKED, COPIED = 6_000, 4_000, 250
LOOK_ALIKES = 4 * COPIED
BYSTANDERS = LOOK_ALIKES + 1_000


REFERRALS = "SELECT id, referrer_id, friend_id, created_at FROM referral ORDER BY id"


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
    instance.command("init-db")
    made = ("demo-data", "--customers", str(CUSTOMERS), "--purge-csv", str(stock.file), "--rows", str(ASKED))
    instance.command(*made)
    _add_look_alikes(stock.file, instance.environ)
    return stock


def _add_look_alikes(file: Path, environ: dict[str, str]) -> None:
    """Customers whose addresses are almost those of some whom the file names, and what a looser comparison would take for them."""
    app = create_app(environ)
    with app.app_context():
        there = set(db.session.scalars(db.select(Customer.email_key)))
        copied = [address for row in _rows(file) if (address := email_address.read(row["Customer Email"])[0]) in there]
        for address in copied[:COPIED]:
            local, at, domain = address.partition("@")
            for alike in (f"{local}+shop", f"x.{local}", f"{local[:-1]}_", f"{local}\u0301"):
                add_customer(f"{alike}{at}{domain}", first_name="Look", surname="Alike")
        db.session.commit()
        db.engine.dispose()


def _rows(file: Path) -> Iterator[dict[str, str]]:
    with file.open(encoding="utf-8") as lines:
        yield from csv.DictReader(lines)


class Shop:
    """A running installation with a copy of the stock, and `flask purge` under way in a process of its own."""

    def __init__(self, folder: Path, stock: Stock, kind: type[Instance] = Instance, **settings: str):
        shutil.copytree(stock.folder, folder / "shop")
        # Some two hundred chunks, so that a fault finds the batch in the middle.
        self.instance = kind(folder / "shop", template=stock.database, **{"CHUNK_SIZE": "20", **settings})
        self.file, self.rows = stock.file, ASKED
        asked = {row["Customer Email"].strip().lower() for row in _rows(self.file)}
        self.planned = {id for id, key in self.ask("SELECT id, email_key FROM customer") if key in asked}
        self.bystanders = self.rows_of_others()
        self.referrals = [
            (id, *(None if side in self.planned else side for side in sides), at)
            for id, *sides, at in self.ask(REFERRALS)
        ]
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
        """Everything about a thousand look-alikes of whom the file names, and a thousand others, byte for byte."""
        there = [id for (id,) in self.ask("SELECT id FROM customer ORDER BY id DESC") if id not in self.planned]
        others = there[:BYSTANDERS]
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
            "reward",
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
        """Process ids of those that take files: the workers' own, or those of their jobs."""
        children, others = self.instance.children(), ("single", "pick-up")
        files = {pid: words for pid, words in children.items() if "flask" in words and "worker" in words}
        return [pid for pid, words in files.items() if not any(other in words for other in others)]

    def kill_a_worker(self, dice: random.Random) -> bool:
        """Whether there was one; the one killed before may be seen for a moment longer."""
        if there := self.workers():
            with suppress(ProcessLookupError):
                os.kill(dice.choice(there), signal.SIGKILL)
                return True
        return False

    def purged(self) -> int:
        return self.ask("SELECT coalesce(sum(purged), 0) FROM chunk")[0][0]

    def wait_for(self, what: Callable[[], bool]) -> None:
        self.instance.wait_for(what)

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url((self.instance.folder / "redis.url").read_text())

    def assert_ended_as_planned(self, purging: subprocess.Popen) -> None:
        out, _ = purging.communicate(timeout=PATIENCE)
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
        assert not left & self.planned and len(left) == CUSTOMERS + LOOK_ALIKES - len(self.planned)
        assert self.rows_of_others() == self.bystanders
        assert self.ask(REFERRALS) == self.referrals, "each side is forgotten by itself"
        recorded = self.ask("SELECT customer_id FROM purge_request WHERE outcome = 'purged'")
        assert sorted(id for (id,) in recorded) == sorted(self.planned)
        looked = self.instance.command("doctor", may_fail=True)
        assert set(re.findall(r"^ok +(ledger|audit) ", looked, re.MULTILINE)) == {"ledger", "audit"}, looked
        if "DATABASE_URL" not in self.instance.environ:
            assert self.ask("PRAGMA foreign_key_check") == []
