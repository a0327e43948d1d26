/** The list of studies: what is looked for, the page that is shown, and what is sent in. */
import { signal } from "@preact/signals";
import * as client from "../api/client";
import type { StudyPage } from "../api/types";
import { upload, type Given } from "../api/upload";
import { toDicomDate } from "../text/format";
import { drawerShown, follow } from "./jobs";
import { complain, say } from "./toasts";

export const PAGE = 50;
export const text = signal("");
export const from = signal("");
export const until = signal("");
export const offset = signal(0);
export const page = signal<StudyPage | null>(null);
export const marked = signal(0);
export const listing = signal(false);

let last = 0;

/** Asks for the page that is looked for. */
export async function list(): Promise<void> {
  const mine = ++last;
  listing.value = true;
  try {
    const found = await client.studies({
      text: text.value.trim(),
      date_from: toDicomDate(from.value),
      date_to: toDicomDate(until.value),
      limit: PAGE,
      offset: offset.value,
    });
    if (mine !== last) return;
    page.value = found;
    marked.value = Math.max(0, Math.min(marked.value, found.studies.length - 1));
  } catch (error) {
    if (mine === last) complain(error);
  } finally {
    if (mine === last) listing.value = false;
  }
}

/** How far the upload is, 0 to 1; null for none. */
export const sending = signal<{ share: number; files: number; stop: () => void } | null>(null);

/** Sends files to the server. */
export async function sendIn(files: readonly Given[]): Promise<void> {
  if (files.length === 0) return say("There is no file in what was given", "error");
  if (sending.value !== null) return say("Another upload is on its way", "error");
  const { done, stop } = upload(files, (share) => {
    if (sending.value !== null) sending.value = { ...sending.value, share };
  });
  sending.value = { share: 0, files: files.length, stop };
  try {
    follow(await done);
    drawerShown.value = true;
  } catch (error) {
    complain(error);
  } finally {
    sending.value = null;
  }
}
