"""How a migration reaches the database: through the app's own engine."""

import warnings

from alembic import context
from alembic.operations.ops import CreateTableOp
from flask import current_app
from sqlalchemy.exc import SAWarning

from purge.customers import search_index
from purge.extensions import UtcDateTime

database = current_app.extensions["migrate"].db


def without_the_erasure_map(_context, _revision, directives):
    """The map stands in the models and may change without the schema."""
    for directive in directives:
        for operation in directive.upgrade_ops.ops:
            if isinstance(operation, CreateTableOp):
                operation.info = {}
                operation.kw.pop("info", None)


def render(kind, item, _autogenerate):
    """A migration must not hang on how the models write a moment today."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


if context.is_offline_mode():
    raise SystemExit("Migrations are run against a database, not written out as SQL.")

with database.engine.connect() as connection:
    if connection.dialect.name == "sqlite":
        # SQLite changes a table by making it anew; with the keys on, dropping the old one would take its children along.
        connection.connection.execute("PRAGMA foreign_keys=OFF")
    else:
        # An index is made beside whoever is at work, however long.
        connection.connection.execute("SET lock_timeout = 0")
    context.configure(
        connection=connection,
        target_metadata=database.metadata,
        include_name=search_index.in_models,
        render_as_batch=True,
        render_item=render,
        process_revision_directives=without_the_erasure_map,
        transactional_ddl=True,  # on SQLite too: our connections begin their transactions themselves
    )
    with context.begin_transaction():
        with warnings.catch_warnings(action="ignore", category=SAWarning):  # it cannot read an index of an expression
            context.run_migrations()
        if connection.dialect.name == "sqlite" and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
            raise SystemExit("The migration would leave rows that lead nowhere, so nothing was changed.")
    if connection.dialect.name == "sqlite":
        connection.connection.execute("PRAGMA foreign_keys=ON")
    else:
        connection.invalidate()  # nobody else is to wait without end
