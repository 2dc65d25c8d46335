"""What only SQLite can do to us: a disk that is full, and one writer at a time."""

import json
import os
import re
import shutil
import subprocess
import threading
import time
from contextlib import contextmanager

import pytest

from purge.batches.check import BLOCK_ROWS
from tests import PATIENCE
from tests.instance import Admin
from tests.shop import Shop

pytestmark = pytest.mark.sqlite
FILLED = "everything-else"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own that can be filled."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("only who may mount a file system can fill one")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder, free: int = 0) -> None:
    """To the last byte but those to stay free, and again while somebody gives some back."""
    with open(folder / FILLED, "ab") as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while not free or shutil.disk_usage(folder).free > free + size:
                    os.write(file.fileno(), b"x" * size)
            except OSError:
                continue


@pytest.mark.parametrize("times", [1, pytest.param(4, marks=pytest.mark.soak)])
def test_a_full_disk_loses_nothing_and_the_batch_goes_on_when_there_is_room(small_disk, stock, dice, times):
    shop = Shop(small_disk, stock)
    try:
        admin = Admin(shop.instance)
        fill(small_disk, free=60_000_000)  # so that little is to be filled while the batch runs
        purging = shop.purge()
        larger_than_the_log_has_room_for = b"Email\n" + b"somebody.else@people.com\n" * 1_000_000
        for _ in range(times):
            at = shop.purged() + dice.randrange(1, len(shop.planned) // 10)
            shop.wait_for(lambda at=at: shop.purged() >= at)
            fill(small_disk)
            time.sleep(5)
            fill(small_disk)
            before = shop.purged()
            time.sleep(2)
            assert shop.purged() == before < len(shop.planned)
            assert "its disk is full" in admin.upload(larger_than_the_log_has_room_for)
            assert "people.csv" in admin.get("/batches")
            (small_disk / FILLED).unlink()
        shop.assert_ended_as_planned(purging)
    finally:
        shop.stop()


def test_a_disk_that_fills_during_the_check_loses_no_row(small_disk, stock, dice):
    shop = Shop(small_disk, stock)
    try:
        fill(small_disk, free=60_000_000)
        shop.add_rows(9 * BLOCK_ROWS)
        purging, at = shop.purge(), dice.randrange(0, 3) * BLOCK_ROWS
        shop.wait_for(lambda: shop.ask(f"SELECT 1 FROM batch WHERE state = 'checking' AND checked_rows >= {at}"))
        fill(small_disk)
        time.sleep(3)
        fill(small_disk)
        assert shop.ask("SELECT batch.state, purged FROM batch LEFT JOIN chunk ON batch_id = batch.id") == [
            ("checking", None)
        ]
        (small_disk / FILLED).unlink()
        shop.assert_ended_as_planned(purging)
    finally:
        shop.stop()


def test_web_two_workers_and_a_pick_up_at_once_never_find_the_database_locked(tmp_path, stock, dice):
    shop = Shop(tmp_path, stock, DROP_AGE_SECONDS="1")
    try:
        others = [id for (id,) in shop.ask("SELECT id FROM customer ORDER BY id") if id not in shop.planned]
        singles, dropped = others[:30], others[30:330]
        emails = shop.ask(f"SELECT email FROM customer WHERE id IN ({', '.join(map(str, dropped))})")
        files = shop.instance.folder / "sftp" / "files"
        purging, answers = shop.purge(), []
        with at_once(
            lambda: answers.extend(purge(shop, person) for person in singles),
            lambda: [look(shop) for _ in range(40)],
            lambda: [upload(shop) for _ in range(15)],
        ):
            for part in range(10):
                some = emails[part * 30 : part * 30 + 30]
                (files / f"{part}.csv").write_text("\n".join(["Customer Email", *(email for (email,) in some), ""]))
                time.sleep(dice.random() / 2)
        told = json.loads(purging.communicate(timeout=PATIENCE)[0])
        assert purging.returncode == 0 and sum(told["outcomes"].values()) == told["rows"] == shop.rows
        everybody = shop.planned | set(singles) | set(dropped)
        shop.wait_for(lambda: shop.purged() == len(everybody))
        left = {id for (id,) in shop.ask("SELECT id FROM customer")}
        assert not left & everybody and shop.rows_of_others() == shop.bystanders
        recorded = shop.ask("SELECT customer_id FROM purge_request WHERE outcome = 'purged'")
        assert sorted(id for (id,) in recorded) == sorted(everybody)
        shop.wait_for(lambda: len(list((files / "results").glob("*.sha256"))) == 10)
        assert len(answers) == len(singles) and not [one for one in answers if "permanently deleted" not in one]
        assert shop.ask("SELECT sum(rows) FROM batch WHERE state = 'finished'") == [
            (shop.rows + len(singles) + len(dropped),)
        ]
        assert re.findall(r"^ok +(ledger|audit) ", shop.instance.command("doctor", may_fail=True), re.MULTILINE) == [
            "ledger",
            "audit",
        ]
        assert errors(shop) == [] and shop.ask("PRAGMA foreign_key_check") == []
    finally:
        shop.stop()


def errors(shop) -> list[str]:
    """What the processes logged that is no mere information."""
    logs = [file.read_text() for file in (shop.instance.folder / "logs").iterdir()]
    assert any('"answered"' in log for log in logs)
    return [line for log in logs for line in log.splitlines() if '"level": "error"' in line or "Traceback" in line]


def purge(shop, person: int) -> str:
    admin = Admin(shop.instance)
    return admin.outcome(admin.purge(person))


def upload(shop) -> None:
    assert "Which column holds" in Admin(shop.instance).upload(b"Email\nnobody@people.com\n")


def look(shop) -> None:
    admin = Admin(shop.instance)
    pages = {"/customers": "Customers", "/batches": "Batches", "/settings/sftp-connections/1": "own server"}
    for path, title in pages.items():
        assert re.search(rf"<h1[^>]*>[^<]*{title}", admin.get(path)), path


@contextmanager
def at_once(*acts):
    """Each in a thread of its own, beside what the block does; what one raises is raised here."""
    raised = []

    def run(act):
        try:
            act()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()
    assert raised == []
