"""Files of millions of rows: what costs each row something and gives nothing, and what makes workers wait for each other."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BATCH = "fk_purge_request_batch_id"
SIDES = ("referrer_id", "friend_id")
INDEX = "ix_customer_email_key"


def upgrade():
    if op.get_bind().dialect.name == "postgresql":
        _index_and_lock("INCLUDE (id)")
        op.drop_constraint(BATCH, "purge_request")
        _sides("DEFERRABLE INITIALLY DEFERRED")
        return
    with op.batch_alter_table("purge_request", table_kwargs={"sqlite_with_rowid": False}) as purge_request:
        purge_request.drop_constraint(BATCH, type_="foreignkey")
    _anew(deferrable=True, initially="DEFERRED")


def downgrade():
    if op.get_bind().dialect.name == "postgresql":
        _index_and_lock()
        op.create_foreign_key(BATCH, "purge_request", "batch", ["batch_id"], ["id"])
        _sides("NOT DEFERRABLE")
        return
    with op.batch_alter_table("purge_request", table_kwargs={"sqlite_with_rowid": False}) as purge_request:
        purge_request.create_foreign_key(BATCH, "batch", ["batch_id"], ["id"])
    _anew()


def _index_and_lock(include: str = "") -> None:
    """PostgreSQL's index, while everybody goes on; then nobody, in the order in which chunks lock, or the two would block each other."""
    with op.get_context().autocommit_block():
        op.execute(f"DROP INDEX IF EXISTS {INDEX}_new")  # of a try before
        op.execute(f"CREATE INDEX CONCURRENTLY {INDEX}_new ON customer (email_key) {include}")
    op.execute("LOCK TABLE batch, purge_request, customer, referral IN ACCESS EXCLUSIVE MODE")
    op.drop_index(INDEX, "customer")
    op.execute(f"ALTER INDEX {INDEX}_new RENAME TO {INDEX}")


def _sides(when: str) -> None:
    for side in SIDES:
        op.execute(f"ALTER TABLE referral ALTER CONSTRAINT fk_referral_{side} {when}")


def _anew(**options) -> None:
    """SQLite's table; its index of addresses holds the id anyway."""
    with op.batch_alter_table("referral") as referral:
        for side in SIDES:
            referral.drop_constraint(f"fk_referral_{side}", type_="foreignkey")
            referral.create_foreign_key(f"fk_referral_{side}", "customer", [side], ["id"], **options)
