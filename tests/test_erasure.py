"""The erasure map is complete, and what it says happens."""

import pytest
from sqlalchemy import insert, inspect, select, update

import purge.batches  # noqa: F401 the map speaks of every table
from purge.customers import search_index
from purge.erasure.engine import NotErased, count, erase
from purge.erasure.map import Action, Rule, read_map
from purge.extensions import db
from purge.models import Customer, Referral, Reward, RewardStatus
from tests.people import add_customer, everything, hang_everything_on, refuse

TABLES = sorted(db.metadata.tables.values(), key=lambda table: table.name)
OUR_OWN = {"alembic_version"}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_table_and_column_says_what_becomes_of_it_and_why(table):
    for thing in (table, *table.columns):
        rule = thing.info.get("erasure")
        assert isinstance(rule, Rule), f"{thing} is not in the erasure map"
        assert rule.why.strip()


def test_the_database_has_no_table_or_column_beside_the_map(app):
    found = inspect(db.engine)
    tables = {name for name in found.get_table_names() if search_index.in_models(name, "table", {})}
    assert tables - OUR_OWN == set(db.metadata.tables)
    for table in TABLES:
        assert {column["name"] for column in found.get_columns(table.name)} == set(table.columns.keys())


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_foreign_key_has_an_index(table):
    leading = {next(iter(index.columns)).name for index in table.indexes} | {next(iter(table.primary_key.columns)).name}
    assert {column.name for column in table.columns if column.foreign_keys} <= leading


@pytest.mark.parametrize("part", read_map(db.metadata).tables, ids=lambda part: part.table.name)
def test_a_row_that_two_customers_share_may_wait_for_the_end_of_the_transaction(part):
    for link in part.links:
        assert all((key.initially == "DEFERRED") == part.is_shared for key in link.foreign_keys)


@pytest.mark.parametrize("part", read_map(db.metadata).tables, ids=lambda part: part.table.name)
def test_what_happens_to_a_table_is_announced_and_agrees_with_its_columns(part):
    assert part.rule.told
    actions = {column.info["erasure"].action for column in part.table.columns}
    if part.rule.action is Action.DELETE:
        assert actions == {Action.DELETE}
    else:
        assert all(link.info["erasure"].action is Action.ANONYMISE and link.nullable for link in part.links)


def test_nothing_is_left_of_a_customer_on_whom_everything_hung(app):
    erasure = read_map(db.metadata)
    bystander = add_customer("bystander@people.example.com", first_name="Berta")
    hang_everything_on(bystander, erasure, "bystander")
    before = everything(erasure)
    person = add_customer(
        "canary@people.example.com", first_name="canary", surname="canary", phone="canary", external_id="canary"
    )
    hang_everything_on(person, erasure, "canary")
    counted = count(db.session.connection(), erasure, select(Customer.id).where(Customer.id == person))
    erased = erase(db.session.connection(), erasure, [person])
    after = everything(erasure)
    assert "canary" not in repr(after)
    for part in erasure.tables:
        named = [column.name for column in part.links]
        assert not db.session.execute(select(part.table).filter_by(**{named[0]: person})).first()
        assert counted[part.table.name] == erased[part.table.name] == len(part.links)
        assert set(before[part.table.name]) <= set(after[part.table.name])
        stayed = len(after[part.table.name]) - len(before[part.table.name])
        assert stayed == (0 if part.rule.action is Action.DELETE else len(part.links))
    assert after["customer"] == before["customer"]


def test_the_friend_keeps_referral_and_reward_and_the_purged_ones_pending_reward_is_cancelled(app):
    ann, ben = add_customer("ann@people.example.com"), add_customer("ben@people.example.com")
    when = db.session.scalar(select(Customer.created_at).where(Customer.id == ann))
    referral = db.session.scalar(
        insert(Referral).returning(Referral.id), {"referrer_id": ann, "friend_id": ben, "created_at": when}
    )
    money = {"referral_id": referral, "amount": 10, "currency": "GBP", "created_at": when, "coupon_code": "THANKS"}
    for owner in (ann, ben):
        for status in RewardStatus:
            db.session.execute(insert(Reward), {"customer_id": owner, "status": status, **money})
    erased = erase(db.session.connection(), read_map(db.metadata), [ann])
    assert (erased["reward"], erased["reward.status"]) == (4, 2)
    assert db.session.execute(select(Referral.referrer_id, Referral.friend_id)).all() == [(None, ben)]
    rewards = select(Reward.status, Reward.coupon_code).order_by(Reward.id)
    assert db.session.execute(rewards.where(Reward.customer_id == ben)).all() == [(s, "THANKS") for s in RewardStatus]
    nobodys = db.session.execute(rewards.where(Reward.customer_id.is_(None))).all()
    assert nobodys == [(RewardStatus.CANCELLED, None)] * 2 + [(RewardStatus.SENT, None), (RewardStatus.CANCELLED, None)]


def test_a_customer_who_cannot_be_erased_whole_is_not_erased_at_all(app):
    erasure = read_map(db.metadata)
    person = add_customer("half@people.example.com")
    hang_everything_on(person, erasure, "half")
    before = everything(erasure)
    db.session.commit()
    refuse("DELETE", "device", silently=True)
    with pytest.raises(Exception) as refused:
        erase(db.session.connection(), erasure, [person])
    assert isinstance(refused.value, NotErased) or "foreign key" in str(refused.value).lower()
    db.session.rollback()
    assert everything(erasure) == before


def test_an_id_that_is_not_there_stops_the_deletion(app):
    person = add_customer("there@people.example.com")
    with pytest.raises(NotErased):
        erase(db.session.connection(), read_map(db.metadata), [person, person + 1000])


def test_the_id_of_a_purged_customer_is_never_given_again(app):
    person = add_customer("last@people.example.com")
    erase(db.session.connection(), read_map(db.metadata), [person])
    assert add_customer("newcomer@people.example.com") > person
    db.session.execute(update(Customer).values(phone=None))
