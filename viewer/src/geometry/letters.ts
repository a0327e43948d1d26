/** Letters of directions in the patient, and the length of a scale bar. */
import { unit, type Point } from "./vectors";

const LETTERS = [
  ["L", "R"],
  ["P", "A"],
  ["H", "F"],
] as const;

/** Where a direction leads: L, R, P, A, H, F, with a second letter where it is oblique. */
export function lettersOf(direction: Readonly<Point>): string {
  const parts = unit(direction);
  return parts
    .map((share, axis) => ({ share: Math.abs(share), letter: LETTERS[axis as 0 | 1 | 2][share > 0 ? 0 : 1] }))
    .filter(({ share }) => share > 0.3)
    .sort((a, b) => b.share - a.share)
    .map(({ letter }) => letter)
    .join("");
}

/** The longest of 1, 2, 5 times a power of ten mm that takes at most so many pixels. */
export function barLength(pixelsPerMm: number, mostPixels: number): number {
  if (!(pixelsPerMm > 0) || !Number.isFinite(pixelsPerMm)) return 0;
  const most = mostPixels / pixelsPerMm;
  const ten = 10 ** Math.floor(Math.log10(most));
  const [best = 1] = [5, 2, 1].filter((step) => step * ten <= most);
  return best * ten;
}
