import { assertEquals } from "@std/assert";
import { type Intent, nextMode, type OrchestratorMode } from "./transitions.ts";

Deno.test("nextMode: every intent, mode and number of active tasks", () => {
  const [R, W, M] = ["running", "waiting_for_maintenance", "maintenance"] as const;
  /** intent, mode, what follows with nothing active, what follows with something active */
  const table: readonly (readonly [Intent, OrchestratorMode, OrchestratorMode, OrchestratorMode])[] = [
    ["look", R, R, R],
    ["look", W, M, W],
    ["look", M, M, M],
    ["request", R, M, W],
    ["request", W, M, W],
    ["request", M, M, M],
    ["enter", R, R, R],
    ["enter", W, M, W],
    ["enter", M, M, M],
    ["exit", R, R, R],
    ["exit", W, R, R],
    ["exit", M, R, R],
  ];
  for (const [intent, mode, idle, busy] of table) {
    assertEquals(nextMode(intent, mode, 0), idle, `${intent} from ${mode}, nothing active`);
    assertEquals(nextMode(intent, mode, 1), busy, `${intent} from ${mode}, a task active`);
  }
});
