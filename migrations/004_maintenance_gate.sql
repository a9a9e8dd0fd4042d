-- Admission control: while maintenance is waited for or on, PostgreSQL itself refuses new tasks, whoever sends them.
-- The triggers on task_runs are made by the transaction that closes the gate and removed by the one that opens it, so
-- that they cost nothing while the mode is running. docs/maintenance_protocol.md has the argument. Safe to repeat.

ALTER TABLE orchestrator_state
  ADD COLUMN IF NOT EXISTS owner text,
  ADD COLUMN IF NOT EXISTS reason text,
  ADD COLUMN IF NOT EXISTS drain text NOT NULL DEFAULT 'all' CHECK (drain IN ('all', 'running')),
  ADD COLUMN IF NOT EXISTS wait_expires_at timestamptz,
  ADD COLUMN IF NOT EXISTS ignored_tasks jsonb NOT NULL DEFAULT '{}',
  ADD COLUMN IF NOT EXISTS requested_at timestamptz,
  -- The gate follows one row; a second would open it behind the first one's back.
  DROP CONSTRAINT IF EXISTS orchestrator_state_is_one,
  ADD CONSTRAINT orchestrator_state_is_one CHECK (id = 'singleton') NOT VALID;
UPDATE orchestrator_state SET requested_at = date_trunc('milliseconds', mode_changed_at)
 WHERE mode <> 'running' AND requested_at IS NULL;

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
LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'maintenance_log is append-only: % is refused', TG_OP USING ERRCODE = 'PW005';
END;
$$;

CREATE OR REPLACE TRIGGER maintenance_log_is_append_only
  BEFORE UPDATE OR DELETE OR TRUNCATE ON maintenance_log
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_maintenance_log();

-- Refuses a row. Which rows come here is decided by which triggers there are, and never by the mode as this
-- transaction's snapshot shows it: a snapshot may be older than the mode. A row is let in all the same where the gate was
-- opened without its triggers, by time (--ttl) or because others held the table; the state has to be the newest for that.
-- It is, at READ COMMITTED, since whoever closes the gate waits for this transaction's lock on the table; elsewhere the
-- row's lock finds out. A row that is being changed just now counts as closed.
CREATE OR REPLACE FUNCTION maintenance_gate() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  closed_for text := TG_ARGV[0];
  state record;
  read_state text := format(
    $q$SELECT mode, mode_changed_at, requested_at, owner, reason, wait_expires_at,
              mode = 'running' OR $1 <> 'maintenance' AND wait_expires_at <= clock_timestamp() AS is_open
         FROM %I.orchestrator_state WHERE id = 'singleton'$q$, TG_TABLE_SCHEMA);
  admitted boolean;
BEGIN
  EXECUTE read_state INTO state USING closed_for;
  IF state.is_open THEN
    IF current_setting('transaction_isolation') = 'read committed' THEN
      RETURN NEW;
    END IF;
    BEGIN
      EXECUTE read_state || ' FOR SHARE SKIP LOCKED' INTO state USING closed_for;
      IF state.is_open THEN
        RETURN NEW;
      END IF;
    EXCEPTION WHEN serialization_failure THEN
      -- The row is newer than this transaction's snapshot.
    END;
  END IF;
  IF closed_for = 'new tasks' AND NEW.pipeline_run_id IS NOT NULL THEN
    -- A pipeline run with a task from before the request was under way: the first task of a new one is refused here.
    EXECUTE format(
      $q$SELECT EXISTS (SELECT FROM %1$I.task_runs
                         WHERE pipeline_run_id = $1 AND coalesce(created_at <= $2, true))
            AND EXISTS (SELECT FROM %1$I.pipeline_runs WHERE id = $1 AND status IN ('pending', 'running'))$q$,
      TG_TABLE_SCHEMA) INTO admitted USING NEW.pipeline_run_id, state.requested_at;
    IF admitted THEN
      RETURN NEW;
    END IF;
  END IF;
  RAISE EXCEPTION '% for maintenance: task % may not become %',
      CASE closed_for WHEN 'maintenance' THEN 'closed' ELSE 'draining' END, NEW.id, NEW.status
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

-- Tells those who wait that a task has ended. Called while waiting alone.
CREATE OR REPLACE FUNCTION maintenance_task_ended() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('pipeweave_maintenance', TG_TABLE_SCHEMA);
  RETURN NULL;
END;
$$;

-- What belongs to a request begins and ends with it, also where another client changes the mode alone. By requested_at
-- those who wait know the request that they wait for from a later one.
CREATE OR REPLACE FUNCTION maintenance_bound_request() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.mode <> 'waiting_for_maintenance' THEN
    NEW.wait_expires_at := NULL;
  END IF;
  IF NEW.mode = 'running' THEN
    NEW.requested_at := NULL;
    NEW.owner := NULL;
    NEW.reason := NULL;
    NEW.drain := 'all';
    NEW.ignored_tasks := '{}';
  ELSIF OLD.mode = 'running' THEN
    -- In milliseconds, as clients keep it.
    NEW.requested_at := date_trunc('milliseconds', clock_timestamp());
  END IF;
  RETURN NEW;
END;
$$;

CREATE OR REPLACE TRIGGER maintenance_bound_request
  BEFORE UPDATE ON orchestrator_state
  FOR EACH ROW EXECUTE FUNCTION maintenance_bound_request();

-- What changes when a task gives a sign of life: a task that a drain ignores is ignored for as long as this stays.
CREATE OR REPLACE FUNCTION maintenance_sign_of_life(
  status text, attempt integer, started_at timestamptz, heartbeat_at timestamptz
) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT status || ' ' || attempt || ' ' || coalesce(extract(epoch FROM greatest(started_at, heartbeat_at))::text, '')
$$;

-- Tasks that keep a drain from ending. What it ignores is a sign of life by id.
CREATE OR REPLACE FUNCTION maintenance_blockers(schema_name text, drain text, ignored jsonb) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  blockers bigint;
BEGIN
  EXECUTE format(
    'SELECT count(*) FROM %1$I.task_runs r LEFT JOIN jsonb_each_text($2) i
         ON i.key = r.id AND i.value = %1$I.maintenance_sign_of_life(r.status, r.attempt, r.started_at, r.heartbeat_at)
      WHERE r.status = ANY ($1) AND i.key IS NULL', schema_name)
    INTO blockers
    USING CASE drain WHEN 'running' THEN '{running}' ELSE '{pending,running}' END::text[], ignored;
  RETURN blockers;
END;
$$;

-- Whether triggers of the gate are on.
CREATE OR REPLACE FUNCTION maintenance_gate_is_on(schema_name text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass(format('%I.task_runs', schema_name))
                    AND starts_with(tgname, 'maintenance_gate_') AND tgenabled <> 'D')
$$;

-- Makes the triggers that a mode needs, and removes the others. To open the gate need not wait for anybody: where others
-- hold the table the triggers stay, and let everything in, until the next look removes them.
CREATE OR REPLACE FUNCTION maintenance_set_gate(schema_name text, mode text, drain text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
  gate record;
  used text[] := '{}';
  unused text[];
BEGIN
  BEGIN
    -- Waits for transactions that have written to task_runs, and lets no other write before this one has ended.
    PERFORM set_config('lock_timeout', CASE mode WHEN 'running' THEN '200ms' ELSE '2s' END, true);
    EXECUTE format('LOCK TABLE %I.task_runs IN SHARE ROW EXCLUSIVE MODE', schema_name);
  EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
    IF mode <> 'running' THEN
      RAISE;
    END IF;
    RETURN;
  END;
  FOR gate IN
    SELECT name, event, condition, call FROM (VALUES
      -- While waiting nothing is new, and those who wait are told what ends.
      ('waiting', 'new', 'BEFORE INSERT', $c$NEW.status IN ('pending', 'running')$c$, $c$maintenance_gate('new tasks')$c$),
      ('waiting', 'ended', 'AFTER UPDATE',
        $c$OLD.status IN ('pending', 'running') AND NEW.status NOT IN ('pending', 'running')
           OR OLD.status = 'running' AND NEW.status = 'pending'$c$, 'maintenance_task_ended()'),
      ('waiting', 'deleted', 'AFTER DELETE', $c$OLD.status IN ('pending', 'running')$c$, 'maintenance_task_ended()'),
      -- With drain = 'running' nothing starts either.
      ('starting', 'start', 'BEFORE UPDATE', $c$NEW.status = 'running' AND OLD.status <> 'running'$c$,
        $c$maintenance_gate('starts')$c$),
      ('starting', 'start_new', 'BEFORE INSERT', $c$NEW.status = 'running'$c$, $c$maintenance_gate('starts')$c$),
      -- In maintenance nothing becomes active.
      ('closed', 'closed_insert', 'BEFORE INSERT', $c$NEW.status IN ('pending', 'running')$c$,
        $c$maintenance_gate('maintenance')$c$),
      ('closed', 'closed_update', 'BEFORE UPDATE',
        $c$NEW.status IN ('pending', 'running') AND NEW.status <> OLD.status$c$, $c$maintenance_gate('maintenance')$c$)
    ) AS gates (at, name, event, condition, call)
    WHERE at = CASE mode WHEN 'maintenance' THEN 'closed' WHEN 'waiting_for_maintenance' THEN 'waiting' END
       OR at = 'starting' AND mode = 'waiting_for_maintenance' AND drain = 'running'
  LOOP
    EXECUTE format('CREATE OR REPLACE TRIGGER maintenance_gate_%1$s %2$s ON %3$I.task_runs
      FOR EACH ROW WHEN (%4$s) EXECUTE FUNCTION %3$I.%5$s', gate.name, gate.event, schema_name, gate.condition, gate.call);
    -- Under session_replication_role = replica, too.
    EXECUTE format('ALTER TABLE %I.task_runs ENABLE ALWAYS TRIGGER maintenance_gate_%s', schema_name, gate.name);
    used := used || ('maintenance_gate_' || gate.name);
  END LOOP;
  SELECT array_agg(tgname) INTO unused FROM pg_trigger
   WHERE tgrelid = format('%I.task_runs', schema_name)::regclass AND starts_with(tgname, 'maintenance_gate_')
     AND NOT tgname = ANY (used);
  IF unused IS NOT NULL THEN
    BEGIN
      -- To drop one waits for readers too. They are not kept waiting for long: what is disabled does nothing either.
      PERFORM set_config('lock_timeout', '100ms', true);
      EXECUTE (SELECT string_agg(format('DROP TRIGGER %I ON %I.task_runs', name, schema_name), '; ') FROM unnest(unused) name);
    EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
      EXECUTE format('ALTER TABLE %I.task_runs ', schema_name)
        || (SELECT string_agg(format('DISABLE TRIGGER %I', name), ', ') FROM unnest(unused) name);
    END;
  END IF;
END;
$$;
-- Opens and closes the gate with the mode, in the transaction that changes it, whoever does; then logs and tells it.
CREATE OR REPLACE FUNCTION maintenance_follow_mode() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  before record;
  actor jsonb := coalesce(nullif(current_setting('pipeweave.actor', true), ''), '{}');
  -- Whoever finds that a wait has run out has not asked for that.
  expires boolean := TG_OP = 'UPDATE' AND NEW.mode = 'running' AND OLD.mode = 'waiting_for_maintenance'
    AND coalesce(OLD.wait_expires_at <= clock_timestamp(), false);
  gate_is_on boolean;
  blockers bigint;
BEGIN
  IF TG_OP = 'UPDATE' THEN
    before := OLD;
  ELSE
    -- A row that was removed and is put back: the gate follows it too, and the log tells what it was.
    before := NEW;
    EXECUTE format('SELECT coalesce((SELECT mode_after FROM %I.maintenance_log ORDER BY id DESC LIMIT 1), ''running'')',
      TG_TABLE_SCHEMA) INTO before.mode;
  END IF;
  EXECUTE format('SELECT %I.maintenance_gate_is_on($1)', TG_TABLE_SCHEMA) INTO gate_is_on USING TG_TABLE_SCHEMA::text;
  IF NEW.mode <> before.mode OR NEW.drain <> before.drain OR TG_OP = 'INSERT' OR NEW.mode = 'running' AND gate_is_on THEN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
      RAISE EXCEPTION 'the mode can be changed at READ COMMITTED alone: an older snapshot would not see every task'
        USING ERRCODE = 'PW103';
    END IF;
    EXECUTE format('SELECT %I.maintenance_set_gate($1, $2, $3)', TG_TABLE_SCHEMA)
      USING TG_TABLE_SCHEMA::text, NEW.mode, NEW.drain;
    IF NEW.mode = 'maintenance' THEN
      EXECUTE format('SELECT %I.maintenance_blockers($1, $2, $3)', TG_TABLE_SCHEMA)
        INTO blockers USING TG_TABLE_SCHEMA::text, NEW.drain, NEW.ignored_tasks;
      IF blockers > 0 THEN
        RAISE EXCEPTION 'maintenance cannot be entered: % task(s) active', blockers
          USING ERRCODE = 'PW102', HINT = 'Wait until they have ended, or call it off.';
      END IF;
    END IF;
  END IF;
  IF TG_OP = 'INSERT' OR (NEW.mode, NEW.owner, NEW.reason, NEW.drain, NEW.wait_expires_at, NEW.ignored_tasks)
    IS DISTINCT FROM (before.mode, before.owner, before.reason, before.drain, before.wait_expires_at, before.ignored_tasks) THEN
    EXECUTE format('INSERT INTO %I.maintenance_log
        (action, mode_before, mode_after, os_user, host, tool, owner, reason, details)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)', TG_TABLE_SCHEMA)
      USING CASE
          WHEN expires THEN 'expire'
          WHEN TG_OP = 'INSERT' THEN 'restore'
          WHEN actor ? 'action' THEN actor->>'action'
          ELSE CASE NEW.mode WHEN 'running' THEN 'exit' WHEN 'maintenance' THEN 'enter' ELSE 'request' END
        END,
        before.mode, NEW.mode, actor->>'osUser', actor->>'host',
        coalesce(actor->>'tool', current_setting('application_name')), coalesce(NEW.owner, before.owner),
        CASE WHEN expires THEN before.reason ELSE coalesce(actor->>'reason', NEW.reason) END,
        jsonb_strip_nulls(jsonb_build_object(
          'drain', CASE WHEN NEW.mode <> 'running' THEN NEW.drain END, 'waitExpiresAt', NEW.wait_expires_at,
          'ignoredTasks', (SELECT jsonb_agg(id ORDER BY id) FROM jsonb_object_keys(NEW.ignored_tasks) id),
          'as', nullif(actor->>'owner', coalesce(NEW.owner, before.owner)),
          'forced', CASE WHEN NOT expires THEN actor->'forced' END));
  END IF;
  IF NEW.mode <> before.mode OR TG_OP = 'INSERT' THEN
    PERFORM pg_notify('pipeweave_maintenance', TG_TABLE_SCHEMA);
  END IF;
  RETURN NULL;
END;
$$;

-- Deferred to the end of the transaction: task_runs cannot be altered by a statement that reads it, and whoever changes
-- the mode may well count the tasks in the same one.
DROP TRIGGER IF EXISTS maintenance_follow_mode ON orchestrator_state;
CREATE CONSTRAINT TRIGGER maintenance_follow_mode
  AFTER INSERT OR UPDATE ON orchestrator_state DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION maintenance_follow_mode();

-- These run with their owner's rights, on what the name of a table leads to: nobody else makes triggers of them.
REVOKE EXECUTE ON FUNCTION
  maintenance_gate(), maintenance_follow_mode(), maintenance_set_gate(text, text, text) FROM PUBLIC;

-- The gate as the mode is now.
DO $$
BEGIN
  PERFORM maintenance_set_gate(current_schema()::text, coalesce(min(mode), 'running'), coalesce(min(drain), 'all'))
    FROM orchestrator_state;
END;
$$;
