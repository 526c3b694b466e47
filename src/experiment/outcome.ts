import type { Severity, Transition } from '../core/incident.js'
import { pairName } from '../core/pair.js'
import { percent, rounded } from '../core/plain-text.js'
import type { Table } from '../report/report.js'
import type { Expected, Fault } from './experiment-file.js'

/** Whether a fault could be seen where it should: in the latency that the callers' sidecars measured. */
export interface FaultEffect {
  readonly fault: Fault
  /** One for each of the fault's pairs, in order. */
  readonly pairs: readonly PairEffect[]
}

export interface PairEffect {
  /** The bound of a histogram bucket, milliseconds, that the delay lifts requests over. */
  readonly boundMs: number
  /** The share of requests slower than that, in training. Null without requests. */
  readonly shareBefore: number | null
  /** The largest since the fault began; null without requests. */
  readonly shareSince: number | null
  /** When it was first seen, seconds since the fault began; null: never. */
  readonly seenAfterSeconds: number | null
}

/** What an experiment came to. */
export interface Happened {
  /** In time order. */
  readonly transitions: readonly {
    readonly timestampSeconds: number
    readonly transition: Transition
    readonly severity: Severity | null
  }[]
  /** Anomalous polls of all pairs. */
  readonly anomalies: number
  /** When the first fault came and the last one went, unix seconds; null without faults. */
  readonly faults: { readonly fromSeconds: number; readonly toSeconds: number } | null
  readonly effects: readonly FaultEffect[]
}

/** One thing that was expected, and what was seen. */
export interface Check {
  readonly what: string
  readonly expected: string
  readonly seen: string
  readonly agrees: boolean
}

export interface Outcome {
  readonly asExpected: boolean
  /** The highest severity that was reached. */
  readonly severity: Severity | null
  /** From the start of the first fault; null: not reached, or there was no fault. */
  readonly sev2Seconds: number | null
  readonly sev1Seconds: number | null
  /** From the end of the last fault until the last incident was resolved. */
  readonly resolvedSeconds: number | null
  readonly anomalies: number
  readonly checks: readonly Check[]
}

export function outcomeOf(expected: Expected, happened: Happened): Outcome {
  const { transitions, anomalies, faults, effects } = happened
  const reached = (worst: Severity): number | undefined =>
    transitions.find(({ severity }) => severity !== null && severity <= worst)?.timestampSeconds
  const [sev1At, sev2At] = [reached(1), reached(2)]
  const severity = sev1At !== undefined ? 1 : sev2At !== undefined ? 2 : null
  const sinceStart = (at: number | undefined): number | null =>
    at === undefined || faults === null ? null : at - faults.fromSeconds
  const last = transitions.at(-1)
  const resolvedSeconds =
    last?.transition === 'resolved' && faults !== null ? last.timestampSeconds - faults.toSeconds : null
  const [sev2Seconds, sev1Seconds] = [sinceStart(sev2At), sinceStart(sev1At)]
  const checks: readonly Check[] = [
    {
      what: 'highest severity',
      expected: severityText(expected.severity),
      seen: severityText(severity),
      agrees: severity === expected.severity,
    },
    ...(sev2Seconds === null && expected.severity === null
      ? []
      : [reachedCheck('Sev 2', sev2Seconds, expected.severity === null ? undefined : expected.sev2WithinSeconds)]),
    ...(sev1Seconds === null && expected.severity !== 1
      ? []
      : [reachedCheck('Sev 1', sev1Seconds, expected.sev1WithinSeconds)]),
    ...(severity === null && expected.severity === null ? [] : [resolvedCheck(expected, { last, resolvedSeconds })]),
    anomaliesCheck(expected, anomalies),
    ...effects.map(effectCheck),
  ]
  return {
    asExpected: checks.every(({ agrees }) => agrees),
    severity,
    sev2Seconds,
    sev1Seconds,
    resolvedSeconds,
    anomalies,
    checks,
  }
}

function severityText(severity: Severity | null): string {
  return severity === null ? 'no incident' : `Sev ${severity}`
}

function withinText(limit: number | undefined): string {
  return limit === undefined ? 'any time' : `within ${rounded(limit)} s`
}

/** What happened before the fault is put down to something else. */
function reachedCheck(what: string, seconds: number | null, limit: number | undefined): Check {
  const seen =
    seconds === null
      ? 'not reached'
      : seconds < 0
        ? `${rounded(-seconds)} s before the fault came`
        : `${rounded(seconds)} s after the fault came`
  return {
    what,
    expected: withinText(limit),
    seen,
    agrees: seconds !== null && seconds >= 0 && (limit === undefined || seconds <= limit),
  }
}

function resolvedCheck(
  { resolvedWithinSeconds }: Expected,
  {
    last,
    resolvedSeconds,
  }: { readonly last: Happened['transitions'][number] | undefined; readonly resolvedSeconds: number | null },
): Check {
  const seen =
    resolvedSeconds !== null
      ? resolvedSeconds < 0
        ? `${rounded(-resolvedSeconds)} s before the fault went`
        : `${rounded(resolvedSeconds)} s after the fault went`
      : last === undefined
        ? 'no incident'
        : last.transition === 'resolved'
          ? 'yes'
          : last.transition === 'expired'
            ? 'expired'
            : 'still open'
  const inTime =
    resolvedSeconds !== null && resolvedSeconds >= 0 && resolvedSeconds <= (resolvedWithinSeconds ?? Infinity)
  return {
    what: 'resolved',
    expected: resolvedWithinSeconds === undefined ? 'any time, or not' : withinText(resolvedWithinSeconds),
    seen,
    agrees: resolvedWithinSeconds === undefined || inTime,
  }
}

function anomaliesCheck({ anomalies: wanted }: Expected, anomalies: number): Check {
  return {
    what: 'anomalies',
    expected: wanted === undefined ? 'any number' : wanted ? 'some' : 'none',
    seen: String(anomalies),
    agrees: wanted === undefined || wanted === anomalies > 0,
  }
}

function effectCheck({ fault, pairs }: FaultEffect): Check {
  const seen = fault.pairs.map((pair, i) => `${pairName(pair)}: ${effectText(pairs[i])}`)
  return {
    what: `fault ${JSON.stringify(fault.name)}`,
    expected: `takes effect: ${rounded(fault.delayMs)} ms for ${rounded(fault.percent)} % of requests`,
    seen: seen.join('; '),
    agrees: pairs.length > 0 && pairs.every(({ seenAfterSeconds }) => seenAfterSeconds !== null),
  }
}

function effectText(effect: PairEffect | undefined): string {
  if (effect?.shareSince === undefined || effect.shareSince === null) return 'no request while it was in force'
  const { boundMs, shareBefore, shareSince, seenAfterSeconds } = effect
  const shares = `${percent(shareSince)} of requests slower than ${rounded(boundMs)} ms, ${shareBefore === null ? 'none measured' : percent(shareBefore)} in training`
  return seenAfterSeconds === null ? `NO EFFECT: ${shares}` : `after ${rounded(seenAfterSeconds)} s, ${shares}`
}

/** For the terminal and the report. */
export function outcomeTable({ checks, asExpected }: Outcome): Table {
  return {
    title: 'Expected and seen',
    columns: ['what', 'expected', 'seen', ''],
    rows: checks.map(({ what, expected, seen, agrees }) => [what, expected, seen, agrees ? 'ok' : 'NOT AS EXPECTED']),
    note: asExpected ? 'Everything was as expected.' : 'Not everything was as expected.',
  }
}
