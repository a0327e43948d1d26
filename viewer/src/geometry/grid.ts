/** The grid of the analyzed series: index (z, y, x) to LPS mm and back, whatever its axes' directions. */
import type { GridFacts } from "../api/types";
import { cross, dot, lengthOf, type Point } from "./vectors";

/** (z, y, x), fractions allowed; whole numbers are voxel centers. */
export type Index = [number, number, number];

/** A grid with both ways of its affine. */
export interface Grid {
  readonly shape: Index;
  /** World steps of one voxel along z, y and x. */
  readonly steps: readonly [Point, Point, Point];
  readonly origin: Point;
  readonly frame: string;
  /** Rows of the inverse: index_k = rows[k] . (world - origin). */
  readonly rows: readonly [Point, Point, Point];
}

/** Makes a grid of what the server tells. */
export function gridOf(facts: GridFacts): Grid {
  const entry = (row: number, column: number): number => facts.affine_lps[row]?.[column] ?? 0;
  const column = (k: number): Point => [entry(0, k), entry(1, k), entry(2, k)];
  const steps = [column(0), column(1), column(2)] as const;
  const volume = dot(steps[0], cross(steps[1], steps[2]));
  const row = (a: Point, b: Point): Point => cross(a, b).map((value) => value / volume) as Point;
  return {
    shape: facts.shape_zyx,
    steps,
    origin: column(3),
    frame: facts.frame_of_reference_uid,
    rows: [row(steps[1], steps[2]), row(steps[2], steps[0]), row(steps[0], steps[1])],
  };
}

/** Index to LPS mm. */
export function toWorld(grid: Grid, index: Readonly<Index>): Point {
  const world: Point = [...grid.origin];
  for (const k of [0, 1, 2] as const) for (const i of [0, 1, 2] as const) world[i] += index[k] * grid.steps[k][i];
  return world;
}

/** LPS mm to index, with fractions. */
export function toIndex(grid: Grid, world: Readonly<Point>): Index {
  const away: Point = [world[0] - grid.origin[0], world[1] - grid.origin[1], world[2] - grid.origin[2]];
  return [dot(grid.rows[0], away), dot(grid.rows[1], away), dot(grid.rows[2], away)];
}

/** The axis of the grid (0 z, 1 y, 2 x) that a view with this normal looks along. */
export function axisAlong(grid: Grid, normal: Readonly<Point>): 0 | 1 | 2 {
  const shares = grid.steps.map((step) => Math.abs(dot(step, normal)) / (lengthOf(step) || 1));
  return shares.indexOf(Math.max(...shares)) as 0 | 1 | 2;
}

/** Whether a place lies in the voxels of the grid. */
export function contains(grid: Grid, world: Readonly<Point>): boolean {
  return toIndex(grid, world).every((value, k) => value >= -0.5 && value <= (grid.shape[k] ?? 0) - 0.5);
}
