"""The customer and their addresses."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from purge.erasure.map import delete
from purge.extensions import db

PERSON = delete("is the person")
# Compared byte by byte: quicker, and no new version of the system's sorting rules can break the index and hide somebody.
_KEY = String(320).with_variant(String(320, collation="C"), "postgresql")


class Customer(db.Model):
    """A customer of the referral programme. Ids are never given twice, so that an old id never means a newcomer."""

    __tablename__ = "customer"
    __table_args__ = (
        # With the id, so that PostgreSQL need not look into the table to match a file; SQLite's has it anyway.
        Index("ix_customer_email_key", "email_key", postgresql_include=["id"]),
        {"sqlite_autoincrement": True, "info": delete("is the person")},
    )

    id: Mapped[int] = mapped_column(primary_key=True, info=PERSON)
    external_id: Mapped[str | None] = mapped_column(String(100), index=True, info=PERSON)
    email: Mapped[str] = mapped_column(String(320), info=PERSON)
    # The normal form of `email` (purge.email_address). Not unique: two customers may share an address, and
    # then neither is deleted by it.
    email_key: Mapped[str] = mapped_column(_KEY, info=PERSON)
    first_name: Mapped[str | None] = mapped_column(String(100), info=PERSON)
    surname: Mapped[str | None] = mapped_column(String(100), info=PERSON)
    phone: Mapped[str | None] = mapped_column(String(40), info=PERSON)
    locale: Mapped[str | None] = mapped_column(String(20), info=PERSON)
    created_at: Mapped[datetime] = mapped_column(index=True, info=PERSON)
    last_purchase_at: Mapped[datetime | None] = mapped_column(info=PERSON)
    receives_emails: Mapped[bool] = mapped_column(default=True, info=PERSON)


class Address(db.Model):
    """Where a customer's parcels go."""

    __tablename__ = "address"
    __table_args__ = {"info": delete("where the person lives", told=("address", "addresses"))}

    id: Mapped[int] = mapped_column(primary_key=True, info=PERSON)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"), index=True, info=PERSON)
    street: Mapped[str] = mapped_column(String(200), info=PERSON)
    city: Mapped[str] = mapped_column(String(100), info=PERSON)
    postcode: Mapped[str] = mapped_column(String(20), info=PERSON)
    country: Mapped[str] = mapped_column(String(2), info=PERSON)
