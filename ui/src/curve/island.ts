// The curve of a threshold: the slider below the drawing is what is chosen; dragging in the drawing moves the slider.

import { words, type Words } from "../core/page.js";

interface Point { threshold: number; x: number; precision: string | null; recall: string | null; false_positives: string | null }
interface Props { points: Point[]; left: number; right: number; i18n: Words }

export function mount(el: HTMLElement, props: Props): () => void {
  const t = words(props.i18n);
  const slider = el.querySelector<HTMLInputElement>("[name=m_threshold]");
  const drawing = el.querySelector<SVGSVGElement>("[data-drawing]");
  const line = el.querySelector("[data-chosen]");
  const output = el.querySelector("[data-threshold]");
  const figures = el.querySelector("[data-figures]");
  if (!slider || !drawing || !line) return () => undefined;

  const nearest = (threshold: number): Point =>
    props.points.reduce((best, point) => (Math.abs(point.threshold - threshold) < Math.abs(best.threshold - threshold) ? point : best));

  const show = (): void => {
    const point = nearest(Number(slider.value));
    line.setAttribute("x1", String(point.x));
    line.setAttribute("x2", String(point.x));
    if (output) output.textContent = String(point.threshold);
    if (figures) figures.textContent = t("curve-at", { threshold: point.threshold, precision: point.precision ?? "–", recall: point.recall ?? "–", fpr: point.false_positives ?? "–" });
  };

  const drag = (event: PointerEvent): void => {
    if (!(event.buttons & 1)) return;
    const box = drawing.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * drawing.viewBox.baseVal.width;
    slider.value = String(nearest((at - props.left) / (props.right - props.left)).threshold);
    show();
  };

  slider.addEventListener("input", show);
  drawing.addEventListener("pointerdown", drag);
  drawing.addEventListener("pointermove", drag);
  return () => {
    slider.removeEventListener("input", show);
    drawing.removeEventListener("pointerdown", drag);
    drawing.removeEventListener("pointermove", drag);
  };
}
