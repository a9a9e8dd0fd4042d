/**
 * Tools whose order stands in a file or in headers: sqitch, graphile-migrate, Liquibase's formatted SQL; and Rails, whose
 * structure.sql is taken over as one migration.
 *
 * @module
 */

import type { Files, ForeignMigration, Read } from "./foreign.ts";

/**
 * sqitch: `sqitch.plan` has the order. A change that was reworked stands there twice; the older file is
 * `deploy/name@tag.sql`, with a tag that the plan has between the two.
 */
export function readSqitch(files: Files): Read {
  const instances: { name: string; tags: string[] }[] = [];
  for (const line of files.text("sqitch.plan").split(/\r?\n/)) {
    const word = /^\s*([^\s%#][^\s]*)/.exec(line)?.[1];
    if (word === undefined) continue;
    if (word.startsWith("@")) {
      for (const one of instances) one.tags.push(word);
    } else instances.push({ name: word, tags: [] });
  }
  const problems: Read["problems"][number][] = [];
  const migrations = instances.flatMap(({ name, tags }, index): ForeignMigration[] => {
    const later = instances.findIndex((other, at) => at > index && other.name === name);
    // The tags up to where it was reworked; its file is named by one of them.
    const between = later === -1 ? [] : tags.slice(0, tags.length - instances[later]!.tags.length);
    const tag = between.findLast((one) => files.names.includes(`deploy/${name}${one}.sql`)) ?? between.at(-1);
    const stem = later === -1 ? name : `${name}${tag ?? ""}`;
    const file = `deploy/${stem}.sql`;
    if (!files.names.includes(file)) {
      problems.push({ file, message: "is in the plan, and there is no such file" });
      return [];
    }
    const revert = `revert/${stem}.sql`;
    const count = instances.slice(0, index).filter((other) => other.name === name).length;
    return [{
      ...{ key: `${name}#${count}`, version: undefined, title: name, file, up: files.text(file) },
      down: files.names.includes(revert) ? files.text(revert) : undefined,
      noTransaction: false,
      decisions: later === -1 ? [] : [`${name} was reworked later: this is ${stem}`],
    }];
  });
  const hasVerify = files.names.some((name) => name.startsWith("verify/"));
  return {
    ...{ migrations, problems },
    decisions: hasVerify ? ["verify scripts were left out: there is no counterpart"] : [],
  };
}

/** graphile-migrate: `committed/000001[-message].sql`. */
export function readGraphile(files: Files): Read {
  const prefix = files.names.some((name) => name.startsWith("committed/")) ? "committed/" : "";
  const own = files.names.filter((name) =>
    name.startsWith(prefix) && /^\d+.*\.sql$/.test(name.slice(prefix.length))
  );
  const migrations = own.map((file): ForeignMigration => {
    const text = files.text(file);
    const name = file.slice(prefix.length);
    const [, version, title] = /^(\d+)-?(.*)\.sql$/.exec(name)!;
    const message = /^--! Message: *(.*)$/m.exec(text)?.[1];
    return {
      ...{ key: version!, version: version!, title: title || message || "committed", file },
      up: text.replace(/^--!.*$\n?/gm, "").trim(),
      down: undefined,
      noTransaction: /^--! no-transaction\b/m.test(text),
      decisions: [],
    };
  }).sort((a, b) => a.key < b.key ? -1 : 1);
  const current = files.names.find((name) => /^current(?:\.sql|\/)/.test(name));
  return {
    migrations,
    problems: [],
    decisions: [
      "graphile-migrate keeps no way back: there are no down files",
      ...(current ? [`${current} was left out: it is not committed yet`] : []),
    ],
  };
}

/** Attributes of a change set that change what a run of it means. */
const TOLD: Readonly<Record<string, string>> = {
  runonchange: "Liquibase runs it whenever it has changed; here it runs once",
  runalways: "Liquibase runs it each time; here it runs once",
  context: "it has a context, and runs in every one here",
  contextfilter: "it has a context, and runs in every one here",
  labels: "it has labels, and runs with any here",
  failonerror: "Liquibase may go on when it fails; here a failure ends the run",
};

/** Liquibase's formatted SQL: each change set is a migration of its own. */
export function readLiquibase(files: Files): Read {
  const own = files.names.filter((name) =>
    name.endsWith(".sql") && /^\s*--\s*liquibase formatted sql/im.test(files.text(name))
  );
  const migrations: ForeignMigration[] = [];
  const decisions: string[] = [];
  for (const file of own) {
    const parts = files.text(file).split(/^--\s*changeset\s+/im);
    for (const part of parts.slice(1)) {
      const [header = "", ...lines] = part.split(/\r?\n/);
      const match = /^("[^"]*"|[^\s:]+):("[^"]*"|\S+)(.*)$/.exec(header.trim());
      if (!match) continue;
      const [, author = "", id = "", rest = ""] = match.map((word) => word.replace(/^"|"$/g, ""));
      const attributes = new Map(
        [...rest.matchAll(/(\w+):("[^"]*"|\S+)/g)].map(([, name, value]) => [name!.toLowerCase(), value!]),
      );
      const dbms = attributes.get("dbms");
      if (dbms && !/postgres|all/i.test(dbms)) {
        decisions.push(`${file}: the change set ${author}:${id} was left out: it is for ${dbms}`);
        continue;
      }
      const undo = lines.flatMap((line) => /^\s*--\s*rollback\s+(.*)$/i.exec(line)?.[1] ?? []);
      const up = lines.filter((line) =>
        !/^\s*--\s*(?:rollback|comment:?|precondition\S*|validCheckSum:?|property|ignoreLines\S*)(?:\s|$)/i
          .test(line)
      );
      const told = [...attributes.keys()].flatMap((name) => TOLD[name] ?? []);
      if (lines.some((line) => /^\s*--\s*precondition/i.test(line))) {
        told.push("its preconditions were left out");
      }
      migrations.push({
        ...{ key: `${id}::${author}`, version: undefined, title: `${id}_${titleOf(file)}`, file },
        up: up.join("\n").trim(),
        down: undo.length > 0 && !/^(?:empty|not required)$/i.test(undo.join(" ").trim())
          ? undo.join("\n")
          : undefined,
        noTransaction: attributes.get("runintransaction")?.toLowerCase() === "false",
        decisions: told,
      });
    }
  }
  const isMany = new Set(own).size > 1;
  return {
    migrations,
    problems: files.names.filter((name) =>
      /^[^/]*\.(?:xml|ya?ml|json)$/.test(name) && /changeSet\b/.test(files.text(name))
    )
      .map((file) => ({ file, message: "is no SQL: write what its change sets do as migrations" })),
    decisions: [
      ...decisions,
      ...(isMany
        ? ["files were read in the order of their names: where a change log has another one, rename them"]
        : []),
    ],
  };
}

const titleOf = (file: string) => file.replace(/^.*\//, "").replace(/\.sql$/, "").replace(/^\d+[_-]?/, "");

/** Rails: structure.sql, as one migration that a database which has run all of Rails' own is taken to have. */
export function readRails(files: Files): Read {
  const file = files.names.find((name) => /(?:^|\/)structure\.sql$/.test(name))!;
  const text = files.text(file);
  const versions = [...text.matchAll(/^\s*\('(\d+)'\)[,;]/gm)].map(([, version]) => version!);
  // Rails' own books are no part of the schema.
  const up = text.replace(/^INSERT INTO "?schema_migrations"?[\s\S]*?;\s*$/m, "");
  return {
    migrations: [{
      ...{
        key: versions.toSorted().at(-1) ?? "",
        version: undefined,
        title: "structure",
        file,
        up,
        down: undefined,
      },
      ...{
        noTransaction: false,
        decisions: [`it stands for the ${versions.length} migrations that Rails has run`],
      },
    }],
    problems: [],
    decisions: [],
  };
}
