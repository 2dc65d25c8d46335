"""One customer and what hangs off them, a section and a page at a time."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import aliased

from purge.extensions import db
from purge.models import (
    Address,
    Customer,
    Device,
    EmailSent,
    NpsAnswer,
    Order,
    Referral,
    Reward,
    ShareLink,
    Tag,
    TeamNote,
    TimelineEvent,
)

ROWS = 10

# What a profile shows, in this order, each the newest first by this moment.
SECTIONS: dict[str, tuple[str, Any, Any]] = {
    "orders": ("Orders", Order, Order.ordered_at),
    "rewards": ("Rewards", Reward, Reward.created_at),
    "referrals": ("Referrals", Referral, Referral.created_at),
    "activity": ("Activity", TimelineEvent, TimelineEvent.happened_at),
    "e-mails": ("E-mails", EmailSent, EmailSent.sent_at),
    "notes": ("Team notes", TeamNote, TeamNote.written_at),
    "tags": ("Tags", Tag, Tag.id),
    "share-links": ("Share links", ShareLink, ShareLink.created_at),
    "addresses": ("Addresses", Address, Address.id),
    "devices": ("Devices", Device, Device.seen_at),
    "answers": ("Survey answers", NpsAnswer, NpsAnswer.answered_at),
}


@dataclass(frozen=True)
class Pageful:
    """One page of one section; pages count from 1."""

    section: str
    title: str
    rows: list
    total: int
    page: int
    pages: int


def pageful(customer: Customer, section: str, page: int = 1) -> Pageful:
    """A page of a section; of the referrals, (referral, referrer, friend), where one is the customer. KeyError: no such section."""
    title, model, moment = SECTIONS[section]
    if model is Referral:
        theirs = or_(Referral.referrer_id == customer.id, Referral.friend_id == customer.id)
        referrer, friend = aliased(Customer), aliased(Customer)
        wanted = (
            select(Referral, referrer, friend)
            .outerjoin(referrer, referrer.id == Referral.referrer_id)
            .outerjoin(friend, friend.id == Referral.friend_id)
        )
    else:
        theirs, wanted = model.customer_id == customer.id, select(model)
    total = db.session.scalar(select(func.count()).select_from(model).where(theirs))
    pages = max(1, -(-total // ROWS))
    page = min(max(1, page), pages)
    wanted = wanted.where(theirs).order_by(moment.desc(), model.id.desc()).limit(ROWS).offset((page - 1) * ROWS)
    found = db.session.execute(wanted).all() if total else []
    return Pageful(section, title, [row if model is Referral else row[0] for row in found], total, page, pages)


def turn_emails(customer: Customer, on: bool) -> None:
    """Let them get e-mails, or not; whoever says the same twice changes nothing."""
    db.session.execute(update(Customer).where(Customer.id == customer.id).values(receives_emails=on))
