"""Customers and what hangs off them, block by block, straight to the driver."""

import random
import unicodedata
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from sqlalchemy import Engine, func, select

from purge.demo_data.words import COMMENTS, CURRENCIES, EVENTS, LONG_DOMAIN, NOTES, PLACES, SUBJECTS, TAGS
from purge.extensions import db, insert_rows
from purge.models import Customer, Referral, RewardStatus

DEMO_CUSTOMERS = 20_000
BLOCK = 5_000
GIVEN = ("customer", "referral")  # tables whose ids we give, for others lead there
TODAY = datetime(2026, 11, 1)  # fixed, so that the same seed makes the same people on any day
_ASCII = str.maketrans("łŁøØßđ ", "lLoOsd.", "")
_MOMENTS = [str(TODAY - timedelta(minutes=997 * n)) + ".000000" for n in range(2_000)]  # as SQLAlchemy stores them
_STATUSES = [RewardStatus.PENDING, RewardStatus.APPROVED, *[RewardStatus.SENT] * 5, RewardStatus.CANCELLED]
_PEOPLE = [
    (locale, country, city, street, first, surname, domain, CURRENCIES.get(country, "EUR"))
    for locale, country, cities, streets, firsts, surnames, domains in PLACES
    for first in firsts
    for surname in surnames
    for city, street, domain in zip(cities * 2, streets * 2, domains, strict=False)
]


def make_demo_data(
    engine: Engine, customers: int, seed: int = 1, progress: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Add this many customers, about eight rows hanging off each, after those that are there."""
    with engine.connect() as connection:
        first = (connection.scalar(select(func.max(Customer.id))) or 0) + 1
        referrals = connection.scalar(select(func.max(Referral.id))) or 0
    for start in range(first, first + customers, BLOCK):
        ids = range(start, min(start + BLOCK, first + customers))
        rows = _rows(ids, first, referrals, random.Random(f"{seed}:{start}"))
        with engine.begin() as connection:
            if engine.dialect.name == "sqlite":
                # A share link that is there before its customer spares the search index a second entry.
                connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
                insert_rows(connection, "share_link", _TABLES["share_link"], rows.pop("share_link"))
            for table, its_rows in rows.items():
                insert_rows(connection, table, _TABLES[table], its_rows)
            if engine.dialect.name == "postgresql":  # its sequences know nothing of the ids that we gave
                for table in GIVEN:
                    after = f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}"
                    connection.exec_driver_sql(after)
        referrals += len(rows["referral"])
        progress(ids.stop - first, customers)


def _rows(ids: range, oldest: int, referrals: int, dice: random.Random) -> dict[str, list[tuple]]:
    """A block's rows by table, each as its columns stand in the model, without the id where the database gives it."""
    rows: dict[str, list[tuple]] = {name: [] for name in _TABLES}
    roll = dice.random
    for id in ids:
        locale, country, city, street, first, surname, domain, currency = _PEOPLE[int(roll() * len(_PEOPLE))]
        email = _email(id, first, surname, domain, roll)
        moment = _MOMENTS[int(roll() * 2_000)]
        phone = f"+{int(roll() * 89 + 10)} {int(roll() * 9e8 + 1e8)}" if roll() < 0.4 else None
        rows["customer"].append(
            (id, f"C-{id:08}", email, email.lower(), first, surname, phone, locale, moment, moment, roll() < 0.7)
        )
        rows["address"].append(
            (id, f"{int(roll() * 200 + 1)} {street}", city, f"{int(roll() * 89999 + 10000)}", country)
        )
        # Most have little hanging off them, a few have a lot.
        much = 12 if roll() < 0.01 else 1
        for _ in range(int(roll() * 4) * much):
            coupon = f"WELCOME{id % 97}" if roll() < 0.2 else None
            number = f"N{id}-{int(roll() * 1e6)}"
            rows["order"].append(
                (id, number, f"{roll() * 200 + 5:.2f}", currency, _MOMENTS[int(roll() * 2_000)], coupon)
            )
        for _ in range(int(roll() * 4) * much):
            rows["timeline_event"].append((id, EVENTS[int(roll() * 6)], None, _MOMENTS[int(roll() * 2_000)]))
        for _ in range(int(roll() * 3.4)):
            rows["email_sent"].append((id, email, SUBJECTS[int(roll() * 5)], _MOMENTS[int(roll() * 2_000)]))
        if roll() < 0.7:
            rows["share_link"].append((id, f"{first}-{id}".lower(), moment))
        if roll() < 0.5:
            rows["device"].append(
                (id, f"10.{id >> 16 & 255}.{id >> 8 & 255}.{id & 255}", f"{dice.getrandbits(64):016x}", moment)
            )
        if roll() < 0.3:
            rows["tag"].append((id, TAGS[int(roll() * 5)]))
        if roll() < 0.1:
            rows["nps_answer"].append((id, int(roll() * 11), COMMENTS[int(roll() * 5)], moment))
        if roll() < 0.1:
            rows["team_note"].append((id, NOTES[int(roll() * 3)].format(name=first), moment))
        if roll() < 0.5 and id > oldest:
            referral = referrals + len(rows["referral"]) + 1
            _refer(rows, referral, (oldest + int(roll() * (id - oldest)), id), currency, moment, roll)
    return rows


def _refer(
    rows: dict[str, list[tuple]], referral: int, pair: tuple[int, int], currency: str, moment: str, roll
) -> None:
    """A referrer who was there before and the friend they brought; one or both were rewarded for it."""
    rows["referral"].append((referral, *pair, moment))
    for owner in pair[: 1 + (roll() < 0.3)]:
        status = _STATUSES[int(roll() * len(_STATUSES))].value
        code = f"R{owner}-{int(roll() * 1e6)}"
        rows["reward"].append((owner, referral, status, "10.00", currency, code, moment, None))


def _email(id: int, first: str, surname: str, domain: str, roll) -> str:
    """One address a customer, so that none is shared: the number in it is the customer's own."""
    name = _plain(f"{first}.{surname}")
    kind = roll()
    if kind < 0.03:
        name = f"{_plain(first)}+shop"
    elif kind < 0.05:
        name = f"{_plain(first)[0]}o'{_plain(surname.replace(chr(39), ''))}"
    elif kind < 0.06:
        domain = LONG_DOMAIN
    address = f"{name}.{id}@{domain}"
    return address if roll() < 0.9 else address.title() if roll() < 0.5 else address.upper()


_PLAIN: dict[str, str] = {}


def _plain(name: str) -> str:
    """As people write their names into an address: without accents."""
    plain = _PLAIN.get(name)
    if plain is None:
        bare = unicodedata.normalize("NFD", name.translate(_ASCII)).encode("ascii", "ignore").decode()
        plain = _PLAIN[name] = bare.replace(" ", ".").lower()
    return plain


def _columns() -> Iterator[tuple[str, list[str]]]:
    """The tables in the order they can be filled, and their columns; the id only where we give it."""
    for table in db.metadata.sorted_tables:
        leads_to_customer = table.name == "customer" or any(
            c.references(Customer.__table__.c.id) for c in table.columns
        )
        if leads_to_customer:
            yield table.name, [c.name for c in table.columns if c.name != "id" or table.name in GIVEN]


_TABLES = dict(_columns())
