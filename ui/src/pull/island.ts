// Progress of one model download, asked for every second while it runs and the tab is visible.

import { json, type Schemas } from "../core/api.js";
import { h } from "../core/dom.js";
import { bytes } from "../core/format.js";
import { page, words, type Words } from "../core/page.js";

type Pull = Pick<Schemas["PullState"], "id" | "ref" | "state" | "done_bytes" | "total_bytes" | "bytes_per_s" | "seconds_left" | "error">;
type Props = Pull & { i18n: Words };

const OPEN = ["queued", "running", "stopping"];
const ENDED_EARLY = ["failed", "stopped"];

export function mount(el: HTMLElement, props: Props): () => void {
  const t = words(props.i18n);
  let timer = 0;
  const state = h("span", { class: "muted small", role: "status" });
  const bar = h("progress", { "aria-label": props.ref });
  const line = h("div", { class: "num row" });
  const error = h("p", { class: "small t-err", role: "alert" });
  el.replaceChildren(h("div", { class: "row" }, h("code", { class: "grow clip" }, props.ref), state), bar, line, error);

  const forms = el.parentElement?.querySelectorAll<HTMLFormElement>("form[data-while]") ?? [];

  const draw = (p: Pull) => {
    for (const form of forms) form.hidden = !form.dataset["while"]!.split(" ").includes(p.state);
    state.textContent = t(`pull-${p.state}`);
    if (p.total_bytes) { bar.max = p.total_bytes; bar.value = p.done_bytes; } else if (p.state === "running") bar.removeAttribute("value");
    bar.hidden = line.hidden = ENDED_EARLY.includes(p.state);
    const parts = [
      p.total_bytes ? t("pull-progress", { done: bytes(p.done_bytes), total: bytes(p.total_bytes) }) : p.done_bytes ? bytes(p.done_bytes) : "",
      p.state === "running" && p.bytes_per_s ? t("pull-speed", { speed: bytes(p.bytes_per_s) }) : "",
      p.state === "running" && typeof p.seconds_left === "number" ? t("pull-left", { time: left(p.seconds_left) }) : "",
    ].filter(Boolean);
    line.replaceChildren(parts.join(" · "));
    error.textContent = p.error ?? "";
    error.hidden = !p.error;
    if (p.state === "done") line.replaceChildren(h("a", { class: "link", href: `${page.root}/models` }, t("pull-reload")));
  };
  const look = async () => {
    if (!document.hidden) {
      try {
        const p = await json<Schemas["PullState"]>(`/api/v1/models/pulls/${encodeURIComponent(props.id)}`);
        draw(p);
        if (!OPEN.includes(p.state)) return;
      } catch { /* The server may be restarting; the bar stays as it was. */ }
    }
    timer = window.setTimeout(look, 1000);
  };
  draw(props);
  if (OPEN.includes(props.state)) timer = window.setTimeout(look, 500);
  return () => { clearTimeout(timer); };
}

function left(seconds: number): string {
  const unit = (value: number, name: string) => new Intl.NumberFormat(page.lang, { style: "unit", unit: name, unitDisplay: "short" }).format(value);
  if (seconds < 60) return unit(Math.max(1, Math.round(seconds)), "second");
  if (seconds < 3600) return unit(Math.round(seconds / 60), "minute");
  return unit(Math.round(seconds / 360) / 10, "hour");
}
