import assert from 'node:assert/strict'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import test, { after, before, type TestContext } from 'node:test'

import { Registry } from 'prom-client'

import { loadAndSeason } from '../src/core/baseline/load-and-season.js'
import { createBaselineStore } from '../src/core/mesh-baselines.js'
import { createEdgeTable } from '../src/core/mesh-edges.js'
import { meshTrainingQuery } from '../src/core/mesh-query.js'
import { createTrainingGauges } from '../src/io/gauges.js'
import { createHttp } from '../src/io/http-client.js'
import { createMeshTrainer } from '../src/io/mesh-trainer.js'

import { samplesNamed } from './helpers/exposition.js'
import {
  type FilledPrometheus,
  type FilledSeries,
  istioHistory,
  startFilledPrometheus,
} from './helpers/filled-prometheus.js'
import { fakeRuntime } from './helpers/fake-runtime.js'
import { meshElements } from './helpers/mesh-answers.js'
import { startProgram } from './helpers/program.js'

/*
 * Two days of a mesh, scraped once a minute, up to some minutes from now, so that polls find their samples for as long as the
 * test takes. Latency is 10 ms but where it says so.
 */
const SCRAPE_SECONDS = 60
const HISTORY_SECONDS = 2 * 86_400
const NOW_SECONDS = Math.floor(Date.now() / 60_000) * 60
const START_SECONDS = NOW_SECONDS - HISTORY_SECONDS
const END_SECONDS = NOW_SECONDS + 600

const at = (startSeconds: number, endSeconds: number, stepSeconds: number): number[] =>
  Array.from(
    { length: Math.floor((endSeconds - startSeconds) / stepSeconds) + 1 },
    (_, i) => startSeconds + i * stepSeconds,
  )

function edge(
  source: string,
  latencyMs: (timeSeconds: number) => number,
  { startSeconds = START_SECONDS, mesh = 'small' } = {},
): readonly FilledSeries[] {
  return istioHistory(
    { reporter: 'source', source_app: source, destination_app: 'b', mesh },
    {
      startSeconds,
      scrapes: Math.floor((END_SECONDS - startSeconds) / SCRAPE_SECONDS) + 1,
      scrapeSeconds: SCRAPE_SECONDS,
      latencyMs,
      requestsPerSecond: () => 50,
    },
  )
}

/** What was scraped of a daemon. */
function gauge(
  name: string,
  labels: Readonly<Record<string, string>>,
  valueAt: (timeSeconds: number) => number,
): FilledSeries {
  const samples = at(START_SECONDS, NOW_SECONDS, SCRAPE_SECONDS).map((time) => [time, valueAt(time)] as const)
  return { name, labels: { ...labels, instance: 'daemon:8080' }, samples }
}

const verdicts = (source: string, anomalous: (timeSeconds: number) => boolean): FilledSeries =>
  gauge('lab7_verdict', { source, destination: 'b', verdict: 'anomalous' }, (time) => Number(anomalous(time)))

const INCIDENT = { fromSeconds: NOW_SECONDS - 86_400, toSeconds: NOW_SECONDS - 86_400 + 6 * 3_600 }
const inIncident = (time: number): boolean => time >= INCIDENT.fromSeconds && time <= INCIDENT.toSeconds
/** Calm until some minutes ago. */
const slowNow = (time: number): number => (time > NOW_SECONDS - 300 ? 200 : 10)
/** A load cycle of an hour. */
const busy = (time: number): number => 10 + 4 * Math.sin((2 * Math.PI * time) / 3_600) + ((time / 60) % 7) / 7
const BUSY = ['busy 0', 'busy 1', 'busy 2', 'busy 3']
const HOSTILE = 'a"b\\c.*|(d'

let prometheus: FilledPrometheus
before(async () => {
  prometheus = await startFilledPrometheus([
    ...edge('calm', () => 10),
    ...edge(HOSTILE, () => 10),
    ...edge('slow', slowNow),
    ...edge('seen', (time) => (inIncident(time) ? 200 : 10)),
    ...edge('unseen', (time) => (inIncident(time) ? 200 : 10)),
    ...edge('hot', () => 200),
    ...edge('warm', (time) => (inIncident(time) ? 200 : 10)),
    ...edge('young', () => 10, { startSeconds: NOW_SECONDS - 600 }),
    ...BUSY.flatMap((source) => edge(source, busy, { mesh: 'busy' })),
    verdicts('seen', inIncident),
    verdicts('hot', () => true),
    // One poll in twenty is no incident.
    verdicts('calm', (time) => (time / SCRAPE_SECONDS) % 20 === 0),
    gauge('lab7_incident_accumulator', { source: 'warm', destination: 'b' }, (time) => (inIncident(time) ? 7 : 0)),
    // Heat without an incident.
    gauge('lab7_incident_accumulator', { source: HOSTILE, destination: 'b' }, (time) => (inIncident(time) ? 0 : 1)),
    gauge('lab7_incident_severity', {}, (time) => (inIncident(time) ? 2 : 0)),
  ])
})
after(() => prometheus.stop())

const ARGS = ['monitor', '--mesh', '--query-window=4m', '--listen-address=127.0.0.1', '--prometheus-port=0']

async function scraped(t: TestContext, url: unknown, prefix: string): Promise<Readonly<Record<string, number>>> {
  const response = await fetch(`${String(url)}/metrics`, { signal: t.signal })
  return samplesNamed(await response.text(), prefix)
}

test('mesh train-from: a monitor polls and serves from the start, is trained meanwhile, and scores', async (t) => {
  const program = startProgram(t, [
    ...ARGS,
    `--prometheus-url=${prometheus.url}`,
    '--selector=mesh="small"',
    '--train-from=3d',
    '--model=static-sigma',
    '--poll-interval-seconds=0.5',
  ])
  const { url } = await program.logged('where it listens', ({ msg }) => msg === 'listening')
  const first = await program.logged('the first poll', ({ msg }) => msg === 'evaluated mesh')
  assert.deepEqual(first['verdicts'], { ok: 0, anomalous: 0, low_traffic: 0, no_data: 0, warming: 8 })
  const trouble = new Map<unknown, Readonly<Record<string, unknown>>>()
  for (let i = 0; i < 2; i++) {
    const line = await program.logged('what cannot be trained', ({ reason }) => reason !== undefined)
    trouble.set(line['reason'], line)
  }
  assert.match(
    String(trouble.get('too_short')?.['examples']),
    /^young -> b: static-sigma takes at least 30 samples, there are \d+$/,
  )
  assert.match(
    String(trouble.get('incident')?.['examples']),
    /^hot -> b: static-sigma takes at least 30 samples, 0 of 28\d\d are left without its incidents$/,
  )
  const less = await program.logged('how far the history reaches', ({ asked }) => asked !== undefined)
  assert.ok(Math.abs(Date.parse(String(less['earliest'])) / 1000 - START_SECONDS) <= 120, String(less['earliest']))
  const ended = await program.logged('the end', ({ msg }) => msg === 'training ended')
  assert.deepEqual(
    { fitted: ended['fitted'], too_short: ended['too_short'], incident: ended['incident'], of: ended['of'] },
    { fitted: 6, too_short: 1, incident: 1, of: 8 },
  )
  const scored = (line: Readonly<Record<string, unknown>>): boolean =>
    line['msg'] === 'evaluated mesh' && (line['verdicts'] as { warming: number }).warming === 2
  await program.logged('a poll that scores', scored)
  await program.logged('the next one', scored)
  assert.deepEqual(await scraped(t, url, 'lab7_anomaly_count'), {
    'lab7_anomaly_count{source="calm",destination="b"}': 0,
    'lab7_anomaly_count{source="a\\"b\\\\c.*|(d",destination="b"}': 0,
    'lab7_anomaly_count{source="slow",destination="b"}': 1,
    'lab7_anomaly_count{source="seen",destination="b"}': 0,
    'lab7_anomaly_count{source="warm",destination="b"}': 0,
    'lab7_anomaly_count{source="unseen",destination="b"}': 0,
  })
  const yhat = await scraped(t, url, 'lab7_yhat')
  const [calm, seen, warm, unseen] = ['calm', 'seen', 'warm', 'unseen'].map(
    (name) => yhat[`lab7_yhat{source="${name}",destination="b",quantile="0.5"}`],
  )
  assert.deepEqual([seen, warm], [calm, calm])
  // Six hours, the five minutes before and the four of the rate window after: of two edges, and of no other.
  const leftOut = Number(ended['leftOut'])
  assert.ok(Math.abs(leftOut - 2 * (360 + 5 + 4)) <= 12, String(leftOut))
  assert.ok(unseen! > 2 * calm!, `${unseen} and ${calm} ms`)
  const samples = await scraped(t, url, 'meshfever_baseline_')
  assert.equal(samples['meshfever_baseline_edges'], 6)
  assert.equal(samples['meshfever_baseline_training_samples'], ended['samples'])
  const ageSeconds = Date.now() / 1000 - samples['meshfever_baseline_oldest_timestamp_seconds']!
  assert.ok(ageSeconds >= 0 && ageSeconds < 60, String(ageSeconds))
  assert.deepEqual(await scraped(t, url, 'meshfever_edges_without_baseline'), {
    'meshfever_edges_without_baseline{reason="pending"}': 0,
    'meshfever_edges_without_baseline{reason="no_history"}': 0,
    'meshfever_edges_without_baseline{reason="too_short"}': 1,
    'meshfever_edges_without_baseline{reason="incident"}': 1,
    'meshfever_edges_without_baseline{reason="unusable"}': 0,
    'meshfever_edges_without_baseline{reason="failed"}': 0,
  })
  assert.deepEqual(await scraped(t, url, 'meshfever_training'), {
    meshfever_training_progress_ratio: 1,
    'meshfever_trainings_total{outcome="fitted"}': 6,
    'meshfever_trainings_total{outcome="kept"}': 0,
    'meshfever_trainings_total{outcome="no_history"}': 0,
    'meshfever_trainings_total{outcome="too_short"}': 1,
    'meshfever_trainings_total{outcome="incident"}': 1,
    'meshfever_trainings_total{outcome="unusable"}': 0,
    'meshfever_trainings_total{outcome="failed"}': 0,
  })
  assert.equal((await fetch(`${String(url)}/readyz`)).status, 200)
  program.kill('SIGTERM')
  const { code, signal, stderr } = await program.exit
  assert.deepEqual({ code, signal, stderr }, { code: 0, signal: null, stderr: '' })
})

test('mesh train-from: a monitor that is stopped while it trains ends at once', async (t) => {
  const program = startProgram(t, [
    ...ARGS,
    `--prometheus-url=${prometheus.url}`,
    '--train-from=2d',
    '--train-step=5s',
    '--selector=mesh="busy"',
  ])
  await program.logged('the training', ({ msg }) => String(msg).startsWith('training from the history'))
  program.kill('SIGTERM')
  const { code, stdout, stderr } = await program.exit
  assert.deepEqual({ code, stderr }, { code: 0, stderr: '' })
  assert.doesNotMatch(stdout, /training ended/)
})

test('mesh train-from: the thread that polls is never held up for as long as one fit takes', async (t) => {
  const runtime = { ...fakeRuntime([]), http: createHttp() }
  t.after(() => runtime.stop())
  const stepSeconds = 10
  const labels = { sourceLabel: 'source_app', destinationLabel: 'destination_app', quantiles: [0.5] }
  const mesh = { ...labels, selector: null, window: '4m' }
  const store = createBaselineStore()
  const trainer = createMeshTrainer(
    {
      mesh,
      queryOf: (batch) => meshTrainingQuery(mesh, batch),
      prometheusUrl: prometheus.url,
      windowSeconds: 240,
      model: 'load-and-season',
      rangeSeconds: HISTORY_SECONDS,
      stepSeconds,
      retrainSeconds: null,
      concurrency: 2,
    },
    { ...runtime, clock: { ...runtime.clock, nowMs: () => 1000 * NOW_SECONDS } },
    store,
    createTrainingGauges(new Registry()),
  )
  const table = createEdgeTable({
    ...labels,
    maxEdges: 10,
    graceSeconds: 0,
    shard: { ordinal: 1, count: 1 },
    baselines: store,
    maxAgeSeconds: null,
  })
  table.begin()
  for (const source of BUSY) {
    for (const element of meshElements({ source, destination: 'b' }, NOW_SECONDS, { 0.5: '10' })) table.take(element)
  }
  const delay = monitorEventLoopDelay({ resolution: 1 })
  delay.enable()
  const before = performance.eventLoopUtilization()
  trainer.scored(table.edges)
  while (!store.ready()) await new Promise((resolve) => setTimeout(resolve, 5))
  delay.disable()
  const { active: activeMs } = performance.eventLoopUtilization(before)
  assert.equal(store.summary().edges, BUSY.length)
  assert.ok(store.summary().samples > BUSY.length * 17_000)

  const timesSeconds = at(START_SECONDS, NOW_SECONDS, stepSeconds)
  const fits = BUSY.map(() => {
    const startMs = performance.now()
    void loadAndSeason.fit({
      timesSeconds,
      latenciesMs: timesSeconds.map(busy),
      requestsPerSecond: timesSeconds.map(() => 50),
    })
    return performance.now() - startMs
  })
  const heldUpMs = delay.max / 1e6
  const allMs = fits.reduce((sum, ms) => sum + ms, 0)
  const found = `held up for ${heldUpMs.toFixed(0)} ms at most, busy for ${activeMs.toFixed(0)} ms; fits take ${fits.map((ms) => ms.toFixed(0)).join(', ')} ms`
  t.diagnostic(found)
  assert.ok(heldUpMs < Math.max(...fits), found)
  assert.ok(activeMs < allMs / 2, found)
})
