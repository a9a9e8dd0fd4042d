/** The little of node-forge that the tests use; the package has no types of its own. */
declare namespace forge {
  interface KeyPair {
    readonly publicKey: unknown;
    readonly privateKey: unknown;
  }
  interface Attribute {
    readonly name: string;
    readonly value: string;
  }
  interface Certificate {
    publicKey: unknown;
    serialNumber: string;
    /** Counted from 0. */
    version: number;
    readonly validity: { notBefore: Date; notAfter: Date };
    setSubject(attributes: readonly Attribute[]): void;
    setIssuer(attributes: readonly Attribute[]): void;
    setExtensions(extensions: readonly Record<string, unknown>[]): void;
    sign(key: unknown, digest: unknown): void;
  }
}
declare const forge: {
  readonly pki: {
    readonly rsa: { generateKeyPair(bits: number): forge.KeyPair };
    createCertificate(): forge.Certificate;
    certificateToPem(certificate: forge.Certificate): string;
    privateKeyToPem(key: unknown): string;
  };
  readonly md: { readonly sha256: { create(): unknown } };
};
export default forge;
