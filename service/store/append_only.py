"""What makes the audit trail append-only, as statements for each database: a row goes only beyond a horizon, which there is while old rows are forgotten."""

APPEND_ONLY = {
    "sqlite": (
        "CREATE TRIGGER audit_events_no_update BEFORE UPDATE ON audit_events BEGIN SELECT RAISE(ABORT, 'audit_events is append-only'); END",
        (
            "CREATE TRIGGER audit_events_no_delete BEFORE DELETE ON audit_events WHEN NOT EXISTS (SELECT 1 FROM audit_horizon WHERE OLD.at < audit_horizon.at) "
            "BEGIN SELECT RAISE(ABORT, 'audit_events is append-only'); END"
        ),
    ),
    "postgresql": (
        (
            "CREATE FUNCTION audit_events_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF TG_OP = 'DELETE' THEN IF EXISTS (SELECT 1 FROM audit_horizon WHERE OLD.at < audit_horizon.at) THEN RETURN OLD; END IF; END IF; "
            "RAISE EXCEPTION 'audit_events is append-only'; END $$"
        ),
        "CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE ON audit_events FOR EACH ROW EXECUTE FUNCTION audit_events_refuse()",
        "CREATE TRIGGER audit_events_no_truncate BEFORE TRUNCATE ON audit_events EXECUTE FUNCTION audit_events_refuse()",
    ),
}
