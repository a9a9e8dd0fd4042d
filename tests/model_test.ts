/** The model of the gate's protocol (docs/maintenance_protocol.pml), checked by Spin in every state that it can reach. */

import { fileURLToPath } from "node:url";
import { assertEquals, assertMatch } from "@std/assert";

Deno.test("in every state of the model maintenance is idle and nothing is lost, and the check finds each defect", async () => {
  const { code, stdout, stderr } = await new Deno.Command(
    fileURLToPath(new URL("../scripts/model.sh", import.meta.url)),
    { stdin: "null" },
  ).output();
  const decoder = new TextDecoder();
  assertEquals(code, 0, decoder.decode(stderr));
  assertMatch(
    decoder.decode(stdout),
    /^maintenance is idle, and nothing is lost: holds \(\d{4,} states\)\nwith NO_WAIT: violated\nwith SNAPSHOT: violated\nwith NO_RECOUNT: violated\nwith NO_HOLD: violated\n$/,
  );
});
