import type { PairVerdict, Poll } from './incident.js'
import { MONITOR_GAUGES } from './metric-names.js'
import { type Pair, pairKey } from './pair.js'
import { promqlOneOf, SERIES_LABEL } from './promql.js'
import type { Matrix } from './series.js'
import { VERDICTS } from './score.js'

const { anomalyCount, sampleTimestamp, verdict } = MONITOR_GAUGES

/**
 * The newest moment is not asked for: a scrape that just happened may not be stored yet, and what is read once must be
 * what a restart, or another replica, reads again.
 */
export const SETTLE_MS = 1_000

/** The series that tells silence from no answer: it is there at every step. */
const POLL = 'poll'
export const POLL_EXPRESSION = `label_replace(vector(1), "${SERIES_LABEL}", "${POLL}", "", "")`

/**
 * What the monitors exported, at each multiple of the poll interval within the last `rangeMs`, by Prometheus's clock. A
 * subquery's steps lie at the same times whoever asks and whenever, so polls are the same for every replica and every
 * restart. One more series, `poll`, is there at every step: it tells silence from no answer.
 */
export function anomalyHistoryQuery(
  pairs: readonly Pair[],
  { rangeMs, stepMs }: { rangeMs: number; stepMs: number },
): string {
  const steps = [...historyExpressions(pairs), POLL_EXPRESSION]
  return `(${steps.join(' or ')})[${rangeMs}ms:${stepMs}ms] offset ${SETTLE_MS}ms`
}

/**
 * What `readEdges` reads of some pairs. Of more edges than these, where the names of two pairs make up a third.
 *
 * @param selector - matchers that every series has to match besides, as between braces; empty for none
 */
export function historyExpressions(pairs: readonly Pair[], selector = ''): readonly string[] {
  const distinct = (names: readonly string[]): string => promqlOneOf([...new Set(names)])
  const matchers = [
    ...(selector === '' ? [] : [selector]),
    `source=~${distinct(pairs.map(({ source }) => source))}`,
    `destination=~${distinct(pairs.map(({ destination }) => destination))}`,
  ].join(',')
  return [`{__name__=~"${anomalyCount.name}|${sampleTimestamp.name}",${matchers}}`, `${verdict.name}{${matchers}} == 1`]
}

export interface HistoryRules {
  readonly pairs: readonly Pair[]
  /** A sample older than this at the time of a poll is stale: its monitor is gone, whatever Prometheus still serves. */
  readonly staleAfterSeconds: number
}

/** What one monitor exported at one time. */
interface Exported {
  anomalyCount?: number
  sampleSeconds?: number
  verdict?: string
}

/** One edge's verdicts by time, unix seconds; a time that is not there is silence. */
export interface EdgeVerdicts extends Pair {
  readonly verdicts: ReadonlyMap<number, PairVerdict>
}

export interface EdgeHistory {
  /** Of the polls, rising. */
  readonly timesSeconds: readonly number[]
  /** By pair key. */
  readonly edges: ReadonlyMap<string, EdgeVerdicts>
}

/** Of the polls in an answer, rising; none for an answer that says nothing. */
export function pollTimes({ result }: Matrix): readonly number[] {
  return result.find(({ labels }) => labels.get(SERIES_LABEL) === POLL)?.timesSeconds ?? []
}

/** All edges in an answer. Of several monitors of one edge the strongest verdict holds. */
export function readEdges(matrix: Matrix, { staleAfterSeconds }: Pick<HistoryRules, 'staleAfterSeconds'>): EdgeHistory {
  const timesSeconds = pollTimes(matrix)
  const polls = new Set(timesSeconds)
  // edge -> time -> monitor (several replicas may watch one pair) -> what it exported
  const edges = new Map<string, Pair & { readonly times: Map<number, Map<string, Exported>> }>()
  for (const { labels, timesSeconds: times, values } of matrix.result) {
    const { __name__: name = '', source = '', destination = '', verdict: held, ...monitor } = Object.fromEntries(labels)
    if (source === '' || destination === '') continue
    const monitorKey = JSON.stringify(Object.entries(monitor).sort())
    const key = pairKey({ source, destination })
    const edge = edges.get(key) ?? { source, destination, times: new Map<number, Map<string, Exported>>() }
    edges.set(key, edge)
    times.forEach((time, i) => {
      if (!polls.has(time)) return
      const monitors = edge.times.get(time) ?? new Map<string, Exported>()
      edge.times.set(time, monitors)
      const entry = monitors.get(monitorKey) ?? {}
      monitors.set(monitorKey, entry)
      if (name === anomalyCount.name) entry.anomalyCount = values[i] ?? NaN
      else if (name === sampleTimestamp.name) entry.sampleSeconds = values[i] ?? NaN
      else if (held !== undefined) entry.verdict = held
    })
  }
  return {
    timesSeconds,
    edges: new Map(
      [...edges].map(([key, { source, destination, times }]) => {
        const verdicts = [...times].map(([time, monitors]): [number, PairVerdict] => [
          time,
          strongest([...monitors.values()].map((entry) => verdictOf(entry, time, staleAfterSeconds))),
        ])
        return [key, { source, destination, verdicts: new Map(verdicts) }]
      }),
    ),
  }
}

export const SILENCE: PairVerdict = { kind: 'unknown', reason: 'no_data' }

/** The polls in an answer to `anomalyHistoryQuery`, in time order. */
export function readPolls(matrix: Matrix, { pairs, staleAfterSeconds }: HistoryRules): readonly Poll[] {
  const { timesSeconds, edges } = readEdges(matrix, { staleAfterSeconds })
  const watched = pairs.map((pair) => edges.get(pairKey(pair)))
  return timesSeconds.map((timestampSeconds) => ({
    timestampSeconds,
    verdicts: watched.map((edge) => edge?.verdicts.get(timestampSeconds) ?? SILENCE),
  }))
}

function verdictOf(
  { anomalyCount: count, sampleSeconds, verdict: held }: Exported,
  atSeconds: number,
  staleAfterSeconds: number,
): PairVerdict {
  if (count === undefined) {
    const known = VERDICTS.find((candidate) => candidate === held)
    return { kind: 'unknown', reason: known === 'low_traffic' || known === 'warming' ? known : 'no_data' }
  }
  const ageSeconds = sampleSeconds === undefined ? Infinity : atSeconds - sampleSeconds
  if (!(Math.abs(ageSeconds) <= staleAfterSeconds)) return { kind: 'unknown', reason: 'stale' }
  if (!(count >= 0 && Number.isFinite(count))) return { kind: 'unknown', reason: 'no_data' }
  return count > 0 ? { kind: 'anomalous', anomalyCount: count } : { kind: 'ok' }
}

/** Replicas watch the same pair and are not added up: an anomaly seen by one stands, and anything known beats silence. */
function strongest(verdicts: readonly PairVerdict[]): PairVerdict {
  const rank = (candidate: PairVerdict): number => {
    switch (candidate.kind) {
      case 'anomalous':
        return 10 + candidate.anomalyCount
      case 'ok':
        return 9
      case 'unknown':
        return ['no_data', 'stale', 'warming', 'low_traffic'].indexOf(candidate.reason)
    }
  }
  return verdicts.reduce<PairVerdict>((best, candidate) => (rank(candidate) > rank(best) ? candidate : best), SILENCE)
}
