// 맞음 / 오탐 / 놓침: was the machine right? Said of an alert or a call, never of a person.
import { problemOf, request } from "./link.js";
import { has } from "./strings.js";

export const VERDICTS = ["confirmed", "refuted", "missed"];

/** Show which of the two was said. */
export function markVerdict(button, said) {
  button.setAttribute("aria-pressed", String(said));
}

/**
 * Say it of each alert and keep it there.
 *
 * Gives the key of what went wrong, or null.
 */
export async function sayVerdict(alerts, verdict) {
  for (const alert of alerts) {
    const answer = await request(`/alerts/${alert.alert_id}/verdict`, "POST", { verdict });
    if (answer.status !== 200) {
      const problem = `problem.${problemOf(answer)}`;
      return has(problem) ? problem : "problem.other";
    }
    alert.verdict = answer.body.verdict;
  }
  return null;
}

/** Say it of a whole call; what it is asked of when no alert was raised, or one was missed. */
export async function sayOfCall(callId, verdict) {
  const answer = await request(`/calls/${callId}/verdict`, "POST", { verdict });
  if (answer.status === 200) return null;
  const problem = `problem.${problemOf(answer)}`;
  return has(problem) ? problem : "problem.other";
}
