// Bundles the page into the ES module that TensorBoard loads, and writes the licences of the bundled packages.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const HERE = dirname(fileURLToPath(import.meta.url));
const STATIC = join(HERE, "..", "tb_nanwatch", "plugin", "static");
const LIMIT_BYTES = 80_000;

async function bundle() {
  const { metafile, outputFiles } = await build({
    entryPoints: [join(HERE, "src", "index.ts")],
    absWorkingDir: HERE,
    bundle: true,
    format: "esm",
    target: "es2020",
    minify: true,
    metafile: true,
    write: false, // only a bundle within the limit is written
    legalComments: "none", // licenses.txt holds the full licences
    loader: { ".css": "text" }, // TensorBoard loads no style sheet, so the page adds a <style> itself
  });
  return { code: outputFiles[0].contents, packages: packagesIn(metafile) };
}

/** Return the names of the npm packages in a bundle, in alphabetical order. */
function packagesIn(metafile) {
  const names = Object.keys(metafile.inputs).map(
    (path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1],
  );
  return [...new Set(names.filter((name) => name !== undefined))].sort();
}

async function licenceOf(name) {
  const text = await readFile(join(HERE, "node_modules", name, "LICENSE"), "utf8");
  return `${name}\n${"=".repeat(name.length)}\n${text.trim()}\n`;
}

const { code, packages } = await bundle();
const size = gzipSync(code).length;
if (size > LIMIT_BYTES) {
  throw new Error(
    `The gzipped bundle must be at most ${LIMIT_BYTES} bytes; it has ${size}. ` +
      `It contains ${packages.join(", ")}: remove code or a package.`,
  );
}
const licences = await Promise.all(packages.map(licenceOf));
await mkdir(STATIC, { recursive: true });
await writeFile(join(STATIC, "licenses.txt"), licences.join("\n"));
await writeFile(join(STATIC, "index.js"), code);
console.log(`index.js: ${size} bytes gzipped of at most ${LIMIT_BYTES}`);
