/** Jobs as they go, told by the server. */
import { computed, signal } from "@preact/signals";
import * as client from "../api/client";
import { listen } from "../api/events";
import type { Job } from "../api/types";
import { complain, say } from "./toasts";

const known = signal<ReadonlyMap<string, Job>>(new Map());

/** All that is known, the newest first. */
export const jobs = computed(() => [...known.value.values()].sort((a, b) => b.created_at.localeCompare(a.created_at)));
export const openJobs = computed(() => jobs.value.filter((job) => job.state === "queued" || job.state === "running"));
export const failedJobs = computed(() => jobs.value.filter((job) => job.state === "failed"));
export const drawerShown = signal(false);

type Listener = (job: Job) => void;
const listeners = new Set<Listener>();
const mine = new Set<string>();

/** Calls back when a job ends; gives what stops that. */
export function onEnd(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Remembers that a job was asked for here: its end is told. */
export function follow(job: Job): void {
  mine.add(job.id);
  note(job);
}

function note(job: Job): void {
  const before = known.value.get(job.id);
  known.value = new Map(known.value).set(job.id, job);
  const ended = (state: Job["state"] | undefined): boolean =>
    state === "done" || state === "failed" || state === "cancelled";
  if (!ended(job.state) || (before !== undefined && ended(before.state) && before.state === job.state)) return;
  if (mine.has(job.id)) told(job);
  for (const listener of listeners) listener(job);
}

/** What a job's end is in words. */
function told(job: Job): void {
  mine.delete(job.id);
  if (job.state === "failed") return say(`${nameOf(job)} failed: ${job.message}`, "error");
  if (job.state !== "done") return;
  const refused = list(job.result?.["refused"]);
  const failed = Number(job.result?.["failed"] ?? refused.length);
  for (const id of list(job.result?.["analyses"])) mine.add(id);
  if (failed > 0) return say(`${failed} of the files could not be kept`, "error", refused);
  say(`${nameOf(job)} is done`);
}

function list(value: unknown): string[] {
  return Array.isArray(value) ? value.map(String) : [];
}

/** A job's kind in words. */
export function nameOf(job: Job): string {
  const names: Record<string, string> = {
    import: "The import",
    analyze: "The analysis",
    pull: "Bringing in a study",
    send: "Sending results",
  };
  return names[job.kind] ?? `The job “${job.kind}”`;
}

/** Listens to the server from now on. */
export function followJobs(): () => void {
  return listen(
    "api/jobs/events",
    (sent) => {
      if (sent.event === "job") note(JSON.parse(sent.data) as Job);
    },
    () => void loadJobs(),
  );
}

async function loadJobs(): Promise<void> {
  try {
    const all = await client.jobs();
    known.value = new Map([...all, ...known.value.values()].map((job) => [job.id, job]));
    for (const job of all) if (mine.has(job.id)) note(job);
  } catch (error) {
    complain(error);
  }
}

/** Cancels a job. */
export async function cancel(job: Job): Promise<void> {
  try {
    note(await client.cancelJob(job.id));
  } catch (error) {
    complain(error);
  }
}

/** Asks for a job again. */
export async function again(job: Job): Promise<void> {
  try {
    follow(await client.againJob(job.id));
  } catch (error) {
    complain(error);
  }
}
