"""Finding customers among many, and purging one while a file runs."""

import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from flask import current_app
from sqlalchemy import func, select

from app import create_app
from purge.cli.setup import add_user
from purge.customers import Sort, search_index
from purge.extensions import db
from purge.models import Customer, Role
from tests.instance import Admin, Instance

TERMS = 40
MISS = "xqzjkw"


def search_times(folder: Path) -> dict[str, float]:
    """The 95th percentile of the server's seconds for a search, by kind of term, and the median for a miss."""
    with create_app({"INSTANCE_PATH": str(folder)}).app_context():
        ask = _asker()
        for terms in _terms(seed=8).values():  # others, so that it is a server which has run for a while
            for term in terms:
                ask({"term": term})
        seconds = {kind: [ask({"term": term}) for term in terms] for kind, terms in _terms(seed=7).items()}
        db.engine.dispose()
    return {kind: p95(times) for kind, times in seconds.items()} | {"miss, median": statistics.median(seconds["miss"])}


def list_times(folder: Path) -> tuple[float, float]:
    """Median seconds for the first and the last page of the list, of the order where they differ most."""
    with create_app({"INSTANCE_PATH": str(folder)}).app_context():
        ask = _asker()
        pages = [
            tuple(statistics.median(ask({"sort": sort, "page": page}) for _ in range(15)) for page in ("", "last"))
            for sort in Sort
        ]
        db.engine.dispose()
    return max(pages, key=lambda page: page[1] / page[0])


def filtered_times(folder: Path) -> tuple[int, float, str]:
    """How many ways of filtering, ordering, paging and searching were tried; the slowest one's seconds, and which it was."""
    day = {"created_from": "2026-05-01", "created_to": "2026-05-01"}
    month = {"created_from": "2026-05-01", "created_to": "2026-05-31"}
    nobody = {"created_from": "2099-01-01"}
    filters = [nobody, day, month, {"side": "both"}, {"emails": "off"}, {"side": "both", "emails": "off", **month}]
    listed = [{"sort": sort, "page": page} for sort in Sort for page in ("", "last")]
    searched = [{"term": term} for term in ("gmail", "a", "amelia smith", MISS)]
    with create_app({"INSTANCE_PATH": str(folder)}).app_context():
        ask = _asker()
        ways = [{**chosen, **way} for chosen in filters for way in listed + searched]
        times = [(statistics.median(ask(way) for _ in range(3)), way) for way in ways]
        db.engine.dispose()
    seconds, way = max(times, key=lambda one: one[0])
    return len(ways), seconds, ", ".join(f"{name} {value}" for name, value in way.items() if value)


def single_purges(folder: Path, file: Path, customers: int) -> list[float]:
    """Seconds from the confirmation to "was permanently deleted", one after the other, for as long as the file runs."""
    folder.with_suffix(".output").unlink(missing_ok=True)  # of the run before, with another password
    instance = Instance(folder).start()
    try:
        admin, seconds = Admin(instance), []
        bulk = instance.begin_flask("purge", str(file), "--yes")
        while "state-running" not in admin.get("/batches") and bulk.poll() is None:
            time.sleep(0.05)
        dice = random.Random(7)
        while bulk.poll() is None:
            seconds.append(_purge_one(admin, dice.randrange(1, customers)))
        return [one for one in seconds if one is not None]
    finally:
        instance.stop()


def without_the_index(folder: Path) -> Path:
    """This installation, with its search index taken away."""
    with create_app({"INSTANCE_PATH": str(folder)}).app_context():
        with db.engine.begin() as connection:
            theirs = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND sql LIKE ?"
            for name in connection.exec_driver_sql(theirs, (f"%{search_index.NAME}%",)).scalars().all():
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
            connection.exec_driver_sql("DROP INDEX ix_customer_name")
            connection.exec_driver_sql(f"DROP TABLE {search_index.NAME}")
            # Every run looks that nobody is left in it.
            connection.exec_driver_sql(f"CREATE TABLE {search_index.NAME} (text)")
        db.engine.dispose()
    return folder


def _purge_one(admin: Admin, person: int) -> float | None:
    """None for somebody who is gone already."""
    url = f"/customers/{person}/purge"
    page = admin.get(url)
    if "purge-title" not in page:
        return None
    fields = admin.fields(page)
    began = time.perf_counter()
    told = admin.outcome(admin.send(url, fields))
    return time.perf_counter() - began if "permanently deleted" in told else None


def _terms(seed: int) -> dict[str, list[str]]:
    dice = random.Random(seed)
    newest = db.session.scalar(select(func.max(Customer.id)))
    ids = [dice.randrange(1, newest) for _ in range(TERMS)]
    people = db.session.scalars(select(Customer).where(Customer.id.in_(ids))).all()
    return {
        "beginning": [person.first_name[:4] for person in people],
        "middle": [person.surname[1:5] for person in people],
        "two words": [f"{person.surname[:4]} {person.first_name}" for person in people],
        "full address": [person.email for person in people],
        "rare": [person.external_id for person in people],
        "very common": [*["gmail", "com", "an", "a", ".", "@", "c-0", "mail.com"] * 5],
        "miss": [MISS, "wendyx", "smith-amelia-x", "zzz@nowhere.org"] * 10,
    }


def _asker() -> Callable[[dict], float]:
    """Asks for a list as a browser does, and says how long it took; signed in."""
    email = f"bench{random.random()}@localhost"
    password = add_user(email, Role.OPERATOR)
    current_app.config["WTF_CSRF_ENABLED"] = False
    client = current_app.test_client()
    client.post("/login", data={"email": email, "password": password})

    def ask(fields: dict) -> float:
        began = time.perf_counter()
        assert client.post("/customers/found", data=fields).status_code == 200
        return time.perf_counter() - began

    ask({"term": "warm"})
    return ask


def p95(seconds: list[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.95)]
