import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'

import { anomalyHistoryQuery } from '../src/core/anomaly-history.js'
import { type FaultWindow, groundTruthJson } from '../src/core/ground-truth.js'
import { pairFileNames } from '../src/core/pair-file-names.js'
import { pairKey } from '../src/core/pair.js'
import { findPrometheus, startPrometheus, writeTargets } from '../src/testbed/prometheus-server.js'
import { fakeRuntime } from './helpers/fake-runtime.js'
import { startHttpServer } from './helpers/local-server.js'
import { runProgram, type RunningProgram, startProgram } from './helpers/program.js'
import { recordingOf } from './helpers/recordings.js'
import { temporaryFolder } from './helpers/temporary-folder.js'

type Line = Readonly<Record<string, unknown>>

const PAIRS = [
  { source: 'frontend', destination: 'cartservice', accumulatorThreshold: 2 },
  { source: 'checkoutservice', destination: 'paymentservice', accumulatorThreshold: 3 },
] as const

const POLL_SECONDS = 0.25
const STALE_SECONDS = 2
const WINDOW_SECONDS = 1
/** A few polls to each severity: what is asked here is not how long it takes. */
const INCIDENT = {
  incidentThreshold: 4,
  clearThreshold: 2,
  coolBy: 2,
  accumulatorMax: 8,
  noDataTimeoutSeconds: 600,
} as const
const SCORING = { direction: 'above', minRequestsPerSecond: 0.1, minDeviationMs: 0, minDeviationRatio: 0, sloMs: null }

/** Two pairs as Istio's sidecars count them, 50 requests a second each. The test says which of them are slow. */
function meshMetrics(): { readonly slow: Set<string>; readonly scrape: () => string } {
  const slow = new Set<string>()
  const BOUNDS = [5, 10, 25, 50, 100, 250, 500]
  const counts = new Map<string, number[]>(PAIRS.map(({ source }) => [source, BOUNDS.map(() => 0)]))
  let lastMs = performance.now()
  let scrapes = 0
  const scrape = (): string => {
    const nowMs = performance.now()
    const requests = (50 * (nowMs - lastMs)) / 1000
    lastMs = nowMs
    scrapes++
    const lines = PAIRS.flatMap(({ source, destination }) => {
      const buckets = counts.get(source) ?? []
      // Between two buckets in shares that change, so that no two medians are alike.
      const fast = 0.6 + 0.2 * Math.sin(scrapes)
      const add = slow.has(source) ? [0, 0, 0, 0, 0, 1, 0] : [0, fast, 1 - fast, 0, 0, 0, 0]
      add.forEach((share, i) => (buckets[i] = (buckets[i] ?? 0) + share * requests))
      const labels = `reporter="source",source_app="${source}",destination_app="${destination}"`
      let below = 0
      const cumulative = buckets.map((count) => (below += count))
      const name = 'istio_request_duration_milliseconds'
      return [
        ...cumulative.map((count, i) => `${name}_bucket{${labels},le="${BOUNDS[i] ?? ''}"} ${count}`),
        `${name}_bucket{${labels},le="+Inf"} ${below}`,
        `${name}_count{${labels}} ${below}`,
      ]
    })
    return `# TYPE istio_request_duration_milliseconds histogram\n${lines.join('\n')}\n`
  }
  return { slow, scrape }
}

const nowSeconds = (): number => Date.now() / 1000

async function listening(program: RunningProgram): Promise<string> {
  const { url } = await program.logged('where it listens', ({ msg }) => msg === 'listening')
  return new URL(String(url)).host
}

function linesOf(stdout: string, msg: string | RegExp): readonly string[] {
  return stdout
    .split('\n')
    .filter((line) => line.startsWith('{') && new RegExp(msg).test((JSON.parse(line) as { msg: string }).msg))
}

/** Real daemons on a real Prometheus live through an incident of both severities; what they said is put into a run folder. */
async function liveRun(t: TestContext): Promise<{ readonly folder: string; readonly transitions: readonly Line[] }> {
  const folder = join(temporaryFolder(t), 'run')
  for (const name of ['', 'training', 'metrics']) mkdirSync(join(folder, name), { recursive: true })
  const mesh = meshMetrics()
  const sidecars = await startHttpServer(t, (_request, response) => {
    response.setHeader('content-type', 'text/plain; version=0.0.4')
    response.end(mesh.scrape())
  })
  const targets = (name: string): string => join(folder, `${name}.targets.json`)
  writeTargets(targets('sidecars'), [{ targets: [new URL(sidecars.url).host] }])
  writeTargets(targets('monitors'), [])
  const runtime = fakeRuntime([])
  const program = { ...runtime.program, environment: process.env, isRoot: process.getuid?.() === 0 }
  const prometheus = await startPrometheus({
    binary: await findPrometheus({ ...runtime, program }),
    folder: join(folder, 'prometheus'),
    scrapeIntervalSeconds: 0.2,
    jobs: [
      { name: 'istio', metricsPath: '/stats', targetsFile: targets('sidecars') },
      { name: 'monitors', metricsPath: '/metrics', targetsFile: targets('monitors') },
    ],
  })
  t.after(() => prometheus.child.stop())

  const common = [
    ...[`--prometheus-url=${prometheus.url}`, `--poll-interval-seconds=${POLL_SECONDS}`, '--prometheus-port=0'],
    ...['--listen-address=127.0.0.1', `--query-window=${WINDOW_SECONDS}s`],
  ]
  const names = pairFileNames(PAIRS)
  const startedSeconds = nowSeconds()
  const monitors = PAIRS.map((pair) => {
    const training = join(folder, 'training', names.get(pairKey(pair)) ?? '')
    writeFileSync(training, recordingOf(Array.from({ length: 80 }, (_, i) => 9 + 1.2 * Math.sin(i))))
    return startProgram(t, [
      'monitor',
      ...[`--service1=${pair.source}`, `--service2=${pair.destination}`, `--training-data-file=${training}`],
      ...common,
    ])
  })
  writeTargets(targets('monitors'), [{ targets: await Promise.all(monitors.map(listening)) }])
  const incident = startProgram(t, [
    'incident',
    ...PAIRS.map((pair) => `--pair=${pair.source}:${pair.destination}=${pair.accumulatorThreshold}`),
    ...[`--incident-threshold=${INCIDENT.incidentThreshold}`, `--clear-threshold=${INCIDENT.clearThreshold}`],
    ...[`--accumulator-max=${INCIDENT.accumulatorMax}`, `--stale-after-seconds=${STALE_SECONDS}`],
    ...common,
  ])
  const happened = (transition: string): Promise<Line> =>
    incident.logged(transition, (line) => line['msg'] === 'incident transition' && line['transition'] === transition)

  for (const monitor of monitors) await monitor.logged('that all is well', ({ verdict }) => verdict === 'ok')
  const [cart, payment] = PAIRS
  const faults: Omit<FaultWindow, 'toSeconds'>[] = []
  const inject = (pair: (typeof PAIRS)[number]): void => {
    mesh.slow.add(pair.source)
    faults.push({ name: `${pair.destination} slow`, fromSeconds: nowSeconds(), pairs: [pair] })
  }
  const transitions: Line[] = []
  inject(cart)
  transitions.push(await happened('opened'))
  inject(payment)
  transitions.push(await happened('escalated'))
  // Both cool alike, and the one with the lower threshold is hot for longer.
  const endedSeconds = nowSeconds()
  mesh.slow.clear()
  transitions.push(await happened('de-escalated'), await happened('resolved'))
  await incident.logged('one quiet poll more', ({ msg }) => msg === 'No incident detected')
  incident.kill('SIGTERM')
  const told = (await incident.exit).stdout

  const rangeMs = Math.ceil(1000 * (nowSeconds() - startedSeconds)) + 10_000
  const query = anomalyHistoryQuery(PAIRS, { rangeMs, stepMs: 1000 * POLL_SECONDS })
  const history = await fetch(`${prometheus.url}/api/v1/query`, {
    method: 'POST',
    body: new URLSearchParams({ query }),
  })
  writeFileSync(join(folder, 'metrics/anomaly-history.json'), await history.text())
  for (const monitor of monitors) monitor.kill('SIGTERM')
  const said = await Promise.all(monitors.map((monitor) => monitor.exit))
  const verdicts = said.flatMap(({ stdout }) => linesOf(stdout, '^evaluated$'))
  writeFileSync(join(folder, 'verdicts.ndjson'), `${verdicts.join('\n')}\n`)
  writeFileSync(join(folder, 'incidents.ndjson'), `${linesOf(told, '^incident transition$').join('\n')}\n`)
  const truth = { faults: faults.map((fault) => ({ ...fault, toSeconds: endedSeconds })), transients: [] }
  writeFileSync(join(folder, 'ground-truth.json'), JSON.stringify(groundTruthJson(truth)))
  const polls = linesOf(told, '^(No incident|Incident) detected').map((line) => JSON.parse(line) as Line)
  writeFileSync(
    join(folder, 'run.json'),
    JSON.stringify({
      ...{ name: 'live', startedSeconds, observedFromSeconds: startedSeconds, endedSeconds: nowSeconds() },
      ...{ partial: false, seed: 1, target: 'test', application: 'two pairs', versions: {}, pairs: PAIRS },
      ...{ quantiles: [0.5], model: 'load-and-season', scoring: SCORING, incident: INCIDENT },
      ...{ pollIntervalSeconds: POLL_SECONDS, staleAfterSeconds: STALE_SECONDS, recordStepSeconds: POLL_SECONDS },
      queryWindowSeconds: WINDOW_SECONDS,
      incidentPolls: { fromSeconds: polls[0]?.['timestampSeconds'], toSeconds: polls.at(-1)?.['timestampSeconds'] },
    }),
  )
  return { folder, transitions }
}

test('backtest: a recorded live run gives the very verdicts and transitions that the daemons had', async (t) => {
  const { folder, transitions } = await liveRun(t)
  const verdicts = readFileSync(join(folder, 'verdicts.ndjson'), 'utf8').trim().split('\n')
  assert.ok(verdicts.length > 40, `${verdicts.length} verdicts`)
  const held = verdicts.map((line) => (JSON.parse(line) as { verdict: string }).verdict)
  assert.ok(['ok', 'anomalous'].every((verdict) => held.includes(verdict)))
  const again = await runProgram(t, ['backtest', '--run', folder])
  assert.equal(again.code, 0, again.stdout + again.stderr)
  const sentence = `${verdicts.length} of ${verdicts.length} verdicts and 4 of 4 transitions are the live ones.\n`
  assert.ok(again.stdout.includes(sentence), again.stdout)

  // The measures of the replay are those of the live transitions, whatever else is swept beside it.
  const swept = await runProgram(t, ['backtest', '--run', folder, '--json', '--sweep', 'incident-threshold=4,1000,6'])
  const { settings, live } = JSON.parse(swept.stdout) as {
    readonly settings: readonly { readonly name: string; readonly measures: Readonly<Record<string, unknown>> }[]
    readonly live: unknown
  }
  assert.deepEqual(live, {
    verdicts: { same: verdicts.length, of: verdicts.length, differences: [] },
    transitions: { same: 4, of: 4, differences: [] },
  })
  assert.deepEqual(
    settings.map(({ name }) => name),
    ['as recorded', 'incident-threshold 6'],
    'what is recorded is not said twice, and what can never open is left out',
  )
  assert.match(swept.stderr, /contradict/)
  const truth = JSON.parse(readFileSync(join(folder, 'ground-truth.json'), 'utf8')) as {
    readonly faults: readonly { readonly from: number; readonly to: number }[]
  }
  const [opened, escalated, , resolved] = transitions.map((line) => Number(line['timestampSeconds']))
  const [first, second] = truth.faults
  const rounded = (seconds: number): number => Math.round(1000 * seconds) / 1000
  const [recorded] = settings
  const outcomes = recorded?.measures['faults'] as readonly Readonly<Record<string, unknown>>[]
  assert.deepEqual(
    outcomes.map(({ found, toSev2Seconds, toSev1Seconds, toResolvedSeconds }) => ({
      found,
      toSev2Seconds,
      toSev1Seconds,
      toResolvedSeconds,
    })),
    [
      {
        found: true,
        toSev2Seconds: rounded(opened! - first!.from),
        toSev1Seconds: rounded(escalated! - first!.from),
        toResolvedSeconds: rounded(resolved! - first!.to),
      },
      // The incident was open already, and got worse.
      {
        found: true,
        toSev2Seconds: null,
        toSev1Seconds: rounded(escalated! - second!.from),
        toResolvedSeconds: rounded(resolved! - second!.to),
      },
    ],
  )
  assert.equal(recorded?.measures['falseIncidents'], 0)

  // A last digit that is not the live one is found, and so is a transition that nobody announced.
  const path = join(folder, 'verdicts.ndjson')
  const at = held.lastIndexOf('ok')
  const line = JSON.parse(verdicts[at]!) as { quantiles: { yMaxMs: number }[] }
  const yMaxMs = line.quantiles[0]!.yMaxMs
  line.quantiles[0]!.yMaxMs = yMaxMs * (1 + Number.EPSILON)
  writeFileSync(path, `${verdicts.with(at, JSON.stringify(line)).join('\n')}\n`)
  const announced = readFileSync(join(folder, 'incidents.ndjson'), 'utf8').trim().split('\n')
  writeFileSync(join(folder, 'incidents.ndjson'), `${announced.toSpliced(1, 1).join('\n')}\n`)
  const other = await runProgram(t, ['backtest', '--run', folder])
  assert.equal(other.code, 1)
  const count = verdicts.length
  assert.match(
    other.stdout,
    new RegExp(`${count - 1} of ${count} verdicts and 3 of 4 transitions are the live ones\\.\n`),
  )
  assert.ok(
    other.stdout.includes(`quantiles.0.yMaxMs: live ${line.quantiles[0]!.yMaxMs}, replayed ${yMaxMs}\n`),
    other.stdout,
  )
  assert.match(other.stdout, /\ntransition at \S+: transition: live nothing, replayed escalated; severity: /)
})
