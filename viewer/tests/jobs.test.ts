import { expect, test } from "vitest";
import type { Job } from "../src/api/types";
import { merged } from "../src/reading/jobs";

const job = (id: string, state: Job["state"]): Job => ({ id, state, created_at: "2026-01-01" }) as unknown as Job;
const states = (jobs: Iterable<Job>) => Object.fromEntries([...jobs].map((one) => [one.id, one.state]));
const known = (...jobs: Job[]) => new Map(jobs.map((one) => [one.id, one]));

test("a list of jobs wins over what was known before, and tells what ended meanwhile", () => {
  const before = known(job("a", "running"), job("b", "done"), job("c", "queued"));
  const { jobs, ended } = merged(before, [job("a", "done"), job("b", "done"), job("c", "running")], new Set());
  expect(states(jobs.values())).toEqual({ a: "done", b: "done", c: "running" });
  expect(ended.map((one) => one.id)).toEqual(["a"]);
});
test("what was heard while the list was on its way is newer than the list", () => {
  const { jobs, ended } = merged(known(job("a", "done")), [job("a", "running")], new Set(["a"]));
  expect([states(jobs.values()), ended]).toEqual([{ a: "done" }, []]);
});
test("jobs that had ended before the page began are no news", () => {
  expect(merged(new Map(), [job("a", "done")], new Set()).ended).toEqual([]);
});
test("jobs that the list has no longer are kept", () => {
  expect(states(merged(known(job("old", "done")), [], new Set()).jobs.values())).toEqual({ old: "done" });
});
