-- The history of applied migrations, and the state of the orchestrator.
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
