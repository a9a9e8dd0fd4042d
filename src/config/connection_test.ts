import { assert, assertEquals } from "@std/assert";
import {
  type ConnectionDecision,
  type ConnectionFlags,
  type ConnectionSettings,
  decideConnection,
  describeTarget,
  type FoundFile,
} from "./connection.ts";

/** Of nobody: made for this test (openssl req -new -x509 -newkey ed25519). */
const CERTIFICATE = `-----BEGIN CERTIFICATE-----
MIIBNDCB56ADAgECAhQAjUdwZhUq96DneyFGRbLx8G+hjTAFBgMrZXAwDzENMAsG
A1UEAwwEcm9vdDAgFw0yNjExMjkwMTA0MTVaGA8yMTI2MTEwNTAxMDQxNVowDzEN
MAsGA1UEAwwEcm9vdDAqMAUGAytlcAMhAN9ZdfhhrB2Hcflb7eFUpAEsRd/fXGoz
i+QWf7CIzKfKo1MwUTAdBgNVHQ4EFgQUMicXO33A7Btgr+/eBWS8zmwFIeUwHwYD
VR0jBBgwFoAUMicXO33A7Btgr+/eBWS8zmwFIeUwDwYDVR0TAQH/BAUwAwEB/zAF
BgMrZXADQQAuIijoe3U16mu++vepyZt7qLxXI9g+gocwu9M9utphf9pKIRggSLfA
FZBCeOTgzDhltd3tzZGnHWsGLP3VEGYD
-----END CERTIFICATE-----
`;

interface Case {
  readonly flags?: ConnectionFlags;
  readonly env?: Record<string, string>;
  readonly files?: Record<string, string | FoundFile>;
  readonly osUser?: string;
}

function decide({ flags = {}, env = {}, files = {}, osUser = "osuser" }: Case): ConnectionDecision {
  return decideConnection(flags, {
    env,
    osUser: osUser === "" ? undefined : osUser,
    applicationName: "pipeweave/test",
    readFile: (path) => {
      const file = files[path];
      return typeof file === "string" ? { text: file, mode: 0o100600 } : file;
    },
  });
}

function settingsOf(given: Case): ConnectionSettings {
  const decision = decide(given);
  if (!decision.ok) throw new Error(decision.problems.join("\n"));
  return decision.settings;
}

function problemsOf(given: Case): string {
  const decision = decide(given);
  assert(!decision.ok, "it should have been refused");
  return decision.problems.join("\n");
}

const defaults: ConnectionSettings = {
  hosts: [{ host: "localhost", port: 5432 }],
  database: "osuser",
  user: "osuser",
  sslmode: "prefer",
  channelBinding: "prefer",
  patience: { idleMs: 10_000, intervalMs: 5000, limitMs: 25_000 },
  applicationName: "pipeweave/test",
  targetSession: "any",
  connectTimeoutMs: 10_000,
  waitForDbMs: 0,
  schema: "public",
};
const at = (host: string, port = 5432, password?: string) => ({
  hosts: [{ host, port, ...(password === undefined ? {} : { password }) }],
});

Deno.test("decideConnection: which setting wins", () => {
  const url = "postgres://urluser:urlpass@urlhost:6000/urldb";
  const fromUrl = { ...at("urlhost", 6000, "urlpass"), user: "urluser", database: "urldb" };
  const pg = { PGHOST: "pghost", PGPORT: "7000", PGUSER: "pguser", PGDATABASE: "pgdb", PGPASSWORD: "pgpass" };
  const db = { DB_HOST: "dbhost", DB_PORT: "8000", DB_USER: "dbuser", DB_NAME: "dbdb", DB_PASS: "dbpass" };
  const table: readonly (readonly [string, Case, Partial<ConnectionSettings>])[] = [
    ["nothing", {}, {}],
    ["PG*", { env: pg }, { ...at("pghost", 7000, "pgpass"), user: "pguser", database: "pgdb" }],
    ["DB_* over PG*", { env: { ...pg, ...db } }, {
      ...at("dbhost", 8000, "dbpass"),
      user: "dbuser",
      database: "dbdb",
    }],
    ["other names of DB_*", { env: { DB_DATABASE: "d", DB_USERNAME: "u", DB_PASSWORD: "p" } }, {
      ...at("localhost", 5432, "p"),
      user: "u",
      database: "d",
    }],
    ["DATABASE_URL over DB_* and PG*", { env: { ...pg, ...db, DATABASE_URL: url } }, fromUrl],
    ["--url over DATABASE_URL", { flags: { url }, env: { DATABASE_URL: "postgres://x@y/z" } }, fromUrl],
    ["--url over PGDATABASE (river lets the environment win)", { flags: { url }, env: pg }, fromUrl],
    [
      "flags over --url",
      { flags: { url, host: "flag", port: "1", database: "d", user: "u", password: "p" } },
      {
        ...at("flag", 1, "p"),
        user: "u",
        database: "d",
      },
    ],
    ["a flag equal to the default still wins (goose takes it as unset)", {
      flags: { host: "localhost", port: "5432", sslmode: "prefer" },
      env: { ...pg, PGSSLMODE: "disable" },
    }, { ...at("localhost", 5432, "pgpass"), user: "pguser", database: "pgdb" }],
    [
      "a part by flag, the rest by environment",
      { flags: { database: "other" }, env: { DATABASE_URL: url } },
      {
        ...fromUrl,
        database: "other",
      },
    ],
    ["a URL's gaps are filled from PG*", { flags: { url: "postgres://h/" }, env: pg }, {
      ...at("h", 7000, "pgpass"),
      user: "pguser",
      database: "pgdb",
    }],
    ["the database defaults to the user", { flags: { user: "me" } }, { user: "me", database: "me" }],
    ["empty variables count as unset", { env: { PGHOST: "", DATABASE_URL: "", DB_PORT: "" } }, {}],
    ["several hosts", { flags: { url: "postgres://u@a:1,b:2,c/d" } }, {
      hosts: [{ host: "a", port: 1 }, { host: "b", port: 2 }, { host: "c", port: 5432 }],
      user: "u",
      database: "d",
    }],
    ["one port for several hosts", { env: { PGHOST: "a,b", PGPORT: "9" } }, {
      hosts: [{ host: "a", port: 9 }, { host: "b", port: 9 }],
    }],
    ["PGHOSTADDR beside PGHOST", { env: { PGHOST: "name", PGHOSTADDR: "10.0.0.1" } }, {
      hosts: [{ host: "name", address: "10.0.0.1", port: 5432 }],
    }],
    ["PGHOSTADDR alone", { env: { PGHOSTADDR: "10.0.0.1" } }, at("10.0.0.1")],
    ["a host by flag is not overruled by PGHOSTADDR", {
      flags: { host: "flag" },
      env: { PGHOSTADDR: "10.0.0.1" },
    }, at("flag")],
    ["Unix socket", { flags: { url: "postgres:///d?host=/run/postgresql&user=u" } }, {
      ...at("/run/postgresql"),
      user: "u",
      database: "d",
    }],
    ["other PG*", {
      env: {
        PGAPPNAME: "me",
        PGCONNECT_TIMEOUT: "3",
        PGOPTIONS: "-c x=y",
        PGTARGETSESSIONATTRS: "read-write",
      },
    }, { applicationName: "me", connectTimeoutMs: 3000, options: "-c x=y", targetSession: "read-write" }],
    ["--connect-timeout over PGCONNECT_TIMEOUT", {
      flags: { connectTimeoutMs: 500 },
      env: { PGCONNECT_TIMEOUT: "3" },
    }, {
      connectTimeoutMs: 500,
    }],
    ["--wait-for-db and --schema", { flags: { waitForDbMs: 60_000, schema: "My Schema" } }, {
      waitForDbMs: 60_000,
      schema: "My Schema",
    }],
  ];
  for (const [name, given, expected] of table) {
    assertEquals(settingsOf(given), { ...defaults, ...expected }, name);
  }
});

Deno.test("decideConnection: passwords from the password file", () => {
  const env = { HOME: "/home/me", PGUSER: "u", PGDATABASE: "d" };
  const base = { ...defaults, user: "u", database: "d" };
  const files = { "/home/me/.pgpass": "a:1:d:u:first\n*:*:*:*:any\n", "/pass": "*:*:*:*:elsewhere\n" };
  const hosts = [{ host: "a", port: 1, password: "first" }, { host: "b", port: 2, password: "any" }];
  assertEquals(settingsOf({ flags: { host: "a,b", port: "1,2" }, env, files }), { ...base, hosts });
  assertEquals(settingsOf({ env: { ...env, PGPASSFILE: "/pass" }, files }), {
    ...base,
    ...at("localhost", 5432, "elsewhere"),
  });
  assertEquals(settingsOf({ env: { ...env, PGPASSWORD: "given" }, files }), {
    ...base,
    ...at("localhost", 5432, "given"),
  });

  const open = decide({ env, files: { "/home/me/.pgpass": { text: "*:*:*:*:p", mode: 0o100644 } } });
  assert(open.ok);
  assertEquals(open.settings, { ...base });
  assertEquals(open.warnings, [
    "Password file /home/me/.pgpass is ignored: others may read it; run: chmod 600 /home/me/.pgpass",
  ]);
});

Deno.test("decideConnection: services", () => {
  const files = { "/home/me/.pg_service.conf": "[prod]\nhost=svc\ndbname=svcdb\nuser=svcuser\n" };
  const fromService = { ...defaults, ...at("svc"), user: "svcuser", database: "svcdb" };
  assertEquals(settingsOf({ env: { HOME: "/home/me", PGSERVICE: "prod" }, files }), fromService);
  assertEquals(
    settingsOf({ flags: { url: "postgres://?service=prod" }, env: { HOME: "/home/me" }, files }),
    fromService,
  );
  // A service ranks above PG*, and below DB_* (libpq: "takes precedence over environment variables").
  assertEquals(
    settingsOf({ env: { HOME: "/home/me", PGSERVICE: "prod", PGHOST: "pg", DB_NAME: "dbname" }, files }),
    { ...fromService, database: "dbname" },
  );
  assertEquals(
    problemsOf({ env: { HOME: "/home/me", PGSERVICE: "nope" }, files }),
    'Service "nope" is defined in none of: /home/me/.pg_service.conf',
  );
});

Deno.test("decideConnection: TLS", () => {
  const files = { "/ca.crt": CERTIFICATE, "/home/me/.postgresql/root.crt": CERTIFICATE };
  const table: readonly (readonly [string, Case, Partial<ConnectionSettings>])[] = [
    ["--ssl", { flags: { ssl: true } }, { sslmode: "require" }],
    ["DB_SSL=true", { env: { DB_SSL: "true" } }, { sslmode: "require" }],
    ["DB_SSL=false", { env: { DB_SSL: "0" } }, { sslmode: "disable" }],
    ["DB_SSL as a mode", { env: { DB_SSL: "verify-full" }, flags: { sslrootcert: "/ca.crt" } }, {
      sslmode: "verify-full",
      sslRoot: CERTIFICATE,
    }],
    ["--sslmode over --ssl", { flags: { ssl: true, sslmode: "verify-ca", sslrootcert: "/ca.crt" } }, {
      sslmode: "verify-ca",
      sslRoot: CERTIFICATE,
    }],
    ["PGSSLMODE, PGSSLROOTCERT", { env: { PGSSLMODE: "verify-full", PGSSLROOTCERT: "/ca.crt" } }, {
      sslmode: "verify-full",
      sslRoot: CERTIFICATE,
    }],
    ["the default root certificate", { env: { HOME: "/home/me", PGSSLMODE: "verify-full" } }, {
      sslmode: "verify-full",
      sslRoot: CERTIFICATE,
    }],
    ["require with a root certificate checks it", { flags: { sslmode: "require", sslrootcert: "/ca.crt" } }, {
      sslmode: "verify-ca",
      sslRoot: CERTIFICATE,
    }],
    ["the public roots", { flags: { sslmode: "verify-full", sslrootcert: "system" } }, {
      sslmode: "verify-full",
    }],
    ["the public roots alone ask for all of it", { flags: { sslrootcert: "system" } }, {
      sslmode: "verify-full",
    }],
    [
      "a bound channel needs TLS",
      { env: { PGCHANNELBINDING: "require" }, flags: { sslrootcert: "/ca.crt" } },
      {
        sslmode: "verify-ca",
        channelBinding: "require",
        sslRoot: CERTIFICATE,
      },
    ],
    [
      "Neon's URL",
      { flags: { url: "postgres://osuser@localhost?sslmode=require&channel_binding=require" } },
      {
        sslmode: "verify-full",
        channelBinding: "require",
      },
    ],
    ["in the URL", { flags: { url: "postgres://osuser@localhost?sslmode=disable" } }, { sslmode: "disable" }],
  ];
  for (const [name, given, expected] of table) {
    assertEquals(settingsOf({ ...given, files }), { ...defaults, ...expected }, name);
  }
});

Deno.test("decideConnection refuses, and reports all that is wrong together", () => {
  const table: readonly (readonly [Case, string])[] = [
    [{ flags: { url: "http://x" } }, "--url must start with postgres:// or postgresql://"],
    [{ env: { DATABASE_URL: "x" } }, "DATABASE_URL must start with"],
    [{ flags: { port: "0" } }, "--port: the port must be a number from 1 to 65535"],
    [{ env: { PGPORT: "65536" } }, "PGPORT: the port must be"],
    [{ env: { DB_PORT: "x" } }, "DB_PORT: the port must be"],
    [{ flags: { host: "a,b", port: "1,2,3" } }, "--port names 3 ports for 2 host(s)"],
    [
      { flags: { sslmode: "yes" } },
      '--sslmode must be one of disable, allow, prefer, require, verify-ca, verify-full, not "yes"',
    ],
    [{ env: { DB_SSL: "maybe" } }, "DB_SSL must be one of"],
    [{ flags: { ssl: true, sslmode: "disable" } }, "contradict"],
    [{ flags: { sslmode: "verify-full" } }, "--sslrootcert <file>"],
    [{ flags: { sslmode: "verify-ca", sslrootcert: "system" } }, "needs --sslmode verify-full"],
    [{ flags: { sslmode: "verify-ca", sslrootcert: "/none" } }, "the file /none does not exist"],
    [
      { flags: { sslmode: "verify-ca", sslrootcert: "/bad" }, files: { "/bad": "x" } },
      "no certificate in PEM form",
    ],
    [{ env: { PGTARGETSESSIONATTRS: "leader" } }, "PGTARGETSESSIONATTRS must be one of any"],
    [{ env: { PGCONNECT_TIMEOUT: "10s" } }, "PGCONNECT_TIMEOUT must be a whole number of seconds"],
    [{ flags: { schema: "$user" } }, "--schema must not start with $ or pg_"],
    [{ flags: { host: "postgres://u:p@h/d" } }, "--host takes a host; a URL goes to --url"],
    [{ flags: { schema: "" } }, "--schema must be 1 to 63 bytes long"],
    [
      { flags: { url: "postgres://h/d?schema=x" } },
      "schema in --url is not a connection parameter; to choose the schema, use --schema",
    ],
    [{ env: { PGCHANNELBINDING: "yes" } }, "PGCHANNELBINDING must be one of disable, prefer, require"],
    [{ flags: { url: "postgres://h/d?channel_binding=require&sslmode=disable" } }, '"require" needs TLS'],
    [{ env: { PGREQUIREAUTH: "kerberos" } }, "PGREQUIREAUTH names a method that is not one of password, md5"],
    [{ env: { PGREQUIREAUTH: "md5,!none" } }, "PGREQUIREAUTH must not mix methods with and without !"],
    [{ env: { PGREQUIREAUTH: "md5,md5" } }, "PGREQUIREAUTH names a method twice"],
    [{ env: { PGGSSENCMODE: "require" } }, 'PGGSSENCMODE: "require" is not supported'],
    [{ env: { PGSSLNEGOTIATION: "direct" } }, 'PGSSLNEGOTIATION: "direct" is not supported'],
    [{ env: { PGREQUIREPEER: "postgres" } }, 'PGREQUIREPEER: "postgres" is not supported'],
    [{ env: { PGSSLCRL: "/x" } }, "revocation lists are not read"],
    [{ env: { PGSSLMINPROTOCOLVERSION: "TLSv1.3" } }, 'PGSSLMINPROTOCOLVERSION: "TLSv1.3" is not supported'],
    [
      { env: { PGHOST: "db\n" } },
      "PGHOST ends in a line break, as a secret read from a file does: remove it",
    ],
    [{ env: { PGPORT: "5432\r\n" } }, "PGPORT ends in a line break"],
    [{ env: { DB_USER: "me\n" } }, "DB_USER ends in a line break"],
    [{ env: { DATABASE_URL: "postgres://h/app\r" } }, "DATABASE_URL ends in a line break"],
    [{ env: { DATABASE_URL: "postgres://h/app\n" } }, "DATABASE_URL ends in a line break"],
    [{ flags: { url: "postgres://h/app " } }, "--url ends in a space"],
    [{ env: { PGDATABASE: "a\x1bb" } }, "PGDATABASE holds a control character"],
    [{ env: { PGHOST: " db" } }, "PGHOST begins or ends with a space"],
    [
      { flags: { url: "postgres://h/d?keepalives_idle=soon" } },
      "keepalives_idle in --url must be a whole number",
    ],
    [
      { flags: { url: "postgres://h/d?tcp_user_timeout=1.5" } },
      "tcp_user_timeout in --url must be a whole number",
    ],
    [{ flags: { host: "[::1]" } }, "--host takes an IPv6 address without brackets"],
    [{ osUser: "" }, "No database user is named"],
  ];
  for (const [given, part] of table) {
    const problems = problemsOf(given);
    assert(problems.includes(part), `${JSON.stringify(given)}: ${problems}`);
  }
  const together = decide({ flags: { port: "x", sslmode: "y" }, env: { PGCONNECT_TIMEOUT: "z" } });
  assert(!together.ok);
  assertEquals(together.problems.length, 3);
});

Deno.test("decideConnection never repeats a secret", () => {
  for (
    const url of ["postgres://u:SECRET/x@h/d", "postgres://u:SECRET%@h", "postgres://u:SE:CRET@h:SECRET/d"]
  ) {
    const decision = decide({ flags: { url } });
    if (decision.ok) assert(!describeTarget(decision.settings).includes("SECRET"));
    else assert(!decision.problems.join("\n").includes("SECRET"), decision.problems.join("\n"));
  }
});

Deno.test("decideConnection tells whether anybody named a database", () => {
  const configured = (given: Case) => {
    const decision = decide(given);
    return decision.ok && decision.configured;
  };
  assertEquals(configured({}), false);
  assertEquals(configured({ env: { PGSSLMODE: "disable", HOME: "/x" } }), false);
  assertEquals(configured({ env: { PGHOST: "h" } }), true);
  assertEquals(configured({ env: { DATABASE_URL: "postgres://h/d" } }), true);
});

Deno.test("describeTarget shows where, and no password", () => {
  const settings = settingsOf({ flags: { url: "postgres://u:secret@a:1,[::1]:2/d" } });
  assertEquals(describeTarget(settings), "u@a:1,[::1]:2/d");
});

Deno.test("decideConnection: how long a silent server is waited for", () => {
  const table: readonly (readonly [string, ConnectionSettings["patience"]])[] = [
    ["", { idleMs: 10_000, intervalMs: 5000, limitMs: 25_000 }],
    ["keepalives=1", { idleMs: 10_000, intervalMs: 5000, limitMs: 25_000 }],
    ["keepalives=0", undefined],
    ["keepalives_idle=60&keepalives_interval=2&keepalives_count=4", {
      idleMs: 60_000,
      intervalMs: 2000,
      limitMs: 68_000,
    }],
    ["keepalives_idle=0&keepalives_count=-1", { idleMs: 10_000, intervalMs: 5000, limitMs: 25_000 }],
    ["tcp_user_timeout=4000", { idleMs: 4000, intervalMs: 5000, limitMs: 4000 }],
    ["tcp_user_timeout=0", { idleMs: 10_000, intervalMs: 5000, limitMs: 25_000 }],
  ];
  for (const [parameters, expected] of table) {
    assertEquals(
      settingsOf({ flags: { url: `postgres://h/d?${parameters}` } }).patience,
      expected,
      parameters,
    );
  }
});

Deno.test("decideConnection: a password that ends in a line break is taken, with a word", () => {
  const decision = decide({ env: { PGPASSWORD: "secret\n" } });
  assert(decision.ok);
  assertEquals(decision.settings.hosts[0]!.password, "secret\n");
  assertEquals(decision.warnings, [
    "PGPASSWORD ends in a line break, as a secret read from a file does: remove it",
  ]);
});

Deno.test("decideConnection: proofs that the server may ask for", () => {
  const allowed = (text: string) => settingsOf({ env: { PGREQUIREAUTH: text } }).requireAuth;
  assertEquals(allowed("scram-sha-256"), ["scram-sha-256"]);
  assertEquals(allowed("scram-sha-256, md5"), ["md5", "scram-sha-256"]);
  assertEquals(allowed("!none,!password"), ["md5", "gss", "sspi", "scram-sha-256"]);
  assertEquals(settingsOf({}).requireAuth, undefined);
});
