/**
 * `maintenance:watch`: a screen that follows the mode, and two keys to change it.
 *
 * @module
 */

import { interrupted, messageOf } from "../errors.ts";
import type { Session } from "../database/session.ts";
import { sql } from "../database/sql.ts";
import { logRowOf, logStatement } from "../maintenance/log.ts";
import { maintenanceStatus } from "../maintenance/status.ts";
import { type ChangeOptions, lookWith } from "../maintenance/state.ts";
import { listStatement, taskOf } from "../maintenance/tasks.ts";
import { Bell } from "../maintenance/wait.ts";
import { type Counts, watchScreen, watchSnapshot, type WatchView } from "../output/watch.ts";
import { ownerOptions } from "./drain.ts";
import type { Invocation } from "./invocation.ts";
import { migratedSession } from "./migrate.ts";

/** Pause between two looks, in milliseconds; a screen is watched by people. */
const EVERY_MS = 1000;
/** Looks that are kept for the chart. */
const KEPT = 600;
const LISTED = 100;
/** The alternate screen, without a cursor; and back. */
const [ENTER, LEAVE] = ["\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"];
const CTRL_C = "\x03";

/** Runs the command. */
export async function runWatch(invocation: Invocation): Promise<void> {
  const { world } = invocation;
  const once = invocation.options["once"] === true || invocation.json;
  if (!once && !(world.keys && world.outIsTerminal)) {
    invocation.problem("--once is needed where there is no terminal to draw on and to read keys from");
  }
  const request = ownerOptions(invocation);
  const bell = new Bell();
  const session = await migratedSession(invocation, bell.ring);
  const counts: Counts[] = [];
  const look = async (): Promise<WatchView> => {
    const { schema } = session.settings;
    const lists = sql`${listStatement(schema, { limit: LISTED })}${logStatement(schema, LISTED)}`;
    const { state, more: [tasks = [], log = []] } = await lookWith(session, request, lists);
    const status = maintenanceStatus(state);
    counts.push({ running: status.runningTasks, pending: status.pendingTasks });
    if (counts.length > KEPT) counts.shift();
    return { status, tasks: tasks.map(taskOf), log: log.map(logRowOf), counts, everyMs: EVERY_MS };
  };
  if (once) {
    const view = await look();
    const { status, tasks, log } = view;
    return invocation.result(
      () => ({ ...status, tasks, history: log }),
      () => watchSnapshot(view, invocation.reportColumns),
    );
  }

  let quits = false;
  let pressed: string | undefined;
  const release = world.keys!((key) => {
    quits ||= key === "q" || key === CTRL_C;
    pressed = key;
    bell.ring();
  });
  world.out(ENTER);
  try {
    let view = await look();
    while (!quits) {
      const { columns, rows } = world.size();
      // Drawn over line by line: a screen that is cleared first flickers.
      const lines = watchScreen(view, columns, rows).map((line) => `${line}\x1b[K`);
      world.out(`\x1b[H${lines.join("\r\n")}\x1b[J`);
      await bell.wait(EVERY_MS, invocation.signal);
      const note = await act(session, pressed, request).catch(messageOf);
      pressed = undefined;
      const last = view;
      view = await look().then((seen) => ({ ...seen, note }), (error: unknown) => {
        if (invocation.signal.aborted) throw interrupted("Interrupted");
        // What is shown is what was read last, and it says so.
        return { ...last, note: `Not up to date: ${messageOf(error)}` };
      });
    }
  } finally {
    world.out(LEAVE);
    release();
  }
}

/** Does what a key asks for, and tells what came of it. */
async function act(
  session: Session,
  key: string | undefined,
  request: ChangeOptions,
): Promise<string | undefined> {
  if (key !== "r" && key !== "x") return undefined;
  const { requestMaintenance, exitMaintenance } = await import("../commands/maintenance.ts");
  // The screen is not the place for a line of progress.
  const options = { ...request, onLockWait: () => {} };
  const { message } = key === "r"
    ? await requestMaintenance(session, options)
    : await exitMaintenance(session, options);
  return message;
}
