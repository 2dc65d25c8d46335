"""One customer: the search index, and batches that came without a file."""

import sqlalchemy as sa
from alembic import op

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

TEXT = (
    "search_text({0}.first_name, {0}.surname, {0}.email, {0}.external_id, "
    "(SELECT group_concat(slug, ' ') FROM share_link WHERE customer_id = {0}.id))"
)
ADD = "INSERT INTO customer_search (rowid, text) "
REMOVE = "DELETE FROM customer_search WHERE rowid = "
ANEW = f"{REMOVE} {{0}}.customer_id; {ADD} SELECT id, {TEXT.format('customer')} FROM customer WHERE id = {{0}}.customer_id;"
OLD, NEW = ANEW.format("old"), ANEW.format("new")
TRIGGERS = {
    "customer_is_found": f"AFTER INSERT ON customer BEGIN {ADD} VALUES (new.id, {TEXT.format('new')}); END",
    "customer_is_found_anew": "AFTER UPDATE OF first_name, surname, email, external_id ON customer "
    f"BEGIN {REMOVE} old.id; {ADD} VALUES (new.id, {TEXT.format('new')}); END",
    "customer_is_forgotten": f"AFTER DELETE ON customer BEGIN {REMOVE} old.id; END",
    "share_link_is_found": f"AFTER INSERT ON share_link BEGIN {NEW} END",
    "share_link_is_found_anew": f"AFTER UPDATE OF slug, customer_id ON share_link BEGIN {OLD} {NEW} END",
    "share_link_is_forgotten": f"AFTER DELETE ON share_link WHEN NOT is_erasing() BEGIN {OLD} END",
}


def upgrade():
    with op.batch_alter_table("batch", table_kwargs={"sqlite_autoincrement": True}) as batch:
        for name, kind in OF_A_FILE:
            batch.alter_column(name, existing_type=kind, nullable=True)
        batch.add_column(sa.Column("ground", sa.Enum(*GROUNDS, name="ground", native_enum=False, length=20)))
        batch.add_column(sa.Column("asked_on", sa.Date()))
    if op.get_bind().dialect.name == "sqlite":
        make_search_index()


def make_search_index():
    """And fill it with the customers that are there."""
    # detail=full, its default, lets the index itself see that characters stand in a row; contentless, because the
    # texts stand in the customers already; contentless_delete, because nothing else removes what is purged.
    options = "tokenize = 'trigram case_sensitive 1', content = '', contentless_delete = 1"
    op.execute(f"CREATE VIRTUAL TABLE customer_search USING fts5 (text, {options})")
    # SQLite would merge the whole index after every tenth of it: a purge of everybody took twice as long. It is
    # written anew when nothing runs.
    op.execute("INSERT INTO customer_search (customer_search, rank) VALUES ('deletemerge', 0)")
    op.execute(f"{ADD} SELECT id, {TEXT.format('customer')} FROM customer")
    op.execute("CREATE INDEX ix_customer_name ON customer (sort_text(surname, first_name))")
    for name, does in TRIGGERS.items():
        op.execute(f"CREATE TRIGGER {name} {does}")


def downgrade():
    if op.get_bind().dialect.name == "sqlite":
        for name in TRIGGERS:
            op.execute(f"DROP TRIGGER {name}")
        op.execute("DROP INDEX ix_customer_name")
        op.execute("DROP TABLE customer_search")
    with op.batch_alter_table("batch", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.drop_column("asked_on")
        batch.drop_column("ground")
        for name, kind in OF_A_FILE:
            empty = b"" if name == "content_digest" else 0 if name == "file_bytes" else ""
            op.execute(
                sa.update(sa.table("batch", sa.column(name))).where(sa.column(name).is_(None)).values({name: empty})
            )
            batch.alter_column(name, existing_type=kind, nullable=False)
