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

const hasEnded = (job: Job | undefined): boolean =>
  job?.state === "done" || job?.state === "failed" || job?.state === "cancelled";

/** Jobs that were told of while a list of all was on its way: what the list says of them may be older. */
const heard = new Set<string>();

function note(job: Job): void {
  const before = known.value.get(job.id);
  known.value = new Map(known.value).set(job.id, job);
  heard.add(job.id);
  if (hasEnded(job) && !(hasEnded(before) && before?.state === job.state)) end(job);
}

function end(job: Job): void {
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

/** What is known after a list came: it is newer than all but what was heard meanwhile. Which jobs ended by it, too. */
export function merged(
  before: ReadonlyMap<string, Job>,
  fetched: readonly Job[],
  heardMeanwhile: ReadonlySet<string>,
): { jobs: Map<string, Job>; ended: Job[] } {
  const news = fetched.filter((job) => !heardMeanwhile.has(job.id));
  const ended = news.filter((job) => hasEnded(job) && before.has(job.id) && !hasEnded(before.get(job.id)));
  return { jobs: new Map([...before, ...news.map((job): [string, Job] => [job.id, job])]), ended };
}

async function loadJobs(): Promise<void> {
  heard.clear();
  try {
    const { jobs: all, ended } = merged(known.value, await client.jobs(), heard);
    const unseen = [...all.values()].filter((job) => mine.has(job.id) && hasEnded(job) && !ended.includes(job));
    known.value = all;
    for (const job of [...ended, ...unseen]) end(job);
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
