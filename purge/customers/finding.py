"""Finding customers: by words, best match first, or listed in an order, a page at a time however long the list."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, or_, select

from purge.customers import search_index
from purge.customers.folding import at_start, search_text, words
from purge.customers.search_index import Match
from purge.evidence.ledger import keys
from purge.extensions import db
from purge.models import Customer, Referral, ShareLink

PAGE = 50
LONGEST_TERM = 300
TELLING = 6  # characters at the end of a number
FEW = 1_000  # customers created between two dates: to look at each costs less than to follow an order or an index

BACKWARDS = ("previous", "last")
Cursor = tuple[str, str, int | None]  # a direction, a value and an id; None: from the end


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


@dataclass(frozen=True)
class Asked:
    """What somebody looks for. `page` is where a page begins, as `Found` says it."""

    term: str = ""
    side: Side | None = None
    receives_emails: bool | None = None
    created_from: date | None = None
    created_to: date | None = None
    sort: Sort = Sort.NEWEST
    page: Cursor | None = None

    @property
    def words(self) -> list[str]:
        return words(self.term[:LONGEST_TERM])

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
    previous: Cursor | None = None
    next: Cursor | None = None


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


def is_here(address: str) -> bool:
    """Whether somebody has this address today, whoever had it before."""
    return db.session.scalar(select(exists().where(Customer.email_key.in_(keys(address)[0]))))


def _search(asked: Asked) -> Found:
    """Everything that matches is ranked at once when it fits on a page; a common term is read level by level."""
    are_few = _are_few(asked)
    if asked.page is None:
        ends = [_telling_end(word) for word in asked.words]
        everything = _matching(asked, are_few, search_index.at_least(Match.INSIDE, ends))
        if len(everything) > PAGE and ends != asked.words:
            everything = _matching(asked, are_few, search_index.at_least(Match.INSIDE, asked.words))
        if len(everything) <= PAGE:
            return _ranked(asked, everything)
        rows = _best(asked, are_few, everything)
    else:
        rows = _further(asked, are_few, *asked.page)
    rows, previous, following = _page(asked, rows, lambda row: (str(int(row[0])), row[1]))
    ids = [id for _, id in rows]
    return Found(_customers(ids), _slugs(ids), previous, following)


def _telling_end(word: str) -> str:
    """Numbers given one after the other begin alike: to follow the end of one alone takes an eighth of the time."""
    return word[-TELLING:] if word[-1].isdigit() else word


def _ranked(asked: Asked, ids: list[int]) -> Found:
    """Of these, who meets every word, the best match first."""
    slugs, ranked = _slugs(ids), []
    for customer in _customers(ids):
        match = _match(customer, slugs, asked.words)
        if match is not None:
            ranked.append((match, -customer.id, customer))
    return Found([customer for *_, customer in sorted(ranked, key=lambda one: one[:2])], slugs)


def _best(asked: Asked, are_few: bool, everything: list[int]) -> list[tuple[Match, int]]:
    """Where a common term's list begins: all the better matches are known then, and need not be looked for again."""
    rows: dict[int, Match] = {}
    for match in Match:
        if len(rows) <= PAGE:
            found = (
                everything
                if match is Match.INSIDE
                else _matching(asked, are_few, search_index.at_least(match, asked.words))
            )
            rows |= {id: match for id in found if id not in rows}
    return [(match, id) for id, match in rows.items()][: PAGE + 1]


def _further(asked: Asked, are_few: bool, direction: str, value: str, id: int | None) -> list[tuple[Match, int]]:
    """From a place in the list on, or backwards from it."""
    start, backwards = Match(int(value)), direction == "previous"
    rows: list[tuple[Match, int]] = []
    for match in reversed(Match) if backwards else Match:
        if len(rows) <= PAGE and (match <= start if backwards else match >= start):
            found = _matching(
                asked, are_few, search_index.exactly(match, asked.words), id if match == start else None, backwards
            )
            rows += [(match, id) for id in found]
    return rows[: PAGE + 1]


def _matching(
    asked: Asked, are_few: bool, matches: ColumnElement[bool], beyond: int | None = None, backwards: bool = False
) -> list[int]:
    """One more than a page of the customers whose index entries match, the newest first from below the id `beyond`;
    backwards, the oldest from above it."""
    entries = search_index.entries
    id = entries.c.rowid
    wanted = select(Customer.id)
    if are_few:
        id = Customer.id + 0  # no index has this, so that SQLite goes by the dates
        wanted = wanted.where(exists(select(1).select_from(entries).where(entries.c.rowid == Customer.id, matches)))
    else:
        wanted = wanted.join(entries, entries.c.rowid == Customer.id).where(matches)
    if beyond is not None:
        wanted = wanted.where(id > beyond if backwards else id < beyond)
    order = id if backwards else id.desc()
    return list(db.session.scalars(wanted.where(*_filters(asked)).order_by(order).limit(PAGE + 1)))


def _customers(ids: list[int]) -> list[Customer]:
    """In this order."""
    found = {customer.id: customer for customer in db.session.scalars(select(Customer).where(Customer.id.in_(ids)))}
    return [found[id] for id in ids if id in found]


def _match(customer: Customer, slugs: dict[int, list[str]], wanted: list[str]) -> Match | None:
    """How well a customer meets the word that they meet the least; None where they do not meet one."""
    names = customer.first_name, customer.surname, customer.email, customer.external_id, *slugs.get(customer.id, ())
    text, worst = search_text(*names), Match.WHOLE
    for word in wanted:
        if at_start(word) in text:
            match = Match.WHOLE if f"{at_start(word)} " in text else Match.BEGINNING
        elif word in text:
            match = Match.INSIDE
        else:
            return None
        worst = max(worst, match)
    return worst


def _slugs(ids: list[int]) -> dict[int, list[str]]:
    slugs: dict[int, list[str]] = {}
    links = select(ShareLink.customer_id, ShareLink.slug).where(ShareLink.customer_id.in_(ids)).order_by(ShareLink.id)
    for id, slug in db.session.execute(links):
        slugs.setdefault(id, []).append(slug)
    return slugs


def _list(asked: Asked) -> Found:
    """A page is found by where it begins and not by counting, so the last costs what the first does."""
    _, key, falling = _SORTS[asked.sort]
    if key is _NAME and db.engine.dialect.name == "postgresql":
        key = key.collate("C")  # as its index is
    is_moment = key is Customer.created_at
    if not is_moment and _are_few(asked):
        key = key.concat("")  # no index has this, so that SQLite goes by the dates
    direction, value, id = asked.page or ("next", None, None)
    down = falling != (direction in BACKWARDS)
    wanted = select(Customer, key.label("value")).where(*_filters(asked))
    if id is not None:
        wanted = wanted.where(
            _beyond(key, datetime.fromisoformat(value).astimezone(UTC) if is_moment else value, id, down)
        )
    order = (key.desc(), Customer.id.desc()) if down else (key, Customer.id)
    rows = db.session.execute(wanted.order_by(*order).limit(PAGE + 1)).all()
    rows, previous, following = _page(asked, rows, _place)
    return Found([row.Customer for row in rows], previous=previous, next=following)


def _are_few(asked: Asked) -> bool:
    """Whether few were created between the dates asked for."""
    created = _created(asked)
    return bool(created) and len(db.session.scalars(select(Customer.id).where(*created).limit(FEW + 1)).all()) <= FEW


def _page(asked: Asked, rows: list, place: Callable) -> tuple[list, Cursor | None, Cursor | None]:
    """Of one row more than a page holds, if there is one: the page, and where the one before and the one after begin."""
    direction = asked.page and asked.page[0]
    backwards = direction in BACKWARDS
    more, rows = len(rows) > PAGE, rows[:PAGE]
    if backwards:
        rows.reverse()
    before = more if backwards else direction is not None
    after = direction == "previous" if backwards else more
    previous = ("previous", *place(rows[0])) if rows and before else None
    return rows, previous, ("next", *place(rows[-1])) if rows and after else None


def _beyond(key, value, id: int, down: bool) -> ColumnElement[bool]:
    """Past this row in the order; the first comparison is the one an index serves."""
    if down:
        return and_(key <= value, or_(key < value, Customer.id < id))
    return and_(key >= value, or_(key > value, Customer.id > id))


def _place(row) -> tuple[str, int]:
    return row.value.isoformat() if isinstance(row.value, datetime) else row.value, row.Customer.id


def _filters(asked: Asked) -> list[ColumnElement[bool]]:
    refers, was_referred = (_has(Referral.referrer_id), _has(Referral.friend_id))
    conditions = {Side.REFERRER: [refers], Side.FRIEND: [was_referred], Side.BOTH: [refers, was_referred]}
    chosen = list(conditions.get(asked.side, []))
    if asked.receives_emails is not None:
        chosen.append(Customer.receives_emails.is_(asked.receives_emails))
    return chosen + _created(asked)


def _created(asked: Asked) -> list[ColumnElement[bool]]:
    between = []
    if asked.created_from:
        between.append(Customer.created_at >= datetime.combine(asked.created_from, time(), UTC))
    if asked.created_to:
        between.append(Customer.created_at <= datetime.combine(asked.created_to, time.max, UTC))
    return between


def _has(link) -> ColumnElement[bool]:
    return exists(select(1).where(link == Customer.id)).correlate(Customer)
