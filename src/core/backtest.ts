/*
 * What the daemons would have made of a recorded history: score() gives each sample its verdict, next() folds the verdicts
 * that a poll finds, and transition() says what happened. Nothing here judges anything itself.
 */
import {
  coldState,
  type IncidentRules,
  next,
  type PairVerdict,
  type Poll,
  type Severity,
  temperatureOf,
  type Transition,
  transition,
} from './incident.js'
import { type Replayed, verdictOf } from './replay.js'
import type { Evaluation, ScoredQuantile } from './score.js'

/** One sample of a pair and what scoring says of it. */
export interface JudgedSample extends Pick<Evaluation, 'verdict' | 'anomalyCount'> {
  /** Unix seconds. */
  readonly timestampSeconds: number
  readonly quantiles: readonly Pick<ScoredQuantile, 'quantile' | 'yMs' | 'yhatMs' | 'yMinMs' | 'yMaxMs'>[]
}

/** The incident rule's state after one poll. */
export interface CoursePoll {
  readonly timestampSeconds: number
  /** In the order of the pairs. */
  readonly accumulators: readonly number[]
  readonly temperature: number
  readonly severity: Severity | null
}

/** What happened at one poll, with the state after it. */
export interface CourseTransition extends CoursePoll {
  readonly transition: Transition
  /** When the incident began. */
  readonly startedSeconds: number
}

export interface Course {
  readonly polls: readonly CoursePoll[]
  readonly transitions: readonly CourseTransition[]
}

/**
 * Folds the incident rule over polls, in time order, from the cold state: an incident that was already under way before
 * the first poll opens when its own polls are enough, as with a daemon that knows nothing of before.
 */
export function courseOf(polls: readonly Poll[], rules: IncidentRules): Course {
  let state = coldState(rules)
  const transitions: CourseTransition[] = []
  const after = polls.map((poll): CoursePoll => {
    const before = state
    state = next(before, poll, rules)
    const { accumulators, open } = state
    const now = {
      timestampSeconds: poll.timestampSeconds,
      accumulators,
      temperature: temperatureOf(accumulators),
      severity: open?.severity ?? null,
    }
    const happened = transition(before, state)
    if (happened !== null) {
      const startedSeconds = (open ?? before.open)?.startedSeconds ?? poll.timestampSeconds
      transitions.push({ ...now, transition: happened, startedSeconds })
    }
    return now
  })
  return { polls: after, transitions }
}

/** Of what was replayed, what the incident rule, the measures and a plot need. */
export function judgedSample({ timestampSeconds, evaluation }: Replayed): JudgedSample {
  const { verdict, anomalyCount, quantiles } = evaluation
  return {
    timestampSeconds,
    verdict,
    anomalyCount,
    quantiles: quantiles.map(({ quantile, yMs, yhatMs, yMinMs, yMaxMs }) => ({
      quantile,
      yMs,
      yhatMs,
      yMinMs,
      yMaxMs,
    })),
  }
}

/** How recorded samples come to be polled. */
export interface PollRules {
  readonly pollIntervalSeconds: number
  /** A sample older than this at the time of a poll says nothing of its pair any more. One for each pair. */
  readonly staleAfterSeconds: readonly number[]
}

/**
 * The polls of recorded samples: from the first sample of any pair on, at each multiple of the interval after it, as long as
 * the last sample is fresh. A poll takes each pair's newest sample, as the incident daemon takes what the monitor last
 * exported.
 *
 * @param samples - a list for each pair, in time order
 */
export function pollsOf(samples: readonly (readonly JudgedSample[])[], rules: PollRules): readonly Poll[] {
  const { pollIntervalSeconds, staleAfterSeconds } = rules
  const firstSeconds = Math.min(...samples.map((pair) => pair[0]?.timestampSeconds ?? Infinity))
  const lastSeconds = Math.max(
    ...samples.map((pair, i) => (pair.at(-1)?.timestampSeconds ?? -Infinity) + (staleAfterSeconds[i] ?? 0)),
  )
  if (firstSeconds === Infinity) return []
  const count = Math.floor((lastSeconds - firstSeconds) / pollIntervalSeconds) + 1
  const newest = samples.map(() => -1)
  return Array.from({ length: count }, (_, k): Poll => {
    // Prometheus's times are milliseconds: the sum must be the very number that a sample of that time carries.
    const timestampSeconds = Math.round((firstSeconds + k * pollIntervalSeconds) * 1000) / 1000
    const verdicts = samples.map((pair, i): PairVerdict => {
      let at = newest[i] ?? -1
      while ((pair[at + 1]?.timestampSeconds ?? Infinity) <= timestampSeconds) at++
      newest[i] = at
      const sample = pair[at]
      if (sample === undefined) return { kind: 'unknown', reason: 'no_data' }
      const ageSeconds = timestampSeconds - sample.timestampSeconds
      return ageSeconds > (staleAfterSeconds[i] ?? 0) ? { kind: 'unknown', reason: 'stale' } : verdictOf(sample)
    })
    return { timestampSeconds, verdicts }
  })
}

/** The median time between samples, seconds; null with fewer than two. */
export function stepSecondsOf(timesSeconds: readonly number[]): number | null {
  const steps = timesSeconds.slice(1).map((time, i) => time - (timesSeconds[i] ?? NaN))
  steps.sort((a, b) => a - b)
  return steps[Math.floor((steps.length - 1) / 2)] ?? null
}
