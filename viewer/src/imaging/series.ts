/** The slices of a series from the server, and what the image holds at a place. */
import { cache, Enums, imageLoader, imageLoadPoolManager, metaData, type Types } from "@cornerstonejs/core";
import { wadors } from "@cornerstonejs/dicom-image-loader";
import * as client from "../api/client";
import { nearestSlice, ordered, pixelAt, type Slice } from "../geometry/slices";
import { unit, type Point } from "../geometry/vectors";
import { forgetFailures } from "./failures";

/** A series on the screen. */
export interface Series {
  readonly studyUid: string;
  readonly seriesUid: string;
  readonly slices: readonly Slice[];
}

type Header = Record<string, { Value?: unknown[] } | undefined>;

const value = (header: Header, tag: string): unknown => header[tag]?.Value?.[0];

function instancePath(studyUid: string, seriesUid: string, sopInstanceUid: string): string {
  return `studies/${studyUid}/series/${seriesUid}/instances/${sopInstanceUid}`;
}

/** The slices of headers, in the order they are read; instances without a place in the patient are left out. */
function slicesOf(studyUid: string, seriesUid: string, headers: readonly Header[]): Slice[] {
  const found: Slice[] = [];
  for (const header of headers) {
    const uid = String(value(header, "00080018") ?? "");
    const frames = Math.max(1, Number(value(header, "00280008") ?? 1));
    for (let frame = 1; frame <= frames; frame++) {
      const path = `${instancePath(studyUid, seriesUid, uid)}/frames/${frame}`;
      const imageId = `wadors:${new URL(`dicom-web/${path}`, document.baseURI).href}`;
      if (frame === 1) wadors.metaDataManager.add(imageId, header as Parameters<typeof wadors.metaDataManager.add>[1]);
      const slice = sliceOf(imageId, uid, Number(value(header, "00200013") ?? NaN));
      if (slice !== null) found.push(slice);
    }
  }
  return ordered(found);
}

function sliceOf(imageId: string, sopInstanceUid: string, number: number): Slice | null {
  const plane = metaData.get("imagePlaneModule", imageId) as
    (Partial<Types.ImagePlaneModule> & { rowPixelSpacing?: number; columnPixelSpacing?: number }) | undefined;
  const { rowCosines, columnCosines, imagePositionPatient, rows, columns } = plane ?? {};
  if (!rowCosines || !columnCosines || !imagePositionPatient || !rows || !columns) return null;
  return {
    imageId,
    sopInstanceUid,
    origin: [...imagePositionPatient] as Point,
    right: unit([...rowCosines] as Point),
    down: unit([...columnCosines] as Point),
    columnStep: plane?.columnPixelSpacing || 1,
    rowStep: plane?.rowPixelSpacing || 1,
    columns,
    rows,
    instanceNumber: Number.isFinite(number) ? number : null,
  };
}

/** All slices of a series. */
export async function loadSeries(studyUid: string, seriesUid: string): Promise<Series> {
  const headers = await client.metadata(`studies/${studyUid}/series/${seriesUid}/metadata`);
  return { studyUid, seriesUid, slices: slicesOf(studyUid, seriesUid, headers as Header[]) };
}

/** One slice alone, so that something is seen before all headers have come; the middle one where none is named. */
export async function loadOneSlice(
  studyUid: string,
  seriesUid: string,
  sopInstanceUid: string | null,
): Promise<Series> {
  let uid = sopInstanceUid;
  if (uid === null) {
    const rows = (await client.metadata(`studies/${studyUid}/series/${seriesUid}/instances`)) as Header[];
    const middle = rows.sort((a, b) => Number(value(a, "00200013")) - Number(value(b, "00200013")))[rows.length >> 1];
    uid = String((middle && value(middle, "00080018")) ?? "");
  }
  const headers = await client.metadata(`${instancePath(studyUid, seriesUid, uid)}/metadata`);
  const slices = slicesOf(studyUid, seriesUid, headers as Header[]).slice(0, 1);
  const [slice] = slices;
  if (slice !== undefined) await imageLoader.loadAndCacheImage(slice.imageId);
  return { studyUid, seriesUid, slices };
}

/** Asks for all slices, those next to one of them first; what a volume asks for later is then on its way. */
export function fetchFrom(series: Series, at: number): void {
  const nearFirst = series.slices
    .map((slice, number) => ({ slice, away: Math.abs(number - at) }))
    .sort((a, b) => a.away - b.away);
  for (const { slice } of nearFirst) {
    const ask = (): Promise<void> =>
      imageLoader.loadAndCacheImage(slice.imageId).then(
        () => undefined,
        () => undefined,
      );
    imageLoadPoolManager.addRequest(ask, Enums.RequestType.Prefetch, { imageId: slice.imageId }, 0);
  }
}

/** How many slices have come. */
export function arrived(series: Series): number {
  return series.slices.filter(({ imageId }) => cache.getImage(imageId) !== undefined).length;
}

/** HU of the voxel at a place; null outside, or where the slice has not come yet. */
export function huAt(series: Series, world: Readonly<Point>): number | null {
  const slice = series.slices[nearestSlice(series.slices, world)];
  const image = slice && cache.getImage(slice.imageId);
  if (!slice || !image) return null;
  const [column, row] = pixelAt(slice, world).map(Math.round) as [number, number];
  if (column < 0 || row < 0 || column >= slice.columns || row >= slice.rows) return null;
  const stored = image.getPixelData()[row * slice.columns + column];
  if (stored === undefined) return null;
  return image.preScale?.scaled ? stored : stored * (image.slope ?? 1) + (image.intercept ?? 0);
}

/** Asks for nothing more of what was asked for ahead. */
export function stopFetching(): void {
  imageLoadPoolManager.clearRequestStack(Enums.RequestType.Prefetch);
}

/** The name of a series' volume. */
export function volumeOf(series: Series): string {
  return `cornerstoneStreamingImageVolume:${series.seriesUid}`;
}

/** Forgets the images of a series. */
export function forget(series: Series): void {
  if (cache.getVolumeLoadObject(volumeOf(series))) cache.removeVolumeLoadObject(volumeOf(series));
  for (const { imageId } of series.slices) {
    if (cache.getImageLoadObject(imageId)) cache.removeImageLoadObject(imageId, { force: true });
    wadors.metaDataManager.remove(imageId);
  }
  forgetFailures(series.slices);
}
