/** What a reader says of findings, each change with the version that was seen. */
import { signal } from "@preact/signals";
import * as client from "../api/client";
import type { FindingChange } from "../api/types";
import type { Point } from "../geometry/vectors";
import { follow } from "./jobs";
import { findings, listed, put, reload, selected, selectedId, study, tool } from "./study";
import { complain, say } from "./toasts";

/** Whether a change is on its way. */
export const changing = signal(false);

type Change = Omit<FindingChange, "seen">;

/** Whether nothing is on its way; else says that this must wait. */
function isFree(): boolean {
  if (changing.value) say("The change before is still on its way; this one was not made", "error");
  return !changing.value;
}

/** Changes the selected finding as it was seen; where another came first, says so and shows what it is now. */
export async function change(what: Change, seen = selected.value?.version ?? 0): Promise<boolean> {
  const finding = selected.value;
  if (finding === null || !isFree()) return false;
  changing.value = true;
  try {
    put(await client.changeFinding(finding.id, { seen, ...what }));
    return true;
  } catch (error) {
    complain(error);
    if (error instanceof client.Refused && error.status === 409) await reload().catch(complain);
    return false;
  } finally {
    changing.value = false;
  }
}

/** Accepts the selected finding. */
export async function accept(): Promise<void> {
  const number = selected.value?.number;
  if (await change({ state: "accepted" })) say(`Finding ${number} is accepted`);
}

/** Rejects it. */
export async function reject(): Promise<void> {
  const number = selected.value?.number;
  if (await change({ state: "rejected" })) say(`Finding ${number} is rejected`);
}

/** Takes back what was said of it. */
export async function reopen(): Promise<void> {
  if (selected.value?.state === "proposed") return say("Nothing was said of this finding yet");
  const number = selected.value?.number;
  if (await change({ state: "proposed" })) say(`Finding ${number} is open again`);
}

/** Moves its center; it is outlined, measured and rated anew. */
export async function moveTo(center_xyz_mm: Point): Promise<void> {
  const number = selected.value?.number;
  tool.value = "window";
  if (!changing.value) say("Measuring at the new place …");
  if (await change({ center_xyz_mm })) say(`Finding ${number} is moved`);
}

/** Adds what lies at a place. */
export async function addAt(center_xyz_mm: Point): Promise<void> {
  const facts = study.value;
  tool.value = "window";
  if (!facts?.analyzed_series_uid || !isFree()) return;
  changing.value = true;
  say("Outlining and measuring the new finding …");
  try {
    const added = await client.addFinding(facts.study_uid, {
      series_uid: facts.analyzed_series_uid,
      center_xyz_mm,
      note: "",
    });
    put(added);
    if (study.value?.study_uid === facts.study_uid) selectedId.value = added.id;
    say(`Finding ${added.number} is added`);
  } catch (error) {
    complain(error);
  } finally {
    changing.value = false;
  }
}

/** Selects the next finding, or the one before, around the end. */
export function step(by: 1 | -1): void {
  const all = listed.value;
  if (all.length === 0) return;
  const at = all.findIndex((finding) => finding.id === selectedId.value);
  const next = all[(at + by + all.length) % all.length] ?? all[0];
  if (next !== undefined) selectedId.value = next.id;
}

/** Asks for the study to be analyzed. */
export async function analyze(): Promise<void> {
  const uid = study.value?.study_uid;
  if (uid === undefined) return;
  try {
    follow(await client.analyze(uid));
    say("The analysis has been asked for");
  } catch (error) {
    complain(error);
  }
}

/** How many findings are in each state. */
export function judged(): { accepted: number; rejected: number; open: number } {
  const of = (state: string): number => findings.value.filter((finding) => finding.state === state).length;
  return { accepted: of("accepted"), rejected: of("rejected"), open: of("proposed") };
}
