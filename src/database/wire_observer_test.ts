import { assertEquals } from "@std/assert";
import { WireObserver } from "./wire_observer.ts";

/** A message of the protocol: type, length that counts itself, body. */
function message(type: string, ...body: number[]): number[] {
  const length = body.length + 4;
  return [
    type.charCodeAt(0),
    length >>> 24,
    (length >>> 16) & 255,
    (length >>> 8) & 255,
    length & 255,
    ...body,
  ];
}

const startup = [
  ...message("R", 0, 0, 0, 0),
  ...message("S", ...new TextEncoder().encode("server_version\u000018.4\u0000")),
  ...message("K", 0, 0, 1, 2, 9, 8, 7, 6),
  ...message("Z", 73),
];
const complete = message("C", 83, 69, 84, 0);
const stream = [
  ...startup,
  ...complete,
  ...message("D", ...new Array(300).fill(67)),
  ...complete,
  ...message("E", ...new TextEncoder().encode("SERROR\0VERROR\0C22012\0Mdivision by zero\0\0")),
  ...message("Z", 73),
  ...complete,
  ...message("Z", 73),
  ...complete,
  ...message("E", ...new TextEncoder().encode("SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0")),
];

Deno.test("WireObserver counts statements per message, however the stream is cut", () => {
  for (const size of [1, 2, 3, 5, 7, 64, stream.length]) {
    const observer = new WireObserver();
    for (let at = 0; at < stream.length; at += size) {
      observer.feed(Uint8Array.from(stream.slice(at, at + size)));
    }
    assertEquals([...observer.backendKey!], [0, 0, 1, 2, 9, 8, 7, 6]);
    assertEquals(observer.answered, 3);
    assertEquals(observer.lastWord, { sqlstate: "57P01", message: "terminating connection" });
    assertEquals([0, 1, 2, 3].map((index) => observer.completed(index)), [0, 2, 1, 1], `chunks of ${size}`);
  }
});
