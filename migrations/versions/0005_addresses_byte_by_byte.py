"""Addresses are compared byte by byte. Nobody reaches the customers while PostgreSQL makes the index anew: a second a million."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade():
    _collate("C")


def downgrade():
    _collate("default")


def _collate(name: str) -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f'ALTER TABLE customer ALTER COLUMN email_key TYPE VARCHAR(320) COLLATE "{name}"')
        # What the planner knew of the column is gone now, and nothing else would bring it back.
        op.execute("ANALYZE customer")
