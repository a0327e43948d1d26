/** What clicks and drags mean that are ours: crosshairs, boxes, places, findings. */
import { useRef, useState } from "preact/hooks";
import type { Point } from "../geometry/vectors";
import type { View } from "../imaging/view";
import { perform } from "../reading/placing";
import { matchedBefore, prior } from "../reading/prior";
import { setCrosshairs } from "../reading/room";
import { findings, outlinesShown, panel, selectedId, tool } from "../reading/study";

/** A click's way from press to release, at most. */
const STILL_PX = 6;

type Drag = { from: [number, number]; to: [number, number] };

/** A layer over a view that takes the pointer while such a tool is in hand. */
export function Gestures({ view }: { view: View }) {
  const layer = useRef<HTMLDivElement>(null);
  const [box, setBox] = useState<Drag | null>(null);
  const wheeled = useRef(0);
  const at = (event: PointerEvent): [number, number] => {
    const bounds = layer.current?.getBoundingClientRect();
    return [event.clientX - (bounds?.left ?? 0), event.clientY - (bounds?.top ?? 0)];
  };
  const pressed = (event: PointerEvent): void => {
    // a second finger zooms: what the first began is over
    if (!event.isPrimary) setBox(null);
    if (!event.isPrimary || event.button !== 0) return;
    layer.current?.setPointerCapture(event.pointerId);
    const from = at(event);
    setBox({ from, to: from });
    if (tool.value === "crosshairs") cross(view, from);
  };
  const moved = (event: PointerEvent): void => {
    if (box === null || !event.isPrimary) return;
    const to = at(event);
    setBox({ ...box, to });
    if (tool.value === "crosshairs") cross(view, to);
  };
  const released = (event: PointerEvent): void => {
    if (box === null || !event.isPrimary) return;
    setBox(null);
    finish(view, { ...box, to: at(event) });
  };
  const rolled = (event: WheelEvent): void => {
    event.preventDefault();
    wheeled.current += event.deltaY;
    if (Math.abs(wheeled.current) < 10) return;
    view.scroll(Math.sign(wheeled.current));
    wheeled.current = 0;
  };
  const drawn = box !== null && tool.value === "box" ? box : null;
  return (
    <div
      ref={layer}
      class={`gestures ${tool.value}`}
      data-testid={`gestures-${view.id}`}
      onPointerDown={pressed}
      onPointerMove={moved}
      onPointerUp={released}
      onPointerCancel={() => setBox(null)}
      onWheel={rolled}
    >
      {drawn && (
        <div
          class="box"
          style={{
            left: `${Math.min(drawn.from[0], drawn.to[0])}px`,
            top: `${Math.min(drawn.from[1], drawn.to[1])}px`,
            width: `${Math.abs(drawn.to[0] - drawn.from[0])}px`,
            height: `${Math.abs(drawn.to[1] - drawn.from[1])}px`,
          }}
        />
      )}
    </div>
  );
}

function cross(view: View, [x, y]: [number, number]): void {
  const world = view.toWorld(x, y);
  if (world !== null) setCrosshairs(world, view);
}

function finish(view: View, { from, to }: Drag): void {
  const [first, second] = [view.toWorld(...from), view.toWorld(...to)];
  if (first === null || second === null) return;
  const still = Math.hypot(to[0] - from[0], to[1] - from[1]) <= STILL_PX;
  if (still || tool.value === "box") perform(view, first, second);
}

/** Selects the finding that is drawn at a place of a view; whether there is one. */
export function selectAt(view: View, x: number, y: number): boolean {
  const frame = view.frame();
  if (frame === null || !outlinesShown.value) return false;
  const shown = view.id === "prior" ? (prior.value?.findings ?? []) : findings.value;
  let [best, least] = ["", 1];
  for (const finding of shown) {
    const center = finding.center_xyz_mm as Point;
    const radius = Math.max(3, (finding.diameter_mm ?? 6) / 2);
    const canvas = view.toCanvas(center);
    if (canvas === null || view.distance(center, frame) > radius) continue;
    const away = Math.hypot(canvas[0] - x, canvas[1] - y) / Math.max(10, radius * frame.pixelsPerMm);
    if (away < least) [best, least] = [finding.id, away];
  }
  if (best === "") return false;
  const now = view.id === "prior" ? findings.value.find((finding) => matchedBefore(finding)?.id === best)?.id : best;
  if (now !== undefined) selectedId.value = now;
  panel.value = "findings";
  return true;
}
