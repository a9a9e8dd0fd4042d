/** The chart of the README: 100 migrations, a bar a tool, for a near and for a far database. */

import { msOf, RIVALS } from "./report.ts";
import type { Facts } from "./scenario.ts";

const WIDTH = 720;
const LEFT = 150;
const BAR = 22;
const GAP = 8;
const ROOM_FOR_TIME = 80;

export function chart(facts: Facts): string {
  const panels = [
    {
      id: "100@100",
      title: "100 migrations over a network of 100 ms round-trip time",
    },
    { id: "100@0", title: "100 migrations, server on the same machine" },
    {
      id: "current@100",
      title: "100 migrations, all applied: nothing to do, 100 ms",
    },
  ];
  const names = ["pipeweave", ...RIVALS];
  const height = 40 + names.length * (BAR + GAP);
  const body = panels.map(({ id, title }, index) => panel(facts, id, title, names, index * height));
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${
    panels.length * height + 10
  }" viewBox="0 0 ${WIDTH} ${
    panels.length * height + 10
  }" font-family="system-ui, sans-serif" font-size="13" role="img">
<title>Times of 100 migrations: pipeweave and its rivals</title>
<rect width="100%" height="100%" fill="#ffffff"/>
${body.join("\n")}
</svg>
`;
}

function panel(
  facts: Facts,
  id: string,
  title: string,
  names: readonly string[],
  top: number,
): string {
  const times = names.map((name) => msOf(facts, id, name));
  const scale = (WIDTH - LEFT - ROOM_FOR_TIME) / Math.max(...times);
  const bars = names.map((name, index) => {
    const y = top + 34 + index * (BAR + GAP);
    const width = Math.max(1, times[index]! * scale);
    const fill = index === 0 ? "#1f6feb" : "#b6bdc6";
    return `<text x="${LEFT - 10}" y="${y + 16}" text-anchor="end" fill="#24292f">${name}</text>
<rect x="${LEFT}" y="${y}" width="${width.toFixed(1)}" height="${BAR}" rx="3" fill="${fill}"/>
<text x="${(LEFT + width + 8).toFixed(1)}" y="${y + 16}" fill="#24292f">${seconds(times[index]!)}</text>`;
  });
  return `<text x="10" y="${top + 22}" font-weight="600" fill="#24292f">${title}</text>\n${bars.join("\n")}`;
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
}
