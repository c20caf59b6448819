// Finds [data-island] elements, loads their module once and mounts them; unmounts what a swap removed.

export type Unmount = () => void;
export interface IslandModule { mount(el: HTMLElement, props: never): Unmount }

const loaders: Record<string, () => Promise<IslandModule>> = {
  playground: () => import("../playground/island.js"),
  charts: () => import("../charts/island.js"),
  traces: () => import("../traces/island.js"),
  trace: () => import("../trace/island.js"),
  pull: () => import("../pull/island.js"),
  editor: () => import("../editor/island.js"),
  apps: () => import("../apps/island.js"),
  compare: () => import("../compare/island.js"),
  dataset: () => import("../dataset/island.js"),
  importer: () => import("../importer/island.js"),
  curve: () => import("../curve/island.js"),
  finds: () => import("../finds/island.js"),
  review: () => import("../review/island.js"),
};

const mounted = new Map<HTMLElement, Unmount>();

export async function mountIslands(root: ParentNode = document): Promise<void> {
  for (const [el, unmount] of mounted) {
    if (!el.isConnected) { unmount(); mounted.delete(el); }
  }
  const found = [...root.querySelectorAll<HTMLElement>("[data-island]")];
  await Promise.all(found.map(async (el) => {
    if (mounted.has(el)) return;
    mounted.set(el, () => undefined);
    const load = loaders[el.dataset["island"] ?? ""];
    if (!load) return;
    const module = await load();
    if (!el.isConnected) return;
    mounted.set(el, module.mount(el, JSON.parse(el.dataset["props"] ?? "{}") as never));
  }));
}
