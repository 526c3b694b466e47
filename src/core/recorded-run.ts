/*
 * A live run that was recorded: what the monitors and the incident daemon said, and what they said it of, so that it can be
 * said again and compared.
 */
import { readPolls } from './anomaly-history.js'
import { type Course, courseOf, type CourseTransition, type JudgedSample, judgedSample } from './backtest.js'
import type { GroundTruth } from './ground-truth.js'
import { type IncidentRules, type Poll, type Severity, type Transition } from './incident.js'
import { MONITOR_GAUGES } from './metric-names.js'
import { pairKey, pairName } from './pair.js'
import { isoTime } from './plain-text.js'
import { type Evaluation, score, type ScoringRules, type Watches } from './score.js'
import type { Matrix, Series } from './series.js'
import { readingOf, type VerdictLine, verdictLine } from './verdict-line.js'

/** A line of the incident daemon's log that says what happened. */
export interface TransitionLine {
  readonly timestampSeconds: number
  readonly transition: Transition
  readonly severity: Severity | null
  readonly startedSeconds: number
  readonly temperature: number
  /** By the pairs' names. */
  readonly accumulators: Readonly<Record<string, number>>
  /** The evidence, a sentence a line. */
  readonly text: readonly string[]
}

/** A monitor's line, and when it was logged: the only time there is where Prometheus did not answer. Unix seconds. */
export interface LoggedVerdict {
  readonly loggedSeconds: number
  readonly line: VerdictLine
}

export interface RecordedRun {
  readonly name: string
  readonly observedFromSeconds: number
  readonly endedSeconds: number
  /** True when the run ended before its end. */
  readonly partial: boolean
  readonly application: string
  readonly target: string
  readonly rules: IncidentRules
  readonly model: string
  readonly scoring: ScoringRules
  /** Those that were scored, in order. */
  readonly quantiles: readonly number[]
  readonly pollIntervalSeconds: number
  readonly staleAfterSeconds: number
  /** The rate window: so long a fault still shows after its end. */
  readonly queryWindowSeconds: number
  readonly truth: GroundTruth | null
  /** Each monitor's, from its first poll on, a pair's in order. */
  readonly verdicts: readonly LoggedVerdict[]
  /** The incident daemon's, in order. */
  readonly transitions: readonly TransitionLine[]
  /** Prometheus's answer to anomalyHistoryQuery over the whole run. */
  readonly history: Matrix
  /** The polls that the incident daemon folded live; null: all of the history. */
  readonly incidentPolls: { readonly fromSeconds: number; readonly toSeconds: number } | null
}

/** The verdict lines of each pair, in the order of the rules. */
export function verdictsByPair({ verdicts, rules }: RecordedRun): readonly (readonly LoggedVerdict[])[] {
  const byPair = new Map(rules.pairs.map((pair) => [pairKey(pair), [] as LoggedVerdict[]]))
  for (const logged of verdicts) byPair.get(pairKey(logged.line))?.push(logged)
  return rules.pairs.map((pair) => byPair.get(pairKey(pair)) ?? [])
}

/** What was seen live: the samples as the monitors judged them, the polls, and the incident rule folded over those. */
export function observedOf(run: RecordedRun): {
  readonly samples: readonly (readonly JudgedSample[])[]
  readonly polls: readonly Poll[]
  readonly course: Course
} {
  const polls = readPolls(run.history, { pairs: run.rules.pairs, staleAfterSeconds: run.staleAfterSeconds })
  const samples = verdictsByPair(run).map((lines) =>
    lines.map(({ line, loggedSeconds }) => ({ ...line, timestampSeconds: line.timestampSeconds ?? loggedSeconds })),
  )
  return { samples, polls, course: courseOf(polls, run.rules) }
}

/** A line, and what scoring says now of the same reading. */
export interface Rescored extends LoggedVerdict {
  readonly evaluation: Evaluation
}

/** Scores what one monitor had read, line by line, as it did. Its first line must be there: a watch learns. */
export function rescored(lines: readonly LoggedVerdict[], watches: Watches, rules: ScoringRules): readonly Rescored[] {
  return lines.map((logged) => ({
    ...logged,
    // While the baseline was being fitted, nothing was judged and nothing learnt.
    evaluation: score(logged.line.verdict === 'warming' ? null : watches, readingOf(logged.line), rules),
  }))
}

export function rescoredSample({ line, loggedSeconds, evaluation }: Rescored): JudgedSample {
  return judgedSample({ timestampSeconds: line.timestampSeconds ?? loggedSeconds, evaluation })
}

/**
 * The run's polls with the verdicts that its samples get now: at each poll of the history, of the very sample that the
 * incident daemon saw then. Where it saw none, what it saw instead.
 *
 * @param samples - a list for each pair of the run
 */
export function pollsAsSeen(run: RecordedRun, samples: readonly (readonly JudgedSample[])[]): readonly Poll[] {
  const { rules, history, staleAfterSeconds } = run
  const byTime = new Map(
    rules.pairs.map((pair, i) => [
      pairKey(pair),
      new Map((samples[i] ?? []).map((sample) => [sample.timestampSeconds, sample])),
    ]),
  )
  const { anomalyCount, sampleTimestamp } = MONITOR_GAUGES
  const named = (series: Series): string => series.labels.get('__name__') ?? ''
  const result = history.result.flatMap((series): readonly Series[] => {
    if (named(series) === anomalyCount.name) return []
    if (named(series) !== sampleTimestamp.name) return [series]
    const { labels, timesSeconds, values } = series
    const source = labels.get('source') ?? ''
    const destination = labels.get('destination') ?? ''
    const judged = byTime.get(pairKey({ source, destination }))
    const counted = values.flatMap((sampleSeconds, i) => {
      const count = judged?.get(sampleSeconds)?.anomalyCount ?? null
      return count === null ? [] : [[timesSeconds[i] ?? NaN, count] as const]
    })
    const counts: Series = {
      labels: new Map([...labels, ['__name__', anomalyCount.name]]),
      timesSeconds: counted.map(([time]) => time),
      values: counted.map(([, count]) => count),
    }
    return [series, counts]
  })
  return readPolls({ ...history, result }, { pairs: rules.pairs, staleAfterSeconds })
}

/** How many of the things that were said live are said again, and what is said of each that is not. */
export interface Agreement {
  readonly same: number
  readonly of: number
  readonly differences: readonly string[]
}

/** Holds verdicts, bands and scores against the live ones, bit for bit. */
export function verdictAgreement(replayed: readonly Rescored[]): Agreement {
  const differences = replayed.flatMap(({ line, loggedSeconds, evaluation }) => {
    const differing = differencesOf(line, verdictLine(line, readingOf(line), evaluation))
    if (differing.length === 0) return []
    return [`${pairName(line)} at ${isoTime(line.timestampSeconds ?? loggedSeconds)}: ${differing.join('; ')}`]
  })
  return { same: replayed.length - differences.length, of: replayed.length, differences }
}

/** Holds the transitions of the course against those that the incident daemon announced, bit for bit. */
export function transitionAgreement(run: RecordedRun, { transitions }: Course): Agreement {
  const { fromSeconds, toSeconds } = run.incidentPolls ?? { fromSeconds: -Infinity, toSeconds: Infinity }
  const live = new Map(run.transitions.map((line) => [line.timestampSeconds, line]))
  const now = new Map(
    transitions
      // What a daemon warms up from it knows, but does not announce; what comes after its end it never saw.
      .filter(({ timestampSeconds: time }) => time > fromSeconds && time <= toSeconds)
      .map((happened) => [happened.timestampSeconds, happened]),
  )
  const times = [...new Set([...live.keys(), ...now.keys()])].sort((a, b) => a - b)
  const differences = times.flatMap((time) => {
    const differing = differencesOf(announced(live.get(time)), announcedBy(run.rules, now.get(time)))
    return differing.length === 0 ? [] : [`transition at ${isoTime(time)}: ${differing.join('; ')}`]
  })
  return { same: times.length - differences.length, of: times.length, differences }
}

function announced(line: TransitionLine | undefined): object {
  if (line === undefined) return {}
  const { transition, severity, startedSeconds, timestampSeconds, temperature, accumulators } = line
  return { transition, severity, startedSeconds, timestampSeconds, temperature, accumulators }
}

function announcedBy({ pairs }: IncidentRules, happened: CourseTransition | undefined): object {
  if (happened === undefined) return {}
  const { transition, severity, startedSeconds, timestampSeconds, temperature, accumulators } = happened
  const byPair = Object.fromEntries(pairs.map((pair, i) => [pairName(pair), accumulators[i]]))
  return { transition, severity, startedSeconds, timestampSeconds, temperature, accumulators: byPair }
}

/** What differs between two logged objects, a text each. JSON writes a number so that it reads back as the same one. */
function differencesOf(live: object, replayed: object): readonly string[] {
  if (JSON.stringify(live) === JSON.stringify(replayed)) return []
  const [before, after] = [leavesOf(live), leavesOf(replayed)]
  return [...new Set([...before.keys(), ...after.keys()])].flatMap((path) => {
    const [was, is] = [before.get(path) ?? 'nothing', after.get(path) ?? 'nothing']
    return was === is ? [] : [`${path}: live ${was}, replayed ${is}`]
  })
}

function leavesOf(value: unknown, path = ''): ReadonlyMap<string, string> {
  if (typeof value !== 'object' || value === null) return new Map([[path, String(value)]])
  const keys = Object.entries(value)
  return new Map(keys.flatMap(([key, inner]) => [...leavesOf(inner, path === '' ? key : `${path}.${key}`)]))
}
