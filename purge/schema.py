"""What the database must be for this version of the app, and what of it is missing."""

import warnings
from datetime import timedelta
from functools import cache

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import current_app
from sqlalchemy import Connection, inspect
from sqlalchemy.exc import SAWarning

from purge.erasure.map import CUSTOMER, read_map
from purge.evidence.ledger import has_other_key
from purge.extensions import db, now

OLDEST_POSTGRESQL = 15
# What waits is thrown away, and what is due is begun, by the clock of whoever looks.
CLOCKS_APART = timedelta(minutes=1)


def misfits(connection: Connection) -> list[str]:
    """What keeps the app from working on this database, a sentence each, with what to do; quick enough to be asked often."""
    fit = [*_behind(connection), *unfit_server(connection), *_without_extension(connection)]
    return fit or _other_key(connection)


def missing(connection: Connection) -> list[str]:
    """The same, and whether a deletion finds everything, and quickly; for a start and for a person."""
    return misfits(connection) or [*_beyond_the_map(connection), *_without_index(connection)]


def _behind(connection: Connection) -> list[str]:
    (newest, *_), current = _revisions(), _revision(connection)
    if current == newest or _is_unknown(current):  # which unfit_server says
        return []
    return [f"The schema is at {current or 'nothing'} and this version needs {newest}: run `flask init-db`."]


def _is_unknown(revision: str | None) -> bool:
    return revision not in (None, *_revisions())


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


@cache
def _revisions() -> tuple[str, ...]:
    """All that this version knows, the newest first."""
    migrate = current_app.extensions["migrate"]
    scripts = ScriptDirectory.from_config(migrate.migrate.get_config(migrate.directory))
    return tuple(script.revision for script in scripts.walk_revisions())


def _other_key(connection: Connection) -> list[str]:
    if not has_other_key(connection):
        return []
    return ["LEDGER_KEY is not the one that this database's ledger was begun with: nobody purged would be known again."]


def unfit_server(connection: Connection) -> list[str]:
    """What keeps even the schema from being made."""
    if _is_unknown(current := _revision(connection)):
        return [f"The schema is at {current}, which a newer version of Purge has made: start that one."]
    if connection.dialect.name != "postgresql":
        return []

    def shown(sql: str):
        return connection.exec_driver_sql(sql).scalar()

    ahead = now() - shown("SELECT clock_timestamp()")
    version, encoding = connection.dialect.server_version_info[0], shown("SHOW server_encoding")
    wanted = {
        f"PostgreSQL {version} is too old: {OLDEST_POSTGRESQL} is the oldest.": version >= OLDEST_POSTGRESQL,
        f"The database's encoding is {encoding}: make it anew with UTF8.": encoding == "UTF8",
        "The sessions' time zone is not UTC: something between the app and the database sets another.": shown(
            "SHOW timezone"
        )
        == "UTC",
        f"This machine's clock is {abs(ahead.total_seconds()):,.0f} seconds {'ahead of' if ahead > timedelta() else 'behind'} the"
        " database's: set both by NTP.": abs(ahead) < CLOCKS_APART,
        "PostgreSQL was built without ICU, which folds what is searched for: take a build with it.": shown(
            "SELECT count(*) FROM pg_collation WHERE collname = 'und-x-icu'"
        ),
    }
    return [sentence for sentence, is_so in wanted.items() if not is_so]


def _without_extension(connection: Connection) -> list[str]:
    if (
        connection.dialect.name != "postgresql"
        or connection.exec_driver_sql("SELECT count(*) FROM pg_extension WHERE extname = 'pg_trgm'").scalar()
    ):
        return []
    return ["The extension pg_trgm is missing: CREATE EXTENSION pg_trgm."]


def _beyond_the_map(connection: Connection) -> list[str]:
    """Tables that somebody added: what a purged person has there would stay, or keep the person."""
    mapped = {(link.table.name, link.name) for part in read_map(db.metadata).tables for link in part.links}
    inspected, here = inspect(connection), connection.dialect.default_schema_name
    others = set(inspected.get_schema_names()) - {here, "information_schema"}
    sentences = []
    for schema in (None, *(sorted(others) if connection.dialect.name == "postgresql" else ())):
        for (_, table), keys in inspected.get_multi_foreign_keys(schema=schema).items():
            ours = [key for key in keys if key["referred_table"] == CUSTOMER and key["referred_schema"] in (None, here)]
            for column in (key["constrained_columns"][0] for key in ours):
                name = ".".join(filter(None, (schema, table, column)))
                if schema or (table, column) not in mapped:
                    sentences.append(
                        f"{name} leads to a customer and the erasure map knows nothing of it (purge/models): what a purged"
                        " customer has there would stay, or keep the customer."
                    )
    return sentences


def _finds_everything(index: dict) -> bool:
    """Not one of some rows alone, nor one that was never made to its end, which the server does not use."""
    told = index.get("dialect_options", {})
    of_which = told.get("postgresql_where", told.get("sqlite_where"))
    of_all = of_which is None or str(of_which).strip("()") == f"{index['column_names'][0]} IS NOT NULL"
    return of_all and not told.get("postgresql_invalid")


def _without_index(connection: Connection) -> list[str]:
    """A deletion looks for every row that leads to the one deleted; without an index it reads the whole table each time."""
    found = inspect(connection)
    with warnings.catch_warnings(action="ignore", category=SAWarning):  # it cannot read an index of an expression
        indexes = found.get_multi_indexes()
    primary_keys = found.get_multi_pk_constraint()
    sentences = []
    for place, keys in found.get_multi_foreign_keys().items():
        first_columns = {index["column_names"][0] for index in indexes.get(place, []) if _finds_everything(index)}
        first_columns |= set(primary_keys[place]["constrained_columns"][:1])
        for column in (key["constrained_columns"][0] for key in keys if key["referred_table"] in db.metadata.tables):
            if column not in first_columns:
                sentences.append(f"{place[1]}.{column} leads to another table and has no index: make one.")
    return sentences
