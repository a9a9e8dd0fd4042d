/**
 * Settings of PipeWeave 1.x's orchestrator, which ran the tasks itself.
 *
 * @module
 */

/** Settings that are taken, so that an old configuration still compiles, and are not used. */
export interface RetiredSettings {
  /** Where task inputs were stored. */
  readonly storageBackends?: unknown;
  /** Which of them was the default. */
  readonly defaultStorageBackendId?: unknown;
  /** Signed the tokens of uploads. */
  readonly secretKey?: unknown;
  /** `standalone` or `serverless`. */
  readonly mode?: unknown;
  /** Tasks at once. */
  readonly maxConcurrency?: unknown;
  /** Milliseconds between two looks for tasks. */
  readonly pollIntervalMs?: unknown;
  /** Days that entries of the dead letter queue were kept: give them to `cleanup()`. */
  readonly dlqRetentionDays?: unknown;
  /** Seconds that results were cached. */
  readonly idempotencyTTLSeconds?: unknown;
  /** The longest pause before a retry. */
  readonly maxRetryDelayMs?: unknown;
  /** How much was logged. */
  readonly logLevel?: unknown;
}

/**
 * Names the settings that a program gives and nothing reads: those of 1.x, and any that nobody knows.
 *
 * @param config as it was given
 * @param known the settings that are used
 */
export function unusedSettings(config: object, known: ReadonlySet<string>): readonly string[] {
  return Object.entries(config)
    .filter(([name, value]) => value !== undefined && !known.has(name))
    .map(([name]) => name);
}
