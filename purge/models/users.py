"""Who signs in here, and what each may do."""

import secrets
from datetime import datetime
from enum import StrEnum
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from flask_login import UserMixin
from sqlalchemy import ColumnElement, String
from sqlalchemy.orm import Mapped, mapped_column

from purge import email_address
from purge.erasure.map import keep
from purge.extensions import db, for_one_question, now, reading

ACCOUNT = keep("a colleague's account, not a customer")
_hasher = PasswordHasher()


class Role(StrEnum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


class User(UserMixin, db.Model):
    """A colleague who signs in. A viewer looks; an operator and an admin may purge."""

    __tablename__ = "user"
    __table_args__ = {"info": ACCOUNT}

    id: Mapped[int] = mapped_column(primary_key=True, info=ACCOUNT)
    email: Mapped[str] = mapped_column(String(320), unique=True, info=ACCOUNT)
    password_hash: Mapped[str] = mapped_column(String(200), info=ACCOUNT)
    role: Mapped[Role] = mapped_column(info=ACCOUNT)
    created_at: Mapped[datetime] = mapped_column(default=now, info=ACCOUNT)
    # Stands in their cookies; with another one nobody is signed in as them any more.
    session: Mapped[str] = mapped_column(String(32), default="", server_default="", info=ACCOUNT)

    @property
    def may_purge(self) -> bool:
        return self.role in (Role.OPERATOR, Role.ADMIN)

    @property
    def may_connect(self) -> bool:
        """A connection can delete people with nobody's yes, so it takes an admin to make or change one."""
        return self.role is Role.ADMIN

    @property
    def is_closed(self) -> bool:
        return not self.password_hash

    def get_id(self) -> str:
        """What their cookie says."""
        return f"{self.id}.{self.session}"

    def set_password(self, password: str) -> None:
        self.password_hash = _hasher.hash(password)
        self.end_sessions()

    def close(self) -> None:
        """Nobody signs in as them any more; what they did keeps their name."""
        self.password_hash = ""
        self.end_sessions()

    def end_sessions(self) -> None:
        self.session = secrets.token_hex(16)


@cache
def _nobodys_hash() -> str:
    """Compared against when nobody has the name, so that the time to say no does not tell who has an account."""
    return _hasher.hash("nobody has this password")


def find(*conditions: ColumnElement[bool]) -> User | None:
    """The user this is true of, read by itself, so that who signs in holds up no writer; every page and every poll asks."""
    with reading(), for_one_question(db.engine) as connection:
        found = connection.execute(db.select(User.__table__).where(*conditions)).one_or_none()
    return User(**found._mapping) if found else None


def account(typed: str) -> str:
    """How accounts have this address: in its normal form; where it is none, like admin@localhost, as a plain text."""
    return email_address.read(typed)[0] or typed.strip().lower()


def sign_in(email: str, password: str) -> User | None:
    """The user with this address and password, or nobody."""
    user = find(User.email == account(email), User.password_hash != "")
    try:
        _hasher.verify(user.password_hash if user else _nobodys_hash(), password)
    except VerificationError:
        return None
    return user
