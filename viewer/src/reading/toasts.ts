/** Short messages at the edge of the page; errors stay until they are closed. */
import { signal } from "@preact/signals";

/** A message. */
export interface Toast {
  readonly id: number;
  readonly text: string;
  readonly kind: "error" | "done";
  /** More than the sentence, line by line. */
  readonly lines: readonly string[];
}

export const toasts = signal<readonly Toast[]>([]);

let last = 0;

/** Says something; what went well goes away by itself. */
export function say(text: string, kind: Toast["kind"] = "done", lines: readonly string[] = []): void {
  const id = ++last;
  toasts.value = [...toasts.value.filter((toast) => toast.text !== text).slice(-3), { id, text, kind, lines }];
  if (kind === "done") setTimeout(() => close(id), 5000);
}

/** Says what went wrong. */
export function complain(error: unknown): void {
  say(error instanceof Error ? error.message : String(error), "error");
}

/** Takes a message away. */
export function close(id: number): void {
  toasts.value = toasts.value.filter((toast) => toast.id !== id);
}
