/** Slices that could not be loaded. */
import { Enums, eventTarget, imageLoader } from "@cornerstonejs/core";
import { signal } from "@preact/signals";
import type { Slice } from "../geometry/slices";

/** Their images; one that comes after all is taken out. */
export const failed = signal<ReadonlySet<string>>(new Set());

/** Listens to what Cornerstone3D says of images, from now on. */
export function followFailures(): void {
  const lost = (event: Event): void => {
    const { imageId } = (event as CustomEvent<{ imageId?: string }>).detail;
    if (imageId && !failed.peek().has(imageId)) failed.value = new Set(failed.peek()).add(imageId);
  };
  eventTarget.addEventListener(Enums.Events.IMAGE_LOAD_FAILED, lost);
  eventTarget.addEventListener(Enums.Events.IMAGE_LOAD_ERROR, lost);
  eventTarget.addEventListener(Enums.Events.IMAGE_LOADED, (event: Event) =>
    forgetFailures([(event as CustomEvent<{ image: { imageId: string } }>).detail.image]),
  );
}

/** Takes images out. */
export function forgetFailures(images: readonly { readonly imageId: string }[]): void {
  if (!images.some(({ imageId }) => failed.peek().has(imageId))) return;
  const gone = new Set(images.map(({ imageId }) => imageId));
  failed.value = new Set([...failed.peek()].filter((imageId) => !gone.has(imageId)));
}

/** Loads a slice's image; whether it came. */
export function comes(slice: Slice): Promise<boolean> {
  return imageLoader.loadAndCacheImage(slice.imageId).then(
    () => true,
    () => false,
  );
}

/** Asks again for slices, a few at a time. */
export async function askAgain(slices: readonly Slice[]): Promise<void> {
  const rest = [...slices];
  const one = async (): Promise<void> => {
    for (let slice = rest.shift(); slice !== undefined; slice = rest.shift()) await comes(slice);
  };
  await Promise.all([one(), one(), one(), one()]);
}

/** The number of the slice next to one, itself first, whose image comes; that one itself where none near does. */
export async function nearestThatComes(slices: readonly Slice[], at: number): Promise<number> {
  for (const away of [0, 1, -1, 2, -2, 4, -4, 8, -8]) {
    const slice = slices[at + away];
    if (slice !== undefined && (await comes(slice))) return at + away;
  }
  return at;
}
