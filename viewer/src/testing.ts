/** What tests of the page, and curious readers at the console, can ask: `window.spicula`. */
import type { Point } from "./geometry/vectors";
import { arrived } from "./imaging/series";
import { ready, series, views } from "./reading/room";
import { findings, selectedId, study } from "./reading/study";

const spicula = {
  /** Milestones in ms since the page began: first image, the whole stack can be scrolled, all planes are set up. */
  get ready() {
    return ready.value;
  },
  /** How many slices have come, of how many. */
  get images() {
    return series.value === null ? [0, 0] : [arrived(series.value), series.value.slices.length];
  },
  get study() {
    return study.value?.study_uid ?? null;
  },
  get findings() {
    return findings.value;
  },
  get selected() {
    return selectedId.value;
  },
  /** Of each view: its slice, how many it has, and its series. */
  get viewports() {
    return Object.fromEntries(
      [...views.value].map(([id, view]) => [
        id,
        { ...view.slice.value, frame: view.frame(), series: view.series?.seriesUid ?? null },
      ]),
    );
  },
  /** Pixels of the page from the corner of a view, of a place in LPS mm. */
  worldToCanvas(id: string, world: Point) {
    return views.value.get(id)?.toCanvas(world) ?? null;
  },
  /** LPS mm of pixels from the corner of a view. */
  canvasToWorld(id: string, [x, y]: [number, number]) {
    return views.value.get(id)?.toWorld(x, y) ?? null;
  },
};

declare global {
  interface Window {
    spicula: typeof spicula;
  }
}

window.spicula = spicula;
