/** Who said what of a finding, and when. */
import { useEffect, useState } from "preact/hooks";
import * as client from "../api/client";
import type { Finding, Version } from "../api/types";
import { complain } from "../reading/toasts";
import { mm, time } from "../text/format";

export function History({ finding }: { finding: Finding }) {
  const [shown, setShown] = useState(false);
  const [versions, setVersions] = useState<readonly Version[]>([]);
  useEffect(() => {
    let stale = false;
    if (shown) client.history(finding.id).then((found) => !stale && setVersions(found), complain);
    return () => void (stale = true);
  }, [shown, finding.id, finding.version]);
  return (
    <details class="history" data-testid="history" onToggle={(event) => setShown(event.currentTarget.open)}>
      <summary>
        History{" "}
        <span class="quiet">
          {finding.changed_by}, {time(finding.changed_at)}
        </span>
      </summary>
      <ol>
        {versions.map((one) => (
          <li key={one.version} data-testid="history-row">
            <strong>{one.what}</strong> by {one.by} <span class="quiet">{time(one.at)}</span>
            <div class="quiet">
              {mm(one.diameter_mm)}
              {one.note !== "" && `, “${one.note}”`}
            </div>
          </li>
        ))}
      </ol>
    </details>
  );
}
