/** Cornerstone3D, started once: how it draws on this machine, where it decodes, which tools it has. */
import * as core from "@cornerstonejs/core";
import * as loader from "@cornerstonejs/dicom-image-loader";
import * as tools from "@cornerstonejs/tools";
import { loginWanted } from "../api/client";
import { followFailures } from "./failures";
import { drawPagePixels, standInForWebGl } from "./processor";

export const ENGINE = "reading";
export const TOOLS = "reading-tools";

/** Tools that Cornerstone3D itself has, by our names. */
export const NATIVE_TOOLS = {
  window: tools.WindowLevelTool.toolName,
  zoom: tools.ZoomTool.toolName,
  pan: tools.PanTool.toolName,
  scroll: tools.StackScrollTool.toolName,
  length: tools.LengthTool.toolName,
  ellipse: tools.EllipticalROITool.toolName,
} as const;

export type NativeTool = keyof typeof NATIVE_TOOLS;

let started: Promise<core.RenderingEngine> | undefined;

/** Starts it, or gives what was started; without a GPU everything is drawn by the processor. */
export function engine(): Promise<core.RenderingEngine> {
  started ??= start();
  return started;
}

async function start(): Promise<core.RenderingEngine> {
  const { webgl, softwareRasterizer } = core.getRenderingCapabilities();
  const byProcessor = !webgl || softwareRasterizer;
  const planar = { cpuVolume: { volumeModifiedThrottleMs: 700 } };
  core.init({ rendering: { planar, ...(byProcessor ? { webGlContextCount: 1 } : {}) } } as Parameters<
    typeof core.init
  >[0]);
  if (byProcessor) drawPagePixels();
  if (!webgl) standInForWebGl();
  // a volume that is drawn while it comes in would say so for every slice that is still on its way
  core.utilities.logger.coreLog.getLogger("utilities", "VoxelManager").setLevel("error");
  if (byProcessor) core.setUseCPURendering(true);
  const cores = navigator.hardwareConcurrency || 2;
  loader.init({
    maxWebWorkers: Math.max(1, Math.min(4, cores - 1)),
    strict: false,
    errorInterceptor: (error: { status?: number }) => {
      if (error.status === 401) loginWanted.value = true;
    },
  });
  followFailures();
  core.imageLoadPoolManager.setMaxSimultaneousRequests(core.Enums.RequestType.Prefetch, 6);
  tools.init();
  const group = tools.ToolGroupManager.createToolGroup(TOOLS);
  for (const tool of [
    tools.WindowLevelTool,
    tools.ZoomTool,
    tools.PanTool,
    tools.StackScrollTool,
    tools.LengthTool,
    tools.EllipticalROITool,
  ]) {
    tools.addTool(tool);
    group?.addTool(tool.toolName);
  }
  takeTool("window");
  return new core.RenderingEngine(ENGINE);
}

const { MouseBindings, KeyboardBindings } = tools.Enums;

/** Gives the left button, and one finger, to a tool; the others keep theirs. Null takes it from all. */
export function takeTool(taken: NativeTool | null): void {
  const group = tools.ToolGroupManager.getToolGroup(TOOLS);
  if (group === undefined) return;
  const fixed: Record<NativeTool, { mouseButton?: number; modifierKey?: number; numTouchPoints?: number }[]> = {
    window: [],
    zoom: [
      { mouseButton: MouseBindings.Secondary },
      { mouseButton: MouseBindings.Wheel, modifierKey: KeyboardBindings.Ctrl },
    ],
    pan: [
      { mouseButton: MouseBindings.Auxiliary },
      { mouseButton: MouseBindings.Primary, modifierKey: KeyboardBindings.Shift },
    ],
    scroll: [{ mouseButton: MouseBindings.Wheel }],
    length: [],
    ellipse: [],
  };
  for (const [name, toolName] of Object.entries(NATIVE_TOOLS) as [NativeTool, string][]) {
    const bindings = [...fixed[name]];
    if (name === taken) bindings.push({ mouseButton: MouseBindings.Primary }, { numTouchPoints: 1 });
    group.setToolPassive(toolName, { removeAllBindings: true });
    if (bindings.length > 0) group.setToolActive(toolName, { bindings });
  }
}

/** Removes the measurements of a study. */
export function removeMeasurements(studyUid: string, frameOfReferenceUid: string | undefined): void {
  for (const { annotationUID, metadata } of [...tools.annotation.state.getAllAnnotations()]) {
    const image = metadata?.referencedImageId;
    const here = image
      ? image.includes(`/studies/${studyUid}/`)
      : frameOfReferenceUid === undefined || metadata?.FrameOfReferenceUID === frameOfReferenceUid;
    if (here && annotationUID) tools.annotation.state.removeAnnotation(annotationUID);
  }
  redrawMeasurements();
}

/** Removes the measurements that are selected; whether there was one. */
export function removeSelectedMeasurements(): boolean {
  const chosen = tools.annotation.selection.getAnnotationsSelected();
  for (const uid of chosen) tools.annotation.state.removeAnnotation(uid);
  redrawMeasurements();
  return chosen.length > 0;
}

function redrawMeasurements(): void {
  const ids =
    core
      .getRenderingEngine(ENGINE)
      ?.getViewports()
      .map((viewport) => viewport.id) ?? [];
  tools.utilities.triggerAnnotationRenderForViewportIds(ids);
}
