/**
 * Errors as text, for stderr.
 *
 * @module
 */

import { messageOf, PipeweaveError } from "../errors.ts";
import { printableLines } from "../printable.ts";
import { flowed, type Page } from "./page.ts";

/** How to print. */
export interface ErrorTextOptions {
  /** Adds the stack trace and what the error followed from. */
  readonly verbose: boolean;
  readonly page: Page;
}

/** An error with everything that is known of it, and what to do next. */
export function formatError(
  error: unknown,
  { verbose, page: { columns, style: { bad, strong } } }: ErrorTextOptions,
): string {
  // A trace is copied into a report: it stays as it is.
  const trace = verbose && error instanceof Error ? ["", error.stack ?? "", ...causes(error)] : [];
  if (!(error instanceof PipeweaveError)) {
    const hint = "  next: this should not happen; run it again with --verbose, and report what it prints";
    const told = [`${bad("error:")} ${printableLines(messageOf(error))}`, hint].join("\n");
    return [flowed(told, columns), ...trace].join("\n");
  }
  const { hint, sqlstate, detail, serverHint, context, location, problems } = error.details;
  const indented = (name: string, text: string | undefined) =>
    text ? [`  ${name}: ${printableLines(text).replaceAll("\n", "\n    ")}`] : [];
  const told = [
    `${bad("error:")} ${printableLines(error.message)}`,
    ...(location
      ? [`  at ${location.file}:${location.line}:${location.column}`, printableLines(location.excerpt)]
      : []),
    ...(problems ?? []).map((problem) => `  - ${printableLines(problem).replaceAll("\n", "\n  ")}`),
    ...indented("SQLSTATE", sqlstate),
    ...indented("DETAIL", detail),
    ...indented("HINT", serverHint),
    ...indented("CONTEXT", context),
    ...indented(strong("next"), hint),
  ];
  return [flowed(told.join("\n"), columns), ...trace].join("\n");
}

function causes(error: Error): string[] {
  const { cause } = error;
  return cause instanceof Error ? [`caused by: ${cause.stack ?? cause.message}`, ...causes(cause)] : [];
}
