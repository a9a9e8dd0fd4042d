/**
 * Writes the pictures of docs: terminals in which commands are run for real, in a pseudo terminal, on a PostgreSQL of their
 * own. With --check it only tells whether each shows what is printed today, but for times and charts.
 */

import { fileURLToPath } from "node:url";
import postgres from "postgres";
import { unicodeWidth } from "@std/cli/unicode-width";
import { PostgresServer } from "./postgres_server.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** Colours of the terminal, by their numbers in SGR sequences (ECMA-48, 8.3.117). */
const COLOURS: Readonly<Record<string, string>> = { 31: "#ff7b72", 32: "#7ee787", 33: "#e3b341" };

interface Look {
  readonly colour: string | undefined;
  readonly bold: boolean;
  readonly dim: boolean;
}
interface Piece extends Look {
  readonly text: string;
}
type Line = readonly Piece[];

const PLAIN: Look = { colour: undefined, bold: false, dim: false };

/** What a terminal shows: characters in rows, as the output moves its cursor. */
class Screen {
  readonly #rows: (Piece | undefined)[][] = [[]];
  #row = 0;
  #column = 0;
  #look = PLAIN;

  write(output: string): void {
    // deno-lint-ignore no-control-regex
    const token = /\x1b\[([0-9;?]*)([A-Za-z])|\r|\n|[^\x1b\r\n]/gu;
    for (const [text, parameters, final] of output.matchAll(token)) {
      if (text === "\r") this.#column = 0;
      else if (text === "\n") this.#goTo(this.#row + 1);
      else if (final === "H") [this.#row, this.#column] = [0, 0];
      else if (final === "A") this.#goTo(Math.max(0, this.#row - Number(parameters || 1)));
      else if (final === "K") this.#rows[this.#row]!.length = this.#column;
      else if (final === "J") {
        this.#rows[this.#row]!.length = this.#column;
        this.#rows.length = this.#row + 1;
      } else if (final === "m") this.#look = styled(this.#look, parameters!);
      else if (final === undefined) this.#put(text);
    }
  }

  #goTo(row: number): void {
    this.#row = row;
    while (this.#rows.length <= row) this.#rows.push([]);
  }

  #put(character: string): void {
    const row = this.#rows[this.#row]!;
    while (row.length < this.#column) row.push({ text: " ", ...PLAIN });
    row[this.#column++] = { text: character, ...this.#look };
    // The second cell of a wide character holds nothing.
    if (unicodeWidth(character) === 2) row[this.#column++] = undefined;
  }

  lines(): readonly Line[] {
    const lines = this.#rows.map((row) => {
      const pieces: Piece[] = [];
      for (const cell of row.filter((one) => one !== undefined)) {
        const last = pieces.at(-1);
        const isSame = last && last.colour === cell.colour && last.bold === cell.bold &&
          last.dim === cell.dim;
        if (isSame) pieces[pieces.length - 1] = { ...last, text: last.text + cell.text };
        else pieces.push(cell);
      }
      return pieces;
    });
    while (lines.at(-1)?.every(({ text }) => text.trim() === "")) lines.pop();
    return lines;
  }
}

function styled(before: Look, parameters: string): Look {
  return parameters.split(";").reduce((look, code) => {
    if (code === "" || code === "0") return PLAIN;
    if (code === "1") return { ...look, bold: true };
    if (code === "2") return { ...look, dim: true };
    if (code === "22") return { ...look, bold: false, dim: false };
    if (code === "39") return { ...look, colour: undefined };
    return { ...look, colour: COLOURS[code] ?? look.colour };
  }, before);
}

const note = (text: string): Line => [{ ...PLAIN, text, dim: true }];
const prompt = (command: string): Line => [
  { ...PLAIN, text: "$ ", colour: COLOURS["32"], bold: true },
  { ...PLAIN, text: command, bold: true },
];

/** A terminal in which commands are run, one after the other. */
class Terminal {
  readonly lines: Line[] = [];
  readonly columns: number;
  readonly folder: string;
  readonly #env: Record<string, string>;

  constructor(columns: number, folder: string, url: string) {
    this.columns = columns;
    this.folder = folder;
    this.#env = {
      PATH: `${ROOT}dist:${Deno.env.get("PATH")}`,
      ...{ DATABASE_URL: url, TERM: "xterm-256color", USER: "alice", PIPEWEAVE_OWNER: "alice@build-7" },
    };
  }

  #start(command: string, stdin: "null" | "piped", rows = 50): Deno.ChildProcess {
    return new Deno.Command("script", {
      args: ["-q", "-e", "-c", `stty cols ${this.columns} rows ${rows}; ${command}`, "/dev/null"],
      ...{ cwd: this.folder, env: this.#env, clearEnv: true, stdin, stdout: "piped" },
    }).spawn();
  }

  /** Runs a command, and shows it with what it prints. */
  async run(command: string): Promise<void> {
    const { stdout } = await this.#start(command, "null").output();
    const screen = new Screen();
    screen.write(new TextDecoder().decode(stdout));
    this.lines.push(prompt(command), ...screen.lines(), []);
  }

  /** Runs a command that draws over all of the terminal, and shows its last picture before it is left. */
  async watch(command: string, rows: number, pictures: number): Promise<void> {
    const child = this.#start(command, "piped", rows);
    const keys = child.stdin.getWriter();
    let drawn = "";
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      drawn += text;
      if (drawn.split("\x1b[H").length > pictures + 1) await keys.write(new TextEncoder().encode("q"));
      if (drawn.includes("\x1b[?1049l")) break;
    }
    await child.status;
    await keys.close().catch(() => {});
    const screen = new Screen();
    screen.write(`\x1b[H${drawn.split("\x1b[?1049l")[0]!.split("\x1b[H").at(-1)!}`);
    this.lines.push(...screen.lines());
  }

  say(text: string): void {
    this.lines.push(note(text));
  }

  async write(name: string, text: string): Promise<void> {
    await Deno.mkdir(`${this.folder}/${name}`.replace(/\/[^/]*$/, ""), { recursive: true });
    await Deno.writeTextFile(`${this.folder}/${name}`, text);
  }
}

const ORDERS = `CREATE TABLE orders (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  placed_at timestamptz NOT NULL DEFAULT now()
);
`;
const INDEX = "CREATE INDEX orders_placed_at ON orders (placed_at);\n";
const SAFE_INDEX = `-- pipeweave: no-transaction
CREATE INDEX CONCURRENTLY orders_placed_at ON orders (placed_at);
`;

/** A picture: where it goes, how wide its terminal is, and what is done in it. */
interface Scene {
  readonly file: string;
  readonly columns: number;
  readonly play: (terminal: Terminal, sql: postgres.Sql) => Promise<void>;
}

const SCENES: readonly Scene[] = [
  {
    file: "demo.svg",
    columns: 112,
    play: async (terminal) => {
      await terminal.write("migrations/001_orders.sql", ORDERS);
      await terminal.write("migrations/002_orders_by_time.sql", INDEX);
      await terminal.run("pipeweave db:lint --dir migrations");
      await terminal.write("migrations/002_orders_by_time.sql", SAFE_INDEX);
      terminal.say("# written the safe way:");
      await terminal.run("cat migrations/002_orders_by_time.sql");
      await terminal.run("pipeweave db:migrate --dir migrations");
    },
  },
  {
    file: "pictures/status.svg",
    columns: 80,
    play: async (terminal) => {
      await terminal.write("pipeweave.json", '{ "dir": "migrations" }\n');
      await terminal.write("migrations/101_orders.sql", ORDERS);
      await terminal.write("migrations/102_orders_by_time.sql", SAFE_INDEX);
      await terminal.write("migrations/103_note.sql", "ALTER TABLE orders ADD COLUMN note text;\n");
      await new Deno.Command(`${ROOT}dist/pipeweave`, {
        args: ["db:migrate", "--to", "102", "--quiet"],
        ...{ cwd: terminal.folder, env: { DATABASE_URL: urlOf(terminal), USER: "alice" } },
      }).output();
      await terminal.write("migrations/101_orders.sql", `${ORDERS}-- edited\n`);
      await terminal.run("pipeweave db:status");
      await terminal.write("migrations/101_orders.sql", ORDERS);
      await terminal.write("migrations/103_note.sql", "ALTER TABLE order ADD COLUMN note text;\n");
      await terminal.run("pipeweave db:migrate");
      await terminal.write("migrations/103_note.sql", "ALTER TABLE orders_ ADD COLUMN note text;\n");
      await terminal.run("pipeweave db:migrate --quiet");
      await terminal.run("pipeweave db:history --limit 3");
    },
  },
  {
    file: "pictures/dry-run.svg",
    columns: 80,
    play: async (terminal, sql) => {
      await sql.unsafe(`${ORDERS} INSERT INTO orders SELECT FROM generate_series(1, 1000)`);
      await terminal.write(
        "migrations/101_total.sql",
        "ALTER TABLE orders ADD COLUMN total numeric NOT NULL;\n",
      );
      await terminal.write(
        "migrations/102_precise.sql",
        "ALTER TABLE orders ALTER COLUMN placed_at SET DATA TYPE timestamptz(3);\n",
      );
      await terminal.run("pipeweave db:migrate --dir migrations --dry-run=execute");
      await terminal.run("pipeweave db:lint --dir migrations --offline");
    },
  },
  {
    file: "pictures/watch.svg",
    columns: 80,
    play: async (terminal, sql) => {
      const run = (...args: string[]) =>
        new Deno.Command(`${ROOT}dist/pipeweave`, {
          args,
          env: { DATABASE_URL: urlOf(terminal), USER: "alice" },
        }).output();
      await run("db:migrate", "--quiet");
      await queue(sql);
      await run("maintenance:request", "--reason", "migration 107", "--owner", "alice@build-7");
      const working = setInterval(() => {
        sql`UPDATE task_runs SET status = 'completed' WHERE id IN
          (SELECT id FROM task_runs WHERE status = 'running' ORDER BY id DESC LIMIT 1)`.catch(() => {});
        sql`UPDATE task_runs SET status = 'running', started_at = now() WHERE id IN
          (SELECT id FROM task_runs WHERE status = 'pending' ORDER BY id LIMIT 1)`.catch(() => {});
      }, 500);
      try {
        await terminal.watch("pipeweave maintenance:watch", 32, 12);
      } finally {
        clearInterval(working);
      }
    },
  },
];

const urls = new Map<string, string>();
const urlOf = (terminal: Terminal) => urls.get(terminal.folder)!;

/** A queue in the middle of its work. */
async function queue(sql: postgres.Sql): Promise<void> {
  await sql.unsafe(`
    INSERT INTO services (id, version, base_url) VALUES ('shop', '1', 'http://127.0.0.1');
    INSERT INTO tasks (id, service_id, code_hash) VALUES ('send-email', 'shop', 'x'), ('resize', 'shop', 'x');`);
  await sql.unsafe(`
    INSERT INTO task_runs (id, task_id, status, code_version, code_hash, max_retries, started_at)
      SELECT 'run-' || n, CASE n % 3 WHEN 0 THEN 'resize' ELSE 'send-email' END,
             CASE WHEN n <= 40 THEN 'running' ELSE 'pending' END, 1, 'x', 3,
             CASE WHEN n <= 40 THEN now() - n * interval '3 s' END
        FROM generate_series(1, 60) n`);
}

async function record(scene: Scene): Promise<Terminal> {
  const folder = await Deno.makeTempDir({ prefix: "pipeweave-picture-" });
  const name = folder.replace(/^.*-/, "p_").toLowerCase();
  const admin = postgres(server.url(), { max: 1, onnotice: () => {} });
  await admin.unsafe(`CREATE DATABASE ${name}`);
  await admin.end();
  const url = server.url().replace(/\/[^/?]*(?=\?|$)/, `/${name}`);
  urls.set(folder, url);
  const sql = postgres(url, { max: 2, onnotice: () => {} });
  const terminal = new Terminal(scene.columns, folder, url);
  try {
    await scene.play(terminal, sql);
    while (terminal.lines.at(-1)?.length === 0) terminal.lines.pop();
    return terminal;
  } finally {
    await sql.end();
    await Deno.remove(folder, { recursive: true });
  }
}

const escaped = (text: string) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function svg({ lines, columns }: Terminal): string {
  const [cell, row, margin, bar] = [8.4, 19, 18, 34];
  const width = Math.ceil(columns * cell + 2 * margin);
  const height = bar + lines.length * row + margin;
  const spans = (line: Line) =>
    line.map(({ text, colour, bold, dim }) => {
      const attributes = [
        ...(colour ? [`fill="${colour}"`] : []),
        ...(bold ? ['font-weight="bold"'] : []),
        ...(dim ? ['fill-opacity="0.6"'] : []),
      ];
      return `<tspan${attributes.map((one) => ` ${one}`).join("")}>${escaped(text)}</tspan>`;
    }).join("");
  const rows = lines.map((line, index) =>
    `    <text x="${margin}" y="${bar + (index + 0.75) * row}" xml:space="preserve">${spans(line)}</text>`
  );
  const title = lines.map((line) => line.map(({ text }) => text).join("")).filter((line) =>
    line.startsWith("$ ")
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img">
  <title>${escaped(`A terminal: ${title.map((line) => line.slice(2)).join("; ")}`)}</title>
  <!-- Made by scripts/record_terminal.ts from a real run. -->
  <rect width="${width}" height="${height}" rx="8" fill="#161b22"/>
  <circle cx="20" cy="17" r="5" fill="#ff5f56"/><circle cx="38" cy="17" r="5" fill="#ffbd2e"/><circle cx="56" cy="17" r="5" fill="#27c93f"/>
  <g font-family="ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace" font-size="14" fill="#e6edf3">
${rows.join("\n")}
  </g>
</svg>
`;
}

/** A picture's words without what differs from run to run: times, numbers, places, charts. */
function steady(picture: string): string {
  return picture.replaceAll(/<[^>]*>/g, "").replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, "T")
    .replaceAll(/[█▇▆▅▄▃▂▁░]+/g, "#").replaceAll(/\d+(?:\.\d+)?(?:ms|[smh])?\b/g, "0").replaceAll(/ +/g, " ")
    .replaceAll(/(?:, )?about 0(?: 0)*/g, "").replaceAll(/on \S+, pipeweave/g, "on host, pipeweave")
    .replaceAll(/postgres@\S+/g, "postgres@host").replaceAll(/p_\w+/g, "p");
}

/** Whoever records a picture is of no interest in it. */
const HOST = "build-7";

const server = await PostgresServer.start();
try {
  for (const scene of SCENES) {
    const target = `${ROOT}docs/${scene.file}`;
    const picture = svg(await record(scene)).replaceAll(` on ${Deno.hostname()}`, ` on ${HOST}`);
    if (!Deno.args.includes("--check")) {
      await Deno.mkdir(target.replace(/\/[^/]*$/, ""), { recursive: true });
      await Deno.writeTextFile(target, picture);
    } else if (!isSame(await Deno.readTextFile(target), picture, scene)) {
      console.error(
        `docs/${scene.file} is out of date: deno run --config deno.json -A scripts/record_terminal.ts`,
      );
      Deno.exitCode = 1;
    }
  }
} finally {
  await server.stop();
}

/** Whether two pictures say the same. Of one that moves, whatever it has in both: how far it is differs from run to run. */
function isSame(before: string, now: string, { file }: Scene): boolean {
  if (!file.includes("watch")) return steady(before) === steady(now);
  const headings = (picture: string) =>
    steady(picture).split("\n").map((line) => line.trim().split(/[: ]/)[0]).filter((word) =>
      /^[A-Z]/.test(word ?? "")
    );
  return headings(before).join() === headings(now).join();
}
