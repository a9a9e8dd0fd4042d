import { stripAnsiCode } from "@std/fmt/colors";
import { assert, assertEquals, assertMatch } from "@std/assert";
import { cellsOf } from "./cells.ts";
import { PLAIN } from "./page.ts";
import { styleFor } from "./style.ts";
import { chart, noteFits, watchScreen, type WatchView } from "./watch.ts";

const view: WatchView = {
  status: {
    ...{ gate: "closed", isSafe: false, settlesInMs: 0, heldTasks: 0, deployment: null },
    ...{ mode: "waiting_for_maintenance", pendingTasks: 20, runningTasks: 20, canEnterMaintenance: false },
    ...{ message: "Waiting for 40 tasks to complete", modeChangedAt: new Date(0), owner: "alice@one" },
    ...{ reason: "disk", drain: "all", waitExpiresAt: null, staleTasks: 1, ignoredTasks: [] },
    requestedAt: new Date(0),
  },
  tasks: Array.from({ length: 40 }, (_, i) => ({
    ...{ id: `run-${i}`, taskId: "resize", status: "running" as const, attempt: 1, createdAt: new Date(0) },
    ...{
      startedAt: null,
      heartbeatAt: null,
      scheduledFor: null,
      ageMs: 1000,
      silentMs: null,
      stale: i === 39,
    },
  })),
  log: [{
    ...{ id: 1, loggedAt: new Date(0), action: "request", modeBefore: "running" },
    ...{ modeAfter: "waiting_for_maintenance", databaseUser: "app", osUser: "alice", host: "one" },
    ...{ tool: "pipeweave/2.0.0", owner: "alice@one", reason: "disk", details: {} },
  }],
  counts: [{ running: 0, pending: 9 }, { running: 5, pending: 9 }, { running: 20, pending: 20 }],
  everyMs: 1000,
};

Deno.test("chart: a bar a look, relative to the highest, the newest last", () => {
  assertEquals(chart([0, 1, 4, 8], 80, 1), [" ▁▄█"]);
  assertEquals(chart([8, 0, 1], 2, 1), [" █"]);
  assertEquals(chart([], 10, 1), [""]);
  // Of 100 one is too little for an eighth, and shows all the same.
  assertEquals(chart([0, 1, 50, 75, 100], 80, 2), ["   ▄█", " ▁███"]);
});

Deno.test("watchScreen fits any terminal, keeps the mode and the keys, and says what it leaves out", () => {
  for (
    const [columns, rows] of [[60, 24], [60, 20], [80, 24], [80, 40], [200, 100], [20, 16], [20, 5]] as const
  ) {
    for (const style of [styleFor(false), styleFor(true)]) {
      for (const more of [{}, { isExplained: true }, { note: "Not up to date: ".repeat(20) }]) {
        const lines = watchScreen({ ...view, ...more }, { columns, style, now: new Date() }, rows);
        assert(lines.length <= rows, `${lines.length} lines on ${rows}`);
        for (const line of lines) assert(cellsOf(line) <= columns, line);
        const shown = stripAnsiCode(lines.slice(0, 2).join(" ")).replaceAll(/ +/g, " ");
        assert(shown.startsWith("Mode: waiting_for_maintenance".slice(0, columns)), shown);
        assertMatch(stripAnsiCode(lines.at(-1)!), /^r (?:request .*q quit|x \? q)$/);
      }
    }
  }
  const lines = watchScreen(view, { ...PLAIN, columns: 80 }, 40);
  assert(lines.some((line) => /^… \d+ more: maintenance:tasks$/.test(line)), lines.join("\n"));
  assert(lines.some((line) => line.includes("request: running → waiting_for_maintenance")));
  assert(lines.some((line) => /^running 20 \(most 20\) +▆█$/.test(line)), lines.join("\n"));
  const first = lines.findIndex((line) => line.startsWith("Active tasks")) + 1;
  assertEquals([lines[first]![0], lines[first + 1]![0]], ["!", "·"]);
});

Deno.test("watchScreen: a list for which there is no room has no heading, and a task keeps all of its lines", () => {
  for (let rows = 12; rows < 40; rows++) {
    const lines = watchScreen(view, { ...PLAIN, columns: 28 }, rows);
    for (const [index, line] of lines.entries()) {
      const next = lines[index + 1];
      if (/^(?:Active tasks|Log:)/.test(line)) assert(next, lines.join("\n"));
      // Where there is room for a line alone, it is the first of the first task.
      const isAlone = lines.filter((one) => /^[!·] /.test(one)).length === 1;
      if (/^[!·] /.test(line) && !isAlone) assertMatch(next!, /^ {4}for 1s/, lines.join("\n"));
    }
  }
});

Deno.test("watchScreen: how far a drain is, and what the keys do", () => {
  const drain = { label: "Draining: 12 tasks left, about 40s", fraction: 0.6 };
  const lines = watchScreen({ ...view, drain }, { ...PLAIN, columns: 80 }, 40);
  assert(lines.includes("Draining: 12 tasks left, about 40s ███████░░░░░ 60%"), lines.join("\n"));
  const help = watchScreen({ ...view, isExplained: true }, { ...PLAIN, columns: 80 }, 40);
  assert(help.some((line) => line.startsWith("x  ends maintenance")) && !help.includes("Log:"));
});

Deno.test("watchScreen: a low terminal shows the stale task before charts and log", () => {
  const lines = watchScreen(view, { ...PLAIN, columns: 60 }, 20);
  assert(lines.some((line) => line.startsWith("! running run-39")), lines.join("\n"));
  assert(!lines.some((line) => line.startsWith("The last")), lines.join("\n"));
  assertEquals(lines.length, 20);
});

Deno.test("a question is asked where all of it is seen", () => {
  const question = `Close the queue of app@db1:5432/${
    "x".repeat(70)
  }? y closes it, any other key leaves it open`;
  assertEquals([noteFits(question, 60, 20), noteFits(question, 20, 20), noteFits(question, 80, 5)], [
    true,
    false,
    false,
  ]);
});
