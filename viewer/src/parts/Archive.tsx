/** Studies of another archive, to be brought in. */
import { signal } from "@preact/signals";
import { useState } from "preact/hooks";
import * as client from "../api/client";
import type { RemoteStudy } from "../api/types";
import { follow } from "../reading/jobs";
import { about } from "../reading/session";
import { complain, say } from "../reading/toasts";
import { date, personName, toDicomDate } from "../text/format";
import { Dialog } from "./ui";

export const archiveShown = signal(false);

export function ArchiveDialog() {
  const [found, setFound] = useState<readonly RemoteStudy[] | null>(null);
  const [source, setSource] = useState(about.value?.sources[0] ?? "");
  const [busy, setBusy] = useState(false);
  const look = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    const given = new FormData(event.currentTarget as HTMLFormElement);
    const field = (name: string): string => String(given.get(name) ?? "").trim();
    setBusy(true);
    try {
      const values = { patient_id: field("id"), patient_name: field("name"), study_date: toDicomDate(field("date")) };
      setFound(await client.archiveStudies(source, { ...values, accession_number: field("accession"), limit: 50 }));
    } catch (error) {
      complain(error);
    } finally {
      setBusy(false);
    }
  };
  return (
    <Dialog title="Bring in a study" testId="archive-dialog" onClose={() => (archiveShown.value = false)}>
      <form class="filters" onSubmit={(event) => void look(event)}>
        <label>
          Archive
          <select value={source} onChange={(event) => setSource(event.currentTarget.value)} data-testid="archive-name">
            {about.value?.sources.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        </label>
        <label>
          Patient ID
          <input name="id" maxLength={64} />
        </label>
        <label>
          Name
          <input name="name" maxLength={64} placeholder="Doe*" />
        </label>
        <label>
          Date
          <input name="date" type="date" />
        </label>
        <label>
          Accession number
          <input name="accession" maxLength={16} />
        </label>
        <button type="submit" class="main" disabled={busy} data-testid="archive-search">
          {busy ? "Asking …" : "Search"}
        </button>
      </form>
      {found?.length === 0 && <p class="empty">The archive has no such study.</p>}
      {found !== null && found.length > 0 && <Found found={found} source={source} />}
    </Dialog>
  );
}

function Found({ found, source }: { found: readonly RemoteStudy[]; source: string }) {
  const [asked, setAsked] = useState<ReadonlySet<string>>(new Set());
  const pull = async (uid: string): Promise<void> => {
    try {
      follow(await client.pull(source, uid));
      setAsked(new Set(asked).add(uid));
      say("The study has been asked for; its progress is among the jobs");
    } catch (error) {
      complain(error);
    }
  };
  return (
    <div class="table-box">
      <table>
        <thead>
          <tr>
            <th>Patient</th>
            <th>Date</th>
            <th>Description</th>
            <th>Modalities</th>
            <th class="number">Images</th>
            <th />
          </tr>
        </thead>
        <tbody>
          {found.map((one) => (
            <tr key={one.study_uid} data-testid="remote-row">
              <td>
                {personName(one.patient_name) || one.patient_id}
                {(personName(one.patient_name) || one.patient_id) !== one.patient_id && (
                  <div class="quiet">{one.patient_id}</div>
                )}
              </td>
              <td>{date(one.study_date)}</td>
              <td>{one.description}</td>
              <td>{one.modalities.join(", ")}</td>
              <td class="number">{one.instances ?? "–"}</td>
              <td>
                <button type="button" disabled={asked.has(one.study_uid)} onClick={() => void pull(one.study_uid)}>
                  {one.here ? "Bring in again" : "Bring in"}
                </button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
