-- Services, tasks, pipelines and their runs: what the orchestrator works with.
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
  home := substring(split_part(context, E'\n', 1) FROM '("(?:[^"]|"")+"|[a-z_][a-z0-9_]*)[.]cleanup_expired_idempotency_cache[(]');
  EXECUTE format('DELETE FROM %s.idempotency_cache WHERE expires_at < now()', home);
  GET DIAGNOSTICS deleted = ROW_COUNT;
  RETURN deleted;
END;
$$;
