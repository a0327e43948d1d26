/** Correcting a finding: its diameter, a note, its center. */
import type { Finding } from "../api/types";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { change, changing } from "../reading/changes";
import { editing, selected } from "../reading/study";
import { say } from "../reading/toasts";
import { ActionButton } from "./ui";

/** What a form shows of a finding, and the version it is of. */
function asSeen(finding: Finding): { version: number; diameter: string; note: string } {
  return { version: finding.version, diameter: finding.diameter_mm?.toFixed(1) ?? "", note: finding.note };
}

export function EditFinding({ finding }: { finding: Finding }) {
  // what was seen when editing began, or when the last conflict was told
  const seen = useRef(asSeen(finding));
  const [diameter, setDiameter] = useState(seen.current.diameter);
  const [note, setNote] = useState(finding.note);
  const first = useRef<HTMLInputElement>(null);
  // letters typed at once must be letters, not verdicts
  useLayoutEffect(() => first.current?.focus(), []);
  const save = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    const typed = Number(diameter.replace(",", "."));
    const begun = seen.current;
    const measured = diameter !== begun.diameter && diameter.trim() !== "";
    if (measured && !(typed > 0 && typed <= 300))
      return say("The diameter is a number of mm, above 0 and up to 300", "error");
    const what = { ...(measured ? { diameter_mm: typed } : {}), ...(note !== begun.note ? { note } : {}) };
    if (Object.keys(what).length === 0) return void (editing.value = false);
    const now = asSeen(finding);
    const same = now.diameter === begun.diameter && now.note === begun.note;
    if (await change(what, same ? now.version : begun.version)) {
      editing.value = false;
      say(`Finding ${finding.number} is corrected`);
    } else if (selected.value?.id === finding.id) seen.current = { ...begun, version: selected.value.version };
  };
  return (
    <form
      class="edit"
      onSubmit={(event) => void save(event)}
      data-testid="edit-form"
      onKeyDown={(event) => event.key === "Escape" && (editing.value = false)}
    >
      <label>
        Diameter, mm
        <input
          inputMode="decimal"
          value={diameter}
          ref={first}
          data-testid="edit-diameter"
          onInput={(event) => setDiameter(event.currentTarget.value)}
        />
      </label>
      <label>
        Note
        <textarea
          rows={2}
          maxLength={2000}
          value={note}
          data-testid="edit-note"
          onInput={(event) => setNote(event.currentTarget.value)}
        />
      </label>
      <div class="verdict">
        <button type="submit" class="main" disabled={changing.value} data-testid="edit-save">
          Save
        </button>
        <ActionButton action="move" label="Move its center" />
        <button type="button" onClick={() => (editing.value = false)}>
          Cancel
        </button>
      </div>
    </form>
  );
}
