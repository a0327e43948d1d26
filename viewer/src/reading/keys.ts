/** Every key and what it does; the help is made from the same table. */

export type Action =
  | "window"
  | "zoom"
  | "pan"
  | "length"
  | "ellipse"
  | "crosshairs"
  | "box"
  | "point"
  | "similar"
  | "add"
  | "move"
  | "next"
  | "previous"
  | "accept"
  | "reject"
  | "reopen"
  | "edit"
  | "slice-up"
  | "slice-down"
  | "ten-up"
  | "ten-down"
  | "first-slice"
  | "last-slice"
  | "zoom-in"
  | "zoom-out"
  | "layout"
  | "outlines"
  | "attention"
  | "prior"
  | "link"
  | "reset"
  | "delete"
  | "jobs"
  | "help"
  | "cancel"
  | "list";

/** A key. */
export interface Key {
  /** As the browser names it; letters small. */
  readonly key: string;
  /** As people write it. */
  readonly shown: string;
  readonly action: Action;
  readonly does: string;
  readonly group: "Findings" | "Similar cases" | "Images" | "Tools" | "Page";
}

const key = (group: Key["group"], name: string, action: Action, does: string, shown = name): Key => ({
  key: name,
  shown,
  action,
  does,
  group,
});

export const KEYS: readonly Key[] = [
  key("Findings", "n", "next", "Next finding"),
  key("Findings", "p", "previous", "Previous finding"),
  key("Findings", "a", "accept", "Accept the finding"),
  key("Findings", "x", "reject", "Reject the finding"),
  key("Findings", "u", "reopen", "Take the judgment back"),
  key("Findings", "d", "edit", "Correct diameter and note"),
  key("Findings", "m", "move", "Move its center: then click"),
  key("Findings", "f", "add", "Add a finding: then click"),
  key("Findings", "o", "outlines", "Show or hide findings on the images"),
  key("Findings", "t", "attention", "Show where the network looks"),
  key("Similar cases", "q", "similar", "Cases like the selected finding"),
  key("Similar cases", "b", "box", "Cases like what a box is drawn around"),
  key("Similar cases", "s", "point", "Cases like what lies at a place: then click"),
  key("Images", "arrowup", "slice-up", "One slice up", "↑"),
  key("Images", "arrowdown", "slice-down", "One slice down", "↓"),
  key("Images", "pageup", "ten-up", "Ten slices up", "PgUp"),
  key("Images", "pagedown", "ten-down", "Ten slices down", "PgDn"),
  key("Images", "home", "first-slice", "First slice", "Home"),
  key("Images", "end", "last-slice", "Last slice", "End"),
  key("Images", "+", "zoom-in", "Zoom in"),
  key("Images", "-", "zoom-out", "Zoom out", "−"),
  key("Images", "v", "layout", "Three planes, or axial alone"),
  key("Images", "y", "prior", "A prior study beside"),
  key("Images", "k", "link", "Link or unlink the prior's scrolling"),
  key("Images", "r", "reset", "Reset views and window"),
  key("Tools", "w", "window", "Window, by dragging"),
  key("Tools", "z", "zoom", "Zoom, by dragging"),
  key("Tools", "h", "pan", "Pan, by dragging"),
  key("Tools", "l", "length", "Measure a length"),
  key("Tools", "e", "ellipse", "Mean and SD of HU in an ellipse"),
  key("Tools", "c", "crosshairs", "Crosshairs through all planes"),
  key("Tools", "delete", "delete", "Remove the selected measurement, or all", "Del"),
  key("Page", "j", "jobs", "Jobs"),
  key("Page", "g", "list", "Back to the list of studies"),
  key("Page", "?", "help", "This help"),
  key("Page", "escape", "cancel", "Close, or leave a tool", "Esc"),
];

const byKey = new Map(KEYS.map((one) => [one.key, one.action]));
const byAction = new Map(KEYS.map((one) => [one.action, one.shown]));

/** What is needed of a keyboard event. */
export interface Pressed {
  readonly key: string;
  readonly ctrlKey: boolean;
  readonly altKey: boolean;
  readonly metaKey: boolean;
}

/** What a pressed key means: an action, the key of a window preset, or nothing. */
export function meaning(pressed: Pressed): Action | { preset: string } | null {
  if (pressed.ctrlKey || pressed.altKey || pressed.metaKey) return null;
  const name = pressed.key.toLowerCase();
  if (/^[0-9]$/.test(name)) return { preset: name };
  return byKey.get(name === "backspace" ? "delete" : name === "=" ? "+" : name) ?? null;
}

/** The key of an action, as people write it. */
export function keyOf(action: Action): string {
  return byAction.get(action) ?? "";
}

/** Whether somebody is writing, so that letters are letters. */
export function isWriting(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (target instanceof HTMLInputElement)
    return !["range", "checkbox", "button", "file", "radio"].includes(target.type);
  return target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement || target.isContentEditable;
}
