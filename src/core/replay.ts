import { coldState, type IncidentRules, next, type PairVerdict, temperatureOf, transition } from './incident.js'
import { missing, type Reading } from './reading.js'
import type { LatencySeries, Recording } from './recording.js'
import { type Evaluation, score, type ScoringRules, type Watches } from './score.js'

export interface Replayed {
  readonly timestampSeconds: number
  readonly evaluation: Evaluation
}

/** What the daemon would have read at each time of a recorded series, in time order. */
export function* readings(
  recording: Recording,
  quantileOf: (series: LatencySeries) => number,
): Generator<{ readonly timestampSeconds: number; readonly reading: Reading }> {
  const cursors = recording.series.map((series) => ({ series, quantile: quantileOf(series), next: 0 }))
  for (;;) {
    let timestampSeconds = Infinity
    for (const { series, next: at } of cursors)
      timestampSeconds = Math.min(timestampSeconds, series.timesSeconds[at] ?? Infinity)
    if (timestampSeconds === Infinity) return
    const latencies: { quantile: number; latencyMs: number }[] = []
    let requestsPerSecond: number | null = null
    for (const cursor of cursors) {
      const { series, quantile, next: at } = cursor
      if (series.timesSeconds[at] !== timestampSeconds) continue
      cursor.next++
      const latencyMs = series.latenciesMs[at] ?? NaN
      if (!Number.isNaN(latencyMs)) latencies.push({ quantile, latencyMs })
      const rate = series.requestsPerSecond?.[at] ?? NaN
      if (!Number.isNaN(rate)) requestsPerSecond = rate
    }
    yield {
      timestampSeconds,
      reading:
        latencies.length === 0
          ? missing('nonfinite', 'no value', { timestampSeconds, requestsPerSecond })
          : { kind: 'sample', outcome: 'ok', sample: { timestampSeconds, latencies, requestsPerSecond } },
    }
  }
}

/** Scores a recorded series as the daemon would have, sample by sample. */
export function* replay(options: {
  readonly watches: Watches
  readonly recording: Recording
  readonly rules: ScoringRules
  readonly quantileOf: (series: LatencySeries) => number
}): Generator<Replayed> {
  const { watches, recording, rules, quantileOf } = options
  for (const { timestampSeconds, reading } of readings(recording, quantileOf)) {
    yield { timestampSeconds, evaluation: score(watches, reading, rules) }
  }
}

/** One line of replay's NDJSON. A missing sample has its band and no more: null is not 0. */
export function replayLine({ timestampSeconds, evaluation }: Replayed): string {
  const { verdict, quantiles } = evaluation
  const [first, ...others] = quantiles
  if (first === undefined) return JSON.stringify({ t: timestampSeconds })
  const { yMs: y, yhatMs: yhat, yMinMs, yMaxMs, anomalous, score: distance } = first
  const anomaly = anomalous === null ? null : Number(anomalous)
  const line = { t: timestampSeconds, y, yhat, y_min: yMinMs, y_max: yMaxMs, anomaly, verdict, score: distance }
  if (others.length === 0) return JSON.stringify(line)
  return JSON.stringify({
    ...line,
    quantile: first.quantile,
    others: others.map((scored) => ({
      y: scored.yMs,
      yhat: scored.yhatMs,
      y_min: scored.yMinMs,
      y_max: scored.yMaxMs,
      anomaly: scored.anomalous === null ? null : Number(scored.anomalous),
      verdict,
      score: scored.score,
      quantile: scored.quantile,
    })),
  })
}

/** Folds the incident rule over one replayed pair, a poll per sample, and yields a line of NDJSON per transition. */
export function* incidentLines(replayed: Iterable<Replayed>, rules: IncidentRules): Generator<Replayed | string> {
  let state = coldState(rules)
  for (const item of replayed) {
    yield item
    const { timestampSeconds, evaluation } = item
    const after = next(state, { timestampSeconds, verdicts: [verdictOf(evaluation)] }, rules)
    const happened = transition(state, after)
    if (happened !== null) {
      yield JSON.stringify({
        t: timestampSeconds,
        incident: happened,
        severity: after.open?.severity ?? null,
        temperature: temperatureOf(after.accumulators),
      })
    }
    state = after
  }
}

/** What the incident rule sees of an evaluation while it is fresh. */
export function verdictOf({ verdict, anomalyCount }: Pick<Evaluation, 'verdict' | 'anomalyCount'>): PairVerdict {
  switch (verdict) {
    case 'anomalous':
      return { kind: 'anomalous', anomalyCount: anomalyCount ?? 1 }
    case 'ok':
      return { kind: 'ok' }
    case 'low_traffic':
    case 'no_data':
    case 'warming':
      return { kind: 'unknown', reason: verdict }
  }
}
