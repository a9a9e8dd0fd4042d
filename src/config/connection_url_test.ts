import { assert, assertEquals, assertThrows } from "@std/assert";
import { type ConnectionParameters, ConnectionUrlError, parseConnectionUrl } from "./connection_url.ts";

Deno.test("parseConnectionUrl reads URLs as libpq does", () => {
  const table: readonly (readonly [string, ConnectionParameters])[] = [
    ["postgresql://", {}],
    ["postgres://localhost", { host: "localhost" }],
    ["postgresql://localhost:5433", { host: "localhost", port: "5433" }],
    ["postgresql://localhost/mydb", { host: "localhost", dbname: "mydb" }],
    ["postgresql://user@localhost", { host: "localhost", user: "user" }],
    ["postgresql://user:secret@localhost", { host: "localhost", user: "user", password: "secret" }],
    ["postgresql://u:p%40%2F%3A%25w@h/db", { host: "h", user: "u", password: "p@/:%w", dbname: "db" }],
    ["postgresql://u:what?@h/db", { host: "h", user: "u", password: "what?", dbname: "db" }],
    ["postgresql://[2001:db8::1234]/database", { host: "2001:db8::1234", dbname: "database" }],
    ["postgresql://h1:1,h2,[::1]:3/db?target_session_attrs=any", {
      host: "h1,h2,::1",
      port: "1,,3",
      dbname: "db",
      target_session_attrs: "any",
    }],
    ["postgresql:///dbname?host=/run/postgresql", { dbname: "dbname", host: "/run/postgresql" }],
    ["postgresql://%2Frun%2Fpostgresql/db", { dbname: "db", host: "/run/postgresql" }],
    ["postgresql://other@localhost/db?connect_timeout=10&application_name=my%20app", {
      host: "localhost",
      user: "other",
      dbname: "db",
      connect_timeout: "10",
      application_name: "my app",
    }],
    ["postgresql://h/db?user=u&password=p%26q", { host: "h", dbname: "db", user: "u", password: "p&q" }],
    ["postgresql://h?ssl=true", { host: "h", sslmode: "require" }],
  ];
  for (const [url, expected] of table) assertEquals(parseConnectionUrl(url), expected, url);
});

Deno.test("parseConnectionUrl refuses what it cannot read, and never repeats it", () => {
  const table = [
    "mysql://u:TOPSECRET@h/db",
    "TOPSECRET",
    "postgres://u:TOPSECRET%4@h/db",
    "postgres://u:TOPSECRET/x@h/db:x:y",
    "postgres://u:TOP:SECRET:x/db",
    "postgres://h/db?TOPSECRET",
    "postgres://[TOPSECRET/db",
  ];
  for (const url of table) {
    const { message } = assertThrows(() => parseConnectionUrl(url), ConnectionUrlError);
    assert(!/SECRET/.test(message), message);
  }
});
