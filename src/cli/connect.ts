/**
 * From a command's options to a session with the database.
 *
 * @module
 */

import { type ConnectionSettings, decideConnection, describeTarget } from "../config/connection.ts";
import { osUserOf } from "../config/environment.ts";
import { applicationName } from "../config/version.ts";
import type { Session } from "../database/session.ts";
import type { Input } from "./input.ts";
import { PROJECT_FILE } from "./project_file.ts";
import type { Terminal } from "./terminal.ts";

/**
 * A session with the database that the options name, for `await using`. It connects when it is first used.
 *
 * @param overrides settings that the command decides
 * @param onNotify told of notifications, where the command listens
 * @throws {PipeweaveError} of kind `usage` when settings are wrong
 */
export async function connect(
  input: Input,
  terminal: Terminal,
  overrides: Partial<ConnectionSettings> = {},
  onNotify?: () => void,
): Promise<Session> {
  const decision = decide(input);
  if (!decision.ok) noteProblems(input, decision.problems);
  input.assertUsable();
  if (!decision.ok) throw new Error("unreachable: problems were thrown");
  for (const warning of decision.warnings) terminal.warn(warning);
  if (input.world.env["AUTO_INIT_DB"]) {
    terminal.warn("AUTO_INIT_DB is no longer read; use AUTO_MIGRATE=true (development only)");
  }
  return await openSession(terminal, { ...decision.settings, ...overrides }, {
    signal: input.signal,
    onNotify,
  });
}

/** A session with other settings. @param signal ends what runs in it */
export async function openSession(
  terminal: Terminal,
  settings: ConnectionSettings,
  { signal, onNotify }: {
    readonly signal?: AbortSignal | undefined;
    readonly onNotify?: (() => void) | undefined;
  },
): Promise<Session> {
  // Loaded here, since `--version`, `--help` and offline work need no driver.
  const { Session } = await import("../database/session.ts");
  return new Session(settings, {
    signal,
    onNotify: () => onNotify?.(),
    onWait: (reason) => terminal.progress.update(`Waiting for the database: ${reason}`),
    onNotice: ({ severity, code, message, detail, hint }) => {
      const more = [detail, hint].filter(Boolean).join(" ");
      const text = more ? `${message} (${more})` : message;
      // "… already exists, skipping" is what safe-to-repeat migrations are made of.
      const expected = code.startsWith("42") || message.endsWith(", skipping");
      if (severity === "WARNING") terminal.warn(text);
      else if (terminal.verbose || !expected) terminal.note(`${severity.toLowerCase()}: ${text}`);
    },
  });
}

/** As {@linkcode connect} where the files are to be held against a database; undefined where nobody named one, or with `--offline`. */
export async function connectUnlessOffline(input: Input, terminal: Terminal): Promise<Session | undefined> {
  const isWanted = !input.has("--offline") && decide(input).configured;
  input.assertUsable();
  return isWanted ? await connect(input, terminal) : undefined;
}

/** Notes what is wrong with the connection's settings, so that it is told with all else. */
export function checkConnection(input: Input): void {
  if (!input.declares("--url")) return;
  const decision = decide(input);
  if (!decision.ok) noteProblems(input, decision.problems);
}

/**
 * The database that is meant, without its password, and what names it.
 *
 * @throws {PipeweaveError} of kind `usage` when settings are wrong
 */
export function describeConnection(input: Input): { readonly target: string; readonly source: string } {
  const decision = decide(input);
  if (!decision.ok) noteProblems(input, decision.problems);
  input.assertUsable();
  if (!decision.ok) throw new Error("unreachable: problems were thrown");
  const target = input.text("--target");
  return {
    target: describeTarget(decision.settings),
    source: target !== undefined ? `${PROJECT_FILE}, target ${target}` : decision.namedBy ?? "default",
  };
}

function targetProblem(input: Input, target: string): string | undefined {
  if (input.text("--url") !== undefined) return "--target and --url exclude each other";
  if (input.targets.has(target)) return undefined;
  const names = [...input.targets.keys()];
  return names.length === 0
    ? `--target needs targets in ${PROJECT_FILE} in this folder`
    : `--target must be one of ${names.join(", ")}`;
}

function noteProblems(input: Input, problems: readonly string[]): void {
  for (const problem of problems) input.problem(problem);
}

function decide(input: Input): ReturnType<typeof decideConnection> {
  const { env, readFile } = input.world;
  const target = input.text("--target");
  const problem = target === undefined ? undefined : targetProblem(input, target);
  if (problem !== undefined) return { ok: false, configured: true, problems: [problem] };
  return decideConnection({
    url: target === undefined ? input.text("--url") : input.targets.get(target),
    host: input.text("--host"),
    port: input.text("--port"),
    database: input.text("--database"),
    user: input.text("--user"),
    password: input.text("--password"),
    ssl: input.has("--ssl"),
    sslmode: input.text("--sslmode"),
    sslrootcert: input.text("--sslrootcert"),
    schema: input.text("--schema"),
    connectTimeoutMs: input.duration("--connect-timeout"),
    waitForDbMs: input.duration("--wait-for-db"),
  }, { env, readFile, osUser: osUserOf(env), applicationName: applicationName(input.command) });
}
