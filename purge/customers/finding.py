"""Finding customers: by words, best match first, or listed in an order, a page at a time however long the list."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from enum import IntEnum, StrEnum
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, or_, select

from purge.customers import search_index
from purge.customers.folding import at_start, search_text, words
from purge.extensions import db
from purge.models import Customer, Referral, ShareLink

PAGE = 50
MOST_WORDS, LONGEST_WORD = 8, 100
SHORTEST_INSIDE = 3  # characters: fewer are looked for at the beginning of a word only


class Side(StrEnum):
    """A customer's role in the programme."""

    REFERRER = "referrer"
    FRIEND = "friend"
    BOTH = "both"


class Sort(StrEnum):
    NEWEST = "newest"
    OLDEST = "oldest"
    NAME = "name"
    NAME_BACK = "name_back"
    EMAIL = "email"
    EMAIL_BACK = "email_back"

    @property
    def words(self) -> str:
        return _SORTS[self][0]


_NAME = func.sort_text(Customer.surname, Customer.first_name)
_SORTS: dict[Sort, tuple[str, Any, bool]] = {
    Sort.NEWEST: ("Newest first", Customer.created_at, True),
    Sort.OLDEST: ("Oldest first", Customer.created_at, False),
    Sort.NAME: ("Surname, A to Z", _NAME, False),
    Sort.NAME_BACK: ("Surname, Z to A", _NAME, True),
    Sort.EMAIL: ("E-mail, A to Z", Customer.email_key, False),
    Sort.EMAIL_BACK: ("E-mail, Z to A", Customer.email_key, True),
}


class Match(IntEnum):
    """How well every word of the term is met, the best first."""

    WHOLE = 0
    BEGINNING = 1
    INSIDE = 2


@dataclass(frozen=True)
class Asked:
    """What somebody looks for. `page` is where a page begins, as `Found` says it: a direction, a value and an id."""

    term: str = ""
    side: Side | None = None
    receives_emails: bool | None = None
    created_from: date | None = None
    created_to: date | None = None
    sort: Sort = Sort.NEWEST
    page: tuple[str, str, int | None] | None = None

    @property
    def words(self) -> list[str]:
        return [word[:LONGEST_WORD] for word in words(self.term)[:MOST_WORDS]]

    @property
    def is_filtered(self) -> bool:
        return any(
            chosen is not None for chosen in (self.side, self.receives_emails, self.created_from, self.created_to)
        )


@dataclass(frozen=True)
class Found:
    """A page of customers, their share links where a word of the term stands in one, and where the other pages begin."""

    customers: list[Customer]
    slugs: dict[int, list[str]] = field(default_factory=dict)
    previous: tuple[str, str, int] | None = None
    next: tuple[str, str, int] | None = None


def find(asked: Asked) -> Found:
    """The customers asked for: by match where there are words, else in the order chosen."""
    return _search(asked) if asked.words else _list(asked)


def side(customer: Customer) -> Side | None:
    """Their role in the programme; None for who neither referred nor was referred."""
    refers, was_referred = (
        db.session.scalar(select(exists().where(link == customer.id)))
        for link in (Referral.referrer_id, Referral.friend_id)
    )
    return Side.BOTH if refers and was_referred else Side.REFERRER if refers else Side.FRIEND if was_referred else None


def total() -> int:
    """How many customers there are."""
    return db.session.scalar(select(func.count()).select_from(Customer))


def _search(asked: Asked) -> Found:
    """Without a cursor, everything that matches is ranked at once when it fits on a page; a common term is read level by level."""
    if asked.page is None:
        everything = _matching(asked, _inside(asked.words), None, PAGE + 1)
        if len(everything) <= PAGE:
            slugs = _slugs(everything)
            return Found(sorted(everything, key=lambda one: (_match(one, slugs, asked.words), -one.id)), slugs)
    start, before = (int(asked.page[1]), asked.page[2]) if asked.page else (Match.WHOLE, None)
    found: list[tuple[Match, Customer]] = []
    for match in Match:
        if match >= start and len(found) <= PAGE:
            rows = _matching(
                asked, _exactly(match, asked.words), before if match == start else None, PAGE + 1 - len(found)
            )
            found += [(match, customer) for customer in rows]
    customers = [customer for _, customer in found[:PAGE]]
    more = ("next", str(int(found[PAGE - 1][0])), customers[-1].id) if len(found) > PAGE else None
    return Found(customers, _slugs(customers), None, more)


def _matching(asked: Asked, expression: str, before: int | None, limit: int) -> list[Customer]:
    """The newest customers whose index entries match, below the id `before`."""
    entries = search_index.entries
    wanted = select(Customer).join(entries, entries.c.rowid == Customer.id).where(search_index.matches(expression))
    if before is not None:
        wanted = wanted.where(entries.c.rowid < before)
    return list(db.session.scalars(wanted.where(*_filters(asked)).order_by(entries.c.rowid.desc()).limit(limit)))


def _exactly(match: Match, wanted: list[str]) -> str:
    """Every word is met at least this well, and not every word better."""
    levels = {
        Match.WHOLE: _all(_phrase(f"{at_start(word)} ") for word in wanted),
        Match.BEGINNING: _all(_phrase(at_start(word)) for word in wanted),
        Match.INSIDE: _inside(wanted),
    }
    return f"({levels[match]}) NOT ({levels[Match(match - 1)]})" if match else levels[match]


def _inside(wanted: list[str]) -> str:
    def inside(word: str) -> str:
        start = _phrase(at_start(word))
        return start if len(word) < SHORTEST_INSIDE else f"({_phrase(word)} OR {start})"

    return _all(map(inside, wanted))


def _all(expressions: Iterable[str]) -> str:
    return " AND ".join(expressions)


def _phrase(text: str) -> str:
    """In quotes, with its own doubled, it is plain text whatever it holds; three characters at least, or nothing is found."""
    return '"' + text.rjust(SHORTEST_INSIDE).replace('"', '""') + '"'


def _match(customer: Customer, slugs: dict[int, list[str]], wanted: list[str]) -> Match:
    names = customer.first_name, customer.surname, customer.email, customer.external_id, *slugs.get(customer.id, ())
    text = search_text(*names)
    return max(
        Match.WHOLE if f"{at_start(word)} " in text else Match.BEGINNING if at_start(word) in text else Match.INSIDE
        for word in wanted
    )


def _slugs(customers: list[Customer]) -> dict[int, list[str]]:
    ids = [customer.id for customer in customers]
    slugs: dict[int, list[str]] = {}
    links = select(ShareLink.customer_id, ShareLink.slug).where(ShareLink.customer_id.in_(ids)).order_by(ShareLink.id)
    for id, slug in db.session.execute(links):
        slugs.setdefault(id, []).append(slug)
    return slugs


def _list(asked: Asked) -> Found:
    """A page is found by where it begins and not by counting, so the last costs what the first does."""
    _, key, falling = _SORTS[asked.sort]
    direction, value, id = asked.page or ("next", None, None)
    backwards = direction in ("previous", "last")
    down = falling != backwards
    wanted = select(Customer, key.label("value")).where(*_filters(asked))
    if id is not None:
        wanted = wanted.where(
            _beyond(key, datetime.fromisoformat(value) if key is Customer.created_at else value, id, down)
        )
    order = (key.desc(), Customer.id.desc()) if down else (key, Customer.id)
    rows = db.session.execute(wanted.order_by(*order).limit(PAGE + 1)).all()
    more, rows = len(rows) > PAGE, rows[:PAGE]
    if backwards:
        rows.reverse()
    before = more if backwards else asked.page is not None
    after = direction == "previous" if backwards else more
    return Found(
        [row.Customer for row in rows],
        previous=_cursor("previous", rows[0]) if rows and before else None,
        next=_cursor("next", rows[-1]) if rows and after else None,
    )


def _beyond(key, value, id: int, down: bool) -> ColumnElement[bool]:
    """Past this row in the order; the first comparison is the one an index serves."""
    if down:
        return and_(key <= value, or_(key < value, Customer.id < id))
    return and_(key >= value, or_(key > value, Customer.id > id))


def _cursor(direction: str, row) -> tuple[str, str, int]:
    value = row.value.isoformat() if isinstance(row.value, datetime) else row.value
    return direction, value, row.Customer.id


def _filters(asked: Asked) -> list[ColumnElement[bool]]:
    refers, was_referred = (_has(Referral.referrer_id), _has(Referral.friend_id))
    conditions = {Side.REFERRER: [refers], Side.FRIEND: [was_referred], Side.BOTH: [refers, was_referred]}
    chosen = list(conditions.get(asked.side, []))
    if asked.receives_emails is not None:
        chosen.append(Customer.receives_emails.is_(asked.receives_emails))
    if asked.created_from:
        chosen.append(Customer.created_at >= datetime.combine(asked.created_from, time(), UTC))
    if asked.created_to:
        chosen.append(Customer.created_at <= datetime.combine(asked.created_to, time.max, UTC))
    return chosen


def _has(link) -> ColumnElement[bool]:
    return exists(select(1).where(link == Customer.id)).correlate(Customer)
