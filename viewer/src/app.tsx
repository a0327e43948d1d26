/** The page as a whole: header, the open part, messages. */
import { useEffect } from "preact/hooks";
import { loginWanted } from "./api/client";
import { AuditLog, auditShown } from "./parts/AuditLog";
import { Help } from "./parts/Help";
import { Jobs } from "./parts/Jobs";
import { Login } from "./parts/Login";
import { StudyList } from "./parts/StudyList";
import { StudyPage } from "./parts/StudyPage";
import { Toasts } from "./parts/Toasts";
import { act, followKeys, helpShown } from "./reading/actions";
import { drawerShown, failedJobs, followJobs, openJobs } from "./reading/jobs";
import { about, logOut, me, openedUid } from "./reading/session";

const DISCLAIMER = "Research software, not a medical device. Not for diagnosis, treatment or triage.";

export function App() {
  useEffect(followKeys, []);
  const away = loginWanted.value;
  const inside = me.value !== null && !away;
  useEffect(() => (inside ? followJobs() : undefined), [inside]);
  useEffect(() => {
    // an open dialog would keep the form that asks who one is from being used
    if (away) for (const dialog of document.querySelectorAll("dialog")) dialog.close();
  }, [away]);
  return (
    <>
      <Header inside={inside} />
      {away && <Login />}
      {me.value !== null && (
        // what was typed stays while a session that ended is begun anew
        <div style={{ display: away ? "none" : "contents" }}>
          {openedUid.value ? <StudyPage key={openedUid.value} uid={openedUid.value} /> : <StudyList />}
        </div>
      )}
      {inside && drawerShown.value && <Jobs />}
      {inside && auditShown.value && <AuditLog />}
      {helpShown.value && <Help />}
      <Toasts />
      <footer>
        <p role="note" data-testid="disclaimer">
          {about.value?.disclaimer ?? DISCLAIMER}
        </p>
      </footer>
    </>
  );
}

function Header({ inside }: { inside: boolean }) {
  const [going, failed] = [openJobs.value.length, failedJobs.value.length];
  return (
    <header class="top">
      <a class="brand" href="#/" aria-label="Spicula, list of studies">
        Spicula
      </a>
      <span class="grow" id="study-line" style={{ visibility: inside ? "visible" : "hidden" }} />
      {inside && (
        <>
          <button type="button" data-testid="jobs-button" aria-expanded={drawerShown.value} onClick={() => act("jobs")}>
            Jobs {going > 0 && <span class="badge">{going}</span>}
            {failed > 0 && <span class="badge bad">{failed}</span>}
          </button>
          {me.value?.role === "admin" && (
            <button type="button" onClick={() => (auditShown.value = true)} data-testid="audit-button">
              Log
            </button>
          )}
          <button type="button" onClick={() => act("help")} aria-label="Help" data-testid="help-button">
            ?
          </button>
          {about.value?.users && (
            <button type="button" onClick={() => void logOut()} data-testid="logout">
              Log out {me.value?.name}
            </button>
          )}
        </>
      )}
    </header>
  );
}
