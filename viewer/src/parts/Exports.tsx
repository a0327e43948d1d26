/** What can be had of a study: reports, SR, SEG, tables; and sending them to an archive. */
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import * as client from "../api/client";
import { analyze } from "../reading/changes";
import { follow } from "../reading/jobs";
import { about, me, open } from "../reading/session";
import { study } from "../reading/study";
import { complain, say } from "../reading/toasts";

const NAMES: Record<string, string> = {
  "report.html": "Report to read and print",
  "report.json": "Report for programs",
  "findings.csv": "Table of findings",
  "sr.dcm": "DICOM structured report",
  "seg.dcm": "DICOM segmentation",
};

export function Exports() {
  const [shown, setShown] = useState(false);
  const menu = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  useLayoutEffect(() => {
    if (!shown) return;
    const away = (event: Event): void => {
      if (
        event instanceof KeyboardEvent
          ? event.key !== "Tab" && event.key !== "Enter" && event.key !== " "
          : !menu.current?.contains(event.target as Node)
      )
        setShown(false);
      if (event instanceof KeyboardEvent && event.key === "Escape") {
        event.preventDefault();
        event.stopPropagation();
        button.current?.focus();
      }
    };
    addEventListener("pointerdown", away);
    addEventListener("keydown", away, true);
    return () => (removeEventListener("pointerdown", away), removeEventListener("keydown", away, true));
  }, [shown]);
  const facts = study.value;
  if (facts === null) return null;
  return (
    <div class="menu" ref={menu}>
      <button
        ref={button}
        type="button"
        aria-expanded={shown}
        aria-haspopup="true"
        data-testid="exports-button"
        onClick={() => setShown(!shown)}
      >
        Export ▾
      </button>
      {shown && (
        <div
          class="menu-list"
          data-takes-escape
          data-testid="exports-menu"
          onClick={(event) => event.target instanceof Element && event.target.closest("a") && setShown(false)}
        >
          {facts.exports.map((name) => (
            <a
              key={name}
              href={client.exportAddress(facts.study_uid, name)}
              data-testid="export-link"
              {...(name.endsWith(".html") ? { target: "_blank", rel: "noreferrer" } : { download: name })}
            >
              {NAMES[name] ?? name} <span class="quiet">{name}</span>
            </a>
          ))}
          {facts.exports.length === 0 && <p class="quiet">Nothing can be exported before an analysis.</p>}
          {about.value?.destinations.map((name) => (
            <SendButton key={name} destination={name} uid={facts.study_uid} />
          ))}
          {about.value?.second_viewer && (
            <a href={`ohif/viewer?StudyInstanceUIDs=${facts.study_uid}`} target="_blank" rel="noreferrer">
              Open in OHIF
            </a>
          )}
          <hr />
          <button type="button" onClick={() => (setShown(false), void analyze())}>
            Analyze again
          </button>
          {me.value?.role === "admin" && <Remove uid={facts.study_uid} />}
        </div>
      )}
    </div>
  );
}

function SendButton({ destination, uid }: { destination: string; uid: string }) {
  const send = async (): Promise<void> => {
    try {
      follow(await client.send(uid, { destination, what: ["sr", "seg"] }));
      say(`The results are on their way to ${destination}`);
    } catch (error) {
      complain(error);
    }
  };
  return (
    <button type="button" data-testid="send" onClick={() => void send()}>
      Send SR and SEG to {destination}
    </button>
  );
}

function Remove({ uid }: { uid: string }) {
  const [sure, setSure] = useState(false);
  const remove = async (): Promise<void> => {
    if (!sure) return setSure(true);
    try {
      await client.removeStudy(uid);
      say("The study is removed");
      open(null);
    } catch (error) {
      complain(error);
    }
  };
  return (
    <button type="button" class="bad" onClick={() => void remove()}>
      {sure ? "Really remove it, with all findings" : "Remove the study …"}
    </button>
  );
}
