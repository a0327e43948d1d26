/** Past cases that look like a finding, a place or a box. */
import { signal } from "@preact/signals";
import * as client from "../api/client";
import type { Box, Scope, SearchAnswer, SearchRequest } from "../api/types";
import { toIndex } from "../geometry/grid";
import type { Point } from "../geometry/vectors";
import { grid, panel, selected, study, tool } from "./study";
import { complain, say } from "./toasts";

/** What was asked, in words and as it is. */
export interface Question {
  readonly words: string;
  readonly what: Partial<SearchRequest>;
}

export const question = signal<Question | null>(null);
export const answer = signal<SearchAnswer | null>(null);
export const searching = signal(false);
export const refusal = signal("");
export const where = signal("");
export const scope = signal<Scope>("all");

let last = 0;

/** Asks, with the filter as it is set; a later question overtakes an earlier one. */
export async function ask(asked: Question | null = question.value): Promise<void> {
  if (asked === null) return;
  const mine = ++last;
  question.value = asked;
  panel.value = "matches";
  searching.value = true;
  refusal.value = "";
  try {
    const found = await client.search({ ...asked.what, k: 10, scope: scope.value, where: where.value });
    if (mine === last) answer.value = found;
  } catch (error) {
    if (mine !== last) return;
    answer.value = null;
    refusal.value = error instanceof Error ? error.message : String(error);
    complain(error);
  } finally {
    if (mine === last) searching.value = false;
  }
}

/** Asks for cases like the selected finding. */
export function askOfFinding(): void {
  const finding = selected.value;
  if (finding !== null) void ask({ words: `finding ${finding.number}`, what: { finding_id: finding.id } });
}

/** Asks for cases like what lies at a place. */
export function askAtPoint(point_xyz_mm: Point): void {
  const series_uid = study.value?.analyzed_series_uid;
  tool.value = "window";
  if (!series_uid) return say("This study has no series to search in", "error");
  const words = `the place ${point_xyz_mm.map((value) => value.toFixed(0)).join(", ")} mm`;
  void ask({ words, what: { series_uid, point_xyz_mm } });
}

/** A box between two places on one slice of the grid; null where they are not on one, or it is too thin. */
export function boxBetween(first: Point, second: Point): Box | null {
  const place = grid.value;
  if (place === null) return null;
  const [a, b] = [toIndex(place, first), toIndex(place, second)];
  const slice_index = Math.round(a[0]);
  if (Math.abs(a[0] - b[0]) > 0.5 || slice_index < 0 || slice_index >= place.shape[0]) return null;
  const within = (value: number, axis: 1 | 2): number => Math.max(0, Math.min(place.shape[axis] - 1, value));
  const [x0, x1] = [within(Math.min(a[2], b[2]), 2), within(Math.max(a[2], b[2]), 2)];
  const [y0, y1] = [within(Math.min(a[1], b[1]), 1), within(Math.max(a[1], b[1]), 1)];
  return x1 - x0 < 2 || y1 - y0 < 2 ? null : { slice_index, x0, y0, x1, y1 };
}

/** Asks for cases like what a box is drawn around. */
export function askInBox(first: Point, second: Point): void {
  const series_uid = study.value?.analyzed_series_uid;
  tool.value = "window";
  const box = boxBetween(first, second);
  if (!series_uid || box === null) return say("Draw the box on the axial view, two pixels wide or more", "error");
  void ask({ words: "the box", what: { series_uid, box } });
}

/** Forgets the last answer. */
export function forgetMatches(): void {
  last++;
  question.value = null;
  answer.value = null;
  searching.value = false;
  refusal.value = "";
}
