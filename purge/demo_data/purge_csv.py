"""A CSV that asks some of the customers away, as somebody would have made it by hand."""

import csv
import random
from pathlib import Path

from sqlalchemy import Engine, func, select, true

from purge.extensions import reading
from purge.models import Customer

INVALID, UNKNOWN, REPEATED = 0.01, 0.02, 0.01
_BROKEN = ["{}", "{}@", "{}@gmail", "{} @gmail.com", "{}@@gmail.com", "{}@gmail..com", ""]


def write_purge_csv(engine: Engine, path: Path, rows: int, seed: int = 1, among: range | None = None) -> None:
    """Rows for customers picked evenly over all there are, or over those with such an id, in no order; about 1 % invalid,
    2 % unknown, 1 % repeated."""
    dice = random.Random(seed)
    invalid, unknown, repeated = (round(rows * share) for share in (INVALID, UNKNOWN, REPEATED))
    with reading(), engine.connect() as connection:
        theirs = Customer.id.between(among.start, among.stop - 1) if among else true()
        there = connection.scalar(select(func.count()).select_from(Customer).where(theirs))
        wanted = min(rows - invalid - unknown - repeated, there)
        step = max(1, there // max(1, wanted))
        evenly = (
            select(Customer.email, Customer.first_name).where(theirs, Customer.id % step == 0).order_by(Customer.id)
        )
        people = [(_as_typed(email, dice), name) for email, name in connection.execute(evenly.limit(wanted))]
    asked = list(people)
    asked += [(f"nobody.{n}@gmail.com", "Nobody") for n in range(unknown)]
    asked += [dice.choice(people) for _ in range(repeated if people else 0)]
    asked += [(dice.choice(_BROKEN).format(f"person{n}"), "Someone") for n in range(invalid)]
    dice.shuffle(asked)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["Customer Email", "First name", "Reason"])
        writer.writerows((email, name, "asked in writing") for email, name in asked)


def _as_typed(email: str, dice: random.Random) -> str:
    luck = dice.random()
    return email.upper() if luck < 0.02 else f" {email}" if luck < 0.04 else email
