import { describe, expect, test } from "vitest";
import { axisAlong, contains, gridOf, toIndex, toWorld, type Index } from "../src/geometry/grid";
import { barLength, lettersOf } from "../src/geometry/letters";
import { flipsForReading, isEven, nearestSlice, ordered, pixelAt, type Slice } from "../src/geometry/slices";
import type { Point } from "../src/geometry/vectors";

const facts = (affine_lps: number[][]) => ({
  shape_zyx: [133, 512, 512] as [number, number, number],
  spacing_zyx_mm: [2.5, 0.7, 0.7] as [number, number, number],
  affine_lps,
  frame_of_reference_uid: "1.2",
});
const upright = gridOf(
  facts([
    [0, 0, 0.7, -166],
    [0, 0.7, 0, -171.7],
    [2.5, 0, 0, -340],
    [0, 0, 0, 1],
  ]),
);
const oblique = gridOf(
  facts([
    [0.3, 0.1, 0.68, 5],
    [-0.2, 0.69, -0.1, 6],
    [2.4, 0.08, -0.12, 7],
    [0, 0, 0, 1],
  ]),
);

describe("grid", () => {
  test("index to world as the affine says", () => {
    expect(toWorld(upright, [90, 367, 317])).toEqual([-166 + 0.7 * 317, -171.7 + 0.7 * 367, -340 + 2.5 * 90]);
  });
  test.each([upright, oblique])("world to index is the way back", (grid) => {
    for (const index of [
      [0, 0, 0],
      [12.5, 300, 7],
      [132, 1, 511],
    ] as Index[]) {
      toIndex(grid, toWorld(grid, index)).forEach((value, k) => expect(value).toBeCloseTo(index[k]!, 9));
    }
  });
  test("a flipped axis keeps its places", () => {
    const flipped = gridOf(
      facts([
        [0, 0, -0.7, 190],
        [0, -0.7, 0, 180],
        [2.5, 0, 0, -340],
        [0, 0, 0, 1],
      ]),
    );
    expect(toIndex(flipped, [190 - 70, 180 - 7, -340])).toEqual([0, expect.closeTo(10, 9), expect.closeTo(100, 9)]);
  });
  test("the axis that a view looks along", () => {
    expect([axisAlong(upright, [0, 0, -1]), axisAlong(upright, [0, 1, 0]), axisAlong(upright, [-1, 0, 0])]).toEqual([
      0, 1, 2,
    ]);
    expect(axisAlong(oblique, [0, 0, 1])).toBe(0);
  });
  test("inside reaches to the outer edges of voxels", () => {
    expect(contains(upright, toWorld(upright, [-0.49, 0, 511.49]))).toBe(true);
    expect(contains(upright, toWorld(upright, [-0.51, 0, 0]))).toBe(false);
  });
});

describe("letters", () => {
  test("along the axes", () => {
    expect(
      [
        [1, 0, 0],
        [-1, 0, 0],
        [0, 1, 0],
        [0, -1, 0],
        [0, 0, 1],
        [0, 0, -1],
      ].map((v) => lettersOf(v as Point)),
    ).toEqual(["L", "R", "P", "A", "H", "F"]);
  });
  test("oblique ones have two, the stronger first", () => expect(lettersOf([0.5, 0, 0.8])).toBe("HL"));
  test("scale bars are round lengths that fit", () => {
    expect([barLength(1.5, 200), barLength(1, 100), barLength(10, 40), barLength(2, 110)]).toEqual([100, 100, 2, 50]);
    expect(barLength(0, 100)).toBe(0);
  });
});

const slice = (z: number, over: Partial<Slice> = {}): Slice => ({
  imageId: `z${z}`,
  sopInstanceUid: "1",
  origin: [-100, -50, z],
  right: [1, 0, 0],
  down: [0, 1, 0],
  columnStep: 0.5,
  rowStep: 0.8,
  columns: 512,
  rows: 512,
  instanceNumber: 1,
  ...over,
});

describe("slices", () => {
  test("the head comes first, whatever the order they came in", () => {
    expect(ordered([slice(3), slice(9), slice(-1)]).map((one) => one.origin[2])).toEqual([9, 3, -1]);
  });
  test("also where rows run from left to right", () => {
    const mirrored = [3, 9, -1].map((z) => slice(z, { right: [-1, 0, 0] }));
    expect(ordered(mirrored).map((one) => one.origin[2])).toEqual([9, 3, -1]);
  });
  test("a scout of another plane is left out", () => {
    expect(ordered([slice(1), slice(2), slice(0, { down: [0, 0, -1] })])).toHaveLength(2);
    // also where the localizer comes first
    expect(ordered([slice(0, { down: [0, 0, -1] }), slice(1), slice(2)]).map((one) => one.origin[2])).toEqual([2, 1]);
  });
  test("the nearest to a place", () => expect(nearestSlice([slice(9), slice(3), slice(-1)], [0, 0, 2.2])).toBe(1));
  test("pixels of a place: columns by the column step", () => {
    expect(pixelAt(slice(0), [-90, -42, 0])).toEqual([20, 10]);
  });
  test("a gap or a tilt is no volume", () => {
    const stack = [9, 6, 3, 0].map((z) => slice(z));
    expect(isEven(stack)).toBe(true);
    expect(isEven([9, 6, 0].map((z) => slice(z)))).toBe(false);
    expect(isEven(stack.slice(0, 2))).toBe(false);
    expect(isEven(stack.map((one, n) => ({ ...one, origin: [-100, -50 + n, one.origin[2]] as Point })))).toBe(false);
  });
  test("which slices are mirrored for reading", () => {
    expect(flipsForReading(slice(0))).toEqual({ horizontal: false, vertical: false });
    expect(flipsForReading(slice(0, { right: [-1, 0, 0], down: [0, -1, 0] }))).toEqual({
      horizontal: true,
      vertical: true,
    });
    expect(flipsForReading(slice(0, { down: [0, 0, -1] }))).toEqual({ horizontal: false, vertical: false });
    expect(flipsForReading(slice(0, { right: [0, 1, 0], down: [0, 0, 1] }))).toEqual({
      horizontal: false,
      vertical: true,
    });
  });
});
