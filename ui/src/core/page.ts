// What the server says about the page: addresses, language and the words scripts use.
// Read once; an htmx swap never replaces <body>, so it stays true.

export interface NavItem { label_key: string; href: string; icon: string; active: boolean }
export interface Page {
  base: string;
  root: string;
  project: string;
  lang: string;
  nav: { label_key: string; items: NavItem[] }[];
  i18n: Words;
}
export type Words = Record<string, string>;

export const page: Page = JSON.parse(document.body.dataset["page"] ?? "{}");

/** The words of one island; `{$name}` in a text is replaced by the argument of that name. */
export function words(catalogue: Words) {
  return (key: string, args: Record<string, string | number> = {}): string =>
    (catalogue[key] ?? key).replace(/\{\$(\w+)\}/g, (whole, name: string) => String(args[name] ?? whole));
}

export const t = words(page.i18n ?? {});
