"""`flask init-db`, `flask users` and `flask demo-data`: what an installation needs before anybody signs in."""

import logging
import secrets
import time
from itertools import count
from pathlib import Path

import click
from flask import current_app
from flask.cli import with_appcontext
from flask_migrate import upgrade
from sqlalchemy import Connection, func, inspect, select
from sqlalchemy.exc import DBAPIError

from purge import batches, email_address, schema
from purge import demo_data as demo
from purge.batches import Batch
from purge.cli.unfit import first_line, refuse_unfit
from purge.config import ConfigError
from purge.evidence import audit
from purge.evidence.audit import Act, AuditEvent
from purge.evidence.ledger import LedgerKey, adopt_key, has_other_key, is_written
from purge.extensions import alone, db, reading
from purge.models import Role, User
from purge.models.users import account

WORTH_SAYING = 10  # looks in vain, two seconds


@click.command("init-db")
@click.option(
    "--another-ledger-key",
    is_flag=True,
    help="Go on with this LEDGER_KEY, where the ledger was begun with another: who was purged before is not known again.",
)
@click.option(
    "--accept-ledger",
    is_flag=True,
    help="Go on with the ledger and the audit trail as they are, where `flask doctor` says that they were changed.",
)
@with_appcontext
@audit.at_the_command_line()
def init_db(another_ledger_key: bool, accept_ledger: bool) -> None:
    """Make the database's tables, or bring them up to date. Safe to repeat."""
    try:
        with reading(), db.engine.connect() as connection:
            sentences = schema.unfit_server(connection)
    except DBAPIError as error:
        raise ConfigError(f"The database cannot be reached: {first_line(error)}") from None
    if sentences:
        raise ConfigError(" ".join(sentences))
    try:
        upgrade_schema(another_ledger_key, accept_ledger)
        with reading(), db.engine.connect() as connection:
            sentences = schema.misfits(connection)
    except DBAPIError as error:
        raise ConfigError(f"The schema could not be made: {first_line(error)}") from None
    if sentences:
        raise ConfigError(" ".join(sentences))
    click.echo("The database is up to date.")


@click.group()
def users() -> None:
    """The people who sign in here."""


@users.command("add")
@click.argument("email")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.OPERATOR.value,
    show_default=True,
    help="A viewer looks; an operator purges; an admin does both and looks after the rest.",
)
@click.option("--password-prompt", is_flag=True, help="Ask for a password instead of making one.")
@with_appcontext
@audit.at_the_command_line()
def add(email: str, role: str, password_prompt: bool) -> None:
    """Let the colleague with this e-mail address sign in; prints a password, once."""
    refuse_unfit()
    key, problem = email_address.read(email)
    if problem:
        raise click.ClickException(f"This is not an e-mail address: {problem.words}.")
    if db.session.scalar(db.select(User.id).where(User.email == key)):
        raise click.ClickException(f"{key} has an account already.")
    password = None
    if password_prompt:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    password = add_user(key, Role(role), password)
    click.echo(f"{key} may sign in as {role}." + ("" if password_prompt else f" Password (shown once): {password}"))


@users.command("list")
@with_appcontext
def everybody() -> None:
    """Who may sign in, and as what; each with the number that receipts have."""
    refuse_unfit()
    for user in db.session.scalars(db.select(User).order_by(User.email)):
        click.echo(f"{user.id:>4}  {user.email}  {'closed' if user.is_closed else user.role}")


@users.command("change")
@click.argument("email")
@click.option("--role", type=click.Choice([role.value for role in Role]))
@click.option("--new-password", is_flag=True, help="Make one and print it, once; every session of theirs ends.")
@click.option("--close", is_flag=True, help="They sign in no more, and every session of theirs ends.")
@with_appcontext
@audit.at_the_command_line()
def change(email: str, role: str | None, new_password: bool, close: bool) -> None:
    """Give a colleague another role or password, or none: who has left must not purge. A new password opens again."""
    refuse_unfit()
    user = db.session.scalar(db.select(User).where(User.email == account(email)))
    if user is None:
        raise click.ClickException(f"Nobody here is called {email}: see `flask users list`.")
    if close == bool(role or new_password):
        raise click.UsageError("Say what to change: --role or --new-password or both, or --close.")
    if role:
        user.role = Role(role)
    if new_password:
        user.set_password(password := secrets.token_urlsafe(12))
        click.echo(f"Password (shown once): {password}")
    if close:
        user.close()
    audit.record(Act.USER_CHANGED, account=user.id, role=role, new_password=new_password, closed=close)
    db.session.commit()
    click.echo(f"{user.email}  {'closed' if user.is_closed else user.role}")


@click.command("demo-data")
@click.option(
    "--customers", type=click.IntRange(0), default=demo.DEMO_CUSTOMERS, show_default=True, help="How many to add."
)
@click.option("--seed", default=1, show_default=True, help="The same seed makes the same people.")
@click.option(
    "--purge-csv", type=click.Path(dir_okay=False, path_type=Path), help="Write a CSV that asks some of them away."
)
@click.option("--rows", type=click.IntRange(1), default=1_000, show_default=True, help="Rows of that CSV.")
@with_appcontext
def demo_data(customers: int, seed: int, purge_csv: Path | None, rows: int) -> None:
    """Add invented customers of a referral programme, and write a purge CSV that fits them.

    About one row in a hundred of the CSV is invalid, two are unknown, one is repeated.
    """
    if customers:
        with click.progressbar(length=customers, label="Customers") as bar:
            demo.make_demo_data(db.engine, customers, seed, lambda done, total: bar.update(done - bar.pos))
    if purge_csv:
        demo.write_purge_csv(db.engine, purge_csv, rows, seed)
        click.echo(f"Wrote {purge_csv}.")


def upgrade_schema(another_ledger_key: bool = False, accept_ledger: bool = False) -> None:
    """Alembic's upgrade, the ledger's key, and the audit trail's beginning; of two at once, on whatever machines, the second
    waits and finds nothing to do."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    for waited in count():
        with alone(db.engine, "schema") as is_alone:
            if is_alone:
                with reading(), db.engine.connect() as connection:
                    there = set(inspect(connection).get_table_names())
                upgrade(directory=current_app.extensions["migrate"].directory)
                try:
                    _begin_evidence(db.session.connection(), there, another_ledger_key, accept_ledger)
                    db.session.commit()
                finally:
                    db.session.rollback()
                return
        if waited == WORTH_SAYING:
            click.echo("Somebody else is making the schema; waiting for them …")
        time.sleep(0.2)  # to wait inside the database would keep an index from being built beside its users


def _end_what_waits() -> None:
    """Every customer in it would be taken for one whose address has changed."""
    ended = batches.end_all_waiting()
    if ended:
        click.echo(
            f"The ledger’s key is another: {ended:,} checked batches were cancelled or discarded. Send them again."
        )


def _begin_evidence(connection: Connection, there: set[str], another_ledger_key: bool, accept_ledger: bool) -> None:
    """The ledger's key and the audit trail, where this upgrade brought them, or where we are told to go on with what is there;
    of its own accord it takes nothing for granted that somebody may have changed. `there` are the tables before it."""
    had_another = LedgerKey.__tablename__ in there and has_other_key(connection)
    is_adopted = adopt_key(connection, another_ledger_key or LedgerKey.__tablename__ not in there)
    if had_another and is_adopted:  # before the trail's turn is ours: workers who have theirs hold a batch
        _end_what_waits()
    is_new = AuditEvent.__tablename__ not in there or (audit.last(connection) is None and not is_written(connection))
    if is_adopted or accept_ledger or is_new:
        last_batch = connection.scalar(select(func.max(Batch.id))) or 0
        audit.begin(connection, last_batch)
        if last_batch:
            click.echo("The audit trail begins with the ledger as it is now.")
    elif audit.begun(connection) is None and not has_other_key(connection):
        raise ConfigError(
            "There is no audit trail, or not its beginning: somebody has taken it out. Restore a backup, or go on with "
            "`flask init-db --accept-ledger`."
        )


def add_user(email: str, role: Role, password: str | None = None) -> str:
    """A new user, committed; the password, made here where none is given."""
    password = password or secrets.token_urlsafe(12)
    user = User(email=email, role=role)
    user.set_password(password)
    db.session.add(user)
    db.session.flush()
    audit.record(Act.USER_ADDED, account=user.id, email=email, role=role)
    db.session.commit()
    return password
