/**
 * The state machine of maintenance, as a table: TypeScript decides by it in tests, PostgreSQL in earnest.
 *
 *     running ──request──▶ waiting_for_maintenance ──nothing active──▶ maintenance
 *        ▲                          │                                       │
 *        └───────────exit───────────┴──────────────────exit─────────────────┘
 *
 * A request with nothing active enters at once. A wait whose time to live has run out counts as `running`, whatever is
 * stored.
 *
 * @module
 */

import { sql, SqlText } from "../database/sql.ts";

/** What the orchestrator does with tasks. */
export type OrchestratorMode = "running" | "waiting_for_maintenance" | "maintenance";

export const MODES: readonly OrchestratorMode[] = ["running", "waiting_for_maintenance", "maintenance"];

/** What a command wants; `look` completes what is due and nothing else. */
export type Intent = "look" | "request" | "enter" | "exit";

/** One arrow: where it leads from a mode, and whether active tasks stand in its way. */
interface Transition {
  readonly from: OrchestratorMode;
  readonly to: OrchestratorMode;
  readonly onlyWhenIdle: boolean;
}

const ENTER: Transition = { from: "waiting_for_maintenance", to: "maintenance", onlyWhenIdle: true };

/** The arrows of each intent, the first that applies wins; where none does, the mode stays. */
export const TRANSITIONS: Readonly<Record<Intent, readonly Transition[]>> = {
  look: [ENTER],
  enter: [ENTER],
  request: [
    { from: "running", to: "maintenance", onlyWhenIdle: true },
    { from: "running", to: "waiting_for_maintenance", onlyWhenIdle: false },
    ENTER,
  ],
  exit: [
    { from: "waiting_for_maintenance", to: "running", onlyWhenIdle: false },
    { from: "maintenance", to: "running", onlyWhenIdle: false },
  ],
};

/** What decides a transition, beside the intent. */
export interface Situation {
  /** As stored. */
  readonly mode: OrchestratorMode;
  /** Tasks that the drain waits for. */
  readonly blockers: number;
  /** Whether the wait's time to live has run out. */
  readonly expired: boolean;
}

/** The mode that counts. */
export function effectiveMode({ mode, expired }: Pick<Situation, "mode" | "expired">): OrchestratorMode {
  return mode === "waiting_for_maintenance" && expired ? "running" : mode;
}

/** The mode that follows. */
export function nextMode(intent: Intent, situation: Situation): OrchestratorMode {
  const mode = effectiveMode(situation);
  const arrow = TRANSITIONS[intent].find(({ from, onlyWhenIdle }) =>
    from === mode && (!onlyWhenIdle || situation.blockers === 0)
  );
  return arrow?.to ?? mode;
}

/** {@linkcode effectiveMode} as an SQL expression over two others. */
export function effectiveModeSql(mode: SqlText, expired: SqlText): SqlText {
  return sql`CASE WHEN ${mode} = 'waiting_for_maintenance' AND ${expired} THEN 'running' ELSE ${mode} END`;
}

/** {@linkcode nextMode} as an SQL expression over two others; the mode is the effective one. */
export function nextModeSql(intent: Intent, mode: SqlText, blockers: SqlText): SqlText {
  const arms = TRANSITIONS[intent].map(({ from, to, onlyWhenIdle }) =>
    sql` WHEN ${mode} = ${from}${onlyWhenIdle ? sql` AND ${blockers} = 0` : sql``} THEN ${to}`.text
  );
  return sql`CASE${new SqlText(arms.join(""))} ELSE ${mode} END`;
}
