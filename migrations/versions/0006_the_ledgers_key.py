"""The ledger knows its key again, which `flask init-db` writes down, and a user's sessions can be ended. Nobody waits."""

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
    op.add_column("user", sa.Column("session", sa.String(32), nullable=False, server_default=""))


def downgrade():
    op.drop_column("user", "session")
    op.drop_table("ledger_key")
