"""The ledger knows its key again, which `flask init-db` writes down; a user's sessions can be ended; a batch says who stopped
it. Nobody waits."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "ledger_key",
        sa.Column("fingerprint", sa.LargeBinary(32), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name="pk_ledger_key"),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("batch", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.add_column(sa.Column("stopped_by_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite")))
        batch.create_foreign_key("fk_batch_stopped_by_id", "user", ["stopped_by_id"], ["id"])
        batch.create_index("ix_batch_stopped_by_id", ["stopped_by_id"])
    op.add_column("user", sa.Column("session", sa.String(32), nullable=False, server_default=""))


def downgrade():
    op.drop_column("user", "session")
    with op.batch_alter_table("batch", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.drop_index("ix_batch_stopped_by_id")
        batch.drop_constraint("fk_batch_stopped_by_id", type_="foreignkey")
        batch.drop_column("stopped_by_id")
    op.drop_table("ledger_key")
