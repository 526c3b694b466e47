/*
 * What a whole poll of a mesh costs - request, parse, score, publish - next to the CPU that Prometheus spends on its query: a real
 * Prometheus scrapes the sidecars of 2,000 edges with three replicas each every 5 s. Then the same for answers replayed, of
 * up to 50,000 edges, whose cost should grow as they do; and for how long a poll of 10,000 edges holds the event loop up.
 *
 *   npm run bench:mesh-poll [-- EDGES]
 *
 * About five minutes.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'

import { Registry } from 'prom-client'
import { median } from 'simple-statistics'

import { meshQuery } from '../src/core/mesh-query.js'
import { createExposition } from '../src/io/gauges.js'
import { createMeshMonitor } from '../src/io/mesh-monitor.js'
import { type Child, listeningUrl, startChild } from '../src/testbed/child-process.js'
import { findPrometheus, startPrometheus, writeTargets } from '../src/testbed/prometheus-server.js'
import { cpuMicroseconds, fleetEdges, least, rounded, RULES, sharedBaselines } from './mesh-fleet.js'
import { benchRuntime } from './runtime.js'

const EDGES = Number(process.argv[2] ?? 2_000)
const REPLICAS = 3
const SCRAPE_SECONDS = 5
const WARM_SECONDS = 75
const POLLS = 15
const GOAL_RATIO = 20
const REPLAYED = [1_000, 2_000, 5_000, 10_000, 20_000, 50_000]
const REPLAYED_POLLS = 12
const LOOP_EDGES = 10_000
const LOOP_POLLS = 30
const GOAL_LOOP_MS = 50

const runtime = benchRuntime()
const { clock, signal, program } = runtime
const query = meshQuery({
  selector: null,
  sourceLabel: 'source_app',
  destinationLabel: 'destination_app',
  window: '1m',
  quantiles: [0.5],
})

/** A monitor as the daemon runs it, with its exposition. @returns a poll, which gives the CPU time it took */
async function createPolls(prometheusUrl: string, count: number): Promise<() => Promise<number>> {
  const registry = new Registry()
  const monitor = createMeshMonitor(
    {
      prometheusUrl,
      query,
      sourceLabel: 'source_app',
      destinationLabel: 'destination_app',
      quantiles: [0.5],
      baselines: sharedBaselines(fleetEdges(count), 'rate'),
      rules: RULES,
      pollIntervalMs: 60_000,
      maxAgeSeconds: 45,
      maxEdges: count,
      edgeGraceSeconds: 900,
      shard: { ordinal: 1, count: 1 },
    },
    runtime,
    registry,
  )
  const exposition = await createExposition(runtime, registry, monitor.exposition)
  const poll = async (): Promise<number> => {
    const from = cpuMicroseconds()
    const { outcome, detail } = await monitor.poll()
    await exposition.render()
    const cpuMs = (cpuMicroseconds() - from) / 1_000
    if (outcome !== 'ok') throw new Error(`a poll came to ${outcome}: ${detail}`)
    return cpuMs
  }
  await poll()
  const samples = exposition.read().toString().split('lab7_y{').length - 1
  if (samples !== count) throw new Error(`${samples} edges instead of ${count}`)
  return poll
}

/** CPU time that a process has used, from /proc/PID/stat (proc(5): utime and stime, in hundredths of a second). */
function cpuMsOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  return 10 * (Number(fields[11]) + Number(fields[12]))
}

const folder = mkdtempSync(join(tmpdir(), 'meshfever-mesh-'))
const children: Child[] = []

async function againstPrometheus(fleetUrl: string): Promise<object> {
  const host = new URL(fleetUrl).host
  const targets = join(folder, 'sidecars.json')
  writeTargets(targets, [{ targets: [host] }])
  const { url, child } = await startPrometheus({
    binary: await findPrometheus(runtime),
    folder: join(folder, 'prometheus'),
    scrapeIntervalSeconds: SCRAPE_SECONDS,
    jobs: Array.from({ length: REPLICAS }, (_, k) => ({
      name: `replica-${k}`,
      metricsPath: `/pods/${k}`,
      targetsFile: targets,
    })),
  })
  children.push(child)
  await clock.sleep(WARM_SECONDS * 1_000, signal)
  const poll = await createPolls(url, EDGES)
  for (let i = 0; i < 5; i++) await poll()

  const idle = { fromMs: clock.monotonicMs(), cpuMs: cpuMsOf(child.pid) }
  await clock.sleep(6 * SCRAPE_SECONDS * 1_000, signal)
  const idleShare = (cpuMsOf(child.pid) - idle.cpuMs) / (clock.monotonicMs() - idle.fromMs)

  const busy = { fromMs: clock.monotonicMs(), cpuMs: cpuMsOf(child.pid) }
  const ours: number[] = []
  for (let i = 0; i < POLLS; i++) {
    ours.push(await poll())
    await clock.sleep(1_000, signal)
  }
  const spentMs = cpuMsOf(child.pid) - busy.cpuMs - idleShare * (clock.monotonicMs() - busy.fromMs)
  const prometheusMs = spentMs / POLLS
  const ownMs = ours.reduce((a, b) => a + b, 0) / POLLS
  await child.stop()
  return {
    edges: EDGES,
    replicas: REPLICAS,
    prometheusCpuMsPerQuery: rounded(prometheusMs),
    ownCpuMsPerPoll: rounded(ownMs),
    ownCpuMsPerPollMedian: rounded(median(ours)),
    goal: GOAL_RATIO,
    prometheusOverOwn: rounded(prometheusMs / ownMs),
  }
}

interface Replayed {
  readonly edges: number
  readonly cpuMsPerPoll: number
  readonly cpuMicrosecondsPerEdge: number
}

async function replayed(fleetUrl: string, edges: number): Promise<Replayed> {
  const poll = await createPolls(`${fleetUrl}/replay/${edges}`, edges)
  const spent: number[] = []
  for (let i = 0; i < REPLAYED_POLLS; i++) spent.push(await poll())
  // The first ones are for the compiler.
  const cpuMs = median(spent.slice(REPLAYED_POLLS / 3))
  return { edges, cpuMsPerPoll: rounded(cpuMs), cpuMicrosecondsPerEdge: rounded((1_000 * cpuMs) / edges) }
}

/** The most CPU time, milliseconds, that goes by between two turns of the event loop. */
async function longestTurn(work: () => Promise<unknown>): Promise<number> {
  const run = { done: false }
  let longest = 0
  let before = cpuMicroseconds()
  const look = (): void => {
    const now = cpuMicroseconds()
    longest = Math.max(longest, now - before)
    before = now
    if (!run.done) setImmediate(look)
  }
  setImmediate(look)
  await work()
  run.done = true
  look()
  return longest / 1_000
}

async function loopDelay(fleetUrl: string): Promise<object> {
  const poll = await createPolls(`${fleetUrl}/replay/${LOOP_EDGES}`, LOOP_EDGES)
  const delay = monitorEventLoopDelay({ resolution: 1 })
  const held: number[] = []
  const worked: number[] = []
  for (let i = 0; i < LOOP_POLLS; i++) {
    delay.reset()
    delay.enable()
    await poll()
    await clock.sleep(20, signal)
    delay.disable()
    held.push(delay.max / 1e6)
    worked.push(await longestTurn(poll))
  }
  const most = (values: readonly number[]): number => values.reduce((a, b) => Math.max(a, b), 0)
  return {
    edges: LOOP_EDGES,
    goalMs: GOAL_LOOP_MS,
    medianMs: rounded(median(held)),
    longestMs: rounded(most(held)),
    // The same without the time that other programs had the processor.
    cpuMedianMs: rounded(median(worked)),
    cpuLongestMs: rounded(most(worked)),
  }
}

try {
  const script = fileURLToPath(new URL('mesh-fleet-server.js', import.meta.url))
  const fleet = startChild({ name: 'fleet', command: program.nodePath, args: [script, String(EDGES)] })
  children.push(fleet)
  const fleetUrl = await fleet.waitForLine(listeningUrl)
  // First, so that the compiler has done its work when the CPU counts: a daemon runs for days.
  const growth: Replayed[] = []
  for (const edges of REPLAYED) growth.push(await replayed(fleetUrl, edges))
  const perEdge = growth.slice(1).map(({ cpuMicrosecondsPerEdge }) => cpuMicrosecondsPerEdge)
  const loop = await loopDelay(fleetUrl)
  const poll = await againstPrometheus(fleetUrl)
  console.log(
    JSON.stringify(
      {
        poll,
        replayed: growth,
        perEdgeAt50000OverLeast: rounded((perEdge.at(-1) ?? NaN) / least(perEdge)),
        eventLoop: loop,
      },
      null,
      2,
    ),
  )
} finally {
  await Promise.allSettled(children.reverse().map((each) => each.stop()))
  rmSync(folder, { recursive: true, force: true })
}
