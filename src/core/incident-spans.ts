import { INCIDENT_GAUGES } from './metric-names.js'
import type { TimeSpan } from './range-answer.js'

const TEMPERATURE = INCIDENT_GAUGES.temperature.name
const SEVERITY = INCIDENT_GAUGES.severity.name

/** Answers something while an incident is open, or still cooling. */
export const INCIDENT_NOW_QUERY = `max(${TEMPERATURE}) > 0 or max(${SEVERITY}) > 0`

/** Answers something at each step before which, back to the last step, there was heat; the label set is empty. */
export function incidentTimesQuery(stepSeconds: number): string {
  const step = `${Math.round(stepSeconds * 1000)}ms`
  // The gauges as they are, too: a step may be shorter than a scrape interval.
  return [TEMPERATURE, SEVERITY]
    .flatMap((name) => [`max(${name}) > 0`, `max(max_over_time(${name}[${step}])) > 0`])
    .join(' or ')
}

/**
 * Which times of a recording show an incident: those at which there was heat, and those behind it whose rate window still
 * reaches back into it.
 *
 * @param hotSeconds - the times that `incidentTimesQuery` answers, rising
 */
export function incidentSpans(
  hotSeconds: readonly number[],
  options: {
    readonly stepSeconds: number
    /** The rate window. */
    readonly windowSeconds: number
    readonly startSeconds: number
    readonly endSeconds: number
  },
): readonly TimeSpan[] {
  const { stepSeconds, windowSeconds, startSeconds, endSeconds } = options
  const spans: { fromSeconds: number; toSeconds: number }[] = []
  for (const fromSeconds of hotSeconds) {
    const toSeconds = fromSeconds + windowSeconds
    const last = spans.at(-1)
    // No sample lies between a span and one that begins within a step of its end.
    if (last !== undefined && fromSeconds - last.toSeconds <= stepSeconds) last.toSeconds = toSeconds
    else spans.push({ fromSeconds, toSeconds })
  }
  return spans
    .filter(({ fromSeconds, toSeconds }) => toSeconds >= startSeconds && fromSeconds <= endSeconds)
    .map(({ fromSeconds, toSeconds }) => ({
      fromSeconds: Math.max(fromSeconds, startSeconds),
      toSeconds: Math.min(toSeconds, endSeconds),
    }))
}
