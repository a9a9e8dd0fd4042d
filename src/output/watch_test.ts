import { assert, assertEquals } from "@std/assert";
import { chart, watchScreen, type WatchView } from "./watch.ts";

const view: WatchView = {
  status: {
    ...{ mode: "waiting_for_maintenance", pendingTasks: 20, runningTasks: 20, canEnterMaintenance: false },
    ...{ message: "Waiting for 40 tasks to complete", modeChangedAt: new Date(0), owner: "alice@one" },
    ...{ reason: "disk", drain: "all", waitExpiresAt: null, staleTasks: 1, ignoredTasks: [] },
  },
  tasks: Array.from({ length: 40 }, (_, i) => ({
    ...{ id: `run-${i}`, taskId: "resize", status: "running" as const, attempt: 1, createdAt: new Date(0) },
    ...{
      startedAt: null,
      heartbeatAt: null,
      scheduledFor: null,
      ageMs: 1000,
      silentMs: null,
      stale: i === 0,
    },
  })),
  log: [{
    ...{ id: 1, loggedAt: new Date(0), action: "request", modeBefore: "running" },
    ...{ modeAfter: "waiting_for_maintenance", databaseUser: "app", osUser: "alice", host: "one" },
    ...{ tool: "pipeweave/2.0.0", owner: "alice@one", reason: "disk", details: {} },
  }],
  counts: [0, 5, 40],
  everyMs: 1000,
};

Deno.test("chart: a bar a look, relative to the highest, the newest last", () => {
  assertEquals(chart([0, 1, 4, 8], 80), "·▁▄█");
  assertEquals(chart([8, 0, 1], 2), "·█");
  assertEquals(chart([], 10), "");
});

Deno.test("watchScreen fits any terminal, keeps the mode and the keys, and says what it leaves out", () => {
  for (const [columns, rows] of [[60, 24], [80, 40], [200, 100], [20, 16]] as const) {
    const lines = watchScreen(view, columns, rows);
    assert(lines.length <= rows, `${lines.length} lines on ${rows}`);
    for (const line of lines) assert([...line].length <= columns, line);
    assertEquals(lines[0], "Mode: waiting_for_maintenance".slice(0, columns));
    assert(lines.at(-1)!.startsWith("r request"));
  }
  const lines = watchScreen(view, 80, 40);
  assert(lines.some((line) => /^… \d+ more lines/.test(line)), lines.join("\n"));
  assert(lines.some((line) => line.includes("request: running → waiting_for_maintenance")));
});
