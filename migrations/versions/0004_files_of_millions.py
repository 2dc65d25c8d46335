"""Files of millions of rows: what costs each row of them something and gives nothing."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BATCH = "fk_purge_request_batch_id"


def upgrade():
    _index(postgresql_include=["id"])
    with op.batch_alter_table("purge_request", table_kwargs={"sqlite_with_rowid": False}) as purge_request:
        purge_request.drop_constraint(BATCH, type_="foreignkey")


def downgrade():
    with op.batch_alter_table("purge_request", table_kwargs={"sqlite_with_rowid": False}) as purge_request:
        purge_request.create_foreign_key(BATCH, "batch", ["batch_id"], ["id"])
    _index()


def _index(**options):
    """SQLite's holds the id anyway."""
    if op.get_bind().dialect.name == "postgresql":
        op.drop_index("ix_customer_email_key", "customer")
        op.create_index("ix_customer_email_key", "customer", ["email_key"], **options)
