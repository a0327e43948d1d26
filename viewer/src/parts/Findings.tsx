/** The findings of the study: a list, and all that is said of the selected one. */
import { useEffect, useRef } from "preact/hooks";
import type { Finding } from "../api/types";
import type { Point } from "../geometry/vectors";
import { analyze, changing, judged } from "../reading/changes";
import { openPrior, prior } from "../reading/prior";
import { jobs } from "../reading/jobs";
import { goTo } from "../reading/room";
import { editing, findings, listed, selected, selectedId, study } from "../reading/study";
import { date, decimals, mm, percent } from "../text/format";
import { EditFinding } from "./EditFinding";
import { FindingDetails } from "./FindingDetails";
import { History } from "./History";
import { ActionButton, ShareBar } from "./ui";

export function FindingsPanel() {
  const { accepted, rejected, open } = judged();
  return (
    <>
      <Standing />
      {findings.value.length > 0 && (
        <p class="quiet judged" data-testid="judged">
          {open} open, {accepted} accepted, {rejected} rejected
        </p>
      )}
      <ul class="findings" role="listbox" aria-label="Findings">
        {listed.value.map((finding) => (
          <Row key={finding.id} finding={finding} />
        ))}
      </ul>
      {selected.value !== null && <Selected finding={selected.value} />}
      <Others />
    </>
  );
}

function Standing() {
  const facts = study.value;
  if (facts === null) return null;
  const live = jobs.value.find(
    (job) =>
      job.kind === "analyze" &&
      job.study_uid === facts.study_uid &&
      (job.state === "running" || job.state === "queued"),
  );
  const none =
    facts.analysis === null
      ? "This study was not analyzed yet."
      : facts.analysis === "failed"
        ? "The analysis failed."
        : "No nodules were found.";
  return (
    <>
      {live && (
        <p role="status">
          <progress max={1} value={live.progress} aria-label="Analysis" /> {live.message || live.state}
        </p>
      )}
      {!live && findings.value.length === 0 && (
        <p class="empty">
          {none}{" "}
          <button type="button" onClick={() => void analyze()} data-testid="analyze">
            Analyze
          </button>
        </p>
      )}
      {facts.warnings.length > 0 && (
        <details class="warnings" data-testid="warnings">
          <summary>{facts.warnings.length === 1 ? "One warning" : `${facts.warnings.length} warnings`}</summary>
          <ul>
            {facts.warnings.map((warning, number) => (
              <li key={number}>{warning}</li>
            ))}
          </ul>
        </details>
      )}
    </>
  );
}

function Row({ finding }: { finding: Finding }) {
  const chosen = finding.id === selectedId.value;
  const element = useRef<HTMLLIElement>(null);
  useEffect(() => {
    if (chosen) element.current?.scrollIntoView({ block: "nearest" });
  }, [chosen]);
  const risk = finding.malignancy;
  /** Selecting jumps to it; so does choosing it once more, after one has scrolled away. */
  const choose = (): void => {
    if (chosen) goTo(finding.center_xyz_mm as Point);
    selectedId.value = finding.id;
  };
  const pressed = (event: KeyboardEvent): void => {
    const beside =
      event.key === "ArrowDown"
        ? element.current?.nextElementSibling
        : event.key === "ArrowUp"
          ? element.current?.previousElementSibling
          : null;
    if (event.key === "Enter" || event.key === " ") choose();
    else if (!(beside instanceof HTMLElement)) return;
    else {
      beside.focus();
      selectedId.value = beside.dataset["id"] ?? selectedId.value;
    }
    event.preventDefault();
  };
  return (
    <li
      ref={element}
      class={`row ${finding.state} ${chosen ? "chosen" : ""}`}
      role="option"
      aria-selected={chosen}
      tabIndex={chosen ? 0 : -1}
      data-testid="finding-row"
      data-id={finding.id}
      data-state={finding.state}
      onKeyDown={pressed}
      onClick={choose}
    >
      <span class="number-tag">{finding.number}</span>
      <span class="row-size">
        {finding.long_axis_mm && finding.short_axis_mm
          ? `${decimals(finding.long_axis_mm, 1)} × ${mm(finding.short_axis_mm)}`
          : mm(finding.diameter_mm)}
      </span>
      <span class="row-risk">
        {risk && (
          <>
            <ShareBar label="Malignancy" share={risk.probability} bounds={risk.interval} tone="risk" />
            <span>{percent(risk.probability)}</span>
          </>
        )}
      </span>
      <span class="category">{finding.lung_rads?.category ?? "–"}</span>
      <span class={`state ${finding.state}`}>{finding.state}</span>
    </li>
  );
}

function Selected({ finding }: { finding: Finding }) {
  return (
    <section
      class="selected"
      aria-label={`Finding ${finding.number}`}
      aria-busy={changing.value}
      data-testid="finding-details"
    >
      <div class="verdict">
        <ActionButton
          action="accept"
          label="Accept"
          kind="good"
          on={finding.state === "accepted"}
          off={changing.value}
        />
        <ActionButton
          action="reject"
          label="Reject"
          kind="bad"
          on={finding.state === "rejected"}
          off={changing.value}
        />
        <ActionButton action="reopen" label="Undo" off={finding.state === "proposed" || changing.value} />
        <ActionButton action="edit" label="Correct" on={editing.value} />
        <ActionButton action="similar" label="Similar cases" />
      </div>
      {editing.value && <EditFinding key={finding.id} finding={finding} />}
      <FindingDetails finding={finding} />
      <History finding={finding} />
    </section>
  );
}

function Others() {
  const others = study.value?.priors ?? [];
  if (others.length === 0) return null;
  return (
    <section class="priors" aria-label="Other studies of the patient">
      <h3>Other studies of the patient</h3>
      <ul>
        {others.map((other) => (
          <li key={other.study_uid}>
            <button
              type="button"
              data-testid="prior-row"
              aria-pressed={prior.value?.study.study_uid === other.study_uid}
              onClick={() => void openPrior(other.study_uid)}
            >
              {date(other.study_date)} {other.description} <span class="quiet">{other.findings} findings</span>
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}
