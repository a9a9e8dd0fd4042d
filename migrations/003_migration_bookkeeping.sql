-- What the migration engine keeps beside schema_migrations: who did what, how far a migration outside a transaction
-- has come, and whose turn it is. Safe on a database that has these objects already.

-- Append-only: what was done to the history, by whom, and how it ended.
CREATE TABLE IF NOT EXISTS migration_log (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  logged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  action text NOT NULL CHECK (action IN ('apply', 'rollback', 'repair', 'baseline')),
  version text NOT NULL,
  name text NOT NULL,
  outcome text NOT NULL CHECK (outcome IN ('done', 'failed')),
  duration_ms integer,
  database_user text NOT NULL DEFAULT session_user,
  os_user text,
  host text,
  tool text NOT NULL,
  reason text,
  details jsonb NOT NULL DEFAULT '{}'
);

CREATE OR REPLACE FUNCTION refuse_change_of_migration_log() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'migration_log is append-only: % is refused', TG_OP USING ERRCODE = 'PW005';
END;
$$;

CREATE OR REPLACE TRIGGER migration_log_is_append_only
  BEFORE UPDATE OR DELETE OR TRUNCATE ON migration_log
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_migration_log();

-- Statements of migrations that run outside a transaction: the run after a crash goes on at the first unfinished one.
CREATE TABLE IF NOT EXISTS migration_journal (
  version text NOT NULL,
  statement integer NOT NULL,
  hash text NOT NULL,
  fence bigint NOT NULL,
  index_before oid,
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  finished_at timestamptz,
  PRIMARY KEY (version, statement)
);

-- Who runs a migration outside a transaction. The fence counts the holders: a holder whose lease ran out finds that
-- the number has moved on, and stops.
CREATE TABLE IF NOT EXISTS migration_lease (
  id text PRIMARY KEY DEFAULT 'singleton' CHECK (id = 'singleton'),
  fence bigint NOT NULL DEFAULT 0,
  holder text,
  version text,
  acquired_at timestamptz,
  heartbeat_at timestamptz,
  expires_at timestamptz
);

INSERT INTO migration_lease (id) VALUES ('singleton') ON CONFLICT (id) DO NOTHING;
