/** Who saw and changed what, for admins. */
import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import * as client from "../api/client";
import type { AuditEntry } from "../api/types";
import { complain } from "../reading/toasts";
import { details, time } from "../text/format";
import { Dialog } from "./ui";

export const auditShown = signal(false);

const PAGE = 100;

export function AuditLog() {
  const [entries, setEntries] = useState<readonly AuditEntry[]>([]);
  const [more, setMore] = useState(false);
  const [busy, setBusy] = useState(false);
  const read = async (before: number | null): Promise<void> => {
    setBusy(true);
    try {
      const found = await client.audit(PAGE, before);
      setEntries((known) => (before === null ? found : [...known, ...found]));
      setMore(found.length === PAGE);
    } catch (error) {
      complain(error);
    } finally {
      setBusy(false);
    }
  };
  useEffect(() => void read(null), []);
  return (
    <Dialog title="Who did what" testId="audit-log" onClose={() => (auditShown.value = false)}>
      <div class="table-box audit" aria-busy={busy}>
        <table>
          <thead>
            <tr>
              <th>Time</th>
              <th>User</th>
              <th>Action</th>
              <th>Of</th>
              <th>Details</th>
              <th>From</th>
            </tr>
          </thead>
          <tbody>
            {entries.map((one) => (
              <tr key={one.id} data-testid="audit-row">
                <td>{time(one.at)}</td>
                <td>{one.user}</td>
                <td>{one.action}</td>
                <td class="quiet uid">{one.object}</td>
                <td class="quiet uid">{details(one.detail)}</td>
                <td class="quiet">{one.address}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <button type="button" disabled={busy || !more} onClick={() => void read(entries.at(-1)?.id ?? null)}>
        {more ? "Earlier ones" : "That is all"}
      </button>
    </Dialog>
  );
}
