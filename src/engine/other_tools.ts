/**
 * Histories that other migration tools keep in a database.
 *
 * @module
 */

import type { Session } from "../database/session.ts";
import { sql, SqlText } from "../database/sql.ts";

/** Tables of other tools, with a column by which each is told from a table of the user's, and whose they are. */
const TABLES: readonly (readonly [table: string, column: string, tool: string])[] = [
  ["goose_db_version", "version_id", "goose"],
  ["flyway_schema_history", "installed_rank", "Flyway"],
  ["_sqlx_migrations", "checksum", "sqlx"],
  ["_prisma_migrations", "migration_name", "Prisma"],
  ["pgmigrations", "run_on", "node-pg-migrate"],
  ["knex_migrations", "migration_time", "knex"],
  ["gorp_migrations", "applied_at", "sql-migrate"],
  ["databasechangelog", "orderexecuted", "Liquibase"],
  ["__diesel_schema_migrations", "run_on", "Diesel"],
  ["atlas_schema_revisions", "description", "Atlas"],
  ["alembic_version", "version_num", "Alembic"],
  ["django_migrations", "app", "Django"],
  ["SequelizeMeta", "name", "Sequelize"],
  ["__drizzle_migrations", "hash", "Drizzle"],
  ["schema_version", "version", "tern or Flyway"],
  ["schema_migration", "version", "pop"],
  ["ar_internal_metadata", "key", "Rails"],
];

/** A table in which another tool keeps what it has applied. */
export interface OtherHistory {
  /** Schema and name. */
  readonly table: string;
  /** Its name. */
  readonly tool: string;
}

/** Looks for histories of other tools, in every schema. */
export async function findOtherHistory(session: Session): Promise<readonly OtherHistory[]> {
  const known = new SqlText(TABLES.map((row) => sql`(${row[0]}, ${row[1]}, ${row[2]})`.text).join(", "));
  const [rows = []] = await session.transaction(sql`
    SELECT format('%I.%I', n.nspname, c.relname) AS name, k.tool
      FROM (VALUES ${known}, ('migrations', 'hash', 'graphile-migrate')) k(name, col, tool)
      JOIN pg_class c ON c.relname = k.name AND c.relkind IN ('r', 'p') JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE (k.name <> 'migrations' OR n.nspname = 'graphile_migrate')
       AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = k.col AND NOT a.attisdropped)
     ORDER BY 1;`);
  return rows.map((row) => ({ table: String(row["name"]), tool: String(row["tool"]) }));
}
