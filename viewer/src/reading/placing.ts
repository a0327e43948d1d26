/** Tools that need a place: what they do there, by pointer and by keyboard. */
import { along, type Point } from "../geometry/vectors";
import type { View } from "../imaging/view";
import { addAt, moveTo } from "./changes";
import { askAtPoint, askInBox } from "./matches";
import { setCrosshairs } from "./room";
import { crosshairs, tool, type Tool } from "./study";
import { say } from "./toasts";

/** Tools that are used at a place, not by Cornerstone3D. */
export const PLACED: readonly Tool[] = ["crosshairs", "box", "point", "add", "move"];

/** Half of the box that is drawn without a pointer. */
const HALF_BOX_MM = 10;

/** Uses the tool in hand at a place; a box is between two. */
export function perform(view: View, first: Point, second: Point): void {
  if (tool.value === "box") {
    if (view.plane !== "axial") return say("Draw the box on the axial view", "error");
    askInBox(first, second);
  } else if (tool.value === "point") askAtPoint(second);
  else if (tool.value === "add") void addAt(second);
  else if (tool.value === "move") void moveTo(second);
}

/** Where a tool works without a pointer: at the crosshairs on the plane that is shown, else in its middle. */
function placeOn(view: View): Point | null {
  const frame = view.frame();
  if (frame === null) return null;
  return crosshairs.value === null ? frame.middle : view.onPlane(crosshairs.value, frame);
}

/** What a key does on a focused view while such a tool is in hand; whether it did anything. */
export function placeByKey(view: View, key: string, isFar: boolean): boolean {
  const [frame, at] = [view.frame(), placeOn(view)];
  if (!PLACED.includes(tool.value) || view.id === "prior" || frame === null || at === null) return false;
  const step = isFar ? 10 : 1;
  const ways: Record<string, [Point, number]> = {
    ArrowUp: [frame.down, -step],
    ArrowDown: [frame.down, step],
    ArrowLeft: [frame.right, -step],
    ArrowRight: [frame.right, step],
  };
  const way = ways[key];
  if (way !== undefined) setCrosshairs(along(at, ...way), view);
  else if (key !== "Enter") return false;
  else if (tool.value === "crosshairs") setCrosshairs(at, view);
  else {
    const corner = (by: number): Point => along(along(at, frame.right, by), frame.down, by);
    if (tool.value === "box") perform(view, corner(-HALF_BOX_MM), corner(HALF_BOX_MM));
    else perform(view, at, at);
  }
  return true;
}
