import { describe, expect, test } from "vitest";
import { gridOf, toIndex } from "../src/geometry/grid";
import { loopsOnPlane, planeOf, traced, unpacked, type Loop } from "../src/geometry/outline";

const plane = (...rows: string[]): [number, number, Uint8Array] => [
  rows.length,
  rows[0]!.length,
  Uint8Array.from(rows.join(""), (mark) => Number(mark === "#")),
];
/** Signed area of a loop; the outer borders and the holes have different signs. */
const area = (loop: Loop): number =>
  loop.reduce((sum, [r0, c0], number) => {
    const [r1, c1] = loop[(number + 1) % loop.length]!;
    return sum + (c0 * r1 - c1 * r0) / 2;
  }, 0);
const areas = (...rows: string[]): number[] =>
  traced(...plane(...rows))
    .map(area)
    .sort((a, b) => b - a);

describe("tracing", () => {
  test("one voxel has four corners", () => {
    expect(traced(...plane("...", ".#.", "..."))).toEqual([
      [
        [1, 1],
        [1, 2],
        [2, 2],
        [2, 1],
      ],
    ]);
  });
  test("straight edges have no points between", () => expect(traced(...plane("####", "####"))[0]).toHaveLength(4));
  test("the area of an outline is its count of voxels", () => expect(areas("..##", ".###", "###.")).toEqual([8]));
  test("holes are loops the other way round", () => expect(areas("###", "#.#", "###")).toEqual([9, -1]));
  test("voxels that touch at a corner are two loops", () => expect(areas("#.", ".#")).toEqual([1, 1]));
  test("and the other corner", () => expect(areas(".#", "#.")).toEqual([1, 1]));
  test("nothing has no outline", () => expect(areas("..", "..")).toEqual([]));
  test("any shape: areas add up to its voxels", () => {
    let seed = 7;
    for (let round = 0; round < 50; round++) {
      const rows = Array.from({ length: 9 }, () =>
        Array.from({ length: 11 }, () => ((seed = (seed * 1103515245 + 12345) % 2147483648) % 10 < 6 ? "#" : ".")).join(
          "",
        ),
      );
      const voxels = rows.join("").split("#").length - 1;
      expect(areas(...rows).reduce((sum, one) => sum + one, 0)).toBe(voxels);
    }
  });
});

describe("runs", () => {
  // 2 slices of 2 x 3: the first "..#/###", the second "#../..."
  const outline = {
    start_zyx: [10, 20, 30] as [number, number, number],
    shape_zyx: [2, 2, 3] as [number, number, number],
    runs: [2, 5, 5],
  };
  const mask = unpacked(outline);
  test("start outside, in C order", () => expect([...mask.inside]).toEqual([0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0]));
  test("a run of none outside begins inside", () => {
    expect([...unpacked({ ...outline, runs: [0, 1, 11] }).inside.slice(0, 2)]).toEqual([1, 0]);
  });
  test("planes along every axis", () => {
    expect([...planeOf(mask, 0, 10)!.inside]).toEqual([0, 0, 1, 1, 1, 1]);
    expect([...planeOf(mask, 1, 20)!.inside]).toEqual([0, 0, 1, 1, 0, 0]); // rows z, columns x
    expect([...planeOf(mask, 2, 30)!.inside]).toEqual([0, 1, 1, 0]); // rows z, columns y
    expect(planeOf(mask, 0, 12)).toBeNull();
    expect(planeOf(mask, 0, 9)).toBeNull();
  });
  test("loops lie on voxel edges in the world", () => {
    const grid = gridOf({
      shape_zyx: [40, 40, 40],
      spacing_zyx_mm: [2, 0.5, 0.5],
      frame_of_reference_uid: "",
      affine_lps: [
        [0, 0, 0.5, -7],
        [0, 0.5, 0, -9],
        [2, 0, 0, 4],
        [0, 0, 0, 1],
      ],
    });
    for (const axis of [0, 1, 2] as const) {
      const index = mask.start[axis];
      const loops = loopsOnPlane(mask, grid, axis, index);
      expect(loops.length).toBeGreaterThan(0);
      for (const corner of loops.flat()) {
        const at = toIndex(grid, corner);
        expect(at[axis]).toBeCloseTo(index, 9);
        at.forEach((value, k) => k !== axis && expect(Math.abs(value % 1)).toBeCloseTo(0.5, 9));
      }
    }
  });
});
