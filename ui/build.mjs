// Builds ui/dist: hashed scripts and styles, manifest.json (logical name -> file), sizes.json, licences.txt.
// With --watch it rebuilds on every change and keeps going.

import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import path from "node:path";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";

const here = path.dirname(fileURLToPath(import.meta.url));
const dist = path.join(here, "dist");

const ICON = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 18 18" fill="none" stroke="#5b76e8" stroke-width="2.2" stroke-linecap="round"><path d="M14.8 5.6A6.7 6.700 0 1 0 15.700 9"/><path d="M12.300 9A3.300 3.300 0 1 1 9 5.700"/></svg>\n`;

/** esbuild's settings, shared with nothing: one bundle with splitting, one style sheet. */
const options = {
  absWorkingDir: here,
  entryPoints: { main: "src/main.ts" , "main.css": "src/css/main.css" },
  outdir: "dist",
  bundle: true,
  splitting: true,
  format: "esm",
  target: ["es2022"],
  minify: true,
  sourcemap: "external",
  metafile: true,
  entryNames: "[name]-[hash]",
  chunkNames: "[name]-[hash]",
  legalComments: "none",
  jsx: "automatic",
  jsxImportSource: "preact",
  logLevel: "warning",
  loader: { ".css": "css" },
  write: false,
};

/** Writes what esbuild made, with our own names for styles and icon, and the three lists. */
async function finish(result) {
  await mkdir(dist, { recursive: true });
  const manifest = {};
  const keep = new Set();
  const put = async (file, bytes) => { keep.add(file); await writeFile(path.join(dist, file), bytes); };
  for (const file of result.outputFiles) {
    await put(path.basename(file.path).replace("main.css-", "main-"), file.contents);
  }
  for (const [out, meta] of Object.entries(result.metafile.outputs)) {
    if (!meta.entryPoint) continue;
    const name = path.basename(out).replace("main.css-", "main-");
    if (meta.entryPoint === "src/main.ts") manifest["main.js"] = name;
    else if (meta.entryPoint === "src/css/main.css") manifest["main.css"] = name;
    else manifest[`${path.basename(path.dirname(meta.entryPoint))}.js`] = name;
  }
  const icon = `icon-${createHash("sha256").update(ICON).digest("hex").slice(0, 8)}.svg`;
  await put(icon, ICON);
  manifest["icon.svg"] = icon;
  await put("licences.txt", await licences(result.metafile));
  await put("sizes.json", JSON.stringify(sizes(result, manifest), null, 2) + "\n");
  await put("manifest.json", JSON.stringify(manifest, null, 2) + "\n");
  for (const old of await readdir(dist)) if (!keep.has(old)) await rm(path.join(dist, old), { recursive: true });
  return manifest;
}

/** Gzip bytes per logical script with everything it imports at once, as a page pays for it. */
function sizes(result, manifest) {
  const gz = new Map(result.outputFiles.map((f) => [path.relative(here, f.path), gzipSync(f.contents, { level: 9 }).length]));
  const outputs = result.metafile.outputs;
  const closure = (out, seen = new Set()) => {
    if (seen.has(out)) return seen;
    seen.add(out);
    for (const i of outputs[out].imports) if (i.kind === "import-statement") closure(i.path, seen);
    return seen;
  };
  const total = (...outs) => [...new Set(outs.flatMap((o) => [...closure(o)]))].reduce((sum, o) => sum + gz.get(o), 0);
  const byEntry = (entry) => Object.keys(outputs).find((o) => outputs[o].entryPoint === entry);
  const main = byEntry("src/main.ts");
  const islands = Object.keys(outputs).filter((o) => outputs[o].entryPoint?.includes("/island."));
  const report = { css: gz.get(byEntry("src/css/main.css")), page: total(main), with: {} };
  for (const o of islands) report.with[path.basename(path.dirname(outputs[o].entryPoint))] = total(main, o);
  if (!manifest["main.js"] || !manifest["main.css"]) throw new Error("the bundle lacks main.js or main.css");
  return report;
}

/** The licence text of every package that went into the bundle. */
async function licences(metafile) {
  const names = new Set();
  for (const input of Object.keys(metafile.inputs)) {
    const found = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input);
    if (found) names.add(found[1]);
  }
  const parts = [];
  for (const name of [...names].sort()) {
    const root = path.join(here, "node_modules", name);
    const { version, license } = JSON.parse(await readFile(path.join(root, "package.json"), "utf8"));
    const file = (await readdir(root)).find((f) => /^licen[cs]e/i.test(f));
    parts.push(`${name} ${version} (${license})\n\n${file ? await readFile(path.join(root, file), "utf8") : `Licence: ${license}. The package carries no licence file.`}\n`);
  }
  return parts.join("\n" + "-".repeat(78) + "\n\n");
}

if (process.argv.includes("--watch")) {
  const plugin = { name: "finish", setup: (b) => b.onEnd(async (r) => { if (!r.errors.length) { await finish(r); console.log("ui/dist written"); } }) };
  const context = await esbuild.context({ ...options, plugins: [plugin] });
  await context.watch();
} else {
  const result = await esbuild.build(options);
  await finish(result);
  console.log(JSON.parse(await readFile(path.join(dist, "sizes.json"), "utf8")));
}
