/** Tools, windows and layouts, each with its key. */
import { about } from "../reading/session";
import { linked, prior } from "../reading/prior";
import { takePreset } from "../reading/room";
import { attentionShown, huWindow, layout, outlinesShown, study, tool, type Tool } from "../reading/study";
import { ActionButton } from "./ui";

const TOOLS: [Tool, string, string][] = [
  ["window", "Window", "Window"],
  ["zoom", "Zoom", "Zoom"],
  ["pan", "Pan", "Pan"],
  ["length", "Measure a length", "Length"],
  ["ellipse", "Mean and SD of HU in an ellipse", "Ellipse"],
  ["crosshairs", "Crosshairs through all planes", "Cross"],
  ["box", "Similar cases: draw a box", "Box"],
  ["point", "Similar cases: click a place", "Point"],
  ["add", "Add a finding: click", "Add"],
];

export function Toolbar() {
  return (
    <div class="toolbar" role="toolbar" aria-label="Tools">
      {TOOLS.map(([name, label, text]) => (
        <ActionButton key={name} action={name} label={label} text={text} on={tool.value === name} />
      ))}
      <span class="gap" />
      <Presets />
      <span class="gap" />
      <ActionButton action="outlines" label="Findings on the images" text="Outlines" on={outlinesShown.value} />
      <ActionButton action="attention" label="Where the network looks" text="Attention" on={attentionShown.value} />
      <ActionButton action="layout" label="Axial alone" text="Axial" on={layout.value === "axial"} />
      <ActionButton
        action="prior"
        label="A prior study beside"
        text="Prior"
        on={prior.value !== null}
        off={!study.value?.priors.length}
      />
      {prior.value !== null && <ActionButton action="link" label="Linked scrolling" text="Link" on={linked.value} />}
      <ActionButton action="delete" label="Remove measurements" text="Clear" />
      <ActionButton action="reset" label="Reset views and window" text="Reset" />
    </div>
  );
}

function Presets() {
  const { center, width } = huWindow.value;
  const taken = about.value?.window_presets.find((preset) => preset.center_hu === center && preset.width_hu === width);
  return (
    <label class="presets">
      <span class="hidden">Window preset</span>
      <select
        value={taken?.key ?? ""}
        data-testid="presets"
        title="Window presets (1, 2, …)"
        onChange={(event) => (takePreset(event.currentTarget.value), event.currentTarget.blur())}
      >
        {taken === undefined && (
          <option value="">
            {center} / {width} HU
          </option>
        )}
        {about.value?.window_presets.map((preset) => (
          <option key={preset.key} value={preset.key} title={`${preset.center_hu} / ${preset.width_hu} HU`}>
            {preset.key} {preset.name}
          </option>
        ))}
      </select>
    </label>
  );
}
