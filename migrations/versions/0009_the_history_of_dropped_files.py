"""Indexes for the history of dropped files: each page of it, what came of yesterday's, and which are kept."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

IS_KEPT = sa.text("kept_until IS NOT NULL")


def upgrade():
    op.create_index("ix_dropped_file_connection_id_id", "dropped_file", ["connection_id", "id"])
    op.create_index("ix_dropped_file_connection_id_ended_at", "dropped_file", ["connection_id", "ended_at"])
    op.create_index(
        "ix_dropped_file_connection_id_kept_until",
        "dropped_file",
        ["connection_id", "kept_until"],
        sqlite_where=IS_KEPT,
        postgresql_where=IS_KEPT,
    )


def downgrade():
    op.drop_index("ix_dropped_file_connection_id_kept_until", "dropped_file")
    op.drop_index("ix_dropped_file_connection_id_ended_at", "dropped_file")
    op.drop_index("ix_dropped_file_connection_id_id", "dropped_file")
