/** The study that is read: what the server says of it, which finding is looked at, what is shown over the images. */
import { computed, signal } from "@preact/signals";
import * as client from "../api/client";
import type { Finding, Growth, Study } from "../api/types";
import { gridOf } from "../geometry/grid";
import { unpacked, type Mask } from "../geometry/outline";
import type { Point } from "../geometry/vectors";
import type { HuWindow } from "../imaging/view";

export const study = signal<Study | null>(null);
export const findings = signal<readonly Finding[]>([]);
export const selectedId = signal<string | null>(null);
export const selected = computed(() => findings.value.find((finding) => finding.id === selectedId.value) ?? null);
/** Where views jump to; a new value only with another finding or another center, however often it is told anew. */
export const target = computed(() => {
  const finding = selected.value;
  return finding && `${finding.id} ${finding.center_xyz_mm.join(" ")}`;
});
export const grid = computed(() => {
  const facts = study.value?.geometry;
  return facts ? gridOf(facts) : null;
});

export type Tool = "window" | "zoom" | "pan" | "length" | "ellipse" | "crosshairs" | "box" | "point" | "add" | "move";
export const tool = signal<Tool>("window");
export const layout = signal<"mpr" | "axial" | "compare">("mpr");
export const outlinesShown = signal(true);
export const attentionShown = signal(false);
export const huWindow = signal<HuWindow>({ center: -600, width: 1500 });
export const crosshairs = signal<Point | null>(null);
/** Where the pointer is: the view, and pixels from its corner. */
export const pointer = signal<{ view: string; x: number; y: number } | null>(null);
export const panel = signal<"findings" | "matches">("findings");
export const editing = signal(false);

/** Findings that are not rejected come first; each group by number. */
export const listed = computed(() =>
  [...findings.value].sort(
    (a, b) => Number(a.state === "rejected") - Number(b.state === "rejected") || a.number - b.number,
  ),
);

const masks = new WeakMap<object, Mask>();

/** The outline of a finding, unpacked once. */
export function maskOf(finding: Finding): Mask | null {
  const { outline } = finding;
  if (!outline) return null;
  let mask = masks.get(outline);
  if (mask === undefined) masks.set(outline, (mask = unpacked(outline)));
  return mask;
}

let asked = 0;

/** Asks the server for a study and its findings; false where another was asked for, or it was left, meanwhile. */
export async function load(uid: string): Promise<boolean> {
  const mine = ++asked;
  const [facts, found] = await Promise.all([client.study(uid), client.findings(uid)]);
  if (mine !== asked) return false;
  study.value = facts;
  findings.value = found;
  const first = found.find((finding) => finding.state !== "rejected");
  if (!found.some((finding) => finding.id === selectedId.value)) selectedId.value = first?.id ?? null;
  return true;
}

/** Asks for the findings, and the study's own facts, anew. */
export async function reload(): Promise<void> {
  const uid = study.value?.study_uid;
  if (uid !== undefined) await load(uid);
}

/** Puts what the server says of one finding in its place; one of another study has none. */
export function put(finding: Finding): void {
  if (finding.study_uid !== study.value?.study_uid) return;
  const others = findings.value.filter((one) => one.id !== finding.id);
  findings.value = [...others, finding].sort((a, b) => a.number - b.number);
}

/** Leaves the study. */
export function leave(): void {
  asked++;
  study.value = null;
  findings.value = [];
  selectedId.value = null;
  tool.value = "window";
  layout.value = "mpr";
  crosshairs.value = null;
  pointer.value = null;
  panel.value = "findings";
  editing.value = false;
}

/** What is known of a finding in another study. */
export function growthIn(finding: Finding | null, studyUid: string): Growth | null {
  return finding?.growth.find((one) => one.prior_study_uid === studyUid) ?? null;
}
