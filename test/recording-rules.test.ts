import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import { latencyTrafficAndAge } from '../src/core/promql.js'
import { eventually, startLiveMesh } from './helpers/live-mesh.js'
import { packageRoot } from './helpers/package-root.js'
import { runProgram } from './helpers/program.js'
import { noPromtool } from './helpers/promtool.js'
import { promtoolTestRules, type World } from './helpers/promtool-rules.js'
import { CALM_MS, recordingOf } from './helpers/recordings.js'
import { temporaryFile } from './helpers/temporary-folder.js'

const RULES = readFileSync(join(packageRoot(), 'k8s/prometheus/recording.rules.yaml'), 'utf8')
/** As the file tells people to ask. */
const [QUERY = '', LATENCY_ONLY = ''] = [...RULES.matchAll(/--query '([^']+)'/g)].map(([, query]) => query)

const LATENCY = 'source_app_destination_app:istio_request_duration_milliseconds:quantile_rate1m'
const RATE = 'source_app_destination_app:istio_request_duration_milliseconds_count:rate1m'
const NEWEST = 'source_app_destination_app:istio_request_duration_milliseconds_count:max_timestamp_seconds'
const PAIR = { source: 'frontend', destination: 'cartservice' }
const LABELS = 'source_app="frontend", destination_app="cartservice"'

const skip = noPromtool()

/** Ten requests a second from each of two pods, half of them within 5 ms and all within 10; and what must not be counted. */
const WORLD: World = Object.fromEntries<string>([
  ...['a', 'b'].flatMap((pod) =>
    [
      ['_bucket', 'le="5",', '0+75x40'],
      ['_bucket', 'le="10",', '0+150x40'],
      ['_bucket', 'le="+Inf",', '0+150x40'],
      ['_count', '', '0+150x40'],
    ].map(([part = '', le = '', values = '']): [string, string] => [
      `istio_request_duration_milliseconds${part}{${le}${LABELS},reporter="source",pod="${pod}"}`,
      values,
    ]),
  ),
  [`istio_request_duration_milliseconds_bucket{le="+Inf",${LABELS},reporter="destination"}`, '0+9999x40'],
  [`istio_request_duration_milliseconds_count{${LABELS},reporter="destination"}`, '0+9999x40'],
  [
    'istio_request_duration_milliseconds_count{source_app="frontend",destination_app="ad",reporter="source"}',
    '0+15x40',
  ],
])

test(
  'recording rules: all pods of a pair, as the caller sees it, at three quantiles, with traffic and age',
  { skip },
  (t) => {
    const found = promtoolTestRules(t, RULES, WORLD, {
      queries: [
        {
          minutes: 5,
          query: QUERY,
          is: {
            [`${LATENCY}{${LABELS}, quantile="0.5"}`]: 5,
            [`${RATE}{${LABELS}, series="requests_per_second"}`]: 20,
            [`${NEWEST}{${LABELS}, series="sample_timestamp_seconds"}`]: 300,
          },
        },
        { minutes: 5, query: `${LATENCY}{quantile="0.95"}`, is: { [`${LATENCY}{${LABELS}, quantile="0.95"}`]: 9.5 } },
        { minutes: 5, query: `${LATENCY}{quantile="0.99"}`, is: { [`${LATENCY}{${LABELS}, quantile="0.99"}`]: 9.9 } },
        { minutes: 5, query: LATENCY_ONLY, is: { [`${LATENCY}{${LABELS}, quantile="0.5"}`]: 5 } },
      ],
    })
    assert.equal(found, '')
  },
)

for (const { name, find, replace } of [
  { name: "the callee's requests counted, too", find: '{reporter="source"}[1m]', replace: '[1m]' },
  { name: 'another quantile under the label', find: 'histogram_quantile(0.5,', replace: 'histogram_quantile(0.6,' },
  { name: 'the rate without its label', find: 'series: requests_per_second', replace: 'series: rate' },
  {
    name: 'the time of the evaluation for that of the sample',
    find: 'max by (source_app, destination_app) (timestamp(',
    replace: 'max by (source_app, destination_app) (1 + timestamp(',
  },
]) {
  test(`recording rules: the test sees ${name}`, { skip }, (t) => {
    const mutated = RULES.replaceAll(find, replace)
    assert.notEqual(mutated, RULES)
    const found = promtoolTestRules(t, mutated, WORLD, {
      queries: [
        {
          minutes: 5,
          query: QUERY,
          is: {
            [`${LATENCY}{${LABELS}, quantile="0.5"}`]: 5,
            [`${RATE}{${LABELS}, series="requests_per_second"}`]: 20,
            [`${NEWEST}{${LABELS}, series="sample_timestamp_seconds"}`]: 300,
          },
        },
      ],
    })
    assert.match(found, /FAILED/)
  })
}

const MONITOR = ['monitor', '--service1', PAIR.source, '--service2', PAIR.destination]

for (const [name, query] of Object.entries({ recommended: QUERY, 'latency only': LATENCY_ONLY })) {
  test(`recording rules: the monitor accepts the query of the comment, ${name}`, async (t) => {
    const file = temporaryFile(t, recordingOf(CALM_MS))
    const { code, stderr } = await runProgram(t, [
      ...MONITOR,
      ...['--training-data-file', file, '--prometheus-url', 'http://127.0.0.1:9', '--query', query, '--check'],
    ])
    assert.deepEqual([code, stderr], [0, ''])
  })
}

test(
  'recording rules: on a real Prometheus a monitor reads from them what the built-in query answers',
  { timeout: 240_000 },
  async (t) => {
    // In the time of a test: what takes a minute here takes a quarter of one.
    const windowSeconds = 15
    const rules = RULES.replaceAll('[1m]', `[${windowSeconds}s]`).replace('interval: 15s', 'interval: 1s')
    assert.notEqual(rules, RULES)
    const mesh = await startLiveMesh(t, { rules })
    const file = join(mesh.folder, 'training.json')
    writeFileSync(file, recordingOf(CALM_MS))
    await mesh.daemon([...MONITOR, '--training-data-file', file, '--query', QUERY])

    const scored = await eventually('the monitor scores what was recorded', async () => {
      const series = await mesh.ask('{__name__=~"lab7_y|lab7_requests_per_second"}[20s]')
      return series.length === 2 && series.every(({ values }) => values.length >= 10) ? series : undefined
    })
    const recorded = await mesh.ask(`${QUERY}[60s]`)
    assert.equal(recorded.length, 3)
    for (const { gauge, rule } of [
      { gauge: 'lab7_y', rule: LATENCY },
      { gauge: 'lab7_requests_per_second', rule: RATE },
    ]) {
      const exported = scored.find(({ metric }) => metric['__name__'] === gauge)?.values ?? []
      const source = recorded.find(({ metric }) => metric['__name__'] === rule)?.values ?? []
      for (const [timeSeconds, value] of exported) {
        // Recorded each second, polled each second, scraped each second; one more for a busy machine.
        const young = source.filter(([at]) => at <= timeSeconds && at > timeSeconds - 4).map(([, text]) => Number(text))
        assert.ok(young.includes(Number(value)), `${gauge} ${value} at ${timeSeconds} is none of ${young.join(', ')}`)
      }
    }

    const builtIn = latencyTrafficAndAge({
      pair: PAIR,
      sourceLabel: 'source_app',
      destinationLabel: 'destination_app',
      reporter: 'source',
      window: `${windowSeconds}s`,
      quantiles: [0.5],
    })
    const keyOf = (labels: Readonly<Record<string, string>>): string => labels['quantile'] ?? labels['series'] ?? ''
    const times = recorded[0]!.values.map(([at]) => at).slice(-10)
    const same = await Promise.all(
      times.map(async (at) => {
        // Sidecars are scraped one after the other: the rule may have seen the scrape of that moment or the one before.
        const answers = await Promise.all([0, 0.25, 0.5, 1].map((ago) => mesh.ask(builtIn, at - ago)))
        return recorded.map(({ metric, values }) => {
          const value = Number(values.find(([time]) => time === at)?.[1])
          const asked = answers.flatMap((answer) =>
            answer.filter((each) => keyOf(each.metric) === keyOf(metric)).map((each) => Number(each.values[0]?.[1])),
          )
          return asked.some((each) => Math.abs(each - value) <= 1e-9 * Math.abs(value))
        })
      }),
    )
    const agreeing = same.flat().filter(Boolean).length
    assert.ok(
      agreeing >= 0.8 * same.flat().length,
      `${agreeing} of ${same.flat().length} recorded values are the built-in query's`,
    )
  },
)
