// The texts of the pages, from the product's own catalogue, so that a test finds a button in both
// languages by what it is called there. Only one-line messages without selectors are needed.

import { readFileSync } from "node:fs";

function read(lang) {
  const text = readFileSync(new URL(`../crates/server/src/ui/locales/${lang}.ftl`, import.meta.url), "utf8");
  const lines = text.split("\n").map((line) => /^([a-z][\w-]*) = (.+)$/.exec(line)).filter(Boolean);
  return new Map(lines.map(([, key, value]) => [key, value.replace(/\{"\{\$(\w+)\}"\}/g, "{ $$$1 }")]));
}

const catalogue = { en: read("en"), ja: read("ja") };

/** `words("ja")("playground-send")`; values replace `{ $name }`. */
export function words(lang) {
  return (key, values = {}) => {
    const text = catalogue[lang].get(key);
    if (text === undefined) throw new Error(`no text ${key} in ${lang}`);
    return text.replace(/\{ \$(\w+) \}/g, (whole, name) => String(values[name] ?? whole));
  };
}
