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
    const next = (blockers: number) => nextMode(intent, { mode, blockers, expired: false });
    assertEquals(next(0), idle, `${intent} from ${mode}, nothing active`);
    assertEquals(next(1), busy, `${intent} from ${mode}, a task active`);
  }
});

Deno.test("nextMode: a wait that ran out counts as running, and nothing else does", () => {
  for (const intent of ["look", "request", "enter", "exit"] as const) {
    for (const mode of ["running", "waiting_for_maintenance", "maintenance"] as const) {
      for (const blockers of [0, 1]) {
        assertEquals(
          nextMode(intent, { mode, blockers, expired: true }),
          nextMode(intent, {
            mode: mode === "waiting_for_maintenance" ? "running" : mode,
            blockers,
            expired: false,
          }),
        );
      }
    }
  }
});

/** The state machine in other words: what each mode promises, and what each intent asks for. */
class Model {
  mode: OrchestratorMode = "running";
  tasks = 0;

  act(intent: Intent, expired: boolean): void {
    const idle = this.tasks === 0;
    if (expired && this.mode === "waiting_for_maintenance") this.mode = "running";
    if (intent === "exit") this.mode = "running";
    else if (intent === "request" && this.mode === "running") this.mode = "waiting_for_maintenance";
    if (intent !== "exit" && idle && this.mode === "waiting_for_maintenance") this.mode = "maintenance";
  }
}

Deno.test("nextMode: any sequence of intents and tasks goes as the model does, and maintenance is never entered with tasks", () => {
  // A generator of its own, so that a failure can be repeated.
  let seed = 20261124;
  const random = (below: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
  for (let run = 0; run < 500; run++) {
    const model = new Model();
    let mode: OrchestratorMode = "running";
    for (let step = 0; step < 40; step++) {
      if (random(2) === 0) {
        // The gate: in maintenance nothing becomes active.
        if (model.mode !== "maintenance") model.tasks = random(3);
        continue;
      }
      const intent = (["look", "request", "enter", "exit"] as const)[random(4)]!;
      const [before, expired] = [mode, random(4) === 0];
      mode = nextMode(intent, { mode, blockers: model.tasks, expired });
      model.act(intent, expired);
      assertEquals(mode, model.mode, `${intent} from ${before} with ${model.tasks} active, run ${run}`);
      if (mode === "maintenance") assertEquals(model.tasks, 0);
    }
  }
});
