/** Points and vectors in LPS millimeters. */

/** x to the patient's left, y to the back, z to the head, in mm. */
export type Point = [number, number, number];

/** a + k b. */
export function along(a: Readonly<Point>, b: Readonly<Point>, k = 1): Point {
  return [a[0] + k * b[0], a[1] + k * b[1], a[2] + k * b[2]];
}

/** a - b. */
export function minus(a: Readonly<Point>, b: Readonly<Point>): Point {
  return along(a, b, -1);
}

/** Inner product. */
export function dot(a: Readonly<Point>, b: Readonly<Point>): number {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

/** Outer product. */
export function cross(a: Readonly<Point>, b: Readonly<Point>): Point {
  return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
}

/** Length in mm. */
export function lengthOf(a: Readonly<Point>): number {
  return Math.sqrt(dot(a, a));
}

/** The same direction with length 1; zero stays zero. */
export function unit(a: Readonly<Point>): Point {
  const length = lengthOf(a) || 1;
  return [a[0] / length, a[1] / length, a[2] / length];
}
