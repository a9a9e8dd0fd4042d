/**
 * PipeWeave's own migrations, by the names of their files. Made by scripts/generate_embedded.ts from migrations/; CI
 * fails when it is out of date.
 *
 * @module
 */

/** The texts of the files in migrations/. */
export const EMBEDDED_FILES: Readonly<Record<string, string>> = {
  "000_migration_tracking.sql": `-- The history of applied migrations, and the state of the orchestrator.
-- Safe on a database that has these objects already; their names are those of PipeWeave's Node tool.

CREATE TABLE IF NOT EXISTS schema_migrations (
  id serial PRIMARY KEY,
  version text NOT NULL UNIQUE,
  name text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now(),
  checksum text NOT NULL,
  execution_time_ms integer
);

CREATE INDEX IF NOT EXISTS idx_schema_migrations_applied_at ON schema_migrations (applied_at DESC);

CREATE TABLE IF NOT EXISTS orchestrator_state (
  id text PRIMARY KEY DEFAULT 'singleton',
  mode text NOT NULL DEFAULT 'running' CHECK (mode IN ('running', 'waiting_for_maintenance', 'maintenance')),
  mode_changed_at timestamptz NOT NULL DEFAULT now(),
  pending_tasks_count integer DEFAULT 0,
  running_tasks_count integer DEFAULT 0,
  metadata jsonb DEFAULT '{}',
  updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE OR REPLACE FUNCTION update_orchestrator_state_timestamp() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  NEW.updated_at := now();
  IF NEW.mode IS DISTINCT FROM OLD.mode THEN
    NEW.mode_changed_at := now();
  END IF;
  RETURN NEW;
END;
$$;

CREATE OR REPLACE TRIGGER update_orchestrator_state_updated_at
  BEFORE UPDATE ON orchestrator_state
  FOR EACH ROW EXECUTE FUNCTION update_orchestrator_state_timestamp();

-- pipeweave: ownership is checked here, before the first row is written

INSERT INTO orchestrator_state (id) VALUES ('singleton') ON CONFLICT (id) DO NOTHING;
`,
  "001_initial_schema.sql": `-- Services, tasks, pipelines and their runs: what the orchestrator works with.
-- Safe on a database that has these objects already; their names are those of PipeWeave's Node tool.

CREATE OR REPLACE FUNCTION update_updated_at_column() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  NEW.updated_at := now();
  RETURN NEW;
END;
$$;

CREATE TABLE IF NOT EXISTS services (
  id text PRIMARY KEY,
  version text NOT NULL,
  base_url text NOT NULL,
  registered_at timestamptz NOT NULL DEFAULT now(),
  last_heartbeat timestamptz,
  status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'inactive', 'disconnected')),
  metadata jsonb DEFAULT '{}'
);

CREATE INDEX IF NOT EXISTS idx_services_status ON services (status);
CREATE INDEX IF NOT EXISTS idx_services_last_heartbeat ON services (last_heartbeat);

CREATE TABLE IF NOT EXISTS tasks (
  id text PRIMARY KEY,
  service_id text NOT NULL REFERENCES services (id) ON DELETE CASCADE,
  code_hash text NOT NULL,
  code_version integer NOT NULL DEFAULT 1,
  allowed_next text[] DEFAULT '{}',
  timeout_seconds integer NOT NULL DEFAULT 300,
  retries integer NOT NULL DEFAULT 3,
  retry_backoff text NOT NULL DEFAULT 'exponential' CHECK (retry_backoff IN ('fixed', 'exponential')),
  retry_delay_ms integer NOT NULL DEFAULT 1000,
  max_retry_delay_ms integer NOT NULL DEFAULT 86400000,
  heartbeat_interval_ms integer NOT NULL DEFAULT 60000,
  concurrency integer NOT NULL DEFAULT 0,
  priority integer NOT NULL DEFAULT 100,
  idempotency_ttl_seconds integer,
  description text,
  registered_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  metadata jsonb DEFAULT '{}'
);

CREATE INDEX IF NOT EXISTS idx_tasks_service_id ON tasks (service_id);
CREATE INDEX IF NOT EXISTS idx_tasks_code_hash ON tasks (code_hash);
CREATE INDEX IF NOT EXISTS idx_tasks_code_version ON tasks (code_version);

CREATE OR REPLACE TRIGGER update_tasks_updated_at
  BEFORE UPDATE ON tasks FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

CREATE TABLE IF NOT EXISTS task_code_history (
  id serial PRIMARY KEY,
  task_id text NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
  code_version integer NOT NULL,
  code_hash text NOT NULL,
  service_version text NOT NULL,
  recorded_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX IF NOT EXISTS idx_task_code_history_task_id ON task_code_history (task_id);
CREATE INDEX IF NOT EXISTS idx_task_code_history_code_version ON task_code_history (task_id, code_version DESC);

CREATE TABLE IF NOT EXISTS pipelines (
  id text PRIMARY KEY,
  name text NOT NULL,
  description text,
  entry_tasks text[] NOT NULL,
  structure jsonb NOT NULL,
  version text NOT NULL DEFAULT '1.0.0',
  failure_mode text NOT NULL DEFAULT 'fail-fast'
    CHECK (failure_mode IN ('fail-fast', 'continue', 'partial-merge')),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  metadata jsonb DEFAULT '{}'
);

CREATE INDEX IF NOT EXISTS idx_pipelines_name ON pipelines (name);

CREATE OR REPLACE TRIGGER update_pipelines_updated_at
  BEFORE UPDATE ON pipelines FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

CREATE TABLE IF NOT EXISTS pipeline_runs (
  id text PRIMARY KEY,
  pipeline_id text NOT NULL REFERENCES pipelines (id) ON DELETE CASCADE,
  pipeline_version text NOT NULL,
  structure_snapshot jsonb NOT NULL,
  status text NOT NULL DEFAULT 'pending'
    CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled', 'partial')),
  input_path text,
  output_path text,
  started_at timestamptz,
  completed_at timestamptz,
  error text,
  created_at timestamptz NOT NULL DEFAULT now(),
  metadata jsonb DEFAULT '{}'
);

CREATE INDEX IF NOT EXISTS idx_pipeline_runs_pipeline_id ON pipeline_runs (pipeline_id);
CREATE INDEX IF NOT EXISTS idx_pipeline_runs_status ON pipeline_runs (status);
CREATE INDEX IF NOT EXISTS idx_pipeline_runs_created_at ON pipeline_runs (created_at DESC);

CREATE TABLE IF NOT EXISTS task_runs (
  id text PRIMARY KEY,
  task_id text NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
  pipeline_run_id text REFERENCES pipeline_runs (id) ON DELETE CASCADE,
  code_version integer NOT NULL,
  code_hash text NOT NULL,
  status text NOT NULL DEFAULT 'pending'
    CHECK (status IN ('pending', 'running', 'completed', 'failed', 'timeout', 'cancelled', 'waiting')),
  attempt integer NOT NULL DEFAULT 1,
  max_retries integer NOT NULL,
  priority integer NOT NULL DEFAULT 100,
  input_path text,
  output_path text,
  output_size integer,
  assets jsonb DEFAULT '{}',
  logs_path text,
  error text,
  error_code text,
  idempotency_key text,
  upstream_refs jsonb DEFAULT '{}',
  selected_next text[] DEFAULT '{}',
  previous_attempts jsonb DEFAULT '[]',
  started_at timestamptz,
  completed_at timestamptz,
  heartbeat_at timestamptz,
  heartbeat_timeout_ms integer,
  scheduled_for timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  metadata jsonb DEFAULT '{}'
);

CREATE INDEX IF NOT EXISTS idx_task_runs_task_id ON task_runs (task_id);
CREATE INDEX IF NOT EXISTS idx_task_runs_pipeline_run_id ON task_runs (pipeline_run_id);
CREATE INDEX IF NOT EXISTS idx_task_runs_status ON task_runs (status);
CREATE INDEX IF NOT EXISTS idx_task_runs_idempotency_key ON task_runs (idempotency_key)
  WHERE idempotency_key IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_task_runs_scheduled_for ON task_runs (scheduled_for)
  WHERE scheduled_for IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_task_runs_created_at ON task_runs (created_at DESC);
CREATE INDEX IF NOT EXISTS idx_task_runs_pending ON task_runs (priority, created_at)
  WHERE status = 'pending';

CREATE TABLE IF NOT EXISTS dlq (
  id text PRIMARY KEY,
  task_run_id text NOT NULL,
  task_id text NOT NULL,
  pipeline_run_id text,
  code_version integer NOT NULL,
  code_hash text NOT NULL,
  error text NOT NULL,
  attempts integer NOT NULL,
  input_path text,
  upstream_refs jsonb DEFAULT '{}',
  previous_attempts jsonb NOT NULL,
  failed_at timestamptz NOT NULL DEFAULT now(),
  retried_at timestamptz,
  retry_run_id text,
  metadata jsonb DEFAULT '{}'
);

CREATE INDEX IF NOT EXISTS idx_dlq_task_id ON dlq (task_id);
CREATE INDEX IF NOT EXISTS idx_dlq_pipeline_run_id ON dlq (pipeline_run_id);
CREATE INDEX IF NOT EXISTS idx_dlq_failed_at ON dlq (failed_at DESC);
CREATE INDEX IF NOT EXISTS idx_dlq_retried_at ON dlq (retried_at) WHERE retried_at IS NOT NULL;

CREATE TABLE IF NOT EXISTS idempotency_cache (
  idempotency_key text PRIMARY KEY,
  task_id text NOT NULL,
  task_run_id text NOT NULL,
  code_version integer NOT NULL,
  output_path text NOT NULL,
  output_size integer,
  assets jsonb DEFAULT '{}',
  cached_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL
);

CREATE INDEX IF NOT EXISTS idx_idempotency_cache_task_id ON idempotency_cache (task_id);
CREATE INDEX IF NOT EXISTS idx_idempotency_cache_expires_at ON idempotency_cache (expires_at);

-- It works on the table of its own schema, whatever search_path the caller has and also after the schema was renamed.
CREATE OR REPLACE FUNCTION cleanup_expired_idempotency_cache() RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off AS $$
DECLARE
  context text;
  home text;
  deleted integer;
BEGIN
  GET DIAGNOSTICS context = PG_CONTEXT;
  home := substring(split_part(context, E'\\n', 1) FROM '("(?:[^"]|"")+"|[a-z_][a-z0-9_]*)[.]cleanup_expired_idempotency_cache[(]');
  EXECUTE format('DELETE FROM %s.idempotency_cache WHERE expires_at < now()', home);
  GET DIAGNOSTICS deleted = ROW_COUNT;
  RETURN deleted;
END;
$$;
`,
  "002_input_schemas_and_temp_uploads.sql": `-- PipeWeave 1.1: schemas of task inputs, and uploads that wait to be claimed by a run.
-- Safe on a database that has these objects already.

ALTER TABLE tasks ADD COLUMN IF NOT EXISTS input_schema jsonb DEFAULT NULL;

CREATE INDEX IF NOT EXISTS idx_tasks_input_schema ON tasks USING gin (input_schema)
  WHERE input_schema IS NOT NULL;

CREATE TABLE IF NOT EXISTS temp_uploads (
  id text PRIMARY KEY,
  storage_path text NOT NULL,
  storage_backend_id text NOT NULL,
  uploaded_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  claimed_by_run_id text REFERENCES task_runs (id) ON DELETE SET NULL,
  deleted_at timestamptz,
  original_filename text,
  mime_type text,
  size_bytes bigint,
  uploaded_by text,
  metadata jsonb DEFAULT '{}'
);

CREATE INDEX IF NOT EXISTS idx_temp_uploads_expires_at ON temp_uploads (expires_at);
CREATE INDEX IF NOT EXISTS idx_temp_uploads_claimed_by_run_id ON temp_uploads (claimed_by_run_id)
  WHERE claimed_by_run_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_temp_uploads_deleted_at ON temp_uploads (deleted_at)
  WHERE deleted_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_temp_uploads_cleanup ON temp_uploads (expires_at, claimed_by_run_id, deleted_at)
  WHERE deleted_at IS NULL;

-- The files are the orchestrator's to delete, so a row goes only long after its file did.
CREATE OR REPLACE FUNCTION cleanup_expired_temp_uploads()
RETURNS TABLE (deleted_count integer, archived_count integer)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off AS $$
DECLARE
  context text;
  home text;
BEGIN
  GET DIAGNOSTICS context = PG_CONTEXT;
  home := substring(split_part(context, E'\\n', 1) FROM '("(?:[^"]|"")+"|[a-z_][a-z0-9_]*)[.]cleanup_expired_temp_uploads[(]');
  EXECUTE format(
    'SELECT count(*) FROM %s.temp_uploads WHERE expires_at < now() AND claimed_by_run_id IS NULL AND deleted_at IS NULL',
    home) INTO deleted_count;
  EXECUTE format('DELETE FROM %s.temp_uploads WHERE deleted_at < now() - interval ''30 days''', home);
  GET DIAGNOSTICS archived_count = ROW_COUNT;
  RETURN NEXT;
END;
$$;
`,
  "90003_migration_bookkeeping.sql": `-- What the migration engine keeps beside schema_migrations: who did what, how far a migration outside a transaction
-- has come, and whose turn it is. Safe on a database that has these objects already. PipeWeave's own migrations are
-- numbered from 90000 on where they are not those of the Node tool: a range that nobody else's files may use.

-- Which set a migration belongs to; NULL in rows of the Node tool, which does not know of sets.
-- Only where it is missing: an ALTER TABLE locks out readers also where it has nothing to do, and they hold other tables.
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute
                  WHERE attrelid = 'schema_migrations'::regclass AND attname = 'migration_set' AND NOT attisdropped) THEN
    ALTER TABLE schema_migrations ADD COLUMN migration_set text;
  END IF;
END;
$$;

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
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'migration_log is append-only: % is refused', TG_OP USING ERRCODE = 'PW005';
END;
$$;

-- An engine that speaks PostgreSQL's protocol may have no triggers: the log is a plain table there.
DO $$
BEGIN
  CREATE OR REPLACE TRIGGER migration_log_is_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON migration_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_migration_log();
EXCEPTION WHEN feature_not_supported THEN
  RAISE WARNING 'no trigger keeps migration_log append-only: %', SQLERRM;
END;
$$;

-- Statements of migrations that run outside a transaction: the run after a crash goes on at the first unfinished one.
CREATE TABLE IF NOT EXISTS migration_journal (
  version text NOT NULL,
  name text NOT NULL,
  statement integer NOT NULL,
  hash text NOT NULL,
  fence bigint NOT NULL,
  before jsonb,
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  finished_at timestamptz,
  PRIMARY KEY (version, statement)
);
-- A build before 2.0.0 made it with columns less.
DO $$
BEGIN
  IF (SELECT count(*) FROM pg_catalog.pg_attribute
       WHERE attrelid = 'migration_journal'::regclass AND attname IN ('name', 'before') AND NOT attisdropped) < 2 THEN
    ALTER TABLE migration_journal ADD COLUMN IF NOT EXISTS name text, ADD COLUMN IF NOT EXISTS before jsonb;
  END IF;
END;
$$;

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

-- Nothing of another role's may run when the engine writes to its tables: no trigger of such a role's function or with a
-- condition, no foreign key of such a role's table. Until the transaction ends nobody adds any.
CREATE OR REPLACE FUNCTION migration_lock_tables(schema_name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  stranger record;
BEGIN
  EXECUTE format('LOCK TABLE %1$I.schema_migrations, %1$I.migration_log, %1$I.migration_journal, %1$I.migration_lease
    IN ROW EXCLUSIVE MODE', schema_name);
  SELECT CASE WHEN t.tgisinternal THEN 'table ' || r.oid::regclass
              ELSE 'trigger ' || quote_ident(t.tgname) || ' on ' || t.tgrelid::regclass END AS object,
         pg_get_userbyid(CASE WHEN t.tgisinternal THEN r.relowner ELSE p.proowner END) AS owner INTO stranger
    FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid
    JOIN pg_trigger t ON t.tgrelid = c.oid JOIN pg_proc p ON p.oid = t.tgfoid LEFT JOIN pg_class r ON r.oid = t.tgconstrrelid
   WHERE n.nspname = schema_name
     AND c.relname = ANY ('{schema_migrations,migration_log,migration_journal,migration_lease}'::text[])
     AND CASE WHEN t.tgisinternal THEN r.relowner <> c.relowner
              ELSE p.proowner <> c.relowner OR t.tgqual IS NOT NULL END
   LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'not trusted' USING ERRCODE = 'PW301', DETAIL = jsonb_build_object('use', 'change', 'role', current_user,
      'problems', jsonb_build_array(jsonb_build_object('object', stranger.object, 'owner', stranger.owner)));
  END IF;
END;
$$;

-- Puts the end of a lease off, if it still is the one of this number; told of a statement, it also fails where that is done
-- already, by an attempt that its client lost and that went on here. As short a call as it can be: pg_stat_activity shows
-- the first kilobyte of a message, and the migration's own text should begin in it.
DROP FUNCTION IF EXISTS migration_keep_lease(text, bigint, integer);
CREATE OR REPLACE FUNCTION migration_keep_lease(
  schema_name text, fence bigint, lease_ms integer, of_version text DEFAULT NULL, of_statement integer DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  kept integer;
  is_done boolean;
BEGIN
  EXECUTE format('SELECT %I.migration_lock_tables($1)', schema_name) USING schema_name;
  EXECUTE format(
    $q$UPDATE %I.migration_lease
          SET heartbeat_at = clock_timestamp(), expires_at = clock_timestamp() + make_interval(secs => $2 / 1000.0)
        WHERE fence = $1 AND holder IS NOT NULL$q$, schema_name) USING fence, lease_ms;
  GET DIAGNOSTICS kept = ROW_COUNT;
  IF kept = 0 THEN
    RAISE EXCEPTION 'another migrator has taken over' USING ERRCODE = 'PW004';
  END IF;
  IF of_statement IS NOT NULL THEN
    EXECUTE format(
      'SELECT EXISTS (SELECT FROM %I.migration_journal WHERE version = $1 AND statement = $2 AND finished_at IS NOT NULL)',
      schema_name) INTO is_done USING of_version, of_statement;
    IF is_done THEN
      RAISE EXCEPTION 'it is done already' USING ERRCODE = 'PW011';
    END IF;
  END IF;
END;
$$;

-- Takes the turn of all migrators until the transaction ends; false where another one has it and this one is not to wait.
-- It is an advisory lock, which shows who has it, and the row of the lease, which is a lock wherever rows have locks: an
-- engine may have no advisory locks, or grant them to everybody, and a role may be kept from taking them.
CREATE OR REPLACE FUNCTION migration_take_turn(schema_name text, lock_key bigint, waits boolean) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  BEGIN
    IF waits THEN
      PERFORM pg_advisory_xact_lock(lock_key);
    ELSIF NOT pg_try_advisory_xact_lock(lock_key) THEN
      RETURN false;
    END IF;
  EXCEPTION WHEN feature_not_supported OR undefined_function OR insufficient_privilege THEN
    NULL;
  END;
  EXECUTE format('SELECT FROM %I.migration_lease WHERE id = ''singleton'' FOR UPDATE %s', schema_name,
    CASE WHEN waits THEN '' ELSE 'NOWAIT' END);
  RETURN true;
EXCEPTION WHEN lock_not_available THEN
  IF waits THEN
    RAISE;
  END IF;
  RETURN false;
END;
$$;

-- Versions are numbers, however many zeros they are written with.
-- The guard of a migration, and its two lines when it is done, in one query each. They are told the schema that they are
-- in: a search_path would be wrong after the schema was renamed.
DROP FUNCTION IF EXISTS migration_guard(bigint, text, text);
DROP FUNCTION IF EXISTS migration_guard(text, bigint, text, text);
CREATE OR REPLACE FUNCTION migration_guard(
  schema_name text, lock_key bigint, wanted text, predecessor text, outside boolean
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  refusal text := 'PW001';
  is_ours boolean;
BEGIN
  EXECUTE format('SELECT %I.migration_take_turn($1, $2, false)', schema_name) INTO is_ours USING schema_name, lock_key;
  IF is_ours THEN
    EXECUTE format('SELECT %I.migration_lock_tables($1)', schema_name) USING schema_name;
    EXECUTE format(
      $q$SELECT CASE
           WHEN EXISTS (SELECT FROM %1$I.schema_migrations WHERE ltrim(version, '0') = ltrim($1, '0')) THEN 'PW002'
           WHEN $2 IS NOT NULL AND NOT EXISTS (SELECT FROM %1$I.schema_migrations WHERE ltrim(version, '0') = ltrim($2, '0')) THEN 'PW003'
           WHEN EXISTS (SELECT FROM %1$I.migration_lease WHERE expires_at > clock_timestamp()) THEN 'PW001'
           WHEN NOT $3 AND EXISTS (SELECT FROM %1$I.migration_journal WHERE ltrim(version, '0') = ltrim($1, '0')) THEN 'PW008'
         END$q$, schema_name) INTO refusal USING wanted, predecessor, outside;
  END IF;
  IF refusal IS NOT NULL THEN
    RAISE EXCEPTION 'refused by the guard' USING ERRCODE = refusal;
  END IF;
END;
$$;

DROP FUNCTION IF EXISTS record_migration(text, text, text, integer, text, text, text, text, text, jsonb);
DROP FUNCTION IF EXISTS record_migration(text, text, text, text, integer, text, text, text, text, text, jsonb);
CREATE OR REPLACE FUNCTION record_migration(
  schema_name text, migration_set text, version text, name text, checksum text, duration_ms integer,
  action text, os_user text, host text, tool text, reason text, details jsonb,
  OUT applied_at timestamptz, OUT execution_time_ms integer
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  EXECUTE format(
    $q$WITH recorded AS (
         INSERT INTO %1$I.schema_migrations (version, name, checksum, execution_time_ms, migration_set)
         VALUES ($1, $2, $3, $4, $11)
         RETURNING applied_at, execution_time_ms
       ), logged AS (
         INSERT INTO %1$I.migration_log
           (action, version, name, outcome, duration_ms, os_user, host, tool, reason, details)
         VALUES ($5, $1, $2, 'done', $4, $6, $7, $8, $9, $10)
       )
       SELECT applied_at, execution_time_ms FROM recorded$q$, schema_name)
    INTO applied_at, execution_time_ms
    USING version, name, checksum, duration_ms, action, os_user, host, tool, reason, details, migration_set;
END;
$$;

-- pipeweave: ownership is checked here, before the first row is written

INSERT INTO migration_lease (id) VALUES ('singleton') ON CONFLICT (id) DO NOTHING;
`,
  "90004_maintenance_gate.sql": `-- Admission control: while maintenance is waited for or on, PostgreSQL itself refuses new tasks, whoever sends them, and
-- holds back what follows from work that was accepted before. The triggers on task_runs are made by the transaction that
-- closes the gate and removed by the one that opens it, so that they cost nothing while the mode is running.
-- docs/maintenance_protocol.md has the argument. Safe to repeat.
--
-- Functions find the schema by what called them, or are told it, so that they go on after it was renamed. Texts between
-- $q$ that hold %1$I (the schema) and %2$L (task_runs, as a name) are the ones that src/maintenance/ has too.

ALTER TABLE orchestrator_state
  ADD COLUMN IF NOT EXISTS owner text,
  ADD COLUMN IF NOT EXISTS reason text,
  ADD COLUMN IF NOT EXISTS drain text NOT NULL DEFAULT 'all' CHECK (drain IN ('all', 'running')),
  ADD COLUMN IF NOT EXISTS wait_expires_at timestamptz,
  ADD COLUMN IF NOT EXISTS ignored_tasks jsonb NOT NULL DEFAULT '{}',
  ADD COLUMN IF NOT EXISTS requested_at timestamptz,
  -- How long a drain waits for what may follow from a task that has ended.
  ADD COLUMN IF NOT EXISTS settle_ms integer NOT NULL DEFAULT 2000 CHECK (settle_ms >= 0),
  -- The run of db:migrate --maintenance that asked for it.
  ADD COLUMN IF NOT EXISTS deployment text,
  -- The gate follows one row; a second would open it behind the first one's back.
  DROP CONSTRAINT IF EXISTS orchestrator_state_is_one,
  ADD CONSTRAINT orchestrator_state_is_one CHECK (id = 'singleton') NOT VALID;

-- Append-only: every change of the mode, by whomever.
CREATE TABLE IF NOT EXISTS maintenance_log (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  logged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  action text NOT NULL,
  mode_before text NOT NULL,
  mode_after text NOT NULL,
  database_user text NOT NULL DEFAULT session_user,
  os_user text,
  host text,
  tool text,
  owner text,
  reason text,
  details jsonb NOT NULL DEFAULT '{}'
);

CREATE OR REPLACE FUNCTION refuse_change_of_maintenance_log() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'maintenance_log is append-only: % is refused', TG_OP USING ERRCODE = 'PW005';
END;
$$;

CREATE OR REPLACE TRIGGER maintenance_log_is_append_only
  BEFORE UPDATE OR DELETE OR TRUNCATE ON maintenance_log
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_maintenance_log();

-- Pipeline runs that were under way when the gate was closed: what they queue is accepted work.
CREATE TABLE IF NOT EXISTS maintenance_accepted_runs (pipeline_run_id text PRIMARY KEY);

-- Tasks that have ended since, of which something may follow: the next step of a pipeline run, or a retry.
CREATE TABLE IF NOT EXISTS maintenance_recent_ends (
  ended_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  task_run_id text NOT NULL,
  pipeline_run_id text
);
CREATE INDEX IF NOT EXISTS idx_maintenance_recent_ends_ended_at ON maintenance_recent_ends (ended_at);

-- Tasks of accepted work that came during maintenance: they have the status 'waiting', and are queued by the exit.
CREATE TABLE IF NOT EXISTS maintenance_held_tasks (task_run_id text PRIMARY KEY);

-- Runs of db:migrate --maintenance. One whose time is over without a sign of life is dead, and what it has left behind
-- may be ended by another.
CREATE TABLE IF NOT EXISTS maintenance_deployments (
  id text PRIMARY KEY,
  owner text,
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  heartbeat_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  expires_at timestamptz NOT NULL,
  -- When it ended, and left its maintenance on because a migration had failed.
  failed_at timestamptz
);

-- What others wrote, for logs and messages: one line, nothing that moves a cursor or turns the direction of writing, and
-- not longer than this.
CREATE OR REPLACE FUNCTION maintenance_printable(value text, most integer) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  value := regexp_replace(value, '[[:cntrl:]]', '?', 'g');
  IF current_setting('server_encoding') = 'UTF8' THEN
    value := regexp_replace(value, '[\\u0080-\\u009f\\u061c\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u2069\\ufeff]', '?', 'g');
  END IF;
  RETURN CASE WHEN length(value) > most THEN left(value, most - 3) || '...' ELSE value END;
END;
$$;

-- What runs with the owner's rights writes to these tables, so nothing of another role's may run when they are written
-- to: no trigger of such a role's function or condition, and no foreign key of such a role's table. Tells what there is,
-- or null; from then on, until the transaction ends, nobody adds any. At REPEATABLE READ and SERIALIZABLE the catalog may
-- be seen as it was, so that nobody else may have the right to add any either.
CREATE OR REPLACE FUNCTION maintenance_stranger(schema_name text, tables text[]) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY tables LOOP
    EXECUTE format('LOCK TABLE %I.%I IN ROW EXCLUSIVE MODE', schema_name, name);
  END LOOP;
  RETURN (
    WITH RECURSIVE tree (relation) AS (
      SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
       WHERE n.nspname = schema_name AND c.relname = ANY (tables)
      UNION
      SELECT next.relation FROM tree, LATERAL (
        SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = tree.relation
        UNION ALL
        SELECT t.tgconstrrelid FROM pg_trigger t WHERE t.tgrelid = tree.relation AND t.tgisinternal AND t.tgconstrrelid <> 0
      ) next (relation)
    ), trusted (role) AS (
      SELECT oid FROM pg_roles WHERE rolname = current_user OR rolsuper
      UNION SELECT c.relowner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = schema_name AND c.relname = 'orchestrator_state'
    )
    SELECT found.what FROM (
      SELECT 'table ' || c.oid::regclass FROM tree JOIN pg_class c ON c.oid = tree.relation
       WHERE c.relowner NOT IN (SELECT role FROM trusted)
      UNION ALL
      SELECT 'trigger ' || quote_ident(t.tgname) || ' on ' || t.tgrelid::regclass
        FROM tree JOIN pg_trigger t ON t.tgrelid = tree.relation JOIN pg_proc p ON p.oid = t.tgfoid
        JOIN pg_class c ON c.oid = t.tgrelid
       WHERE NOT t.tgisinternal AND (p.proowner NOT IN (SELECT role FROM trusted)
          OR t.tgqual IS NOT NULL AND p.proname NOT IN ('maintenance_gate', 'maintenance_task_ended')
             AND EXISTS (SELECT FROM aclexplode(c.relacl) a WHERE a.privilege_type = 'TRIGGER'
                            AND a.grantee NOT IN (SELECT role FROM trusted)))
      UNION ALL
      SELECT 'privilege of ' || r.rolname || ' on ' || tree.relation::regclass FROM tree, pg_roles r
       WHERE current_setting('transaction_isolation') <> 'read committed' AND r.oid NOT IN (SELECT role FROM trusted)
         AND has_table_privilege(r.oid, tree.relation, 'TRIGGER, REFERENCES')
    ) found (what) LIMIT 1);
END;
$$;

-- Takes from others what GRANT ALL and default privileges give them of our own tables: to make triggers, and foreign keys.
CREATE OR REPLACE FUNCTION maintenance_keep_to_owner(schema_name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  granted record;
BEGIN
  FOR granted IN
    SELECT DISTINCT c.oid::regclass AS relation, a.grantee FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
           LATERAL aclexplode(c.relacl) a
     WHERE n.nspname = schema_name AND a.privilege_type IN ('TRIGGER', 'REFERENCES') AND a.grantee <> c.relowner
       AND c.relname = ANY ('{orchestrator_state,maintenance_log,maintenance_accepted_runs,maintenance_recent_ends,maintenance_held_tasks,maintenance_deployments,schema_migrations,migration_log,migration_journal,migration_lease}'::text[])
  LOOP
    EXECUTE format('REVOKE TRIGGER, REFERENCES ON %s FROM %s', granted.relation,
      CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE (SELECT quote_ident(rolname) FROM pg_roles WHERE oid = granted.grantee) END);
  END LOOP;
END;
$$;

-- Refuses a row, or holds it back. Which rows come here is decided by which triggers there are, and never by the mode as
-- this transaction's snapshot shows it: a snapshot may be older than the mode. A row is let in all the same where the gate
-- was opened without its triggers, by time (--ttl) or because others held the table; the state has to be the newest for
-- that. It is, at READ COMMITTED, since whoever closes the gate waits for this transaction's lock on the table; elsewhere
-- the row's lock finds out. A row that is being changed for longer than that is waited for counts as closed.
CREATE OR REPLACE FUNCTION maintenance_gate() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off SET lock_timeout = '200ms' AS $$
DECLARE
  closed_for text := TG_ARGV[0];
  -- The schema of this function, which has the state: the table may be a partition in another one.
  home name := (SELECT n.nspname FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
                  JOIN pg_namespace n ON n.oid = p.pronamespace WHERE t.tgrelid = TG_RELID AND t.tgname = TG_NAME);
  state record;
  read_state text;
  is_accepted boolean := false;
  stranger text;
BEGIN
  IF home IS NULL THEN
    -- This transaction's snapshot is older than the trigger, and so than the state.
    RAISE EXCEPTION '% for maintenance: the row may not become %',
        CASE closed_for WHEN 'maintenance' THEN 'closed' ELSE 'draining' END, NEW.status
      USING ERRCODE = 'PW101', DETAIL = 'the mode changed after this transaction began',
        HINT = 'Try again in a new transaction.';
  END IF;
  read_state := format(
    $r$SELECT mode, mode_changed_at, requested_at, owner, reason, wait_expires_at,
              mode = 'running' OR $1 <> 'maintenance' AND wait_expires_at <= clock_timestamp() AS is_open
         FROM %I.orchestrator_state WHERE id = 'singleton'$r$, home);
  EXECUTE read_state INTO state USING closed_for;
  IF state.is_open THEN
    IF current_setting('transaction_isolation') = 'read committed' THEN
      RETURN NEW;
    END IF;
    BEGIN
      EXECUTE read_state || ' FOR SHARE' INTO state USING closed_for;
      IF state.is_open THEN
        RETURN NEW;
      END IF;
    EXCEPTION WHEN serialization_failure OR lock_not_available THEN
      -- The row is newer than this transaction's snapshot, or is being changed.
    END;
  END IF;
  IF TG_OP = 'UPDATE' AND OLD.status = 'pending' AND NEW.status <> 'running' THEN
    -- A poller that had read its batch before the gate was closed was refused the start, and takes that for a failure: it
    -- counts an attempt that there was none of, or gives the task up. The task stays queued as it is.
    IF NEW.status = 'pending' THEN
      NEW.attempt := OLD.attempt;
      NEW.scheduled_for := OLD.scheduled_for;
      NEW.previous_attempts := OLD.previous_attempts;
      RETURN NEW;
    ELSIF NEW.error LIKE '% for maintenance: task % may not become running' THEN
      EXECUTE format('SELECT %I.maintenance_stranger($1, ''{dlq}''::text[])', home) INTO stranger USING home::text;
      IF stranger IS NULL THEN
        EXECUTE format('DELETE FROM %I.dlq WHERE task_run_id = $1 AND error = $2', home) USING NEW.id, NEW.error;
      END IF;
      RETURN OLD;
    END IF;
    RETURN NEW;
  END IF;
  IF closed_for <> 'starts' AND NEW.status = 'pending' THEN
    IF TG_OP = 'UPDATE' THEN
      -- The retry of a task that was accepted, and a join that its pipeline has made ready.
      -- A running one is still there where the drain was told to ignore it.
      is_accepted := OLD.status IN ('failed', 'timeout', 'waiting', 'running');
    ELSIF NEW.pipeline_run_id IS NOT NULL THEN
      EXECUTE format(
        $r$SELECT CASE WHEN $2
             -- This transaction's snapshot is older than the request: what it sees under way was accepted.
             THEN EXISTS (SELECT FROM %1$I.pipeline_runs WHERE id = $1 AND status IN ('pending', 'running'))
             ELSE EXISTS (SELECT FROM %1$I.maintenance_accepted_runs WHERE pipeline_run_id = $1)
               -- PipeWeave calls a run over when one branch ends while another has not queued its next step yet.
               OR EXISTS (SELECT FROM %1$I.pipeline_runs WHERE id = $1 AND status NOT IN ('pending', 'running')
                             AND completed_at > $3 - interval '1 minute') END$r$, home)
        INTO is_accepted USING NEW.pipeline_run_id, state.mode = 'running', state.requested_at;
    END IF;
  END IF;
  IF is_accepted AND closed_for <> 'maintenance' THEN
    RETURN NEW;
  ELSIF is_accepted THEN
    EXECUTE format('SELECT %I.maintenance_stranger($1, ''{maintenance_held_tasks}''::text[])', home)
      INTO stranger USING home::text;
    IF stranger IS NULL THEN
      NEW.status := 'waiting';
      -- Of an INSERT that meets a row of its id there comes none (ON CONFLICT), and that row is not to be queued.
      EXECUTE format('INSERT INTO %1$I.maintenance_held_tasks
          SELECT $1 WHERE $2 OR NOT EXISTS (SELECT FROM %1$I.task_runs WHERE id = $1) ON CONFLICT DO NOTHING', home)
        USING NEW.id, TG_OP = 'UPDATE';
      RETURN NEW;
    END IF;
  END IF;
  -- What a subscription brings was accepted where it comes from; refused here, it would stop the replication.
  IF current_setting('session_replication_role') = 'replica' AND EXISTS (
    SELECT FROM pg_stat_activity WHERE pid = pg_backend_pid() AND backend_type LIKE 'logical replication%'
  ) THEN
    RETURN NEW;
  END IF;
  EXECUTE format(
    $r$SELECT %1$I.maintenance_printable($1, 200) AS owner, %1$I.maintenance_printable($2, 500) AS reason,
              %1$I.maintenance_printable($3, 100) AS id, mode_changed_at, wait_expires_at, mode
         FROM %1$I.orchestrator_state WHERE id = 'singleton'$r$, home) INTO state USING state.owner, state.reason, NEW.id;
  RAISE EXCEPTION '% for maintenance: task % may not become %',
      CASE closed_for WHEN 'maintenance' THEN 'closed' ELSE 'draining' END, state.id, NEW.status
    USING ERRCODE = 'PW101',
      DETAIL = CASE WHEN state.mode <> 'running'
        THEN format('mode %s since %s%s%s', state.mode,
          to_char(state.mode_changed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
          ', requested by ' || state.owner, ': ' || state.reason)
        ELSE 'the mode changed after this transaction began' END,
      HINT = CASE WHEN state.wait_expires_at > clock_timestamp()
        THEN format('Try again when the mode is running, at the latest in %s seconds.',
          ceil(extract(epoch FROM state.wait_expires_at - clock_timestamp())))
        ELSE 'Try again when the mode is running: every few seconds, or on NOTIFY pipeweave_maintenance.' END;
END;
$$;

-- Tells those who wait that a task has ended, and notes it where something may follow. Called while waiting alone.
CREATE OR REPLACE FUNCTION maintenance_task_ended() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
DECLARE
  home name := (SELECT n.nspname FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
                  JOIN pg_namespace n ON n.oid = p.pronamespace WHERE t.tgrelid = TG_RELID AND t.tgname = TG_NAME);
  stranger text;
BEGIN
  -- A snapshot that is older than the trigger shows no home: what follows from such a task is held back, if it is late.
  IF TG_OP = 'UPDATE' AND home IS NOT NULL
     AND (NEW.pipeline_run_id IS NOT NULL OR NEW.status IN ('failed', 'timeout')) THEN
    EXECUTE format('SELECT %I.maintenance_stranger($1, ''{maintenance_recent_ends}''::text[])', home)
      INTO stranger USING home::text;
    IF stranger IS NULL THEN
      EXECUTE format('INSERT INTO %I.maintenance_recent_ends (task_run_id, pipeline_run_id) VALUES ($1, $2)', home)
        USING NEW.id, NEW.pipeline_run_id;
    END IF;
  END IF;
  PERFORM pg_notify('pipeweave_maintenance', coalesce(home, TG_TABLE_SCHEMA)::text);
  RETURN NULL;
END;
$$;

-- What belongs to a request begins and ends with it, also where another client changes the mode alone. By requested_at
-- those who wait know the request that they wait for from a later one.
CREATE OR REPLACE FUNCTION maintenance_bound_request() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  -- A wait whose time to live is over is over for every client that writes the row, whatever it makes of the mode.
  IF OLD.mode = 'waiting_for_maintenance' AND OLD.wait_expires_at <= clock_timestamp()
     AND (NEW.mode = 'maintenance' OR NEW.wait_expires_at IS NOT DISTINCT FROM OLD.wait_expires_at) THEN
    NEW.mode := 'running';
  END IF;
  IF NEW.mode <> 'waiting_for_maintenance' THEN
    NEW.wait_expires_at := NULL;
  END IF;
  IF NEW.mode = 'running' THEN
    NEW.requested_at := NULL;
    NEW.owner := NULL;
    NEW.reason := NULL;
    NEW.drain := 'all';
    NEW.ignored_tasks := '{}';
    NEW.settle_ms := 2000;
    NEW.deployment := NULL;
  ELSIF OLD.mode = 'running' THEN
    -- In milliseconds, as clients keep it.
    NEW.requested_at := date_trunc('milliseconds', clock_timestamp());
  END IF;
  IF NEW.owner IS DISTINCT FROM OLD.owner OR NEW.reason IS DISTINCT FROM OLD.reason THEN
    EXECUTE format('SELECT %1$I.maintenance_printable($1, 200), %1$I.maintenance_printable($2, 500)', TG_TABLE_SCHEMA)
      INTO NEW.owner, NEW.reason USING NEW.owner, NEW.reason;
  END IF;
  RETURN NEW;
END;
$$;

CREATE OR REPLACE TRIGGER maintenance_bound_request
  BEFORE UPDATE ON orchestrator_state
  FOR EACH ROW EXECUTE FUNCTION maintenance_bound_request();

-- What keeps a drain from ending, by the row of the state: active tasks that it waits for, and for how many milliseconds
-- yet something may follow from tasks that have ended.
CREATE OR REPLACE FUNCTION maintenance_blockers(schema_name text, OUT tasks bigint, OUT settles_in_ms integer)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
BEGIN
  EXECUTE format($q$
    SELECT a.tasks, CASE WHEN a.tasks > 0 THEN 0 ELSE
(SELECT coalesce(greatest(ceil(extract(epoch FROM max(until) - clock_timestamp()) * 1000), 0), 0)::integer FROM (
  SELECT e.ended_at + o.settle_ms * interval '1 millisecond' AS until
    FROM %1$I.maintenance_recent_ends e
   WHERE e.ended_at > clock_timestamp() - o.settle_ms * interval '1 millisecond'
     AND (EXISTS (SELECT FROM %1$I.pipeline_runs p
                   WHERE p.id = e.pipeline_run_id AND p.status IN ('pending', 'running'))
       OR EXISTS (SELECT FROM %1$I.task_runs r
                   WHERE r.id = e.task_run_id AND r.status IN ('failed', 'timeout') AND r.attempt < r.max_retries))
  UNION ALL
  SELECT o.requested_at + o.settle_ms * interval '1 millisecond'
   WHERE o.requested_at > clock_timestamp() - o.settle_ms * interval '1 millisecond'
     AND (EXISTS (SELECT FROM %1$I.pipeline_runs p WHERE p.status IN ('pending', 'running'))
       OR EXISTS (SELECT FROM %1$I.task_runs r
                   WHERE r.status IN ('failed', 'timeout') AND r.attempt < r.max_retries
                     AND r.completed_at > o.requested_at - o.settle_ms * interval '1 millisecond' - interval '1 minute'))
) settling)
      END
      FROM %1$I.orchestrator_state o, LATERAL (
        SELECT count(*) AS tasks
FROM %1$I.task_runs r LEFT JOIN jsonb_each_text(o.ignored_tasks) i ON i.key = r.id
WHERE r.status IN ('pending', 'running')
           AND
(r.status = 'running' OR o.drain = 'all') AND i.value IS DISTINCT FROM
  r.status || ' ' || r.attempt || ' ' || coalesce(extract(epoch FROM greatest(r.started_at, r.heartbeat_at))::text, '')
      ) a WHERE o.id = 'singleton'$q$, schema_name)
    INTO tasks, settles_in_ms;
END;
$$;

-- Whether the triggers are those that a mode needs, and are on, for replication too, on task_runs and on every partition
-- and child of it; and in the mode running, whether there is nothing left to tidy up.
CREATE OR REPLACE FUNCTION maintenance_gate_fits(schema_name text, mode text, drain text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
DECLARE
  fits boolean;
BEGIN
  EXECUTE format($q$SELECT
(WITH RECURSIVE tables (relation) AS (
  SELECT to_regclass(%2$L)::oid UNION SELECT i.inhrelid FROM pg_inherits i JOIN tables t ON i.inhparent = t.relation
    JOIN pg_class c ON c.oid = i.inhrelid AND c.relpersistence <> 't'
), gates AS (
  SELECT g.tgrelid, g.tgname, g.tgenabled FROM pg_trigger g JOIN pg_proc p ON p.oid = g.tgfoid
   WHERE g.tgrelid IN (SELECT relation FROM tables) AND p.proname IN ('maintenance_gate', 'maintenance_task_ended')
)
SELECT CASE o.mode WHEN 'running'
  THEN NOT EXISTS (SELECT FROM gates WHERE tgenabled <> 'D') AND NOT EXISTS (SELECT FROM %1$I.maintenance_held_tasks)
  ELSE NOT EXISTS (SELECT FROM tables, unnest(CASE
      WHEN o.mode = 'maintenance' THEN '{closed_insert,closed_update}'
      WHEN o.drain = 'running' THEN '{new,ended,deleted,start,start_new}'
      ELSE '{new,ended,deleted}' END::text[]) AS needed (name)
    WHERE NOT EXISTS (SELECT FROM gates g
      WHERE g.tgrelid = tables.relation AND g.tgname = 'maintenance_gate_' || needed.name AND g.tgenabled = 'A')) END)
      FROM (SELECT $1 AS mode, $2 AS drain) o$q$, schema_name, format('%I.task_runs', schema_name))
    INTO fits USING mode, drain;
  RETURN fits;
END;
$$;

-- Makes the triggers that a mode needs, and removes the others. To open the gate need not wait for anybody, nor be
-- allowed to: triggers that stay let everything in, and the next look removes them.
CREATE OR REPLACE FUNCTION maintenance_set_gate(schema_name text, mode text, drain text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
  tables oid[];
  gate record;
  used text[] := '{}';
  unused record;
BEGIN
  IF mode <> 'running' THEN
    EXECUTE format('SELECT %I.maintenance_keep_to_owner($1)', schema_name) USING schema_name;
  END IF;
  -- Waits for transactions that have written to task_runs, and lets no other write before this one has ended.
  PERFORM set_config('lock_timeout', CASE mode WHEN 'running' THEN '200ms' ELSE '2s' END, true);
  EXECUTE format('LOCK TABLE %I.task_runs IN SHARE ROW EXCLUSIVE MODE', schema_name);
  WITH RECURSIVE tree (relation) AS (
    SELECT format('%I.task_runs', schema_name)::regclass::oid
    UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree t ON i.inhparent = t.relation
      JOIN pg_class c ON c.oid = i.inhrelid AND c.relpersistence <> 't'
  ) SELECT array_agg(relation) INTO tables FROM tree;
  FOR gate IN
    SELECT 'maintenance_gate_' || name AS name, event, condition, call FROM (VALUES
      -- While waiting nothing is new, and those who wait are told what ends.
      ('waiting', 'new', 'BEFORE INSERT', $c$NEW.status IN ('pending', 'running')$c$, $c$maintenance_gate('new tasks')$c$),
      ('waiting', 'ended', 'AFTER UPDATE',
        $c$OLD.status IN ('pending', 'running') AND NEW.status NOT IN ('pending', 'running')
           OR OLD.status = 'running' AND NEW.status = 'pending'$c$, 'maintenance_task_ended()'),
      ('waiting', 'deleted', 'AFTER DELETE', $c$OLD.status IN ('pending', 'running')$c$, 'maintenance_task_ended()'),
      -- With drain = 'running' nothing starts either.
      ('starting', 'start', 'BEFORE UPDATE', $c$NEW.status = 'running' AND OLD.status <> 'running' OR OLD.status = 'pending'
           AND (NEW.status = 'failed' OR NEW.status = 'pending' AND NEW.attempt > OLD.attempt)$c$,
        $c$maintenance_gate('starts')$c$),
      ('starting', 'start_new', 'BEFORE INSERT', $c$NEW.status = 'running'$c$, $c$maintenance_gate('starts')$c$),
      -- In maintenance nothing becomes active.
      ('closed', 'closed_insert', 'BEFORE INSERT', $c$NEW.status IN ('pending', 'running')$c$,
        $c$maintenance_gate('maintenance')$c$),
      ('closed', 'closed_update', 'BEFORE UPDATE',
        $c$NEW.status IN ('pending', 'running') AND NEW.status <> OLD.status OR OLD.status = 'pending'
           AND (NEW.status = 'failed' OR NEW.status = 'pending' AND NEW.attempt > OLD.attempt)$c$,
        $c$maintenance_gate('maintenance')$c$)
    ) AS gates (at, name, event, condition, call)
    WHERE at = CASE mode WHEN 'maintenance' THEN 'closed' WHEN 'waiting_for_maintenance' THEN 'waiting' END
       OR at = 'starting' AND mode = 'waiting_for_maintenance' AND drain = 'running'
  LOOP
    -- PostgreSQL gives partitions the triggers of their parent; other children need their own.
    EXECUTE coalesce((SELECT string_agg(format('CREATE TRIGGER %I %s ON %s FOR EACH ROW WHEN (%s) EXECUTE FUNCTION %I.%s',
        gate.name, gate.event, c.oid::regclass, gate.condition, schema_name, gate.call), ';')
      FROM pg_class c WHERE c.oid = ANY (tables) AND NOT c.relispartition
       AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = c.oid AND tgname = gate.name)), 'SELECT');
    -- Under session_replication_role = replica, too.
    EXECUTE coalesce((SELECT string_agg(format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', tgrelid::regclass, tgname), ';')
      FROM pg_trigger WHERE tgrelid = ANY (tables) AND tgname = gate.name AND tgenabled <> 'A'), 'SELECT');
    used := used || gate.name;
  END LOOP;
  FOR unused IN
    SELECT t.tgrelid::regclass AS relation, t.tgname AS name, c.relispartition AS is_partition
      FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
     WHERE t.tgrelid = ANY (tables) AND starts_with(t.tgname, 'maintenance_gate_') AND NOT t.tgname = ANY (used)
     ORDER BY c.relispartition
  LOOP
    CONTINUE WHEN NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = unused.relation AND tgname = unused.name);
    BEGIN
      -- To drop one waits for readers too. They are not kept waiting for long: what is disabled does nothing either.
      PERFORM set_config('lock_timeout', '100ms', true);
      EXECUTE format('DROP TRIGGER %I ON %s', unused.name, unused.relation);
    EXCEPTION WHEN lock_not_available OR deadlock_detected OR dependent_objects_still_exist THEN
      EXECUTE format('ALTER TABLE %s DISABLE TRIGGER %I', unused.relation, unused.name);
    END;
  END LOOP;
EXCEPTION
  WHEN lock_not_available OR deadlock_detected THEN
    IF mode <> 'running' THEN
      RAISE;
    END IF;
  WHEN OTHERS THEN
    IF mode <> 'running' THEN
      RAISE;
    END IF;
    RAISE WARNING 'triggers of the gate stay on task_runs, and let everything in: %', SQLERRM;
END;
$$;

-- Queues what was held back. What cannot be queued now stays held until the next look.
CREATE OR REPLACE FUNCTION maintenance_release_held(schema_name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off SET lock_timeout = '200ms' AS $$
DECLARE
  stranger text;
BEGIN
  EXECUTE format('SELECT %I.maintenance_stranger($1, $2)', schema_name) INTO stranger USING schema_name,
    '{task_runs,maintenance_held_tasks,maintenance_accepted_runs,maintenance_recent_ends}'::text[];
  IF stranger IS NOT NULL THEN
    RAISE EXCEPTION '% is not of PipeWeave''s owner', stranger;
  END IF;
  EXECUTE format($r$
    WITH free AS (
      -- Whatever somebody has locked is queued by a later look.
      SELECT r.id FROM %1$I.task_runs r JOIN %1$I.maintenance_held_tasks h ON h.task_run_id = r.id FOR UPDATE OF r SKIP LOCKED
    ), queued AS (
      UPDATE %1$I.task_runs r SET status = 'pending' FROM free WHERE r.id = free.id AND r.status = 'waiting'
    )
    DELETE FROM %1$I.maintenance_held_tasks h USING free WHERE h.task_run_id = free.id$r$, schema_name);
  EXECUTE format('DELETE FROM %1$I.maintenance_held_tasks h
    WHERE NOT EXISTS (SELECT FROM %1$I.task_runs r WHERE r.id = h.task_run_id)', schema_name);
  EXECUTE format('DELETE FROM %I.maintenance_accepted_runs', schema_name);
  EXECUTE format('DELETE FROM %I.maintenance_recent_ends', schema_name);
EXCEPTION
  WHEN lock_not_available OR deadlock_detected THEN
    NULL;
  WHEN OTHERS THEN
    RAISE WARNING 'tasks that were held back during maintenance are not queued yet: %', SQLERRM;
END;
$$;

-- A task that is held back by a transaction which ends after the exit: it is queued by that transaction itself. The row of
-- the state is locked, so that one of the two is sure to see the other.
CREATE OR REPLACE FUNCTION maintenance_held_late() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
DECLARE
  mode text;
BEGIN
  EXECUTE format('SELECT mode FROM %I.orchestrator_state WHERE id = ''singleton'' FOR SHARE', TG_TABLE_SCHEMA) INTO mode;
  IF mode = 'running' THEN
    EXECUTE format('SELECT %I.maintenance_release_held($1)', TG_TABLE_SCHEMA) USING TG_TABLE_SCHEMA::text;
  END IF;
  RETURN NULL;
END;
$$;

DROP TRIGGER IF EXISTS maintenance_held_late ON maintenance_held_tasks;
CREATE CONSTRAINT TRIGGER maintenance_held_late
  AFTER INSERT ON maintenance_held_tasks DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION maintenance_held_late();

-- Opens and closes the gate with the mode, in the transaction that changes it, whoever does; then logs and tells it.
CREATE OR REPLACE FUNCTION maintenance_follow_mode() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
DECLARE
  before record;
  opens boolean := NEW.mode = 'running';
  actor jsonb := '{}';
  -- The session that discovers an expired wait is not the one that ends it.
  expires boolean := TG_OP = 'UPDATE' AND NEW.mode = 'running' AND OLD.mode = 'waiting_for_maintenance'
    AND coalesce(OLD.wait_expires_at <= clock_timestamp(), false);
  fits boolean;
  blockers record;
  stranger text;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'the mode can be changed at READ COMMITTED alone: an older snapshot would not see every task'
      USING ERRCODE = 'PW103';
  END IF;
  BEGIN
    EXECUTE format('SELECT %I.maintenance_stranger($1, $2)', TG_TABLE_SCHEMA) INTO stranger USING TG_TABLE_SCHEMA::text,
      '{maintenance_log,maintenance_accepted_runs}'::text[];
  EXCEPTION WHEN OTHERS THEN
    IF NOT opens THEN
      RAISE;
    END IF;
    stranger := SQLERRM;
  END;
  IF stranger IS NOT NULL AND NOT opens THEN
    RAISE EXCEPTION '% is not of PipeWeave''s owner', stranger USING ERRCODE = 'PW301', DETAIL = jsonb_build_object(
      'use', 'change', 'role', current_user, 'problems', jsonb_build_array(jsonb_build_object('object', stranger, 'owner', 'another role')));
  END IF;
  IF TG_OP = 'UPDATE' THEN
    before := OLD;
  ELSE
    -- A row that was removed and is put back: the gate follows it too, and the log tells what it was.
    before := NEW;
    EXECUTE format('SELECT coalesce((SELECT mode_after FROM %I.maintenance_log ORDER BY id DESC LIMIT 1), ''running'')',
      TG_TABLE_SCHEMA) INTO before.mode;
  END IF;
  BEGIN
    EXECUTE format('SELECT %I.maintenance_gate_fits($1, $2, $3)', TG_TABLE_SCHEMA)
      INTO fits USING TG_TABLE_SCHEMA::text, NEW.mode, NEW.drain;
  EXCEPTION WHEN OTHERS THEN
    IF NOT opens THEN
      RAISE;
    END IF;
    fits := false;
  END;
  IF NEW.mode <> before.mode OR NEW.drain <> before.drain OR TG_OP = 'INSERT' OR NOT fits THEN
    EXECUTE format('SELECT %I.maintenance_set_gate($1, $2, $3)', TG_TABLE_SCHEMA)
      USING TG_TABLE_SCHEMA::text, NEW.mode, NEW.drain;
  END IF;
  IF opens AND (NEW.mode <> before.mode OR NOT fits) THEN
    EXECUTE format('SELECT %I.maintenance_release_held($1)', TG_TABLE_SCHEMA) USING TG_TABLE_SCHEMA::text;
  ELSIF NOT opens AND (TG_OP = 'INSERT' OR OLD.requested_at IS DISTINCT FROM NEW.requested_at) THEN
    -- After the lock on task_runs was had: no task of another run was queued before.
    EXECUTE format('INSERT INTO %1$I.maintenance_accepted_runs
      SELECT id FROM %1$I.pipeline_runs WHERE status IN (''pending'', ''running'') ON CONFLICT DO NOTHING', TG_TABLE_SCHEMA);
  END IF;
  IF NEW.mode = 'maintenance' AND before.mode <> 'maintenance' THEN
    EXECUTE format('SELECT * FROM %I.maintenance_blockers($1)', TG_TABLE_SCHEMA)
      INTO blockers USING TG_TABLE_SCHEMA::text;
    IF blockers.tasks > 0 THEN
      RAISE EXCEPTION 'maintenance cannot be entered: % task(s) active', blockers.tasks
        USING ERRCODE = 'PW102', HINT = 'Wait until they have ended, or call it off.';
    ELSIF blockers.settles_in_ms > 0 THEN
      RAISE EXCEPTION 'maintenance cannot be entered yet: something may follow from what has ended, for % ms',
        blockers.settles_in_ms USING ERRCODE = 'PW102', HINT = 'Try again then.';
    END IF;
  END IF;
  BEGIN
    actor := coalesce(nullif(current_setting('pipeweave.actor', true), ''), '{}');
  EXCEPTION WHEN OTHERS THEN
    -- Not ours.
  END;
  BEGIN
    IF stranger IS NOT NULL THEN
      RAISE EXCEPTION '% is not of PipeWeave''s owner', stranger;
    END IF;
    IF TG_OP = 'INSERT' OR (NEW.mode, NEW.owner, NEW.reason, NEW.deployment, NEW.drain, NEW.wait_expires_at, NEW.ignored_tasks)
      IS DISTINCT FROM (before.mode, before.owner, before.reason, before.deployment, before.drain, before.wait_expires_at,
                        before.ignored_tasks) THEN
      EXECUTE format('INSERT INTO %1$I.maintenance_log
          (action, mode_before, mode_after, os_user, host, tool, owner, reason, details)
          SELECT %1$I.maintenance_printable($1, 50), $2, $3, %1$I.maintenance_printable($4, 100),
                 %1$I.maintenance_printable($5, 100), %1$I.maintenance_printable($6, 100),
                 %1$I.maintenance_printable($7, 200), %1$I.maintenance_printable($8, 500),
                 jsonb_strip_nulls($9 || jsonb_build_object(''as'', %1$I.maintenance_printable($10, 200)))', TG_TABLE_SCHEMA)
        USING CASE
            WHEN expires THEN 'expire'
            WHEN TG_OP = 'INSERT' THEN 'restore'
            WHEN actor ? 'action' THEN actor->>'action'
            ELSE CASE NEW.mode WHEN 'running' THEN 'exit' WHEN 'maintenance' THEN 'enter' ELSE 'request' END
          END,
          before.mode, NEW.mode, actor->>'osUser', actor->>'host',
          coalesce(actor->>'tool', nullif(current_setting('application_name'), '')), coalesce(NEW.owner, before.owner),
          CASE WHEN expires THEN before.reason ELSE coalesce(actor->>'reason', NEW.reason) END,
          jsonb_build_object(
            'drain', CASE WHEN NEW.mode <> 'running' THEN NEW.drain END, 'waitExpiresAt', NEW.wait_expires_at,
            'ignoredTasks', (SELECT jsonb_agg(left(id, 100) ORDER BY id)
                               FROM (SELECT id FROM jsonb_object_keys(NEW.ignored_tasks) id ORDER BY id LIMIT 20) first),
            'ignoredTasksCount', (SELECT nullif(count(*), 0) FROM jsonb_object_keys(NEW.ignored_tasks)),
            'deployment', coalesce(NEW.deployment, before.deployment),
            'forced', CASE WHEN NOT expires AND actor->'forced' = 'true' THEN true END),
          nullif(actor->>'owner', coalesce(NEW.owner, before.owner));
    END IF;
    IF NEW.mode <> before.mode OR TG_OP = 'INSERT' THEN
      PERFORM pg_notify('pipeweave_maintenance', TG_TABLE_SCHEMA);
    END IF;
  EXCEPTION WHEN OTHERS THEN
    -- The way back does not depend on what is told of it.
    IF NOT opens THEN
      RAISE;
    END IF;
    RAISE WARNING 'maintenance ends, and could not be logged: %', SQLERRM;
  END;
  RETURN NULL;
END;
$$;

-- Deferred to the end of the transaction: task_runs cannot be altered by a statement that reads it, and whoever changes
-- the mode may well count the tasks in the same one.
DROP TRIGGER IF EXISTS maintenance_follow_mode ON orchestrator_state;
CREATE CONSTRAINT TRIGGER maintenance_follow_mode
  AFTER INSERT OR UPDATE ON orchestrator_state DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION maintenance_follow_mode();

-- These run with their owner's rights, on what the name of a table leads to: nobody else calls them, or makes triggers of
-- them.
REVOKE EXECUTE ON FUNCTION
  maintenance_gate(), maintenance_task_ended(), maintenance_bound_request(), maintenance_follow_mode(), maintenance_held_late(),
  maintenance_set_gate(text, text, text), maintenance_release_held(text) FROM PUBLIC;

-- pipeweave: ownership is checked here, before the first row is written

DO $$
BEGIN
  EXECUTE pg_catalog.format('SELECT %I.maintenance_keep_to_owner($1)', pg_catalog.current_schema())
    USING pg_catalog.current_schema()::text;
END;
$$;

-- A request of PipeWeave's Node tool gets its time, and the gate of its mode: the trigger follows.
UPDATE orchestrator_state SET requested_at = CASE WHEN mode <> 'running'
  THEN coalesce(requested_at, pg_catalog.date_trunc('milliseconds'::text, mode_changed_at)) END;
`,
};
