import type { Fitted, Judgement, Observation, Training } from '../../src/core/baseline/model.js'
import { lognormal, type Random } from '../../src/testbed/random.js'
import { T0 } from './recordings.js'

export const DAY_SECONDS = 86_400

export type Sample = Observation & { readonly latencyMs: number }

/** Samples of a made-up pair, evenly spaced. */
export function samplesOf(
  latency: (timeSeconds: number, i: number) => number | readonly [latencyMs: number, requestsPerSecond: number | null],
  options: { readonly count: number; readonly startSeconds?: number; readonly stepSeconds?: number },
): Sample[] {
  const { count, startSeconds = T0, stepSeconds = 30 } = options
  return Array.from({ length: count }, (_, i) => {
    const timestampSeconds = startSeconds + i * stepSeconds
    const made = latency(timestampSeconds, i)
    const [latencyMs, requestsPerSecond] = typeof made === 'number' ? [made, null] : made
    return { timestampSeconds, latencyMs, requestsPerSecond }
  })
}

export function trainingOn(samples: readonly Sample[]): Training {
  return {
    timesSeconds: samples.map(({ timestampSeconds }) => timestampSeconds),
    latenciesMs: samples.map(({ latencyMs }) => latencyMs),
    requestsPerSecond: samples.every(({ requestsPerSecond }) => requestsPerSecond === null)
      ? null
      : samples.map(({ requestsPerSecond }) => requestsPerSecond ?? NaN),
  }
}

/** What one watch says of a stream. */
export function judged(fitted: Fitted, samples: readonly Observation[]): Judgement[] {
  const watch = fitted.watch()
  return samples.map((sample) => watch.judge(sample))
}

/** A factor around 1 whose logarithm has this standard deviation. */
export function noise(random: Random, sigma: number): number {
  return lognormal(random, { median: 1, sigma })
}

/** How many of the judgements are outside of their band. */
export function outside(judgements: readonly Judgement[]): number {
  return judgements.filter(({ deviation }) => Math.abs(deviation) > 1).length
}
