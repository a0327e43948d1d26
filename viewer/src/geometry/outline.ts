/** Outlines of findings: runs of voxels, cut by a plane of their grid, traced exactly along voxel edges. */
import type { OutlineRuns } from "../api/types";
import { toWorld, type Grid, type Index } from "./grid";
import type { Point } from "./vectors";

/** A box of the grid with 1 for every voxel inside. */
export interface Mask {
  readonly start: Index;
  readonly shape: Index;
  readonly inside: Uint8Array;
}

/** A closed line; corners of voxels as (row, column), (0, 0) the outer corner of the first voxel. */
export type Loop = [number, number][];

/** Unpacks runs of outside and inside in turn, in C order. */
export function unpacked(outline: OutlineRuns): Mask {
  const [nz, ny, nx] = outline.shape_zyx;
  const inside = new Uint8Array(nz * ny * nx);
  let place = 0;
  outline.runs.forEach((length, number) => {
    if (number % 2 === 1) inside.fill(1, place, place + length);
    place += length;
  });
  return { start: outline.start_zyx, shape: outline.shape_zyx, inside };
}

/** One plane of a mask: rows and columns are the two other axes in the order z, y, x. */
export function planeOf(
  mask: Mask,
  axis: 0 | 1 | 2,
  index: number,
): { rows: number; columns: number; inside: Uint8Array } | null {
  const at = index - mask.start[axis];
  if (!Number.isInteger(at) || at < 0 || at >= mask.shape[axis]) return null;
  const [first, second] = otherAxes(axis);
  const strides: Index = [mask.shape[1] * mask.shape[2], mask.shape[2], 1];
  const [rows, columns] = [mask.shape[first], mask.shape[second]];
  const inside = new Uint8Array(rows * columns);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++)
      inside[row * columns + column] =
        mask.inside[at * strides[axis] + row * strides[first] + column * strides[second]] ?? 0;
  return { rows, columns, inside };
}

/** The axes of a plane across an axis. */
export function otherAxes(axis: 0 | 1 | 2): [0 | 1 | 2, 0 | 1 | 2] {
  return axis === 0 ? [1, 2] : axis === 1 ? [0, 2] : [0, 1];
}

/** Traces the borders of a plane's voxels; the inside is on the right, holes are loops of their own. */
export function traced(rows: number, columns: number, inside: Uint8Array): Loop[] {
  const filled = (row: number, column: number): boolean =>
    row >= 0 && column >= 0 && row < rows && column < columns && inside[row * columns + column] === 1;
  const width = columns + 1;
  const next = new Map<number, number[]>();
  const edge = (r0: number, c0: number, r1: number, c1: number): void => {
    const from = r0 * width + c0;
    next.set(from, [...(next.get(from) ?? []), r1 * width + c1]);
  };
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) {
      if (!filled(row, column)) continue;
      if (!filled(row - 1, column)) edge(row, column, row, column + 1);
      if (!filled(row, column + 1)) edge(row, column + 1, row + 1, column + 1);
      if (!filled(row + 1, column)) edge(row + 1, column + 1, row + 1, column);
      if (!filled(row, column - 1)) edge(row + 1, column, row, column);
    }
  const loops: Loop[] = [];
  for (const begin of next.keys()) {
    while ((next.get(begin)?.length ?? 0) > 0) loops.push(withoutStraights(walked(begin, next), width));
  }
  return loops;
}

/** Follows edges from a corner until it comes back; where two voxels touch at a corner, it stays with its own. */
function walked(begin: number, next: Map<number, number[]>): number[] {
  const corners: number[] = [];
  let [before, at] = [-1, begin];
  do {
    corners.push(at);
    const ways = next.get(at) ?? [];
    const turn = ways.length > 1 ? ways.findIndex((to) => isRightTurn(before, at, to)) : 0;
    const [to] = ways.splice(Math.max(turn, 0), 1);
    if (to === undefined) break;
    [before, at] = [at, to];
  } while (at !== begin);
  return corners;
}

function isRightTurn(before: number, at: number, to: number): boolean {
  const [a, b] = [at - before, to - at];
  const row = (step: number): number => (Math.abs(step) > 1 ? Math.sign(step) : 0);
  const column = (step: number): number => (Math.abs(step) > 1 ? 0 : step);
  return column(a) * row(b) - row(a) * column(b) > 0;
}

function withoutStraights(corners: number[], width: number): Loop {
  const points = corners.map((corner): [number, number] => [Math.floor(corner / width), corner % width]);
  return points.filter(([row, column], number) => {
    const [r0, c0] = points[(number + points.length - 1) % points.length]!;
    const [r1, c1] = points[(number + 1) % points.length]!;
    return !((r0 === row && row === r1) || (c0 === column && column === c1));
  });
}

/** The loops of a mask on the plane of the grid across an axis, as closed lines in LPS mm along voxel edges. */
export function loopsOnPlane(mask: Mask, grid: Grid, axis: 0 | 1 | 2, index: number): Point[][] {
  const plane = planeOf(mask, axis, index);
  if (plane === null) return [];
  const [first, second] = otherAxes(axis);
  return traced(plane.rows, plane.columns, plane.inside).map((loop) =>
    loop.map(([row, column]) => {
      const place: Index = [0, 0, 0];
      place[axis] = index;
      place[first] = mask.start[first] + row - 0.5;
      place[second] = mask.start[second] + column - 0.5;
      return toWorld(grid, place);
    }),
  );
}
