/*
 * What detection is worth, held against what really happened.
 *
 * event     one fault window. It shows from its start until `tailSeconds` after its end, since latency is a rate over a window.
 * opening   the poll at which an incident opens. Incidents are of the whole mesh.
 * normal    neither while a fault or a transient shows
 *
 * On one pair, with windows that say when the effect showed and not when the cause held (a tail of 0), these are the
 * measures of the common latency benchmarks: an opening in the window finds the event, one in normal traffic is false.
 */
import { median } from 'simple-statistics'

import type { Course, CourseTransition, JudgedSample } from './backtest.js'
import type { FaultWindow, GroundTruth, Window } from './ground-truth.js'
import type { Poll } from './incident.js'
import { type Pair, pairKey } from './pair.js'

export interface MeasureRules {
  readonly pollIntervalSeconds: number
  /** So long a fault or a transient still shows after its end: the rate window of the latency. */
  readonly tailSeconds: number
  /** So long after its end an incident is still put down to a transient, at least the tail. */
  readonly transientAfterSeconds: number
}

/** What transientAfterSeconds is unless someone says: in rate windows. */
export const TRANSIENT_AFTER_WINDOWS = 5

/** What came of one event. Seconds; null: it did not happen, or it cannot be said. */
export interface FaultOutcome {
  readonly fault: FaultWindow
  /**
   * Whether something was said while it showed: an incident opened, or an open one was escalated, with one of its pairs not
   * cold. Null when nothing could see it: no sample of its pairs was judged, it was under way before the first poll, or the
   * polls ended before it did and it had not been found by then.
   */
  readonly found: boolean | null
  /** From its start to the first anomalous sample of one of its pairs. */
  readonly toAnomalySeconds: number | null
  /** From its start to the opening. */
  readonly toSev2Seconds: number | null
  /** From its start to Sev 1, be it at the opening or by escalation. */
  readonly toSev1Seconds: number | null
  /**
   * From its end to the poll that resolved the incident that was open then, or that opened in its tail. Null also when it
   * expired, and when another fault began before and ended later: the incident was kept open by that one.
   */
  readonly toResolvedSeconds: number | null
}

export interface TransientOutcome {
  readonly transient: Window
  /**
   * True when no incident is put down to it: none opened while it showed, nor after it until transientAfterSeconds and the
   * next transient. An opening while a fault shows is the fault's. Null when no sample was judged while it showed, or an
   * incident opened while it and a fault did.
   */
  readonly tolerated: boolean | null
  /** Anomalous samples while it showed. */
  readonly anomalies: number
}

/** Null: it cannot be said, for want of ground truth or of anything to say it of. Never 0 for that. */
export interface Measures {
  /** Time of the polls that knew something of a pair. */
  readonly observedSeconds: number
  readonly incidents: number
  readonly incidentsPerWeek: number | null
  /** Share of the events that were found, of those that could be seen. */
  readonly eventRecall: number | null
  /** Medians over the events in which it happened. */
  readonly toAnomalySeconds: number | null
  readonly toSev2Seconds: number | null
  readonly toSev1Seconds: number | null
  readonly toResolvedSeconds: number | null
  /** Anomalous samples per thousand judged ones, in normal traffic. */
  readonly falseAnomaliesPerThousand: number | null
  /** Time of the polls that knew something of a pair, in normal traffic. */
  readonly normalSeconds: number | null
  /** Openings put down to nothing. */
  readonly falseIncidents: number | null
  /** Per day of normal time. */
  readonly falseIncidentsPerDay: number | null
  /** Share of the transients that could be seen. */
  readonly toleratedShare: number | null
  readonly faults: readonly FaultOutcome[]
  readonly transients: readonly TransientOutcome[]
}

export interface Measured {
  readonly pairs: readonly Pair[]
  /** A list for each pair, in time order. */
  readonly samples: readonly (readonly JudgedSample[])[]
  readonly polls: readonly Poll[]
  readonly course: Course
  /** Null: not known what really happened. */
  readonly truth: GroundTruth | null
  readonly rules: MeasureRules
}

const DAY_SECONDS = 86_400
const WEEK_SECONDS = 7 * DAY_SECONDS

export function measure(measured: Measured): Measures {
  const { polls, course, truth, rules } = measured
  const known = polls.filter(({ verdicts }) => verdicts.some(({ kind }) => kind !== 'unknown'))
  const observedSeconds = known.length * rules.pollIntervalSeconds
  const openings = course.transitions.filter(({ transition }) => transition === 'opened')
  const always = {
    observedSeconds,
    incidents: openings.length,
    incidentsPerWeek: ratio(openings.length, observedSeconds / WEEK_SECONDS),
  }
  if (truth === null) return { ...always, ...NOTHING_KNOWN }

  const faults = truth.faults.map((fault) => faultOutcome(fault, measured, truth))
  const { outcomes: transients, falseIncidents } = blame(openings, measured, truth)
  const shows = [...truth.faults, ...truth.transients].map((window) => shown(window, rules))
  const normal = (timestampSeconds: number): boolean => !shows.some((span) => within(timestampSeconds, span))
  const judged = measured.samples.flatMap((samples) =>
    samples.filter((sample) => sample.anomalyCount !== null && normal(sample.timestampSeconds)),
  )
  const anomalous = judged.filter(isAnomalous).length
  const normalPolls = known.filter(({ timestampSeconds }) => normal(timestampSeconds)).length
  const normalSeconds = normalPolls * rules.pollIntervalSeconds
  const middle = (value: (outcome: FaultOutcome) => number | null): number | null => {
    const values = faults.flatMap((outcome) => value(outcome) ?? [])
    return values.length === 0 ? null : median(values)
  }
  return {
    ...always,
    eventRecall: share(faults.map(({ found }) => found)),
    toAnomalySeconds: middle(({ toAnomalySeconds }) => toAnomalySeconds),
    toSev2Seconds: middle(({ toSev2Seconds }) => toSev2Seconds),
    toSev1Seconds: middle(({ toSev1Seconds }) => toSev1Seconds),
    toResolvedSeconds: middle(({ toResolvedSeconds }) => toResolvedSeconds),
    falseAnomaliesPerThousand: ratio(1000 * anomalous, judged.length),
    normalSeconds,
    falseIncidents,
    falseIncidentsPerDay: ratio(falseIncidents, normalSeconds / DAY_SECONDS),
    toleratedShare: share(transients.map(({ tolerated }) => tolerated)),
    faults,
    transients,
  }
}

const NOTHING_KNOWN = {
  eventRecall: null,
  toAnomalySeconds: null,
  toSev2Seconds: null,
  toSev1Seconds: null,
  toResolvedSeconds: null,
  falseAnomaliesPerThousand: null,
  normalSeconds: null,
  falseIncidents: null,
  falseIncidentsPerDay: null,
  toleratedShare: null,
  faults: [],
  transients: [],
} as const

/** From, up to. */
type Span = readonly [fromSeconds: number, toSeconds: number]

function within(seconds: number, [from, to]: Span): boolean {
  return seconds >= from && seconds < to
}

function shown({ fromSeconds, toSeconds }: Window, { tailSeconds }: MeasureRules): Span {
  return [fromSeconds, toSeconds + tailSeconds]
}

function isAnomalous({ anomalyCount }: JudgedSample): boolean {
  return anomalyCount !== null && anomalyCount > 0
}

function ratio(count: number, of: number): number | null {
  return of > 0 ? count / of : null
}

/** Times are milliseconds, written in seconds: so is their difference. */
function elapsed(fromSeconds: number, toSeconds: number): number {
  return Math.round(1000 * (toSeconds - fromSeconds)) / 1000
}

/** The share of true among what is known. */
function share(values: readonly (boolean | null)[]): number | null {
  const known = values.filter((value) => value !== null)
  return ratio(known.filter(Boolean).length, known.length)
}

function faultOutcome(fault: FaultWindow, measured: Measured, truth: GroundTruth): FaultOutcome {
  const { pairs, samples, polls, course, rules } = measured
  const { fromSeconds, toSeconds } = fault
  const span = shown(fault, rules)
  const keys = new Set(fault.pairs.map(pairKey))
  const its = pairs.map((pair) => keys.size === 0 || keys.has(pairKey(pair)))
  const warm = (accumulators: readonly number[]): boolean => accumulators.some((level, i) => level > 0 && its[i])

  const judged = samples.flatMap((pair, i) =>
    its[i] === true ? pair.filter((one) => one.anomalyCount !== null && within(one.timestampSeconds, span)) : [],
  )
  const anomalies = judged.filter(isAnomalous).map(({ timestampSeconds }) => timestampSeconds)
  const said = course.transitions.filter(
    ({ transition, timestampSeconds, accumulators }) =>
      (transition === 'opened' || transition === 'escalated') && within(timestampSeconds, span) && warm(accumulators),
  )
  const opened = said.find(({ transition }) => transition === 'opened')
  const worst = said.find(({ severity }) => severity === 1)
  const first = polls[0]?.timestampSeconds ?? Infinity
  const last = polls.at(-1)?.timestampSeconds ?? -Infinity
  const startSeen = fromSeconds >= first - rules.pollIntervalSeconds
  const endSeen = toSeconds <= last + rules.pollIntervalSeconds
  const seen = judged.length > 0 && startSeen && (endSeen || said.length > 0)
  const since = (time: number | undefined): number | null =>
    seen && time !== undefined ? elapsed(fromSeconds, time) : null
  return {
    fault,
    found: seen ? said.length > 0 : null,
    toAnomalySeconds: since(anomalies.length === 0 ? undefined : Math.min(...anomalies)),
    toSev2Seconds: since(opened?.timestampSeconds),
    toSev1Seconds: since(worst?.timestampSeconds),
    toResolvedSeconds: resolution(fault, { course, truth, span, warm }),
  }
}

function resolution(
  fault: FaultWindow,
  context: {
    readonly course: Course
    readonly truth: GroundTruth
    readonly span: Span
    readonly warm: (accumulators: readonly number[]) => boolean
  },
): number | null {
  const { course, truth, span, warm } = context
  const closing = course.transitions.find(
    ({ transition, timestampSeconds, startedSeconds }) =>
      (transition === 'resolved' || transition === 'expired') &&
      timestampSeconds >= fault.toSeconds &&
      startedSeconds < span[1],
  )
  if (closing?.transition !== 'resolved') return null
  const itsOwn = course.polls.some(
    ({ timestampSeconds, accumulators, severity }) =>
      severity !== null &&
      timestampSeconds >= closing.startedSeconds &&
      timestampSeconds < closing.timestampSeconds &&
      within(timestampSeconds, span) &&
      warm(accumulators),
  )
  const keptOpen = truth.faults.some(
    (other) => other.toSeconds > fault.toSeconds && other.fromSeconds < closing.timestampSeconds,
  )
  return itsOwn && !keptOpen ? elapsed(fault.toSeconds, closing.timestampSeconds) : null
}

/** Puts openings that are no fault's down to transients; what is left is false. */
function blame(
  openings: readonly CourseTransition[],
  { samples, rules }: Measured,
  truth: GroundTruth,
): { readonly outcomes: readonly TransientOutcome[]; readonly falseIncidents: number } {
  const spans = truth.faults.map((fault) => shown(fault, rules))
  const ofFaults = (time: number): boolean => spans.some((span) => within(time, span))
  const spoilt = new Set<Window>()
  const unclear = new Set<Window>()
  let falseIncidents = 0
  for (const { timestampSeconds: time } of openings) {
    const during = truth.transients.filter((transient) => within(time, shown(transient, rules)))
    if (ofFaults(time)) {
      for (const transient of during) unclear.add(transient)
      continue
    }
    const before = truth.transients
      .filter(({ toSeconds }) => within(time, [toSeconds, toSeconds + rules.transientAfterSeconds]))
      .sort((a, b) => b.toSeconds - a.toSeconds)
      .slice(0, 1)
    const culprits = during.length > 0 ? during : before
    if (culprits.length === 0) falseIncidents++
    for (const transient of culprits) spoilt.add(transient)
  }
  const outcomes = truth.transients.map((transient): TransientOutcome => {
    const span = shown(transient, rules)
    const judged = samples.flatMap((pair) =>
      pair.filter((one) => one.anomalyCount !== null && within(one.timestampSeconds, span)),
    )
    const tolerated = spoilt.has(transient) ? false : judged.length === 0 || unclear.has(transient) ? null : true
    return { transient, tolerated, anomalies: judged.filter(isAnomalous).length }
  })
  return { outcomes, falseIncidents }
}
