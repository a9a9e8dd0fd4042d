/** Every sslmode through the compiled binary, against servers with certificates of a private CA. */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { ADMIN, PostgresServer } from "../scripts/postgres_server.ts";
import { folderWith, pipeweave } from "./support/binary.ts";
import { Authority, type Credentials } from "./support/certificates.ts";

const MODES = ["disable", "prefer", "require", "verify-ca", "verify-full"] as const;

/** What each mode leads to: undefined where it connects, else what the error says. */
type Expected = Readonly<Record<(typeof MODES)[number], string | undefined>>;

Deno.test("TLS: right, wrong, expired and misnamed certificates, and none, under every sslmode", async () => {
  const authority = new Authority("PipeWeave test CA");
  const stranger = new Authority("Somebody else's CA");
  await using files = await folderWith({ "ca.crt": authority.certificate });
  const server = await PostgresServer.start({ auth: "scram-sha-256" });
  try {
    const use = async (credentials: Credentials | undefined) => {
      if (credentials) {
        await server.write("server.crt", credentials.certificate);
        await server.write("server.key", credentials.key);
      }
      await server.configure({ ssl: credentials ? "on" : "off" });
      await server.down();
      await server.up();
    };
    const check = async (what: string, expected: Expected) => {
      for (const mode of MODES) {
        const env = {
          DB_HOST: "localhost",
          DB_PORT: String(server.port),
          DB_USER: ADMIN.user,
          DB_NAME: "postgres",
          PGPASSWORD: ADMIN.password,
        };
        const root = mode.startsWith("verify") ? ["--sslrootcert", `${files.path}/ca.crt`] : [];
        const { code, stdout, stderr } = await pipeweave(["db:status", "--sslmode", mode, ...root], { env });
        const wanted = expected[mode];
        assertEquals(code, wanted === undefined ? 0 : 6, `${what}, ${mode}: ${stdout}${stderr}`);
        if (wanted !== undefined) assertStringIncludes(stderr, wanted, `${what}, ${mode}`);
        assert(!stderr.includes("    at "), stderr);
      }
    };
    const works = undefined;
    const good = authority.server(["localhost"]);

    await use(good);
    await check("right certificate", {
      disable: works,
      prefer: works,
      require: works,
      "verify-ca": works,
      "verify-full": works,
    });
    await use(stranger.server(["localhost"]));
    await check("another CA", {
      disable: works,
      prefer: works,
      require: works,
      "verify-ca": "UnknownIssuer",
      "verify-full": "UnknownIssuer",
    });
    await use(authority.server(["localhost"], [-20, -10]));
    await check("expired", {
      disable: works,
      prefer: works,
      require: works,
      "verify-ca": "xpired",
      "verify-full": "xpired",
    });
    await use(authority.server(["db.example"]));
    await check("another name", {
      disable: works,
      prefer: works,
      require: works,
      "verify-ca": works,
      "verify-full": 'not valid for name "localhost"',
    });
    const none = "offers no TLS";
    await use(undefined);
    await check("no TLS", {
      disable: works,
      prefer: works,
      require: none,
      "verify-ca": none,
      "verify-full": none,
    });

    // What is encrypted is what was asked for: the server itself says so.
    await use(good);
    await server.write("pg_hba.conf", "hostssl all all 127.0.0.1/32 scram-sha-256\n");
    await server.down();
    await server.up();
    await check("the server insists on TLS", {
      disable: "no pg_hba.conf entry",
      prefer: works,
      require: works,
      "verify-ca": works,
      "verify-full": works,
    });
  } finally {
    await server.stop();
  }
});
