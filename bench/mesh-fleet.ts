/** A synthetic mesh for the benchmarks: its edges, what Prometheus answers of them, baselines for them, and a monitor. */
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

import { Registry } from 'prom-client'

import { loadAndSeason } from '../src/core/baseline/load-and-season.js'
import type { Fitted, Training } from '../src/core/baseline/model.js'
import type { BaselineSource } from '../src/core/mesh-baselines.js'
import { meshQuery } from '../src/core/mesh-query.js'
import { type Pair, pairKey } from '../src/core/pair.js'
import type { Reading } from '../src/core/reading.js'
import { type Evaluation, score, type ScoringRules, type Watches } from '../src/core/score.js'
import { createExposition } from '../src/io/gauges.js'
import { createMeshMonitor } from '../src/io/mesh-monitor.js'
import type { Runtime } from '../src/io/runtime.js'
import { type Child, listeningUrl, startChild } from '../src/testbed/child-process.js'
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

function trafficAt(t: number): number {
  return 5 * Math.exp(0.5 * Math.sin(t / 900) + 0.3 * Math.sin(t / 117))
}

function daily(t: number): number {
  return Math.exp(0.4 * Math.sin((2 * Math.PI * t) / 86_400))
}

/** An hour or more of normal traffic, whose shape the default model finds. */
export const SHAPES = {
  /** Latency that depends on nothing. */
  level: { samples: 240, stepSeconds: 15, at: () => ({ latencyMs: 10, requestsPerSecond: null }) },
  /** Latency that rises with traffic. */
  rate: {
    samples: 480,
    stepSeconds: 15,
    at: (t: number) => {
      const requestsPerSecond = trafficAt(t)
      return { latencyMs: 10 + requestsPerSecond, requestsPerSecond }
    },
  },
  /** A load that swings with a period of 20 minutes. */
  cycle: {
    samples: 720,
    stepSeconds: 15,
    at: (t: number) => ({
      latencyMs: 4 * Math.exp(0.3 * Math.sin((2 * Math.PI * t) / 1_200)),
      requestsPerSecond: null,
    }),
  },
  /** The same of a latency that rises with traffic, too: the largest baseline there is. */
  rateAndCycle: {
    samples: 720,
    stepSeconds: 15,
    at: (t: number) => {
      const requestsPerSecond = trafficAt(t)
      return {
        latencyMs: (1 + requestsPerSecond) * Math.exp(0.3 * Math.sin((2 * Math.PI * t) / 1_200)),
        requestsPerSecond,
      }
    },
  },
  /** Two days, a sample a minute. */
  day: {
    samples: 2_880,
    stepSeconds: 60,
    at: (t: number) => ({ latencyMs: 100 * daily(t), requestsPerSecond: null }),
  },
  /** The same of a latency that rises with traffic, too. */
  rateAndDay: {
    samples: 2_880,
    stepSeconds: 60,
    at: (t: number) => {
      const requestsPerSecond = trafficAt(t)
      return { latencyMs: (1 + requestsPerSecond) * daily(t), requestsPerSecond }
    },
  },
} as const

export type Shape = keyof typeof SHAPES

export function shapedTraining(shape: Shape, random: Random): Training {
  const { samples, stepSeconds, at } = SHAPES[shape]
  const timesSeconds = Array.from({ length: samples }, (_, i) => START_SECONDS + i * stepSeconds)
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
  return baselinesOf(edges, () => [{ quantile: 0.5, watch: fitted.watch() }])
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

/** The query that the benchmarks' monitors ask, and what it is made of. */
export const MESH_QUERY = meshQuery({
  selector: null,
  sourceLabel: 'source_app',
  destinationLabel: 'destination_app',
  window: '1m',
  quantiles: [0.5],
})

/**
 * A monitor as the daemon runs it, with its exposition, after its first poll.
 *
 * @returns a poll, which gives the CPU time that it took; null when Prometheus did not answer in time
 */
export async function createPolls(
  runtime: Runtime,
  { prometheusUrl, edges, query = MESH_QUERY }: { prometheusUrl: string; edges: number; query?: string },
): Promise<() => Promise<number | null>> {
  const registry = new Registry()
  const monitor = createMeshMonitor(
    {
      prometheusUrl,
      query,
      ownQuery: query !== MESH_QUERY,
      sourceLabel: 'source_app',
      destinationLabel: 'destination_app',
      quantiles: [0.5],
      baselines: sharedBaselines(fleetEdges(edges), 'rate'),
      rules: RULES,
      pollIntervalMs: 60_000,
      maxAgeSeconds: 45,
      maxEdges: edges,
      edgeGraceSeconds: 900,
      shard: { ordinal: 1, count: 1 },
    },
    runtime,
    registry,
  )
  const exposition = await createExposition(runtime, registry, monitor.exposition)
  const poll = async (): Promise<number | null> => {
    const from = cpuMicroseconds()
    const { outcome, detail } = await monitor.poll()
    await exposition.render()
    const cpuMs = (cpuMicroseconds() - from) / 1_000
    if (outcome === 'timeout') return null
    if (outcome !== 'ok') throw new Error(`a poll came to ${outcome}: ${detail}`)
    return cpuMs
  }
  let tries = 0
  while ((await poll()) === null) if (++tries === 10) throw new Error('Prometheus does not answer in time')
  const samples = exposition.read().toString().split('lab7_y{').length - 1
  if (samples !== edges) throw new Error(`${samples} edges instead of ${edges}`)
  return poll
}

const SCORED_EDGES = 1_000
const SCORED_ROUNDS = 40
const SCORED_PASSES = 9

export interface ScoringCost {
  /** What the model found in its training. */
  readonly found: string
  /** Of one edge and poll, once its reading is made: the least of several passes. */
  readonly microseconds: number
  /** By how much the heap was larger in the end, by edge and poll. */
  readonly heapBytes: number
}

/** What it costs to score an edge whose baseline has this shape. */
export function scoringCost(shape: Shape, collectGarbage: () => void): ScoringCost {
  const random = seededRandom(5)
  const values = Array.from({ length: 4_096 }, () => lognormal(random, { median: 11, sigma: 0.05 }))
  const fitted = fitShape(shape, 1)
  const watches = Array.from({ length: SCORED_EDGES }, () => [{ quantile: 0.5, watch: fitted.watch() }])
  const spent: number[] = []
  const heaps: number[] = []
  let round = 0
  for (let pass = 0; pass <= SCORED_PASSES; pass++) {
    let microseconds = 0
    for (let i = 0; i < SCORED_ROUNDS; i++, round++) {
      const readings = watches.map((_, k): Reading => {
        const latencyMs = values[(k * 31 + round * 7) % values.length]!
        const timestampSeconds = 1_710_000_000 + 5 * round
        const latencies = [{ quantile: 0.5, latencyMs }]
        const sample = { timestampSeconds, latencies, requestsPerSecond: 5 + (k % 10) }
        return { kind: 'sample', outcome: 'ok', sample }
      })
      const from = cpuMicroseconds()
      let bandsMs = 0
      for (let k = 0; k < SCORED_EDGES; k++) bandsMs += bandOf(score(watches[k]!, readings[k]!, RULES))
      microseconds += cpuMicroseconds() - from
      // Without a use of what was scored, the compiler would leave it out.
      if (!(bandsMs > 0)) throw new Error('edges without a band')
    }
    collectGarbage()
    heaps.push(process.memoryUsage().heapUsed)
    // The first one is for the compiler.
    if (pass > 0) spent.push(microseconds / (SCORED_ROUNDS * SCORED_EDGES))
  }
  const polls = (SCORED_PASSES - 1) * SCORED_ROUNDS * SCORED_EDGES
  return { found: fitted.summary, microseconds: least(spent), heapBytes: (heaps.at(-1)! - heaps[1]!) / polls }
}

function bandOf({ quantiles }: Evaluation): number {
  let sum = 0
  for (const { yhatMs, yMinMs, yMaxMs, score: heat } of quantiles) sum += yhatMs + yMinMs + yMaxMs + (heat ?? NaN)
  return sum
}

/** @throws {Error} where node does not offer it */
export function garbageCollector(): () => void {
  const { gc } = globalThis as { readonly gc?: () => void }
  if (gc === undefined) throw new Error('run with node --expose-gc')
  return gc
}

/** CPU time that a process has used, from /proc/PID/stat (proc(5): utime and stime, in hundredths of a second). */
export function cpuMsOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  return 10 * (Number(fields[11]) + Number(fields[12]))
}

/** The fleet's server in a process of its own. */
export async function startFleet(
  { program }: Runtime,
  edges: number,
): Promise<{ readonly url: string; readonly child: Child }> {
  const script = fileURLToPath(new URL('mesh-fleet-server.js', import.meta.url))
  const child = startChild({ name: 'fleet', command: program.nodePath, args: [script, String(edges)] })
  return { url: await child.waitForLine(listeningUrl), child }
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
