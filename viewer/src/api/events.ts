/** Server-sent events, read with fetch: a session that ended is seen, and what ends is begun again. */

import { loginWanted } from "./client";

/** The server says something every 15 s; a stream that is silent for so many ms is dead. */
const SILENCE_MS = 45_000;

/** One event. */
export interface Sent {
  readonly event: string;
  readonly data: string;
}

/** Takes text as it comes and gives the events that are whole; comments are left out. */
export class EventReader {
  private rest = "";

  /** The events that a piece of text completes. */
  take(text: string): Sent[] {
    this.rest += text;
    const blocks = this.rest.split(/\r\n\r\n|\n\n|\r\r/);
    this.rest = blocks.pop() ?? "";
    return blocks.map(eventOf).filter((sent) => sent !== null);
  }
}

function eventOf(block: string): Sent | null {
  let event = "message";
  const data: string[] = [];
  for (const line of block.split(/\r\n|\n|\r/)) {
    const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line) ?? [];
    if (field === "event") event = value ?? "";
    else if (field === "data") data.push(value ?? "");
  }
  return data.length === 0 ? null : { event, data: data.join("\n") };
}

/** Listens until told to stop, waiting longer after each failure, half a minute at most. */
export function listen(path: string, heard: (sent: Sent) => void, opened: () => void): () => void {
  const stop = new AbortController();
  void (async () => {
    for (let wait = 1000; !stop.signal.aborted; wait = Math.min(2 * wait, 30_000)) {
      const attempt = new AbortController();
      const end = (): void => attempt.abort();
      stop.signal.addEventListener("abort", end);
      let late = setTimeout(end, SILENCE_MS);
      const alive = (): void => {
        clearTimeout(late);
        late = setTimeout(end, SILENCE_MS);
      };
      try {
        const response = await fetch(path, { signal: attempt.signal, headers: { accept: "text/event-stream" } });
        if (response.status === 401 && !stop.signal.aborted) loginWanted.value = true;
        if (response.status === 401) return;
        if (response.ok && response.body !== null) {
          opened();
          wait = 1000;
          await readAll(response.body, heard, alive);
        }
      } catch {
        // begun again below
      } finally {
        clearTimeout(late);
        stop.signal.removeEventListener("abort", end);
      }
      if (stop.signal.aborted) return;
      await new Promise((resume) => setTimeout(resume, wait));
    }
  })();
  return () => stop.abort();
}

async function readAll(
  body: ReadableStream<Uint8Array>,
  heard: (sent: Sent) => void,
  alive: () => void,
): Promise<void> {
  const [reader, decoder, events] = [body.getReader(), new TextDecoder(), new EventReader()];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    alive();
    events.take(decoder.decode(value, { stream: true })).forEach(heard);
  }
}
