/**
 * What is inside the binary: for THIRD_PARTY_NOTICES and the bill of materials. Versions of JavaScript packages are those
 * of deno.lock; PostgreSQL's grammar and the C libraries are compiled into libpg-query's WebAssembly.
 */

import { fileURLToPath } from "node:url";

/** One component of the binary. */
export interface Component {
  readonly name: string;
  /** Undefined where it is part of another and has no version of its own. */
  readonly version: string | undefined;
  /** SPDX identifier. */
  readonly licence: string;
  /** Its file in licences/, without `.txt`. */
  readonly text: string;
  /** What it is in the binary for. */
  readonly purpose: string;
  /** Package URL (https://github.com/package-url/purl-spec). */
  readonly purl: string;
  /** Hash in hex by its algorithm, where the lock file pins one. */
  readonly hash?: { readonly algorithm: "SHA-256" | "SHA-512"; readonly hex: string };
}

type Locked = Readonly<Record<string, { readonly integrity: string }>>;
const lock: { readonly jsr: Locked; readonly npm: Locked } = JSON.parse(
  Deno.readTextFileSync(new URL("../../deno.lock", import.meta.url)),
);
const LICENCES = fileURLToPath(new URL("./licences/", import.meta.url));

/** The text of a licence. */
export function licenceText(name: string): string {
  return Deno.readTextFileSync(`${LICENCES}${name}.txt`).trim();
}

/** The version and hash that deno.lock has for a package of JSR. */
function jsr(name: string): Pick<Component, "name" | "version" | "purl" | "hash"> {
  const [key, { integrity }] = entry(lock.jsr, name);
  const version = key.slice(name.length + 1);
  // There is no purl type for JSR yet; pkg:generic is for what has none.
  const purl = `pkg:generic/jsr/${name.replace("@", "%40")}@${version}`;
  return { name, version, purl, hash: { algorithm: "SHA-256", hex: integrity } };
}

/** The version and hash that deno.lock has for a package of npm. */
function npm(name: string): Pick<Component, "name" | "version" | "purl" | "hash"> {
  const [key, { integrity }] = entry(lock.npm, name);
  const version = key.slice(name.length + 1);
  const bytes = Uint8Array.from(atob(integrity.replace("sha512-", "")), (char) => char.charCodeAt(0));
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return { name, version, purl: `pkg:npm/${name}@${version}`, hash: { algorithm: "SHA-512", hex } };
}

function entry(packages: Locked, name: string): [string, { readonly integrity: string }] {
  const found = Object.entries(packages).find(([key]) => key.startsWith(`${name}@`));
  if (!found) throw new Error(`deno.lock has no ${name}`);
  return found;
}

/** A component that is part of another. */
function part(
  name: string,
  purl: string,
  about: Pick<Component, "licence" | "text" | "purpose">,
): Component {
  return { name, version: undefined, purl, ...about };
}

const MIT = "MIT";

/**
 * Lists what is inside the binary.
 *
 * @param deno version of the Deno that it is compiled with
 * @param v8 version of the V8 in that
 */
export function components(deno?: string, v8?: string): readonly Component[] {
  return [
    {
      ...{ name: "deno", version: deno, licence: MIT, text: "deno" },
      ...{ purpose: "runtime", purl: `pkg:github/denoland/deno${deno ? `@v${deno}` : ""}` },
    },
    {
      ...{ name: "v8", version: v8, licence: "BSD-3-Clause", text: "v8" },
      ...{ purpose: "JavaScript engine of the runtime", purl: `pkg:github/v8/v8${v8 ? `@${v8}` : ""}` },
    },
    part("node", "pkg:github/nodejs/node", {
      ...{ licence: MIT, text: "node", purpose: "parts of the runtime's node: modules" },
    }),
    ...["@cliffy/command", "@cliffy/flags", "@cliffy/internal", "@cliffy/table"].map((name) => ({
      ...{ ...jsr(name), licence: MIT, text: "cliffy", purpose: "command line" },
    })),
    ...["@std/cli", "@std/fmt", "@std/text"].map((name) => ({
      ...{ ...jsr(name), licence: MIT, text: "std", purpose: "terminal output, and for Cliffy" },
    })),
    { ...npm("postgres"), licence: "Unlicense", text: "postgres", purpose: "PostgreSQL driver" },
    {
      ...npm("libpg-query"),
      licence: MIT,
      text: "libpg-query",
      purpose: "PostgreSQL's parser as WebAssembly",
    },
    part("libpg_query", "pkg:github/pganalyze/libpg_query", {
      ...{ licence: "BSD-3-Clause", text: "libpg_query", purpose: "in libpg-query: the C library" },
    }),
    part("postgresql", "pkg:github/postgres/postgres", {
      ...{ licence: "PostgreSQL", text: "postgresql", purpose: "in libpg-query: PostgreSQL's grammar" },
    }),
    part("protobuf-c", "pkg:github/protobuf-c/protobuf-c", {
      ...{ licence: "BSD-2-Clause", text: "protobuf-c", purpose: "in libpg-query" },
    }),
    part("xxhash", "pkg:github/Cyan4973/xxHash", {
      ...{ licence: "BSD-2-Clause", text: "xxhash", purpose: "in libpg-query" },
    }),
  ];
}
