import { missing, type Reading } from './reading.js'
import type { LatencySeries, Recording } from './recording.js'
import { type Baselines, type Evaluation, score, type ScoringRules } from './score.js'
import type { Expectation } from './baseline/model.js'
import {
  coldState,
  type IncidentRules,
  type IncidentState,
  next,
  type PairVerdict,
  temperatureOf,
  transition,
} from './incident.js'

export interface Replayed {
  readonly timestampSeconds: number
  readonly evaluation: Evaluation
  /** What was normal at that time, sample or no sample; by quantile, in scored order. */
  readonly expectations: readonly (Expectation & { readonly quantile: number })[]
}

/** What the daemon would have read at each time of a recorded series, in time order. */
export function* readings(
  recording: Recording,
  quantileOf: (series: LatencySeries) => number,
): Generator<{ readonly timestampSeconds: number; readonly reading: Reading }> {
  const [first, ...others] = recording.series
  if (first === undefined) return
  const cursors = others.map(() => 0)
  for (let i = 0; i < first.timesSeconds.length; i++) {
    const timestampSeconds = first.timesSeconds[i] ?? NaN
    const latencies = [{ quantile: quantileOf(first), latencyMs: first.latenciesMs[i] ?? NaN }]
    others.forEach((series, k) => {
      let cursor = cursors[k] ?? 0
      while ((series.timesSeconds[cursor] ?? Infinity) < timestampSeconds) cursor++
      cursors[k] = cursor
      if (series.timesSeconds[cursor] === timestampSeconds) {
        latencies.push({ quantile: quantileOf(series), latencyMs: series.latenciesMs[cursor] ?? NaN })
      }
    })
    const known = latencies.filter(({ latencyMs }) => Number.isFinite(latencyMs))
    const rate = first.requestsPerSecond?.[i] ?? NaN
    const requestsPerSecond = Number.isFinite(rate) ? rate : null
    yield {
      timestampSeconds,
      reading:
        known.length === 0
          ? missing('nonfinite', 'no value', requestsPerSecond)
          : { kind: 'sample', outcome: 'ok', sample: { timestampSeconds, latencies: known, requestsPerSecond } },
    }
  }
}

/** Scores a recorded series as the daemon would have, sample by sample. */
export function* replay(options: {
  readonly baselines: Baselines
  readonly recording: Recording
  readonly rules: ScoringRules
  readonly quantileOf: (series: LatencySeries) => number
}): Generator<Replayed> {
  const { baselines, recording, rules, quantileOf } = options
  for (const { timestampSeconds, reading } of readings(recording, quantileOf)) {
    const evaluation = score(baselines, reading, rules)
    yield {
      timestampSeconds,
      evaluation,
      expectations: [...baselines].map(([quantile, fitted]) => ({ quantile, ...fitted.expect(timestampSeconds) })),
    }
  }
}

/** One line of replay's NDJSON. A missing sample has its band and no more: null is not 0. */
export function replayLine({ timestampSeconds, evaluation, expectations }: Replayed): string {
  const line = expectations.map((expectation) => {
    const scored = evaluation.quantiles.find(({ quantile }) => quantile === expectation.quantile)
    const judged = evaluation.anomalyCount !== null && scored !== undefined
    return {
      y: scored?.yMs ?? null,
      yhat: expectation.yhatMs,
      y_min: expectation.yMinMs,
      y_max: expectation.yMaxMs,
      anomaly: judged ? Number(scored.anomalous) : null,
      verdict: evaluation.verdict,
      score: judged ? scored.score : null,
      quantile: expectation.quantile,
    }
  })
  const [{ quantile, ...first } = { quantile: null }, ...others] = line
  return JSON.stringify({ t: timestampSeconds, ...first, ...(others.length === 0 ? {} : { quantile, others }) })
}

/** Folds the incident rule over one replayed pair, a poll per sample, and yields a line of NDJSON per transition. */
export function* incidentLines(replayed: Iterable<Replayed>, rules: IncidentRules): Generator<Replayed | string> {
  let state: IncidentState = coldState(rules)
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

function verdictOf({ verdict, anomalyCount }: Evaluation): PairVerdict {
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
