/** What actions do, from keys and from buttons alike. */
import { signal } from "@preact/signals";
import { loginWanted } from "../api/client";
import type { Point } from "../geometry/vectors";
import { removeMeasurements, removeSelectedMeasurements } from "../imaging/engine";
import { accept, reject, reopen, step } from "./changes";
import { drawerShown } from "./jobs";
import { type Action, isWriting, meaning } from "./keys";
import { askOfFinding } from "./matches";
import { placeByKey } from "./placing";
import { closePrior, openPrior, prior, toggleLink } from "./prior";
import { goTo, keyView, resetViews, takePreset, views } from "./room";
import { open } from "./session";
import {
  attentionShown,
  crosshairs,
  editing,
  layout,
  outlinesShown,
  panel,
  pointer,
  selected,
  study,
  tool,
  type Tool,
} from "./study";
import { say } from "./toasts";

export const helpShown = signal(false);

const TOOLS: readonly string[] = [
  "window",
  "zoom",
  "pan",
  "length",
  "ellipse",
  "crosshairs",
  "box",
  "point",
  "add",
  "move",
];

/** Does what an action says; a study must be open for most. */
export function act(action: Action): void {
  if (action === "help") helpShown.value = !helpShown.value;
  else if (action === "jobs") drawerShown.value = !drawerShown.value;
  else if (action === "cancel") cancel();
  else if (study.value === null) return;
  else if (TOOLS.includes(action)) take(action as Tool);
  else inStudy(action);
}

function take(wanted: Tool): void {
  if (wanted === "move" && selected.value === null) return say("Select a finding first", "error");
  const back = wanted === tool.value && wanted !== "window";
  tool.value = back ? "window" : wanted;
  if (back && wanted === "crosshairs") crosshairs.value = null;
  if (tool.value === "crosshairs" && crosshairs.value === null) {
    crosshairs.value = (selected.value?.center_xyz_mm as Point) ?? views.value.get("axial")?.frame()?.middle ?? null;
    if (crosshairs.value !== null) goTo(crosshairs.value);
  }
}

function inStudy(action: Action): void {
  const view = keyView();
  const doing: Partial<Record<Action, () => unknown>> = {
    next: () => step(1),
    previous: () => step(-1),
    accept,
    reject,
    reopen,
    edit: () => ((editing.value = selected.value !== null && !editing.value), (panel.value = "findings")),
    similar: askOfFinding,
    outlines: () => (outlinesShown.value = !outlinesShown.value),
    attention: toggleAttention,
    "slice-up": () => view?.scroll(-1),
    "slice-down": () => view?.scroll(1),
    "ten-up": () => view?.scroll(-10),
    "ten-down": () => view?.scroll(10),
    "first-slice": () => view?.goToSlice(0),
    "last-slice": () => view?.goToSlice(view.slice.value.of - 1),
    "zoom-in": () => view?.zoom(1.25),
    "zoom-out": () => view?.zoom(0.8),
    layout: () => (layout.value = layout.value === "mpr" ? "axial" : "mpr"),
    prior: togglePrior,
    link: () => prior.value !== null && toggleLink(),
    reset: resetViews,
    delete: () => removeSelectedMeasurements() || clear(),
    list: () => open(null),
  };
  void doing[action]?.();
}

function clear(): void {
  const facts = study.value;
  if (facts !== null) removeMeasurements(facts.study_uid, facts.geometry?.frame_of_reference_uid);
}

function toggleAttention(): void {
  if (!selected.value?.attention) return say("No network's attention is known of this finding", "error");
  attentionShown.value = !attentionShown.value;
  const { row_end_xyz_mm: end, column_end_xyz_mm: below } = selected.value.attention;
  const middle = end.map((value, axis) => (value + (below[axis] ?? value)) / 2) as Point;
  if (attentionShown.value) goTo(middle);
}

function togglePrior(): void {
  if (prior.value !== null) return closePrior();
  const other = study.value?.priors[0];
  if (other === undefined) return say("The patient has no other study here", "error");
  void openPrior(other.study_uid);
}

function cancel(): void {
  if (helpShown.value) helpShown.value = false;
  else if (drawerShown.value) drawerShown.value = false;
  else if (editing.value) editing.value = false;
  else if (tool.value !== "window" || crosshairs.value !== null) {
    tool.value = "window";
    crosshairs.value = null;
  }
}

/** Listens to the keyboard, before the images' own tools do. */
export function followKeys(): () => void {
  const pressed = (event: KeyboardEvent): void => {
    if (loginWanted.value || isWriting(event.target) || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape" && document.querySelector("[data-takes-escape]")) return;
    if (isPlacing(event)) {
      event.preventDefault();
      event.stopPropagation();
      return;
    }
    const action = meaning(event);
    if (action === null) return;
    if (typeof action === "object") {
      if (study.value !== null && takePreset(action.preset)) event.preventDefault();
      return;
    }
    const scrolls = /^(slice|ten|first|last)/.test(action);
    if (scrolls && (study.value === null || !isForImages(event.target))) return;
    event.preventDefault();
    event.stopPropagation();
    act(action);
  };
  addEventListener("keydown", pressed, true);
  return () => removeEventListener("keydown", pressed, true);
}

/** Uses a tool that needs a place, from the keyboard on a focused view; whether it did. */
function isPlacing(event: KeyboardEvent): boolean {
  if (event.ctrlKey || event.altKey || event.metaKey || study.value === null) return false;
  if (!(event.target instanceof Element) || !event.target.matches(".pixels")) return false;
  const view = [...views.value.values()].find((one) => one.element === event.target);
  return view !== undefined && placeByKey(view, event.key, event.shiftKey);
}

/** Whether arrows are meant for the images: not for a slider, nor for the panel unless the pointer is on an image. */
function isForImages(target: EventTarget | null): boolean {
  if (!(target instanceof Element)) return true;
  return !target.matches("input, summary") && (pointer.value !== null || target.closest(".panel, .drawer") === null);
}
