/** A study on the screen: images beside what is said of them. */
import { createPortal } from "preact/compat";
import { useEffect, useRef, useState } from "preact/hooks";
import { loginWanted } from "../api/client";
import { forgetMatches } from "../reading/matches";
import { drawerShown, onEnd } from "../reading/jobs";
import { closePrior, prior, tiePrior } from "../reading/prior";
import { closeSeries, lacking, loading, openStudy, series, tie, tryAgain } from "../reading/room";
import { openedUid } from "../reading/session";
import { layout, leave, load, panel, reload, study } from "../reading/study";
import { complain } from "../reading/toasts";
import { date } from "../text/format";
import { Exports } from "./Exports";
import { FindingsPanel } from "./Findings";
import { MatchesPanel } from "./Matches";
import { nameOf } from "./StudyList";
import { Toolbar } from "./Toolbar";
import { ViewFrame } from "./ViewFrame";

export function StudyPage({ uid }: { uid: string }) {
  const [failed, setFailed] = useState("");
  useEffect(() => {
    leaveAll();
    const untie = [tie(), tiePrior()];
    drawerShown.value = false;
    load(uid)
      .then((here) => (here ? openStudy() : undefined))
      .catch((error: unknown) => {
        setFailed(error instanceof Error ? error.message : String(error));
        complain(error);
      });
    const stop = onEnd((job) => {
      if (job.kind === "analyze" && job.study_uid === uid) void reload().then(openStudy).catch(complain);
    });
    return () => {
      stop();
      untie.forEach((end) => end());
      // the page of the next study may be here already, and has then left this one itself
      if (openedUid.value === null || openedUid.value === uid) leaveAll();
    };
  }, [uid]);
  const wasAway = useRef(false);
  useEffect(() => {
    if (wasAway.current && !loginWanted.value) {
      // what failed because the session had ended
      setFailed("");
      const here = study.value === null ? load(uid) : Promise.resolve(true);
      here
        .then((isHere) => (isHere ? openStudy() : undefined))
        .then(tryAgain)
        .catch(complain);
    }
    wasAway.current = loginWanted.value;
  }, [loginWanted.value]);
  return (
    <main class={`study ${layout.value}`} aria-label="Study">
      <StudyLine />
      <Toolbar />
      <section class="images" data-images aria-label="Images">
        <ViewFrame id="axial" plane="axial" />
        {layout.value === "mpr" && <ViewFrame id="coronal" plane="coronal" />}
        {layout.value === "mpr" && <ViewFrame id="sagittal" plane="sagittal" />}
        {layout.value === "compare" && <ViewFrame id="prior" plane="axial" />}
        {loading.value !== "" && (
          <p class="loading" role="status">
            {loading.value}
          </p>
        )}
        {study.value?.analyzed_series_uid === null && (
          <p class="loading">This study has no CT series that could be shown.</p>
        )}
        {failed !== "" && (
          <p class="loading wrong" role="alert">
            {failed}
          </p>
        )}
        <Lacking />
      </section>
      <Panel />
    </main>
  );
}

/** Says which share of the slices could not be loaded. */
function Lacking() {
  const [asking, setAsking] = useState(false);
  const [some, all] = [lacking.value.length, series.value?.slices.length ?? 0];
  if (some === 0 && !asking) return null;
  const again = (): void => {
    setAsking(true);
    tryAgain()
      .catch(complain)
      .finally(() => setAsking(false));
  };
  return (
    <p class="loading lacking wrong" role="alert" data-testid="lacking">
      {some} of {all} slices could not be loaded.{" "}
      <button type="button" disabled={asking} onClick={again} data-testid="lacking-again">
        {asking ? "Asking …" : "Try again"}
      </button>
    </p>
  );
}

function leaveAll(): void {
  closePrior();
  closeSeries();
  forgetMatches();
  leave();
}

function StudyLine() {
  const facts = study.value;
  const place = document.getElementById("study-line");
  if (place === null) return null;
  return createPortal(
    facts === null ? null : (
      <span class="study-line" data-testid="study-line">
        <strong>{nameOf(facts)}</strong>
        <span class="quiet">
          {" "}
          {nameOf(facts) !== facts.patient_id && `${facts.patient_id} · `}
          {date(facts.study_date)} · {facts.description || facts.modalities.join(", ")}
        </span>
        {prior.value && <span class="quiet"> · beside {date(prior.value.study.study_date)}</span>}
      </span>
    ),
    place,
  );
}

function Panel() {
  const tab = (name: "findings" | "matches", label: string) => (
    <button
      type="button"
      role="tab"
      id={`tab-${name}`}
      aria-selected={panel.value === name}
      aria-controls="panel"
      data-testid={`tab-${name}`}
      onClick={() => (panel.value = name)}
    >
      {label}
    </button>
  );
  return (
    <aside class="panel" aria-label="Findings and similar cases">
      <div class="tabs">
        <div class="tab-list" role="tablist" aria-label="What is said">
          {tab("findings", "Findings")}
          {tab("matches", "Similar cases")}
        </div>
        <Exports />
      </div>
      <div id="panel" role="tabpanel" aria-labelledby={`tab-${panel.value}`} class="panel-body">
        {panel.value === "findings" ? <FindingsPanel /> : <MatchesPanel />}
      </div>
    </aside>
  );
}
