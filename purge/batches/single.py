"""One customer: what a purge would do, shown first; then a batch of one, in the same river."""

import json
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256

from sqlalchemy import Select, exists, func, select

from purge.batches.account import Fall, in_words
from purge.batches.model import Batch, Chunk, ChunkState, Door, Ground, NotPossible, Outcome, PurgeRequest, State
from purge.erasure import engine as erasure
from purge.erasure.map import read_map
from purge.evidence import audit
from purge.evidence.audit import Act
from purge.evidence.ledger import LedgerEntry, fingerprinter
from purge.extensions import db, now
from purge.models import Customer, Referral, Reward, RewardStatus
from purge.models.programme import ON_THEIR_WAY

NAMED_FRIENDS = 3
OLDEST_REQUEST = timedelta(days=3653)


@dataclass(frozen=True)
class Preview:
    """What a purge of one customer would do; `digest` stands for exactly this, and the confirmation repeats it."""

    falls: list[Fall]
    on_their_way: dict[str, Decimal]  # by currency, what is cancelled
    friends: list[str]  # first names of some of those who keep a reward
    more_friends: int
    digest: str


def today() -> date:
    """The date in UTC."""
    return now().date()


def preview(customer: Customer) -> Preview:
    """What goes and what stays, counted now."""
    this = select(Customer.id).where(Customer.id == customer.id)
    falls = erasure.count(db.session.connection(), read_map(db.metadata), this)
    money = {currency: total for currency, total in db.session.execute(_on_their_way(customer))}
    names = list(db.session.scalars(_rewarded_friends(customer)))
    fingerprint = fingerprinter()(customer.email_key).hex()
    # So it is kept nowhere: in the database, beside the fingerprint, it would tell the names to whoever tries names.
    person = customer.id, fingerprint, customer.first_name, customer.surname, customer.external_id
    shown = json.dumps([person, falls, {key: str(money[key]) for key in sorted(money)}, names])
    friends = list(filter(None, names))[:NAMED_FRIENDS]
    return Preview(in_words(falls), money, friends, len(names) - len(friends), sha256(shown.encode()).hexdigest())


def open_single(
    customer: Customer, shown: str, user_id: int, ground: Ground | None = None, asked_on: date | None = None
) -> Batch:
    """A confirmed batch of this one customer, if `shown` is the digest of what a purge would do now; raises NotPossible."""
    if asked_on and asked_on > today() + timedelta(days=1):  # it is tomorrow somewhere
        raise NotPossible("The date of the request lies in the future.")
    if asked_on and asked_on < today() - OLDEST_REQUEST:
        raise NotPossible("The date of the request lies more than ten years back.")
    if preview(customer).digest != shown:
        raise NotPossible("Something of this customer has changed since you looked. Look again before you decide.")
    batch = Batch(
        door=Door.FORM,
        state=State.RUNNING,
        rows=1,
        planned=1,
        ground=ground,
        asked_on=asked_on,
        created_by_id=user_id,
        confirmed_by_id=user_id,
        confirmed_at=now(),
    )
    db.session.add(batch)
    db.session.flush()
    fingerprint = fingerprinter()(customer.email_key)
    db.session.add(PurgeRequest(batch_id=batch.id, row_number=1, fingerprint=fingerprint, customer_id=customer.id))
    bounds = {"first_customer_id": customer.id, "last_customer_id": customer.id, "requests": 1}
    db.session.add(Chunk(batch_id=batch.id, state=ChunkState.WAITING, **bounds))
    why = {"ground": ground, "asked_for_on": asked_on and asked_on.isoformat()}
    audit.record(Act.CONFIRMED, user_id, batch.id, door=Door.FORM, planned=1, rows=1, **why)
    return batch


def pending_single(customer: Customer, user_id: int) -> Batch | None:
    """This user's own purge of this customer, confirmed and not yet carried out."""
    pending = PurgeRequest.customer_id == customer.id, PurgeRequest.outcome.is_(None)
    theirs = Batch.door == Door.FORM, Batch.state == State.RUNNING, Batch.confirmed_by_id == user_id
    asked = select(Batch).join(PurgeRequest, PurgeRequest.batch_id == Batch.id).where(*theirs, *pending).limit(1)
    return db.session.scalar(asked)


def waiting_purge(customer: Customer) -> Batch | None:
    """A confirmed batch, anybody's and of any size, whose turn has not come yet for this customer."""
    pending = PurgeRequest.customer_id == customer.id, PurgeRequest.outcome.is_(None)
    theirs = exists().where(PurgeRequest.batch_id == Batch.id, *pending)
    going_on = Batch.state.in_([State.RUNNING, State.PAUSED])
    return db.session.scalar(select(Batch).where(going_on, theirs).order_by(Batch.id).limit(1))


def single_outcome(batch: Batch) -> Outcome | None:
    """What came of a batch of one; None while it is pending."""
    return db.session.scalar(select(PurgeRequest.outcome).where(PurgeRequest.batch_id == batch.id))


def purge_of(customer_id: int) -> tuple[Batch, datetime] | None:
    """The batch that purged the customer who had this id, and when; ids are never given again."""
    theirs = PurgeRequest.customer_id == customer_id, PurgeRequest.outcome == Outcome.PURGED
    # Naming every batch lets the index on batch and customer answer; there are far fewer batches than requests.
    asked = select(PurgeRequest.fingerprint, PurgeRequest.batch_id).where(
        PurgeRequest.batch_id.in_(select(Batch.id)), *theirs
    )
    request = db.session.execute(asked).first()
    if request is None:
        return None
    batch = db.session.get(Batch, request.batch_id)
    entry = db.session.get(LedgerEntry, (request.fingerprint, request.batch_id))
    # Where somebody took it out of the ledger, which doctor says, there is still when it was confirmed.
    return batch, entry.purged_at if entry else batch.confirmed_at


def _on_their_way(customer: Customer) -> Select:
    theirs = Reward.customer_id == customer.id, Reward.status.in_(ON_THEIR_WAY)
    return select(Reward.currency, func.sum(Reward.amount)).where(*theirs).group_by(Reward.currency)


def _rewarded_friends(customer: Customer) -> Select:
    """First names of those on the other side of a referral who hold a reward for it."""
    referred = (Referral.referrer_id == customer.id) & (Referral.friend_id == Customer.id)
    was_referred = (Referral.friend_id == customer.id) & (Referral.referrer_id == Customer.id)
    reward = exists().where(
        Reward.customer_id == Customer.id,
        Reward.referral_id == Referral.id,
        Reward.status != RewardStatus.CANCELLED,
        Customer.id != customer.id,
    )
    pairs = select(Customer.first_name).join(Referral, referred | was_referred).where(reward)
    return pairs.group_by(Customer.id).order_by(func.min(Referral.id))
