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
  ...["refuse_change_of_migration_log", "migration_guard", "record_migration"],
  ...[
    "refuse_change_of_maintenance_log",
    "maintenance_printable",
    "maintenance_gate",
    "maintenance_task_ended",
  ],
  ...["maintenance_bound_request", "maintenance_blockers", "maintenance_gate_fits", "maintenance_set_gate"],
  ...["maintenance_release_held", "maintenance_follow_mode"],
];

/** SQLSTATE of {@linkcode assertTrusted}. */
export const NOT_TRUSTED = "PW301";

/**
 * What a message does with the objects:
 *
 * - `read`: reads them. An owner who is not trusted may have made plain tables of built-in types, which run nothing.
 * - `change`: writes to them, and so runs their triggers and functions.
 * - `own`: alters or replaces them; they may also be missing.
 */
export type Use = "read" | "change" | "own";

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
export function assertTrusted(schema: string, relations: readonly string[], use: Use): SqlText {
  return check(
    schema,
    relations,
    use,
    sql`RAISE EXCEPTION 'not trusted' USING ERRCODE = ${NOT_TRUSTED}, DETAIL = report;`,
  );
}

/**
 * A statement that keeps what {@linkcode assertTrusted} would fail with, for the rest of the transaction.
 *
 * @param name of the setting that holds it: `pipeweave.<name>`, empty where there is nothing
 */
export function reportTrust(schema: string, relations: readonly string[], use: Use, name: string): SqlText {
  return check(
    schema,
    relations,
    use,
    sql`PERFORM pg_catalog.set_config(${`pipeweave.${name}`}, report, true);`,
  );
}

function check(schema: string, relations: readonly string[], use: Use, otherwise: SqlText): SqlText {
  const names = textArray(use === "own" ? RELATIONS : relations);
  const functions = textArray(use === "read" ? [] : FUNCTIONS);
  const body = sql`
DECLARE
  use text := ${use};
  home oid := pg_catalog.to_regnamespace(${identifier(schema).text});
  me record;
  trusted oid[];
  makers oid[] := '{}';
  found record;
  relations oid[];
  problems jsonb := '[]';
  report text;
BEGIN
  SELECT oid, rolsuper INTO me FROM pg_catalog.pg_roles WHERE rolname = current_user;
  -- Not by pg_has_role, which says that a superuser is a member of every role.
  WITH RECURSIVE mine (role) AS (
    SELECT me.oid UNION SELECT m.roleid FROM pg_catalog.pg_auth_members m JOIN mine ON m.member = mine.role
  ) SELECT pg_catalog.array_agg(role) INTO trusted FROM mine;
  IF use <> 'own' THEN
    trusted := trusted || ARRAY(SELECT oid FROM pg_catalog.pg_roles WHERE rolsuper);
    IF NOT me.rolsuper THEN
      SELECT trusted || n.nspowner || d.datdba,
             ARRAY(SELECT grantee FROM pg_catalog.aclexplode(n.nspacl) WHERE privilege_type = 'CREATE' AND grantee <> 0)
        INTO trusted, makers
        FROM pg_catalog.pg_namespace n, pg_catalog.pg_database d
       WHERE n.oid = home AND d.datname = pg_catalog.current_database();
      trusted := trusted || ARRAY(SELECT r.oid FROM pg_catalog.pg_roles r, pg_catalog.unnest(makers) maker
                                   WHERE pg_catalog.pg_has_role(r.oid, maker, 'MEMBER'));
    END IF;
    FOR found IN SELECT name FROM pg_catalog.unnest(${names}) name
                  WHERE pg_catalog.to_regclass(pg_catalog.format('%I.%I', ${schema}, name)) IS NULL LIMIT 1 LOOP
      RAISE undefined_table USING MESSAGE = pg_catalog.format('relation "%s.%s" does not exist', ${schema}, found.name);
    END LOOP;
  END IF;
  IF use = 'read' THEN
    -- Whoever is not trusted keeps his hands off the table from here on: a view in its place would run his functions.
    FOR found IN SELECT c.oid, c.relname, c.relkind FROM pg_catalog.pg_class c
                  WHERE c.relnamespace = home AND c.relname = ANY (${names}) AND NOT c.relowner = ANY (trusted) LOOP
      EXECUTE pg_catalog.format('LOCK TABLE ONLY %I.%I IN ACCESS SHARE MODE', ${schema}, found.relname);
      problems := problems || coalesce((
        SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('object', 'table ' || c.oid::regclass, 'owner',
                 pg_catalog.pg_get_userbyid(c.relowner)))
          FROM pg_catalog.pg_class c
         WHERE c.oid = pg_catalog.to_regclass(pg_catalog.format('%I.%I', ${schema}, found.relname))
           AND (c.relkind NOT IN ('r', 'p') OR c.relhasrules OR EXISTS (
             SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                AND t.typnamespace <> 'pg_catalog'::regnamespace))), '[]');
    END LOOP;
  ELSE
    WITH RECURSIVE tree (oid) AS (
      SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relnamespace = home AND c.relname = ANY (${names})
      UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree ON i.inhparent = tree.oid
    ) SELECT pg_catalog.array_agg(oid) INTO relations FROM tree;
    SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('object', object, 'owner',
             pg_catalog.pg_get_userbyid(owner), 'alter', alter) ORDER BY place, object), '[]')
      INTO problems
      FROM (
        SELECT 1 AS place, CASE c.relkind WHEN 'v' THEN 'view ' WHEN 'm' THEN 'materialized view ' ELSE 'table ' END
                 || c.oid::regclass AS object, c.relowner AS owner,
               CASE c.relkind WHEN 'v' THEN 'VIEW ' WHEN 'm' THEN 'MATERIALIZED VIEW ' ELSE 'TABLE ' END
                 || c.oid::regclass AS alter
          FROM pg_catalog.pg_class c WHERE c.oid = ANY (relations)
        UNION ALL
        SELECT 2, 'function ' || p.oid::regprocedure, p.proowner, 'FUNCTION ' || p.oid::regprocedure
          FROM pg_catalog.pg_proc p WHERE p.pronamespace = home AND p.proname = ANY (${functions})
        UNION ALL
        -- The function that a trigger calls, and those of its condition.
        SELECT 3, 'trigger ' || pg_catalog.quote_ident(t.tgname) || ' on ' || t.tgrelid::regclass, coalesce(p.proowner, o.oprowner), NULL
          FROM pg_catalog.pg_trigger t
          JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_trigger'::regclass AND d.objid = t.oid
          LEFT JOIN pg_catalog.pg_proc p ON d.refclassid = 'pg_catalog.pg_proc'::regclass AND p.oid = d.refobjid
          LEFT JOIN pg_catalog.pg_operator o ON d.refclassid = 'pg_catalog.pg_operator'::regclass AND o.oid = d.refobjid
         WHERE t.tgrelid = ANY (relations) AND NOT t.tgisinternal
           AND NOT (p.pronamespace = home AND p.proname = ANY (${functions})) IS TRUE
      ) found
     WHERE NOT owner = ANY (trusted);
  END IF;
  IF problems <> '[]' THEN
    report := pg_catalog.jsonb_build_object('use', use, 'role', current_user, 'problems', problems);
    ${otherwise}
  END IF;
END`;
  return sql`DO ${body.text};`;
}

function textArray(names: readonly string[]): SqlText {
  return sql`${`{${names.join(",")}}`}::text[]`;
}
