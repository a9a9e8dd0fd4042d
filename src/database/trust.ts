/**
 * Whom pipeweave trusts with objects of its names. A table, a view or a function that somebody else made under one of
 * them may run that somebody's code with the rights of whoever uses it (the class of CVE-2018-1058 and CVE-2022-2625), so
 * a message looks at what it is about to use before it uses it, in its own transaction.
 *
 * @module
 */

import { identifier, sql, SqlText } from "./sql.ts";

/** Relations of PipeWeave and of the migration engine. */
export const RELATIONS: readonly string[] = [
  ...["schema_migrations", "migration_log", "migration_journal", "migration_lease"],
  ...["orchestrator_state", "maintenance_log", "maintenance_accepted_runs", "maintenance_recent_ends"],
  ...["maintenance_held_tasks", "maintenance_deployments"],
  ...["services", "tasks", "task_code_history", "pipelines", "pipeline_runs", "task_runs", "dlq"],
  ...["idempotency_cache", "temp_uploads"],
];

/** Functions of PipeWeave and of the migration engine. */
export const FUNCTIONS: readonly string[] = [
  ...["update_orchestrator_state_timestamp", "update_updated_at_column"],
  ...["cleanup_expired_idempotency_cache", "cleanup_expired_temp_uploads"],
  ...[
    "refuse_change_of_migration_log",
    "migration_lock_tables",
    "migration_keep_lease",
    "migration_take_turn",
    "migration_guard",
    "record_migration",
  ],
  ...["maintenance_stranger", "maintenance_keep_to_owner"],
  ...[
    "refuse_change_of_maintenance_log",
    "maintenance_printable",
    "maintenance_gate",
    "maintenance_task_ended",
  ],
  ...["maintenance_bound_request", "maintenance_blockers", "maintenance_gate_fits", "maintenance_set_gate"],
  ...["maintenance_release_held", "maintenance_held_late", "maintenance_follow_mode"],
];

/** Functions of the gate's triggers: nobody else may make triggers of them, so a condition of one is the gate's. */
const GATE_FUNCTIONS: readonly string[] = ["maintenance_gate", "maintenance_task_ended"];

/** SQLSTATE of {@linkcode assertTrusted}. */
export const NOT_TRUSTED = "PW301";

/**
 * What a message does with the objects:
 *
 * - `read`: reads them. To plan a query is to run what its owner put into a table's indexes and statistics.
 * - `change`: writes to them, and so runs their triggers, those of tables that refer to them, and their functions.
 * - `own`: alters or replaces them; they may also be missing.
 */
export type Use = "read" | "change" | "own";

/** Which objects, and what is done to them. */
export interface TrustOptions {
  /**
   * Tables of them that the message writes to: they are locked before anything is looked at, so that nobody adds a trigger
   * or a foreign key between the look and the writing. Default: none
   */
  readonly writes?: readonly string[] | undefined;
}

/**
 * A statement that fails with {@linkcode NOT_TRUSTED} where an object of these names belongs to a role that is not trusted
 * with the use, and as PostgreSQL would where a table to be read or changed is missing.
 *
 * The role that connects trusts itself and every role that it is a member of. To read and change it also trusts
 * superusers and, unless it is one itself, whoever the schema is in the hands of: the owners of database and schema, and
 * roles that were granted CREATE by name. It has to run under the search_path of
 * {@linkcode "./session.ts".transactionMessage}.
 *
 * @param relations names within the schema; for `own` all of {@linkcode RELATIONS} and {@linkcode FUNCTIONS} are meant
 */
export function assertTrusted(
  schema: string,
  relations: readonly string[],
  use: Use,
  options: TrustOptions = {},
): SqlText {
  const otherwise = sql`RAISE EXCEPTION 'not trusted' USING ERRCODE = ${NOT_TRUSTED}, DETAIL = report;`;
  return check(schema, relations, use, otherwise, options);
}

/**
 * A statement that keeps what {@linkcode assertTrusted} would fail with, for the rest of the transaction.
 *
 * @param name of the setting that holds it: `pipeweave.<name>`, empty where there is nothing
 */
export function reportTrust(schema: string, relations: readonly string[], use: Use, name: string): SqlText {
  const otherwise = sql`PERFORM pg_catalog.set_config(${`pipeweave.${name}`}, report, true);`;
  return check(schema, relations, use, otherwise);
}

function check(
  schema: string,
  relations: readonly string[],
  use: Use,
  otherwise: SqlText,
  { writes = [] }: TrustOptions = {},
): SqlText {
  const names = textArray(use === "own" ? RELATIONS : relations);
  const functions = textArray(use === "read" ? [] : FUNCTIONS);
  const body = sql`
DECLARE
  use text := ${use};
  home oid := to_regnamespace(${identifier(schema).text});
  self oid := current_user::regrole;
  me record;
  trusted oid[];
  makers oid[] := '{}';
  name text;
  relations oid[];
  problems jsonb;
  report text;
BEGIN
  FOREACH name IN ARRAY ${textArray(writes)} LOOP
    IF to_regclass(format('%I.%I', ${schema}, name)) IS NOT NULL THEN
      EXECUTE format('LOCK TABLE %I.%I IN ROW EXCLUSIVE MODE', ${schema}, name);
    END IF;
  END LOOP;
  -- Nearly always everything is one's own, and nobody else's is near: that is known by one query.
  IF (use = 'own' OR (SELECT count(*) FROM pg_class WHERE relnamespace = home AND relname = ANY (${names})) = cardinality(${names}))
     AND NOT EXISTS (
       SELECT FROM pg_class c WHERE c.relnamespace = home AND c.relname = ANY (${names})
          AND (c.relowner <> self OR c.relkind <> 'r' OR c.relhassubclass OR use <> 'read' AND EXISTS (
            SELECT FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid LEFT JOIN pg_class r ON r.oid = t.tgconstrrelid
             WHERE t.tgrelid = c.oid AND CASE WHEN t.tgisinternal THEN r.relowner <> self OR NOT r.relname = ANY (${
    textArray(RELATIONS)
  }) ELSE p.proowner <> self OR t.tgqual IS NOT NULL AND NOT (p.pronamespace = home AND p.proname = ANY (${
    textArray(GATE_FUNCTIONS)
  })) END)))
     AND (use = 'read' OR NOT EXISTS (
       SELECT FROM pg_proc WHERE pronamespace = home AND proname = ANY (${functions}) AND proowner <> self)) THEN
    RETURN;
  END IF;
  SELECT oid, rolsuper INTO me FROM pg_roles WHERE rolname = current_user;
  -- Not by pg_has_role, which says that a superuser is a member of every role.
  WITH RECURSIVE mine (role) AS (
    SELECT me.oid UNION SELECT m.roleid FROM pg_auth_members m JOIN mine ON m.member = mine.role
  ) SELECT array_agg(role) INTO trusted FROM mine;
  IF use <> 'own' THEN
    trusted := trusted || ARRAY(SELECT oid FROM pg_roles WHERE rolsuper);
    IF NOT me.rolsuper THEN
      SELECT trusted || n.nspowner || d.datdba,
             ARRAY(SELECT grantee FROM aclexplode(n.nspacl) WHERE privilege_type = 'CREATE' AND grantee <> 0)
        INTO trusted, makers
        FROM pg_namespace n, pg_database d WHERE n.oid = home AND d.datname = current_database();
      trusted := trusted || ARRAY(SELECT r.oid FROM pg_roles r, unnest(makers) maker WHERE pg_has_role(r.oid, maker, 'MEMBER'));
    END IF;
    FOREACH name IN ARRAY ${names} LOOP
      IF to_regclass(format('%I.%I', ${schema}, name)) IS NULL THEN
        RAISE undefined_table USING MESSAGE = format('relation "%s.%s" does not exist', ${schema}, name);
      END IF;
    END LOOP;
  END IF;
  WITH RECURSIVE tree (oid) AS (
    SELECT c.oid FROM pg_class c WHERE c.relnamespace = home AND c.relname = ANY (${names})
    UNION
    SELECT next.oid FROM tree, LATERAL (
      SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = tree.oid
      UNION ALL
      -- What is deleted or changed reaches tables that refer to it.
      SELECT t.tgconstrrelid FROM pg_trigger t
       WHERE t.tgrelid = tree.oid AND t.tgisinternal AND t.tgconstrrelid <> 0 AND use <> 'read'
    ) next (oid)
  ) SELECT array_agg(oid) INTO relations FROM tree;
  SELECT jsonb_agg(jsonb_build_object('object', object, 'owner', pg_get_userbyid(owner), 'alter', alter) ORDER BY place, object)
    INTO problems
    FROM (
      SELECT 1 AS place, kind || c.oid::regclass AS object, c.relowner AS owner,
             CASE WHEN c.relnamespace = home AND c.relname = ANY (${names}) THEN upper(kind) || c.oid::regclass END AS alter
        FROM pg_class c, LATERAL (SELECT CASE c.relkind WHEN 'v' THEN 'view ' WHEN 'm' THEN 'materialized view ' ELSE 'table ' END) k (kind)
       WHERE c.oid = ANY (relations) AND NOT c.relowner = ANY (trusted)
      UNION ALL
      SELECT 2, 'function ' || p.oid::regprocedure, p.proowner, 'FUNCTION ' || p.oid::regprocedure
        FROM pg_proc p WHERE p.pronamespace = home AND p.proname = ANY (${functions}) AND NOT p.proowner = ANY (trusted)
      UNION ALL
      -- The function that a trigger calls; and a condition, which may run anything, where others may make triggers.
      SELECT 3, 'trigger ' || quote_ident(t.tgname) || ' on ' || t.tgrelid::regclass,
             CASE WHEN p.proowner = ANY (trusted) THEN coalesce(nullif(maker.grantee, 0), p.proowner) ELSE p.proowner END, NULL
        FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_class c ON c.oid = t.tgrelid
        LEFT JOIN LATERAL (
          SELECT a.grantee FROM aclexplode(c.relacl) a WHERE a.privilege_type = 'TRIGGER' AND NOT a.grantee = ANY (trusted) LIMIT 1
        ) maker ON true
       WHERE t.tgrelid = ANY (relations) AND NOT t.tgisinternal AND use <> 'read'
         AND (NOT p.proowner = ANY (trusted) OR t.tgqual IS NOT NULL AND maker.grantee IS NOT NULL
           AND NOT (p.pronamespace = home AND p.proname = ANY (${textArray(GATE_FUNCTIONS)})))
    ) found;
  IF problems IS NOT NULL THEN
    report := jsonb_build_object('use', use, 'role', current_user, 'problems', problems);
    ${otherwise}
  END IF;
END`;
  return sql`DO ${body.text};`;
}

function textArray(names: readonly string[]): SqlText {
  const quoted = names.map((name) => `"${name.replace(/["\\]/g, "\\$&")}"`);
  return sql`${`{${quoted.join(",")}}`}::text[]`;
}
