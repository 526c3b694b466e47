/*
 * What an edge takes in memory: a mesh's monitor is polled with few and with many edges, each with a baseline of its own, and
 * the heap is compared after a full garbage collection. Then the same with what lies outside of the heap, which is the text that
 * /metrics serves.
 *
 *   npm run bench:mesh memory
 */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

import axios, { type InternalAxiosRequestConfig } from 'axios'
import { Registry } from 'prom-client'

import { loadAndSeason } from '../src/core/baseline/load-and-season.js'
import { createBaselineStore } from '../src/core/mesh-baselines.js'
import { createExposition } from '../src/io/gauges.js'
import { createMeshMonitor } from '../src/io/mesh-monitor.js'
import type { Runtime } from '../src/io/runtime.js'
import { watchesFrom } from '../src/io/training-thread.js'
import { seededRandom } from '../src/testbed/random.js'
import {
  answers,
  fleetEdges,
  garbageCollector,
  rounded,
  RULES,
  type Shape,
  shapedTraining,
  SHAPES,
} from './mesh-fleet.js'
import { benchRuntime } from './runtime.js'

const FEW_EDGES = 1_000
const MANY_EDGES = 4_000
/** Different trainings; each edge has what was found in one of them to itself. */
const TRAININGS = 40
const POLLS = 3
const RUNS = 3
const GOAL_BYTES = 2_048

const collect = garbageCollector()

interface Memory {
  readonly heapBytes: number
  /** Outside of the heap: the typed arrays of baselines, and the text that /metrics serves. */
  readonly externalBytes: number
  readonly textBytes: number
}

async function settled(): Promise<Omit<Memory, 'textBytes'>> {
  for (let i = 0; i < 4; i++) {
    await new Promise((resolve) => setImmediate(resolve))
    collect()
  }
  const { heapUsed, external } = process.memoryUsage()
  return { heapBytes: heapUsed, externalBytes: external }
}

const world = benchRuntime()

/** Answers each request at once with what `body` gives. */
function answering(body: () => string): Runtime {
  const adapter = (config: InternalAxiosRequestConfig) =>
    Promise.resolve({ data: body(), status: 200, statusText: '', headers: {}, config })
  return { ...world, http: axios.create({ adapter, transformResponse: [(data: unknown) => data] }) }
}

/** What is held after some polls of a monitor of so many edges. Nothing of the benchmark's own grows with them. */
async function memoryOf(count: number, parameters: readonly unknown[]): Promise<Memory> {
  const store = createBaselineStore()
  fleetEdges(count).forEach((edge, i) => {
    // As they come from the thread that trains.
    const own = structuredClone(parameters[i % TRAININGS])
    const watches = watchesFrom(loadAndSeason, [[0.5, own]])
    store.put(edge, watches, { samples: 240, fittedSeconds: 1_710_000_000 })
  })
  store.complete()
  let time = 1_710_000_000
  const runtime = answering(() => answers(fleetEdges(count))((time += 5)))
  const registry = new Registry()
  const monitor = createMeshMonitor(
    {
      prometheusUrl: 'http://prometheus',
      query: 'q',
      sourceLabel: 'source_app',
      destinationLabel: 'destination_app',
      quantiles: [0.5],
      baselines: store,
      rules: RULES,
      pollIntervalMs: 5_000,
      maxAgeSeconds: 45,
      maxEdges: count,
      edgeGraceSeconds: 900,
      shard: { ordinal: 1, count: 1 },
    },
    runtime,
    registry,
  )
  const exposition = await createExposition(runtime, registry, monitor.exposition)
  for (let i = 0; i < POLLS; i++) {
    const { outcome, detail } = await monitor.poll()
    if (outcome !== 'ok') throw new Error(`a poll came to ${outcome}: ${detail}`)
    await exposition.render()
  }
  const { heapBytes, externalBytes } = await settled()
  return { heapBytes, externalBytes, textBytes: exposition.read().length }
}

/** The least of several processes: one may not have let go of what it used for a poll. */
function measured(shape: Shape, count: number): Memory {
  const runs = Array.from({ length: RUNS }, () => run(shape, count))
  return runs.reduce((best, memory) => (sum(memory) < sum(best) ? memory : best))
}

function sum({ heapBytes, externalBytes }: Memory): number {
  return heapBytes + externalBytes
}

function run(shape: Shape, count: number): Memory {
  const { stdout, stderr, status } = spawnSync(
    process.execPath,
    ['--expose-gc', fileURLToPath(import.meta.url), shape, String(count)],
    { encoding: 'utf8' },
  )
  if (status !== 0) throw new Error(stderr)
  return JSON.parse(stdout) as Memory
}

function perEdge(shape: Shape): object {
  const few = measured(shape, FEW_EDGES)
  const many = measured(shape, MANY_EDGES)
  const bytes = (of: (memory: Memory) => number): number => Math.round((of(many) - of(few)) / (MANY_EDGES - FEW_EDGES))
  const heapBytesPerEdge = bytes(({ heapBytes }) => heapBytes)
  const arrayBytesPerEdge = bytes(({ externalBytes, textBytes }) => externalBytes - textBytes)
  return {
    baseline: shape,
    edges: [FEW_EDGES, MANY_EDGES],
    heapBytesPerEdge,
    arrayBytesPerEdge,
    ratioToGoal: rounded((heapBytesPerEdge + arrayBytesPerEdge) / GOAL_BYTES),
    textBytesPerEdge: bytes(({ textBytes }) => textBytes),
  }
}

const SHAPE_NAMES = Object.keys(SHAPES) as Shape[]
const asked = SHAPE_NAMES.find((shape) => shape === process.argv[2])
if (asked === undefined) {
  console.log(JSON.stringify({ goalBytes: GOAL_BYTES, measured: SHAPE_NAMES.map(perEdge) }, null, 2))
} else {
  const parameters = Array.from({ length: TRAININGS }, (_, i) =>
    loadAndSeason.parametersOf(shapedTraining(asked, seededRandom(i))),
  )
  console.log(JSON.stringify(await memoryOf(Number(process.argv[3]), parameters)))
}
