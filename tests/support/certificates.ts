/** Certificates for TLS tests, made anew for each run. Only Node and npm are sure to be there, so not by openssl. */

// @ts-types="./forge.d.ts"
import forge from "node-forge";

/** A certificate and its key, in PEM form. */
export interface Credentials {
  readonly certificate: string;
  readonly key: string;
}

/** A certificate authority of a test's own. */
export class Authority {
  readonly certificate: string;
  readonly #keys = forge.pki.rsa.generateKeyPair(2048);
  readonly #subject: readonly forge.Attribute[];

  constructor(name: string) {
    this.#subject = [{ name: "commonName", value: name }];
    this.certificate = this.#issue(this.#keys, this.#subject, [
      { name: "basicConstraints", cA: true, critical: true },
      { name: "keyUsage", keyCertSign: true, critical: true },
    ], [-1, 365]);
  }

  /**
   * Issues a server certificate.
   *
   * @param names DNS names that it holds
   * @param validity first and last day, counted from today
   */
  server(names: readonly string[], validity: readonly [number, number] = [-1, 365]): Credentials {
    const keys = forge.pki.rsa.generateKeyPair(2048);
    const certificate = this.#issue(keys, [{ name: "commonName", value: names[0]! }], [
      { name: "basicConstraints", cA: false },
      { name: "extKeyUsage", serverAuth: true },
      { name: "subjectAltName", altNames: names.map((value) => ({ type: 2, value })) },
    ], validity);
    return { certificate, key: forge.pki.privateKeyToPem(keys.privateKey) };
  }

  /**
   * Issues a client's certificate.
   *
   * @param user its common name
   * @param version 1 has no extensions
   */
  client(
    user: string,
    { version = 3, validity = [-1, 365] }: { version?: 1 | 3; validity?: readonly [number, number] } = {},
  ): Credentials {
    const keys = forge.pki.rsa.generateKeyPair(2048);
    const extensions = version === 1 ? [] : [
      { name: "basicConstraints", cA: false },
      { name: "extKeyUsage", clientAuth: true },
    ];
    const subject = [{ name: "commonName", value: user }];
    const certificate = this.#issue(keys, subject, extensions, validity, version);
    return { certificate, key: forge.pki.privateKeyToPem(keys.privateKey) };
  }

  #issue(
    keys: forge.KeyPair,
    subject: readonly forge.Attribute[],
    extensions: readonly Record<string, unknown>[],
    [from, to]: readonly [number, number],
    version = 3,
  ): string {
    const day = (offset: number) => new Date(Date.now() + offset * 86_400_000);
    const certificate = forge.pki.createCertificate();
    certificate.publicKey = keys.publicKey;
    certificate.serialNumber = `01${crypto.randomUUID().replaceAll("-", "").slice(0, 16)}`;
    certificate.validity.notBefore = day(from);
    certificate.validity.notAfter = day(to);
    certificate.setSubject(subject);
    certificate.setIssuer(this.#subject);
    certificate.version = version - 1;
    if (extensions.length > 0) certificate.setExtensions(extensions);
    certificate.sign(this.#keys.privateKey, forge.md.sha256.create());
    return forge.pki.certificateToPem(certificate);
  }
}
