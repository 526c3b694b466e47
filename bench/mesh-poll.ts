/*
 * What a whole poll of a mesh costs - request, parse, score, publish - next to the CPU that Prometheus spends on its query: a real
 * Prometheus scrapes the sidecars of 2,000 edges with three replicas each every 15 s. Then the same for answers replayed, of
 * up to 50,000 edges, whose cost should grow as they do; and for how long a poll of 10,000 edges holds the event loop up.
 *
 *   npm run bench:mesh poll
 *
 * About four minutes.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'

import { median } from 'simple-statistics'

import type { Child } from '../src/testbed/child-process.js'
import { findPrometheus, startPrometheus, writeTargets } from '../src/testbed/prometheus-server.js'
import { cpuMicroseconds, cpuMsOf, createPolls, least, rounded, startFleet } from './mesh-fleet.js'
import { benchRuntime } from './runtime.js'

const EDGES = 2_000
const REPLICAS = 3
const SCRAPE_SECONDS = 15
/** A window of a minute is full, and every replica was scraped in it four times. */
const WARM_SECONDS = 75
const POLLS = 12
const GOAL_RATIO = 20
const REPLAYED = [1_000, 2_000, 5_000, 10_000, 20_000, 50_000]
const REPLAYED_POLLS = 12
const LOOP_EDGES = 10_000
const LOOP_POLLS = 30
const GOAL_LOOP_MS = 50

const runtime = benchRuntime()
const { clock, signal } = runtime

const folder = mkdtempSync(join(tmpdir(), 'meshfever-mesh-'))
const children: Child[] = []

async function againstPrometheus(fleetUrl: string): Promise<object> {
  const targets = join(folder, 'sidecars.json')
  writeTargets(targets, [{ targets: [new URL(fleetUrl).host] }])
  const { url, version, child } = await startPrometheus({
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
  const poll = await createPolls(runtime, { prometheusUrl: url, edges: EDGES })
  for (let i = 0; i < 3; i++) await poll()

  const idle = { fromMs: clock.monotonicMs(), cpuMs: cpuMsOf(child.pid) }
  await clock.sleep(2 * SCRAPE_SECONDS * 1_000, signal)
  const idleShare = (cpuMsOf(child.pid) - idle.cpuMs) / (clock.monotonicMs() - idle.fromMs)

  const own: number[] = []
  const prometheus: number[] = []
  let late = 0
  for (let i = 0; i < POLLS; i++) {
    const before = { fromMs: clock.monotonicMs(), cpuMs: cpuMsOf(child.pid) }
    const cpuMs = await poll()
    if (cpuMs === null) {
      late++
      // What it still computes belongs to no poll.
      await clock.sleep(5_000, signal)
      continue
    }
    own.push(cpuMs)
    prometheus.push(cpuMsOf(child.pid) - before.cpuMs - idleShare * (clock.monotonicMs() - before.fromMs))
    await clock.sleep(500, signal)
  }
  await child.stop()
  const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length
  return {
    edges: EDGES,
    replicas: REPLICAS,
    prometheusVersion: version,
    polls: own.length,
    // Where the machine has other things to do.
    late,
    prometheusCpuMsPerQuery: rounded(mean(prometheus)),
    ownCpuMsPerPoll: rounded(mean(own)),
    goal: GOAL_RATIO,
    prometheusOverOwn: rounded(mean(prometheus) / mean(own)),
    // Whatever else the machine does only adds to either.
    leastPrometheusOverLeastOwn: rounded(least(prometheus) / least(own)),
  }
}

interface Replayed {
  readonly edges: number
  readonly cpuMsPerPoll: number
  readonly cpuMicrosecondsPerEdge: number
}

async function replayed(fleetUrl: string, edges: number): Promise<Replayed> {
  const poll = await createPolls(runtime, { prometheusUrl: `${fleetUrl}/replay/${edges}`, edges })
  const spent: number[] = []
  for (let i = 0; i < REPLAYED_POLLS; i++) spent.push((await poll()) ?? NaN)
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
  const poll = await createPolls(runtime, { prometheusUrl: `${fleetUrl}/replay/${LOOP_EDGES}`, edges: LOOP_EDGES })
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
  const { url: fleetUrl, child: fleet } = await startFleet(runtime, EDGES)
  children.push(fleet)
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
        replayed: { polls: growth, perEdgeAt50000OverLeast: rounded((perEdge.at(-1) ?? NaN) / least(perEdge)) },
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
