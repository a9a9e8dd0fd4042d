/** A release, made for this machine's target as scripts/release.sh makes it for all: each of its parts is used. */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fileURLToPath } from "node:url";
import config from "../deno.json" with { type: "json" };
import { freePort } from "../scripts/postgres_server.ts";
import { until } from "./support/binary.ts";
import { TestDatabase } from "./support/database.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const RELEASE = `${ROOT}dist/release`;
const TOOLS = `${ROOT}scripts/release/node_modules`;
const TARGET = Deno.build.target;
const NAME = `pipeweave-${config.version}-${TARGET}`;
const PATH = Deno.env.get("PATH")!;

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function execute(
  command: string,
  args: readonly string[],
  { cwd = ROOT, ...options }: Deno.CommandOptions = {},
): Promise<Ended> {
  const { code, stdout, stderr } = await new Deno.Command(command, { args: [...args], cwd, ...options })
    .output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes)) as [string, string];
  return { code, stdout: out, stderr: err };
}

async function succeeded(
  command: string,
  args: readonly string[],
  options?: Deno.CommandOptions,
): Promise<string> {
  const { code, stdout, stderr } = await execute(command, args, options);
  assertEquals(code, 0, `${command} ${args.join(" ")}:\n${stdout}${stderr}`);
  return stdout;
}

/** A folder of a test's own. */
async function inFolder<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = await Deno.makeTempDir({ prefix: "pipeweave-release-" });
  try {
    return await work(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Serves a folder's files on loopback. */
async function serving<T>(folder: string, work: (url: string) => Promise<T>): Promise<T> {
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, async (request) => {
    const file = await Deno.open(folder + new URL(request.url).pathname).catch(() => undefined);
    return file ? new Response(file.readable) : new Response("not here", { status: 404 });
  });
  try {
    return await work(`http://127.0.0.1:${server.addr.port}`);
  } finally {
    await server.shutdown();
  }
}

/** A folder for PATH that has nothing but the given programs, and stand-ins that print what they are told to. */
async function pathWith(folder: string, programs: readonly string[], fakes: Record<string, string> = {}) {
  const place = `${folder}/path-${crypto.randomUUID()}`;
  await Deno.mkdir(place);
  for (const program of programs) {
    const found = (await succeeded("sh", ["-c", `command -v ${program}`])).trim();
    await Deno.symlink(await Deno.realPath(found), `${place}/${program}`);
  }
  for (const [name, text] of Object.entries(fakes)) {
    await Deno.writeTextFile(`${place}/${name}`, `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  }
  return place;
}

/** What install.sh needs besides something to fetch with. */
const BASICS = [
  ...[
    "sh",
    "uname",
    "ldd",
    "id",
    "mktemp",
    "sed",
    "grep",
    "cut",
    "tar",
    "gzip",
    "sha256sum",
    "mkdir",
    "cp",
    "chmod",
    "mv",
  ],
  ...["rm", "head", "cat"],
];

Deno.test("a release of this machine's target", async (t) => {
  await succeeded(`${ROOT}scripts/release/install_tools.sh`, []);
  await succeeded(`${ROOT}scripts/release.sh`, [TARGET]);

  await t.step("sums, and what is in the archive", async () => {
    await succeeded("sha256sum", ["--check", "--strict", "SHA256SUMS"], { cwd: RELEASE });
    await inFolder(async (folder) => {
      await succeeded("tar", ["-xzf", `${RELEASE}/${NAME}.tar.gz`, "-C", folder]);
      const files = await succeeded("find", [NAME, "-type", "f"], { cwd: folder });
      assertEquals(
        files.trim().split("\n").sort(),
        [
          ...["LICENSE", "THIRD_PARTY_NOTICES", "completions/_pipeweave", "completions/pipeweave.bash"],
          ...["completions/pipeweave.fish", "pipeweave"],
        ].map((file) => `${NAME}/${file}`).sort(),
      );
      const version = await succeeded(`${folder}/${NAME}/pipeweave`, ["--version"], {
        clearEnv: true,
        cwd: folder,
      });
      assertStringIncludes(version, `pipeweave ${config.version}\n`);
      await succeeded("bash", ["-n", `${folder}/${NAME}/completions/pipeweave.bash`]);
    });
  });

  await t.step("the archive is the same when it is made again", async () => {
    const before = await Deno.readTextFile(`${RELEASE}/SHA256SUMS`);
    await succeeded(`${ROOT}scripts/release.sh`, [TARGET]);
    assertEquals(await Deno.readTextFile(`${RELEASE}/SHA256SUMS`), before);
  });

  await t.step("the bill of materials is valid CycloneDX, and names what deno.lock pins", async () => {
    const file = `${RELEASE}/pipeweave-${config.version}.cdx.json`;
    const check = `const { Validation, Spec } = require("@cyclonedx/cyclonedx-library");
      new Validation.JsonStrictValidator(Spec.Version.v1dot6)
        .validate(require("node:fs").readFileSync(process.argv[1], "utf8"))
        .then((wrong) => { if (wrong) { console.error(JSON.stringify(wrong)); process.exit(1); } });`;
    const options = { cwd: `${ROOT}scripts/release` };
    await succeeded("node", ["-e", check, file], options);
    const bill = JSON.parse(await Deno.readTextFile(file));
    const named = bill.components.map((one: { name: string; version?: string }) =>
      `${one.name}@${one.version}`
    );
    for (const name of [`deno@${Deno.version.deno}`, "postgres@3.4.9", "libpg-query@18.1.5"]) {
      assert(named.includes(name), name);
    }
    await inFolder(async (folder) => {
      await Deno.writeTextFile(
        `${folder}/bad.json`,
        JSON.stringify({ ...bill, specVersion: "1.6", components: "none" }),
      );
      assertEquals((await execute("node", ["-e", check, `${folder}/bad.json`], options)).code, 1);
    });
  });

  await t.step("formula and manifest have the archive's sum", async () => {
    const sum = (await succeeded("sha256sum", [`${RELEASE}/${NAME}.tar.gz`])).split(" ")[0]!;
    const formula = await Deno.readTextFile(`${RELEASE}/pipeweave.rb`);
    assertStringIncludes(
      formula,
      `releases/download/v${config.version}/${NAME}.tar.gz"\n      sha256 "${sum}"`,
    );
  });

  await t.step("install.sh", installs);
  await t.step("the image", image);
  await t.step("the npm packages", npmPackages);
});

async function installs(t: Deno.TestContext): Promise<void> {
  await inFolder(async (folder) => {
    const release = `${folder}/release`;
    await succeeded("cp", ["-R", RELEASE, release]);
    await serving(release, async (url) => {
      const install = (env: Record<string, string>) =>
        execute("sh", [`${release}/install.sh`], {
          env: { PATH, HOME: `${folder}/home`, PIPEWEAVE_BASE_URL: url, ...env },
          clearEnv: true,
        });

      for (const [name, other] of [["curl", "wget"], ["wget", "curl"]] as const) {
        await t.step(`with ${name} and without ${other}`, async () => {
          const prefix = `${folder}/with-${name}`;
          const ended = await install({ PREFIX: prefix, PATH: await pathWith(folder, [...BASICS, name]) });
          assertEquals(ended.code, 0, ended.stderr);
          assertStringIncludes(
            ended.stderr,
            `install: installed pipeweave ${config.version} as ${prefix}/bin/pipeweave`,
          );
          assertStringIncludes(ended.stderr, `${prefix}/bin is not on PATH`);
          await succeeded(`${prefix}/bin/pipeweave`, ["--version"], { clearEnv: true });
          assertEquals([...Deno.readDirSync(`${prefix}/bin`)].map((entry) => entry.name), ["pipeweave"]);
        });
      }
      await t.step("a version that is there, one that is not, and over an old one", async () => {
        const prefix = `${folder}/version`;
        await Deno.mkdir(`${prefix}/bin`, { recursive: true });
        await Deno.writeTextFile(`${prefix}/bin/pipeweave`, "old");
        const missing = await install({ PREFIX: prefix, VERSION: "9.9.9" });
        assertEquals(missing.code, 1);
        assertStringIncludes(missing.stderr, `has no pipeweave-9.9.9-${TARGET}.tar.gz`);
        assertEquals(await Deno.readTextFile(`${prefix}/bin/pipeweave`), "old");
        const there = await install({ PREFIX: prefix, VERSION: `v${config.version}` });
        assertEquals(there.code, 0, there.stderr);
        await succeeded(`${prefix}/bin/pipeweave`, ["--version"]);
      });
      await t.step("other machines", async () => {
        const refused = async (fakes: Record<string, string>, what: string) => {
          const prefix = `${folder}/refused`;
          const programs = [...BASICS.filter((name) => !(name in fakes)), "curl"];
          const ended = await install({ PREFIX: prefix, PATH: await pathWith(folder, programs, fakes) });
          assertEquals(ended.code, 1);
          assertStringIncludes(ended.stderr, what);
          assertEquals(ended.stderr.trim().split("\n").length, 1, ended.stderr);
          assertEquals(await Deno.stat(prefix).then(() => true, () => false), false);
        };
        const uname = (system: string, machine: string) => ({
          uname: `[ "$1" = -s ] && echo ${system} || echo ${machine}`,
        });
        await refused(uname("Linux", "riscv64"), "there is no binary for Linux on riscv64");
        await refused(uname("FreeBSD", "amd64"), "there is no binary for FreeBSD");
        await refused({ ldd: `echo "musl libc (x86_64)" >&2; exit 1` }, "this system has musl");
      });
      await t.step("nothing to fetch with, nobody there", async () => {
        const ended = await install({ PATH: await pathWith(folder, BASICS) });
        assertEquals([ended.code, ended.stderr], [1, "install: needs curl or wget, and found neither\n"]);
        const away = await install({ PIPEWEAVE_BASE_URL: `http://127.0.0.1:${freePort()}` });
        assertEquals(away.code, 1);
        assertStringIncludes(away.stderr, "install: could not fetch ");
      });
      await t.step("half a script does nothing", async () => {
        const text = await Deno.readTextFile(`${release}/install.sh`);
        await Deno.writeTextFile(`${folder}/half.sh`, text.slice(0, Math.floor(text.length * 0.8)));
        const prefix = `${folder}/half`;
        await execute("sh", [`${folder}/half.sh`], {
          env: { PATH, PREFIX: prefix, PIPEWEAVE_BASE_URL: url },
        });
        assertEquals(await Deno.stat(prefix).then(() => true, () => false), false);
      });
      await t.step("an archive that is not what SHA256SUMS says", async () => {
        const archive = `${release}/${NAME}.tar.gz`;
        const bytes = await Deno.readFile(archive);
        bytes[1000]! ^= 1;
        await Deno.writeFile(archive, bytes);
        const prefix = `${folder}/wrong`;
        const ended = await install({ PREFIX: prefix });
        assertEquals(ended.code, 1);
        assertMatch(
          ended.stderr,
          /is not what SHA256SUMS says: expected [0-9a-f]{64}, got [0-9a-f]{64}; nothing was installed/,
        );
        assertEquals(await Deno.stat(prefix).then(() => true, () => false), false);
      });
    });
  });
}

interface Descriptor {
  readonly digest: string;
  readonly size: number;
}

/** Checks the layout as OCI's specification has it, unpacks it, and runs its entrypoint as its user. */
async function image(): Promise<void> {
  const arch = Deno.build.arch;
  await inFolder(async (folder) => {
    await succeeded("tar", ["-xf", `${RELEASE}/pipeweave-${config.version}-image-${arch}.tar`, "-C", folder]);
    const blob = async ({ digest, size }: Descriptor): Promise<string> => {
      const path = `${folder}/blobs/${digest.replace(":", "/")}`;
      assertEquals((await Deno.stat(path)).size, size);
      assertEquals((await succeeded("sha256sum", [path])).split(" ")[0], digest.slice("sha256:".length));
      return path;
    };
    const read = async (descriptor: Descriptor) =>
      JSON.parse(await Deno.readTextFile(await blob(descriptor)));
    assertEquals(JSON.parse(await Deno.readTextFile(`${folder}/oci-layout`)), {
      imageLayoutVersion: "1.0.0",
    });
    const index = JSON.parse(await Deno.readTextFile(`${folder}/index.json`));
    const manifest = await read(index.manifests[0]);
    const description = await read(manifest.config);
    assertEquals(description.config.User, "65534:65534");
    assertEquals(description.architecture, arch === "aarch64" ? "arm64" : "amd64");

    const root = `${folder}/root`;
    await Deno.mkdir(root);
    for (const [place, layer] of manifest.layers.entries()) {
      const path = await blob(layer);
      await succeeded("sh", ["-c", 'gzip -dc "$0" >"$1"', path, `${folder}/layer.tar`]);
      const sum = (await succeeded("sha256sum", [`${folder}/layer.tar`])).split(" ")[0];
      assertEquals(`sha256:${sum}`, description.rootfs.diff_ids[place]);
      await succeeded("tar", ["-xpf", `${folder}/layer.tar`, "-C", root]);
    }
    assertEquals((await Deno.stat(`${root}/tmp`)).mode! & 0o7777, 0o1777);
    assertEquals(
      await succeeded("find", [root, "-perm", "/022", "!", "-type", "l", "!", "-name", "tmp"]),
      "",
    );

    // As a runtime does it: another root folder, the image's user and environment, and nothing else.
    await using database = await TestDatabase.empty();
    const inImage = (...args: string[]) => {
      const { User, Env, Entrypoint } = description.config;
      // A runtime mounts /proc; here too, where nobody else sees it, and it ends with the program.
      const namespace = ["/usr/bin/unshare", "--mount", ...(Deno.uid() === 0 ? [] : ["--map-root-user"])];
      const mount =
        '/usr/bin/mkdir -p "$0/proc" && /usr/bin/mount --rbind /proc "$0/proc" && exec /usr/sbin/chroot "$@"';
      const user = Deno.uid() === 0 ? [`--userspec=${User}`] : [];
      const chroot = [...namespace, "/bin/sh", "-c", mount, root, ...user, root];
      return execute("/usr/bin/env", [
        "-i",
        ...Env,
        `DATABASE_URL=${database.url}`,
        ...chroot,
        ...Entrypoint,
        ...args,
      ]);
    };
    const version = await inImage("--version");
    assertStringIncludes(version.stdout, `pipeweave ${config.version}`, version.stderr);
    const migrated = await inImage("db:migrate");
    assertEquals(migrated.code, 0, migrated.stderr);
    const status = await inImage("db:status", "--check");
    assertEquals(status.code, 0, status.stderr);
    const linted = await inImage("db:lint", "--offline");
    assertEquals(linted.code, 0, linted.stderr);
  });
}

/** Publishes the packages to a registry on loopback that knows no other, and installs from it. */
async function npmPackages(t: Deno.TestContext): Promise<void> {
  await inFolder(async (folder) => {
    const port = freePort();
    const registry = `http://127.0.0.1:${port}/`;
    await Deno.writeTextFile(
      `${folder}/verdaccio.yaml`,
      JSON.stringify({
        storage: `${folder}/storage`,
        auth: { htpasswd: { file: `${folder}/htpasswd`, max_users: 1 } },
        uplinks: {},
        packages: { "**": { access: "$all", publish: "$all" } },
        max_body_size: "500mb",
        log: { type: "stdout", level: "error" },
      }),
    );
    const server = new Deno.Command("node", {
      args: [
        `${TOOLS}/verdaccio/bin/verdaccio`,
        "--config",
        `${folder}/verdaccio.yaml`,
        "--listen",
        `127.0.0.1:${port}`,
      ],
      ...{ stdout: "null", stderr: "null", stdin: "null", cwd: folder },
    }).spawn();
    const env = {
      ...{ PATH, HOME: folder, npm_config_registry: registry, npm_config_cache: `${folder}/cache` },
      ...{ npm_config_update_notifier: "false", npm_config_userconfig: `${folder}/npmrc` },
    };
    try {
      await Deno.writeTextFile(`${folder}/npmrc`, `//127.0.0.1:${port}/:_authToken=nobody\n`);
      await until(
        () => fetch(registry).then((answer) => answer.body?.cancel().then(() => true) ?? true, () => false),
        "it listens",
      );
      const packages = [...Deno.readDirSync(RELEASE)].map(({ name }) => name)
        .filter((name) => /^pipeweave-(?:cli-.*|[0-9.]+)\.tgz$/.test(name)).sort().reverse();
      assertEquals(packages.length, 2);
      for (const name of packages) {
        await succeeded("npm", ["publish", "--provenance=false", `${RELEASE}/${name}`], {
          env,
          clearEnv: true,
          cwd: folder,
        });
      }
      const project = `${folder}/project`;
      await Deno.mkdir(project);
      const options = { env, clearEnv: true, cwd: project };

      await t.step("npx pipeweave, in an empty folder", async () => {
        const told = await succeeded("npx", ["--yes", "pipeweave", "--version"], options);
        assertStringIncludes(told, `pipeweave ${config.version}\n`);
      });
      await t.step("installed: exit codes, arguments and signals go through", async () => {
        await Deno.writeTextFile(`${project}/package.json`, "{}");
        await succeeded("npm", ["install", "--ignore-scripts", "pipeweave"], options);
        await using database = await TestDatabase.migrated();
        const launcher = `${project}/node_modules/.bin/pipeweave`;
        const url = { ...options, env: { ...env, DATABASE_URL: database.url } };
        assertEquals((await execute(launcher, ["db:status", "--check"], url)).code, 0);
        assertEquals(
          (await execute(launcher, ["maintenance:status", "--expect", "maintenance"], url)).code,
          3,
        );
        assertEquals((await execute(launcher, ["no:such", "a b"], url)).code, 2);

        await Deno.writeTextFile(`${project}/001_slow.sql`, "SELECT pg_sleep(60);");
        const args = ["db:migrate", "--dir", project, "--no-embedded", "--schema", "own"];
        const run = new Deno.Command(launcher, { args, ...url, stdout: "null", stderr: "null" }).spawn();
        const sleeping = async () =>
          (await database
            .sql`SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'`)
            .length === 1;
        await until(sleeping, "the migration runs");
        run.kill("SIGTERM");
        assertEquals((await run.status).code, 143);
        // It was called off before the program ended, and not left to the server.
        assertEquals(await sleeping(), false);
      });
      await t.step("without the platform's package: one line, and what to do", async () => {
        await Deno.remove(`${project}/node_modules/@pipeweave`, { recursive: true });
        const ended = await execute(`${project}/node_modules/.bin/pipeweave`, ["--version"], options);
        assertEquals([ended.code, ended.stderr.trim().split("\n").length], [1, 1]);
        assertStringIncludes(ended.stderr, "--include=optional");
      });
    } finally {
      server.kill("SIGTERM");
      await server.status;
    }
  });
}
