/**
 * Where a command tells what it finds and does: the report on stdout, all else on stderr.
 *
 * @module
 */

import { flowed, type Page } from "../output/page.ts";
import { Progress } from "../output/progress.ts";
import { type Style, styleFor } from "../output/style.ts";
import { printableLines } from "../printable.ts";
import type { ParsedOptions } from "./parsed_options.ts";
import type { World } from "./world.ts";

/** The two streams of one call of a command, as its options want them. */
export class Terminal {
  /** Whether stdout is for programs. */
  readonly json: boolean;
  readonly quiet: boolean;
  readonly verbose: boolean;
  /** How the report is painted. */
  readonly style: Style;
  readonly #errorStyle: Style;
  readonly progress: Progress;
  /** The JSON document so far; an error that follows becomes part of it, since there is one document a command. */
  document: object | undefined;
  readonly #streams: boolean;
  readonly #world: World;

  constructor(options: ParsedOptions, world: World) {
    this.#world = world;
    this.json = options.has("--json");
    this.#streams = options.get("--json") === "stream";
    this.quiet = options.has("--quiet");
    this.verbose = options.has("--verbose");
    const isPlain = options.has("--no-color");
    this.style = styleFor(!this.json && usesColor(world, world.outIsTerminal, isPlain));
    this.#errorStyle = styleFor(usesColor(world, world.errIsTerminal, isPlain));
    this.progress = new Progress(world.err, {
      shown: !this.quiet,
      moving: world.errIsTerminal && !options.has("--no-progress") && world.env["TERM"] !== "dumb" &&
        !world.env["CI"],
      columns: () => world.size().columns,
      rows: () => world.size().rows,
    });
  }

  /** What the report is printed on. */
  get page(): Page {
    const { outIsTerminal, size } = this.#world;
    return outIsTerminal
      ? { columns: size().columns, style: this.style, now: new Date() }
      : { columns: Infinity, style: this.style };
  }

  /** What errors, warnings and notes are printed on. */
  get errorPage(): Page {
    const { errIsTerminal, size } = this.#world;
    return { columns: errIsTerminal ? size().columns : Infinity, style: this.#errorStyle };
  }

  /** Asks for a line; undefined where nobody can be asked. */
  get ask(): World["ask"] {
    return this.#world.ask;
  }

  /** Ends a line that was begun on stderr, such as a question's. */
  lineBreak(): void {
    this.#world.err("\n");
  }

  /** Prints a line of the report. */
  report(text: string): void {
    this.#world.out(`${text}\n`);
  }

  /** Takes the report: text is printed at once, a JSON document when the command has ended. */
  result(json: () => object, text: () => string): void {
    if (this.json) this.document = json();
    else this.report(text());
  }

  /** Prints what has happened just now, unless the report is for programs or nobody wants to know. */
  step(text: string): void {
    if (this.json || this.quiet) return;
    this.progress.around(() => this.report(flowed(text, this.page.columns)));
  }

  /** Writes an event for programs that read --json=stream. */
  event(name: string, facts: object): void {
    if (this.#streams) this.#line({ event: name, ...facts });
  }

  /** Prints the document, with which a command ends. */
  conclude(document: object): void {
    if (this.#streams) this.event("result", document);
    else this.#line(document);
  }

  #line(document: object): void {
    this.#world.out(`${JSON.stringify(document)}\n`);
  }

  /** Prints a line beside the report, unless --quiet or --json. */
  note(text: string): void {
    this.event("note", { message: text });
    if (!this.quiet && !this.json) this.#beside(printableLines(text));
  }

  /** Prints a warning, whatever is quiet. */
  warn(text: string): void {
    this.event("warning", { message: text });
    this.#beside(`${this.#errorStyle.warn("warning:")} ${printableLines(text)}`);
  }

  /** Prints a command of GitHub Actions where it listens; it reads them from either stream. */
  annotate(command: () => string): void {
    if (this.#world.env["GITHUB_ACTIONS"] !== "true") return;
    this.progress.around(() => this.#world.err(`${command()}\n`));
  }

  #beside(text: string): void {
    const lines = flowed(text, this.errorPage.columns);
    this.progress.around(() => this.#world.err(`${lines}\n`));
  }
}

/** Whether what goes to a stream may be coloured: https://no-color.org, and FORCE_COLOR as Node has it. */
export function usesColor({ env }: Pick<World, "env">, isTerminal: boolean, isOff: boolean): boolean {
  if (isOff || env["NO_COLOR"]) return false;
  const forced = env["FORCE_COLOR"];
  if (forced) return forced !== "0" && forced !== "false";
  return isTerminal && env["TERM"] !== "dumb";
}
