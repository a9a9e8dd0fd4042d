/** The completions, in the shells themselves. */

import { assert, assertEquals } from "@std/assert";
import { dirname } from "node:path";
import { BINARY, folderWith } from "./support/binary.ts";

const shell = (name: string): string => {
  const path = Deno.env.get(`PIPEWEAVE_${name}`);
  if (!path) throw new Error("These tests need shells: run them by ./scripts/test.sh");
  return path;
};

/** Runs a shell's script with the binary on PATH, in a folder. */
async function inShell(program: string, args: readonly string[], cwd: string): Promise<string> {
  const { stdout, stderr } = await new Deno.Command(program, {
    args: [...args],
    cwd,
    env: { PATH: `${dirname(BINARY)}:${Deno.env.get("PATH")}`, HOME: cwd, TERM: "dumb" },
  }).output();
  return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
}

const FILES = {
  "migrations/001_first.sql": "SELECT 1;",
  "migrations/002_second.sql": "SELECT 2;",
  "mine/003_x.sql": "SELECT 3;",
  "pipeweave.json": '{"targets":{"staging":"postgres://a@b/c","prod":"postgres://a@b/d"}}',
};

async function place() {
  const folder = await folderWith({});
  for (const [name, text] of Object.entries(FILES)) {
    await Deno.mkdir(`${folder.path}/${dirname(name)}`, { recursive: true });
    await Deno.writeTextFile(`${folder.path}/${name}`, text);
  }
  return folder;
}

/** Lines that are typed, and what is offered; in bash without what its word breaks leave standing. */
const TYPED: readonly (readonly [line: string, offered: readonly string[], inBash?: readonly string[]])[] = [
  ["pipeweave db:mi", ["db:migrate"], ["migrate"]],
  ["pipeweave maintenance:re", ["maintenance:request"], ["request"]],
  ["pipeweave db mi", ["migrate"]],
  ["pipeweave compl", ["completions"]],
  ["pipeweave completions z", ["zsh"]],
  ["pipeweave db:lint --format s", ["sarif"]],
  ["pipeweave db:lint --format=s", ["--format=sarif"], ["sarif"]],
  ["pipeweave maintenance:request --on-t", ["--on-timeout"]],
  ["pipeweave maintenance:request --on-timeout ", ["stay", "exit"]],
  ["pipeweave db:migrate --to 0", ["001", "002"]],
  ["pipeweave db:migrate --dir mine --to ", ["003"]],
  ["pipeweave db:status --dir mi", ["migrations", "mine"]],
  ["pipeweave db:status --dir=min", ["--dir=mine"], ["mine"]],
  ["pipeweave db:lint --explain add-for", ["add-foreign-key"]],
  ["pipeweave db:status --target st", ["staging"]],
  ["pipeweave --li", ["--licenses"]],
];

const words = (text: string) =>
  text.split("\n").map((line) => line.split("\t")[0]!.replace(/\/$/, "")).filter((word) => word !== "")
    .sort();

Deno.test("bash completes commands, options, values, folders and versions, and stays as it was", async () => {
  await using folder = await place();
  for (const [line, offered, inBash] of TYPED) {
    const script = `before=$COMP_WORDBREAKS; source <(pipeweave completions bash)
      COMP_LINE='${line}' COMP_POINT=${line.length}; _pipeweave 2>/dev/null
      printf '%s\\n' "\${COMPREPLY[@]}"; [[ $COMP_WORDBREAKS == "$before" ]] || echo changed`;
    assertEquals(
      words(await inShell("bash", ["-c", script], folder.path)),
      [...inBash ?? offered].sort(),
      line,
    );
  }
  const registered = await inShell(
    "bash",
    ["-c", "source <(pipeweave completions bash); complete -p"],
    folder.path,
  );
  assertEquals(registered.trim(), "complete -F _pipeweave pipeweave");
});

Deno.test("fish completes commands, options, values, folders and versions", async () => {
  await using folder = await place();
  const functions = `${dirname(shell("FISH"))}/usr/share/fish/functions`;
  for (const [line, offered] of TYPED) {
    const script = `test -d ${functions}; and set -p fish_function_path ${functions}
      pipeweave completions fish | source; complete -C '${line}'`;
    assertEquals(
      words(await inShell(shell("FISH"), ["-N", "-c", script], folder.path)),
      [...offered].sort(),
      line,
    );
  }
});

Deno.test("zsh completes commands, values and folders in a terminal", async () => {
  await using folder = await place();
  const zsh = shell("ZSH");
  const home = dirname(zsh);
  // Where it is not installed, it looks for its modules and functions where it would be.
  const paths =
    `module_path=(${home}/usr/lib/*/zsh/*(/N) $module_path); fpath=(${home}/usr/share/zsh/functions/**/*(/N) $fpath)`;
  const ends: readonly (readonly [typed: string, completed: string])[] = [
    ["pipeweave db:mi", "pipeweave db:migrate "],
    ["pipeweave db:lint --format sa", "pipeweave db:lint --format sarif "],
    ["pipeweave db:status --dir mine", "pipeweave db:status --dir mine/"],
    ["pipeweave maintenance:req", "pipeweave maintenance:request "],
    ["pipeweave db mi", "pipeweave db migrate "],
    ["pipeweave db:migrate --to 001", "pipeweave db:migrate --to 001 "],
  ];
  // The line editor itself says what became of the line, when it is told to run it.
  const script = `${paths}
    zmodload zsh/zpty
    zpty z ${zsh} -f -i
    zpty -w z "${
    paths.replaceAll("$", "\\$")
  }; autoload -Uz compinit; compinit -u -D; source <(pipeweave completions zsh); show() { print -r -- \\"LINE<\\$BUFFER>\\"; BUFFER=; zle accept-line; }; zle -N show; bindkey '^X' show; print REA''DY"
    zpty -r z out '*READY*'
    for line in ${ends.map(([typed]) => `'${typed}'`).join(" ")}; do
      zpty -w -n z "$line"$'\\t\\x18'
      zpty -r z out '*LINE<*>*'
      print -r -- "\${(M)\${(f)out}:#*LINE<*>*}"
    done`;
  const told = await inShell(zsh, ["-f", "-c", script], folder.path);
  const lines = [...told.matchAll(/LINE<([^>]*)>/g)].map(([, line]) => line);
  assertEquals(lines, ends.map(([, completed]) => completed), told);
});

Deno.test("PowerShell's script names the binary's own command for it", async () => {
  await using folder = await place();
  const script = await inShell("bash", ["-c", "pipeweave completions powershell"], folder.path);
  assert(script.includes("Register-ArgumentCompleter -Native -CommandName pipeweave"));
  assert(script.includes("__complete"));
});
