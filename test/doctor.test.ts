import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'

import { parseCommandLine } from '../src/commands/command-line.js'
import { doctorCommand } from '../src/commands/doctor.js'
import { recordCommand } from '../src/commands/record.js'
import type { Finding } from '../src/core/diagnosis.js'
import { UsageError } from '../src/core/errors.js'
import { ISTIO_BUCKETS_MS } from '../src/core/istio-buckets.js'
import { systemClock } from '../src/io/clock.js'
import { createHttp } from '../src/io/http-client.js'
import type { Runtime } from '../src/io/runtime.js'
import { findPrometheus, startPrometheus, writeTargets } from '../src/testbed/prometheus-server.js'
import { startTestbed, type Testbed } from '../src/testbed/testbed.js'
import { loadTopology } from '../src/testbed/topology.js'
import { fakeRuntime } from './helpers/fake-runtime.js'
import { closedUrl, startHttpServer } from './helpers/local-server.js'
import { packageRoot } from './helpers/package-root.js'
import { temporaryFile, temporaryFolder } from './helpers/temporary-folder.js'

const DEADLINE_MS = 60_000

interface Outcome {
  readonly exitCode: number
  readonly findings: readonly Finding[]
  readonly ills: readonly string[]
  readonly text: string
}

/** Runs a command in this process, over real sockets. */
async function run(args: readonly string[], changes: Partial<Runtime> = {}): Promise<{ code: number; text: string }> {
  const commands = [doctorCommand, recordCommand]
  const parsed = parseCommandLine({ args, environment: {}, commands, version: '0.0.0' })
  assert.equal(parsed.kind, 'job')
  const fake = fakeRuntime([])
  const program = { ...fake.program, environment: process.env, isRoot: process.getuid?.() === 0 }
  const code = await parsed.job.run({ ...fake, clock: systemClock, http: createHttp(), program, ...changes })
  return { code, text: fake.written() }
}

function pairArgs(pair: string, url: string): readonly string[] {
  const [source = '', destination = ''] = pair.split('>')
  return ['doctor', '--service1', source, '--service2', destination, '--prometheus-url', url]
}

async function doctor(
  pair: string,
  url: string,
  more: readonly string[] = [],
  changes: Partial<Runtime> = {},
): Promise<Outcome> {
  const { code, text } = await run([...pairArgs(pair, url), '--json', ...more], changes)
  const { findings, exitCode } = JSON.parse(text) as { findings: readonly Finding[]; exitCode: number }
  assert.equal(exitCode, code)
  const ills = findings.flatMap(({ id, level }) => (level === 'ok' ? [] : [id]))
  return { exitCode, findings, ills, text }
}

async function until<T>(what: string, attempt: () => Promise<T>, done: (value: T) => boolean): Promise<T> {
  const deadlineMs = performance.now() + DEADLINE_MS
  for (;;) {
    const value = await attempt()
    if (done(value)) return value
    if (performance.now() > deadlineMs) assert.fail(`${what} did not happen: ${JSON.stringify(value)}`)
    await new Promise((resolve) => setTimeout(resolve, 500))
  }
}

function whatOf({ findings }: Outcome, id: string): string {
  const found = findings.find((finding) => finding.id === id)
  return `${found?.what ?? 'nothing'}\n-> ${found?.todo ?? 'nothing'}`
}

type Labels = Readonly<Record<string, string>>

/** An edge of the exporter: requests a second of one kind, all with about one latency. */
interface Flow {
  readonly labels: Labels
  readonly perSecond: number
  readonly latencyMs: number
}

const app = (source: string, destination: string, reporter = 'source', more: Labels = {}): Labels => ({
  reporter,
  source_app: source,
  destination_app: destination,
  request_protocol: 'http',
  response_code: '200',
  ...more,
})

/** Two thirds of the requests in one bucket and one third in the next, as an ordinary service has them. */
const ordinary = (labels: Labels, perSecond = 30): readonly Flow[] => [
  { labels, perSecond: (perSecond * 2) / 3, latencyMs: 7 },
  { labels: { ...labels, response_flags: 'other' }, perSecond: perSecond / 3, latencyMs: 20 },
]

const FLOWS: readonly Flow[] = [
  ...ordinary(app('lonely', 'deaf')),
  ...ordinary(app('mute', 'talker', 'destination')),
  ...ordinary(app('wave', 'pointed', 'waypoint')),
  ...ordinary(app('chat', 'hub')),
  ...ordinary(app('chat', 'hub', 'destination')),
  { labels: app('chat', 'hub', 'source', { response_code: '101' }), perSecond: 10, latencyMs: 500_000 },
  { labels: app('chat', 'hub', 'destination', { response_code: '101' }), perSecond: 10, latencyMs: 500_000 },
  ...ordinary(app('feed', 'stream')),
  ...ordinary(app('feed', 'stream', 'destination')),
  { labels: app('feed', 'stream', 'source', { request_protocol: 'grpc' }), perSecond: 5, latencyMs: 200_000 },
  { labels: app('feed', 'stream', 'destination', { request_protocol: 'grpc' }), perSecond: 5, latencyMs: 200_000 },
  { labels: app('steady', 'narrow'), perSecond: 30, latencyMs: 7 },
  { labels: app('steady', 'narrow', 'destination'), perSecond: 32, latencyMs: 3 },
  { labels: app('steady', 'narrow', 'source', { response_flags: 'x' }), perSecond: 2, latencyMs: 90 },
  ...ordinary(app('half', 'counted')),
  ...ordinary(app('half', 'counted', 'destination'), 10),
  ...ordinary(app('calm', 'seldom'), 0.05),
  ...ordinary(app('calm', 'seldom', 'destination'), 0.05),
  { labels: app('beyond', 'bounds'), perSecond: 10, latencyMs: 9e9 },
  ...ordinary({ reporter: 'source', source_workload: 'renamed-v1', destination_workload: 'moved-v1' }),
]

/** The exposition at a time, every counter grown from 0. A name of evil characters is there, too. */
function exposition(seconds: number): string {
  const text = (labels: Labels): string =>
    Object.entries(labels)
      .map(([name, value]) => `${name}="${value}"`)
      .join(',')
  const lines = FLOWS.flatMap(({ labels, perSecond, latencyMs }) => {
    const own = text(labels)
    const total = perSecond * seconds
    return [
      ...[...ISTIO_BUCKETS_MS, Infinity].map((bound) => {
        const le = bound === Infinity ? '+Inf' : String(bound)
        return `istio_request_duration_milliseconds_bucket{${own},le="${le}"} ${latencyMs <= bound ? total : 0}`
      }),
      `istio_request_duration_milliseconds_count{${own}} ${total}`,
    ]
  })
  const only = (metric: string, source: string, destination: string): string =>
    `${metric}{${text(app(source, destination))}} ${seconds}`
  return [
    ...lines,
    only('istio_tcp_connections_opened_total', 'ambient', 'layer4'),
    only('istio_requests_total', 'counter', 'only'),
    only('istio_request_duration_milliseconds_count', 'bucket', 'less'),
    `istio_request_duration_milliseconds_count{reporter="source",source_app="evil\u001b[2J\u009b",destination_app="x"} 1`,
    '',
  ].join('\n')
}

interface World {
  readonly url: string
  readonly testbed: Testbed
}

/** The testbed and the exporter, scraped each second by one real Prometheus. */
async function startWorld(t: TestContext): Promise<World> {
  const folder = temporaryFolder(t)
  const fake = fakeRuntime([])
  const runtime: Runtime = { ...fake, clock: systemClock, program: { ...fake.program, environment: process.env } }
  const startMs = performance.now()
  const exporter = await startHttpServer(t, (_request, response) => {
    response.setHeader('content-type', 'text/plain; version=0.0.4; charset=utf-8')
    response.end(exposition((performance.now() - startMs) / 1000))
  })
  const testbed = await startTestbed(runtime, {
    topology: loadTopology('online-boutique', '--topology'),
    load: {
      shape: { steps: [{ fromUsers: 20, toUsers: 20 }], stepSeconds: 3_600, transients: [] },
      spawnRate: 1_000,
      waitSeconds: { min: 0.5, max: 1.5 },
    },
    seed: 7,
    controlPort: 0,
  })
  t.after(() => testbed.close())
  const [sidecars, others] = [join(folder, 'sidecars.json'), join(folder, 'others.json')]
  writeTargets(sidecars, testbed.targets)
  writeTargets(others, [{ targets: [new URL(exporter.url).host] }])
  const prometheus = await startPrometheus({
    binary: await findPrometheus(runtime),
    folder: join(folder, 'prometheus'),
    scrapeIntervalSeconds: 1,
    jobs: [
      { name: 'istio-proxy', metricsPath: '/stats/prometheus', targetsFile: sidecars },
      { name: 'exporter', metricsPath: '/metrics', targetsFile: others },
    ],
  })
  t.after(() => prometheus.child.stop())
  return { url: prometheus.url, testbed }
}

const CART = 'frontend>cartservice'
const WINDOW = ['--query-window', '10s']

test('doctor: against a real mesh and a real Prometheus', { timeout: 240_000 }, async (t) => {
  const { url, testbed } = await startWorld(t)

  await t.test('a healthy pair is 0, and says what was looked at', async () => {
    const healthy = await until(
      'a healthy pair',
      () => doctor(CART, url, WINDOW),
      ({ exitCode }) => exitCode === 0,
    )
    assert.deepEqual(
      healthy.findings.map(({ id }) => id),
      ['clock', 'query-time', 'metric', 'reporters', 'window', 'sample-age', 'traffic', 'buckets', 'streams'],
    )
    assert.ok(healthy.findings.every(({ level, todo }) => level === 'ok' && todo === null))
    assert.match(whatOf(healthy, 'window'), /holds 10 scrapes, which are 1 s apart/)
    assert.match(whatOf(healthy, 'buckets'), /^p50 is [\d.]+ ms; \d+ % of the requests lie in the histogram bucket/)
    assert.deepEqual((JSON.parse(healthy.text) as { pair: unknown }).pair, {
      source: 'frontend',
      destination: 'cartservice',
    })
  })

  await t.test('for people it prints aligned lines, and a todo below each ill', async () => {
    const { code, text } = await run([...pairArgs(CART, url), '--query-window', '3s'])
    assert.equal(code, 1)
    const lines = text.trimEnd().split('\n')
    assert.equal(lines[0], `frontend -> cartservice in ${url}`)
    assert.equal(lines.at(-1), 'The pair can be watched; see the warnings.')
    const at = lines.findIndex((line) => line.startsWith('WARN  window-short  '))
    assert.match(lines[at + 1] ?? '', /^ +-> set --query-window 4s or more/)
    assert.equal(lines[at]?.indexOf('the window'), lines[at + 1]?.indexOf('->'))
  })

  for (const { name, pair, more = WINDOW, exitCode, ills, says } of [
    {
      name: 'a window of fewer than four scrapes',
      pair: CART,
      more: ['--query-window', '3s'],
      exitCode: 1,
      ills: ['window-short'],
      says: /the window of 3s holds 3.0 scrapes, which are 1 s apart/,
    },
    {
      name: 'a window that never holds two scrapes',
      pair: CART,
      more: ['--query-window', '500ms'],
      exitCode: 2,
      ills: ['window-short'],
      says: /never holds two scrapes/,
    },
    {
      name: 'a pair below the least traffic',
      pair: CART,
      more: [...WINDOW, '--min-requests-per-second', '100000'],
      exitCode: 1,
      ills: ['low-traffic'],
      says: /below 100000 a second/,
    },
    {
      name: 'a pair with hardly any requests',
      pair: 'calm>seldom',
      exitCode: 1,
      ills: ['low-traffic'],
      says: /^0\.0\d+ requests a second, 0\.\d in a window of 10s: below 0\.1 a second the verdict is low_traffic/,
    },
    {
      name: 'too few requests for a high quantile',
      pair: CART,
      more: [...WINDOW, '--quantile', '0.9999'],
      exitCode: 1,
      ills: ['low-traffic'],
      says: /p99\.99 is then a matter of the one slowest request\n-> set --query-window \d+m or more/,
    },
    {
      name: 'a pair that nobody knows, with the nearest names',
      pair: 'frontent>cartservice',
      exitCode: 2,
      ills: ['pair-unknown'],
      says: /sources named nearly so: frontend, .*cartservice is called by .*frontend/,
    },
    {
      name: 'names that are swapped',
      pair: 'cartservice>frontend',
      exitCode: 2,
      ills: ['pair-reversed'],
      says: /-> swap them: --service1 frontend --service2 cartservice/,
    },
    {
      name: 'names under other labels',
      pair: 'renamed-v1>moved-v1',
      exitCode: 2,
      ills: ['other-labels'],
      says: /-> set --source-label source_workload --destination-label destination_workload/,
    },
    {
      name: 'labels that no series has',
      pair: CART,
      more: [...WINDOW, '--source-label', 'caller'],
      exitCode: 2,
      ills: ['other-labels'],
      says: /no series has caller="frontend"/,
    },
    {
      name: 'labels that no series has, of a pair that is nowhere',
      pair: 'no>where',
      more: [...WINDOW, '--source-label', 'caller'],
      exitCode: 2,
      ills: ['labels-missing'],
      says: /has no label caller on any series/,
    },
    {
      name: 'a caller that alone reports',
      pair: 'lonely>deaf',
      exitCode: 1,
      ills: ['one-reporter'],
      says: /only lonely reports the pair \(reporter="source"\)/,
    },
    {
      name: 'a callee that alone reports',
      pair: 'mute>talker',
      exitCode: 2,
      ills: ['no-source-reporter'],
      says: /--query 'histogram_quantile\(0\.5, .*reporter="destination"/,
    },
    {
      name: 'a waypoint that alone reports',
      pair: 'wave>pointed',
      exitCode: 2,
      ills: ['waypoint-only'],
      says: /--query '.*reporter="waypoint"/,
    },
    {
      name: 'sides that counted differently',
      pair: 'half>counted',
      exitCode: 1,
      ills: ['reporters-differ'],
      says: /half counted \d+ requests and counted \d+/,
    },
    {
      name: 'code 101 among the requests',
      pair: 'chat>hub',
      exitCode: 1,
      ills: ['streams-101'],
      says: /^25 % of the requests are upgraded connections[^]*response_code!="101"/,
    },
    {
      name: 'gRPC streams among the requests',
      pair: 'feed>stream',
      exitCode: 1,
      ills: ['grpc-streams'],
      says: /^14 % of the requests are grpc and longer than a minute/,
    },
    {
      name: 'a median in one bucket, and a quantile that is elsewhere',
      pair: 'steady>narrow',
      exitCode: 1,
      ills: ['one-bucket'],
      says: /^94 % of the requests lie in the histogram bucket from 5 ms to 10 ms[^]*--quantile 0\.5 --quantile 0\.95/,
    },
    {
      name: 'latency beyond the last bound',
      pair: 'beyond>bounds',
      exitCode: 1,
      ills: ['one-reporter', 'saturated', 'long-requests'],
      says: /only beyond reports/,
    },
    {
      name: 'TCP metrics only, as a ztunnel gives them',
      pair: 'ambient>layer4',
      exitCode: 2,
      ills: ['only-tcp'],
      says: /istioctl waypoint apply/,
    },
    {
      name: 'requests counted, latency not measured',
      pair: 'counter>only',
      exitCode: 2,
      ills: ['latency-missing'],
      says: /has istio_requests_total, but no/,
    },
    {
      name: 'buckets dropped',
      pair: 'bucket>less',
      exitCode: 2,
      ills: ['buckets-missing'],
      says: /somebody drops the buckets/,
    },
  ]) {
    await t.test(`finds ${name}`, async () => {
      const outcome = await doctor(pair, url, more)
      assert.deepEqual({ exitCode: outcome.exitCode, ills: outcome.ills }, { exitCode, ills }, outcome.text)
      assert.match(whatOf(outcome, ills[0] ?? ''), says)
    })
  }

  await t.test('a name from outside cannot steer the terminal', async () => {
    const { text } = await run([...pairArgs('evil>nowhere', url)])
    assert.match(text, /evil\\u\{1b\}\[2J\\u\{9b\}/)
    // eslint-disable-next-line no-control-regex
    assert.doesNotMatch(text, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/)
  })

  await t.test('finds clocks that disagree, either way', async () => {
    for (const [offsetMs, says] of [
      [10_000, /Prometheus's clock is (9\.9|10(\.\d)?) s behind/],
      [-10_000, /Prometheus's clock is (9\.9|10(\.\d)?) s ahead of/],
    ] as const) {
      const clock = { ...systemClock, nowMs: () => Date.now() + offsetMs }
      const outcome = await doctor(CART, url, WINDOW, { clock })
      assert.deepEqual({ exitCode: outcome.exitCode, ills: outcome.ills }, { exitCode: 1, ills: ['clock-skew'] })
      assert.match(whatOf(outcome, 'clock-skew'), says)
    }
  })

  await t.test('finds a slow Prometheus, and one too slow to work with', async (t) => {
    const slow = await startHttpServer(t, (request, response) => {
      setTimeout(() => {
        void fetch(`${url}${request.url ?? ''}`)
          .then((answer) => answer.text())
          .then((body) => response.end(body))
      }, 300)
    })
    const warned = await doctor(CART, slow.url, [...WINDOW, '--poll-interval-seconds', '1'])
    assert.deepEqual({ exitCode: warned.exitCode, ills: warned.ills }, { exitCode: 1, ills: ['query-slow'] })
    assert.match(
      whatOf(warned, 'query-slow'),
      /takes \d{3} ms \(median of 5\), more than 200 ms with a poll every 1 s\n-> poll less often: --poll-interval-seconds \d/,
    )
    const hopeless = await doctor(CART, slow.url, [...WINDOW, '--poll-interval-seconds', '0.2'])
    assert.deepEqual({ exitCode: hopeless.exitCode, ills: hopeless.ills }, { exitCode: 2, ills: ['query-slow'] })
    assert.match(whatOf(hopeless, 'query-slow'), /the monitor gives up after 0\.16 s/)
  })

  await t.test('finds a fault in force and a recording that it does not fit', async (t) => {
    const recording = join(temporaryFolder(t), 'cart.json')
    const { code } = await run(
      ['record', ...pairArgs(CART, url).slice(1), ...WINDOW, '--range', '8s', '--step-seconds', '1'].concat(
        '--output',
        recording,
      ),
    )
    assert.equal(code, 0)
    const faults = join(packageRoot(), 'k8s', 'faults')
    const fitting = await until(
      'a recording that fits',
      () => doctor(CART, url, [...WINDOW, '--training-data-file', recording]),
      ({ exitCode }) => exitCode === 0,
    )
    assert.match(whatOf(fitting, 'training'), /cart\.json fits the pair \(\d samples\)/)

    testbed.applyFaults(readFileSync(join(faults, 'double-delay.yaml'), 'utf8'), 'double-delay.yaml')
    const more = [...WINDOW, '--training-data-file', recording, '--virtual-services', faults]
    const sick = await until(
      'a latency out of the recording',
      () => doctor(CART, url, more),
      ({ ills }) => ills.includes('training-level'),
    )
    assert.deepEqual(sick.ills, ['training-level', 'fault-in-force'])
    assert.match(
      whatOf(sick, 'fault-in-force'),
      /^VirtualService frontend-cartservice-delay injects a fault into frontend -> cartservice: fixedDelay 0\.2s for 100 % of requests \(.*\)\n-> .*kubectl delete virtualservice frontend-cartservice-delay/,
    )
    assert.match(whatOf(sick, 'training-level'), /^p50 is [\d.]+ ms now, and .*cart\.json holds [\d.]+ ms to [\d.]+ ms/)
    const other = await doctor('checkoutservice>paymentservice', url, [
      ...WINDOW,
      ...['--training-data-file', recording, '--quantile', '0.95'],
    ])
    assert.ok(other.ills.includes('training-other-pair') && other.ills.includes('training-quantile'), other.text)
    assert.match(whatOf(other, 'training-other-pair'), /was recorded of frontend -> cartservice/)
    assert.equal(other.exitCode, 2)
  })
})

for (const { name, status, path = '', id, says } of [
  { name: '401', status: 401, id: 'prometheus-unreachable', says: /does not answer \(auth\): HTTP 401\n-> / },
  { name: 'a wrong path', status: 404, path: '/wrong', id: 'prometheus-unreachable', says: /\(http_4xx\): HTTP 404/ },
  { name: '503', status: 503, id: 'prometheus-unreachable', says: /\(http_5xx\): HTTP 503/ },
  { name: 'a web page', status: 200, id: 'prometheus-unreachable', says: /\(bad_json\)/ },
]) {
  test(`doctor: ${name} in Prometheus's place is 2`, async (t) => {
    const { url } = await startHttpServer(t, (_request, response) => response.writeHead(status).end('<html>'))
    const outcome = await doctor('a>b', `${url}${path}`)
    assert.deepEqual({ exitCode: outcome.exitCode, ills: outcome.ills }, { exitCode: 2, ills: [id] })
    assert.match(whatOf(outcome, id), says)
  })
}

test('doctor: a Prometheus that is down is 2, and the files are looked through all the same', async (t) => {
  const file = temporaryFile(t, 'kind: List\nitems: []\n', 'vs.yaml')
  const outcome = await doctor('a>b', await closedUrl(), ['--virtual-services', file])
  assert.deepEqual([outcome.exitCode, outcome.ills], [2, ['prometheus-unreachable', 'virtual-services-none']])
  assert.match(whatOf(outcome, 'prometheus-unreachable'), /\(conn\): .*ECONNREFUSED[^]*kubectl port-forward/)
})

const manifest = (name: string, host: string, delay: string): string =>
  `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: ${name}, namespace: shop }
spec:
  hosts: [${host}]
  http:
    - fault: { delay: { fixedDelay: ${delay}, percentage: { value: 50 } } }
      route: [{ destination: { host: ${host} } }]
`

test('doctor: two VirtualServices with one name, and two for one host, are found in files and in a List', async (t) => {
  const folder = temporaryFolder(t)
  writeFileSync(join(folder, 'a.yaml'), `${manifest('same', 'b', '1s')}---\n${manifest('same', 'c', '2s')}`)
  writeFileSync(join(folder, 'ignored.txt'), 'a: [')
  const list = JSON.stringify({
    apiVersion: 'v1',
    kind: 'List',
    items: [
      { apiVersion: 'v1', kind: 'Service', metadata: { name: 'same' } },
      {
        apiVersion: 'networking.istio.io/v1beta1',
        kind: 'VirtualService',
        metadata: { name: 'other', namespace: 'shop' },
        spec: { hosts: ['b.shop.svc.cluster.local'], http: [{ route: [{ destination: { host: 'b' } }] }] },
      },
    ],
  })
  const dump = temporaryFile(t, list, 'vs.yaml')
  const files = ['--virtual-services', folder, '--virtual-services', dump]
  const outcome = await doctor('a>b', await closedUrl(), files)
  assert.deepEqual(outcome.ills, [
    'prometheus-unreachable',
    'virtual-service-name-twice',
    'virtual-service-host-twice',
    'fault-in-force',
  ])
  assert.match(
    whatOf(outcome, 'virtual-service-name-twice'),
    /VirtualService shop\/same is there 2 times with different content: .*a\.yaml, document 1 and .*a\.yaml, document 2/,
  )
  assert.match(
    whatOf(outcome, 'virtual-service-host-twice'),
    /VirtualServices shop\/same and shop\/other are for one host/,
  )
  assert.match(whatOf(outcome, 'fault-in-force'), /fixedDelay 1s for 50 % of requests/)
})

for (const { name, content, says } of [
  { name: 'is not YAML', content: 'a: [', says: /^--virtual-services: .*x\.yaml: not YAML: / },
  {
    name: 'multiplies its aliases',
    content: `a: &a [x]\nb: [${'*a, '.repeat(200)}*a]\n`,
    says: /^--virtual-services: .*: Excessive alias/,
  },
]) {
  test(`doctor: a manifest that ${name} is a usage error`, async (t) => {
    const file = temporaryFile(t, content, 'x.yaml')
    await assert.rejects(
      run([...pairArgs('a>b', 'http://x'), '--virtual-services', file]),
      (error: unknown) => error instanceof UsageError && says.test(error.message),
    )
  })
}

test('doctor: a signal ends it without a verdict', async () => {
  const stopped = new AbortController()
  stopped.abort()
  await assert.rejects(
    run([...pairArgs('a>b', await closedUrl())], { signal: stopped.signal }),
    /stopped before the examination was over/,
  )
})
