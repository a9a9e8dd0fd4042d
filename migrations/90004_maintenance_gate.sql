-- Admission control: while maintenance is waited for or on, PostgreSQL itself refuses new tasks, whoever sends them, and
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
    value := regexp_replace(value, '[\u0080-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]', '?', 'g');
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
