/** All that is said of a finding. */
import type { ComponentChildren } from "preact";
import type { Evidence, Finding, Guideline, Trait, Word } from "../api/types";
import { openPrior } from "../reading/prior";
import { study } from "../reading/study";
import { date, days, decimals, interval, mm, percent, place, volume } from "../text/format";
import { Fact, ShareBar } from "./ui";

export function FindingDetails({ finding }: { finding: Finding }) {
  const risk = finding.malignancy;
  return (
    <>
      <dl class="facts">
        <Fact name="Long × short axis">
          {mm(finding.long_axis_mm)} × {mm(finding.short_axis_mm)}
        </Fact>
        <Fact name="Mean diameter">{mm(finding.diameter_mm)}</Fact>
        <Fact name="Volume">{volume(finding.volume_mm3)}</Fact>
        <Fact name="Mean density">{finding.mean_hu === null ? "–" : `${decimals(finding.mean_hu, 0)} HU`}</Fact>
        <Fact name="Center, LPS">{place(finding.center_xyz_mm)} mm</Fact>
        <Fact name="Detector’s score">{finding.by_program ? decimals(finding.score, 2) : "added by a reader"}</Fact>
      </dl>
      {finding.note !== "" && (
        <p class="note" data-testid="note">
          “{finding.note}”
        </p>
      )}
      {risk && (
        <Part name="Malignancy">
          <div class="labeled">
            <ShareBar label="Malignancy" share={risk.probability} bounds={risk.interval} tone="risk" />
            <strong data-testid="malignancy">{percent(risk.probability)}</strong>
          </div>
          {risk.interval && <p class="quiet">90 % interval {interval(risk.interval)}</p>}
        </Part>
      )}
      {finding.growth.length > 0 && <GrowthTable finding={finding} />}
      <Advice advice={finding.lung_rads} />
      <Advice advice={finding.fleischner} />
      {finding.traits.length > 0 && <Traits traits={finding.traits} />}
      {finding.words.length > 0 && <Words words={finding.words} />}
      {finding.evidence && <EvidenceText evidence={finding.evidence} />}
    </>
  );
}

/** A part with its heading. */
function Part({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <section class="part">
      <h3>{name}</h3>
      {children}
    </section>
  );
}

function Advice({ advice }: { advice: Guideline | null }) {
  if (advice === null) return null;
  return (
    <Part name={advice.system}>
      <p>
        <strong class="category">{advice.category}</strong> {advice.management}
      </p>
      {advice.given.length > 0 && <p class="quiet">From: {advice.given.join(", ")}</p>}
      {advice.lacking.length > 0 && <p class="quiet">Not known: {advice.lacking.join(", ")}</p>}
    </Part>
  );
}

function Traits({ traits }: { traits: readonly Trait[] }) {
  return (
    <Part name="Traits">
      <ul class="traits">
        {traits.map((trait) => (
          <li key={trait.name} data-testid="trait">
            <span class={trait.probability < 0.5 ? "stronger" : ""}>{trait.against}</span>
            <ShareBar label={trait.label} share={trait.probability} bounds={trait.interval} />
            <span class={trait.probability >= 0.5 ? "stronger" : ""}>{trait.label}</span>
          </li>
        ))}
      </ul>
    </Part>
  );
}

function Words({ words }: { words: readonly Word[] }) {
  const groups = [
    ["for", "Speaks for malignancy"],
    ["against", "Speaks against"],
    ["neither", "Speaks for neither"],
  ] as const;
  return (
    <Part name="In words">
      {groups.map(([side, name]) => {
        const some = words.filter((word) => word.speaks === side);
        return some.length === 0 ? null : (
          <div key={side} class={`words ${side}`}>
            <h4>{name}</h4>
            <ul>
              {some.map((word, number) => (
                <li key={number}>
                  {word.text} <span class="quiet">{percent(word.share)}</span>
                </li>
              ))}
            </ul>
          </div>
        );
      })}
    </Part>
  );
}

/** What past cases say. */
export function EvidenceText({ evidence }: { evidence: Evidence }) {
  return (
    <Part name="Past cases">
      {evidence.malignant !== null && (
        <div class="labeled">
          <ShareBar
            label="Malignant among past cases"
            share={evidence.malignant}
            bounds={evidence.interval}
            tone="risk"
          />
          <strong>{percent(evidence.malignant)}</strong>
        </div>
      )}
      {evidence.unlike_any && <p class="wrong">Nothing in the index is like this.</p>}
      <ul class="sentences">
        {evidence.sentences.map((sentence, number) => (
          <li key={number}>{sentence}</li>
        ))}
      </ul>
    </Part>
  );
}

function GrowthTable({ finding }: { finding: Finding }) {
  const dateOf = (uid: string): string =>
    date(study.value?.priors.find((other) => other.study_uid === uid)?.study_date);
  return (
    <Part name="Growth">
      <ul class="growth">
        {finding.growth.map((one) => (
          <li key={one.prior_study_uid} data-testid="growth">
            <button type="button" onClick={() => void openPrior(one.prior_study_uid)}>
              {dateOf(one.prior_study_uid)}{" "}
              <span class="quiet">
                {days(one.days)} {one.days < 0 ? "later" : "before"}
              </span>
            </button>
            <span>
              {mm(one.diameter_before_mm)} → {mm(finding.diameter_mm)}
              {one.growth_mm !== null && (
                <>
                  {" "}
                  ({one.growth_mm > 0 ? "+" : ""}
                  {mm(one.growth_mm)})
                </>
              )}
            </span>
            <span>
              {one.volume_doubling_time_days === null
                ? "no doubling time"
                : `doubles in ${decimals(one.volume_doubling_time_days, 0)} days`}
            </span>
          </li>
        ))}
      </ul>
    </Part>
  );
}
