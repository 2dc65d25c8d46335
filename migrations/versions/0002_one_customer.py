"""One customer: the search index, and batches that came without a file."""

import sqlalchemy as sa
from alembic import op

from purge.customers import search_index

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

GROUNDS = ("privacy_request", "account_closed", "made_by_mistake", "test_data", "other")
OF_A_FILE = (
    ("file_name", sa.String(200)),
    ("file_bytes", sa.BigInteger()),
    ("content_digest", sa.LargeBinary(32)),
    ("encoding", sa.String(20)),
    ("delimiter", sa.String(1)),
)


def upgrade():
    with op.batch_alter_table("batch", table_kwargs={"sqlite_autoincrement": True}) as batch:
        for name, kind in OF_A_FILE:
            batch.alter_column(name, existing_type=kind, nullable=True)
        batch.add_column(sa.Column("ground", sa.Enum(*GROUNDS, name="ground", native_enum=False, length=20)))
        batch.add_column(sa.Column("asked_on", sa.Date()))
    if op.get_bind().dialect.name == "sqlite":
        for statement in search_index.statements():
            op.execute(statement)


def downgrade():
    if op.get_bind().dialect.name == "sqlite":
        for statement in search_index.drop_statements():
            op.execute(statement)
    with op.batch_alter_table("batch", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.drop_column("asked_on")
        batch.drop_column("ground")
        for name, kind in OF_A_FILE:
            empty = b"" if name == "content_digest" else 0 if name == "file_bytes" else ""
            op.execute(
                sa.update(sa.table("batch", sa.column(name))).where(sa.column(name).is_(None)).values({name: empty})
            )
            batch.alter_column(name, existing_type=kind, nullable=False)
