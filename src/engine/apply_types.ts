/**
 * What applying migrations is told, and what it tells.
 *
 * @module
 */

import type { Actor } from "../config/actor.ts";
import type { SqlText } from "../database/sql.ts";
import type { PipeweaveError } from "../errors.ts";
import type { Migration } from "../migrations/migration.ts";
import type { MigrationStatus, Tolerance } from "../migrations/plan.ts";
import type { Activity } from "./activity.ts";
import type { LockWaitOptions } from "./lock_wait.ts";
import type { Limits } from "./message.ts";

/** A migration that was applied by this run. */
export interface AppliedNow {
  /** The migration. */
  readonly migration: Migration;
  /** Milliseconds, as the server measured and recorded them; null when only the history told that it is applied. */
  readonly executionTimeMs: number | null;
  /** When its transaction began; null when only the history told. */
  readonly appliedAt: Date | null;
}

/** A migration that was not applied. */
export interface FailedMigration {
  /** What failed. */
  readonly migration: Migration;
  /** The error, with its place in the file. */
  readonly error: PipeweaveError;
  /** The state that it is in now, in a sentence. */
  readonly left: string;
}

/** Result of applying migrations. What was applied stays applied, also if a later migration failed. */
export interface ApplyResult {
  /** In the order in which they were applied. */
  readonly applied: readonly AppliedNow[];
  /** The migration that failed, why, and what is left of it. */
  readonly failed: FailedMigration | null;
  /** Where the database stands now. */
  readonly status: MigrationStatus;
}

/** What has to hold while migrations are applied. */
export interface RunCondition {
  /** Fails where it does not hold any more; keeps it from ending before the transaction has ended. */
  readonly statement: SqlText;
  /** The SQLSTATEs that it fails with. */
  readonly sqlstates: readonly string[];
  /** The error that ends the run then. */
  readonly error: (migration: Migration, sqlstate: string) => PipeweaveError;
}

/** What to heed, and whom to tell. */
export interface ApplyOptions extends Limits, LockWaitOptions {
  /** How often a migration is tried again when a lock was not free in time. Default: 20 */
  readonly lockRetries?: number | undefined;
  /** Limit for all of it, in milliseconds: what runs then is cancelled, and no attempt starts after that. Default: none */
  readonly timeoutMs?: number | undefined;
  /** What may be overlooked in the history. */
  readonly tolerance?: Tolerance;
  /** The last version to apply. Default: all */
  readonly to?: string | undefined;
  /** Who applies, for the log. */
  readonly actor?: Actor | undefined;
  /** What the log notes beside a migration. */
  readonly detailsOf?: (migration: Migration) => Readonly<Record<string, unknown>> | undefined;
  /**
   * How long the turn of a run outside a transaction stays its own without a sign of life, in milliseconds.
   * Default: 30 000
   */
  readonly leaseMs?: number | undefined;
  /** Told before each migration. */
  readonly onApplying?: (migration: Migration) => void;
  /** Told after each migration was committed. */
  readonly onApplied?: (applied: AppliedNow) => void;
  /** Told once a second what a migration is at, when it takes longer than that. */
  readonly onActivity?: (migration: Migration, activity: Activity) => void;
  /** Told what is worth knowing of a migration besides. */
  readonly onNote?: (migration: Migration, text: string) => void;
  /** Told when another migrator turns out to apply what was announced. */
  readonly onTaken?: (migration: Migration) => void;
  /** Told before a migration is tried again. */
  readonly onRetry?: (migration: Migration, reason: string) => void;
  /** Ends what runs: the server rolls it back. */
  readonly signal?: AbortSignal | undefined;
}

/** {@linkcode ApplyOptions}, and what has to hold. */
export interface ConditionalOptions extends ApplyOptions {
  /** Checked in a migration's own transaction. Default: none */
  readonly conditionOf?: (migration: Migration) => RunCondition | undefined;
}
