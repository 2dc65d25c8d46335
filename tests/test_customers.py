"""The customers' pages over HTTP: found, listed, looked at, turned quiet, purged."""

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import delete, event, func, insert, select, update

from jobs import queue
from jobs.bell import ring
from purge import batches
from purge.batches import Batch, Door, Ground, NotPossible, Outcome, State
from purge.customers.profile import ROWS
from purge.erasure.map import read_map
from purge.extensions import db
from purge.models import Customer, Order, Referral, Reward, RewardStatus, Role, TimelineEvent
from tests.people import add_customer, hang_everything_on
from tests.test_batches import finished, work

WHEN = datetime(2024, 5, 17, tzinfo=UTC)


@pytest.fixture
def ann(app) -> int:
    person = add_customer("ann@people.com", first_name="Ann", surname="Ray", external_id="C-1", phone="+44 20 7946")
    db.session.commit()
    return person


def refer(referrer: int, friend: int, *rewards: tuple[int, RewardStatus]) -> None:
    pair = {"referrer_id": referrer, "friend_id": friend, "created_at": WHEN}
    referral = db.session.scalar(insert(Referral).returning(Referral.id), pair)
    money = {"referral_id": referral, "amount": Decimal(15), "currency": "GBP", "created_at": WHEN}
    for owner, status in rewards:
        db.session.execute(insert(Reward), {"customer_id": owner, "status": status, **money})
    db.session.commit()


def confirm(browser, person: int, **fields):
    """What the purge page's own form sends."""
    url = f"/customers/{person}/purge"
    plan = re.search(r'name="plan" value="(\w+)"', browser.get(url).text)[1]
    return browser.post(url, {"plan": plan, **fields}, page=url)


def words(answer) -> str:
    """What a page says, without its tags."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"</?bdi>", "", answer.text)))


def only_batch() -> Batch:
    return db.session.scalars(select(Batch)).one()


def test_a_purge_that_waits_for_its_turn_stands_on_the_profile(ann, signed_in):
    operator, waits = signed_in(), "is confirmed and waits for its turn"
    assert waits not in words(operator.get(f"/customers/{ann}"))
    confirm(operator, ann)
    page = signed_in(Role.VIEWER).get(f"/customers/{ann}")
    assert waits in words(page) and f"/batches/{only_batch().id}" in page.text


def test_enter_in_a_field_brings_no_plan_and_shows_when_it_is_due(ann, signed_in):
    answer = signed_in().post(
        f"/customers/{ann}/purge",
        {"asked_on": "2026-02-01", "ground": "privacy_request"},
        page=f"/customers/{ann}/purge",
    )
    assert answer.status_code == 422 and "1 Mar 2026" in words(answer)
    assert db.session.scalar(select(Batch.id)) is None


def test_the_list_finds_by_a_form_and_never_by_the_address(ann, signed_in):
    add_customer("ben@people.com", first_name="Ben")
    db.session.commit()
    viewer = signed_in(Role.VIEWER)
    for path in ("/customers", "/customers/found"):
        answer = viewer.post(path, {"term": "ann"}, page="/customers")
        assert answer.status_code == 200 and "<mark>Ann</mark> Ray" in answer.text and "ben@" not in answer.text
    assert "ben@people.com" in viewer.get("/customers?term=ann").text


def test_filters_and_the_order_stand_in_the_address_and_what_is_typed_does_not(ann, signed_in):
    viewer = signed_in(Role.VIEWER)
    chosen = {
        "term": "Ann",
        "emails": "on",
        "created_from": "2020-01-01",
        "sort": "name",
        "side": "",
        "created_to": "x",
    }
    address = "/customers?emails=on&created_from=2020-01-01&sort=name"
    assert viewer.post("/customers/found", chosen, page="/customers").headers["HX-Replace-Url"] == address
    assert f'data-posted="{address.replace("&", "&amp;")}"' in viewer.post("/customers", chosen, page="/customers").text
    shown = viewer.get(address).text
    assert (
        '<option value="on" selected>' in shown
        and '<option value="name" selected>' in shown
        and "ann@people.com" in shown
    )
    assert (
        "Nobody found" in viewer.get("/customers?emails=off").text
        and "Nobody found" not in viewer.get("/customers?emails=x").text
    )


def test_nothing_found_says_what_to_check_and_where_the_purged_are(ann, signed_in):
    answer = signed_in().post("/customers", {"term": "nobody", "side": "both"}, page="/customers").text
    assert "Nobody found" in answer and "Check the spelling" in answer and "filters above" in answer
    assert "/was-this-person-purged" in answer


def test_what_is_typed_is_shown_as_text(app, signed_in):
    add_customer("x@people.com", first_name="<b>Bold</b>")
    db.session.commit()
    answer = signed_in().post("/customers", {"term": '<b>"'}, page="/customers").text
    assert 'value="&lt;b&gt;&#34;"' in answer
    assert "<mark>&lt;b&gt;Bold</mark>" in signed_in().post("/customers", {"term": "<b>Bold"}, page="/customers").text


def test_the_pages_of_the_list_lead_on_and_back(app, signed_in):
    for number in range(120):
        add_customer(f"a{number:03}@people.com")
    db.session.commit()
    browser, sort = signed_in(), {"sort": "email"}
    first = browser.post("/customers/found", sort, page="/customers").text
    page = re.findall(r'name="page" value="([^"]*)"', first)
    second = browser.post("/customers/found", {**sort, "page": page[0]}, page="/customers").text
    assert "a000@" in first and "a050@" in second and "a049@" not in second
    last = browser.post("/customers/found", {**sort, "page": "last"}, page="/customers").text
    assert "a119@" in last and "a050@" not in last


@pytest.mark.parametrize(
    "page",
    [
        "next|x|y",
        "next|1|no moment",
        "last|1",
        "||",
        "next|99999999999999999999|a",
        "next|1|0001-01-01T00:00:00+23:59",
        "next|1|9999-12-31T23:59:59-23:59",
        f"next|{'9' * 5_000}|x",
        "next|1|2",
        "previous|1|9",
    ],
)
def test_a_page_of_another_order_or_of_nobodys_does_no_harm(ann, signed_in, page):
    browser = signed_in()
    for asked in ({"page": page}, {"page": page, "term": "a"}):
        assert browser.post("/customers/found", asked, page="/customers").status_code == 200


def test_a_page_whose_people_are_gone_meanwhile_is_the_first_one_again(ann, signed_in):
    for asked in ({"sort": "email", "page": "next|9|zzz"}, {"term": "ann", "page": "next|0|2"}):
        assert f"/customers/{ann}" in signed_in().post("/customers/found", asked, page="/customers").text


@pytest.mark.parametrize(
    "path", ["/customers/{}", "/customers/{}/purge", "/batches/{}", "/customers/purging/{}", "/batches?before={}"]
)
def test_a_number_no_database_has_is_not_there(app, signed_in, path):
    assert signed_in().get(path.format("9" * 30)).status_code in (303, 404)


@pytest.mark.parametrize("asked", [{"created_to": "9999-12-31"}, {"created_from": "0001-01-01"}, {"page": "next|²|x"}])
def test_the_ends_of_time_and_odd_digits_are_no_error(ann, signed_in, asked):
    browser = signed_in()
    assert "ann@" in browser.post("/customers/found", asked, page="/customers").text
    assert browser.get("/customers/due?asked_on=9999-12-31&ground=privacy_request").status_code == 200


@pytest.mark.sqlite
def test_who_was_purged_is_looked_up_batch_by_batch_and_not_row_by_row(ann):
    asked = []
    event.listen(db.engine, "before_cursor_execute", lambda _c, _cu, sql, values, *_: asked.append((sql, values)))
    batches.purge_of(ann)
    steps = db.session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {asked[-1][0]}", asked[-1][1]).all()
    assert not any("SCAN purge_request" in step[3] for step in steps), steps


def test_the_profile_shows_everything_that_hangs_on_a_customer_and_names_nobody_in_its_title(ann, signed_in):
    hang_everything_on(ann, read_map(db.metadata), "mark")
    ben = add_customer("ben@people.com", first_name="Ben", surname="Low")
    refer(ann, ben)
    page = signed_in(Role.VIEWER).get(f"/customers/{ann}").text
    for words in ("Ann Ray", "ann@people.com", "C-1", "+44 20 7946", "mark-order_number", "mark-street", "mark-body"):
        assert words in page
    for words in ("mark-slug", "mark-subject", "mark-kind", "mark-ip", "mark-comment", "mark-coupon_code", "mark-name"):
        assert words in page
    assert f'<a href="/customers/{ben}"><bdi>Ben Low</bdi></a>' in page
    assert "<title>Customer · Purge</title>" in page and "Actions" not in page
    assert "referrer and friend" in page and "<dd>friend</dd>" in signed_in().get(f"/customers/{ben}").text


def test_each_section_is_paged_by_itself(ann, signed_in):
    for number in range(ROWS * 2 + 1):
        moment = WHEN + timedelta(days=number)
        row = {"customer_id": ann, "kind": f"event-{number:02}", "happened_at": moment}
        db.session.execute(insert(TimelineEvent), row)
    db.session.commit()
    browser = signed_in()
    shown = [browser.get(f"/customers/{ann}/sections/activity?page={page}").text for page in (1, 2, 3, 99)]
    events = [re.findall(r"event-(\d\d)", text) for text in shown]
    assert events[0] + events[1] + events[2] == [f"{number:02}" for number in reversed(range(ROWS * 2 + 1))]
    assert events[3] == events[2] and "event-20" in browser.get(f"/customers/{ann}").text
    assert browser.get(f"/customers/{ann}/sections/nothing").status_code == 404


def test_emails_are_turned_off_and_on_by_operators_only(ann, signed_in):
    url, page = f"/customers/{ann}/emails", f"/customers/{ann}"
    assert signed_in(Role.VIEWER).post(url, {"emails": "off"}, page=page).status_code == 403
    operator = signed_in()
    for turned, on in (("off", False), ("off", False), ("on", True)):
        assert operator.post(url, {"emails": turned}, page=page).location == page
        assert db.session.scalar(select(Customer.receives_emails)) is on
        shown = operator.get(page).text
        assert f"Turn emails {'off' if on else 'on'}" in shown and f"E-mails are {turned} now." in shown
    for nonsense in ({}, {"emails": "maybe"}):
        assert operator.post(url, nonsense, page=page).status_code == 400
    assert db.session.scalar(select(Customer.receives_emails))


def test_the_preview_names_the_person_and_counts_what_goes_and_what_stays(ann, signed_in):
    ben, cat = add_customer("ben@people.com", first_name="Ben"), add_customer("cat@people.com", first_name="Cat")
    refer(ann, ben, (ann, RewardStatus.PENDING), (ann, RewardStatus.APPROVED), (ben, RewardStatus.SENT))
    refer(cat, ann)
    for number in range(9):
        order = {"customer_id": ann, "total": Decimal(5), "currency": "GBP", "ordered_at": WHEN}
        db.session.execute(insert(Order), {**order, "order_number": f"N{number}"})
    db.session.commit()
    page = words(signed_in().get(f"/customers/{ann}/purge"))
    assert "Permanently delete Ann Ray?" in page and "9 orders stay, without a name" in page
    assert "2 rewards on their way are cancelled: £30.00 will not reach Ann" in page
    assert "Ben, with whom Ann shares a referral, keeps the reward for it." in page and "Cat" not in page
    assert "Turn emails off" in page


def test_only_who_keeps_a_reward_is_said_to_and_each_friend_once(ann, signed_in):
    ben, cat = add_customer("ben@people.com", first_name="Ben"), add_customer("cat@people.com", first_name="Cat")
    dee = add_customer("dee@people.com")
    refer(ann, ben, (ben, RewardStatus.CANCELLED))
    for _ in range(2):
        refer(ann, cat, (cat, RewardStatus.SENT))
    refer(ann, dee, (dee, RewardStatus.PENDING))
    page = words(signed_in().get(f"/customers/{ann}/purge"))
    assert "Cat and 1 more friend, with whom Ann shares a referral, keep the reward for it." in page


def test_names_that_are_missing_or_run_the_other_way_leave_our_sentences_whole(app, signed_in):
    nobody = add_customer("a@people.com")
    surname = add_customer("b@people.com", surname="Ray")
    arabic = add_customer("c@people.com", first_name="\u202eمحمد")
    db.session.commit()
    browser = signed_in()
    assert "Permanently delete this customer?" in words(browser.get(f"/customers/{nobody}/purge"))
    assert "Permanently delete Ray Keep Ray" in words(browser.get(f"/customers/{surname}/purge"))
    page = browser.get(f"/customers/{arabic}/purge").text
    assert page.count("\u202e") == page.count("<bdi>\u202e") > 2


def test_a_purge_is_confirmed_run_and_told_and_the_person_is_nowhere(ann, signed_in):
    browser = signed_in()
    answer = confirm(browser, ann, ground="privacy_request", asked_on="2026-01-31")
    batch = only_batch()
    assert answer.status_code == 200 and "Ann’s data is being deleted" in words(answer)
    assert (batch.door, batch.ground, batch.asked_on) == (Door.FORM, Ground.PRIVACY_REQUEST, date(2026, 1, 31))
    assert f"/customers/purging/{batch.id}" in answer.text
    work(batches.run, batch)
    told = browser.get(f"/customers/purging/{batch.id}").text
    assert "was permanently deleted" in told and "hx-trigger" not in told
    gone = browser.get(f"/customers/{ann}")
    assert gone.status_code == 410 and f"batch {batch.id}" in gone.text
    summary = browser.get(f"/batches/{batch.id}/summary").text
    assert "1 customer was permanently deleted" in summary and "due by" in summary and "28 Feb 2026" in summary
    found = browser.post("/customers", {"term": "ann ray"}, page="/customers").text
    assert "Nobody found" in found
    pages = [gone.text, summary, browser.get("/batches").text, browser.get("/customers").text, told]
    for text in pages:
        assert not re.search(r"ann@|\bAnn\b|\bRay\b|C-1\b|20 ?7946", text), text


def test_the_page_of_a_purge_is_told_only_what_it_does_not_say_yet(ann, signed_in):
    browser = signed_in()
    answer = confirm(browser, ann)
    url = f"/customers/purging/{only_batch().id}"
    assert "hx-vals='{\"waits\": 0}'" in answer.text and browser.get(f"{url}?waits=0").status_code == 204
    db.session.execute(update(Batch).values(created_at=WHEN))
    db.session.commit()
    assert "is waiting for a worker" in browser.get(f"{url}?waits=0").text
    assert browser.get(f"{url}?waits=1").status_code == 204
    work(batches.run, only_batch())
    assert "was permanently deleted" in browser.get(f"{url}?waits=1").text


def test_what_was_shown_cannot_be_guessed_from_the_database_afterwards(ann, signed_in):
    """The digest is of a name beside what is known: whoever tries names, without any key, would come upon it."""
    browser = signed_in()
    shown = batches.preview_single(db.session.get(Customer, ann)).digest
    confirm(browser, ann)
    work(batches.run, only_batch())
    for table in db.metadata.sorted_tables:
        assert shown not in str(db.session.execute(select(table)).all()), table.name


def test_the_reload_of_a_confirmed_purge_changes_nothing(ann, signed_in):
    browser = signed_in()
    url = f"/customers/{ann}/purge"
    plan = re.search(r'name="plan" value="(\w+)"', browser.get(url).text)[1]
    for _ in range(2):
        assert "is being deleted" in browser.post(url, {"plan": plan}, page=url).text
    work(batches.run, only_batch())
    again = browser.post(url, {"plan": plan}, page="/customers")
    assert again.status_code == 410 and "already purged" in again.text and only_batch()
    assert browser.get(url).location == f"/customers/{ann}"


def test_two_admins_purging_the_same_person_make_one_deletion(ann, signed_in):
    for browser in (signed_in(Role.ADMIN), signed_in(Role.ADMIN)):
        assert "is being deleted" in confirm(browser, ann).text
    first, second = db.session.scalars(select(Batch).order_by(Batch.id)).all()
    work(batches.run, second)
    work(batches.run, first)
    assert batches.single_outcome(second) is Outcome.PURGED and batches.single_outcome(first) is Outcome.ALREADY_PURGED
    assert "was already purged" in signed_in().get(f"/customers/purging/{first.id}").text


def test_a_purge_of_something_else_than_what_was_shown_is_refused(ann, signed_in):
    browser, url = signed_in(), f"/customers/{ann}/purge"
    plan = re.search(r'name="plan" value="(\w+)"', browser.get(url).text)[1]
    order = {"customer_id": ann, "total": Decimal(5), "currency": "GBP", "ordered_at": WHEN}
    db.session.execute(insert(Order), order)
    db.session.commit()
    answer = browser.post(url, {"plan": plan}, page=url)
    assert answer.status_code == 422 and "has changed since you looked" in answer.text
    assert db.session.scalar(select(func.count()).select_from(Batch)) == 0


def test_a_purge_of_somebody_else_than_who_was_named_is_refused(ann, signed_in):
    browser, url = signed_in(), f"/customers/{ann}/purge"
    plan = re.search(r'name="plan" value="(\w+)"', browser.get(url).text)[1]
    db.session.execute(update(Customer).values(first_name="Ben"))
    db.session.commit()
    assert browser.post(url, {"plan": plan}, page=url).status_code == 422
    assert db.session.scalar(select(func.count()).select_from(Batch)) == 0


def test_an_address_that_changes_before_the_job_runs_spares_the_customer(ann, signed_in):
    browser = signed_in()
    confirm(browser, ann)
    db.session.execute(update(Customer).values(email="new@people.com", email_key="new@people.com"))
    work(batches.run, only_batch())
    assert "the address changed meanwhile" in browser.get(f"/customers/purging/{only_batch().id}").text
    assert browser.get(f"/customers/{ann}").status_code == 200


def test_who_was_deleted_by_somebody_else_before_the_job_runs_was_not_purged(app, signed_in):
    browser, zoe = signed_in(), add_customer("zoe@people.com")
    db.session.commit()
    confirm(browser, zoe)
    db.session.execute(delete(Customer).where(Customer.id == zoe))
    work(batches.run, only_batch())
    assert "was there no more" in browser.get(f"/customers/purging/{only_batch().id}").text
    assert browser.get(f"/customers/{zoe}").status_code == 404


@pytest.mark.parametrize("asked_on", ["tomorrow", (date.today() + timedelta(days=3)).isoformat(), "0001-01-01"])
def test_a_request_date_that_cannot_be_is_refused(ann, signed_in, asked_on):
    refused = confirm(signed_in(), ann, asked_on=asked_on, ground="privacy_request")
    assert refused.status_code == 422 and refused.headers["HX-Retarget"] == "#purge"
    assert db.session.scalar(select(func.count()).select_from(Batch)) == 0


def test_a_request_of_tomorrow_may_be_chosen_for_it_is_tomorrow_somewhere(ann, signed_in):
    browser, tomorrow = signed_in(), batches.today() + timedelta(days=1)
    assert f'max="{tomorrow}"' in browser.get(f"/customers/{ann}/purge").text
    assert "is being deleted" in words(confirm(browser, ann, asked_on=tomorrow.isoformat()))


def test_a_refused_form_keeps_what_was_typed_and_its_due_date(ann, signed_in):
    url = f"/customers/{ann}/purge"
    browser = signed_in()
    refused = browser.post(url, {"plan": "x", "ground": "privacy_request", "asked_on": "2026-10-31"}, page=url)
    assert refused.status_code == 422 and "30 Nov 2026" in refused.text and 'value="2026-10-31"' in refused.text
    assert confirm(browser, ann, ground="nonsense").status_code == 422


def test_one_customer_cannot_be_paused_half_way(ann, signed_in):
    browser = signed_in()
    confirm(browser, ann)
    batch_id = only_batch().id
    assert "Pause" not in browser.get(f"/batches/{batch_id}/progress").text
    browser.post(f"/batches/{batch_id}/pause", page=f"/batches/{batch_id}/progress")
    assert only_batch().state is State.RUNNING


def test_ringing_for_what_has_ended_meanwhile_does_nothing(ann, signed_in):
    confirm(signed_in(), ann)
    batch = only_batch()
    work(batches.run, batch)
    ring(batch)
    assert not queue.queue(queue.connect(), queue.SINGLE).count or batch.state is State.FINISHED


def test_a_viewer_cannot_purge(ann, signed_in):
    viewer = signed_in(Role.VIEWER)
    assert viewer.get(f"/customers/{ann}/purge").status_code == 403
    assert viewer.post(f"/customers/{ann}/purge", {"plan": "x"}, page="/customers").status_code == 403


def test_nobody_ever_there_is_404_and_somebody_purged_by_a_file_is_told_with_the_batch(ann, signed_in):
    browser = signed_in()
    assert browser.get("/customers/12345").status_code == 404
    batch_id = finished("ann@people.com").id
    db.session.commit()
    answer = browser.get(f"/customers/{ann}/sections/orders")
    assert answer.status_code == 410 and f"batch {batch_id}" in answer.text


@pytest.mark.parametrize(
    "asked_on, due",
    [((2026, 1, 31), (2026, 2, 28)), ((2028, 1, 30), (2028, 2, 29)), ((2026, 12, 5), (2027, 1, 5))],
)
def test_a_request_is_due_one_calendar_month_later(asked_on, due):
    assert batches.due(date(*asked_on)) == date(*due)


def test_the_due_date_is_shown_for_a_privacy_request_alone(app, signed_in):
    browser = signed_in()
    assert "30 Nov 2026" in browser.get("/customers/due?asked_on=2026-10-31&ground=privacy_request").text
    assert "30 Nov" not in browser.get("/customers/due?asked_on=2026-10-31&ground=other").text
    assert browser.get("/customers/due?asked_on=x").status_code == 200


def test_a_confirmation_without_what_was_shown_is_refused(ann):
    customer = db.session.get(Customer, ann)
    with pytest.raises(NotPossible):
        batches.open_single(customer, "", user_id=1)
    assert db.session.scalar(select(Batch.state).where(Batch.state == State.RUNNING)) is None
