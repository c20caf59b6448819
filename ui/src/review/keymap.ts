// Which key does what on a review item. Kept in this browser; a key belongs to one action only.

export const ACTIONS = ["prev", "next", "up", "down", "commit", "leave", "complete", "skip", "undo"] as const;
export type Action = (typeof ACTIONS)[number];
export type Keymap = Record<Action, string>;

export const STANDARD: Keymap = {
  prev: "ArrowLeft", next: "ArrowRight", up: "ArrowUp", down: "ArrowDown", commit: "Enter", leave: "Escape",
  complete: "Mod+Enter", skip: "s", undo: "u",
};

const SIGNS: Record<string, string> = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Enter: "↵", Escape: "Esc", " ": "␣" };

/** How a key is written: `Mod+Enter`, `s`. `Mod` is Ctrl, or Cmd on a Mac. */
export function nameOf(key: { name: string; mod: boolean; alt: boolean }): string {
  const name = key.name.length === 1 ? key.name.toLowerCase() : key.name;
  return `${key.mod ? "Mod+" : ""}${key.alt ? "Alt+" : ""}${name}`;
}

/** How people read it. */
export function shownAs(name: string, mac: boolean): string {
  return name.split("+").map((part) => (part === "Mod" ? (mac ? "⌘" : "Ctrl") : SIGNS[part] ?? part)).join(" ");
}

/** The action that has a key already, other than this one. Digits choose options, so they are taken too. */
export function conflict(map: Keymap, action: Action, name: string): Action | "digits" | "help" | null {
  if (/^[0-9]$/.test(name)) return "digits";
  if (name === "?" || name === "Tab") return "help";
  return ACTIONS.find((other) => other !== action && map[other] === name) ?? null;
}

/** What was kept, as far as it makes sense: an unknown action or a key used twice falls back to the standard. */
export function parse(text: string | null): Keymap {
  const map: Keymap = { ...STANDARD };
  let kept: unknown;
  try { kept = JSON.parse(text ?? "{}"); } catch { return map; }
  if (typeof kept !== "object" || kept === null) return map;
  for (const action of ACTIONS) {
    const name = (kept as Record<string, unknown>)[action];
    if (typeof name === "string" && name !== "" && conflict(map, action, name) === null) map[action] = name;
  }
  return map;
}

/** Only what differs from the standard is worth keeping. */
export function write(map: Keymap): string {
  return JSON.stringify(Object.fromEntries(ACTIONS.filter((action) => map[action] !== STANDARD[action]).map((action) => [action, map[action]])));
}
