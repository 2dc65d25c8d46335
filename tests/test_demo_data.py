"""Invented people look like people and are the same for the same seed."""

import csv

import pytest
from sqlalchemy import func, select

from purge import email_address
from purge.demo_data import make_demo_data, write_purge_csv
from purge.erasure.map import read_map
from purge.extensions import db
from purge.models import Customer, Order, Referral, Reward
from tests.people import everything


@pytest.fixture
def shop(app):
    make_demo_data(db.engine, 1_500, seed=7)


def test_the_same_seed_makes_the_same_people(app, shop):
    first = everything(read_map(db.metadata))
    for table in reversed(db.metadata.sorted_tables):
        db.session.execute(table.delete())
    db.session.commit()
    make_demo_data(db.engine, 1_500, seed=7)
    again = everything(read_map(db.metadata))
    assert [row[1:] for row in again["order"]] == [row[1:] for row in first["order"]]
    assert again["customer"] == first["customer"]


def test_every_address_is_valid_its_key_is_its_normal_form_and_nobody_shares_one(app, shop):
    people = db.session.execute(select(Customer.email, Customer.email_key)).all()
    assert all(email_address.read(email) == (key, None) for email, key in people)
    assert len({key for _, key in people}) == len(people) == 1_500
    assert any(email != key for email, key in people) and any("'" in key for _, key in people)
    assert any("+" in key for _, key in people) and max(len(key) for _, key in people) > 70


def test_about_eight_rows_hang_off_each_and_every_table_has_some(app, shop):
    rows = {name: len(found) for name, found in everything(read_map(db.metadata)).items()}
    assert all(rows.values()) and 6 < (sum(rows.values()) - 1_500) / 1_500 < 11


def test_the_models_read_what_was_written(app, shop):
    order = db.session.scalar(select(Order).limit(1))
    assert order.ordered_at.tzinfo and order.total > 0
    assert db.session.scalar(select(Reward).limit(1)).status in set(type(db.session.scalar(select(Reward)).status))
    earlier = select(func.count()).where(Referral.referrer_id >= Referral.friend_id)
    assert db.session.scalar(earlier.select_from(Referral)) == 0


def test_more_people_come_after_those_who_are_there(app, shop):
    make_demo_data(db.engine, 10, seed=7)
    assert db.session.scalar(select(func.count()).select_from(Customer)) == 1_510


def test_the_purge_csv_fits_the_people(app, shop, tmp_path):
    write_purge_csv(db.engine, tmp_path / "a.csv", 1_000)
    write_purge_csv(db.engine, tmp_path / "b.csv", 1_000)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        asked = [email_address.read(row["Customer Email"])[0] for row in csv.DictReader(file)]
    known = set(db.session.scalars(select(Customer.email_key)))
    assert len(asked) == 1_000 and asked.count(None) == 10
    assert sum(key is not None and key not in known for key in asked) == 20
    assert len(asked) - len(set(asked)) == 10 + 9
