"""What a customer did, was sent and left behind: all of it goes with them."""

from datetime import datetime

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from purge.erasure.map import delete
from purge.extensions import db

TRACE = delete("says something of the person")


class ShareLink(db.Model):
    """The link a customer gives to friends; often with their name in it."""

    __tablename__ = "share_link"
    __table_args__ = {"info": delete("often has the person's name in it", told=("share link", "share links"))}

    id: Mapped[int] = mapped_column(primary_key=True, info=TRACE)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"), index=True, info=TRACE)
    slug: Mapped[str] = mapped_column(String(120), index=True, info=TRACE)
    created_at: Mapped[datetime] = mapped_column(info=TRACE)


class TimelineEvent(db.Model):
    """One thing a customer did."""

    __tablename__ = "timeline_event"
    __table_args__ = {"info": delete("what the person did", told=("activity", "activities"))}

    id: Mapped[int] = mapped_column(primary_key=True, info=TRACE)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"), index=True, info=TRACE)
    kind: Mapped[str] = mapped_column(String(40), info=TRACE)
    detail: Mapped[str | None] = mapped_column(String(200), info=TRACE)
    happened_at: Mapped[datetime] = mapped_column(info=TRACE)


class EmailSent(db.Model):
    """One e-mail that went to a customer."""

    __tablename__ = "email_sent"
    __table_args__ = {"info": delete("has the person's address on it", told=("e-mail sent", "e-mails sent"))}

    id: Mapped[int] = mapped_column(primary_key=True, info=TRACE)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"), index=True, info=TRACE)
    to_address: Mapped[str] = mapped_column(String(320), info=TRACE)
    subject: Mapped[str] = mapped_column(String(200), info=TRACE)
    sent_at: Mapped[datetime] = mapped_column(info=TRACE)


class TeamNote(db.Model):
    """What a colleague wrote about a customer."""

    __tablename__ = "team_note"
    __table_args__ = {"info": delete("is about the person", told=("team note", "team notes"))}

    id: Mapped[int] = mapped_column(primary_key=True, info=TRACE)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"), index=True, info=TRACE)
    body: Mapped[str] = mapped_column(Text, info=TRACE)
    written_at: Mapped[datetime] = mapped_column(info=TRACE)


class Tag(db.Model):
    """A word put on a customer."""

    __tablename__ = "tag"
    __table_args__ = {"info": delete("is about the person", told=("tag", "tags"))}

    id: Mapped[int] = mapped_column(primary_key=True, info=TRACE)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"), index=True, info=TRACE)
    name: Mapped[str] = mapped_column(String(60), info=TRACE)


class Device(db.Model):
    """What a customer came with."""

    __tablename__ = "device"
    __table_args__ = {"info": delete("an IP address and a cookie are personal data", told=("device", "devices"))}

    id: Mapped[int] = mapped_column(primary_key=True, info=TRACE)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"), index=True, info=TRACE)
    ip: Mapped[str] = mapped_column(String(45), info=TRACE)
    cookie_id: Mapped[str] = mapped_column(String(64), info=TRACE)
    seen_at: Mapped[datetime] = mapped_column(info=TRACE)


class NpsAnswer(db.Model):
    """How likely a customer is to recommend the shop, 0 to 10, and why."""

    __tablename__ = "nps_answer"
    __table_args__ = {"info": delete("the person's opinion", told=("survey answer", "survey answers"))}

    id: Mapped[int] = mapped_column(primary_key=True, info=TRACE)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"), index=True, info=TRACE)
    score: Mapped[int] = mapped_column(info=TRACE)
    comment: Mapped[str | None] = mapped_column(Text, info=TRACE)
    answered_at: Mapped[datetime] = mapped_column(info=TRACE)
