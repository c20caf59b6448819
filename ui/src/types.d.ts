declare module "htmx.org/dist/htmx.esm.js" {
  const htmx: {
    ajax(method: string, url: string, options: { target?: string | Element; select?: string; swap?: string; source?: Element }): Promise<void>;
    process(el: Element): void;
  };
  export default htmx;
}
declare module "htmx.org/dist/ext/hx-csp.js";
declare module "htmx.org/dist/ext/hx-sse.js";
