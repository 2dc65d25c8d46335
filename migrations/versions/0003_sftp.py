"""SFTP: connections to servers, and the files that were seen there."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite gives ids to INTEGER alone

STATES = ("seen", "claimed", "taken", "ended")


def upgrade():
    with op.batch_alter_table("batch", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.add_column(sa.Column("type_column", WHOLE))
        batch.add_column(sa.Column("is_dry", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "sftp_connection",
        sa.Column("id", WHOLE, nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("port", WHOLE, nullable=False),
        sa.Column("username", sa.String(100), nullable=False),
        sa.Column("private_key", sa.LargeBinary(), nullable=False),
        sa.Column("public_key", sa.String(2_000), nullable=False),
        sa.Column("host_keys", sa.JSON(), nullable=False),
        sa.Column("folder", sa.String(500), nullable=False),
        sa.Column("every_seconds", WHOLE, nullable=False),
        sa.Column("email_column", sa.String(200), nullable=False),
        sa.Column("runs_up_to", WHOLE, nullable=False),
        sa.Column("keep_days", WHOLE, nullable=False),
        sa.Column("silent_hours", WHOLE),
        sa.Column("sender_host", sa.String(255)),
        sa.Column("sender_port", WHOLE),
        sa.Column("sender_username", sa.String(100)),
        sa.Column("sender_folder", sa.String(500)),
        sa.Column("is_embedded", sa.Boolean(), nullable=False),
        sa.Column("created_by_id", WHOLE),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True)),
        sa.Column("removed_at", sa.DateTime(timezone=True)),
        sa.Column("next_look_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True)),
        sa.Column("last_file_at", sa.DateTime(timezone=True)),
        sa.Column("left_alone", WHOLE, nullable=False),
        sa.Column("failing_since", sa.DateTime(timezone=True)),
        sa.Column("failures", WHOLE, nullable=False),
        sa.Column("last_error", sa.String(500)),
        sa.Column("last_error_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(["created_by_id"], ["user.id"], name="fk_sftp_connection_created_by_id"),
        sa.PrimaryKeyConstraint("id", name="pk_sftp_connection"),
    )
    op.create_index("ix_sftp_connection_created_by_id", "sftp_connection", ["created_by_id"])
    op.create_table(
        "dropped_file",
        sa.Column("id", WHOLE, nullable=False),
        sa.Column("connection_id", WHOLE, nullable=False),
        sa.Column("name", sa.String(300), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.Enum(*STATES, name="filestate", native_enum=False, length=20), nullable=False),
        sa.Column("claim", sa.String(32)),
        sa.Column("attempts", WHOLE, nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("trouble", sa.String(500)),
        sa.Column("batch_id", WHOLE),
        sa.Column("runs_up_to", WHOLE),
        sa.Column("refusal", sa.String(500)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("kept_until", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(["connection_id"], ["sftp_connection.id"], name="fk_dropped_file_connection_id"),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name="fk_dropped_file_batch_id"),
        sa.PrimaryKeyConstraint("id", name="pk_dropped_file"),
    )
    op.create_index("ix_dropped_file_connection_id_state", "dropped_file", ["connection_id", "state", "name"])
    op.create_index("ix_dropped_file_batch_id", "dropped_file", ["batch_id"])


def downgrade():
    op.drop_table("dropped_file")
    op.drop_table("sftp_connection")
    with op.batch_alter_table("batch", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.drop_column("is_dry")
        batch.drop_column("type_column")
