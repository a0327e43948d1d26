import { describe, expect, test } from "vitest";
import { sentenceOf } from "../src/api/client";
import { EventReader } from "../src/api/events";
import * as format from "../src/text/format";

describe("events", () => {
  test("whole events of text that comes in pieces", () => {
    const reader = new EventReader();
    expect(reader.take("event: job\nda")).toEqual([]);
    expect(reader.take('ta: {"id":"1"}\n')).toEqual([]);
    expect(reader.take("\nevent: job\ndata: 2\n\n")).toEqual([
      { event: "job", data: '{"id":"1"}' },
      { event: "job", data: "2" },
    ]);
  });
  test("comments are heartbeats", () => expect(new EventReader().take(": beat\n\n")).toEqual([]));
  test("several lines of data are one text", () =>
    expect(new EventReader().take("data: a\ndata: b\n\n")).toEqual([{ event: "message", data: "a\nb" }]));
  test("other line ends", () =>
    expect(new EventReader().take("event: x\r\ndata: 1\r\n\r\n")).toEqual([{ event: "x", data: "1" }]));
  test("colons in the data stay", () => expect(new EventReader().take("data: a: b\n\n")[0]?.data).toBe("a: b"));
});

describe("refusals", () => {
  test("the server's sentence", () =>
    expect(sentenceOf(409, '{"error": "another came first"}')).toBe("another came first"));
  test("FastAPI's own", () => expect(sentenceOf(404, '{"detail": "Not Found"}')).toBe("Not Found"));
  test("else the status", () => expect(sentenceOf(502, "<html>")).toBe("the server refused (502)"));
});

describe("what people read", () => {
  test("dates", () => {
    expect([format.date("20200131"), format.date(""), format.date(null), format.date("soon")]).toEqual([
      "2020-01-31",
      "–",
      "–",
      "soon",
    ]);
    expect(format.toDicomDate("2020-01-31")).toBe("20200131");
  });
  test("times are the reader's own", () => {
    expect(format.time("2026-11-27T15:00:00Z")).toMatch(/^2026-11-2[678] \d\d:\d\d$/);
    expect(format.time("")).toBe("–");
  });
  test("names", () => {
    expect([
      format.personName("Doe^Jane^Q"),
      format.personName("Doe"),
      format.personName(""),
      format.personName("Yamada^Tarou=山田^太郎"),
    ]).toEqual(["Doe, Jane Q", "Doe", "", "Yamada, Tarou"]);
  });
  test("numbers", () => {
    expect([format.decimals(-1.26, 1), format.decimals(-0.01, 1), format.decimals(null, 1), format.mm(7.04)]).toEqual([
      "−1.3",
      "0.0",
      "–",
      "7.0 mm",
    ]);
    expect([format.volume(8494.8), format.volume(12345), format.volume(null)]).toEqual(["8495 mm³", "12.3 ml", "–"]);
    expect([
      format.percent(0.5),
      format.percent(0.004),
      format.percent(0.996),
      format.percent(1),
      format.percent(0),
    ]).toEqual(["50 %", "0.4 %", "99.6 %", "100 %", "0 %"]);
    expect(format.interval([0.4, 0.934])).toBe("40–93 %");
    expect([format.days(30), format.days(365), format.days(-1000)]).toEqual(["30 days", "12 months", "2.7 years"]);
    expect([format.count(1, "study", "studies"), format.count(3, "file")]).toEqual(["1 study", "3 files"]);
  });
});

test("details of the log are words", () => {
  expect(format.details({ version: 2, lung_rads: "4A", what: ["sr"] })).toBe('version 2, lung rads 4A, what ["sr"]');
  expect(format.details(null)).toBe("");
});
