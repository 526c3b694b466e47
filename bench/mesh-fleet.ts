/** A synthetic mesh for the benchmarks: its edges, what Prometheus answers of them, and baselines for them. */
import { loadAndSeason } from '../src/core/baseline/load-and-season.js'
import type { Fitted, Training } from '../src/core/baseline/model.js'
import type { BaselineSource } from '../src/core/mesh-baselines.js'
import { type Pair, pairKey } from '../src/core/pair.js'
import type { ScoringRules, Watches } from '../src/core/score.js'
import { lognormal, type Random, seededRandom } from '../src/testbed/random.js'

export const RULES: ScoringRules = {
  direction: 'above',
  minRequestsPerSecond: 0.1,
  minDeviationMs: 0,
  minDeviationRatio: 0,
  sloMs: null,
}

const START_SECONDS = 1_700_000_000

/** Each service calls five others. */
export function fleetEdges(count: number): readonly Pair[] {
  return Array.from({ length: count }, (_, i) => ({
    source: `service-${Math.floor(i / 5)}`,
    destination: `service-${(i * 7 + 13) % Math.max(7, Math.floor(count / 3))}-${i % 5}`,
  }))
}

/** An hour or more of normal traffic at one sample in 15 s, whose shape the default model finds. */
export const SHAPES = {
  /** Latency that depends on nothing. */
  level: { samples: 240, at: () => ({ latencyMs: 10, requestsPerSecond: null }) },
  /** Latency that rises with traffic. */
  rate: {
    samples: 480,
    at: (t: number) => {
      const requestsPerSecond = 5 * Math.exp(0.5 * Math.sin(t / 900) + 0.3 * Math.sin(t / 117))
      return { latencyMs: 10 + requestsPerSecond, requestsPerSecond }
    },
  },
  /** A load that swings with a period of 20 minutes. */
  cycle: {
    samples: 720,
    at: (t: number) => ({
      latencyMs: 4 * Math.exp(0.3 * Math.sin((2 * Math.PI * t) / 1_200)),
      requestsPerSecond: null,
    }),
  },
  /** Two days, a sample a minute. */
  day: {
    samples: 2_880,
    at: (t: number) => ({
      latencyMs: 100 * Math.exp(0.4 * Math.sin((2 * Math.PI * t) / 86_400)),
      requestsPerSecond: null,
    }),
  },
} as const

export type Shape = keyof typeof SHAPES

export function shapedTraining(shape: Shape, random: Random): Training {
  const { samples, at } = SHAPES[shape]
  const step = shape === 'day' ? 60 : 15
  const timesSeconds = Array.from({ length: samples }, (_, i) => START_SECONDS + i * step)
  const measured = timesSeconds.map((t) => {
    const { latencyMs, requestsPerSecond } = at(t)
    return { latencyMs: latencyMs * lognormal(random, { median: 1, sigma: 0.08 }), requestsPerSecond }
  })
  const rates = measured.map(({ requestsPerSecond }) => requestsPerSecond)
  return {
    timesSeconds,
    latenciesMs: measured.map(({ latencyMs }) => latencyMs),
    requestsPerSecond: rates.some((rate) => rate === null) ? null : rates.map((rate) => rate ?? NaN),
  }
}

export function fitShape(shape: Shape, seed: number): Fitted {
  const fitted = loadAndSeason.fit(shapedTraining(shape, seededRandom(seed)))
  if (fitted instanceof Promise) throw new TypeError('the default model is fitted at once')
  return fitted
}

/** Every edge has watches of its own; what they share with others does not matter to their speed. */
export function sharedBaselines(edges: readonly Pair[], shape: Shape): BaselineSource {
  const fitted = fitShape(shape, 1)
  return baselinesOf(edges, () => new Map([[0.5, fitted.watch()]]))
}

export function baselinesOf(edges: readonly Pair[], watches: (i: number) => Watches): BaselineSource {
  const byEdge = new Map(edges.map((edge, i) => [pairKey(edge), watches(i)]))
  return { watchesOf: (edge) => byEdge.get(pairKey(edge)) ?? null, version: () => 1, ready: () => true }
}

/** The answers to the mesh query, with a new time and new values each time, as Prometheus writes them. */
export function answers(edges: readonly Pair[]): (timeSeconds: number) => string {
  const random = seededRandom(3)
  const parts = edges.map(({ source, destination }) => {
    const names = `"destination_app":"${destination}"`
    const latency = `{"metric":{${names},"quantile":"0.5","source_app":"${source}"},"value":[`
    const labelled = (series: string): string =>
      `{"metric":{${names},"series":"${series}","source_app":"${source}"},"value":[`
    return { latency, rate: labelled('requests_per_second'), newest: labelled('sample_timestamp_seconds') }
  })
  return (timeSeconds) => {
    const time = timeSeconds.toFixed(3)
    const newest = (timeSeconds - 2.5).toFixed(3)
    const element = (text: string, value: string): string => `${text}${time},"${value}"]}`
    const elements = [
      ...parts.map(({ latency }) => element(latency, String(lognormal(random, { median: 11, sigma: 0.05 })))),
      ...parts.map(({ rate }) => element(rate, String(5 + 10 * random()))),
      ...parts.map((part) => element(part.newest, newest)),
    ]
    return `{"status":"success","data":{"resultType":"vector","result":[${elements.join(',')}]}}`
  }
}

/** CPU time of the whole process, garbage collection included: unlike the time of day it does not count what others use. */
export function cpuMicroseconds(): number {
  const { user, system } = process.cpuUsage()
  return user + system
}

/** The lowest of several measurements: whatever else the machine does only adds to them. */
export function least(values: readonly number[]): number {
  return values.reduce((a, b) => Math.min(a, b), Infinity)
}

/** For people who compare. */
export function rounded(value: number): number {
  return Number(value.toPrecision(3))
}
