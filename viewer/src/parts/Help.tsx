/** All keys, from the same table that the keyboard is read with. */
import { helpShown } from "../reading/actions";
import { KEYS } from "../reading/keys";
import { about } from "../reading/session";
import { Dialog } from "./ui";

export function Help() {
  const groups = [...new Set(KEYS.map((key) => key.group))];
  return (
    <Dialog title="Keys" testId="help" onClose={() => (helpShown.value = false)}>
      <div class="help">
        {groups.map((group) => (
          <section key={group}>
            <h3>{group}</h3>
            <dl>
              {KEYS.filter((key) => key.group === group).map((key) => (
                <div key={key.key}>
                  <dt>
                    <kbd>{key.shown}</kbd>
                  </dt>
                  <dd>{key.does}</dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
        <section>
          <h3>Windows</h3>
          <dl>
            {about.value?.window_presets.map((preset) => (
              <div key={preset.key}>
                <dt>
                  <kbd>{preset.key}</kbd>
                </dt>
                <dd>
                  {preset.name}, {preset.center_hu} / {preset.width_hu} HU
                </dd>
              </div>
            ))}
          </dl>
        </section>
        <section>
          <h3>Mouse and touch</h3>
          <dl>
            <div>
              <dt>Left, one finger</dt>
              <dd>The chosen tool</dd>
            </div>
            <div>
              <dt>Right, two fingers</dt>
              <dd>Zoom</dd>
            </div>
            <div>
              <dt>Middle, Shift + left</dt>
              <dd>Pan</dd>
            </div>
            <div>
              <dt>Wheel, slider</dt>
              <dd>Slices; with Ctrl, zoom</dd>
            </div>
            <div>
              <dt>Click on a finding</dt>
              <dd>Select it</dd>
            </div>
          </dl>
        </section>
        <section>
          <h3>On a view with the focus, a tool that is clicked with in hand</h3>
          <dl>
            <div>
              <dt>
                <kbd>Enter</kbd>
              </dt>
              <dd>Click at the crosshairs, or in the middle; a box of 20 mm around it</dd>
            </div>
            <div>
              <dt>
                <kbd>↑ ↓ ← →</kbd>
              </dt>
              <dd>Move the crosshairs by 1 mm; with Shift, by 10 mm</dd>
            </div>
          </dl>
        </section>
        <section>
          <h3>This program</h3>
          <p>
            {about.value?.name} {about.value?.version}. {about.value?.disclaimer}
          </p>
          <p class="quiet">Networks: {about.value?.bundles.join(", ")}</p>
          <p>
            <a href="assets/licenses.md" target="_blank" rel="noreferrer">
              Licenses of the parts of this page
            </a>
          </p>
        </section>
      </div>
    </Dialog>
  );
}
