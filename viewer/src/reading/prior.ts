/** A prior study beside the one that is read: linked scrolling, the same nodules. */
import { effect, signal, untracked } from "@preact/signals";
import * as client from "../api/client";
import type { Finding, Study } from "../api/types";
import { gridOf } from "../geometry/grid";
import { nearestSlice } from "../geometry/slices";
import type { Point } from "../geometry/vectors";
import { loadSeries, type Series } from "../imaging/series";
import { holdPrior, letGo, series, views } from "./room";
import { growthIn, layout, selected, target } from "./study";
import { complain, say } from "./toasts";

/** What is known of the prior. */
export interface Prior {
  readonly study: Study;
  readonly findings: readonly Finding[];
  readonly series: Series;
}

export const prior = signal<Prior | null>(null);
export const linked = signal(true);
export const priorLoading = signal(false);

/** How far, in mm along the body, a place of the prior is beyond the same place now. */
const offset = signal(0);

let opening = 0;

/** Opens a prior beside; the one that was asked for last wins. */
export async function openPrior(uid: string): Promise<void> {
  const mine = ++opening;
  priorLoading.value = true;
  layout.value = "compare";
  try {
    const [study, findings] = await Promise.all([client.study(uid), client.findings(uid)]);
    if (mine !== opening) return;
    if (!study.analyzed_series_uid) throw new Error("The prior holds no series that could be shown");
    holdPrior(study.analyzed_series_uid);
    const shown = await loadSeries(uid, study.analyzed_series_uid);
    if (mine !== opening) return letGo(shown);
    const before = prior.value;
    prior.value = { study, findings, series: shown };
    offset.value = startingOffset(prior.value);
    showMatched();
    if (before !== null) setTimeout(() => letGo(before.series), 500);
  } catch (error) {
    if (mine !== opening) return;
    complain(error);
    closePrior();
  } finally {
    if (mine === opening) priorLoading.value = false;
  }
}

/** By a nodule that is matched; else by the upper ends of both scans, near the apexes of the lungs. */
function startingOffset({ study, findings, series: shown }: Prior): number {
  const growth = growthIn(selected.value, study.study_uid);
  const before = findings.find((finding) => finding.id === growth?.prior_finding_id);
  if (selected.value && before) return before.center_xyz_mm[2] - selected.value.center_xyz_mm[2];
  const [top, topNow] = [shown.slices[0], series.value?.slices[0]];
  return top && topNow ? top.origin[2] - topNow.origin[2] : 0;
}

/** Goes to the nodule of the prior that the selected one is. */
export function showMatched(): void {
  const [finding, beside] = [selected.value, prior.value];
  if (finding === null || beside === null) return;
  const growth = growthIn(finding, beside.study.study_uid);
  const before = beside.findings.find((one) => one.id === growth?.prior_finding_id);
  if (before) {
    offset.value = before.center_xyz_mm[2] - finding.center_xyz_mm[2];
    views.value.get("prior")?.goTo(before.center_xyz_mm as Point);
  } else scrollAlong();
}

/** The prior's finding that a finding now is; null for none. */
export function matchedBefore(finding: Finding | null): Finding | null {
  const growth = prior.value ? growthIn(finding, prior.value.study.study_uid) : null;
  return prior.value?.findings.find((one) => one.id === growth?.prior_finding_id) ?? null;
}

function scrollAlong(): void {
  const [now, before, beside] = [views.value.get("axial"), views.value.get("prior"), prior.value];
  const middle = now?.frame()?.middle;
  if (!before || !beside || !middle) return;
  before.goToSlice(nearestSlice(beside.series.slices, [middle[0], middle[1], middle[2] + offset.value]));
}

/** Links or unlinks the scrolling; where it is linked anew, both stay where they are. */
export function toggleLink(): void {
  linked.value = !linked.value;
  const [now, before] = [views.value.get("axial")?.frame(), views.value.get("prior")?.frame()];
  if (linked.value && now && before) offset.value = before.middle[2] - now.middle[2];
  say(linked.value ? "Both studies scroll together from here" : "Each study scrolls alone");
}

/** Shows the prior in its view and ties both together, as long as it is open. */
export function tiePrior(): () => void {
  let turn = Promise.resolve();
  const ends = [
    effect(() => {
      const [view, beside] = [views.value.get("prior"), prior.value];
      if (!view || !beside || view.series === beside.series) return;
      const show = async (): Promise<void> => {
        if (prior.value !== beside || views.value.get("prior") !== view) return;
        await view.show(beside.series, beside.series.slices.length >> 1);
        if (prior.value === beside) showMatched();
      };
      turn = turn.then(show).catch(complain);
    }),
    effect(() => {
      const at = views.value.get("axial")?.slice.value.at;
      if (at !== undefined && linked.value && prior.value !== null) untracked(scrollAlong);
    }),
    effect(() => {
      if (target.value !== null && prior.value !== null) untracked(showMatched);
    }),
    effect(() => {
      // the series of now may come after the prior
      if (series.value === null) return;
      untracked(() => {
        if (prior.value === null) return;
        offset.value = startingOffset(prior.value);
        showMatched();
      });
    }),
  ];
  return () => ends.forEach((end) => end());
}

/** Closes it. */
export function closePrior(): void {
  const before = prior.value;
  opening++;
  prior.value = null;
  priorLoading.value = false;
  linked.value = true;
  holdPrior(null);
  if (layout.value === "compare") layout.value = "mpr";
  if (before !== null) setTimeout(() => letGo(before.series), 500);
}

/** The prior's grid. */
export function priorGrid() {
  const facts = prior.value?.study.geometry;
  return facts ? gridOf(facts) : null;
}
