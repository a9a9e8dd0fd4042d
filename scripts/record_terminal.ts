/**
 * Writes docs/demo.svg: a terminal in which a migration is checked, corrected and applied. The commands are run for real, in a
 * pseudo terminal, on a PostgreSQL of their own. With --check it only tells whether the picture shows what is printed
 * today, but for times.
 */

import { fileURLToPath } from "node:url";
import { PostgresServer } from "./postgres_server.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const TARGET = `${ROOT}docs/demo.svg`;
const COLUMNS = 112;

const FILES: Readonly<Record<string, string>> = {
  "001_orders.sql": `CREATE TABLE orders (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  placed_at timestamptz NOT NULL DEFAULT now()
);
`,
  "002_orders_by_time.sql": "CREATE INDEX orders_placed_at ON orders (placed_at);\n",
};
const SAFE = `-- pipeweave: no-transaction
CREATE INDEX CONCURRENTLY orders_placed_at ON orders (placed_at);
`;

/** Colours of the terminal, by their numbers in SGR sequences (ECMA-48, 8.3.117). */
const COLOURS: Readonly<Record<string, string>> = { 31: "#ff7b72", 32: "#7ee787", 33: "#e3b341" };

interface Piece {
  readonly text: string;
  readonly colour: string | undefined;
  readonly bold: boolean;
  readonly dim: boolean;
}
type Line = readonly Piece[];

/** Runs a command in a pseudo terminal and returns what it shows. */
async function shown(command: string, cwd: string, env: Record<string, string>): Promise<readonly Line[]> {
  const size = `stty cols ${COLUMNS} rows 50`;
  const { stdout } = await new Deno.Command("script", {
    args: ["-q", "-e", "-c", `${size}; ${command}`, "/dev/null"],
    ...{ cwd, env, clearEnv: true, stdin: "null" },
  }).output();
  return linesOf(new TextDecoder().decode(stdout));
}

/** Lines of a terminal's output. What a progress display draws and erases again is not left of it. */
function linesOf(output: string): readonly Line[] {
  let style = { colour: undefined as string | undefined, bold: false, dim: false };
  // deno-lint-ignore no-control-regex
  const token = /\x1b\[([0-9;?]*)([A-Za-z])|\r\n|\r|\n|[^\x1b\r\n]+/g;
  const lines: Piece[][] = [[]];
  for (const [text, parameters, final] of output.matchAll(token)) {
    if (text === "\r\n" || text === "\n") lines.push([]);
    else if (text === "\r" || final === "K" || final === "G") lines[lines.length - 1] = [];
    else if (final === "A") lines.length = Math.max(1, lines.length - Number(parameters || 1));
    else if (final === "J") lines[lines.length - 1] = [];
    else if (final === "m") style = styled(style, parameters!);
    else if (final === undefined) lines.at(-1)!.push({ text, ...style });
  }
  while (lines.at(-1)?.length === 0) lines.pop();
  return lines;
}

function styled(before: Omit<Piece, "text">, parameters: string): Omit<Piece, "text"> {
  return parameters.split(";").reduce((style, code) => {
    if (code === "" || code === "0") return { colour: undefined, bold: false, dim: false };
    if (code === "1") return { ...style, bold: true };
    if (code === "2") return { ...style, dim: true };
    if (code === "22") return { ...style, bold: false, dim: false };
    if (code === "39") return { ...style, colour: undefined };
    return { ...style, colour: COLOURS[code] ?? style.colour };
  }, before);
}

const plain = (text: string, dim = false): Line => [{ text, colour: undefined, bold: false, dim }];
const prompt = (command: string): Line => [
  { text: "$ ", colour: COLOURS["32"], bold: true, dim: false },
  { text: command, colour: undefined, bold: true, dim: false },
];

async function record(): Promise<readonly Line[]> {
  const server = await PostgresServer.start();
  const folder = await Deno.makeTempDir({ prefix: "pipeweave-demo-" });
  try {
    await Deno.mkdir(`${folder}/migrations`);
    for (const [name, text] of Object.entries(FILES)) {
      await Deno.writeTextFile(`${folder}/migrations/${name}`, text);
    }
    const env = {
      PATH: `${ROOT}dist:${Deno.env.get("PATH")}`,
      DATABASE_URL: server.url(),
      TERM: "xterm-256color",
    };
    const run = async (command: string) => [prompt(command), ...await shown(command, folder, env), plain("")];
    const file = "migrations/002_orders_by_time.sql";
    const first = await run("pipeweave db:lint --dir migrations");
    await Deno.writeTextFile(`${folder}/${file}`, SAFE);
    return [
      ...first,
      plain("# written the safe way:", true),
      ...await run(`cat ${file}`),
      ...await run("pipeweave db:migrate --dir migrations"),
    ].slice(0, -1);
  } finally {
    await server.stop();
    await Deno.remove(folder, { recursive: true });
  }
}

const escaped = (text: string) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function svg(lines: readonly Line[]): string {
  const [cell, row, margin, bar] = [8.4, 19, 18, 34];
  const width = Math.ceil(COLUMNS * cell + 2 * margin);
  const height = bar + lines.length * row + margin;
  const spans = (line: Line) =>
    line.map(({ text, colour, bold, dim }) => {
      const attributes = [
        ...(colour ? [`fill="${colour}"`] : []),
        ...(bold ? ['font-weight="bold"'] : []),
        ...(dim ? ['opacity="0.6"'] : []),
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

/** A picture without what differs from run to run. */
const steady = (picture: string) => picture.replaceAll(/\d+(?:\.\d+)?m?s\b/g, "0ms");

const picture = svg(await record());
if (!Deno.args.includes("--check")) {
  await Deno.writeTextFile(TARGET, picture);
} else if (steady(await Deno.readTextFile(TARGET)) !== steady(picture)) {
  console.error("docs/demo.svg is out of date: deno run -A scripts/record_terminal.ts");
  Deno.exit(1);
}
