/** Where files are dropped or chosen. */
import type { ComponentChildren } from "preact";
import { useRef, useState } from "preact/hooks";
import { filesOfChoice, filesOfDrop } from "../api/upload";
import { complain } from "../reading/toasts";
import { sendIn, sending } from "../reading/worklist";
import { count, percent } from "../text/format";

export function UploadZone({ children }: { children: ComponentChildren }) {
  const [over, setOver] = useState(false);
  const dropped = (event: DragEvent): void => {
    event.preventDefault();
    setOver(false);
    if (event.dataTransfer) filesOfDrop(event.dataTransfer.items).then(sendIn).catch(complain);
  };
  return (
    <div
      class={`dropzone ${over ? "over" : ""}`}
      data-testid="dropzone"
      onDrop={dropped}
      onDragOver={(event) => (event.preventDefault(), setOver(true))}
      onDragLeave={(event) => event.currentTarget === event.target && setOver(false)}
    >
      <Bar />
      {children}
      {over && (
        <div class="drop-hint" aria-hidden="true">
          Drop DICOM files, a folder or a zip
        </div>
      )}
    </div>
  );
}

function Bar() {
  const files = useRef<HTMLInputElement>(null);
  const folder = useRef<HTMLInputElement>(null);
  const chosen = (input: HTMLInputElement): void => {
    const given = input.files ? filesOfChoice(input.files) : [];
    input.value = "";
    if (given.length > 0) void sendIn(given);
  };
  const now = sending.value;
  return (
    <section class="upload" aria-label="Add studies">
      <p>Drop a folder of DICOM files or a zip anywhere on this page, or choose</p>
      <button type="button" onClick={() => files.current?.click()}>
        Files or a zip …
      </button>
      <button type="button" onClick={() => folder.current?.click()}>
        A folder …
      </button>
      <input
        ref={files}
        type="file"
        multiple
        hidden
        data-testid="upload-files"
        onChange={(event) => chosen(event.currentTarget)}
      />
      <input
        ref={folder}
        type="file"
        multiple
        hidden
        data-testid="upload-folder"
        {...{ webkitdirectory: true }}
        onChange={(event) => chosen(event.currentTarget)}
      />
      {now !== null && (
        <div class="sending" data-testid="upload-progress">
          <progress max={1} value={now.share} aria-label="Upload" />
          <span>
            {count(now.files, "file")}, {percent(now.share)}
          </span>
          <button type="button" onClick={now.stop}>
            Stop
          </button>
        </div>
      )}
    </section>
  );
}
