/*
 * What an edge takes in memory: a mesh's monitor is polled with few and with many edges, each with a baseline of its own, and
 * the heap is compared after a full garbage collection. Then the same with what lies outside of the heap, which is the text that
 * /metrics serves.
 *
 *   npm run bench:mesh memory
 */
import axios, { type InternalAxiosRequestConfig } from 'axios'
import { Registry } from 'prom-client'

import { createBaselineStore } from '../src/core/mesh-baselines.js'
import { createExposition } from '../src/io/gauges.js'
import { createMeshMonitor } from '../src/io/mesh-monitor.js'
import type { Runtime } from '../src/io/runtime.js'
import { answers, fitShape, fleetEdges, garbageCollector, rounded, RULES, type Shape, SHAPES } from './mesh-fleet.js'
import { benchRuntime } from './runtime.js'

/** Fitting takes the benchmark's time: a load cycle and a daily profile are made for fewer edges. */
const EDGES: Readonly<Record<Shape, readonly [few: number, many: number]>> = {
  level: [1_000, 4_000],
  rate: [1_000, 4_000],
  cycle: [300, 1_300],
  day: [300, 1_300],
}
const POLLS = 3
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

/** What a monitor of so many edges keeps after some polls. Nothing of the benchmark's own outlives a poll. */
async function memoryOf(count: number, shape: Shape): Promise<Memory> {
  const before = await settled()
  const store = createBaselineStore()
  // A baseline each, as if each were trained on its own.
  fleetEdges(count).forEach((edge, i) =>
    store.put(edge, new Map([[0.5, fitShape(shape, i).watch()]]), { samples: 0, fittedSeconds: 0 }),
  )
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
  const after = await settled()
  return {
    heapBytes: after.heapBytes - before.heapBytes,
    externalBytes: after.externalBytes - before.externalBytes,
    textBytes: exposition.read().length,
  }
}

const measured = []
for (const shape of Object.keys(SHAPES) as Shape[]) {
  const [fewEdges, manyEdges] = EDGES[shape]
  await memoryOf(50, shape) // whatever is made once
  const few = await memoryOf(fewEdges, shape)
  const many = await memoryOf(manyEdges, shape)
  const perEdge = (bytes: (memory: Memory) => number): number =>
    Math.round((bytes(many) - bytes(few)) / (manyEdges - fewEdges))
  const heapBytesPerEdge = perEdge(({ heapBytes }) => heapBytes)
  const arrayBytesPerEdge = perEdge(({ externalBytes, textBytes }) => externalBytes - textBytes)
  measured.push({
    baseline: shape,
    edges: EDGES[shape],
    heapBytesPerEdge,
    arrayBytesPerEdge,
    ratioToGoal: rounded((heapBytesPerEdge + arrayBytesPerEdge) / GOAL_BYTES),
    textBytesPerEdge: perEdge(({ textBytes }) => textBytes),
  })
}
console.log(JSON.stringify({ goalBytes: GOAL_BYTES, measured }, null, 2))
