/**
 * Makes an image with the binary, as a tarball in OCI's image layout (https://github.com/opencontainers/image-spec), without
 * a Docker daemon. Below the binary are glibc, libgcc and the public certificate authorities, from Debian's packages,
 * whose signed lists apt checks. The same binary and packages give the same image.
 *
 * `deno run -A scripts/release/image.ts --binary <file> --target <triple> --output <file.tar>`
 */

import { fileURLToPath } from "node:url";
import { createHash } from "node:crypto";
import config from "../../deno.json" with { type: "json" };

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const PACKAGES = ["libc6", "libgcc-s1", "ca-certificates", "base-files"];
const NOBODY = "65534:65534";
const EPOCH = Deno.env.get("SOURCE_DATE_EPOCH") ?? "1577836800";
const CREATED = new Date(Number(EPOCH) * 1000).toISOString();

const [binary, target, output] = ["--binary", "--target", "--output"].map((option) => {
  const value = Deno.args[Deno.args.indexOf(option) + 1];
  if (!Deno.args.includes(option) || !value) {
    console.error("usage: image.ts --binary <file> --target <triple> --output <file.tar>");
    Deno.exit(2);
  }
  return value;
}) as [string, string, string];
const architecture = target.startsWith("aarch64") ? "arm64" : "amd64";

async function run(command: string, args: readonly string[], cwd: string): Promise<Uint8Array<ArrayBuffer>> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args: [...args], cwd }).output();
  if (!success) throw new Error(`${command} ${args.join(" ")} failed:\n${new TextDecoder().decode(stderr)}`);
  return stdout;
}

/** Fetches Debian's packages, once, with lists of its own: neither root nor the system's lists are needed. */
async function debianPackages(): Promise<string> {
  const home = `${ROOT}.toolchain/image-${architecture}`;
  const folder = `${home}/packages`;
  if (await Deno.stat(`${home}/done`).then(() => true, () => false)) return folder;
  for (const part of ["lists/partial", "cache/archives/partial", "packages"]) {
    await Deno.mkdir(`${home}/${part}`, { recursive: true });
  }
  const options = [
    ...["-qq", "-o", `Dir::State::Lists=${home}/lists`, "-o", `Dir::Cache=${home}/cache`],
    ...["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root"],
    ...["-o", `APT::Architecture=${architecture}`, "-o", `APT::Architectures::=${architecture}`],
  ];
  await run("apt-get", [...options, "update"], folder);
  await run(
    "apt-get",
    [
      ...options,
      "download",
      ...PACKAGES.map((name) => name === "ca-certificates" ? name : `${name}:${architecture}`),
    ],
    folder,
  );
  await Deno.writeTextFile(`${home}/done`, "");
  return folder;
}

/** What of Debian's packages the binary needs, and what tells scanners and people what it is. */
async function makeBase(root: string): Promise<void> {
  const packages = await debianPackages();
  const unpacked = `${root}.packages`;
  await Deno.mkdir(`${root}/var/lib/dpkg/status.d`, { recursive: true });
  for (const name of [...Deno.readDirSync(packages)].map((entry) => entry.name).sort()) {
    await run("dpkg", ["-x", `${packages}/${name}`, unpacked], packages);
    const control = await run("dpkg-deb", ["-f", `${packages}/${name}`], packages);
    await Deno.writeFile(`${root}/var/lib/dpkg/status.d/${name.split("_")[0]}`, control);
  }
  const triplet = architecture === "arm64" ? "aarch64-linux-gnu" : "x86_64-linux-gnu";
  const kept = [
    ...[`lib/${triplet}`, `usr/lib/${triplet}`, "lib64", "lib/ld-linux-aarch64.so.1"],
    ...["usr/lib/os-release", "etc/debian_version"],
    ...PACKAGES.map((name) => `usr/share/doc/${name}/copyright`),
  ];
  for (const path of kept) {
    if (!await Deno.lstat(`${unpacked}/${path}`).then(() => true, () => false)) continue;
    await Deno.mkdir(`${root}/${path}`.replace(/\/[^/]*$/, ""), { recursive: true });
    await run("cp", ["-a", `${unpacked}/${path}`, `${root}/${path}`], unpacked);
  }
  // Conversions between character sets, 8 MB, that nothing here asks for.
  await run("rm", ["-rf", `${root}/usr/lib/${triplet}/gconv`], root);
  const authorities = `${unpacked}/usr/share/ca-certificates/mozilla`;
  const certificates = [...Deno.readDirSync(authorities)].map(({ name }) => name).sort()
    .map((name) => Deno.readTextFileSync(`${authorities}/${name}`).trim());
  await Deno.mkdir(`${root}/etc/ssl/certs`, { recursive: true });
  await Deno.writeTextFile(`${root}/etc/ssl/certs/ca-certificates.crt`, `${certificates.join("\n")}\n`);
  await Deno.symlink("../usr/lib/os-release", `${root}/etc/os-release`);
  await Deno.writeTextFile(
    `${root}/etc/passwd`,
    "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
  );
  await Deno.writeTextFile(`${root}/etc/group`, "root:x:0:\nnogroup:x:65534:\n");
  await Deno.writeTextFile(`${root}/etc/nsswitch.conf`, "passwd: files\ngroup: files\nhosts: files dns\n");
  await run("chmod", ["-R", "u+rwX,go+rX,go-w", root], root);
  await Deno.mkdir(`${root}/tmp`);
  await Deno.chmod(`${root}/tmp`, 0o1777);
  await Deno.remove(unpacked, { recursive: true });
}

async function makeProgram(root: string): Promise<void> {
  const notices = `${root}/usr/share/doc/pipeweave`;
  await Deno.mkdir(`${root}/usr/local/bin`, { recursive: true });
  await Deno.mkdir(notices, { recursive: true });
  await Deno.copyFile(binary, `${root}/usr/local/bin/pipeweave`);
  await Deno.chmod(`${root}/usr/local/bin/pipeweave`, 0o755);
  for (const name of ["LICENSE", "THIRD_PARTY_NOTICES"]) {
    await Deno.copyFile(`${ROOT}${name}`, `${notices}/${name}`);
  }
  await run("chmod", ["-R", "u+rwX,go+rX,go-w", root], root);
}

/** Packs a folder so that the same files give the same bytes. */
function tar(folder: string): Promise<Uint8Array<ArrayBuffer>> {
  return run("tar", [
    ...["--format=ustar", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", `--mtime=@${EPOCH}`],
    ...["-cf", "-", "."],
  ], folder);
}

const sha256 = (bytes: Uint8Array) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

const work = await Deno.makeTempDir({ prefix: "pipeweave-image-" });
try {
  const layout = `${work}/layout`;
  await Deno.mkdir(`${layout}/blobs/sha256`, { recursive: true });

  const blob = async (mediaType: string, bytes: Uint8Array): Promise<Descriptor> => {
    const digest = sha256(bytes);
    await Deno.writeFile(`${layout}/blobs/sha256/${digest.slice("sha256:".length)}`, bytes);
    return { mediaType, digest, size: bytes.length };
  };
  const json = (mediaType: string, value: unknown) =>
    blob(mediaType, new TextEncoder().encode(JSON.stringify(value)));

  const layers: { descriptor: Descriptor; diffId: string }[] = [];
  for (const [name, make] of [["base", makeBase], ["program", makeProgram]] as const) {
    await Deno.mkdir(`${work}/${name}`);
    await make(`${work}/${name}`);
    const packed = await tar(`${work}/${name}`);
    await Deno.writeFile(`${work}/${name}.tar`, packed);
    const zipped = await run("gzip", ["-9", "-n", "-c", `${work}/${name}.tar`], work);
    layers.push({
      descriptor: await blob("application/vnd.oci.image.layer.v1.tar+gzip", zipped),
      diffId: sha256(packed),
    });
  }

  const revision = new TextDecoder().decode(
    await run("git", ["rev-parse", "HEAD"], ROOT).catch(() => new Uint8Array()),
  )
    .trim();
  const description = await json("application/vnd.oci.image.config.v1+json", {
    created: CREATED,
    architecture,
    os: "linux",
    config: {
      User: NOBODY,
      Env: ["PATH=/usr/local/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],
      Entrypoint: ["/usr/local/bin/pipeweave"],
      WorkingDir: "/",
      Labels: {
        "org.opencontainers.image.title": "pipeweave",
        "org.opencontainers.image.version": config.version,
        "org.opencontainers.image.source": "https://github.com/pipeweave/pipeweave",
        "org.opencontainers.image.licenses": config.license,
        ...(revision ? { "org.opencontainers.image.revision": revision } : {}),
      },
    },
    rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) },
    history: ["glibc, libgcc and certificates from Debian", "pipeweave"].map((comment) => ({
      created: CREATED,
      created_by: "scripts/release/image.ts",
      comment,
    })),
  });
  const manifest = await json("application/vnd.oci.image.manifest.v1+json", {
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: description,
    layers: layers.map(({ descriptor }) => descriptor),
  });
  await Deno.writeTextFile(`${layout}/oci-layout`, JSON.stringify({ imageLayoutVersion: "1.0.0" }));
  await Deno.writeTextFile(
    `${layout}/index.json`,
    JSON.stringify({
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.index.v1+json",
      manifests: [{
        ...manifest,
        platform: { architecture, os: "linux" },
        annotations: { "org.opencontainers.image.ref.name": config.version },
      }],
    }),
  );
  await Deno.writeFile(output, await tar(layout));
} finally {
  await Deno.remove(work, { recursive: true });
}
