/** Questions to the server: JSON in and out, its one sentence where it refuses. */
import { signal } from "@preact/signals";
import type * as t from "./types";

/** A refusal of the server, or that it cannot be reached. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** What changes must repeat; of the session. */
export const csrf = signal("");

/** Whether the server wants a login. */
export const loginWanted = signal(false);

/** The sentence of a refusal, whatever its body is. */
export function sentenceOf(status: number, body: string): string {
  try {
    const told: unknown = JSON.parse(body);
    if (typeof told === "object" && told !== null) {
      const { error, detail } = told as { error?: unknown; detail?: unknown };
      if (typeof error === "string" && error !== "") return error;
      if (typeof detail === "string" && detail !== "") return detail;
    }
  } catch {
    // not JSON: the status speaks
  }
  return status === 413 ? "this is more than the server takes at once" : `the server refused (${status})`;
}

async function asked(method: string, path: string, body?: unknown): Promise<Response> {
  const headers: Record<string, string> = { accept: "application/json" };
  if (method !== "GET") headers["x-csrf-token"] = csrf.value;
  if (body !== undefined) headers["content-type"] = "application/json";
  let response: Response;
  try {
    const given = body === undefined ? {} : { body: JSON.stringify(body) };
    response = await fetch(path, { method, headers, credentials: "same-origin", ...given });
  } catch {
    throw new Refused(0, "the server cannot be reached");
  }
  if (response.status === 401 && !path.endsWith("/login")) loginWanted.value = true;
  if (!response.ok) throw new Refused(response.status, sentenceOf(response.status, await response.text()));
  return response;
}

async function told<T>(method: string, path: string, body?: unknown): Promise<T> {
  return (await (await asked(method, path, body)).json()) as T;
}

const id = encodeURIComponent;

export const me = (): Promise<t.Me> => told("GET", "api/me");
export const login = (name: string, password: string): Promise<t.Me> => told("POST", "api/login", { name, password });
export const logout = (): Promise<Response> => asked("POST", "api/logout");
export const about = (): Promise<t.About> => told("GET", "api/about");
export const audit = (limit: number, before: number | null): Promise<t.AuditEntry[]> =>
  told("GET", `api/audit?limit=${limit}${before === null ? "" : `&before=${before}`}`);
export const studies = (given: Partial<t.StudyQuery>): Promise<t.StudyPage> => told("POST", "api/studies/query", given);
export const study = (uid: string): Promise<t.Study> => told("GET", `api/studies/${id(uid)}`);
export const removeStudy = (uid: string): Promise<Response> => asked("DELETE", `api/studies/${id(uid)}`);
export const analyze = (uid: string): Promise<t.Job> => told("POST", `api/studies/${id(uid)}/analysis`);
export const findings = (uid: string): Promise<t.Finding[]> => told("GET", `api/studies/${id(uid)}/findings`);
export const addFinding = (uid: string, given: t.NewFinding): Promise<t.Finding> =>
  told("POST", `api/studies/${id(uid)}/findings`, given);
export const changeFinding = (finding: string, change: t.FindingChange): Promise<t.Finding> =>
  told("PATCH", `api/findings/${id(finding)}`, change);
export const history = (finding: string): Promise<t.Version[]> => told("GET", `api/findings/${id(finding)}/history`);
export const exportAddress = (uid: string, name: string): string => `api/studies/${id(uid)}/exports/${id(name)}`;
export const send = (uid: string, given: t.Send): Promise<t.Job> => told("POST", `api/studies/${id(uid)}/send`, given);
export const search = (given: t.SearchRequest): Promise<t.SearchAnswer> => told("POST", "api/search", given);
export const jobs = (): Promise<t.Job[]> => told("GET", "api/jobs?limit=50");
export const cancelJob = (job: string): Promise<t.Job> => told("POST", `api/jobs/${id(job)}/cancel`);
export const againJob = (job: string): Promise<t.Job> => told("POST", `api/jobs/${id(job)}/again`);
export const archiveStudies = (name: string, given: Partial<t.ArchiveQuery>): Promise<t.RemoteStudy[]> =>
  told("POST", `api/archives/${id(name)}/query`, given);
export const pull = (source: string, study_uid: string): Promise<t.Job> =>
  told("POST", "api/pull", { source, study_uid });
export const metadata = (path: string): Promise<Record<string, unknown>[]> => told("GET", `dicom-web/${path}`);
