/** Who reads, what runs here, and which part of the page is open. */
import { signal } from "@preact/signals";
import * as client from "../api/client";
import type { About, Me } from "../api/types";
import { complain } from "./toasts";

export const me = signal<Me | null>(null);
export const about = signal<About | null>(null);

/** The study that the address names; null for the list. */
export const openedUid = signal<string | null>(null);

function readAddress(): void {
  const [, uid] = /^#\/study\/([0-9.]+)$/.exec(location.hash) ?? [];
  openedUid.value = uid ?? null;
}

/** Follows the address. */
export function followAddress(): void {
  addEventListener("hashchange", readAddress);
  readAddress();
}

/** The address of a study. */
export function addressOf(uid: string): string {
  return `#/study/${uid}`;
}

/** Opens a study, or the list. */
export function open(uid: string | null): void {
  location.hash = uid === null ? "#/" : addressOf(uid);
}

/** Asks who one is; without a login there is none to ask. */
export async function begin(): Promise<void> {
  try {
    known(await client.me());
    about.value = await client.about();
  } catch (error) {
    if (!client.loginWanted.value) complain(error);
  }
}

function known(user: Me): void {
  // nothing that one user read or typed is left for another
  if (me.value !== null && me.value.name !== user.name) return location.reload();
  me.value = user;
  client.csrf.value = user.csrf;
  client.loginWanted.value = false;
}

/** Logs in. */
export async function logIn(name: string, password: string): Promise<void> {
  known(await client.login(name, password));
  about.value = await client.about();
}

/** Logs out; nothing of what was read stays on the page. */
export async function logOut(): Promise<void> {
  try {
    await client.logout();
  } finally {
    location.hash = "#/";
    location.reload();
  }
}
