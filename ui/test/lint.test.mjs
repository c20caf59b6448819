// Rules that keep the strict content security policy and Japanese input working.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import path from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";

const src = fileURLToPath(new URL("../src", import.meta.url));
const server = fileURLToPath(new URL("../../crates/server/src", import.meta.url));
const list = (dir, end) => readdirSync(dir, { recursive: true }).filter((f) => end.test(f) && !f.endsWith("api.gen.ts")).map((f) => [f, readFileSync(path.join(dir, f), "utf8")]);
const scripts = list(src, /\.tsx?$/);
const templates = list(server, /\.html$/);

function refuse(sources, pattern, why, except = []) {
  for (const [file, text] of sources) {
    if (except.includes(file)) continue;
    const found = pattern.exec(text);
    assert.equal(found, null, found && `${file}:${text.slice(0, found.index).split("\n").length}: ${found[0]} (${why})`);
  }
}

test("no HTML sinks: text enters as text nodes, HTML only by htmx", () => {
  refuse(scripts, /\b(innerHTML|outerHTML|insertAdjacentHTML|dangerouslySetInnerHTML|createContextualFragment|document\.write|parseFromString|setHTMLUnsafe|srcdoc)\b(?!")/, "an HTML sink");
  refuse(scripts, /\beval\(|new Function\(/, "runs text as code");
});

test("the keyboard is read in one place, which knows about input methods", () => {
  refuse(scripts, /addEventListener\(\s*["']key(down|up|press)|\bonKey(Down|Up|Press)\b|\.onkey(down|up|press)\b/, "use onKey of core/keys.ts", [path.join("core", "keys.ts")]);
});

test("nothing is kept in the browser's storage", () => refuse(scripts, /\b(localStorage|sessionStorage|indexedDB)\b/, "the URL is the view state"));

test("no address of another origin", () => refuse(scripts, /["'`]https?:\/\/(?!www\.w3\.org)/, "no third-party origin"));

test("templates carry no inline style, handler or script", () => {
  refuse(templates, /\sstyle\s*=/, "style attributes are blocked by the policy");
  refuse(templates, /\son[a-z]+\s*=\s*["']/, "inline handlers are blocked by the policy");
  refuse(templates, /<script(?![^>]*nonce=)/, "a script needs the nonce");
  refuse(templates, /\bhx-on|\bhx-vals=["']js:|hx-nonce:inherited|\|\s*safe\b/, "evaluates code or trusts text");
});

test("every htmx element is stamped with the nonce", () => {
  for (const [file, text] of templates) {
    for (const [tag] of text.matchAll(/<(?!meta)[a-z][^<>]*\shx-(?:get|post|put|patch|delete|sse)[^<>]*/g)) {
      assert.ok(/m\.hx\(\)|\bhx\(\)/.test(tag), `${file}: ${tag.slice(0, 80)}… lacks {{ m.hx() }}`);
    }
  }
});

test("every page says what its handler must give it", () => {
  for (const [file, text] of templates) assert.ok(text.startsWith("{#"), `${file} does not start with a comment on its view`);
});
