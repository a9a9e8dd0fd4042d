import { assertEquals } from "@std/assert";
import config from "../../deno.json" with { type: "json" };
import { VERSION } from "./version.ts";

Deno.test("the version is the one of deno.json", () => {
  assertEquals(VERSION, config.version);
});
