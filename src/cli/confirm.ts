/**
 * A question before something that is hard to undo.
 *
 * @module
 */

import { interrupted } from "../errors.ts";
import { flowed } from "../output/page.ts";
import type { Input } from "./input.ts";
import type { Terminal } from "./terminal.ts";

/**
 * Asks on the terminal; anything but yes is no.
 *
 * @param question without its answers
 * @throws {PipeweaveError} of kind `interrupted` when a signal ends the waiting
 */
export async function confirmed(input: Input, terminal: Terminal, question: string): Promise<boolean> {
  terminal.progress.stop();
  const { signal } = input;
  const ended = Promise.withResolvers<never>();
  const end = () => {
    // Behind the ^C that the terminal shows.
    terminal.lineBreak();
    ended.reject(interrupted("Interrupted; nothing was changed"));
  };
  signal.addEventListener("abort", end);
  if (signal.aborted) end();
  try {
    const answer = await Promise.race([
      terminal.ask!(`${flowed(`${question} [y/N]`, terminal.errorPage.columns)} `),
      ended.promise,
    ]);
    return /^y(?:es)?$/i.test(answer);
  } finally {
    signal.removeEventListener("abort", end);
  }
}
