"""The index of whose a reward is holds its status as well: the check counts those on their way without looking into the table."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

INDEX = "ix_reward_customer_id"


def upgrade():
    _index("customer_id", "status")


def downgrade():
    _index("customer_id")


def _index(*columns: str) -> None:
    """On PostgreSQL beside the old one, while everybody goes on but for the moment of the exchange, which waits for a check that
    counts rewards just then: without an index a deletion would read the whole table."""
    on_postgresql = op.get_bind().dialect.name == "postgresql"
    if on_postgresql:
        with op.get_context().autocommit_block():
            op.execute(f"DROP INDEX IF EXISTS {INDEX}_new")  # of a try before
            op.execute(f"CREATE INDEX CONCURRENTLY {INDEX}_new ON reward ({', '.join(columns)})")
    op.drop_index(INDEX, "reward")
    if on_postgresql:
        op.execute(f"ALTER INDEX {INDEX}_new RENAME TO {INDEX}")
    else:
        op.create_index(INDEX, "reward", columns)
