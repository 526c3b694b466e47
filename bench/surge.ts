/*
 * What the request rate is worth, on the real testbed with a real Prometheus: cartservice queues in a surge of users, and the
 * same recorded stream is scored once with the request rate and once without it. Then a surge with a delay fault in it.
 *
 *   npm run bench:surge
 *
 * About twenty minutes. A busy machine queues by itself; test/surge.test.ts does the same in simulated time.
 */
import { mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { fitBaselines, watchesOf } from '../src/commands/models.js'
import { latencyAndTraffic } from '../src/core/promql.js'
import { readRecording, type Recording } from '../src/core/recording.js'
import { replay, type Replayed } from '../src/core/replay.js'
import { queryRange } from '../src/io/prometheus.js'
import type { Runtime } from '../src/io/runtime.js'
import { findPrometheus, startPrometheus, writeTargets } from '../src/testbed/prometheus-server.js'
import { startTestbed, type Testbed } from '../src/testbed/testbed.js'
import { loadTopology } from '../src/testbed/topology.js'
import { benchRuntime } from './runtime.js'

/** One worker of about 8 ms, 120 requests a second: some 100 users make it queue. */
const TOPOLOGY = `
name: queue
namespace: default
entry: frontend
waitSeconds: { min: 0.5, max: 1.5 }
onStart: []
tasks:
  buy: { weight: 1, requests: [buy] }
services:
  - name: frontend
    concurrency: 64
    queueLimit: 1000
    serviceTimeMs: { median: 1, sigma: 0.3 }
    endpoints: { buy: [{ call: cartservice/get }] }
  - name: cartservice
    concurrency: 1
    queueLimit: 1000
    serviceTimeMs: { median: 5, sigma: 0.9 }
    endpoints: { get: [] }
`
const RULES = {
  direction: 'above',
  minRequestsPerSecond: 0.1,
  minDeviationMs: 0,
  minDeviationRatio: 0,
  sloMs: null,
} as const
const PAIR = { source: 'frontend', destination: 'cartservice' }
const USERS = 30
const WINDOW_SECONDS = 6
/** Extra users of the training, and for how many seconds: twelve minutes of low traffic, a twelfth of it surges. */
const TRAINING = [
  { users: 0, duration: 90 },
  { users: 60, duration: 12 },
  { users: 0, duration: 230 },
  { users: 70, duration: 16 },
  { users: 0, duration: 110 },
  { users: 65, duration: 18 },
  { users: 0, duration: 190 },
  { users: 75, duration: 14 },
  { users: 0, duration: 60 },
]

/** Of the stream: as busy as the training, and for longer. */
const SURGE = { users: 70, seconds: 240 }
const CALM_SECONDS = 40
const FAULT_SECONDS = 30
/** A rate window shows a change in full only when it is past. */
const SETTLED_SECONDS = WINDOW_SECONDS / 2

interface Stage {
  readonly runtime: Runtime
  readonly testbed: Testbed
  readonly prometheusUrl: string
}

/** What must be ended, in the order in which it was started. */
const ends: (() => unknown)[] = []

async function setStage(): Promise<Stage> {
  const runtime = benchRuntime()
  const folder = mkdtempSync(join(tmpdir(), 'meshfever-surge-'))
  ends.push(() => rmSync(folder, { recursive: true, force: true }))
  const binary = await findPrometheus(runtime)
  const topology = join(folder, 'queue.yaml')
  writeFileSync(topology, TOPOLOGY)
  const testbed = await startTestbed(runtime, {
    topology: loadTopology(topology, '--topology'),
    load: {
      shape: { steps: [{ fromUsers: USERS, toUsers: USERS }], stepSeconds: 3_600, transients: [] },
      spawnRate: 1_000,
      waitSeconds: { min: 0.5, max: 1.5 },
    },
    seed: 3,
    controlPort: 0,
  })
  ends.push(testbed.close)
  const targets = join(folder, 'sidecars.json')
  writeTargets(targets, testbed.targets)
  const { url: prometheusUrl, child } = await startPrometheus({
    binary,
    folder: join(folder, 'prometheus'),
    scrapeIntervalSeconds: 1,
    jobs: [{ name: 'istio-proxy', metricsPath: '/stats/prometheus', targetsFile: targets }],
  })
  ends.push(() => child.stop())
  return { runtime, testbed, prometheusUrl }
}

function seconds({ runtime }: Stage): number {
  return runtime.clock.nowMs() / 1000
}

async function pass({ runtime }: Stage, duration: number): Promise<void> {
  await runtime.clock.sleep(1000 * duration, runtime.signal)
}

async function recorded({ runtime, prometheusUrl }: Stage, from: number, to: number): Promise<Recording> {
  const query = latencyAndTraffic({
    pair: PAIR,
    ...{ sourceLabel: 'source_app', destinationLabel: 'destination_app', reporter: 'source' },
    window: `${WINDOW_SECONDS}s`,
    quantiles: [0.5],
  })
  const answer = await queryRange(runtime, {
    ...{ prometheusUrl, query, startSeconds: from, endSeconds: to, stepSeconds: 1, deadlineMs: 20_000 },
  })
  if (answer.kind === 'failure') throw new Error(answer.detail)
  return readRecording(answer.data)
}

/** Waits until Prometheus has a full window of the pair's traffic. */
async function warm(stage: Stage): Promise<void> {
  const deadline = seconds(stage) + 40
  while (seconds(stage) < deadline) {
    await pass(stage, 0.5)
    const now = Math.floor(seconds(stage))
    try {
      const { series } = await recorded(stage, now - WINDOW_SECONDS - 1, now)
      const count = series[0]?.latenciesMs.filter(Number.isFinite).length ?? 0
      if (count >= WINDOW_SECONDS) return
    } catch {
      // no series yet
    }
  }
  throw new Error('Prometheus has no full window of traffic')
}

function withoutRate(recording: Recording): Recording {
  return { ...recording, series: recording.series.map((series) => ({ ...series, requestsPerSecond: null })) }
}

async function run(stage: Stage): Promise<void> {
  const { testbed } = stage
  await warm(stage)

  const trainingFrom = seconds(stage)
  for (const { users, duration } of TRAINING) {
    testbed.setExtraUsers(users)
    await pass(stage, duration)
  }
  const trainingTo = seconds(stage)
  testbed.setExtraUsers(SURGE.users)
  await pass(stage, SURGE.seconds)
  testbed.setExtraUsers(0)
  const surgeTo = seconds(stage)
  await pass(stage, CALM_SECONDS)
  testbed.setExtraUsers(SURGE.users)
  await pass(stage, SETTLED_SECONDS)
  const fault = readFileSync(join(packageRoot(), 'k8s', 'faults', 'frontend-cartservice-delay.yaml'), 'utf8')
  testbed.applyFaults(fault, 'delay.yaml')
  const faultFrom = seconds(stage)
  await pass(stage, FAULT_SECONDS)
  const end = seconds(stage)
  await pass(stage, 2) // the last scrape

  const training = await recorded(stage, trainingFrom, trainingTo)
  const stream = await recorded(stage, trainingTo + 1, end)
  const found = []
  for (const change of [(recording: Recording) => recording, withoutRate]) {
    const baselines = await fitBaselines(change(training), {
      model: 'load-and-season',
      quantiles: [0.5],
      what: 'surge',
    })
    const replayed = [
      ...replay({ watches: watchesOf(baselines), recording: change(stream), rules: RULES, quantileOf: () => 0.5 }),
    ]
    found.push({
      requestRate: found.length === 0 ? 'known' : 'removed',
      baseline: [...baselines.values()].map(({ summary }) => summary).join(),
      surge: anomaliesIn(replayed, trainingTo, surgeTo + WINDOW_SECONDS),
      faultInSurge: anomaliesIn(replayed, faultFrom + SETTLED_SECONDS, end),
    })
  }
  console.log(JSON.stringify({ found }, null, 2))
}

interface Counted {
  readonly anomalies: number
  readonly judged: number
}

function anomaliesIn(replayed: readonly Replayed[], from: number, to: number): Counted {
  const judged = replayed.filter(
    ({ timestampSeconds, evaluation }) =>
      timestampSeconds >= from && timestampSeconds <= to && evaluation.anomalyCount !== null,
  )
  return {
    anomalies: judged.filter(({ evaluation }) => evaluation.verdict === 'anomalous').length,
    judged: judged.length,
  }
}

/** Compiled, this file lies in dist/bench of the package. */
function packageRoot(): string {
  return dirname(realpathSync(fileURLToPath(new URL('../../package.json', import.meta.url))))
}

try {
  await run(await setStage())
} finally {
  for (const end of ends.reverse()) await end()
}
