-- What the migration engine keeps beside schema_migrations: who did what, how far a migration outside a transaction
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
