/**
 * Whether a server that does not answer is still there and still at work, looked at from a second connection.
 *
 * A connection whose other side is gone without a word (a firewall or load balancer that forgot it, a host that lost
 * its power) says nothing, like one whose server is busy. TCP's keepalive would tell them apart, but the runtime does not
 * let its times be set. The second connection tells more: whether the server is reachable at all, and whether its
 * process for this session still works. The times are those of libpq's keepalive parameters (config/keepalive.ts).
 *
 * @module
 */

import { formatDuration } from "../config/duration.ts";
import type { Patience } from "../config/keepalive.ts";
import { messageOf } from "../errors.ts";
import type { Link, Row } from "./link.ts";
import { LONGEST_TIMER_MS } from "./sleep.ts";
import { sql, type SqlText } from "./sql.ts";

/** How long after a deadline a server that is silent is waited for, in milliseconds. */
export const GRACE_MS = 2000;

/** What a look found. */
export type Sign =
  /** It works on what it was sent, or cannot be told apart behind a pooler. */
  | "alive"
  /** It has nothing to do for us, or is no more. */
  | "done"
  /** It could not be asked. */
  | { readonly unreachable: string };

/** Why a connection counts as lost. */
export interface Loss {
  readonly reason: string;
  /** Whether nothing answers over another connection either. */
  readonly isUnreachable: boolean;
}

/** Asks about a server process over another connection. */
export interface Looker {
  /** @param limitMs for an answer */
  look(key: Uint8Array | undefined, limitMs: number): Promise<Sign>;
  /** Ends the other connection. */
  close(): Promise<void>;
}

/** The statement of a look: whether the process with this id is at work, and who answers. */
export function lookStatement(pid: number): SqlText {
  // "Client": it waits for us, to send or to take something.
  return sql`SELECT pg_backend_pid() AS answering,
    (SELECT a.state = 'active' AND a.wait_event_type IS DISTINCT FROM 'Client' OR a.state = 'disabled'
       FROM pg_stat_activity a WHERE a.pid = ${pid}::int) AS works;`;
}

/**
 * Reads the answer to {@linkcode lookStatement}.
 *
 * @param answering the process that the second connection was told of; a pooler tells another one than answers
 */
export function signOf(row: Row | undefined, answering: number | undefined): Sign {
  if (!row || row["answering"] !== answering) return "alive";
  return row["works"] === true ? "alive" : "done";
}

/**
 * Watches over a link until it ends.
 *
 * @param deadline when patience ends in any case, in milliseconds of the epoch
 * @param onSilence told how long nothing was heard, and why the look failed
 * @returns why it counts as lost; undefined when it has ended otherwise
 */
export async function watchOver(
  link: Link,
  looker: Looker,
  patience: Patience,
  { deadline, onSilence }: {
    readonly deadline: () => number;
    readonly onSilence: (text: string) => void;
  },
): Promise<Loss | undefined> {
  /** Waits, and ends early when a first message is sent, the deadline changes or the link has ended. */
  const pause = (ms: number) =>
    new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, Math.min(ms, LONGEST_TIMER_MS));
      link.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  const { idleMs, intervalMs, limitMs } = patience;
  let proven = 0;
  /** Bytes at the time of a look that found the server done with us. */
  let doneAt: number | undefined;
  for (;;) {
    if (link.lost) {
      await looker.close();
      return undefined;
    }
    if (link.inFlight === 0) {
      await looker.close();
      doneAt = undefined;
      if (link.inFlight === 0) await pause(Infinity);
      continue;
    }
    const heard = Math.max(link.answeredAt, proven);
    // A deadline that has passed already was for what came before.
    const last = deadline() > heard ? deadline() : Infinity;
    const due = Math.min(heard + idleMs, last) + (doneAt === undefined ? 0 : intervalMs);
    if (Date.now() < due) {
      await pause(due - Date.now());
      continue;
    }
    const end = Math.min(heard + limitMs, last + GRACE_MS);
    const sign = await looker.look(link.backendKey, Math.max(end - Date.now(), 1));
    if (link.inFlight === 0 || link.lost) continue;
    if (Math.max(link.answeredAt, proven) > heard) {
      // Answers came meanwhile.
      doneAt = undefined;
    } else if (sign === "alive") {
      proven = Date.now();
      doneAt = undefined;
    } else if (sign === "done") {
      // Its answer may be on its way; one of many bytes may take its time.
      if (doneAt === link.received) {
        await looker.close();
        return { reason: "the server is done with it, and its answer did not arrive", isUnreachable: false };
      }
      doneAt = link.received;
    } else {
      const silence = formatDuration(Math.round((Date.now() - link.answeredAt) / 1000) * 1000);
      if (Date.now() >= end) {
        return {
          reason: `no answer for ${silence}, and no other connection: ${sign.unreachable}`,
          isUnreachable: true,
        };
      }
      onSilence(`No answer for ${silence}, and no other connection: ${sign.unreachable}`);
      await pause(Math.min(intervalMs, end - Date.now()));
    }
  }
}

/** The sign of a look that failed. */
export function unreachable(error: unknown): Sign {
  return { unreachable: messageOf(error) };
}
