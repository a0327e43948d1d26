/** Dates, names and numbers as people read them; what is not known is a dash. */

const NONE = "–";

/** Facts of an entry of the log: `{"version": 2, "state": "accepted"}` as `version 2, state accepted`. */
export function details(facts: Readonly<Record<string, unknown>> | null): string {
  return Object.entries(facts ?? {})
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${typeof value === "object" ? JSON.stringify(value) : value}`)
    .join(", ");
}

/** `YYYYMMDD` as `YYYY-MM-DD`; anything else as it is. */
export function date(dicom: string | null | undefined): string {
  const [, year, month, day] = /^(\d{4})(\d{2})(\d{2})$/.exec(dicom ?? "") ?? [];
  return year === undefined ? dicom || NONE : `${year}-${month}-${day}`;
}

/** `YYYY-MM-DD` of a field of the page as `YYYYMMDD`. */
export function toDicomDate(text: string): string {
  return text.replaceAll("-", "");
}

/** A time of the server, in UTC, as the reader's own. */
export function time(iso: string | null | undefined): string {
  const moment = new Date(iso ?? "");
  if (Number.isNaN(moment.getTime())) return NONE;
  const two = (value: number): string => String(value).padStart(2, "0");
  const day = `${moment.getFullYear()}-${two(moment.getMonth() + 1)}-${two(moment.getDate())}`;
  return `${day} ${two(moment.getHours())}:${two(moment.getMinutes())}`;
}

/** A DICOM person name: `Doe^Jane` as `Doe, Jane`. */
export function personName(dicom: string): string {
  const [family = "", given = "", middle = ""] = (dicom.split("=")[0] ?? "").split("^").map((part) => part.trim());
  const first = [given, middle].filter((part) => part !== "").join(" ");
  return [family, first].filter((part) => part !== "").join(", ");
}

/** With so many places after the point, and a true minus. */
export function decimals(value: number | null | undefined, places: number): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  const text = value.toFixed(places);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

/** Millimeters, one place. */
export function mm(value: number | null | undefined): string {
  return value === null || value === undefined ? NONE : `${decimals(value, 1)} mm`;
}

/** A volume, in mm3 up to 10,000, in ml beyond. */
export function volume(mm3: number | null | undefined): string {
  if (mm3 === null || mm3 === undefined) return NONE;
  return mm3 < 10_000 ? `${decimals(mm3, 0)} mm³` : `${decimals(mm3 / 1000, 1)} ml`;
}

/** A probability in percent; whole, with one place below 1 and above 99. */
export function percent(share: number | null | undefined): string {
  if (share === null || share === undefined) return NONE;
  const value = 100 * share;
  return `${decimals(value, (value > 0 && value < 1) || (value > 99 && value < 100) ? 1 : 0)} %`;
}

/** An interval of probabilities in percent. */
export function interval(bounds: readonly [number, number] | null | undefined): string {
  return bounds ? `${decimals(100 * bounds[0], 0)}–${decimals(100 * bounds[1], 0)} %` : "";
}

/** A place, LPS mm. */
export function place(point: readonly [number, number, number]): string {
  return point.map((value) => decimals(value, 1)).join(", ");
}

/** Days in the word people use: days, months or years. */
export function days(value: number): string {
  const size = Math.abs(value);
  if (size < 60) return `${decimals(size, 0)} days`;
  return size < 730 ? `${decimals(size / 30.44, 0)} months` : `${decimals(size / 365.25, 1)} years`;
}

/** A name of a fact with its words apart: `diameter_mm` as `diameter mm`. */
export function words(name: string): string {
  return name.replaceAll("_", " ");
}

/** A count with its noun. */
export function count(n: number, one: string, many = `${one}s`): string {
  return `${n} ${n === 1 ? one : many}`;
}
