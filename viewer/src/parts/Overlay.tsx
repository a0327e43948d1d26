/** What is drawn over an image: outlines, markers, axes, attention, crosshairs. */
import type { Attention, Finding } from "../api/types";
import { axisAlong, toIndex, type Grid } from "../geometry/grid";
import { loopsOnPlane } from "../geometry/outline";
import { along, minus, type Point } from "../geometry/vectors";
import type { Frame, View } from "../imaging/view";
import { matchedBefore, prior, priorGrid } from "../reading/prior";
import {
  attentionShown,
  crosshairs,
  findings,
  grid,
  maskOf,
  outlinesShown,
  selected,
  selectedId,
} from "../reading/study";

export function Overlay({ view }: { view: View }) {
  void view.seen.value;
  const frame = view.frame();
  if (frame === null || view.series === null) return null;
  const before = view.id === "prior";
  const place = before ? priorGrid() : grid.value;
  const shown = before ? (prior.value?.findings ?? []) : findings.value;
  const chosen = before ? (matchedBefore(selected.value)?.id ?? null) : selectedId.value;
  const here = shown.filter((finding) => finding.series_uid === view.series?.seriesUid);
  const attention = selected.value?.attention;
  return (
    <svg
      class="overlay"
      width={frame.width}
      height={frame.height}
      aria-hidden="true"
      data-testid={`overlay-${view.id}`}
    >
      {!before && attentionShown.value && attention && <Look view={view} frame={frame} look={attention} />}
      {outlinesShown.value &&
        here.map((finding) => (
          <Drawn
            key={finding.id}
            view={view}
            frame={frame}
            place={place}
            finding={finding}
            chosen={finding.id === chosen}
          />
        ))}
      {!before && crosshairs.value !== null && <Cross view={view} frame={frame} at={crosshairs.value} />}
    </svg>
  );
}

const path = (view: View, points: readonly Point[]): string =>
  points
    .map(
      (point, number) =>
        `${number === 0 ? "M" : "L"}${
          view
            .toCanvas(point)
            ?.map((value) => value.toFixed(2))
            .join(" ") ?? "0 0"
        }`,
    )
    .join("") + "Z";

interface Shown {
  view: View;
  frame: Frame;
  place: Grid | null;
  finding: Finding;
  chosen: boolean;
}

function Drawn({ view, frame, place, finding, chosen }: Shown) {
  const center = finding.center_xyz_mm as Point;
  const mask = maskOf(finding);
  const radius = (finding.diameter_mm ?? 6) / 2;
  const away = view.distance(center, frame);
  const axis = place === null ? 0 : axisAlong(place, frame.normal);
  const loops =
    place !== null && mask !== null
      ? loopsOnPlane(mask, place, axis, Math.round(toIndex(place, view.onPlane(center, frame))[axis]))
      : [];
  const near = mask === null ? away <= radius : loops.length > 0;
  if (!near) return null;
  const canvas = view.toCanvas(center);
  if (canvas === null) return null;
  const [x, y] = canvas;
  const cut = mask === null ? Math.sqrt(Math.max(0, radius ** 2 - away ** 2)) * frame.pixelsPerMm : 0;
  const reach = Math.max(6, radius * frame.pixelsPerMm);
  return (
    <g class={`finding ${finding.state} ${chosen ? "chosen" : ""}`}>
      {loops.length > 0 && (
        <path
          d={loops.map((loop) => path(view, loop)).join("")}
          data-testid="finding-outline"
          data-number={finding.number}
        />
      )}
      {cut > 0 && <circle cx={x} cy={y} r={Math.max(4, cut)} class="ball" />}
      {chosen && <Axes view={view} frame={frame} finding={finding} />}
      <circle
        cx={x}
        cy={y}
        r={loops.length > 0 ? 1 : 2.5}
        class="center"
        data-testid="finding-marker"
        data-number={finding.number}
        data-view={view.id}
      />
      <text x={x + 0.75 * reach + 3} y={y - 0.75 * reach - 3}>
        {finding.number}
      </text>
    </g>
  );
}

/** The long and the short axis, on the slice where they were measured. */
function Axes({ view, frame, finding }: { view: View; frame: Frame; finding: Finding }) {
  const lines = [finding.long_axis_ends_xyz_mm, finding.short_axis_ends_xyz_mm];
  return (
    <>
      {lines.map((line, number) => {
        if (!line || line.some((end) => view.distance(end as Point, frame) > 0.6)) return null;
        const [a, b] = line.map((end) => view.toCanvas(end as Point));
        return a && b ? <line key={number} x1={a[0]} y1={a[1]} x2={b[0]} y2={b[1]} class="axis" /> : null;
      })}
    </>
  );
}

/** The patches of a slice, tinted by where the network looked. */
function Look({ view, frame, look }: { view: View; frame: Frame; look: Attention }) {
  const corner = look.corner_xyz_mm as Point;
  if (view.plane !== "axial" || view.distance(corner, frame) > 1.3) return null;
  const [rows, columns] = [look.grid.length, look.grid[0]?.length ?? 0];
  const across = minus(look.row_end_xyz_mm as Point, corner);
  const down = minus(look.column_end_xyz_mm as Point, corner);
  const at = (row: number, column: number): Point => along(along(corner, across, column / columns), down, row / rows);
  return (
    <g class="look" data-testid="attention">
      {look.grid.flatMap((shares, row) =>
        shares.map((share, column) => (
          <path
            key={`${row},${column}`}
            fill-opacity={0.6 * share}
            d={path(view, [at(row, column), at(row, column + 1), at(row + 1, column + 1), at(row + 1, column)])}
          />
        )),
      )}
      <path class="look-frame" d={path(view, [at(0, 0), at(0, columns), at(rows, columns), at(rows, 0)])} />
    </g>
  );
}

function Cross({ view, frame, at }: { view: View; frame: Frame; at: Point }) {
  const canvas = view.toCanvas(at);
  if (canvas === null) return null;
  const [x, y] = canvas;
  const gap = 14;
  return (
    <g class="cross" data-testid={`crosshairs-${view.id}`}>
      <line x1={0} y1={y} x2={x - gap} y2={y} />
      <line x1={x + gap} y1={y} x2={frame.width} y2={y} />
      <line x1={x} y1={0} x2={x} y2={y - gap} />
      <line x1={x} y1={y + gap} x2={x} y2={frame.height} />
    </g>
  );
}
