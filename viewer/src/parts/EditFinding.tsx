/** Correcting a finding: its diameter, a note, its center. */
import type { Finding } from "../api/types";
import { useState } from "preact/hooks";
import { change, changing } from "../reading/changes";
import { editing } from "../reading/study";
import { say } from "../reading/toasts";
import { ActionButton } from "./ui";

export function EditFinding({ finding }: { finding: Finding }) {
  const [diameter, setDiameter] = useState(finding.diameter_mm?.toFixed(1) ?? "");
  const [note, setNote] = useState(finding.note);
  const save = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    const typed = Number(diameter.replace(",", "."));
    const measured = diameter !== (finding.diameter_mm?.toFixed(1) ?? "") && diameter.trim() !== "";
    if (measured && !(typed > 0 && typed <= 300))
      return say("The diameter is a number of mm, above 0 and up to 300", "error");
    const what = { ...(measured ? { diameter_mm: typed } : {}), ...(note !== finding.note ? { note } : {}) };
    if (Object.keys(what).length === 0) return void (editing.value = false);
    if (await change(what)) {
      editing.value = false;
      say(`Finding ${finding.number} is corrected`);
    }
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
          autofocus
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
