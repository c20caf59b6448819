// Times and the zone name in the reader's own zone. The server writes UTC, which stays in the tooltip.

import { page, t } from "./page.js";
import { exact, when, zone } from "./format.js";

export function localiseTimes(root: ParentNode): void {
  for (const el of root.querySelectorAll<HTMLTimeElement>("time[data-time]")) {
    const date = new Date(el.dateTime);
    if (Number.isNaN(date.getTime())) continue;
    el.textContent = when(date);
    el.title = exact(date);
  }
  for (const el of root.querySelectorAll<HTMLElement>("[data-zone]")) el.textContent = page.lang ? t("js-zone", { zone: zone() }) : "";
}
