import { assertEquals, assertThrows } from "@std/assert";
import { canonicalText, checksumOf, NotUtf8Error } from "./checksum.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

Deno.test("checksumOf is SHA-256 in hex", async () => {
  // FIPS 180-2, appendix B.1.
  assertEquals(checksumOf("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const text = "SELECT 'é😀';\n".repeat(1000);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes(text)));
  assertEquals(
    checksumOf(text),
    Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join(""),
  );
});

Deno.test("canonicalText: a byte-order mark and CRLF make no difference, a lone CR does", () => {
  assertEquals(canonicalText(bytes("\uFEFFSELECT 1;\r\nSELECT 2;\r\n")), "SELECT 1;\nSELECT 2;\n");
  assertEquals(canonicalText(bytes("a\rb")), "a\rb");
});

Deno.test("canonicalText names the first byte that is not UTF-8", () => {
  const table: readonly (readonly [number[], number])[] = [
    [[0xff], 0],
    [[0x61, 0xc3, 0xa9, 0xe9, 0x20], 3],
    [[0x61, 0xe2, 0x82], 1],
  ];
  for (const [data, offset] of table) {
    const error = assertThrows(() => canonicalText(Uint8Array.from(data)), NotUtf8Error);
    assertEquals(error.offset, offset);
  }
});
