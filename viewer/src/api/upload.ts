/** Files from a drop or a choice, and their way to the server. */
import { csrf, loginWanted, Refused, sentenceOf } from "./client";
import type { Job } from "./types";

/** A file with its path in the folder that was given. */
export interface Given {
  readonly path: string;
  readonly file: File;
}

/** All files of a drop; folders are gone through. */
export async function filesOfDrop(items: DataTransferItemList): Promise<Given[]> {
  const entries = [...items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  return (await Promise.all(entries.map(filesOf))).flat();
}

async function filesOf(entry: FileSystemEntry): Promise<Given[]> {
  if (entry.isFile) {
    const file = await new Promise<File>((take, fail) => (entry as FileSystemFileEntry).file(take, fail));
    return [{ path: entry.fullPath.replace(/^\//, ""), file }];
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const inside: FileSystemEntry[] = [];
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((take, fail) => reader.readEntries(take, fail));
    if (some.length === 0) break;
    inside.push(...some);
  }
  return (await Promise.all(inside.map(filesOf))).flat();
}

/** All files of a choice. */
export function filesOfChoice(list: FileList): Given[] {
  return [...list].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
}

/** Sends files; tells which share has gone. */
export function upload(
  files: readonly Given[],
  gone: (share: number) => void,
): { done: Promise<Job>; stop: () => void } {
  const request = new XMLHttpRequest();
  const done = new Promise<Job>((resolve, reject) => {
    request.upload.onprogress = (event) => gone(event.lengthComputable ? event.loaded / event.total : 0);
    request.onload = () => {
      if (request.status >= 200 && request.status < 300) resolve(JSON.parse(request.responseText) as Job);
      else {
        if (request.status === 401) loginWanted.value = true;
        reject(new Refused(request.status, sentenceOf(request.status, request.responseText)));
      }
    };
    request.onerror = () => reject(new Refused(0, "the server cannot be reached, or took no more of the upload"));
    request.onabort = () => reject(new Refused(0, "the upload was stopped"));
  });
  const form = new FormData();
  for (const { path, file } of files) form.append("files", file, path);
  request.open("POST", "api/uploads");
  request.setRequestHeader("x-csrf-token", csrf.value);
  request.setRequestHeader("accept", "application/json");
  request.send(form);
  return { done, stop: () => request.abort() };
}
