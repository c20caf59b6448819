// Numbers and times for people, in the page's language. Money is nano-USD, times are micros, as everywhere.

import { page } from "./page.js";

const lang = page.lang || "en";
const grouped = new Intl.NumberFormat(lang);
const compact = new Intl.NumberFormat(lang, { notation: "compact", maximumFractionDigits: 1 });
const today = new Intl.DateTimeFormat(lang, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const thisYear = new Intl.DateTimeFormat(lang, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const older = new Intl.DateTimeFormat(lang, { year: "numeric", month: "short", day: "numeric" });
const precise = new Intl.DateTimeFormat(lang, { dateStyle: "medium", timeStyle: "medium" });

export const int = (n: number): string => grouped.format(Math.round(n));
export const short = (n: number): string => (Math.abs(n) < 10000 ? grouped.format(Math.round(n * 100) / 100) : compact.format(n));
export const zone = (): string => Intl.DateTimeFormat().resolvedOptions().timeZone;

export function ms(value: number): string {
  if (value < 1) return `${value.toFixed(2)} ms`;
  if (value < 1000) return `${Math.round(value)} ms`;
  if (value < 60_000) return `${(value / 1000).toFixed(value < 10_000 ? 2 : 1)} s`;
  const seconds = Math.round(value / 1000);
  return seconds % 60 ? `${Math.floor(seconds / 60)} min ${seconds % 60} s` : `${seconds / 60} min`;
}

export function usd(value: number): string {
  if (value === 0) return "$0";
  const digits = Math.abs(value) >= 1 ? 2 : Math.min(9, 2 - Math.floor(Math.log10(Math.abs(value))));
  return `$${value.toFixed(digits)}`;
}

export function bytes(n: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let i = 0;
  while (n >= 1000 && i < units.length - 1) { n /= 1000; i++; }
  return `${n < 10 && i > 0 ? n.toFixed(1) : Math.round(n)} ${units[i]}`;
}

export function when(date: Date, now = new Date()): string {
  if (date.toDateString() === now.toDateString()) return today.format(date);
  return (date.getFullYear() === now.getFullYear() ? thisYear : older).format(date);
}

export const exact = (date: Date): string => `${precise.format(date)} (${date.toISOString()})`;
