/*
 * The same job done by recording rules, side by side: for each edge the average and the standard deviation of its latency over 1 h
 * and over 26 h, as published approaches to anomaly detection in PromQL have it, evaluated by a real Prometheus that has more than a
 * day of history in its blocks. Next to it what we spend on an edge: scoring alone, and its share of a whole poll.
 *
 *   npm run bench:mesh rules
 *
 * About three minutes.
 */
import { spawnSync } from 'node:child_process'
import { appendFileSync, createWriteStream, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { median } from 'simple-statistics'
import { stringify } from 'yaml'

import { edgeLabels } from '../src/core/exposition-text.js'
import { findPrometheus, startPrometheus } from '../src/testbed/prometheus-server.js'
import type { Child } from '../src/testbed/child-process.js'
import { lognormal, seededRandom } from '../src/testbed/random.js'
import { cpuMsOf, createPolls, fleetEdges, garbageCollector, rounded, scoringCost, startFleet } from './mesh-fleet.js'
import { benchRuntime } from './runtime.js'

const EDGES = 300
const HISTORY_SECONDS = 27 * 3_600
/** Seconds between the samples of a series: what the rules of k8s/prometheus record, and what a minutely rule would. */
const STEPS_SECONDS = [15, 60] as const
const WINDOWS = ['1h', '26h'] as const
const EVALUATIONS = 5
/** A mesh of the size that the other parts measure: what a poll costs besides is shared by all its edges. */
const POLLED_EDGES = 2_000
const POLLS = 40
const GOAL_SCORING = 100
const GOAL_POLL = 20

const runtime = benchRuntime()
const { clock, signal } = runtime
const folder = mkdtempSync(join(tmpdir(), 'meshfever-rules-'))
const children: Child[] = []

const nameOf = (stepSeconds: number): string => `edge_latency_milliseconds_every_${stepSeconds}s`

/** Writes the history as blocks of Prometheus's. */
async function fill(data: string): Promise<void> {
  const input = join(folder, 'history.txt')
  const file = createWriteStream(input)
  const random = seededRandom(9)
  const untilSeconds = Math.floor(clock.nowMs() / 60_000) * 60
  for (const stepSeconds of STEPS_SECONDS) {
    file.write(`# TYPE ${nameOf(stepSeconds)} unknown\n`)
    for (const edge of fleetEdges(EDGES)) {
      const lines: string[] = []
      for (let at = untilSeconds - HISTORY_SECONDS; at < untilSeconds; at += stepSeconds) {
        const value = lognormal(random, { median: 11, sigma: 0.05 })
        lines.push(`${nameOf(stepSeconds)}{${edgeLabels(edge)}} ${value} ${at}`)
      }
      if (!file.write(`${lines.join('\n')}\n`)) await once(file, 'drain')
    }
  }
  file.end('# EOF\n')
  await once(file, 'close')
  const { status, stderr } = spawnSync(
    'promtool',
    ['tsdb', 'create-blocks-from', 'openmetrics', '--max-block-duration=672h', '--quiet', input, data],
    { encoding: 'utf8' },
  )
  if (status !== 0) throw new Error(`promtool: ${stderr}`)
  rmSync(input)
}

interface Evaluated {
  readonly stepSeconds: number
  readonly samplesInWindows: number
  readonly evaluations: number
  readonly cpuMicrosecondsPerEdge: number
}

/** CPU of Prometheus for one evaluation of the rules over the series of one step. */
async function evaluated(
  prometheus: { readonly url: string; readonly pid: number },
  stepSeconds: number,
  load: (rules: object) => Promise<void>,
): Promise<Evaluated> {
  const series = nameOf(stepSeconds)
  const iterations = async (): Promise<number> => {
    const text = await (await fetch(`${prometheus.url}/metrics`)).text()
    const counts = [...text.matchAll(/^prometheus_rule_group_iterations_total{.*} (\d+)$/gm)].map(([, count]) =>
      Number(count),
    )
    return counts.reduce((a, b) => a + b, 0)
  }
  const nextIteration = async (): Promise<void> => {
    const before = await iterations()
    while ((await iterations()) === before) await clock.sleep(100, signal)
  }
  await load({ groups: [] })
  const idle = { fromMs: clock.monotonicMs(), cpuMs: cpuMsOf(prometheus.pid) }
  await clock.sleep(10_000, signal)
  const idleShare = (cpuMsOf(prometheus.pid) - idle.cpuMs) / (clock.monotonicMs() - idle.fromMs)
  const rules = WINDOWS.flatMap((window) =>
    ['avg', 'stddev'].map((kind) => ({
      record: `${series}:${kind}_${window}`,
      expr: `${kind}_over_time(${series}[${window}])`,
    })),
  )
  await load({ groups: [{ name: series, interval: '5s', rules }] })
  // The first evaluation reads the blocks into memory.
  await nextIteration()
  const busy = { fromMs: clock.monotonicMs(), cpuMs: cpuMsOf(prometheus.pid), iterations: await iterations() }
  for (let i = 0; i < EVALUATIONS; i++) await nextIteration()
  const spentMs = cpuMsOf(prometheus.pid) - busy.cpuMs - idleShare * (clock.monotonicMs() - busy.fromMs)
  const evaluations = (await iterations()) - busy.iterations
  const recorded = await fetch(`${prometheus.url}/api/v1/query?query=count(${series}:stddev_26h)`)
  const { data } = (await recorded.json()) as {
    readonly data: { readonly result: readonly { readonly value: readonly [number, string] }[] }
  }
  if (Number(data.result[0]?.value[1]) !== EDGES)
    throw new Error(`the rules recorded ${data.result[0]?.value[1] ?? 'nothing'}`)
  return {
    stepSeconds,
    samplesInWindows: (2 * 27 * 3_600) / stepSeconds,
    evaluations,
    cpuMicrosecondsPerEdge: (1_000 * spentMs) / (evaluations * EDGES),
  }
}

/** CPU of ours for one edge, microseconds: what scoring takes, and its share of a poll. */
async function ownCosts(): Promise<{ readonly scoring: number; readonly poll: number }> {
  const { url, child } = await startFleet(runtime, 1)
  children.push(child)
  const poll = await createPolls(runtime, { prometheusUrl: `${url}/replay/${POLLED_EDGES}`, edges: POLLED_EDGES })
  const spent: number[] = []
  for (let i = 0; i < POLLS; i++) {
    spent.push((await poll()) ?? NaN)
    // A daemon pauses, too: its garbage is collected then.
    await clock.sleep(500, signal)
  }
  const scoring = scoringCost('rate', garbageCollector()).microseconds
  return { scoring, poll: (1_000 * median(spent.slice(POLLS / 4))) / POLLED_EDGES }
}

try {
  // Before there is a history of a gigabyte to write: a daemon's heap never held one.
  const own = await ownCosts()
  const data = join(folder, 'prometheus', 'data')
  mkdirSync(data, { recursive: true })
  await fill(data)
  const { url, version, child } = await startPrometheus({
    binary: await findPrometheus(runtime),
    folder: join(folder, 'prometheus'),
    scrapeIntervalSeconds: 60,
    jobs: [],
  })
  children.push(child)
  const rulesFile = join(folder, 'rules.yaml')
  appendFileSync(join(folder, 'prometheus', 'prometheus.yml'), `rule_files: [${JSON.stringify(rulesFile)}]\n`)
  const reloads = async (): Promise<string | undefined> =>
    /^prometheus_config_last_reload_success_timestamp_seconds (\S+)$/m.exec(
      await (await fetch(`${url}/metrics`)).text(),
    )?.[1]
  const load = async (rules: object): Promise<void> => {
    writeFileSync(rulesFile, stringify(rules))
    const before = await reloads()
    child.signal('SIGHUP')
    while ((await reloads()) === before) await clock.sleep(100, signal)
  }
  const rules: Evaluated[] = []
  for (const stepSeconds of STEPS_SECONDS) rules.push(await evaluated({ url, pid: child.pid }, stepSeconds, load))
  await child.stop()

  console.log(
    JSON.stringify(
      {
        edges: EDGES,
        polledEdges: POLLED_EDGES,
        prometheusVersion: version,
        own: {
          scoringMicrosecondsPerEdge: rounded(own.scoring),
          pollMicrosecondsPerEdge: rounded(own.poll),
        },
        goals: { rulesOverScoring: GOAL_SCORING, rulesOverPoll: GOAL_POLL },
        rules: rules.map(({ cpuMicrosecondsPerEdge, ...row }) => ({
          ...row,
          cpuMicrosecondsPerEdge: rounded(cpuMicrosecondsPerEdge),
          rulesOverScoring: rounded(cpuMicrosecondsPerEdge / own.scoring),
          rulesOverPoll: rounded(cpuMicrosecondsPerEdge / own.poll),
        })),
      },
      null,
      2,
    ),
  )
} finally {
  await Promise.allSettled(children.reverse().map((each) => each.stop()))
  rmSync(folder, { recursive: true, force: true })
}
