/** Small parts that the page is made of. */
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { act } from "../reading/actions";
import { keyOf, type Action } from "../reading/keys";
import { interval, percent } from "../text/format";

/** A button of an action, with its key. */
export function ActionButton(given: {
  action: Action;
  label: string;
  on?: boolean;
  off?: boolean;
  text?: string;
  kind?: string;
}) {
  const { action, label, on, off, text, kind } = given;
  return (
    <button
      type="button"
      class={`tool ${kind ?? ""}`}
      title={`${label} (${keyOf(action)})`}
      aria-label={label}
      aria-keyshortcuts={keyOf(action)}
      aria-pressed={on}
      disabled={off}
      data-testid={`action-${action}`}
      onClick={() => act(action)}
    >
      {text ?? label} <kbd>{keyOf(action)}</kbd>
    </button>
  );
}

/** A probability as a bar, with its interval as a band and its number in words. */
export function ShareBar(given: {
  label: string;
  share: number;
  bounds: readonly [number, number] | null;
  tone?: string;
}) {
  const { label, share, bounds, tone } = given;
  const text = `${percent(share)}${bounds ? `, interval ${interval(bounds)}` : ""}`;
  return (
    <div class="bar" role="img" aria-label={`${label}: ${text}`} title={`${label}: ${text}`}>
      <div class={`bar-fill ${tone ?? ""}`} style={{ clipPath: `inset(0 ${100 - 100 * share}% 0 0)` }} />
      {bounds && (
        <div
          class="bar-band"
          style={{ left: `${100 * bounds[0]}%`, width: `${Math.max(0.5, 100 * (bounds[1] - bounds[0]))}%` }}
        />
      )}
    </div>
  );
}

/** A dialog over the page; Escape closes it, and the focus goes back. */
export function Dialog(given: { title: string; onClose: () => void; testId: string; children: ComponentChildren }) {
  const element = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const before = document.activeElement;
    element.current?.showModal();
    return () => before instanceof HTMLElement && before.focus();
  }, []);
  return (
    <dialog ref={element} aria-label={given.title} data-testid={given.testId} onClose={given.onClose}>
      <header>
        <h2>{given.title}</h2>
        <button type="button" aria-label="Close" onClick={() => element.current?.close()}>
          ✕
        </button>
      </header>
      {given.children}
    </dialog>
  );
}

/** A fact with its name; left out where it is not known. */
export function Fact(given: { name: string; children: ComponentChildren }) {
  return (
    <div class="fact">
      <dt>{given.name}</dt>
      <dd>{given.children}</dd>
    </div>
  );
}
