"""Orders, referrals and rewards: what a company must be able to add up after the person is gone."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from sqlalchemy import ForeignKey, Index, Numeric, String, case, column
from sqlalchemy.orm import Mapped, mapped_column

from purge.erasure.map import anonymise, keep
from purge.extensions import db


class RewardStatus(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    SENT = "sent"
    CANCELLED = "cancelled"


# A reward in one of these has not reached the customer yet.
ON_THEIR_WAY = (RewardStatus.PENDING.value, RewardStatus.APPROVED.value)


class Order(db.Model):
    """What somebody bought; after a purge, that something was bought."""

    __tablename__ = "order"
    __table_args__ = {
        "info": anonymise("the books must add up", told=("order stays, without a name", "orders stay, without a name"))
    }

    id: Mapped[int] = mapped_column(primary_key=True, info=keep("our own number; nobody outside knows it"))
    customer_id: Mapped[int | None] = mapped_column(
        ForeignKey("customer.id"), index=True, info=anonymise("the way back to the person")
    )
    order_number: Mapped[str | None] = mapped_column(
        String(40), info=anonymise("the shop's own books lead from it to the person")
    )
    total: Mapped[Decimal] = mapped_column(Numeric(12, 2), info=keep("revenue"))
    currency: Mapped[str] = mapped_column(String(3), info=keep("revenue"))
    ordered_at: Mapped[datetime] = mapped_column(info=keep("revenue by day"))
    coupon: Mapped[str | None] = mapped_column(String(40), info=anonymise("a personal coupon names its owner"))


def _side() -> ForeignKey:
    """Looked at when the transaction ends, so that a purge can let go of the row last (purge.erasure.engine)."""
    return ForeignKey("customer.id", deferrable=True, initially="DEFERRED")


class Referral(db.Model):
    """One customer brought another. Each side is forgotten by itself: the friend's half stays the friend's."""

    __tablename__ = "referral"
    __table_args__ = {
        "info": anonymise(
            "the other one's half stays",
            told=("referral stays, for the friend", "referrals stay, for the friend"),
        )
    }

    id: Mapped[int] = mapped_column(primary_key=True, info=keep("our own number; nobody outside knows it"))
    referrer_id: Mapped[int | None] = mapped_column(_side(), index=True, info=anonymise("the way back to the person"))
    friend_id: Mapped[int | None] = mapped_column(_side(), index=True, info=anonymise("the way back to the person"))
    created_at: Mapped[datetime] = mapped_column(info=keep("referrals by day"))


class Reward(db.Model):
    """What a customer earned; one still on its way to a purged customer is cancelled."""

    __tablename__ = "reward"
    __table_args__ = (
        # With the status, so that to count those on their way need not look into the table: a quarter of the time.
        Index("ix_reward_customer_id", "customer_id", "status"),
        {
            "info": anonymise(
                "the books must add up", told=("reward stays, without a name", "rewards stay, without a name")
            )
        },
    )

    id: Mapped[int] = mapped_column(primary_key=True, info=keep("our own number; nobody outside knows it"))
    customer_id: Mapped[int | None] = mapped_column(
        ForeignKey("customer.id"), info=anonymise("the way back to the person")
    )
    referral_id: Mapped[int | None] = mapped_column(
        ForeignKey("referral.id"), index=True, info=keep("what it was for; the referral forgets the person itself")
    )
    status: Mapped[RewardStatus] = mapped_column(
        info=anonymise(
            "nothing can reach a person who is gone",
            to=case((column("status").in_(ON_THEIR_WAY), RewardStatus.CANCELLED.value), else_=column("status")),
            told=("reward on its way is cancelled", "rewards on their way are cancelled"),
        ),
    )
    amount: Mapped[Decimal] = mapped_column(Numeric(12, 2), info=keep("what the programme costs"))
    currency: Mapped[str] = mapped_column(String(3), info=keep("what the programme costs"))
    coupon_code: Mapped[str | None] = mapped_column(String(40), info=anonymise("given to the person alone"))
    created_at: Mapped[datetime] = mapped_column(info=keep("rewards by day"))
    expires_at: Mapped[datetime | None] = mapped_column(info=keep("what is still owed"))
