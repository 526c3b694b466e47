import { StartError } from '../core/errors.js'
import { type Pair, pairName } from '../core/pair.js'
import { latencyAndTraffic } from '../core/promql.js'
import { queryInstant } from '../io/prometheus.js'
import type { Runtime } from '../io/runtime.js'
import { type LatencySource, promDuration } from './fault-effect.js'
import type { Guard } from './guard.js'

/** Prometheus finds new targets within five seconds, and a cluster takes its time until requests flow. */
const PATIENCE_SECONDS = 120
const DEADLINE_MS = 10_000

/**
 * Waits until Prometheus has a whole window of each pair's requests.
 *
 * @throws {StartError} saying what is missing, when it does not come
 */
export async function awaitTraffic(
  runtime: Runtime,
  guard: Guard,
  options: {
    readonly pairs: readonly Pair[]
    readonly source: LatencySource
    readonly windowSeconds: number
    readonly scrapeIntervalSeconds: number
  },
): Promise<void> {
  const { pairs, source, windowSeconds, scrapeIntervalSeconds } = options
  const { prometheusUrl } = source
  const patience = createPatience(runtime, PATIENCE_SECONDS + 2 * windowSeconds)
  for (const pair of pairs) {
    const rate = { ...source, pair, reporter: 'source', window: promDuration(windowSeconds), quantiles: [] } as const
    const query = latencyAndTraffic(rate)
    for (;;) {
      const answer = await guard.unlessFailed(queryInstant(runtime, { ...source, query, deadlineMs: DEADLINE_MS }))
      if (answer.kind === 'answer' && answer.data.result.some(({ value }) => value !== undefined && value > 0)) break
      patience.check(
        answer.kind === 'failure'
          ? `Prometheus at ${prometheusUrl} does not answer: ${answer.detail}`
          : `Prometheus at ${prometheusUrl} has no istio_request_duration_milliseconds of requests ${pairName(pair)}; meshfever doctor tells why`,
      )
      await guard.pause(Math.min(1, scrapeIntervalSeconds))
    }
  }
  await guard.pause(windowSeconds)
}

/** @throws {StartError} from `check` when the time is over */
export function createPatience(
  { clock }: Pick<Runtime, 'clock'>,
  seconds: number,
): { readonly check: (trouble: string) => void } {
  const endMs = clock.monotonicMs() + seconds * 1000
  return {
    check: (trouble) => {
      if (clock.monotonicMs() > endMs) throw new StartError(`${trouble} (waited ${seconds.toFixed(0)} s)`)
    },
  }
}
