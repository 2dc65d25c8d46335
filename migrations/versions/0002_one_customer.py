"""One customer: the search index, and batches that came without a file."""

import unicodedata

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite gives ids to INTEGER alone

GROUNDS = ("privacy_request", "account_closed", "made_by_mistake", "test_data", "other")
OF_A_FILE = (
    ("file_name", sa.String(200)),
    ("file_bytes", sa.BigInteger()),
    ("content_digest", sa.LargeBinary(32)),
    ("encoding", sa.String(20)),
    ("delimiter", sa.String(1)),
)


def ranges(numbers):
    """Runs of whole numbers that follow each other: (first, last)."""
    found = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found


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

PURE = "LANGUAGE sql IMMUTABLE PARALLEL SAFE"
INVISIBLE = "".join(  # what purge.customers.folding leaves out, as ranges
    f"{chr(first)}-{chr(last)}"
    for first, last in ranges(
        n for n in range(128, 0x110000) if unicodedata.combining(chr(n)) or unicodedata.category(chr(n)) == "Cf"
    )
)
CONTROLS = "".join(map(chr, [*range(1, 32), *range(127, 160)]))
FOLD = f"""
CREATE FUNCTION fold_text(plain text) RETURNS text {PURE} STRICT AS $fold$
SELECT CASE WHEN octet_length(plain) = char_length(plain) THEN translate(lower(plain), '{CONTROLS[:31]}', repeat(' ', 31))
ELSE translate(replace(replace(replace(replace(
    regexp_replace(
        normalize(lower(normalize(translate(plain, '‘’ʼʹ´′‐‑‒–—−', '''''''''''''------'), NFKD) COLLATE "und-x-icu"), NFKD),
        '[{INVISIBLE}]', '', 'g'),
    'ß', 'ss'), 'þ', 'th'), 'æ', 'ae'), 'œ', 'oe'),
    'łøđðıħς{CONTROLS}', 'loddihσ' || repeat(' ', {len(CONTROLS)})) END
$fold$
"""
PG_TEXT = (
    "search_text(c.first_name, c.surname, c.email, c.external_id, "
    "(SELECT string_agg(slug, ' ' ORDER BY id) FROM share_link WHERE customer_id = c.id))"
)
PG_ADD = (
    f"INSERT INTO customer_search (rowid, text) SELECT c.id, {PG_TEXT} FROM {{0}} c "
    "ON CONFLICT (rowid) DO UPDATE SET text = excluded.text;"
)
# Whoever changes the same customer's name at this moment is waited for, or the entry would say the old one.
PG_ANEW = "PERFORM 1 FROM customer WHERE id IN (SELECT customer_id FROM {0}) ORDER BY id FOR NO KEY UPDATE; "
PG_ANEW += PG_ADD.format("(SELECT * FROM customer WHERE id IN (SELECT customer_id FROM {0}))")
OLD_ROWS, NEW_ROWS = "OLD TABLE AS old_rows", "NEW TABLE AS new_rows"
PG_ERASING = "IF current_setting('purge.erasing', true) = 'yes' THEN RETURN NULL; END IF;"
PG_TRIGGERS = (  # table, event, what it reads, when it does nothing, what it does
    ("customer", "INSERT", NEW_ROWS, "", PG_ADD.format("new_rows")),
    ("customer", "UPDATE", NEW_ROWS, "", PG_ADD.format("new_rows")),
    ("customer", "DELETE", OLD_ROWS, "", "DELETE FROM customer_search WHERE rowid IN (SELECT id FROM old_rows);"),
    ("share_link", "INSERT", NEW_ROWS, "", PG_ANEW.format("new_rows")),
    (
        "share_link",
        "UPDATE",
        f"{OLD_ROWS} {NEW_ROWS}",
        "",
        PG_ANEW.format("(SELECT * FROM old_rows UNION ALL SELECT * FROM new_rows) changed"),
    ),
    ("share_link", "DELETE", OLD_ROWS, PG_ERASING, PG_ANEW.format("old_rows")),
)


def upgrade():
    with op.batch_alter_table("batch", table_kwargs={"sqlite_autoincrement": True}) as batch:
        for name, kind in OF_A_FILE:
            batch.alter_column(name, existing_type=kind, nullable=True)
        batch.add_column(sa.Column("ground", sa.Enum(*GROUNDS, name="ground", native_enum=False, length=20)))
        batch.add_column(sa.Column("asked_on", sa.Date()))
    {"sqlite": make_sqlite_search_index, "postgresql": make_postgresql_search_index}[op.get_bind().dialect.name]()


def make_sqlite_search_index():
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


def make_postgresql_search_index():
    """As on SQLite; what Python folds there, these functions fold here. Triggers go by statement, for a purge is one."""
    op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    op.execute(FOLD)
    # RETURN, and not a body in quotes: its names are bound now, and hold under any search_path, as ANALYZE has none.
    op.execute(
        f"CREATE FUNCTION search_text(VARIADIC parts text[]) RETURNS text {PURE} "
        "RETURN ' ' || btrim(regexp_replace(fold_text(array_to_string(parts, ' ')), '\\s+', ' ', 'g')) || ' '"
    )
    op.execute(
        f"CREATE FUNCTION sort_text(VARIADIC parts text[]) RETURNS text {PURE} "
        "RETURN left(btrim(search_text(VARIADIC parts)), 24)"
    )
    op.create_table(
        "customer_search",
        sa.Column("rowid", WHOLE, nullable=False, autoincrement=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("rowid", name="pk_customer_search"),
    )
    op.execute(PG_ADD.format("customer"))
    op.execute("CREATE INDEX ix_customer_search_text ON customer_search USING gin (text gin_trgm_ops)")
    op.execute('CREATE INDEX ix_customer_name ON customer (sort_text(surname, first_name) COLLATE "C", id)')
    for table, on, reads, guard, does in PG_TRIGGERS:
        name = f"{table}_{on}".lower()
        body = f"BEGIN {guard} {does} RETURN NULL; END"
        op.execute(f"CREATE FUNCTION {name}_is_found() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$")
        op.execute(
            f"CREATE TRIGGER {name}_is_found AFTER {on} ON {table} REFERENCING {reads} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {name}_is_found()"
        )


def drop_postgresql_search_index():
    for table, on, *_ in PG_TRIGGERS:
        name = f"{table}_{on}_is_found".lower()
        op.execute(f"DROP TRIGGER {name} ON {table}")
        op.execute(f"DROP FUNCTION {name}()")
    op.drop_table("customer_search")
    op.execute("DROP INDEX ix_customer_name")
    for function in ("sort_text", "search_text"):
        op.execute(f"DROP FUNCTION {function}(text[])")
    op.execute("DROP FUNCTION fold_text(text)")


def drop_sqlite_search_index():
    for name in TRIGGERS:
        op.execute(f"DROP TRIGGER {name}")
    op.execute("DROP INDEX ix_customer_name")
    op.execute("DROP TABLE customer_search")


def downgrade():
    {"sqlite": drop_sqlite_search_index, "postgresql": drop_postgresql_search_index}[op.get_bind().dialect.name]()
    with op.batch_alter_table("batch", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.drop_column("asked_on")
        batch.drop_column("ground")
        for name, kind in OF_A_FILE:
            empty = b"" if name == "content_digest" else 0 if name == "file_bytes" else ""
            op.execute(
                sa.update(sa.table("batch", sa.column(name))).where(sa.column(name).is_(None)).values({name: empty})
            )
            batch.alter_column(name, existing_type=kind, nullable=False)
