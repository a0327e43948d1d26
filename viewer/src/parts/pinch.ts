/** Two fingers on a view: they zoom where they are, and pan as they move. */
import type { View } from "../imaging/view";

/** Listens to the fingers on a view's frame; gives what stops that. */
export function followFingers(frame: HTMLElement, view: View): () => void {
  let before: { x: number; y: number; apart: number } | null = null;
  const moved = (event: TouchEvent): void => {
    const [one, other] = [event.touches[0], event.touches[1]];
    if (one === undefined || other === undefined) {
      before = null;
      return;
    }
    event.preventDefault();
    event.stopPropagation();
    const corner = frame.getBoundingClientRect();
    const now = {
      x: (one.clientX + other.clientX) / 2 - corner.left,
      y: (one.clientY + other.clientY) / 2 - corner.top,
      apart: Math.max(20, Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY)),
    };
    if (before !== null) view.pinch(now.apart / before.apart, [before.x, before.y], [now.x, now.y]);
    before = now;
  };
  const kinds = ["touchstart", "touchmove", "touchend", "touchcancel"] as const;
  for (const kind of kinds) frame.addEventListener(kind, moved, { capture: true, passive: false });
  return () => kinds.forEach((kind) => frame.removeEventListener(kind, moved, { capture: true }));
}
