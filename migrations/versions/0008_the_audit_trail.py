"""The audit trail: an event for everything that is done to a batch, a connection or an account; why a dropped file waits
for a yes, that it is a dry run, and where it is kept. Nobody waits.

`flask init-db` then begins it with the ledger as it is. A worker of the version before would purge without a word in it: stop
them first.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade():
    op.create_table(
        "audit_event",
        sa.Column("number", NUMBER, nullable=False, autoincrement=False),
        sa.Column("act", sa.String(20), nullable=False),
        sa.Column("batch_id", NUMBER),
        sa.Column("told", sa.Text(), nullable=False),
        sa.Column("seal", sa.LargeBinary(32), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_audit_event"),
    )
    op.create_index("ix_audit_event_act", "audit_event", ["act"])
    op.create_index("ix_audit_event_batch_id", "audit_event", ["batch_id"])
    op.add_column("batch", sa.Column("caution", sa.String(300)))
    op.add_column("dropped_file", sa.Column("is_dry", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("dropped_file", sa.Column("kept_as", sa.String(350)))
    op.execute("UPDATE dropped_file SET is_dry = true WHERE lower(name) LIKE '%dryrun%'")
    op.execute(
        "UPDATE dropped_file SET kept_as = 'failed/' || name WHERE kept_until IS NOT NULL AND refusal IS NOT NULL"
    )
    op.execute(
        "UPDATE dropped_file SET kept_as = 'processed/' || name WHERE kept_until IS NOT NULL AND refusal IS NULL"
    )


def downgrade():
    op.drop_column("dropped_file", "kept_as")
    op.drop_column("dropped_file", "is_dry")
    op.drop_column("batch", "caution")
    op.drop_table("audit_event")
