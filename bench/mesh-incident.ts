/*
 * What the incident rule costs for a mesh: folding a poll, reading an answer, memory; what it asks of Prometheus, in three ways;
 * and how often quiet noise would open an incident, when edges belong together that are hot, or all that are warm.
 *
 *   npm run bench:mesh incident
 *
 * About two minutes. Of each time the least of several rounds.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { median } from 'simple-statistics'

import type { PairVerdict } from '../src/core/incident.js'
import { edgeHistoryQuery, meshHistoryQuery, newlyAnomalous, readMeshHistory } from '../src/core/mesh-history.js'
import { COLD_MESH, meshNext, type MeshPoll, type MeshRules, type MeshState } from '../src/core/mesh-incident.js'
import { type Pair, pairKey } from '../src/core/pair.js'
import { type Matrix, parseAnswer } from '../src/core/series.js'
import { queryInstantMatrix } from '../src/io/prometheus.js'
import { findPrometheus, startPrometheus, writeTargets } from '../src/testbed/prometheus-server.js'
import { seededRandom } from '../src/testbed/random.js'
import { cpuMsOf, garbageCollector } from './mesh-fleet.js'
import { benchRuntime } from './runtime.js'

const ASKED_EDGES = 2_000
const STEP_SECONDS = 5
const T0 = 1_700_000_000
const RULES: MeshRules = {
  accumulatorThreshold: 5,
  incidentThreshold: 10,
  clearThreshold: 5,
  coolBy: 2,
  accumulatorMax: 20,
  noDataTimeoutSeconds: 600,
}
const OK: PairVerdict = { kind: 'ok' }
const BAD: PairVerdict = { kind: 'anomalous', anomalyCount: 1 }

const collectGarbage = garbageCollector()

/** Every service calls five others; a tenth of all edges lead to five hubs. */
function meshOf(count: number): readonly Pair[] {
  const services = Math.ceil(count / 5)
  return Array.from({ length: count }, (_, i) => ({
    source: `service-${i % services}`,
    destination:
      i % 10 === 0 ? `hub-${Math.floor(i / services)}` : `service-${(i * 7 + Math.floor(i / services)) % services}`,
  }))
}

function pollOf(k: number, edges: readonly Pair[], verdictOf: (i: number) => PairVerdict): MeshPoll {
  const verdicts = edges.map((edge, i) => [pairKey(edge), { ...edge, verdict: verdictOf(i) }] as const)
  return { timestampSeconds: T0 + STEP_SECONDS * k, verdicts: new Map(verdicts) }
}

function least(rounds: number, work: () => void): number {
  let leastMs = Infinity
  for (let i = 0; i < rounds; i++) {
    const startMs = performance.now()
    work()
    leastMs = Math.min(leastMs, performance.now() - startMs)
  }
  return Number(leastMs.toFixed(3))
}

function folding(told: number, warm: number): Readonly<Record<string, number>> {
  const edges = meshOf(told)
  let state = COLD_MESH
  for (let k = 0; k < 30; k++)
    state = meshNext(
      state,
      pollOf(k, edges, (i) => (i < warm ? BAD : OK)),
      RULES,
    ).state
  const poll = pollOf(30, edges, (i) => (i < warm ? BAD : OK))
  return {
    edgesTold: told,
    warm: state.edges.length,
    openIncidents: state.incidents.length,
    foldMs: least(200_000 / told, () => meshNext(state, poll, RULES)),
  }
}

/** What Prometheus would answer, two steps of it. */
function answerOf(edges: readonly Pair[]): string {
  const times = [T0, T0 + STEP_SECONDS]
  const values = (value: (time: number) => number): readonly unknown[] =>
    times.map((time) => [time, String(value(time))])
  const monitor = { instance: '10.0.0.1:8080', job: 'meshfever' }
  return JSON.stringify({
    status: 'success',
    data: {
      resultType: 'matrix',
      result: [
        { metric: { series: 'poll' }, values: values((time) => time) },
        ...edges.flatMap((edge) => [
          { metric: { __name__: 'lab7_anomaly_count', ...edge, ...monitor }, values: values(() => 1) },
          {
            metric: { __name__: 'lab7_sample_timestamp_seconds', ...edge, ...monitor },
            values: values((time) => time - 2),
          },
          { metric: { __name__: 'lab7_verdict', ...edge, ...monitor, verdict: 'anomalous' }, values: values(() => 1) },
        ]),
      ],
    },
  })
}

function reading(count: number): Readonly<Record<string, number>> {
  const body = answerOf(meshOf(count))
  const read = (): Matrix => parseAnswer(JSON.parse(body), 'matrix')
  return {
    edges: count,
    bytes: body.length,
    parseMs: least(10, read),
    readMs: least(10, () => readMeshHistory(read(), null, { staleAfterSeconds: 60 })),
  }
}

/** Bytes of heap per warm edge, after so many polls in which all are bad. */
function memory(count: number, polls: number): Readonly<Record<string, number>> {
  const edges = meshOf(count)
  collectGarbage()
  const before = process.memoryUsage().heapUsed
  let state: MeshState = COLD_MESH
  for (let k = 0; k < polls; k++)
    state = meshNext(
      state,
      pollOf(k, edges, () => BAD),
      RULES,
    ).state
  collectGarbage()
  return {
    warm: state.edges.length,
    polls,
    bytesPerEdge: Math.round((process.memoryUsage().heapUsed - before) / state.edges.length),
  }
}

/** A day in which nothing is wrong: stray anomalies, and a hub that is slow for 15 s, once an hour. */
function falseIncidents(strayShare: number): Readonly<Record<string, number>> {
  const edges = meshOf(2_000)
  const keys = edges.map(pairKey)
  const toHub = edges.flatMap(({ destination }, i) => (destination === 'hub-0' ? [i] : []))
  const rules = { hot: RULES, warm: { ...RULES, accumulatorThreshold: 0 } }
  const opened = { hot: 0, warm: 0 }
  for (const linking of ['hot', 'warm'] as const) {
    const random = seededRandom(7)
    let state: MeshState = COLD_MESH
    for (let k = 0; k < 86_400 / STEP_SECONDS; k++) {
      const bad = new Set(k % 720 < 3 ? toHub : [])
      // Gaps between strays are geometric.
      for (let i = -1; ;) {
        i += 1 + Math.floor(Math.log(1 - random()) / Math.log(1 - strayShare))
        if (i >= edges.length) break
        bad.add(i)
      }
      const warm = state.edges.map((edge) => [edge.key, { ...edge, verdict: OK }] as const)
      const verdicts = new Map<string, Pair & { readonly verdict: PairVerdict }>(warm)
      for (const i of bad) verdicts.set(keys[i]!, { ...edges[i]!, verdict: BAD })
      const step = meshNext(state, { timestampSeconds: T0 + STEP_SECONDS * k, verdicts }, rules[linking])
      opened[linking] += step.incidents.filter(({ happened }) => happened === 'opened').length
      state = step.state
    }
  }
  return { strayShare, openedWhereHotEdgesBelongTogether: opened.hot, openedWhereWarmOnesDo: opened.warm }
}

/** What a poll costs Prometheus: 100 warm edges, and 0.5 % of the others anomalous by chance. */
async function asking(count: number): Promise<Readonly<Record<string, unknown>>> {
  const runtime = benchRuntime()
  const { clock, signal } = runtime
  const edges = meshOf(count)
  const warm = edges.slice(0, 100)
  const random = seededRandom(3)
  const server = createServer((_request, response) => {
    const lines = edges.flatMap(({ source, destination }, i) => {
      const labels = `source="${source}",destination="${destination}"`
      const bad = i < warm.length || random() < 0.005
      return [
        `lab7_anomaly_count{${labels}} ${bad ? 1 : 0}`,
        `lab7_sample_timestamp_seconds{${labels}} ${Date.now() / 1000}`,
        ...['ok', 'anomalous', 'low_traffic', 'no_data', 'warming'].map(
          (verdict) => `lab7_verdict{${labels},verdict="${verdict}"} ${verdict === (bad ? 'anomalous' : 'ok') ? 1 : 0}`,
        ),
      ]
    })
    response.end(`${lines.sort().join('\n')}\n`)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const folder = mkdtempSync(join(tmpdir(), 'meshfever-bench-'))
  const targetsFile = join(folder, 'targets.json')
  writeTargets(targetsFile, [{ targets: [`127.0.0.1:${(server.address() as AddressInfo).port}`] }])
  const { url: prometheusUrl, child } = await startPrometheus({
    binary: await findPrometheus(runtime),
    folder,
    scrapeIntervalSeconds: STEP_SECONDS,
    jobs: [{ name: 'meshfever', metricsPath: '/metrics', targetsFile }],
  })
  try {
    await clock.sleep(45_000, signal)
    const ask = async (query: string): Promise<Matrix> => {
      const answer = await queryInstantMatrix(runtime, { prometheusUrl, query, deadlineMs: 30_000 })
      if (answer.kind === 'failure') throw new Error(`${answer.outcome}: ${answer.detail}`)
      return answer.data
    }
    const range = { rangeMs: 2_000 * STEP_SECONDS, stepMs: 1_000 * STEP_SECONDS, atSeconds: null }
    const when = `[${range.rangeMs}ms:${range.stepMs}ms] offset 1000ms`
    const both = '{__name__=~"lab7_anomaly_count|lab7_sample_timestamp_seconds"}'
    const ways: Readonly<Record<string, () => Promise<unknown>>> = {
      nothing: () => ask(`(vector(1))${when}`),
      everything: () => ask(`(${both} or vector(1))${when}`),
      joinedWithMaxOverTime: () =>
        ask(
          `(${both} and on (source, destination) (max_over_time(lab7_anomaly_count[${range.rangeMs}ms:${range.stepMs}ms] @ end() offset 1000ms) > 0) or vector(1))${when}`,
        ),
      asItIs: async () => {
        const answer = await ask(meshHistoryQuery(warm, '', range))
        const heated = newlyAnomalous(answer, { warm: new Set(warm.map(pairKey)), afterSeconds: 0 })
        if (heated.length > 0) await ask(edgeHistoryQuery(heated, '', range))
      },
    }
    const costs = Object.fromEntries(Object.keys(ways).map((name) => [name, [] as number[]]))
    const rounds = 9
    // In turns, so that what else the machine does hits all alike. One clock tick is 10 ms: several are asked for at a time.
    for (let round = 0; round < rounds; round++) {
      for (const [name, way] of Object.entries(ways)) {
        const before = cpuMsOf(child.pid)
        for (let i = 0; i < 5; i++) await way()
        costs[name]?.push((cpuMsOf(child.pid) - before) / 5)
      }
    }
    return {
      edges: count,
      warm: warm.length,
      prometheusCpuMsPerPoll: Object.fromEntries(Object.entries(costs).map(([name, cost]) => [name, median(cost)])),
    }
  } finally {
    await child.stop()
    server.close()
    rmSync(folder, { recursive: true, force: true })
  }
}

const result = {
  fold: [folding(10_000, 0), folding(10_000, 100), folding(10_000, 1_000), folding(10_000, 10_000)],
  read: [reading(100), reading(1_000), reading(5_000)],
  memory: memory(5_000, 500),
  falseIncidentsPerDay: [falseIncidents(0.0005), falseIncidents(0.005)],
  asking: await asking(ASKED_EDGES),
}
process.stdout.write(`${JSON.stringify(result, null, 2)}\n`)
