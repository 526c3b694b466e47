import type { Registry } from 'prom-client'

import type { Pair } from '../core/pair.js'
import { missing, type Reading, readVector } from '../core/reading.js'
import { type Baselines, type Evaluation, score, type ScoringRules } from '../core/score.js'
import { createMonitorGauges } from './gauges.js'
import { EVALUATED } from './log.js'
import { queryInstant } from './prometheus.js'
import type { Runtime } from './runtime.js'
import { pollDeadlineMs, type Poller } from './serve-daemon.js'

export interface MonitorConfig {
  readonly pair: Pair
  readonly prometheusUrl: string
  readonly query: string
  /** Those that are scored, each with a baseline. */
  readonly quantiles: readonly number[]
  readonly baselines: Baselines
  readonly rules: ScoringRules
  readonly pollIntervalMs: number
  /** How old the newest sample may be; null when the query does not tell. */
  readonly maxAgeSeconds: number | null
}

export function createMonitor(config: MonitorConfig, runtime: Runtime, registry: Registry): Poller {
  const { pair, prometheusUrl, query, quantiles, baselines, rules, maxAgeSeconds } = config
  const gauges = createMonitorGauges(registry, pair, quantiles)
  const deadlineMs = pollDeadlineMs(config.pollIntervalMs)
  let lastTimestampSeconds: number | null = null

  const read = async (): Promise<Reading> => {
    const answer = await queryInstant(runtime, { prometheusUrl, query, deadlineMs })
    if (answer.kind === 'failure') return missing(answer.outcome, answer.detail)
    return readVector(answer.data, { quantiles, maxAgeSeconds, lastTimestampSeconds })
  }
  return {
    poll: async () => {
      const reading = await read()
      if (reading.kind === 'sample') lastTimestampSeconds = reading.sample.timestampSeconds
      const evaluation = score(baselines, reading, rules)
      gauges.publish(evaluation)
      if (!runtime.signal.aborted) runtime.logger.info(logged(pair, evaluation), EVALUATED)
      return { outcome: reading.outcome, detail: reading.kind === 'missing' ? reading.detail : '' }
    },
  }
}

function logged({ source, destination }: Pair, evaluation: Evaluation): Record<string, unknown> {
  const { verdict, anomalyCount, requestsPerSecond, quantiles } = evaluation
  return {
    source,
    destination,
    verdict,
    anomalyCount,
    requestsPerSecond,
    quantiles: quantiles.map(({ quantile, yMs, yhatMs, yMinMs, yMaxMs, maeMs, mape, score: distance }) => ({
      quantile,
      yMs,
      yhatMs,
      yMinMs,
      yMaxMs,
      maeMs,
      mape,
      score: distance,
    })),
  }
}
