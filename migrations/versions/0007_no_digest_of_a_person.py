"""A purge of one customer keeps no digest of what was shown: it told the person's name to whoever tried names. Nobody waits."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade():
    op.execute("UPDATE batch SET plan_digest = NULL WHERE door = 'form'")


def downgrade():
    """What was forgotten stays forgotten."""
