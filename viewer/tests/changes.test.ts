import { beforeEach, expect, test, vi } from "vitest";
import type { Finding, Study } from "../src/api/types";
import { accept, addAt, change, reject } from "../src/reading/changes";
import { findings, put, selectedId, study, target, tool } from "../src/reading/study";
import { toasts } from "../src/reading/toasts";

const finding = (number: number, over: object = {}): Finding => {
  const plain = { id: `f${number}`, number, study_uid: "1", version: 1, state: "proposed" };
  return { ...plain, center_xyz_mm: [0, 0, number], ...over } as unknown as Finding;
};

/** The server's answers, given when the test says so. */
let asked: { body: Record<string, unknown>; answer: (status: number, told: unknown) => void }[] = [];

beforeEach(() => {
  asked = [];
  vi.stubGlobal("fetch", (_path: string, given: { body?: string }) => {
    return new Promise((resolve) =>
      asked.push({
        body: JSON.parse(given.body ?? "{}") as Record<string, unknown>,
        answer: (status, told) => resolve(new Response(JSON.stringify(told), { status })),
      }),
    );
  });
  study.value = { study_uid: "1", analyzed_series_uid: "1.1" } as unknown as Study;
  findings.value = [finding(1), finding(2)];
  selectedId.value = "f1";
  toasts.value = [];
});
const said = () => toasts.value.map((toast) => toast.text);

test("the message names the finding that was judged, whatever is selected then", async () => {
  const going = accept();
  selectedId.value = "f2";
  asked[0]!.answer(200, finding(1, { state: "accepted", version: 2 }));
  await going;
  expect(said()).toEqual(["Finding 1 is accepted"]);
  expect(findings.value.map((one) => one.state)).toEqual(["accepted", "proposed"]);
});
test("a verdict while another is on its way is refused in words", async () => {
  const going = accept();
  selectedId.value = "f2";
  await reject();
  expect(asked).toHaveLength(1);
  expect(said()[0]).toMatch(/still on its way/);
  asked[0]!.answer(200, finding(1, { state: "accepted", version: 2 }));
  await going;
});
test("a change goes with the version that was seen", async () => {
  const going = change({ note: "x" }, 7);
  expect(asked[0]!.body).toEqual({ seen: 7, note: "x" });
  asked[0]!.answer(200, finding(1, { version: 8 }));
  expect(await going).toBe(true);
});
test("a finding of another study has no place in the list", () => {
  put(finding(3, { study_uid: "2" }));
  expect(findings.value).toHaveLength(2);
});
test("a finding that was added to a study that was left is not selected", async () => {
  const going = addAt([1, 2, 3]);
  study.value = { study_uid: "2" } as unknown as Study;
  asked[0]!.answer(200, finding(3));
  await going;
  expect([selectedId.value, findings.value.length, tool.value]).toEqual(["f1", 2, "window"]);
});
test("views jump to another finding or center, not to the same told anew", () => {
  const before = target.value;
  findings.value = [finding(1, { version: 2, note: "new" }), finding(2)];
  expect(target.value).toBe(before);
  findings.value = [finding(1, { center_xyz_mm: [5, 5, 5] }), finding(2)];
  expect(target.value).not.toBe(before);
});
