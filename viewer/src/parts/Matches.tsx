/** Past cases that look like what was asked, and what they say. */
import type { Match, Scope } from "../api/types";
import { answer, ask, question, refusal, scope, searching, where } from "../reading/matches";
import { about } from "../reading/session";
import { decimals, words } from "../text/format";
import { EvidenceText } from "./FindingDetails";
import { ActionButton } from "./ui";

export function MatchesPanel() {
  const facts = about.value?.index;
  if (about.value !== null && !facts) return <p class="empty">There is no index of past cases on this server.</p>;
  return (
    <>
      <div class="verdict">
        <ActionButton action="similar" label="Of the finding" />
        <ActionButton action="box" label="Draw a box" />
        <ActionButton action="point" label="Click a place" />
      </div>
      <Filter />
      <p class="quiet">
        {facts && `${facts.findings} findings of ${facts.patients} patients in ${facts.name}`}
        {question.value !== null && ` · like ${question.value.words}`}
      </p>
      {searching.value && <p role="status">Searching …</p>}
      {refusal.value !== "" && (
        <p class="wrong" data-testid="search-refusal">
          {refusal.value}
        </p>
      )}
      {question.value === null && <p class="empty">Ask for past cases like a finding, a box or a place.</p>}
      {answer.value !== null && <Answer />}
    </>
  );
}

function Filter() {
  return (
    <form class="where" onSubmit={(event) => (event.preventDefault(), void ask())}>
      <label>
        Where
        <input
          value={where.value}
          maxLength={500}
          placeholder="diameter_mm > 6 and …"
          spellcheck={false}
          data-testid="search-where"
          list="index-fields"
          title={`Fields: ${about.value?.index?.fields.join(", ") ?? ""}`}
          onInput={(event) => (where.value = event.currentTarget.value)}
        />
      </label>
      <datalist id="index-fields">
        {about.value?.index?.fields.map((field) => (
          <option key={field} value={field} />
        ))}
      </datalist>
      <label>
        Patients
        <select
          value={scope.value}
          data-testid="search-scope"
          onChange={(event) => ((scope.value = event.currentTarget.value as Scope), void ask())}
        >
          <option value="all">All</option>
          <option value="cross-patient">Others</option>
          <option value="same-patient">The same</option>
        </select>
      </label>
      <button type="submit" disabled={question.value === null || searching.value} data-testid="search-again">
        Search
      </button>
    </form>
  );
}

function Answer() {
  const found = answer.value;
  if (found === null) return null;
  return (
    <div aria-busy={searching.value}>
      {found.picture && (
        <figure class="asked">
          <img src={found.picture} alt="What was asked" width={96} height={96} />
          <figcaption class="quiet">What was asked</figcaption>
        </figure>
      )}
      <EvidenceText evidence={found.evidence} />
      {found.matches.length === 0 && <p class="empty">No past case fits the filter.</p>}
      <ol class="matches">
        {found.matches.map((match) => (
          <Row key={match.rank} match={match} />
        ))}
      </ol>
    </div>
  );
}

const HIDDEN = /(_uid|_path|^path|^pid$|^nodule_id$|^[xyz]_mm$|^outcome)/;

function Row({ match }: { match: Match }) {
  const facts = Object.entries(match.facts).filter(
    ([name, value]) => value !== null && value !== "" && !HIDDEN.test(name),
  );
  const text = (value: string | number | boolean | null): string =>
    typeof value === "number" ? decimals(value, Number.isInteger(value) ? 0 : 1) : String(value);
  return (
    <li class="match" data-testid="match-row">
      {match.picture ? (
        <img src={match.picture} alt={`Case ${match.rank}`} width={96} height={96} loading="lazy" />
      ) : (
        <div class="no-picture">no picture</div>
      )}
      <div>
        <div class="match-line">
          <strong>
            {match.rank}. {match.pid}
          </strong>
          <span class="quiet" title="Distance to what was asked">
            {decimals(match.distance, 3)}
          </span>
        </div>
        {match.outcome !== "" && <p class="outcome">{match.outcome}</p>}
        <p class="quiet facts-line">
          {facts
            .slice(0, 12)
            .map(([name, value]) => `${words(name)} ${text(value)}`)
            .join(" · ")}
        </p>
      </div>
    </li>
  );
}
