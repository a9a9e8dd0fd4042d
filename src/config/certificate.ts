/**
 * What is read of a certificate in its DER form: what the platform does not tell of it, and whether its TLS takes it.
 *
 * Deno's TLS is rustls, which ends the process where Node throws when a client's certificate or key is not to its liking.
 * So all that it is known to refuse is looked at before.
 *
 * Layout: RFC 5280, 4.1.
 *
 * @module
 */

/** Tags of ASN.1 elements. */
const TAG = { sequence: 0x30, identifier: 0x06, boolean: 0x01, version: 0xa0, extensions: 0xa3 } as const;

/** An element: its tag, and where it begins, where its content begins, and where it ends. */
interface Element {
  readonly tag: number;
  readonly at: number;
  readonly start: number;
  readonly end: number;
}

/** Reads the element at an offset. @throws {RangeError} when it does not fit */
function elementAt(der: Uint8Array, at: number): Element {
  const [tag, first] = [der[at], der[at + 1]];
  if (tag === undefined || first === undefined) throw new RangeError("it is cut short");
  const lengthBytes = first < 0x80 ? 0 : first & 0x7f;
  const start = at + 2 + lengthBytes;
  const length = lengthBytes === 0
    ? first
    : der.subarray(at + 2, start).reduce((sum, byte) => sum * 256 + byte, 0);
  if (lengthBytes > 4 || start + length > der.length) throw new RangeError("it is cut short");
  return { tag, at, start, end: start + length };
}

/** Reads the elements that another one holds. */
function elementsIn(der: Uint8Array, { start, end }: Element): readonly Element[] {
  const elements: Element[] = [];
  for (let at = start; at < end; at = elements.at(-1)!.end) elements.push(elementAt(der, at));
  return elements;
}

function hexOf(der: Uint8Array, from: number, to: number): string {
  return [...der.subarray(from, to)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The parts of a certificate. @throws {RangeError} when it is none */
function partsOf(der: Uint8Array): { signed: readonly Element[]; algorithm: Element } {
  const [signed, algorithm] = elementsIn(der, elementAt(der, 0));
  if (signed?.tag !== TAG.sequence || algorithm?.tag !== TAG.sequence) {
    throw new RangeError("it is no certificate");
  }
  return { signed: elementsIn(der, signed), algorithm };
}

/** Object identifiers of signature algorithms, in hexadecimal, whose digest is not SHA-256 (RFC 4055, RFC 5758). */
const DIGESTS: Readonly<Record<string, "sha384" | "sha512" | undefined>> = {
  "2a864886f70d01010c": "sha384",
  "2a864886f70d01010d": "sha512",
  "2a8648ce3d040303": "sha384",
  "2a8648ce3d040304": "sha512",
  // RSASSA-PSS names its digest in the parameters, and Ed25519 has none: not known here.
  "2a864886f70d01010a": undefined,
  "2b6570": undefined,
};

/**
 * Returns the digest for `tls-server-end-point` (RFC 5929, 4.1): that of the signature, and SHA-256 instead of MD5 and
 * SHA-1. Undefined where it cannot be told.
 */
export function bindingDigest(der: Uint8Array): "sha256" | "sha384" | "sha512" | undefined {
  try {
    const { tag, start, end } = elementAt(der, partsOf(der).algorithm.start);
    if (tag !== TAG.identifier) return undefined;
    const identifier = hexOf(der, start, end);
    return identifier in DIGESTS ? DIGESTS[identifier] : "sha256";
  } catch {
    return undefined;
  }
}

/**
 * Critical extensions that rustls knows: key usage, subject alternative name, basic constraints, name constraints,
 * distribution points of revocation lists, extended key usage (2.5.29.15, 17, 19, 30, 31, 37).
 */
const UNDERSTOOD = new Set(["0f", "11", "13", "1e", "1f", "25"].map((last) => `551d${last}`));

/** Why rustls would not take a certificate as a client's; undefined when nothing is known against it. */
export function whyNotTaken(der: Uint8Array): string | undefined {
  try {
    const { signed, algorithm } = partsOf(der);
    const [version, , inner] = signed;
    const number = version?.tag === TAG.version ? der[version.end - 1]! + 1 : 1;
    if (number !== 3) {
      return `it is of version ${number}, and pipeweave's TLS takes version 3 alone: sign it with extensions ` +
        "(openssl x509 -req … -extfile)";
    }
    if (inner && hexOf(der, inner.at, inner.end) !== hexOf(der, algorithm.at, algorithm.end)) {
      return "it names two signature algorithms";
    }
    const behindKey = signed.slice(7);
    if (behindKey.some(({ tag }) => tag !== TAG.extensions)) return "it holds unique identifiers";
    for (const extensions of behindKey) {
      for (const extension of elementsIn(der, elementAt(der, extensions.start))) {
        const [identifier, flag] = elementsIn(der, extension);
        const isCritical = flag?.tag === TAG.boolean && der[flag.start] !== 0;
        if (isCritical && identifier && !UNDERSTOOD.has(hexOf(der, identifier.start, identifier.end))) {
          return "it has a critical extension that pipeweave's TLS does not know";
        }
      }
    }
    return undefined;
  } catch (error) {
    return error instanceof RangeError ? error.message : String(error);
  }
}
