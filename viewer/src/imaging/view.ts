/** One view on the screen: a plane through a series, with what the page asks of it. */
import { Enums, utilities, type PlanarViewport, type RenderingEngine, type Types } from "@cornerstonejs/core";
import { ToolGroupManager } from "@cornerstonejs/tools";
import { signal, type Signal } from "@preact/signals";
import { flipsForReading, nearestSlice } from "../geometry/slices";
import { along, cross, dot, lengthOf, minus, unit, type Point } from "../geometry/vectors";
import { engine, TOOLS } from "./engine";
import { comes, nearestThatComes } from "./failures";
import { volumeOf, type Series } from "./series";

export type Plane = "axial" | "coronal" | "sagittal";

/** A window on HU. */
export interface HuWindow {
  readonly center: number;
  readonly width: number;
}

/** How world and screen relate at this moment. */
export interface Frame {
  /** The place in the middle of the screen. */
  readonly middle: Point;
  /** Directions in the patient of the screen's right and bottom, of length 1. */
  readonly right: Point;
  readonly down: Point;
  readonly normal: Point;
  readonly pixelsPerMm: number;
  readonly width: number;
  readonly height: number;
}

let made = 0;

/** A view; `seen` counts what was drawn, so that what lies over it is drawn anew. */
export class View {
  readonly seen: Signal<number> = signal(0);
  readonly slice: Signal<{ at: number; of: number }> = signal({ at: 0, of: 0 });
  series: Series | null = null;
  private viewport: PlanarViewport | null = null;
  private resizing: ResizeObserver | null = null;
  private window: HuWindow = { center: -600, width: 1500 };
  private asked = 0;
  /** The slice that was asked for last, where slices come one by one; it may be on its way, or fail. */
  private aim: number | null = null;
  private readonly displaySets = new Set<string>();
  private readonly name: string;
  onWindow: (window: HuWindow) => void = () => undefined;

  constructor(
    readonly id: string,
    readonly plane: Plane,
    readonly element: HTMLDivElement,
  ) {
    this.name = `${id} ${++made}`;
  }

  /** Takes its place on the screen. */
  async begin(): Promise<void> {
    const room = await engine();
    room.enableElement({
      viewportId: this.name,
      type: Enums.ViewportType.PLANAR_NEXT,
      element: this.element,
      defaultOptions: { background: [0, 0, 0] },
    });
    this.viewport = room.getViewport(this.name) as unknown as PlanarViewport;
    // the wheel's tool would go on from what is drawn, and so never pass a slice that fails
    this.viewport.scroll = (by) => {
      this.scroll(by);
      return Promise.resolve(this.viewport?.getCurrentImageId() ?? "");
    };
    ToolGroupManager.getToolGroup(TOOLS)?.addViewport(this.name, room.id);
    const drawn = (): void => this.noteDrawn();
    for (const event of [Enums.Events.IMAGE_RENDERED, Enums.Events.CAMERA_MODIFIED, Enums.Events.STACK_NEW_IMAGE])
      this.element.addEventListener(event, drawn);
    this.element.addEventListener(Enums.Events.VOI_MODIFIED, (event) => {
      const { range } = (event as CustomEvent<{ range: Types.VOIRange }>).detail;
      const window = { center: (range.upper + range.lower) / 2, width: range.upper - range.lower };
      const same = Math.abs(window.center - this.window.center) + Math.abs(window.width - this.window.width) < 0.01;
      if (same || this.asked > 0) return;
      this.window = window;
      this.onWindow(window);
    });
    this.resizing = new ResizeObserver(() => {
      this.fitSize(room);
      // while a frame is being drawn, the engine leaves sizes as they are
      requestAnimationFrame(() => requestAnimationFrame(() => this.fitSize(room)));
    });
    this.resizing.observe(this.element);
  }

  /** Leaves the screen. */
  async end(): Promise<void> {
    this.resizing?.disconnect();
    const room = await engine();
    ToolGroupManager.getToolGroup(TOOLS)?.removeViewports(room.id, this.name);
    if (this.viewport !== null) room.disableElement(this.name);
    for (const name of this.displaySets) utilities.genericViewportDisplaySetMetadataProvider.remove(name);
    this.displaySets.clear();
    this.viewport = null;
    this.series = null;
  }

  /** Whether it is on the screen. */
  get isThere(): boolean {
    return this.viewport !== null;
  }

  private fitSize(room: RenderingEngine): void {
    if (this.element.clientWidth === 0 || this.viewport === null) return;
    room.resize(true, true);
    for (const viewport of room.getViewports() as unknown as PlanarViewport[]) {
      viewport.resize();
      viewport.render();
    }
    this.noteDrawn();
  }

  private noteDrawn(): void {
    if (this.viewport === null) return;
    const slice = { at: this.viewport.getSliceIndex(), of: this.viewport.getNumberOfSlices() };
    const before = this.slice.peek();
    if (slice.at !== before.at || slice.of !== before.of) this.slice.value = slice;
    this.seen.value = this.seen.peek() + 1;
  }

  /** Shows a series; the axial view slice by slice as they are stored, the others through its volume. */
  async show(series: Series, wanted: number): Promise<void> {
    if (this.viewport === null || series.slices.length === 0) return;
    const stack = this.plane === "axial";
    const at = stack ? await nearestThatComes(series.slices, wanted) : wanted;
    if (this.viewport === null) return;
    const name = `${this.name}:${series.seriesUid}:${series.slices.length}`;
    this.displaySets.add(name);
    utilities.genericViewportDisplaySetMetadataProvider.add(name, {
      kind: "planar",
      imageIds: series.slices.map((slice) => slice.imageId),
      initialImageIdIndex: at,
      ...(stack ? {} : { volumeId: volumeOf(series) }),
    });
    this.asked++;
    try {
      const orientation = stack
        ? Enums.OrientationAxis.ACQUISITION
        : Enums.OrientationAxis[this.plane === "coronal" ? "CORONAL" : "SAGITTAL"];
      await this.viewport.setDisplaySets({ displaySetId: name, options: { orientation } });
      this.series = series;
      this.aim = stack ? at : null;
      const first = series.slices[at] ?? series.slices[0];
      if (stack && first !== undefined) {
        const { horizontal, vertical } = flipsForReading(first);
        this.viewport.setViewState({ flipHorizontal: horizontal, flipVertical: vertical });
      }
      this.setWindow(this.window);
    } finally {
      this.asked--;
    }
    this.noteDrawn();
  }

  /** Sets the window on HU. */
  setWindow(window: HuWindow): void {
    this.window = window;
    this.viewport?.setDisplaySetPresentation({
      voiRange: { lower: window.center - window.width / 2, upper: window.center + window.width / 2 },
    });
    this.viewport?.render();
  }

  /** Goes to the slice through a place, and brings the place into view where it is off the screen. */
  goTo(world: Readonly<Point>): void {
    if (this.viewport === null || this.series === null) return;
    if (this.plane === "axial") this.goToSlice(nearestSlice(this.series.slices, world));
    else this.viewport.setViewState({ slice: { kind: "volumePoint", sliceWorldPoint: [...world] } });
    const [x, y] = this.toCanvas(world) ?? [NaN, NaN];
    const margin = 20;
    const off =
      x < margin || y < margin || x > this.element.clientWidth - margin || y > this.element.clientHeight - margin;
    if (off) this.viewport.setViewState({ anchorWorld: [...world], anchorCanvas: [0.5, 0.5] });
    this.viewport.render();
  }

  /** Scrolls by so many slices. */
  scroll(by: number): void {
    if (this.viewport !== null) this.goToSlice((this.aim ?? this.viewport.getSliceIndex()) + by);
  }

  /** Goes to a slice by its number on this view, from 0. */
  goToSlice(at: number): void {
    const { series, viewport } = this;
    if (series === null || viewport === null) return;
    if (this.plane !== "axial") {
      const last = this.slice.peek().of - 1;
      void viewport.setImageIdIndex(Math.max(0, Math.min(at, last))).catch(() => undefined);
      return;
    }
    const aim = Math.max(0, Math.min(at, series.slices.length - 1));
    const slice = series.slices[aim];
    this.aim = aim;
    if (slice === undefined) return;
    void comes(slice).then((came) => {
      if (!came || this.aim !== aim || this.series !== series || this.viewport !== viewport) return;
      void viewport.setImageIdIndex(aim).catch(() => undefined);
    });
  }

  /** Draws anew what was asked for last, after slices have come that had failed. */
  refresh(): void {
    if (this.aim !== null) this.goToSlice(this.aim);
    this.viewport?.render();
  }

  /** Zooms by a factor around the middle. */
  zoom(by: number): void {
    if (this.viewport === null) return;
    this.viewport.setZoom(Math.max(0.2, Math.min(30, this.viewport.getZoom() * by)));
    this.viewport.render();
  }

  /** Zooms by a factor, and takes what lay at one place of the screen to another. */
  pinch(by: number, from: [number, number], to: [number, number]): void {
    const world = this.toWorld(...from);
    if (this.viewport === null || world === null) return;
    const scale = Math.max(0.2, Math.min(30, this.viewport.getZoom() * by));
    const { clientWidth, clientHeight } = this.element;
    this.viewport.setViewState({
      anchorWorld: world,
      anchorCanvas: [to[0] / clientWidth, to[1] / clientHeight],
      scale: [scale, scale],
      scaleMode: "fit",
    });
    this.viewport.render();
  }

  /** Fits the image to the view. */
  reset(): void {
    this.viewport?.setViewState({ anchorWorld: undefined, anchorCanvas: [0.5, 0.5], scale: [1, 1], scaleMode: "fit" });
    this.viewport?.render();
  }

  /** Pixels of the page, from the view's corner, to LPS mm. */
  toWorld(x: number, y: number): Point | null {
    return this.series === null || this.viewport === null ? null : ([...this.viewport.canvasToWorld([x, y])] as Point);
  }

  /** LPS mm to pixels of the page, from the view's corner; the distance from the plane is lost. */
  toCanvas(world: Readonly<Point>): [number, number] | null {
    return this.series === null || this.viewport === null
      ? null
      : ([...this.viewport.worldToCanvas([...world] as Point)] as [number, number]);
  }

  /** How world and screen relate now. */
  frame(): Frame | null {
    const { clientWidth: width, clientHeight: height } = this.element;
    const [middle, beside, below] = [
      this.toWorld(width / 2, height / 2),
      this.toWorld(width / 2 + 100, height / 2),
      this.toWorld(width / 2, height / 2 + 100),
    ];
    if (middle === null || beside === null || below === null || width === 0) return null;
    const [right, down] = [minus(beside, middle), minus(below, middle)];
    const pixelsPerMm = 100 / (lengthOf(right) || 1);
    return {
      middle,
      right: unit(right),
      down: unit(down),
      normal: unit(cross(right, down)),
      pixelsPerMm,
      width,
      height,
    };
  }

  /** How far a place is from the plane that is shown, in mm. */
  distance(world: Readonly<Point>, frame: Frame): number {
    return Math.abs(dot(minus(world, frame.middle), frame.normal));
  }

  /** The place on the shown plane that is nearest to another. */
  onPlane(world: Readonly<Point>, frame: Frame): Point {
    return along(world, frame.normal, -dot(minus(world, frame.middle), frame.normal));
  }
}
