// Small element builder for parts that do not need a framework. Text always enters as text nodes.

type Child = Node | string | null | undefined | false;

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K, attrs: Record<string, string | boolean | undefined> = {}, ...children: Child[]
): HTMLElementTagNameMap[K] {
  const el = document.createElement(tag);
  for (const [name, value] of Object.entries(attrs)) {
    if (value === undefined || value === false) continue;
    el.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children) if (child) el.append(child);
  return el;
}

const SVG = "http://www.w3.org/2000/svg";
export function svg(tag: string, attrs: Record<string, string>, ...children: Node[]): SVGElement {
  const el = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attrs)) el.setAttribute(name, value);
  el.append(...children);
  return el;
}

const PATHS: Record<string, string> = {
  pause: "M5.5 3.5v9M10.500 3.500v9",
  play: "M5 3l8 5-8 5z",
};
export function icon(name: keyof typeof PATHS): SVGElement {
  return svg("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, svg("path", { d: PATHS[name] ?? "" }));
}

let toastTimer = 0;
/** One short message, read out politely; errors are read at once. */
export function toast(text: string, kind: "ok" | "err" = "ok"): void {
  document.querySelector(".toast")?.remove();
  const box = h("div", { class: "toast", role: kind === "err" ? "alert" : "status" });
  document.body.append(box);
  box.textContent = text;
  clearTimeout(toastTimer);
  toastTimer = window.setTimeout(() => box.remove(), kind === "err" ? 8000 : 4000);
}
