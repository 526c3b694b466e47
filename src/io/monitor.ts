import type { Registry } from 'prom-client'

import type { Pair } from '../core/pair.js'
import { missing, type Reading, readVector } from '../core/reading.js'
import { type Evaluation, score, type ScoringRules, type Watches } from '../core/score.js'
import { verdictLine } from '../core/verdict-line.js'
import { createMonitorPage } from '../page/monitor-page.js'
import type { TrainingFacts } from '../page/page-state.js'
import { createMonitorGauges } from './gauges.js'
import { EVALUATED } from './log.js'
import { queryInstant } from './prometheus.js'
import type { Runtime } from './runtime.js'
import { pollDeadlineMs, type Poller } from './serve-daemon.js'

export interface MonitorConfig {
  readonly pair: Pair
  readonly prometheusUrl: string
  readonly query: string
  /** Those that are scored, in order. */
  readonly quantiles: readonly number[]
  /** One for each of them; a promise while a baseline takes its time, and the verdict is `warming` until then. */
  readonly watches: Watches | Promise<Watches>
  readonly rules: ScoringRules
  readonly pollIntervalMs: number
  /** How old the newest sample may be; null: any age. */
  readonly maxAgeSeconds: number | null
  /** True when the query is the user's own and may not tell. */
  readonly ageOptional?: boolean
  /** What the watches were trained on, for the page. */
  readonly training?: TrainingFacts
}

export function createMonitor(config: MonitorConfig, runtime: Runtime, registry: Registry): Poller {
  const { pair, prometheusUrl, query, quantiles, rules, maxAgeSeconds, ageOptional = false } = config
  const gauges = createMonitorGauges(registry, pair, quantiles)
  const page = createMonitorPage({ pair, query, rules, training: config.training ?? null }, quantiles)
  const deadlineMs = pollDeadlineMs(config.pollIntervalMs)
  let lastTimestampSeconds: number | null = null
  let watches: Watches | null = null
  let broken: Error | null = null
  if (config.watches instanceof Promise) {
    config.watches.then(
      (ready) => {
        watches = ready
      },
      (error: unknown) => {
        broken = error instanceof Error ? error : new Error(String(error))
      },
    )
  } else watches = config.watches
  const drift = createDriftLog(runtime, pair)

  const read = async (): Promise<Reading> => {
    const answer = await queryInstant(runtime, { prometheusUrl, query, deadlineMs })
    if (answer.kind === 'failure') return missing(answer.outcome, answer.detail)
    return readVector(answer.data, { quantiles, maxAgeSeconds, ageOptional, lastTimestampSeconds })
  }
  return {
    ready: () => watches !== null,
    poll: async () => {
      if (broken !== null) throw broken
      const reading = await read()
      if (reading.kind === 'sample') lastTimestampSeconds = reading.sample.timestampSeconds
      const evaluation = score(watches, reading, rules)
      gauges.publish(evaluation)
      page.note(evaluation, runtime.clock.nowMs() / 1000)
      if (!runtime.signal.aborted) {
        runtime.logger.info(verdictLine(pair, reading, evaluation), EVALUATED)
        drift.note(evaluation)
      }
      return { outcome: reading.outcome, detail: reading.kind === 'missing' ? reading.detail : '' }
    },
    view: page.view,
  }
}

/** Normal latency this far from the training's is near the end of what the default model follows. */
const DRIFT_WORTH_A_WORD = 1.15

/** Says once when live normal traffic has moved away from the training, and once when it is back. */
function createDriftLog({ logger }: Runtime, pair: Pair): { note(evaluation: Evaluation): void } {
  let drifted = false
  return {
    note: ({ verdict, quantiles }) => {
      const driftRatio = quantiles[0]?.driftRatio ?? null
      if (verdict !== 'ok' || driftRatio === null) return
      const now = driftRatio > DRIFT_WORTH_A_WORD || driftRatio < 1 / DRIFT_WORTH_A_WORD
      if (now === drifted) return
      drifted = now
      if (now) {
        logger.warn(
          { source: pair.source, destination: pair.destination, driftRatio, todo: 'record new training data' },
          'normal latency has moved away from the training data',
        )
      } else logger.info({ source: pair.source, destination: pair.destination, driftRatio }, 'training data fits again')
    },
  }
}
