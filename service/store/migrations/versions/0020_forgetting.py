"""Old records may be forgotten: of the audit trail what is older than a horizon, which only the transaction that forgets has set."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0015"

UP = {
    "sqlite": (
        "DROP TRIGGER audit_events_no_delete",
        (
            "CREATE TRIGGER audit_events_no_delete BEFORE DELETE ON audit_events WHEN NOT EXISTS (SELECT 1 FROM audit_horizon WHERE OLD.at < audit_horizon.at) "
            "BEGIN SELECT RAISE(ABORT, 'audit_events is append-only'); END"
        ),
    ),
    "postgresql": (
        "DROP TRIGGER audit_events_append_only ON audit_events",  # of statements, which know no rows
        (
            "CREATE OR REPLACE FUNCTION audit_events_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF TG_OP = 'DELETE' THEN IF EXISTS (SELECT 1 FROM audit_horizon WHERE OLD.at < audit_horizon.at) THEN RETURN OLD; END IF; END IF; "
            "RAISE EXCEPTION 'audit_events is append-only'; END $$"
        ),
        "CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE ON audit_events FOR EACH ROW EXECUTE FUNCTION audit_events_refuse()",
        "CREATE TRIGGER audit_events_no_truncate BEFORE TRUNCATE ON audit_events EXECUTE FUNCTION audit_events_refuse()",
    ),
}
DOWN = {
    "sqlite": (
        "DROP TRIGGER audit_events_no_delete",
        "CREATE TRIGGER audit_events_no_delete BEFORE DELETE ON audit_events BEGIN SELECT RAISE(ABORT, 'audit_events is append-only'); END",
    ),
    "postgresql": (
        "DROP TRIGGER audit_events_append_only ON audit_events",
        "DROP TRIGGER audit_events_no_truncate ON audit_events",
        ("CREATE OR REPLACE FUNCTION audit_events_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'audit_events is append-only'; END $$"),
        "CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events EXECUTE FUNCTION audit_events_refuse()",
    ),
}


def upgrade() -> None:
    """Create the horizon's table, and let rows beyond it go."""
    op.create_table(
        "audit_horizon",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
    _execute(UP)


def downgrade() -> None:
    """Let none go, and drop the table."""
    _execute(DOWN)
    op.drop_table("audit_horizon")


def _execute(statements: dict[str, tuple[str, ...]]) -> None:
    for statement in statements[op.get_bind().dialect.name]:
        op.execute(statement)
