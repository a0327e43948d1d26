/** The views on the screen and the series in them: opening, jumping, windows, a prior study beside. */
import { computed, effect, signal, untracked } from "@preact/signals";
import { takeTool, type NativeTool } from "../imaging/engine";
import { askAgain, failed } from "../imaging/failures";
import { fetchFrom, forget, huAt, loadOneSlice, loadSeries, stopFetching, type Series } from "../imaging/series";
import type { HuWindow, View } from "../imaging/view";
import { isEven, nearestSlice } from "../geometry/slices";
import type { Point } from "../geometry/vectors";
import { about } from "./session";
import { crosshairs, findings, huWindow, pointer, selected, selectedId, study, target, tool } from "./study";
import { complain } from "./toasts";

export const views = signal<ReadonlyMap<string, View>>(new Map());
export const activeView = signal("axial");
export const series = signal<Series | null>(null);
/** Milestones of opening, in ms since the page began; tests read them. */
export const ready = signal<{ first: number | null; stack: number | null; volume: number | null }>({
  first: null,
  stack: null,
  volume: null,
});
export const loading = signal("");

let opening = 0;
/** The series that somebody wants, shown or on its way: their images are kept. */
const held = new Map<"now" | "prior", string>();
const shows = new WeakMap<View, Promise<void>>();

/** Takes a view in; it shows what is open. */
export async function enter(view: View): Promise<void> {
  view.onWindow = setWindow;
  await view.begin();
  if (left.has(view)) return view.end();
  views.value = new Map(views.value).set(view.id, view);
  view.setWindow(huWindow.value);
  if (series.value !== null && view.id !== "prior") await showIn(view, series.value);
}

const left = new WeakSet<View>();

/** Lets a view go, also one that has not come yet. */
export async function exit(view: View): Promise<void> {
  left.add(view);
  if (views.value.get(view.id) === view) {
    const others = new Map(views.value);
    others.delete(view.id);
    views.value = others;
  }
  if (view.isThere) await view.end();
}

async function showIn(view: View, shown: Series): Promise<void> {
  if (view.plane !== "axial" && !isEven(shown.slices)) return;
  if (view.series === shown) return;
  await inTurn(view, async () => {
    if (series.value !== shown || view.series === shown) return;
    const place = selected.value?.center_xyz_mm as Point | undefined;
    await view.show(shown, place ? nearestSlice(shown.slices, place) : shown.slices.length >> 1);
    if (place) view.goTo(place);
  });
}

/** Does something with a view after what is being done with it; nothing where it has left. */
async function inTurn(view: View, work: () => Promise<void>): Promise<void> {
  const before = shows.get(view) ?? Promise.resolve();
  const now = before.then(() => (left.has(view) ? undefined : work()));
  shows.set(
    view,
    now.catch(() => undefined),
  );
  await now.catch((error: unknown) => {
    if (!left.has(view)) throw error;
  });
}

/** Says which series a prior beside holds; null for none. */
export function holdPrior(seriesUid: string | null): void {
  if (seriesUid === null) held.delete("prior");
  else held.set("prior", seriesUid);
}

/** Forgets the images of a series, unless somebody wants them. */
export function letGo(before: Series): void {
  if (![...held.values()].includes(before.seriesUid)) forget(before);
}

/** Shows a series: one slice at once, the stack when its headers are here, the volume as it comes. */
export async function openSeries(studyUid: string, seriesUid: string, sopInstanceUid: string | null): Promise<void> {
  closeSeries();
  const mine = ++opening;
  held.set("now", seriesUid);
  loading.value = "Loading images …";
  ready.value = { first: null, stack: null, volume: null };
  const whole = loadSeries(studyUid, seriesUid);
  whole.then(
    (all) => (mine === opening ? undefined : letGo(all)),
    () => undefined,
  );
  try {
    const axial = await theAxialView();
    const one = await loadOneSlice(studyUid, seriesUid, sopInstanceUid).catch(() => null);
    if (mine !== opening) return;
    if (axial !== undefined && one !== null && one.slices.length > 0) {
      await inTurn(axial, async () => (mine === opening ? axial.show(one, 0) : undefined));
      if (mine !== opening) return;
      ready.value = { ...ready.value, first: performance.now() };
    }
    const all = await whole;
    if (mine !== opening) return;
    if (all.slices.length === 0) throw new Error("This series holds no slices that could be shown");
    series.value = all;
    const place = selected.value?.center_xyz_mm as Point | undefined;
    fetchFrom(all, place ? nearestSlice(all.slices, place) : all.slices.length >> 1);
    if (axial !== undefined) await showIn(axial, all);
    if (mine !== opening) return;
    ready.value = { ...ready.value, first: ready.value.first ?? performance.now(), stack: performance.now() };
    await Promise.all([...views.value.values()].filter((view) => view.id !== "prior").map((view) => showIn(view, all)));
    if (mine !== opening) return;
    ready.value = { ...ready.value, volume: performance.now() };
  } catch (error) {
    if (mine === opening) complain(error);
  } finally {
    if (mine === opening) loading.value = "";
  }
}

/** The axial view, once it is on the screen. */
function theAxialView(): Promise<View | undefined> {
  return new Promise((resolve) => {
    const late = setTimeout(() => done(undefined), 5000);
    const done = (view: View | undefined): void => {
      clearTimeout(late);
      queueMicrotask(() => stop());
      resolve(view);
    };
    const stop = effect(() => {
      const view = views.value.get("axial");
      if (view !== undefined) done(view);
    });
  });
}

/** Forgets the series that is shown, a moment later: it may be opened again. */
export function closeSeries(): void {
  const before = series.value;
  opening++;
  series.value = null;
  loading.value = "";
  held.delete("now");
  stopFetching();
  for (const view of views.value.values()) if (view.id !== "prior") view.series = null;
  if (before !== null) setTimeout(() => letGo(before), 1000);
}

/** The slices of the open series that could not be loaded. */
export const lacking = computed(() => series.value?.slices.filter((slice) => failed.value.has(slice.imageId)) ?? []);

/** Asks again for the slices that could not be loaded. */
export async function tryAgain(): Promise<void> {
  const all = series.value;
  if (all === null || lacking.value.length === 0) return;
  await askAgain(lacking.value);
  if (series.value !== all) return;
  for (const view of views.value.values()) view.refresh();
}

/** Takes the window on HU to all views. */
export function setWindow(window: HuWindow): void {
  huWindow.value = { center: Math.round(window.center), width: Math.max(1, Math.round(window.width)) };
  for (const view of views.value.values()) view.setWindow(huWindow.value);
}

/** Takes the preset of a key; whether there is one. */
export function takePreset(key: string): boolean {
  const preset = about.value?.window_presets.find((one) => one.key === key);
  if (preset !== undefined) setWindow({ center: preset.center_hu, width: preset.width_hu });
  return preset !== undefined;
}

/** Brings all views to a place. */
export function goTo(world: Point, besides?: View): void {
  if (crosshairs.value !== null) crosshairs.value = world;
  for (const view of views.value.values()) if (view !== besides && view.id !== "prior") view.goTo(world);
}

/** Moves the crosshairs and the other views with them. */
export function setCrosshairs(world: Point, from: View): void {
  crosshairs.value = world;
  for (const view of views.value.values()) if (view !== from && view.id !== "prior") view.goTo(world);
}

/** What lies under the pointer on a view. */
export function underPointer(view: View): { world: Point; hu: number | null } | null {
  const at = pointer.value;
  if (at === null || at.view !== view.id || view.series === null) return null;
  const world = view.toWorld(at.x, at.y);
  return world && { world, hu: huAt(view.series, world) };
}

/** The view that keys speak to. */
export function keyView(): View | undefined {
  return views.value.get(activeView.value) ?? views.value.get("axial");
}

/** Fits all views, takes measurements' tools away and the first preset. */
export function resetViews(): void {
  for (const view of views.value.values()) view.reset();
  crosshairs.value = null;
  tool.value = "window";
  takePreset("1");
}

const native: readonly string[] = ["window", "zoom", "pan", "length", "ellipse"];

/** Ties the tool and the selection to the views, as long as a study is open. */
export function tie(): () => void {
  const ends = [
    effect(() => takeTool(native.includes(tool.value) ? (tool.value as NativeTool) : null)),
    effect(() => {
      if (target.value === null) return;
      untracked(() => selected.value && goTo(selected.value.center_xyz_mm as Point));
    }),
    effect(() => {
      void selectedId.value;
      untracked(() => tool.value === "move" && (tool.value = "window"));
    }),
  ];
  return () => ends.forEach((end) => end());
}

/** Opens what was analyzed of the study that is read. */
export async function openStudy(): Promise<void> {
  const facts = study.value;
  if (facts === null || !facts.analyzed_series_uid || series.value?.seriesUid === facts.analyzed_series_uid) return;
  const first = selected.value ?? findings.value[0];
  const shown = first?.series_uid === facts.analyzed_series_uid ? first.sop_instance_uid : null;
  await openSeries(facts.study_uid, facts.analyzed_series_uid, shown ?? null);
}
