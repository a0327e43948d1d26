/** One view with what stands around its image: slice, place, HU, letters, scale bar, slider. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { lettersOf, barLength } from "../geometry/letters";
import { isEven } from "../geometry/slices";
import { minus } from "../geometry/vectors";
import { View, type Frame, type Plane } from "../imaging/view";
import { PLACED } from "../reading/placing";
import { prior } from "../reading/prior";
import { activeView, enter, exit, series, underPointer } from "../reading/room";
import { huWindow, pointer, study, tool } from "../reading/study";
import { complain } from "../reading/toasts";
import { date, decimals, place } from "../text/format";
import { Gestures, selectAt } from "./Gestures";
import { Overlay } from "./Overlay";
import { followFingers } from "./pinch";

/** Tools whose drags a click does not disturb: it selects. */
const SELECTING: readonly string[] = ["window", "zoom", "pan"];

export function ViewFrame({ id, plane }: { id: string; plane: Plane }) {
  const element = useRef<HTMLDivElement>(null);
  const [view, setView] = useState<View | null>(null);
  useEffect(() => {
    if (element.current === null) return;
    const made = new View(id, plane, element.current);
    enter(made)
      .then(() => setView(made))
      .catch(complain);
    return () => void exit(made).catch(complain);
  }, [id, plane]);
  const frame = useRef<HTMLElement>(null);
  useEffect(() => (frame.current && view ? followFingers(frame.current, view) : undefined), [view]);
  const down = useRef<[number, number] | null>(null);
  const at = (event: MouseEvent): [number, number] => {
    const box = element.current?.getBoundingClientRect();
    return [event.clientX - (box?.left ?? 0), event.clientY - (box?.top ?? 0)];
  };
  const released = (event: PointerEvent): void => {
    const [x, y] = at(event);
    const still = down.current !== null && Math.hypot(x - down.current[0], y - down.current[1]) < 4;
    down.current = null;
    const isClick = still && event.isPrimary && event.button === 0;
    if (isClick && view !== null && SELECTING.includes(tool.value)) selectAt(view, x, y);
  };
  const name = id === "prior" ? "Prior, axial" : plane[0]!.toUpperCase() + plane.slice(1);
  return (
    <figure
      ref={frame}
      class={`view ${id} ${activeView.value === id ? "active" : ""}`}
      data-testid={`viewport-${id}`}
      data-plane={plane}
      onPointerEnter={() => (activeView.value = id)}
      onFocusIn={() => (activeView.value = id)}
      onPointerMove={(event) => {
        const [x, y] = at(event);
        pointer.value = { view: id, x, y };
      }}
      onPointerLeave={() => (pointer.value = null)}
      onPointerDownCapture={(event) => (down.current = at(event))}
      onPointerUpCapture={released}
    >
      <div
        ref={element}
        class="pixels"
        style={{ position: "absolute" }}
        tabIndex={0}
        role="img"
        aria-label={`${name} view`}
        onContextMenu={(event) => event.preventDefault()}
      />
      {view !== null && (
        <>
          <Overlay view={view} />
          <Around view={view} name={name} />
          {PLACED.includes(tool.value) && id !== "prior" && <Gestures view={view} />}
          <Slider view={view} name={name} />
        </>
      )}
    </figure>
  );
}

function Around({ view, name }: { view: View; name: string }) {
  void view.seen.value;
  const frame = view.frame();
  const { at, of } = view.slice.value;
  const facts = view.id === "prior" ? prior.value?.study : study.value;
  return (
    <div class="around">
      <figcaption>
        {name}
        {view.id === "prior" && facts ? ` · ${date(facts.study_date)}` : ""}
        {view.series !== null && (
          <span data-testid="slice-label" aria-live="off">
            {" "}
            {at + 1} / {of}
          </span>
        )}
      </figcaption>
      {view.series === null && series.value !== null && view.id !== "prior" && !isEven(series.value.slices) && (
        <p class="no-plane">The slices are not evenly spaced, so there is no {view.plane} view.</p>
      )}
      {frame !== null && view.series !== null && <Edges frame={frame} />}
      <div class="low-left" data-testid="place-label">
        {frame !== null && view.series !== null && <span>{axisPlace(frame)}</span>}
        <Pointer view={view} />
      </div>
      {view.plane === "axial" && (
        <div class="low-right" data-testid="window-label">
          W {huWindow.value.width} L {huWindow.value.center}
        </div>
      )}
    </div>
  );
}

/** The plane's own place along its normal. */
function axisPlace(frame: Frame): string {
  const axis = frame.normal.map(Math.abs).indexOf(Math.max(...frame.normal.map(Math.abs))) as 0 | 1 | 2;
  return `${"xyz"[axis]} ${decimals(frame.middle[axis], 1)} mm`;
}

function Pointer({ view }: { view: View }) {
  void view.seen.value;
  const under = underPointer(view);
  if (under === null) return null;
  return (
    <span data-testid="pointer-label">
      {place(under.world)} mm LPS{under.hu === null ? "" : ` · ${decimals(under.hu, 0)} HU`}
    </span>
  );
}

function Edges({ frame }: { frame: Frame }) {
  const back = (v: Frame["right"]) => minus([0, 0, 0], v);
  const bar = barLength(frame.pixelsPerMm, frame.height * 0.3);
  return (
    <>
      <span class="letter top" data-testid="letter-top">
        {lettersOf(back(frame.down))}
      </span>
      <span class="letter bottom" data-testid="letter-bottom">
        {lettersOf(frame.down)}
      </span>
      <span class="letter left" data-testid="letter-left">
        {lettersOf(back(frame.right))}
      </span>
      <span class="letter right" data-testid="letter-right">
        {lettersOf(frame.right)}
      </span>
      {bar > 0 && (
        <div
          class="scale"
          style={{ height: `${bar * frame.pixelsPerMm}px` }}
          data-testid="scale-bar"
          role="img"
          aria-label={`Scale: ${bar} mm`}
        >
          <span>{bar >= 10 ? `${bar / 10} cm` : `${bar} mm`}</span>
        </div>
      )}
    </>
  );
}

function Slider({ view, name }: { view: View; name: string }) {
  const { at, of } = view.slice.value;
  const label = useMemo(() => `${name}: slice`, [name]);
  if (of < 2) return null;
  return (
    <input
      class="slider"
      type="range"
      min={0}
      max={of - 1}
      value={at}
      aria-label={label}
      aria-valuetext={`${at + 1} of ${of}`}
      data-testid={`slider-${view.id}`}
      onInput={(event) => view.goToSlice(Number(event.currentTarget.value))}
    />
  );
}
