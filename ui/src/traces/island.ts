// Live tail of the trace list. New rows wait behind a pill and enter only when the reader asks: a list never moves
// under somebody's eyes. Pause is in the URL (live=0). The connection closes while the tab is hidden.

import htmx from "htmx.org/dist/htmx.esm.js";
import { events, request, type Schemas } from "../core/api.js";
import { h, icon } from "../core/dom.js";
import { words, type Words } from "../core/page.js";

interface Props { live: boolean; query: string; i18n: Words }

export function mount(el: HTMLElement, props: Props): () => void {
  const t = words(props.i18n);
  let live = props.live;
  let abort: AbortController | undefined;
  let retry = 0;
  const seen = new Set<string>();

  const label = h("span");
  const button = h("button", { class: "btn ghost small", type: "button" }, h("span", { class: "dot" }), label);
  const pill = h("button", { class: "pill", type: "button" });
  const status = h("span", { class: "sr", role: "status" });
  pill.hidden = true;
  el.replaceChildren(pill, button, status);

  const draw = () => {
    button.setAttribute("aria-pressed", String(live));
    button.title = t(live ? "tail-pause" : "tail-resume");
    label.textContent = t(live ? "tail-live" : "tail-paused");
    button.append(icon(live ? "pause" : "play"));
    while (button.querySelectorAll("svg").length > 1) button.querySelector("svg")!.remove();
    pill.hidden = seen.size === 0;
    pill.textContent = `↑ ${t("tail-new", { n: seen.size })}`;
  };

  const connect = async () => {
    if (!live || document.hidden) return;
    const mine = (abort = new AbortController());
    try {
      const response = await request(`/api/v1/traces/tail${props.query ? `?${props.query}` : ""}`, { signal: mine.signal, headers: { accept: "text/event-stream" } });
      if (!response.ok || !response.body) throw new Error(String(response.status));
      retry = 0;
      label.title = "";
      for await (const e of events(response)) if (e.event === "trace") arrived(JSON.parse(e.data) as Schemas["TraceRowJson"]);
    } catch { /* Told below: the tail tries again, a little later each time. */ }
    if (mine.signal.aborted) return;
    label.title = t("tail-lost");
    window.setTimeout(() => void connect(), Math.min(30_000, 1000 * 2 ** retry++));
  };

  const arrived = (row: Schemas["TraceRowJson"]) => {
    const listed = [...document.querySelectorAll<HTMLElement>("#trace-rows tr[data-id]")].some((tr) => tr.dataset["id"] === row.trace_id);
    if (listed || seen.has(row.trace_id)) return;
    seen.add(row.trace_id);
    if (!document.querySelector("#trace-rows tr[data-id]")) return void refresh();
    draw();
    status.textContent = t("tail-new", { n: seen.size });
  };

  const refresh = async () => {
    seen.clear();
    draw();
    const url = new URL(location.href);
    url.searchParams.delete("cursor");
    await htmx.ajax("GET", url.pathname + url.search, { target: "#trace-rows", select: "#trace-rows", swap: "outerHTML" });
    document.getElementById("main")?.scrollIntoView({ block: "nearest" });
  };

  const onVisible = () => { if (document.hidden) abort?.abort(); else void connect(); };
  button.addEventListener("click", () => {
    live = !live;
    const url = new URL(location.href);
    if (live) url.searchParams.delete("live"); else url.searchParams.set("live", "0");
    history.replaceState({}, "", url);
    if (live) void connect(); else abort?.abort();
    draw();
  });
  pill.addEventListener("click", () => void refresh());
  document.addEventListener("visibilitychange", onVisible);
  draw();
  void connect();
  return () => { abort?.abort(); live = false; document.removeEventListener("visibilitychange", onVisible); el.replaceChildren(); };
}
