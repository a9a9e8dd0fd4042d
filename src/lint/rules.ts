/**
 * What would hurt a live database: the rules, each with why and with the safe way to write it. Most are those of squawk
 * and strong_migrations, where they concern the database and not taste.
 *
 * What a statement locks and rewrites: PostgreSQL documentation, 13.3 (explicit locking) and the page of each command.
 *
 * @module
 */

import type { RuleId } from "../migrations/allow.ts";

/** Who waits while a statement runs. */
export type Blocks = "nobody" | "writes" | "reads and writes";

/** A rule. */
export interface LintRule {
  /** Stable, for `-- pipeweave: allow` and for reports. */
  readonly id: string;
  /** Who waits while it runs; "nobody" if it hurts in another way. */
  readonly blocks: Blocks;
  /** Why it hurts; a sentence. */
  readonly why: string;
  /** The safe way; a sentence. */
  readonly safe: string;
}

const CONCURRENTLY = "in a migration of its own that has the line -- pipeweave: no-transaction at its start";
const EXPAND =
  "Add the new one beside it, let the application write both and then read the new one, and remove the old one in a later release.";

/** All rules, by id. */
export const LINT_RULES: Readonly<Record<RuleId, Omit<LintRule, "id">>> = {
  "index-not-concurrently": {
    blocks: "writes",
    why: "CREATE INDEX locks the table against writes until the index is built.",
    safe: `CREATE INDEX CONCURRENTLY, ${CONCURRENTLY}.`,
  },
  "drop-index-not-concurrently": {
    blocks: "nobody",
    why: "DROP INDEX waits for every query on the table, and all later ones queue behind it.",
    safe: `DROP INDEX CONCURRENTLY, ${CONCURRENTLY}.`,
  },
  "reindex-not-concurrently": {
    blocks: "reads and writes",
    why: "REINDEX locks the table against writes, and queries out of the index, until it is rebuilt.",
    safe: `REINDEX … CONCURRENTLY, ${CONCURRENTLY}.`,
  },
  "set-not-null": {
    blocks: "reads and writes",
    why: "SET NOT NULL reads the whole table while nobody else can use it.",
    safe:
      "ADD CONSTRAINT … CHECK (column IS NOT NULL) NOT VALID; in a later migration VALIDATE CONSTRAINT, and then SET NOT NULL, which now reads nothing (PostgreSQL 18: ADD CONSTRAINT … NOT NULL column NOT VALID, then VALIDATE).",
  },
  "add-required-column": {
    blocks: "reads and writes",
    why:
      "A NOT NULL column without a default fails where the table has rows, and so do inserts that do not know it.",
    safe: "Give it a constant DEFAULT, or add it nullable, fill it in batches, and set it NOT NULL later.",
  },
  "add-column-volatile-default": {
    blocks: "reads and writes",
    why: "A default that differs from row to row rewrites the table while nobody else can use it.",
    safe:
      "Add the column without a default, ALTER COLUMN … SET DEFAULT for new rows, and fill the old ones in batches.",
  },
  "add-generated-column": {
    blocks: "reads and writes",
    why: "A stored generated column rewrites the table while nobody else can use it.",
    safe:
      "A plain column filled by a trigger and, for old rows, in batches; or a VIRTUAL column (PostgreSQL 18).",
  },
  "change-column-type": {
    blocks: "reads and writes",
    why:
      "A change of type rewrites the table and its indexes while nobody else can use them, unless the new type only lifts a limit (varchar(10) to text).",
    safe: EXPAND,
  },
  "add-foreign-key": {
    blocks: "writes",
    why: "Adding a foreign key reads the whole table, while both tables are locked against writes.",
    safe: "ADD … NOT VALID, and VALIDATE CONSTRAINT in a later migration, which lets others write.",
  },
  "add-check": {
    blocks: "reads and writes",
    why: "Adding a CHECK reads the whole table while nobody else can use it.",
    safe: "ADD … NOT VALID, and VALIDATE CONSTRAINT in a later migration, which lets others write.",
  },
  "validate-in-same-transaction": {
    blocks: "reads and writes",
    why:
      "The lock of the ALTER TABLE before it holds until the end, so VALIDATE CONSTRAINT reads the table under it.",
    safe: "VALIDATE CONSTRAINT in a migration of its own.",
  },
  "add-unique-constraint": {
    blocks: "reads and writes",
    why: "A UNIQUE or PRIMARY KEY constraint builds its index while nobody else can use the table.",
    safe: `CREATE UNIQUE INDEX CONCURRENTLY, ${CONCURRENTLY}; then ADD CONSTRAINT … USING INDEX.`,
  },
  "add-exclusion-constraint": {
    blocks: "reads and writes",
    why:
      "An EXCLUDE constraint builds its index while nobody else can use the table, and cannot be built otherwise.",
    safe: "Add it in maintenance: -- pipeweave: requires maintenance",
  },
  "rename-table": {
    blocks: "nobody",
    why: "Queries of the release that is running fail from this moment on.",
    safe:
      "Rename, and in the same migration CREATE VIEW with the old name for the old release; drop the view in a later one.",
  },
  "rename-column": {
    blocks: "nobody",
    why: "Queries of the release that is running fail from this moment on.",
    safe: EXPAND,
  },
  "drop-table": {
    blocks: "nobody",
    why: "Queries of the release that is running fail from this moment on, and the rows are gone.",
    safe:
      "Drop it when no running release uses it any more, and say so: -- pipeweave: allow drop-table <reason>",
  },
  "drop-view": {
    blocks: "nobody",
    why: "Queries of the release that is running fail from this moment on.",
    safe:
      "Make it again in the same migration, or drop it when no running release uses it any more: -- pipeweave: allow drop-view <reason>",
  },
  "drop-column": {
    blocks: "nobody",
    why: "Queries of the release that is running fail from this moment on, and the values are gone.",
    safe:
      "Drop it when no running release uses it any more, and say so: -- pipeweave: allow drop-column <reason>",
  },
  "truncate": {
    blocks: "reads and writes",
    why:
      "TRUNCATE removes all rows, and with CASCADE those of other tables, and waits for every query on them.",
    safe: "DELETE in batches, or say why it is right: -- pipeweave: allow truncate <reason>",
  },
  "whole-table-change": {
    blocks: "writes",
    why: "An UPDATE or DELETE of all rows locks each of them until the end, and leaves a dead copy of each.",
    safe:
      "Batches of some thousand rows, each committed: a procedure with COMMIT, called in a migration marked no-transaction.",
  },
  "work-under-lock": {
    blocks: "reads and writes",
    why:
      "The lock of a statement before it is held until the end, so others cannot use that table while this one works.",
    safe: "Do the work in a migration of its own.",
  },
  "lock-after-lock": {
    blocks: "nobody",
    why:
      "It waits for one table while it holds the lock of another: queries on that one wait too, and two such migrations can deadlock.",
    safe: "One table a migration.",
  },
  "lock-table": {
    blocks: "reads and writes",
    why: "LOCK TABLE keeps others out until the end of the migration.",
    safe:
      "A weaker mode (IN SHARE ROW EXCLUSIVE MODE lets others read), or maintenance: -- pipeweave: requires maintenance",
  },
  "rewrite-table": {
    blocks: "reads and writes",
    why: "It rewrites the table while nobody else can use it.",
    safe:
      "pg_repack or pg_squeeze, which let others work; or maintenance: -- pipeweave: requires maintenance",
  },
  "refresh-not-concurrently": {
    blocks: "reads and writes",
    why: "REFRESH MATERIALIZED VIEW keeps readers out until it is done.",
    safe: "REFRESH MATERIALIZED VIEW CONCURRENTLY, which needs a unique index on the view.",
  },
  "attach-partition": {
    blocks: "reads and writes",
    why:
      "ATTACH PARTITION reads the whole new partition under its lock, unless a CHECK already proves where it belongs.",
    safe:
      "First ADD CONSTRAINT … CHECK (the partition's bounds) NOT VALID and VALIDATE it on the table to be attached.",
  },
  "detach-not-concurrently": {
    blocks: "nobody",
    why: "DETACH PARTITION locks the whole partitioned table.",
    safe: `DETACH PARTITION … CONCURRENTLY, ${CONCURRENTLY}.`,
  },
  "json-column": {
    blocks: "nobody",
    why: "json has no equality: SELECT DISTINCT, GROUP BY and UNION over the table's rows fail.",
    safe: "jsonb.",
  },
  "change-domain": {
    blocks: "writes",
    why: "Every table with a column of the domain is locked against writes and read through.",
    safe:
      "ADD CONSTRAINT … NOT VALID, and VALIDATE CONSTRAINT in maintenance: -- pipeweave: requires maintenance",
  },
  "create-partition": {
    blocks: "nobody",
    why:
      "CREATE TABLE … PARTITION OF waits for every query on the partitioned table, and reads its default partition where there is one.",
    safe: "CREATE TABLE … (LIKE …), and ATTACH PARTITION, which lets others read and write.",
  },
  "create-trigger": {
    blocks: "nobody",
    why:
      "It waits for every writer, and from then on each write runs it, also those of the release that is running.",
    safe: "In a migration of its own, and say so: -- pipeweave: allow create-trigger <reason>",
  },
  "drop-cascade": {
    blocks: "nobody",
    why:
      "CASCADE drops what depends on it, tables' columns and defaults among it, and their values are gone.",
    safe: "Drop what depends on it by name, then the object itself without CASCADE.",
  },
  "drop-database": {
    blocks: "nobody",
    why: "The database is gone, whoever uses it.",
    safe: "By hand, and not in a migration.",
  },
  "lock-timeout-off": {
    blocks: "nobody",
    why:
      "Without a limit a statement that waits for a lock keeps all others waiting behind it, for as long as it takes.",
    safe: "The directive -- pipeweave: lock-timeout with a limit that others can bear.",
  },
  "rename-enum-value": {
    blocks: "nobody",
    why: "The release that is running reads and writes the old name, and fails.",
    safe: "ADD VALUE, let the application use it, and leave the old one.",
  },
  "row-level-security": {
    blocks: "nobody",
    why: "Rows vanish for every role but the owner that no policy lets see them, from this moment on.",
    safe:
      "CREATE POLICY first, in the same migration, and say so: -- pipeweave: allow row-level-security <reason>",
  },
  "foreign-key-without-index": {
    blocks: "nobody",
    why:
      "Every DELETE of a referenced row, and every UPDATE of its key, reads the whole referencing table: no index begins with the foreign key's columns.",
    safe: `CREATE INDEX CONCURRENTLY on the foreign key's columns, ${CONCURRENTLY}.`,
  },
  "long-identifier": {
    blocks: "nobody",
    why:
      "PostgreSQL cuts names after 63 bytes without failing, so what has this name is found under another, and two long names may be one.",
    safe: "A name of 63 bytes or less.",
  },
  "unused-allow": {
    blocks: "nobody",
    why: "It accepts nothing: what it was for is gone, or it does not stand right before its statement.",
    safe: "Remove it, or move it; for a whole file: -- pipeweave: allow-file <rule> <reason>",
  },
  "unseen-code": {
    blocks: "nobody",
    why: "What it locks and rewrites is known when it runs, and not before.",
    safe: "Write the statements outside of the block, or look at what they do: db:migrate --dry-run=execute",
  },
};

/** A rule with its name. */
export function ruleOf(id: RuleId): LintRule {
  return { id, ...LINT_RULES[id] };
}

/** Rules whose safe way is maintenance. */
export const IN_MAINTENANCE: ReadonlySet<RuleId> = new Set<RuleId>([
  ...["add-exclusion-constraint", "change-domain", "lock-table", "rewrite-table"] as const,
]);
