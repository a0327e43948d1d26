import { expect, test } from "vitest";
import { KEYS, keyOf, meaning } from "../src/reading/keys";

const press = (key: string, over: object = {}) =>
  meaning({ key, ctrlKey: false, altKey: false, metaKey: false, ...over });

test("no key means two things", () => {
  expect(new Set(KEYS.map((one) => one.key)).size).toBe(KEYS.length);
  expect(new Set(KEYS.map((one) => one.action)).size).toBe(KEYS.length);
});
test("keys mean their actions, large or small", () => {
  expect([press("n"), press("N"), press("ArrowUp"), press("Escape"), press("?")]).toEqual([
    "next",
    "next",
    "slice-up",
    "cancel",
    "help",
  ]);
});
test("numbers are window presets", () => expect(press("3")).toEqual({ preset: "3" }));
test("the browser keeps its own", () =>
  expect([press("r", { ctrlKey: true }), press("f", { metaKey: true }), press("x", { altKey: true })]).toEqual([
    null,
    null,
    null,
  ]));
test("backspace removes, = zooms in", () => expect([press("Backspace"), press("=")]).toEqual(["delete", "zoom-in"]));
test("other keys mean nothing", () => expect(press("ß")).toBeNull());
test("buttons show their key", () => expect(keyOf("accept")).toBe("a"));
