import type { PairVerdict, Poll } from './incident.js'
import { MONITOR_GAUGES } from './metric-names.js'
import { type Pair, pairKey } from './pair.js'
import { promqlOneOf, SERIES_LABEL } from './promql.js'
import type { Matrix } from './series.js'
import { VERDICTS } from './score.js'

const { anomalyCount, sampleTimestamp, verdict } = MONITOR_GAUGES
const POLL = 'poll'

/**
 * The newest moment is not asked for: a scrape that just happened may not be stored yet, and what is read once must be
 * what a restart, or another replica, reads again.
 */
const SETTLE_MS = 1_000

/**
 * What the monitors exported, at each multiple of the poll interval within the last `rangeMs`, by Prometheus's clock. A
 * subquery's steps lie at the same times whoever asks and whenever, so polls are the same for every replica and every
 * restart. One more series, `poll`, is there at every step: it tells silence from no answer.
 */
export function anomalyHistoryQuery(
  pairs: readonly Pair[],
  { rangeMs, stepMs }: { rangeMs: number; stepMs: number },
): string {
  const distinct = (names: readonly string[]): string => promqlOneOf([...new Set(names)])
  const matchers = `source=~${distinct(pairs.map(({ source }) => source))},destination=~${distinct(pairs.map(({ destination }) => destination))}`
  const steps = [
    `{__name__=~"${anomalyCount.name}|${sampleTimestamp.name}",${matchers}}`,
    `${verdict.name}{${matchers}} == 1`,
    `label_replace(vector(1), "${SERIES_LABEL}", "${POLL}", "", "")`,
  ]
  return `(${steps.join(' or ')})[${rangeMs}ms:${stepMs}ms] offset ${SETTLE_MS}ms`
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

/** The polls in an answer to `anomalyHistoryQuery`, in time order. */
export function readPolls(matrix: Matrix, rules: HistoryRules): readonly Poll[] {
  const pairIndex = new Map(rules.pairs.map((pair, i) => [pairKey(pair), i]))
  const clock = matrix.result.find(({ labels }) => labels.get(SERIES_LABEL) === POLL)
  // time -> pair -> monitor (several replicas may watch one pair) -> what it exported
  const exported = new Map(
    (clock?.timesSeconds ?? []).map((time) => [time, rules.pairs.map(() => new Map<string, Exported>())]),
  )
  for (const { labels, timesSeconds, values } of matrix.result) {
    const { __name__: name = '', source = '', destination = '', verdict: held, ...monitor } = Object.fromEntries(labels)
    const pair = pairIndex.get(pairKey({ source, destination }))
    if (pair === undefined) continue
    const monitorKey = JSON.stringify(Object.entries(monitor).sort())
    timesSeconds.forEach((time, i) => {
      const monitors = exported.get(time)?.[pair]
      if (monitors === undefined) return
      const entry = monitors.get(monitorKey) ?? {}
      monitors.set(monitorKey, entry)
      if (name === anomalyCount.name) entry.anomalyCount = values[i] ?? NaN
      else if (name === sampleTimestamp.name) entry.sampleSeconds = values[i] ?? NaN
      else if (held !== undefined) entry.verdict = held
    })
  }
  return [...exported].map(([timestampSeconds, pairs]) => ({
    timestampSeconds,
    verdicts: pairs.map((monitors) =>
      strongest([...monitors.values()].map((entry) => verdictOf(entry, timestampSeconds, rules.staleAfterSeconds))),
    ),
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
  return verdicts.reduce<PairVerdict>((best, candidate) => (rank(candidate) > rank(best) ? candidate : best), {
    kind: 'unknown',
    reason: 'no_data',
  })
}
