import { assertEquals, assertMatch } from "@std/assert";
import type { Look } from "../maintenance/wait.ts";
import type { ActiveTask } from "../maintenance/tasks.ts";
import { Picture } from "./drain.ts";

const task: ActiveTask = {
  ...{ id: "run-1", taskId: "resize", status: "running", attempt: 1, createdAt: new Date(0) },
  ...{ startedAt: null, heartbeatAt: null, scheduledFor: null, ageMs: 40_000, silentMs: 2000, stale: false },
};

function look(running: number, pending: number, more: Partial<Look> = {}): Look {
  const blocking = running + pending;
  return {
    state: {
      ...{ heldTasksCount: 0, settlesInMs: 0, gateFits: true, deployment: null, settleMs: 2000 },
      ...{ mode: "waiting_for_maintenance", modeChangedAt: new Date(0), requestedAt: new Date(0) },
      ...{ pendingTasksCount: pending, runningTasksCount: running, blockingTasksCount: blocking },
      ...{ staleTasksCount: 0, owner: null, reason: null, drain: "all", waitExpiresAt: null },
      ...{ ignoredTasks: [], metadata: {}, updatedAt: new Date(0), serverProcess: 1 },
    },
    oldest: blocking === 0 ? [] : [task],
    ...more,
  };
}

Deno.test("Picture: what is left, by status; no rate before something has ended", () => {
  assertEquals(new Picture().step(look(3, 5), 0, 80), {
    label: "Draining: 8 tasks left",
    fraction: 0,
    more: "3 running, 5 pending; oldest: run-1 (resize, running for 40s, heartbeat 2s ago)",
    below: ["  3 running, 5 pending", "  · running run-1 (resize)  for 40s, heartbeat 2s ago"],
  });
});

Deno.test("Picture: the rate is that of the last minute, and what is queued meanwhile undoes nothing", () => {
  const picture = new Picture();
  picture.step(look(10, 0), 0, 80);
  // 6 in 2 s; a pipeline under way queues 2 more.
  picture.step(look(4, 0), 2000, 80);
  const { label, fraction, below } = picture.step(look(4, 2), 3000, 80);
  assertEquals([label, fraction], ["Draining: 6 tasks left, about 3s", 0.4]);
  assertEquals(below![0], "  4 running, 2 pending; 2.0/s");
  // Nothing ends any more: after a minute there is no rate to tell the time by.
  assertEquals(picture.step(look(4, 2), 40_000, 80).label, "Draining: 6 tasks left, about 40s");
  assertEquals(picture.step(look(4, 2), 70_000, 80).label, "Draining: 6 tasks left");
});

Deno.test("Picture: nothing left, and held up by others' transactions", () => {
  const picture = new Picture();
  picture.step(look(1, 0), 0, 80);
  const step = picture.step(look(0, 0, { heldUpBy: "pid 7 (app, idle in transaction, for 3s)" }), 1000, 80);
  assertEquals([step.label, step.fraction], ["Draining: 0 tasks left", 1]);
  assertEquals(step.below![1], "  held up by pid 7 (app, idle in transaction, for 3s)");
  assertMatch(step.more!, /^0 running, 0 pending; held up by pid 7/);
});
