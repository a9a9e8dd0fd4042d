/**
 * Errors as text, for stderr.
 *
 * @module
 */

import { messageOf, PipeweaveError } from "../errors.ts";
import { printableLines } from "../printable.ts";

/** How to print. */
export interface ErrorTextOptions {
  /** Adds the stack trace and what the error followed from. */
  readonly verbose: boolean;
  /** Paints the word "error". */
  readonly paint: (text: string) => string;
}

/** An error with everything that is known of it, and what to do next. */
export function formatError(error: unknown, { verbose, paint }: ErrorTextOptions): string {
  const trace = verbose && error instanceof Error ? ["", error.stack ?? "", ...causes(error)] : [];
  if (!(error instanceof PipeweaveError)) {
    const hint = "  next: this should not happen; run it again with --verbose, and report what it prints";
    return [`${paint("error:")} ${printableLines(messageOf(error))}`, hint, ...trace].join("\n");
  }
  const { hint, sqlstate, detail, serverHint, context, location, problems } = error.details;
  const indented = (name: string, text: string | undefined) =>
    text ? [`  ${name}: ${printableLines(text).replaceAll("\n", "\n    ")}`] : [];
  return [
    `${paint("error:")} ${printableLines(error.message)}`,
    ...(location
      ? [`  at ${location.file}:${location.line}:${location.column}`, printableLines(location.excerpt)]
      : []),
    ...(problems ?? []).map((problem) => `  - ${printableLines(problem).replaceAll("\n", "\n  ")}`),
    ...indented("SQLSTATE", sqlstate),
    ...indented("DETAIL", detail),
    ...indented("HINT", serverHint),
    ...indented("CONTEXT", context),
    ...indented("next", hint),
    ...trace,
  ].join("\n");
}

function causes(error: Error): string[] {
  const { cause } = error;
  return cause instanceof Error ? [`caused by: ${cause.stack ?? cause.message}`, ...causes(cause)] : [];
}
