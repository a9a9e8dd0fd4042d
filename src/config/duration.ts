/**
 * Durations as people type them: `500ms`, `30s`, `10m`, `2h`.
 *
 * @module
 */

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** The longest duration taken: what a timer of the platform can hold (2^31 - 1 ms, 24.8 days). */
export const MAX_DURATION_MS = 2 ** 31 - 1;

/**
 * Reads a duration; `0` needs no unit, any other number does.
 *
 * @returns milliseconds, or undefined when the text is not a duration
 */
export function parseDuration(text: string): number | undefined {
  if (text === "0") return 0;
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text);
  if (!match) return undefined;
  const ms = Math.round(Number(match[1]) * UNITS[match[2]!]!);
  return ms <= MAX_DURATION_MS ? ms : undefined;
}

/** Writes a duration in the largest unit that keeps it readable: `45ms`, `1.2s`, `3m 20s`, `2h 5m`. */
export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)}ms`;
  if (ms < 59_950) return `${Math.round(ms / 100) / 10}s`;
  const seconds = Math.round(ms / 1000);
  const [hours, minutes, rest] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const parts = hours > 0 ? [[hours, "h"], [minutes, "m"]] : [[minutes, "m"], [rest, "s"]];
  return parts.filter(([value]) => value !== 0).map(([value, unit]) => `${value}${unit}`).join(" ");
}
