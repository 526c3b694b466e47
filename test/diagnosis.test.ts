import assert from 'node:assert/strict'
import test from 'node:test'

import {
  type Asked,
  type BucketCount,
  diagnose,
  type Elsewhere,
  exitCodeOf,
  type Facts,
  type Finding,
  printable,
  type ScrapedSeries,
} from '../src/core/diagnosis.js'
import { LATENCY_BUCKETS, LATENCY_COUNT, LATENCY_NATIVE } from '../src/core/examination-queries.js'
import { type ManifestDocument, virtualServicesIn } from '../src/core/virtual-service-objects.js'

const NOW = 1_700_000_000

function known<T>(value: T): Asked<T> {
  return { kind: 'known', value }
}

const TIMEOUT = { kind: 'unanswered', outcome: 'timeout', detail: 'no complete answer within 15 s' } as const

/** Requests in each bucket, cumulated. */
function buckets(inBucket: Readonly<Record<number, number>>, protocol = 'http', code = '200'): readonly BucketCount[] {
  let requests = 0
  return [5, 10, 25, 50, 60_000, 3_600_000, Infinity].map((upperMs) => {
    requests += inBucket[upperMs] ?? 0
    return { upperMs, protocol, code, requests }
  })
}

function scraped(everySeconds: number, labels: Readonly<Record<string, string>> = {}): ScrapedSeries {
  return {
    labels: new Map(Object.entries(labels)),
    timesSeconds: Array.from({ length: 10 }, (_, i) => NOW - i * everySeconds).reverse(),
  }
}

/** A pair with nothing wrong: 10 requests a second, scraped every 15 s, p50 of 8 ms. */
const HEALTHY: Facts = {
  subject: {
    pair: { source: 'a', destination: 'b' },
    sourceLabel: 'source_app',
    destinationLabel: 'destination_app',
    prometheusUrl: 'http://prometheus:9090',
    window: { text: '1m', seconds: 60 },
    quantiles: [0.5],
    minRequestsPerSecond: 0.1,
    pollIntervalSeconds: 5,
    pollDeadlineSeconds: 4,
  },
  clock: known({ prometheusSeconds: NOW, ourSeconds: NOW + 0.1, roundTripSeconds: 0.01 }),
  pollSeconds: [0.005, 0.004, 0.9, 0.006, 0.005],
  poll: known({
    latencies: [{ quantile: 0.5, latencyMs: 8 }],
    requestsPerSecond: 10,
    evaluatedSeconds: NOW,
    newestSeconds: NOW - 7,
  }),
  presence: known([
    { metric: LATENCY_BUCKETS, reporter: 'source' },
    { metric: LATENCY_BUCKETS, reporter: 'destination' },
    { metric: LATENCY_COUNT, reporter: 'source' },
  ]),
  requestsByReporter: known(
    new Map([
      ['source', 3_000],
      ['destination', 2_990],
    ]),
  ),
  distribution: known(buckets({ 5: 300, 10: 1_800, 25: 900 })),
  scrapes: known([scraped(15)]),
  elsewhere: null,
  destinationHosts: known(['b.shop.svc.cluster.local']),
  virtualServices: null,
  training: null,
}

const subject = (changes: Partial<Facts['subject']>): Partial<Facts> => ({
  subject: { ...HEALTHY.subject, ...changes },
})

const poll = (changes: object): Partial<Facts> => ({
  poll: known({
    latencies: [{ quantile: 0.5, latencyMs: 8 }],
    requestsPerSecond: 10,
    evaluatedSeconds: NOW,
    newestSeconds: NOW - 7,
    ...changes,
  }),
})

const reporters = (...names: readonly string[]): Partial<Facts> => ({
  presence: known(names.map((reporter) => ({ metric: LATENCY_BUCKETS, reporter }))),
})

const present = (metric: string): Partial<Facts> => ({ presence: known([{ metric, reporter: 'source' }]) })

const lost = (changes: Partial<Elsewhere> = {}): Partial<Facts> => ({
  presence: known([]),
  poll: known({ latencies: [], requestsPerSecond: null, evaluatedSeconds: NaN, newestSeconds: null }),
  scrapes: known([]),
  distribution: known([]),
  elsewhere: {
    metrics: known([LATENCY_COUNT]),
    edges: known([
      { source: 'a', destination: 'bb' },
      { source: 'c', destination: 'b' },
    ]),
    otherLabels: known([]),
    lastSeenSeconds: known(null),
    ...changes,
  },
})

const RECORDED = { quantile: 0.5, samples: 240, medianMs: 8, lowMs: 5, highMs: 10 }
const training = (changes: object): Partial<Facts> => ({
  training: { file: 'a-b.json', series: [RECORDED], pairs: [], window: null, ...changes },
})

function ills(facts: Facts): readonly string[] {
  return diagnose(facts).flatMap(({ id, level }) => (level === 'ok' ? [] : [`${id} ${level}`]))
}

test('diagnosis: a pair with nothing wrong has only good findings, each without a todo', () => {
  const findings = diagnose({ ...HEALTHY, ...training({}) })
  assert.deepEqual(
    findings.map(({ id, level, todo }) => [id, level, todo]),
    [
      'clock',
      'query-time',
      'metric',
      'reporters',
      'window',
      'sample-age',
      'traffic',
      'buckets',
      'streams',
      'training',
    ].map((id) => [id, 'ok', null]),
  )
  assert.equal(exitCodeOf(findings), 0)
})

const CASES: readonly {
  readonly name: string
  readonly changes: Partial<Facts>
  readonly expected: readonly string[]
  readonly says?: RegExp
}[] = [
  {
    name: 'a skew of 2.1 s',
    changes: { clock: known({ prometheusSeconds: NOW + 2.1, ourSeconds: NOW, roundTripSeconds: 0 }) },
    expected: ['clock-skew warning'],
    says: /2\.1 s ahead of/,
  },
  {
    name: 'a skew of 1.9 s',
    changes: { clock: known({ prometheusSeconds: NOW - 1.9, ourSeconds: NOW, roundTripSeconds: 0 }) },
    expected: [],
  },
  {
    name: 'a skew that a slow answer explains',
    changes: { clock: known({ prometheusSeconds: NOW + 3, ourSeconds: NOW, roundTripSeconds: 4 }) },
    expected: [],
  },
  {
    name: 'a median of 1.1 s',
    changes: { ...subject({ pollIntervalSeconds: 60 }), pollSeconds: [0.1, 1.1, 5] },
    expected: ['query-slow warning'],
    says: /1\.1 s/,
  },
  {
    name: 'a median of 20 % of the interval',
    changes: { ...subject({ pollIntervalSeconds: 1, pollDeadlineSeconds: 0.8 }), pollSeconds: [0.19, 0.21, 0.21] },
    expected: ['query-slow warning'],
  },
  { name: 'a median beyond the deadline', changes: { pollSeconds: [4.1, 4.1, 4.1] }, expected: ['query-slow fatal'] },
  { name: 'a query that times out', changes: { poll: TIMEOUT, pollSeconds: [] }, expected: ['query-slow fatal'] },
  {
    name: 'a query that is refused',
    changes: { poll: { kind: 'unanswered', outcome: 'api_error', detail: 'too many samples' }, pollSeconds: [] },
    expected: ['query-fails fatal'],
    says: /too many samples/,
  },
  { name: 'only the source', changes: reporters('source'), expected: ['one-reporter warning'] },
  { name: 'only the destination', changes: reporters('destination'), expected: ['no-source-reporter fatal'] },
  { name: 'only a waypoint', changes: reporters('waypoint'), expected: ['waypoint-only fatal'] },
  {
    name: 'source and waypoint',
    changes: { ...reporters('source', 'waypoint'), requestsByReporter: known(new Map([['source', 9]])) },
    expected: [],
  },
  { name: 'no reporter label', changes: reporters(''), expected: ['no-source-reporter fatal'], says: /\(no label\)/ },
  {
    name: 'counts that differ by more than a scrape can explain',
    changes: {
      requestsByReporter: known(
        new Map([
          ['source', 200],
          ['destination', 100],
        ]),
      ),
    },
    expected: ['reporters-differ warning'],
    says: /fail or are answered on the way/,
  },
  {
    name: 'more at the destination',
    changes: {
      requestsByReporter: known(
        new Map([
          ['source', 100],
          ['destination', 200],
        ]),
      ),
    },
    expected: ['reporters-differ warning'],
    says: /pods of a are not scraped/,
  },
  {
    name: 'few counts that differ',
    changes: {
      requestsByReporter: known(
        new Map([
          ['source', 6],
          ['destination', 3],
        ]),
      ),
    },
    expected: [],
  },
  {
    name: 'a window of 3 scrapes',
    changes: { scrapes: known([scraped(20)]) },
    expected: ['window-short warning'],
    says: /holds 3\.0 scrapes, which are 20 s apart[^]*--query-window 80s/,
  },
  {
    name: 'a window of one interval',
    changes: { scrapes: known([scraped(60)]) },
    expected: ['window-short fatal'],
    says: /--query-window 4m/,
  },
  {
    name: 'intervals of 5 and 15 s',
    changes: { scrapes: known([scraped(5), scraped(15)]) },
    expected: ['scrape-intervals-differ warning'],
  },
  {
    name: 'a pod in two jobs',
    changes: { scrapes: known([scraped(15, { pod: 'a-1', job: 'x' }), scraped(15, { pod: 'a-1', job: 'y' })]) },
    expected: ['scraped-twice warning'],
    says: /pod a-1 is scraped by 2 jobs \(x, y\)/,
  },
  {
    name: 'two pods in one job',
    changes: { scrapes: known([scraped(15, { pod: 'a-1', job: 'x' }), scraped(15, { pod: 'a-2', job: 'x' })]) },
    expected: [],
  },
  {
    name: 'a sample of 46 s',
    changes: poll({ newestSeconds: NOW - 46 }),
    expected: ['sample-old warning'],
    says: /46 s old; beyond 45 s/,
  },
  {
    name: 'no request',
    changes: poll({ requestsPerSecond: null }),
    expected: ['low-traffic warning'],
    says: /no request in the last 1m/,
  },
  {
    name: '0.09 requests a second',
    changes: poll({ requestsPerSecond: 0.09 }),
    expected: ['low-traffic warning'],
    says: /low_traffic and nothing is scored/,
  },
  {
    name: '9 requests for a p50',
    changes: poll({ requestsPerSecond: 9 / 60 }),
    expected: ['low-traffic warning'],
    says: /p50 is then a matter of a few requests\n-> set --query-window 67s/,
  },
  { name: '10 requests for a p50', changes: poll({ requestsPerSecond: 10 / 60 }), expected: [] },
  {
    name: '60 requests for a p99',
    changes: { ...subject({ quantiles: [0.5, 0.99] }), ...poll({ requestsPerSecond: 1 }) },
    expected: ['low-traffic warning'],
    says: /p99 is then a matter of the one slowest/,
  },
  {
    name: '90 % in the p50 bucket',
    changes: { distribution: known(buckets({ 5: 100, 10: 2_700, 25: 200 })) },
    expected: ['one-bucket warning'],
    says: /90 % of the requests lie in the histogram bucket from 5 ms to 10 ms \(p50 is 8 ms\)[^]*--quantile 0\.5 --quantile 0\.95/,
  },
  {
    name: '89 % in the p50 bucket',
    changes: { distribution: known(buckets({ 5: 100, 10: 2_670, 25: 230 })) },
    expected: [],
  },
  {
    name: 'all in the p50 bucket',
    changes: { distribution: known(buckets({ 10: 3_000 })) },
    expected: ['one-bucket warning'],
    says: /-> give a's pods finer bounds/,
  },
  {
    name: 'one bucket for p50, another for p95',
    changes: { ...subject({ quantiles: [0.5, 0.95] }), distribution: known(buckets({ 10: 2_750, 25: 250 })) },
    expected: [],
  },
  {
    name: 'p50 beyond the last bound',
    changes: { distribution: known(buckets({ 10: 10, 60_000: 0, [Infinity]: 90 })) },
    expected: ['saturated warning', 'long-requests warning'],
    says: /beyond the histogram's last bound of 3600000 ms[^]*90 % of the requests do/,
  },
  { name: 'shares of 19 requests', changes: { distribution: known(buckets({ 10: 19 })) }, expected: [] },
  {
    name: '1 % of code 101',
    changes: {
      distribution: known([...buckets({ 5: 300, 10: 1_800, 25: 870 }), ...buckets({ 3_600_000: 30 }, 'http', '101')]),
    },
    expected: ['streams-101 warning'],
    says: /^1 % of the requests are upgraded/,
  },
  {
    name: '0.9 % of code 101',
    changes: {
      distribution: known([...buckets({ 5: 300, 10: 1_800, 25: 873 }), ...buckets({ 3_600_000: 27 }, 'http', '101')]),
    },
    expected: [],
  },
  {
    name: '2 % of long gRPC',
    changes: {
      distribution: known([...buckets({ 5: 300, 10: 1_800, 25: 840 }), ...buckets({ 3_600_000: 60 }, 'grpc')]),
    },
    expected: ['grpc-streams warning'],
  },
  {
    name: '2 % of long HTTP',
    changes: { distribution: known(buckets({ 5: 300, 10: 1_800, 25: 840, 3_600_000: 60 })) },
    expected: ['long-requests warning'],
    says: /^2 % of the requests are http and longer than a minute/,
  },
  { name: 'a native histogram', changes: present(LATENCY_NATIVE), expected: ['native-histogram fatal'] },
  { name: 'no metric at all', changes: lost({ metrics: known([]) }), expected: ['metric-missing fatal'] },
  {
    name: 'native histograms only',
    changes: lost({ metrics: known([LATENCY_NATIVE]) }),
    expected: ['metric-missing fatal'],
    says: /always_scrape_classic_histograms/,
  },
  {
    name: 'other labels',
    changes: lost({ otherLabels: known([{ sourceLabel: 'source_workload', destinationLabel: 'destination_app' }]) }),
    expected: ['other-labels fatal'],
    says: /--source-label source_workload --destination-label destination_app/,
  },
  {
    name: 'the reverse edge',
    changes: lost({ edges: known([{ source: 'b', destination: 'a' }]) }),
    expected: ['pair-reversed fatal'],
  },
  {
    name: 'a pair of an hour ago',
    changes: lost({ lastSeenSeconds: known(NOW - 3_600) }),
    expected: ['pair-gone fatal'],
    says: /last measured 60\.0 min ago/,
  },
  {
    name: 'no such labels',
    changes: lost({ edges: known([{ source: '', destination: 'b' }]) }),
    expected: ['labels-missing fatal'],
    says: /no label source_app on/,
  },
  { name: 'an unknown pair', changes: lost(), expected: ['pair-unknown fatal'], says: /a calls bb; b is called by c/ },
  {
    name: 'an unknown pair of no edges',
    changes: lost({ edges: known([]) }),
    expected: ['pair-unknown fatal'],
    says: /no other edge is known either/,
  },
  {
    name: 'an unknown pair, and half of the questions unanswered',
    changes: lost({ metrics: TIMEOUT, edges: TIMEOUT }),
    expected: ['pair-unknown fatal', 'question-unanswered warning', 'question-unanswered warning'],
  },
  {
    name: 'an unanswered question',
    changes: { distribution: TIMEOUT },
    expected: ['question-unanswered warning'],
    says: /did not tell how latency is distributed \(timeout\)/,
  },
  {
    name: 'a recording of another pair',
    changes: training({ pairs: [{}, { source: 'a', destination: 'c' }] }),
    expected: ['training-other-pair warning'],
    says: /recorded of a -> c/,
  },
  {
    name: 'a recording of this pair',
    changes: training({ pairs: [{ source: 'a', destination: 'b' }, { destination: 'b' }] }),
    expected: [],
  },
  {
    name: 'a recording over another window',
    changes: training({ window: '5m' }),
    expected: ['training-window warning'],
    says: /set --query-window 5m/,
  },
  {
    name: 'a level above the recording',
    changes: { ...training({}), ...poll({ latencies: [{ quantile: 0.5, latencyMs: 210 }] }) },
    expected: ['training-level warning'],
    says: /p50 is 210 ms now, and a-b\.json holds 5 ms to 10 ms \(median 8 ms\)/,
  },
  {
    name: 'a quantile that was not recorded',
    changes: { ...training({}), ...subject({ quantiles: [0.5, 0.95] }) },
    expected: ['training-quantile fatal'],
    says: /holds no quantile 0\.95, only 0\.5/,
  },
  {
    name: 'Prometheus unreachable',
    changes: { clock: { kind: 'unanswered', outcome: 'dns', detail: 'getaddrinfo ENOTFOUND x' } },
    expected: ['prometheus-unreachable fatal'],
    says: /\(dns\): getaddrinfo ENOTFOUND x/,
  },
]

for (const { name, changes, expected, says } of CASES) {
  test(`diagnosis: ${name} is ${expected.length === 0 ? 'nothing to mention' : expected.join(', ')}`, () => {
    const facts = { ...HEALTHY, ...changes }
    assert.deepEqual(ills(facts), expected)
    const bad = diagnose(facts).filter(({ level }) => level !== 'ok')
    assert.ok(bad.every(({ todo }) => todo !== null))
    if (says !== undefined) assert.match(bad.map(({ what, todo }) => `${what}\n-> ${todo ?? ''}`).join('\n'), says)
    const worst = expected.some((ill) => ill.endsWith('fatal')) ? 2 : expected.length > 0 ? 1 : 0
    assert.equal(exitCodeOf(diagnose(facts)), worst)
  })
}

test('diagnosis: of the names there are, those most like the wanted one come first, three of them', () => {
  const names = ['zebra', 'unknown', 'cartservise', 'recommendation', 'cart', 'Cartservice', 'yak']
  const edges = known(names.map((destination) => ({ source: 'frontend', destination })))
  const pair = { source: 'frontend', destination: 'cartservice' }
  const [finding] = diagnose({ ...HEALTHY, ...subject({ pair }), ...lost({ edges }) }).filter(
    ({ level }) => level === 'fatal',
  )
  assert.match(finding?.what ?? '', /; frontend calls Cartservice, cart, cartservise; /)
})

test('diagnosis: scrapes that jitter by milliseconds are still four in a window of four intervals', () => {
  const jittered = {
    labels: new Map<string, string>(),
    timesSeconds: [0, 15.02, 30.03, 45.05].map((s) => NOW - 60 + s),
  }
  assert.deepEqual(ills({ ...HEALTHY, scrapes: known([jittered]) }), [])
  const [short] = diagnose({
    ...HEALTHY,
    ...subject({ window: { text: '45s', seconds: 45 } }),
    scrapes: known([jittered]),
  }).filter(({ level }) => level === 'warning')
  assert.equal(short?.todo, 'set --query-window 60s or more (4 scrapes)')
})

interface Spec {
  readonly hosts: readonly string[]
  readonly gateways?: readonly string[]
  readonly http?: readonly object[]
}

function virtualService(name: string, spec: Spec, namespace: string | null = 'shop'): ManifestDocument {
  const metadata = namespace === null ? { name } : { name, namespace }
  return { value: { apiVersion: 'networking.istio.io/v1', kind: 'VirtualService', metadata, spec }, where: 'f' }
}

const ROUTE = { route: [{ destination: { host: 'b' } }] }
const DELAY = { ...ROUTE, fault: { delay: { fixedDelay: '0.2s' } } }
const from = (app: string, more: object = {}): object => ({ match: [{ sourceLabels: { app }, ...more }] })

for (const { name, objects, expected, says } of [
  { name: 'no object', objects: [], expected: ['virtual-services-none'] },
  { name: 'a route without a fault', objects: [virtualService('x', { hosts: ['b'], http: [ROUTE] })], expected: [] },
  {
    name: 'one name in two namespaces',
    objects: [virtualService('x', { hosts: ['b'], http: [ROUTE] }), virtualService('x', { hosts: ['b'] }, 'other')],
    expected: [],
  },
  {
    name: 'one name, twice the same',
    objects: [
      virtualService('x', { hosts: ['b'], http: [ROUTE] }),
      virtualService('x', { http: [ROUTE], hosts: ['b'] }),
    ],
    expected: [],
  },
  {
    name: 'one name, twice different',
    objects: [virtualService('x', { hosts: ['c'] }), virtualService('x', { hosts: ['d'] })],
    expected: ['virtual-service-name-twice'],
  },
  {
    name: 'one name, once without a namespace',
    objects: [virtualService('x', { hosts: ['c'] }), virtualService('x', { hosts: ['d'] }, null)],
    expected: ['virtual-service-name-twice'],
  },
  {
    name: 'one host, short and qualified',
    objects: [
      virtualService('x', { hosts: ['c'], http: [ROUTE] }),
      virtualService('y', { hosts: ['c.shop.svc.cluster.local'], http: [ROUTE] }),
    ],
    expected: ['virtual-service-host-twice'],
  },
  {
    name: 'one short host in two namespaces',
    objects: [
      virtualService('x', { hosts: ['c'], http: [ROUTE] }),
      virtualService('y', { hosts: ['c'], http: [ROUTE] }, 'other'),
    ],
    expected: [],
  },
  {
    name: 'one host, once for a gateway',
    objects: [
      virtualService('x', { hosts: ['c'], http: [ROUTE] }),
      virtualService('y', { hosts: ['c'], gateways: ['web'], http: [ROUTE] }),
    ],
    expected: [],
  },
  {
    name: 'a fault for everyone',
    objects: [virtualService('x', { hosts: ['b'], http: [DELAY] })],
    expected: ['fault-in-force'],
    says: /VirtualService shop\/x injects a fault into a -> b: fixedDelay 0\.2s for 100 % of requests \(f\)[^]*kubectl delete virtualservice x -n shop/,
  },
  {
    name: 'a fault for the caller',
    objects: [virtualService('x', { hosts: ['b'], http: [{ ...DELAY, ...from('a') }] })],
    expected: ['fault-in-force'],
  },
  {
    name: 'a fault for another caller',
    objects: [virtualService('x', { hosts: ['b'], http: [{ ...DELAY, ...from('z') }, ROUTE] })],
    expected: [],
  },
  {
    name: 'a fault on some paths',
    objects: [virtualService('x', { hosts: ['b'], http: [{ ...DELAY, ...from('a', { uri: { prefix: '/cart' } }) }] })],
    expected: ['fault-in-force'],
    says: /where its other conditions hold/,
  },
  {
    name: 'a fault behind a route that takes all',
    objects: [virtualService('x', { hosts: ['b'], http: [{ ...ROUTE, ...from('a') }, DELAY] })],
    expected: [],
  },
  {
    name: 'a fault of a gateway',
    objects: [virtualService('x', { hosts: ['b'], gateways: ['web'], http: [DELAY] })],
    expected: [],
  },
  {
    name: 'a fault in another namespace',
    objects: [virtualService('x', { hosts: ['b'], http: [DELAY] }, 'other')],
    expected: [],
  },
  { name: 'a fault on another host', objects: [virtualService('x', { hosts: ['c'], http: [DELAY] })], expected: [] },
  {
    name: 'a fault on all hosts of a domain',
    objects: [virtualService('x', { hosts: ['*.shop.svc.cluster.local'], http: [DELAY] })],
    expected: ['fault-in-force'],
  },
  {
    name: 'an abort',
    objects: [
      virtualService('x', {
        hosts: ['b'],
        http: [{ ...ROUTE, fault: { abort: { httpStatus: 503, percentage: { value: 5 } } } }],
      }),
    ],
    expected: ['fault-in-force'],
    says: /abort with 503 for 5 % of requests/,
  },
  {
    name: 'a fault for no request',
    objects: [
      virtualService('x', {
        hosts: ['b'],
        http: [{ ...ROUTE, fault: { delay: { fixedDelay: '1s', percentage: {} } } }],
      }),
    ],
    expected: [],
  },
  {
    name: 'a fault within a List',
    objects: [
      { where: 'f', value: { kind: 'List', items: [virtualService('x', { hosts: ['b'], http: [DELAY] }).value] } },
    ],
    expected: ['fault-in-force'],
    says: /\(f, item 1\)/,
  },
] satisfies readonly {
  name: string
  objects: readonly ManifestDocument[]
  expected: readonly string[]
  says?: RegExp
}[] as readonly { name: string; objects: readonly ManifestDocument[]; expected: readonly string[]; says?: RegExp }[]) {
  test(`diagnosis: of VirtualServices, ${name} is ${expected.length === 0 ? 'fine' : expected.join(', ')}`, () => {
    const found = diagnose({ ...HEALTHY, virtualServices: virtualServicesIn(objects) })
    const bad = found.filter(({ level }) => level !== 'ok')
    assert.deepEqual(
      bad.map(({ id }) => id),
      expected,
    )
    if (says !== undefined) assert.match(bad.map(({ what, todo }) => `${what}\n-> ${todo ?? ''}`).join('\n'), says)
  })
}

test('diagnosis: what comes from outside cannot steer a terminal', () => {
  const detail = 'x\u001b[2J\r\n\u202e\u009b\ud800'
  const findings: readonly Finding[] = diagnose({ ...HEALTHY, clock: { kind: 'unanswered', outcome: 'conn', detail } })
  assert.match(findings[0]?.what ?? '', /x\\u\{1b\}\[2J\\u\{d\}\\u\{a\}\\u\{202e\}\\u\{9b\}\\u\{d800\}$/)
  assert.equal(printable('größe 日本 1,5 -> b'), 'größe 日本 1,5 -> b')
})
