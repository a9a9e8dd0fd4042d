/** deno.lock: everything that goes into a release is pinned by it, and the set-up refuses anything else. */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { fileURLToPath } from "node:url";
import config from "../deno.json" with { type: "json" };

const ROOT = fileURLToPath(new URL("..", import.meta.url));

interface Lock {
  readonly specifiers: Readonly<Record<string, string>>;
  readonly jsr: Readonly<Record<string, { readonly integrity: string; readonly dependencies?: string[] }>>;
  readonly npm: Readonly<Record<string, { readonly integrity: string; readonly dependencies?: string[] }>>;
}

const read = (path: string): Lock => JSON.parse(Deno.readTextFileSync(ROOT + path));

/** A range as Deno writes it into a lock file. */
const written = (specifier: string) => specifier.replace(/\^(\d+)\.0\.0$/, "$1");

Deno.test("deno.lock pins every import, and what these import, each with its integrity", () => {
  const lock = read("deno.lock");
  const packages = { ...lock.jsr, ...lock.npm };
  for (const specifier of Object.values(config.imports).map(written)) {
    const version = lock.specifiers[specifier];
    assert(version !== undefined, `${specifier} is not pinned`);
    const name = specifier.replace(/^(?:jsr|npm):/, "").replace(/(.)@.*$/, "$1");
    assert(packages[`${name}@${version}`], `${name}@${version} has no integrity`);
  }
  for (const [name, { integrity }] of Object.entries(lock.jsr)) {
    assertMatch(integrity, /^[0-9a-f]{64}$/, name);
  }
  for (const [name, { integrity }] of Object.entries(lock.npm)) {
    assertMatch(integrity, /^sha512-[A-Za-z0-9+/]{86}==$/, name);
  }
  const pinned = new Set(Object.keys(packages).map((name) => name.replace(/(.)@.*$/, "$1")));
  for (const [name, { dependencies = [] }] of Object.entries(packages)) {
    for (const dependency of dependencies) {
      const bare = dependency.replace(/^(?:jsr|npm):/, "").replace(/(.)@.*$/, "$1");
      assert(pinned.has(bare), `${name} imports ${bare}, which is not pinned`);
    }
  }
});

Deno.test("what npm delivers is the same in both ways of the set-up", () => {
  const [pinned, used] = [read("deno.lock"), read("vendor/deno.lock")];
  assertEquals(used.npm, pinned.npm);
});

Deno.test("the set-up refuses a package that is not the one of deno.lock", async () => {
  const folder = await Deno.makeTempDir({ prefix: "pipeweave-lock-" });
  const asked: string[] = [];
  // A registry that has the version, with other files.
  const registry = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, (request) => {
    const { pathname } = new URL(request.url);
    asked.push(pathname);
    const [, scope, name, file] = pathname.split("/");
    const version = Object.keys(read("deno.lock").jsr)
      .find((key) => key.startsWith(`${scope}/${name}@`))?.split("@").at(-1);
    if (file === "meta.json") return Response.json({ scope, name, versions: { [version!]: {} } });
    return Response.json({ manifest: {}, exports: { ".": "./mod.ts" } });
  });
  try {
    for (const part of ["deno.json", "deno.lock", "main.ts", "src", "scripts", "migrations", "tests"]) {
      const { success } = await new Deno.Command("cp", { args: ["-R", ROOT + part, folder] }).output();
      assert(success, part);
    }
    const { success, stderr } = await new Deno.Command(`${folder}/scripts/setup.sh`, {
      env: {
        JSR_URL: `http://127.0.0.1:${registry.addr.port}/`,
        PIPEWEAVE_SETUP: "open",
        DENO_DIR: `${folder}/cache`,
        PATH: `${ROOT}.toolchain:${Deno.env.get("PATH")}`,
        DENO_TLS_CA_STORE: "system",
      },
    }).output();
    const told = new TextDecoder().decode(stderr);
    assert(!success, told);
    assertMatch(told, /Integrity check failed/i);
    assert(
      told.trimEnd().endsWith("setup: Deno could not get the modules of deno.json as deno.lock pins them"),
      told,
    );
    assert(asked.length > 0);
  } finally {
    await registry.shutdown();
    await Deno.remove(folder, { recursive: true });
  }
});
