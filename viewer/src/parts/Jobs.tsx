/** The drawer of jobs: what runs, what failed, what can be asked again. */
import { useEffect, useRef } from "preact/hooks";
import type { Job } from "../api/types";
import { again, cancel, drawerShown, jobs, nameOf } from "../reading/jobs";
import { addressOf } from "../reading/session";
import { time } from "../text/format";

export function Jobs() {
  const closing = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    const before = document.activeElement;
    closing.current?.focus();
    return () => before instanceof HTMLElement && before.focus();
  }, []);
  return (
    <aside class="drawer" aria-label="Jobs" data-testid="jobs-drawer">
      <header>
        <h2>Jobs</h2>
        <button ref={closing} type="button" aria-label="Close" onClick={() => (drawerShown.value = false)}>
          ✕
        </button>
      </header>
      {jobs.value.length === 0 && <p class="quiet">Nothing has been asked for yet.</p>}
      <ul>
        {jobs.value.slice(0, 50).map((job) => (
          <Row key={job.id} job={job} />
        ))}
      </ul>
    </aside>
  );
}

function Row({ job }: { job: Job }) {
  const refused = Array.isArray(job.result?.["refused"]) ? job.result["refused"].map(String) : [];
  const isOpen = job.state === "queued" || job.state === "running";
  const isWrong = job.state === "failed" || (job.state === "queued" && job.tries > 0);
  return (
    <li class={`job ${job.state}`} data-testid="job-row" data-state={job.state}>
      <div class="job-line">
        <strong>
          {nameOf(job)
            .replace(/^The /, "")
            .replace(/^./, (letter) => letter.toUpperCase())}
        </strong>
        <span class={`state ${job.state}`}>{job.state}</span>
      </div>
      {isOpen && <progress max={1} value={job.progress} aria-label={`Progress of ${nameOf(job)}`} />}
      {job.message !== "" && (
        <p class={isWrong ? "wrong" : "quiet"}>
          {isOpen && isWrong && "Will be tried again: "}
          {job.message}
        </p>
      )}
      {refused.length > 0 && (
        <details>
          <summary>{refused.length} files refused</summary>
          <ul>
            {refused.map((line, number) => (
              <li key={number}>{line}</li>
            ))}
          </ul>
        </details>
      )}
      <div class="job-line quiet">
        <span>
          {time(job.ended_at ?? job.started_at ?? job.created_at)}, by {job.created_by}
        </span>
        <span>
          {job.study_uid && <a href={addressOf(job.study_uid)}>Open study</a>}
          {isOpen && (
            <button type="button" onClick={() => void cancel(job)} data-testid="job-cancel">
              Cancel
            </button>
          )}
          {(job.state === "failed" || job.state === "cancelled") && (
            <button type="button" onClick={() => void again(job)} data-testid="job-again">
              Again
            </button>
          )}
        </span>
      </div>
    </li>
  );
}
