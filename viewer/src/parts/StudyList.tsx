/** The list of studies. */
import { useEffect, useRef } from "preact/hooks";
import { loginWanted } from "../api/client";
import type { StudySummary } from "../api/types";
import { engine } from "../imaging/engine";
import { jobs, onEnd } from "../reading/jobs";
import { about, addressOf, open } from "../reading/session";
import { from, list, listing, marked, offset, page, PAGE, text, until } from "../reading/worklist";
import { count, date, percent, personName } from "../text/format";
import { archiveShown, ArchiveDialog } from "./Archive";
import { UploadZone } from "./Upload";

export function StudyList() {
  useEffect(() => {
    void list().then(engine);
    return onEnd(() => void list());
  }, []);
  const wasAway = useRef(false);
  useEffect(() => {
    if (wasAway.current && !loginWanted.value) void list();
    wasAway.current = loginWanted.value;
  }, [loginWanted.value]);
  return (
    <UploadZone>
      <main class="list" aria-label="Studies">
        <Filters />
        <Table />
        <Pages />
      </main>
      {archiveShown.value && <ArchiveDialog />}
    </UploadZone>
  );
}

function Filters() {
  const late = useRef<number | undefined>(undefined);
  const changed = (): void => {
    offset.value = 0;
    clearTimeout(late.current);
    late.current = window.setTimeout(() => void list(), 250);
  };
  return (
    <form class="filters" role="search" onSubmit={(event) => (event.preventDefault(), void list())}>
      <label class="wide">
        Search
        <input
          type="search"
          maxLength={100}
          placeholder="Name, ID, description, accession number"
          value={text.value}
          data-testid="search-text"
          onInput={(event) => ((text.value = event.currentTarget.value), changed())}
        />
      </label>
      <label>
        From
        <input
          type="date"
          value={from.value}
          data-testid="date-from"
          onInput={(event) => ((from.value = event.currentTarget.value), changed())}
        />
      </label>
      <label>
        Until
        <input
          type="date"
          value={until.value}
          data-testid="date-to"
          onInput={(event) => ((until.value = event.currentTarget.value), changed())}
        />
      </label>
      {(about.value?.sources.length ?? 0) > 0 && (
        <button type="button" data-testid="open-archive" onClick={() => (archiveShown.value = true)}>
          From an archive …
        </button>
      )}
    </form>
  );
}

function Table() {
  const rows = page.value?.studies ?? [];
  const body = useRef<HTMLTableSectionElement>(null);
  const mark = (at: number): void => {
    marked.value = Math.max(0, Math.min(rows.length - 1, at));
    (body.current?.children[marked.value] as HTMLElement | undefined)?.focus();
  };
  const pressed = (event: KeyboardEvent, at: number): void => {
    const to: Record<string, () => void> = {
      ArrowDown: () => mark(at + 1),
      ArrowUp: () => mark(at - 1),
      Home: () => mark(0),
      End: () => mark(rows.length - 1),
      Enter: () => open(rows[at]?.study_uid ?? null),
    };
    if (to[event.key] === undefined) return;
    event.preventDefault();
    to[event.key]?.();
  };
  if (page.value !== null && rows.length === 0) {
    const looked = text.value !== "" || from.value !== "" || until.value !== "";
    return (
      <p class="empty" data-testid="empty">
        {looked ? "No study is like this." : "No studies yet. Drop a folder of DICOM files or a zip here."}
      </p>
    );
  }
  return (
    <div class="table-box" aria-busy={listing.value}>
      <table>
        <thead>
          <tr>
            <th>Patient</th>
            <th>Date</th>
            <th>Description</th>
            <th class="number">Images</th>
            <th class="number">Findings</th>
            <th class="number">Malignancy</th>
            <th>Lung-RADS</th>
            <th>Analysis</th>
          </tr>
        </thead>
        <tbody ref={body}>
          {rows.map((row, at) => (
            <tr
              key={row.study_uid}
              tabIndex={at === marked.value ? 0 : -1}
              data-testid="study-row"
              data-uid={row.study_uid}
              aria-label={`${nameOf(row)}, ${date(row.study_date)}`}
              onKeyDown={(event) => pressed(event, at)}
              onFocus={() => (marked.value = at)}
              onClick={() => open(row.study_uid)}
            >
              <Cells row={row} />
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** How a study is named to people. */
export function nameOf(row: StudySummary): string {
  return personName(row.patient_name) || row.patient_id || "No name";
}

function Cells({ row }: { row: StudySummary }) {
  const risk = row.highest_malignancy;
  return (
    <>
      <td>
        <a href={addressOf(row.study_uid)} tabIndex={-1} onClick={(event) => event.stopPropagation()}>
          {nameOf(row)}
        </a>
        {nameOf(row) !== row.patient_id && <div class="quiet">{row.patient_id}</div>}
      </td>
      <td>{date(row.study_date)}</td>
      <td>
        {row.description || (
          <span class="quiet">
            {row.modalities.join(", ")} {row.body_part.toLowerCase()}
          </span>
        )}
      </td>
      <td class="number">{row.instances}</td>
      <td class="number">{row.analysis === null ? "–" : row.findings}</td>
      <td class="number">
        {risk === null ? (
          "–"
        ) : (
          <span class={`risk ${risk >= 0.65 ? "high" : risk >= 0.05 ? "middle" : "low"}`}>{percent(risk)}</span>
        )}
      </td>
      <td>{row.lung_rads ? <span class="category">{row.lung_rads}</span> : "–"}</td>
      <td>
        <AnalysisState row={row} />
      </td>
    </>
  );
}

function AnalysisState({ row }: { row: StudySummary }) {
  const live = jobs.value.find((job) => job.kind === "analyze" && job.study_uid === row.study_uid);
  const newer = live !== undefined && (live.id === row.job_id || live.state === "queued" || live.state === "running");
  const state = newer ? live.state : row.analysis;
  if (state === null) return <span class="quiet">none</span>;
  if (state === "running" && live) {
    return (
      <span title={live.message} data-testid="analysis-state">
        <progress max={1} value={live.progress} aria-label={live.message || "Analysis"} /> {percent(live.progress)}
      </span>
    );
  }
  return (
    <span class={`state ${state}`} data-testid="analysis-state" title={live?.message ?? ""}>
      {state}
    </span>
  );
}

function Pages() {
  const total = page.value?.total ?? 0;
  const shown = page.value?.studies.length ?? 0;
  const go = (by: number): void => {
    offset.value = Math.max(0, offset.value + by * PAGE);
    marked.value = 0;
    void list();
  };
  return (
    <nav class="pages" aria-label="Pages">
      <button type="button" disabled={offset.value === 0} onClick={() => go(-1)} data-testid="page-back">
        Back
      </button>
      <span data-testid="total" aria-live="polite">
        {shown === 0 ? "" : `${offset.value + 1}–${offset.value + shown} of `}
        {count(total, "study", "studies")}
      </span>
      <button type="button" disabled={offset.value + shown >= total} onClick={() => go(1)} data-testid="page-on">
        Next
      </button>
    </nav>
  );
}
