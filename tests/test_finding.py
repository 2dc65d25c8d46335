"""Customers are found by any part of a word, listed in an order, and gone from the index when they are purged."""

from dataclasses import replace
from datetime import UTC, date, datetime
from itertools import pairwise

import pytest
from flask_migrate import downgrade, upgrade
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, event, insert, select, text, update

from purge import customers
from purge.customers import Asked, Side, Sort, find, finding, search_index
from purge.customers.folding import fold, spans, words
from purge.extensions import db
from purge.models import Customer, Referral, ShareLink
from tests.people import add_customer
from tests.test_batches import finished


def found(term: str, **asked) -> list[int]:
    return [customer.id for customer in find(Asked(term=term, **asked)).customers]


def every_page(asked: Asked, direction: str = "next") -> list[int]:
    ids, page = [], find(asked)
    while True:
        shown = [customer.id for customer in page.customers]
        ids += shown if direction == "next" else shown[::-1]
        cursor = getattr(page, direction)
        if cursor is None:
            return ids
        page = find(replace(asked, page=cursor))


def clear_index() -> tuple[list[tuple], bytes]:
    """What the index holds after it was cleared: every term, customer and place, and its bytes."""
    search_index.clear_residue(db.engine)
    with db.engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE VIRTUAL TABLE temp.held USING fts5vocab (main, {search_index.NAME}, instance)"
        )
        held = [tuple(row) for row in connection.exec_driver_sql("SELECT term, doc, offset FROM held ORDER BY 1, 2, 3")]
        connection.exec_driver_sql("DROP TABLE temp.held")
        blocks = connection.scalars(text(f"SELECT block FROM {search_index.NAME}_data ORDER BY id"))
        return held, b"".join(blocks)


def make_the_index_anew(app) -> None:
    directory = app.extensions["migrate"].directory
    downgrade(directory=directory, revision="0001")
    upgrade(directory=directory)


PARTS = [
    "wend",
    "endy",
    "WENDY",
    "wendy",
    "O'Con",
    "connor",
    "wo.1@people",
    "people.com",
    "C-77",
    "-77",
    "77x",
    "wendy-7",
    "ndy-7",
]


@pytest.mark.parametrize("term", PARTS)
def test_a_customer_is_found_by_beginnings_and_middles_of_name_address_id_and_share_link(app, term):
    wendy = add_customer("Wo.1@people.com", first_name="Wendy", surname="O'Connor", external_id="C-77x")
    link = {"customer_id": wendy, "slug": "wendy-7", "created_at": datetime.now(UTC)}
    db.session.execute(insert(ShareLink), link)
    add_customer("ann@elsewhere.org", first_name="Ann", surname="Smith", external_id="C-8")
    assert found(term) == [wendy]


def test_several_words_are_found_in_any_order_and_all_of_them_count(app):
    wendy = add_customer("a@people.com", first_name="Wendy", surname="Smith")
    add_customer("b@people.com", first_name="Wendy", surname="Jones")
    assert found("smith wendy") == found("Wen  smi") == found(" endy mith ") == [wendy]
    assert found("wendy nobody") == []


ACCENTS = {
    "José": "jose",
    "Łukasz": "lukasz",
    "Weiß": "weiss",
    "Jose\u0301": "josé",
    "Ångström": "angstrom",
    "Ærø": "aero",
    "İpek": "ipek",
    "ΣΟΦΙΑ": "σοφια",
    "O’Connor": "o'connor",
    "D'Arcy": "d’arcy",
    "Llewellyn–Jones": "llewellyn-jones",
    "Wen\u200bdy": "wendy",
    "Wen\u00addy": "wendy",
    "علی\u200cرضا": "علیرضا",
}


@pytest.mark.parametrize("name, term", ACCENTS.items())
def test_accents_and_case_make_no_difference_to_finding(app, name, term):
    person = add_customer("a@people.com", first_name=name)
    assert found(term) == found(name) == [person]


def test_finding_is_not_identity(app):
    add_customer("josé@people.com")
    other = add_customer("jose@people.com")
    finished("josé@people.com")
    assert found("jose@people.com") == [other]


def test_the_best_match_comes_first(app):
    inside = add_customer("a@people.com", first_name="Joanna")
    beginning = add_customer("b@people.com", first_name="Anna")
    whole = add_customer("c@people.com", first_name="Ann")
    assert found("ann") == [whole, beginning, inside]


@pytest.mark.parametrize("people", [finding.PAGE, finding.PAGE * 3 + 7])
def test_the_pages_of_a_search_hold_everybody_once_the_best_first(app, people):
    for number in range(people):
        add_customer(f"a{number}@people.com", first_name=["Ann", "Annie", "Joann"][number % 3])
    ids = every_page(Asked(term="ann"))
    assert len(ids) == len(set(ids)) == people
    page = find(Asked(term="ann"))
    while page.next:
        before, page = page, find(Asked(term="ann", page=page.next))
        assert find(Asked(term="ann", page=page.previous)).customers == before.customers
    names = [db.session.get(Customer, id).first_name for id in ids]
    assert names == sorted(names, key=["Ann", "Annie", "Joann"].index)


@pytest.mark.parametrize("sort", list(Sort))
def test_the_pages_of_the_list_hold_everybody_once_forwards_and_backwards(app, sort):
    moment = datetime(2024, 5, 17, tzinfo=UTC)
    for number in range(finding.PAGE * 2 + 9):
        many_alike = {"created_at": moment.replace(day=1 + number % 5), "surname": "ÁBC"[number % 3]}
        add_customer(f"a{number % 7}.{number}@people.com", **many_alike)
    forwards = every_page(Asked(sort=sort))
    assert len(forwards) == len(set(forwards)) == finding.PAGE * 2 + 9
    assert every_page(Asked(sort=sort, page=("last", "", None)), "previous") == forwards[::-1]
    opposite = {Sort.NEWEST: Sort.OLDEST, Sort.NAME: Sort.NAME_BACK, Sort.EMAIL: Sort.EMAIL_BACK}
    if sort in opposite:
        assert every_page(Asked(sort=opposite[sort])) == forwards[::-1]


@pytest.mark.parametrize("few", [0, 10**6])
@pytest.mark.parametrize("term", ["", "ann"])
@pytest.mark.parametrize("sort", list(Sort))
def test_filters_orders_and_pages_go_together_however_few_pass(app, monkeypatch, few, term, sort):
    """Two ways through the database, chosen by how many were created between the dates, and one answer."""
    monkeypatch.setattr(finding, "FEW", few)
    monkeypatch.setattr(finding, "PAGE", 4)
    moment = datetime(2024, 5, 1, tzinfo=UTC)
    people = {}
    for number in range(40):
        person = {"created_at": moment.replace(day=1 + number % 9), "receives_emails": number % 3 > 0}
        person |= {"first_name": ["Ann", "Annie", "Joann"][number % 3], "surname": "ÁBC"[number % 2]}
        people[add_customer(f"a{number % 7}.{number}@people.com", **person)] = person
    asked = Asked(term, None, True, date(2024, 5, 3), date(2024, 5, 6), sort)
    wanted = {id for id, one in people.items() if one["receives_emails"] and 3 <= one["created_at"].day <= 6}
    forwards = every_page(asked)
    assert set(forwards) == wanted and len(forwards) == len(wanted)
    if not term:
        assert every_page(replace(asked, page=("last", "", None)), "previous") == forwards[::-1]
        everybody = every_page(Asked(sort=sort))
        assert forwards == [id for id in everybody if id in wanted]


def test_every_word_counts_however_many_there_are(app):
    person = add_customer("a@people.com", first_name="Ann")
    assert found("a " * 140) == [person] and found("a " * 100 + "zzzzz") == []


@pytest.mark.sqlite
def test_every_order_is_read_from_an_index_and_not_sorted(app):
    asked = []
    event.listen(db.engine, "before_cursor_execute", lambda _c, _cu, sql, values, *_: asked.append((sql, values)))
    for sort in Sort:
        find(Asked(sort=sort))
    for sql, values in [one for one in asked if "ORDER BY" in one[0]]:
        steps = db.session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values).all()
        plan = " ".join(step[3] for step in steps)
        assert "USING INDEX" in plan and "TEMP B-TREE" not in plan, plan


def test_filters_leave_out_who_does_not_pass(app):
    when = datetime(2024, 5, 17, 23, 59, tzinfo=UTC)
    ann, ben, cat = (
        add_customer(f"{name}@people.com", first_name=name, created_at=when, receives_emails=name != "ben")
        for name in ("ann", "ben", "cat")
    )
    for pair in ((ann, ben), (ben, cat)):
        db.session.execute(insert(Referral), {"referrer_id": pair[0], "friend_id": pair[1], "created_at": when})
    for term in ("", "people"):
        assert set(found(term, side=Side.REFERRER)) == {ann, ben}
        assert set(found(term, side=Side.FRIEND)) == {ben, cat}
        assert found(term, side=Side.BOTH) == [ben]
        assert found(term, receives_emails=False) == [ben]
        assert len(found(term, created_from=date(2024, 5, 17), created_to=date(2024, 5, 17))) == 3
        assert found(term, created_to=date(2024, 5, 16)) == found(term, created_from=date(2024, 5, 18)) == []


PLAIN = st.text(st.sampled_from("%_\\\"'’*()^-–+:{}[]~.#@😀é\u0301\u200b\u202eß\x00\t AbNEAR"), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=PLAIN.map(lambda name: name.replace("\0", "-")),
    term=st.one_of(PLAIN, st.sampled_from(["a OR b", "NOT a", 'x" OR "', "NEAR(a b)", "text:a", "a*", "^a"])),
)
def test_what_is_typed_is_plain_text_whatever_it_holds(app, name, term):
    """The same answer as comparing the folded texts would give."""
    person = add_customer("x@y.zz", first_name=name)
    try:
        held = " " + " ".join(words(f"{name} x@y.zz"))
        wanted = words(term)
        meant = bool(wanted) and all(word in held if len(word) > 2 else f" {word}" in held for word in wanted)
        assert (found(term) == [person]) is meant or not wanted
        if words(name):
            assert found(name) == [person]
    finally:
        db.session.rollback()


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=20), term=st.text(max_size=4))
def test_marks_stand_on_what_was_found_and_the_text_stays_itself(text, term):
    found = spans(text, words(term))
    assert all(0 <= start < end <= len(text) for start, end in found)
    assert all(before[1] < after[0] for before, after in pairwise(found))
    whole = f" {''.join(' ' if piece.isspace() else piece for piece in map(fold, text))}"
    assert bool(found) == any(word in whole if len(word) > 2 else f" {word}" in whole for word in words(term))


def test_the_index_follows_a_changed_name_a_new_link_and_a_plain_deletion(app):
    person = add_customer("a@people.com", first_name="Ann")
    db.session.execute(update(Customer).values(first_name="Zoë"))
    assert found("zoe") == [person] and found("ann") == []
    db.session.execute(insert(ShareLink), {"customer_id": person, "slug": "hello", "created_at": datetime.now(UTC)})
    assert found("hello zoe") == [person]
    other = add_customer("b@people.com", first_name="Ben")
    db.session.execute(update(ShareLink).values(customer_id=other))
    assert found("hello") == [other] and found("hello zoe") == []
    db.session.execute(delete(ShareLink))
    assert found("hello") == [] and found("ben") == [other]
    db.session.execute(delete(Customer))
    assert found("zoe") == found("ben") == []


@pytest.mark.sqlite
def test_what_was_purged_is_gone_from_the_indexs_own_storage(app):
    """Cleared, it holds what an index does that never knew them, and no byte of a name that nobody else has."""
    for number in range(300):
        add_customer(f"a{number}@people.com", first_name=f"Name{number % 17}", external_id=f"C-{number}")
    add_customer("canary@people.com", first_name="😀😁😂")
    db.session.commit()
    cleared = clear_index()
    assert "😀😁😂".encode() in cleared[1]
    finished("canary@people.com", *(f"a{number}@people.com" for number in range(0, 300, 3)))
    db.session.commit()
    after = clear_index()
    make_the_index_anew(app)
    anew = clear_index()
    assert after[0] == anew[0] != cleared[0]
    assert "😀😁😂".encode() not in after[1] and len(after[1]) < len(cleared[1])


@pytest.mark.postgresql
def test_what_was_purged_is_in_the_index_no_more(app):
    for number in range(30):
        add_customer(f"a{number}@people.com")
    db.session.commit()
    finished(*(f"a{number}@people.com" for number in range(0, 30, 3)))
    left = db.session.execute(text(f"SELECT rowid, text FROM {search_index.NAME} ORDER BY rowid")).all()
    assert [id for id, _ in left] == list(db.session.scalars(select(Customer.id).order_by(Customer.id)))
    assert [words.split() for _, words in left] == [[f"a{n}@people.com"] for n in range(30) if n % 3]


def test_customers_that_were_there_before_the_index_are_in_it(app):
    person = add_customer("jose@people.com", first_name="José")
    db.session.commit()
    make_the_index_anew(app)
    assert found("jose") == [person] and customers.total() == 1
