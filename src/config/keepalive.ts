/**
 * How long a silent server is waited for: libpq's keepalive parameters (PostgreSQL documentation, 32.1.2), which time the
 * looks of database/liveness.ts.
 *
 * @module
 */

/** When a silent server is looked at, and when it is given up; in milliseconds. */
export interface Patience {
  /** Silence before the first look. */
  readonly idleMs: number;
  /** From one look that failed to the next. */
  readonly intervalMs: number;
  /** From the last sign of life to the end. */
  readonly limitMs: number;
}

/** Where libpq leaves it to the operating system (hours, on most), these apply; in seconds, and looks. */
const DEFAULTS = { idle: 10, interval: 5, count: 3 } as const;

/**
 * Reads the parameters. `keepalives_idle` seconds of silence bring the first look, `keepalives_count` that fail,
 * `keepalives_interval` seconds apart, the end; `tcp_user_timeout` milliseconds bound it all; 0 is the default of each.
 *
 * @param get returns a parameter's text
 * @param wrong told of a parameter that is not a whole number
 * @returns undefined where `keepalives=0` turns the looks off
 */
export function decidePatience(
  get: (keyword: string) => string | undefined,
  wrong: (keyword: string, problem: string) => void,
): Patience | undefined {
  const number = (keyword: string, fallback: number): number => {
    const text = get(keyword);
    if (text === undefined) return fallback;
    if (!/^-?\d{1,9}$/.test(text)) {
      wrong(keyword, `must be a whole number, not "${text}"`);
      return fallback;
    }
    return Math.max(0, Number(text)) || fallback;
  };
  const isOff = Number(get("keepalives") ?? 1) === 0;
  number("keepalives", 1);
  const idleMs = 1000 * number("keepalives_idle", DEFAULTS.idle);
  const intervalMs = 1000 * number("keepalives_interval", DEFAULTS.interval);
  const limitMs = Math.min(
    idleMs + intervalMs * number("keepalives_count", DEFAULTS.count),
    number("tcp_user_timeout", Infinity),
  );
  if (isOff) return undefined;
  return { idleMs: Math.min(idleMs, limitMs), intervalMs, limitMs };
}
