-- PipeWeave 1.1: schemas of task inputs, and uploads that wait to be claimed by a run.
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
  home := substring(split_part(context, E'\n', 1) FROM '("(?:[^"]|"")+"|[a-z_][a-z0-9_]*)[.]cleanup_expired_temp_uploads[(]');
  EXECUTE format(
    'SELECT count(*) FROM %s.temp_uploads WHERE expires_at < now() AND claimed_by_run_id IS NULL AND deleted_at IS NULL',
    home) INTO deleted_count;
  EXECUTE format('DELETE FROM %s.temp_uploads WHERE deleted_at < now() - interval ''30 days''', home);
  GET DIAGNOSTICS archived_count = ROW_COUNT;
  RETURN NEXT;
END;
$$;
