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

-- The guard of a migration, and its two lines when it is done. As functions, since a session reads and plans them once
-- and not for each migration; their search_path is the one that they were made with.
CREATE OR REPLACE FUNCTION migration_guard(lock_key bigint, wanted text, predecessor text) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  refusal text;
BEGIN
  IF NOT pg_try_advisory_xact_lock(lock_key) THEN
    refusal := 'PW001';
  ELSE
    refusal := CASE
      WHEN EXISTS (SELECT FROM schema_migrations WHERE version = wanted) THEN 'PW002'
      WHEN predecessor IS NOT NULL AND NOT EXISTS (SELECT FROM schema_migrations WHERE version = predecessor) THEN 'PW003'
      WHEN EXISTS (SELECT FROM migration_lease WHERE expires_at > clock_timestamp()) THEN 'PW001'
    END;
  END IF;
  IF refusal IS NOT NULL THEN
    RAISE EXCEPTION 'refused by the guard' USING ERRCODE = refusal;
  END IF;
END;
$$;

CREATE OR REPLACE FUNCTION record_migration(
  version text, name text, checksum text, duration_ms integer,
  action text, os_user text, host text, tool text, reason text, details jsonb,
  OUT applied_at timestamptz, OUT execution_time_ms integer
) LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  INSERT INTO schema_migrations AS m (version, name, checksum, execution_time_ms)
  VALUES ($1, $2, $3, $4) RETURNING m.applied_at, m.execution_time_ms INTO applied_at, execution_time_ms;
  INSERT INTO migration_log (action, version, name, outcome, duration_ms, os_user, host, tool, reason, details)
  VALUES ($5, $1, $2, 'done', $4, $6, $7, $8, $9, $10);
END;
$$;
