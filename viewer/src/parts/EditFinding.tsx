/** Correcting a finding: its diameter, a note, its center. */
import type { Finding } from "../api/types";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { change, changing } from "../reading/changes";
import { editing, selected } from "../reading/study";
import { say } from "../reading/toasts";
import { ActionButton } from "./ui";

/** What was typed of findings and not saved yet, by finding: another one may be looked at meanwhile. */
const drafts = new Map<string, { seen: Seen; diameter: string; note: string }>();

type Seen = ReturnType<typeof asSeen>;

/** What a form shows of a finding, and the version it is of. */
function asSeen(finding: Finding): { version: number; diameter: string; note: string } {
  return { version: finding.version, diameter: finding.diameter_mm?.toFixed(1) ?? "", note: finding.note };
}

export function EditFinding({ finding }: { finding: Finding }) {
  // what was seen when editing began, or when the last conflict was told
  const draft = drafts.get(finding.id);
  const seen = useRef(draft?.seen ?? asSeen(finding));
  const [diameter, setDiameter] = useState(draft?.diameter ?? seen.current.diameter);
  const [note, setNote] = useState(draft?.note ?? seen.current.note);
  const typing = (what: { diameter?: string; note?: string }): void => {
    drafts.set(finding.id, { seen: seen.current, diameter, note, ...what });
    if (what.diameter !== undefined) setDiameter(what.diameter);
    if (what.note !== undefined) setNote(what.note);
  };
  const leave = (): void => {
    drafts.delete(finding.id);
    editing.value = false;
  };
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
    if (Object.keys(what).length === 0) return leave();
    const now = asSeen(finding);
    const same = now.diameter === begun.diameter && now.note === begun.note;
    if (await change(what, same ? now.version : begun.version)) {
      leave();
      say(measured ? `Finding ${finding.number} is corrected` : `The note on finding ${finding.number} is kept`);
    } else if (selected.value?.id === finding.id) seen.current = { ...begun, version: selected.value.version };
  };
  return (
    <form
      class="edit"
      onSubmit={(event) => void save(event)}
      data-testid="edit-form"
      onKeyDown={(event) => event.key === "Escape" && leave()}
    >
      <label>
        Diameter, mm
        <input
          inputMode="decimal"
          value={diameter}
          ref={first}
          data-testid="edit-diameter"
          onInput={(event) => typing({ diameter: event.currentTarget.value })}
        />
      </label>
      <label>
        Note
        <textarea
          rows={2}
          maxLength={2000}
          value={note}
          data-testid="edit-note"
          onInput={(event) => typing({ note: event.currentTarget.value })}
        />
      </label>
      <div class="verdict">
        <button type="submit" class="main" disabled={changing.value} data-testid="edit-save">
          Save
        </button>
        <ActionButton action="move" label="Move its center" />
        <button type="button" onClick={leave}>
          Cancel
        </button>
      </div>
    </form>
  );
}
