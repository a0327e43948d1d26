/** The slices of a series in the order they are read, and what lies where on them. */
import { along, cross, dot, lengthOf, minus, unit, type Point } from "./vectors";

/** Where a slice lies. */
export interface Slice {
  readonly imageId: string;
  readonly sopInstanceUid: string;
  /** Center of the first pixel. */
  readonly origin: Point;
  /** Along a row, and along a column, of length 1. */
  readonly right: Point;
  readonly down: Point;
  /** mm between columns, and between rows. */
  readonly columnStep: number;
  readonly rowStep: number;
  readonly columns: number;
  readonly rows: number;
  readonly instanceNumber: number | null;
}

/** The normal of a slice. */
export function normalOf(slice: Slice): Point {
  return unit(cross(slice.right, slice.down));
}

/** Orders slices along the body, the head (or left, or front) first, and leaves out those of another plane. */
export function ordered(slices: readonly Slice[]): Slice[] {
  // a localizer is at an end of a series, not in its middle
  const middle = slices[slices.length >> 1];
  if (middle === undefined) return [];
  let normal = normalOf(middle);
  const main = normal.map(Math.abs).indexOf(Math.max(...normal.map(Math.abs))) as 0 | 1 | 2;
  const towards = main === 1 ? -1 : 1;
  if (Math.sign(normal[main]) !== towards) normal = minus([0, 0, 0], normal);
  const same = slices.filter((slice) => Math.abs(dot(normalOf(slice), normal)) > 0.99);
  return [...same].sort((a, b) => dot(b.origin, normal) - dot(a.origin, normal));
}

/** Whether slices lie evenly one behind the other, so that they are a volume: no gap, no tilt. */
export function isEven(slices: readonly Slice[]): boolean {
  const [first, last] = [slices[0], slices[slices.length - 1]];
  if (first === undefined || last === undefined || slices.length < 3) return false;
  const whole = minus(last.origin, first.origin);
  const step = lengthOf(whole) / (slices.length - 1);
  if (Math.abs(dot(unit(whole), normalOf(first))) < 0.9995) return false;
  return slices.every((slice, number) => {
    const expected = along(first.origin, whole, number / (slices.length - 1));
    return lengthOf(minus(slice.origin, expected)) < 0.1 * step + 0.02;
  });
}

/** The number of the slice that is nearest to a place, from 0; -1 where there is none. */
export function nearestSlice(slices: readonly Slice[], world: Readonly<Point>): number {
  let [best, least] = [-1, Infinity];
  slices.forEach((slice, number) => {
    const away = Math.abs(dot(minus(world, slice.origin), normalOf(slice)));
    if (away < least) [best, least] = [number, away];
  });
  return best;
}

/** Column and row of a place on a slice, with fractions; whole numbers are pixel centers. */
export function pixelAt(slice: Slice, world: Readonly<Point>): [number, number] {
  const away = minus(world, slice.origin);
  return [dot(away, slice.right) / slice.columnStep, dot(away, slice.down) / slice.rowStep];
}

/** Whether a row must be mirrored, and a column, for the reader's view: the patient's right on the left, front up. */
export function flipsForReading(slice: Slice): { horizontal: boolean; vertical: boolean } {
  const strongest = (v: Point): 0 | 1 | 2 => v.map(Math.abs).indexOf(Math.max(...v.map(Math.abs))) as 0 | 1 | 2;
  const [across, along] = [strongest(slice.right), strongest(slice.down)];
  if (across === 2 || across === along) return { horizontal: false, vertical: false };
  // left and back are at the right of the screen; the back, or the feet, at its bottom
  return { horizontal: slice.right[across] < 0, vertical: along === 2 ? slice.down[2] > 0 : slice.down[along] < 0 };
}
