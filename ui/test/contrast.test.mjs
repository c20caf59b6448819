// Recomputes every text and control contrast from the tokens, in both themes (WCAG 2.2, 1.4.3 and 1.4.11).

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

const css = readFileSync(new URL("../src/css/tokens.css", import.meta.url), "utf8");
const tokens = new Map([...css.matchAll(/--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)/g)].map(([, name, light, dark]) => [name, [light, dark]]));

const channel = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const luminance = (hex) => [1, 3, 5].map((i) => channel(parseInt(hex.slice(i, i + 2), 16) / 255)).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
function ratio(a, b) {
  const [hi, lo] = [luminance(a), luminance(b)].sort((x, y) => y - x);
  return (hi + 0.05) / (lo + 0.05);
}
function check(front, back, least) {
  for (const [i, theme] of ["light", "dark"].entries()) {
    const found = ratio(tokens.get(front)[i], tokens.get(back)[i]);
    assert.ok(found >= least, `--${front} on --${back} in ${theme}: ${found.toFixed(2)} < ${least}`);
  }
}

test("text reads on every surface", () => {
  for (const front of ["text", "muted", "faint", "accent", "ok", "warn", "err", "info"]) {
    for (const back of ["bg", "surface", "raised"]) check(front, back, 4.5);
  }
  for (const front of ["text", "muted", "accent"]) check(front, "accent-bg", 4.5);
  check("on-accent", "accent", 4.5);
});

test("status text reads on its own background", () => {
  for (const kind of ["ok", "warn", "err", "info"]) {
    check(kind, `${kind}-bg`, 4.5);
    check("text", `${kind}-bg`, 4.5);
  }
});

test("control borders, focus and marks stand out", () => {
  for (const back of ["bg", "surface"]) {
    for (const front of ["line-strong", "accent", "k-llm", "k-embed", "k-retrieval", "k-tool", "k-agent", "k-guard", "k-eval", "k-other"]) check(front, back, 3);
  }
});
