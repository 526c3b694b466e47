import assert from 'node:assert/strict'

import fc from 'fast-check'
import { Registry } from 'prom-client'

import { readEdges, readPolls } from '../../src/core/anomaly-history.js'
import { staticMad } from '../../src/core/baseline/static.js'
import { type MeshHistory, newlyAnomalous, readMeshHistory } from '../../src/core/mesh-history.js'
import type { PairVerdict } from '../../src/core/incident.js'
import { pairKey } from '../../src/core/pair.js'
import {
  documentOf,
  inSpans,
  joinedAnswer,
  rangeAnswerOf,
  resultText,
  type RangeAnswer,
  withoutSpans,
} from '../../src/core/range-answer.js'
import { type Expected, MAX_LATENCY_MS, POLL_OUTCOMES, type Reading, readVector } from '../../src/core/reading.js'
import { type ScoringRules, VERDICTS, type Watches } from '../../src/core/score.js'
import { type Envelope, parseAnswer, ShapeError } from '../../src/core/series.js'
import { vectorParts, wholeVector } from '../../src/core/vector-parts.js'
import { createMeshMonitor } from '../../src/io/mesh-monitor.js'
import { createMonitor } from '../../src/io/monitor.js'
import { queryInstant, queryInstantMatrix, queryRange } from '../../src/io/prometheus.js'
import { fakeRuntime, type FakeAnswer, matrixAnswer, vectorAnswer } from './fake-runtime.js'
import { type FuzzProperty, property } from './fuzz.js'
import { checkedExposition, labelSets } from './fuzz-exposition-checks.js'
import { anyEdge, anyName, damaged, matrixDocument, serviceName, valueText, vectorDocument } from './fuzz-inputs.js'
import { meshAnswer, meshElements } from './mesh-answers.js'

const T0 = 1_700_000_000

/** As they came over the wire. */
const RECORDED_VECTORS = [
  vectorAnswer([
    { metric: { quantile: '0.5' }, value: '8.1875' },
    { metric: { quantile: '0.99' }, value: '24.5' },
    { metric: { series: 'requests_per_second' }, value: '4.2' },
    { metric: { series: 'sample_timestamp_seconds' }, value: String(T0 - 3) },
  ]),
  vectorAnswer([]),
  meshAnswer(
    ['frontend', 'cart', '購物車 "1,b:2"'].flatMap((source) =>
      meshElements({ source, destination: 'payment' }, T0, { '0.5': '12.5', '0.99': 'NaN' }),
    ),
  ),
  `{"status":"success","isPartial":false,"data":{"resultType":"vector","result":[{"metric":{},"value":[${T0}.781,"NaN"]},{"metric":{"a":"b"},"histogram":[${T0},{"count":"1","sum":"2","buckets":[]}]}]},"warnings":["partial"]}`,
  '{"status":"error","errorType":"execution","error":"expanding series: context deadline exceeded"}',
  '{"status":"error","errorType":"bad_data","error":{"toString":null}}',
]

const RECORDED_MATRICES = [
  matrixAnswer([
    {
      metric: { __name__: 'lab7_anomaly_count', source: 'a', destination: 'b' },
      values: [
        [T0, '0'],
        [T0 + 5, '1'],
      ],
    },
    {
      metric: { __name__: 'lab7_sample_timestamp_seconds', source: 'a', destination: 'b' },
      values: [
        [T0, String(T0)],
        [T0 + 5, String(T0 + 5)],
      ],
    },
    {
      metric: { __name__: 'lab7_verdict', verdict: 'anomalous', source: 'a', destination: 'b' },
      values: [[T0 + 5, '1']],
    },
    {
      metric: { series: 'poll' },
      values: [
        [T0, '1'],
        [T0 + 5, '1'],
      ],
    },
  ]),
  matrixAnswer([
    {
      values: [
        [T0, '8.1875'],
        [T0 + 15, 'NaN'],
        [T0 + 30, '9'],
      ],
    },
  ]),
  '{"status":"success","data":{"resultType":"matrix","result":[]}}',
]

const NOT_PROMETHEUS = ['', '<html><body>502 Bad Gateway</body></html>', 'null', '[]', '"x"', '404 page not found\n']

const status = fc.oneof(
  { weight: 20, arbitrary: fc.constant(200) },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      100,
      201,
      204,
      206,
      301,
      302,
      308,
      400,
      401,
      403,
      404,
      413,
      422,
      429,
      500,
      502,
      503,
      599,
      999,
    ),
  },
)
const headers = fc.dictionary(fc.constantFrom('location', 'Location', 'content-type', 'retry-after'), anyName, {
  maxKeys: 2,
})

/** What comes back instead of an answer, or one that something happened to on its way. */
function damagedAnswer(recorded: readonly string[]): fc.Arbitrary<FakeAnswer> {
  return fc.oneof(
    {
      weight: 20,
      arbitrary: fc
        .record({ status, headers, bytes: damaged([...recorded, ...recorded, ...NOT_PROMETHEUS]) })
        // As axios reads a body.
        .map(({ bytes, ...answer }) => ({ ...answer, body: bytes.toString('utf8') })),
    },
    {
      weight: 1,
      arbitrary: fc.constantFrom(
        { code: 'ECONNREFUSED' },
        { code: 'ENOTFOUND' },
        { code: 'ECONNRESET' },
        { code: 'ODD' },
      ),
    },
  )
}

const PROMETHEUS = { prometheusUrl: 'http://p:9090', query: 'up', deadlineMs: 4_000 }
const LONGEST_DETAIL = 700

function checkFailure({ outcome, detail }: { readonly outcome: string; readonly detail: string }): void {
  assert.ok((POLL_OUTCOMES as readonly string[]).includes(outcome), outcome)
  assert.notEqual(detail, '')
  assert.ok(detail.length <= LONGEST_DETAIL, `${detail.length} characters`)
  assert.doesNotMatch(detail, /[\p{Cc}\p{Zl}\p{Zp}]/u)
}

const expected: fc.Arbitrary<Expected> = fc.record(
  {
    quantiles: fc.constantFrom([0.5], [0.5, 0.99]),
    maxAgeSeconds: fc.constantFrom(null, 60),
    ageOptional: fc.boolean(),
    lastTimestampSeconds: fc.constantFrom(null, T0, T0 + 10_000),
  },
  { requiredKeys: ['quantiles', 'maxAgeSeconds', 'lastTimestampSeconds'] },
)

function checkReading(reading: Reading, { quantiles }: Expected): void {
  if (reading.kind === 'missing') {
    checkFailure(reading)
    assert.ok(reading.requestsPerSecond === null || reading.requestsPerSecond >= 0)
    assert.ok(reading.timestampSeconds === null || reading.timestampSeconds >= 0)
    return
  }
  const { timestampSeconds, latencies, requestsPerSecond } = reading.sample
  assert.ok(timestampSeconds >= 0 && timestampSeconds <= 1e11)
  assert.ok(requestsPerSecond === null || (requestsPerSecond >= 0 && Number.isFinite(requestsPerSecond)))
  assert.ok(latencies.length > 0)
  for (const { quantile, latencyMs } of latencies) {
    assert.ok(quantiles.includes(quantile))
    assert.ok(latencyMs >= 0 && latencyMs <= MAX_LATENCY_MS)
  }
}

/** The labels of all results, whatever they are worth. */
function labelsIn(document: unknown): readonly unknown[] {
  const { result } = (document as { readonly data: { readonly result: readonly { readonly metric: object }[] } }).data
  return result.map(({ metric }) => Object.entries(metric))
}

/** @returns undefined for a ShapeError that says where and what */
function shaped<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    assert.ok(error instanceof ShapeError, String(error))
    assert.match(error.message, /expected|status is "error"/)
    assert.ok(error.message.length <= LONGEST_DETAIL, `${error.message.length} characters`)
    return undefined
  }
}

/** As it would have come over the wire. */
const overTheWire = (document: unknown): unknown => JSON.parse(JSON.stringify(document))

const RULES: ScoringRules = {
  direction: 'both',
  minRequestsPerSecond: 0.1,
  minDeviationMs: 1,
  minDeviationRatio: 0.1,
  sloMs: 500,
}
const QUANTILES = [0.5, 0.99]
const FITTED = await staticMad.fit({
  timesSeconds: Array.from({ length: 40 }, (_, i) => T0 + i),
  latenciesMs: Array.from({ length: 40 }, (_, i) => 8 + (i % 5)),
  requestsPerSecond: null,
})
const watches = (): Watches => QUANTILES.map((quantile) => ({ quantile, watch: FITTED.watch() }))

/** Both ends are names that a mesh's monitor takes. */
function isName(name: string): boolean {
  return name !== '' && name !== 'unknown' && name.length <= 253 && !/\p{Surrogate}/u.test(name)
}

const meshConfig = {
  prometheusUrl: 'http://p:9090',
  query: 'up',
  sourceLabel: 'source_app',
  destinationLabel: 'destination_app',
  quantiles: QUANTILES,
  rules: RULES,
  pollIntervalMs: 5_000,
  maxAgeSeconds: 60,
  edgeGraceSeconds: 10,
  shard: { ordinal: 1, count: 1 },
} as const

/** What is served after each poll of a mesh's monitor. */
async function meshExpositions(
  answers: readonly FakeAnswer[],
  maxEdges: number,
): Promise<readonly ReturnType<typeof checkedExposition>[]> {
  const runtime = fakeRuntime(answers)
  const registry = new Registry()
  const known = watches()
  const baselines = { watchesOf: () => known, version: () => 1, ready: () => true }
  const monitor = createMeshMonitor({ ...meshConfig, baselines, maxEdges }, runtime, registry)
  const expositions = []
  while (expositions.length < answers.length) {
    const { outcome, detail } = await monitor.poll()
    if (outcome !== 'ok' && outcome !== 'warnings') checkFailure({ outcome, detail })
    const own = Buffer.from(`${await registry.metrics()}\n`)
    expositions.push(checkedExposition(Buffer.concat([own, ...(monitor.exposition?.() ?? [])])))
  }
  return expositions
}

function checkVerdicts(families: ReturnType<typeof checkedExposition>): void {
  const { samples = [] } = families.get('lab7_verdict') ?? {}
  const byEdge = new Map<string, number>()
  for (const { labels, value } of samples) {
    const key = pairKey({ source: labels.get('source') ?? '', destination: labels.get('destination') ?? '' })
    assert.ok(value === 0 || value === 1)
    byEdge.set(key, (byEdge.get(key) ?? 0) + value)
  }
  for (const held of byEdge.values()) assert.equal(held, 1)
  assert.equal(samples.length, byEdge.size * VERDICTS.length)
  const watched = (families.get('meshfever_edges')?.samples ?? []).reduce((sum, { value }) => sum + value, 0)
  assert.equal(watched, byEdge.size)
}

function checkPairVerdict(verdict: PairVerdict): void {
  if (verdict.kind === 'anomalous') assert.ok(verdict.anomalyCount > 0 && Number.isFinite(verdict.anomalyCount))
}

const spans = fc
  .array(fc.integer({ min: T0 - 10, max: T0 + 620 }), { maxLength: 8 })
  .map((ends) => [...new Set(ends)].sort((a, b) => a - b))
  .map((ends) =>
    Array.from({ length: ends.length >> 1 }, (_, i) => ({ fromSeconds: ends[2 * i]!, toSeconds: ends[2 * i + 1]! })),
  )

const rangeAnswers: fc.Arbitrary<readonly RangeAnswer[]> = fc.array(
  fc.record({
    result: fc.array(
      fc.record({
        metric: fc.oneof(
          fc.dictionary(anyName, anyName, { maxKeys: 2 }),
          fc.constantFrom({}, { a: '1' }, { a: '1', b: '2' }),
        ),
        values: fc.array(
          fc.tuple(
            fc.integer({ min: T0, max: T0 + 600 }),
            valueText.filter((text) => typeof text === 'string'),
          ),
          { maxLength: 6 },
        ),
      }),
      { maxLength: 4 },
    ),
    warnings: fc.array(anyName, { maxLength: 2 }),
  }),
  { maxLength: 3 },
)

export const properties: readonly FuzzProperty[] = [
  property(
    { name: 'an instant vector is read with every label set, or refused with its place', runs: 3_500 },
    fc.tuple(vectorDocument, expected),
    ([given, wanted]) => {
      const document = overTheWire(given)
      const vector = shaped(() => parseAnswer(document, 'vector'))
      if (vector === undefined) return
      assert.deepEqual(
        vector.result.map(({ labels }) => [...labels]),
        labelsIn(document),
      )
      checkReading(readVector(vector, wanted), wanted)
    },
  ),

  property(
    { name: 'a matrix is read with every label set and rising times, or refused with its place', runs: 3_000 },
    matrixDocument,
    (given) => {
      const document = overTheWire(given)
      const matrix = shaped(() => parseAnswer(document, 'matrix'))
      if (matrix === undefined) return
      assert.deepEqual(
        matrix.result.map(({ labels }) => [...labels]),
        labelsIn(document),
      )
      for (const { timesSeconds, values } of matrix.result) {
        assert.equal(timesSeconds.length, values.length)
        timesSeconds.forEach((time, i) => assert.ok(i === 0 || time > timesSeconds[i - 1]!))
      }
    },
  ),

  property(
    { name: 'whatever the bytes, a query is answered or failed in one bounded line', runs: 2_500 },
    fc.tuple(fc.constantFrom('vector', 'matrix', 'range'), damagedAnswer([...RECORDED_VECTORS, ...RECORDED_MATRICES])),
    async ([kind, answer]) => {
      const runtime = fakeRuntime([answer])
      const range = { ...PROMETHEUS, startSeconds: T0, endSeconds: T0 + 60, stepSeconds: 5 }
      const said = await (kind === 'vector'
        ? queryInstant(runtime, PROMETHEUS)
        : kind === 'matrix'
          ? queryInstantMatrix(runtime, PROMETHEUS)
          : queryRange(runtime, range))
      if (said.kind === 'failure') checkFailure(said)
    },
  ),

  property(
    { name: 'a vector read in parts is the vector read in one go', runs: 2_000 },
    fc.tuple(
      fc.oneof(
        damaged(RECORDED_VECTORS).map(String),
        vectorDocument.map((document) => JSON.stringify(document)),
      ),
      fc.integer({ min: 1, max: 400 }),
    ),
    ([text, partLength]) => {
      const read = <T>(reader: () => T): { readonly value: T } | { readonly error: unknown } => {
        try {
          return { value: reader() }
        } catch (error) {
          assert.ok(error instanceof SyntaxError || error instanceof ShapeError, String(error))
          return { error }
        }
      }
      const whole = read(() => wholeVector(text))
      const parts = read(() => [...vectorParts(text, partLength)])
      if ('error' in parts) {
        // Then the whole text is read, and says what it is.
        if (parts.error instanceof ShapeError) assert.deepEqual((whole as { error: unknown }).error, parts.error)
        return
      }
      const joined: Envelope = {
        result: parts.value.flatMap(({ result }) => result),
        warnings: parts.value.reduce((sum, { warnings }) => sum + warnings, 0),
      }
      assert.deepEqual({ value: joined }, whole)
    },
  ),

  property(
    { name: 'histories of anomalies give every poll one verdict of each pair, of one edge or of a mesh', runs: 2_000 },
    matrixDocument,
    (given) => {
      const matrix = shaped(() => parseAnswer(overTheWire(given), 'matrix'))
      if (matrix === undefined) return
      const pairs = [{ source: 'a', destination: 'b' }, ...readEdges(matrix, { staleAfterSeconds: 60 }).edges.values()]
      const polls = readPolls(matrix, { pairs, staleAfterSeconds: 60 })
      polls.forEach(({ timestampSeconds, verdicts }, i) => {
        assert.ok(i === 0 || timestampSeconds > polls[i - 1]!.timestampSeconds)
        assert.equal(verdicts.length, pairs.length)
        verdicts.forEach(checkPairVerdict)
      })
      const warm = new Set([pairKey(pairs[0]!)])
      for (const pair of newlyAnomalous(matrix, { warm, afterSeconds: T0 })) assert.ok(!warm.has(pairKey(pair)))
      const mesh: MeshHistory = readMeshHistory(matrix, matrix, { staleAfterSeconds: 60 })
      assert.equal(mesh.polls.length, polls.length)
      mesh.polls.forEach(({ verdicts }, i) => {
        for (const [key, { verdict }] of verdicts) {
          const place = pairs.findIndex((pair, k) => k > 0 && pairKey(pair) === key)
          assert.deepEqual(verdict, polls[i]!.verdicts[place])
        }
      })
    },
  ),

  property(
    { name: 'a pair: whatever Prometheus answers, /metrics holds one verdict and no number that is none', runs: 800 },
    fc.tuple(
      serviceName,
      serviceName,
      fc.array(
        fc.oneof(
          damagedAnswer(RECORDED_VECTORS),
          vectorDocument.map((document) => JSON.stringify(document)),
        ),
        { minLength: 1, maxLength: 4 },
      ),
    ),
    async ([source, destination, answers]) => {
      const runtime = fakeRuntime(answers)
      const registry = new Registry()
      const pair = { source, destination }
      const monitor = createMonitor(
        {
          pair,
          ...PROMETHEUS,
          quantiles: QUANTILES,
          watches: watches(),
          rules: RULES,
          pollIntervalMs: 5_000,
          maxAgeSeconds: 60,
          ageOptional: true,
        },
        runtime,
        registry,
      )
      let polls = 0
      while (polls++ < answers.length) {
        const { outcome, detail } = await monitor.poll()
        if (outcome !== 'ok' && outcome !== 'warnings') checkFailure({ outcome, detail })
        const families = checkedExposition(await registry.metrics())
        const held = families.get('lab7_verdict')?.samples.filter(({ value }) => value === 1) ?? []
        assert.equal(held.length, 1)
        assert.deepEqual(labelSets(families.get('lab7_verdict'), 'source', 'destination'), [
          JSON.stringify([source, destination]),
        ])
      }
      monitor.view?.()
    },
  ),

  property(
    { name: 'a mesh: every edge that is named in the answer is on /metrics under its own name', runs: 700 },
    fc.tuple(
      fc.array(fc.tuple(anyEdge, fc.constantFrom('8', '9.5', 'NaN', '+Inf', '-1', '1e308', '700', 'x')), {
        maxLength: 10,
      }),
      fc.integer({ min: 1, max: 12 }),
    ),
    async ([edges, maxEdges]) => {
      const elements = edges.flatMap(([edge, value]) => meshElements(edge, T0, { '0.5': value, '0.99': '20' }))
      const [families] = await meshExpositions([meshAnswer(elements)], maxEdges)
      const named = new Map(edges.map(([edge]) => [pairKey(edge), edge]))
      const known = [...named.values()].filter(({ source, destination }) => isName(source) && isName(destination))
      const shown = known.slice(0, maxEdges).map(({ source, destination }) => JSON.stringify([source, destination]))
      assert.deepEqual(labelSets(families!.get('lab7_verdict'), 'source', 'destination'), shown.sort())
      assert.deepEqual(labelSets(families!.get('lab7_anomalies_total'), 'source', 'destination'), shown)
      checkVerdicts(families!)
    },
  ),

  property(
    { name: 'a mesh: whatever Prometheus answers, every edge has one verdict and no number that is none', runs: 500 },
    fc.array(
      fc.oneof(
        damagedAnswer(RECORDED_VECTORS),
        vectorDocument.map((document) => JSON.stringify(document)),
      ),
      { minLength: 1, maxLength: 3 },
    ),
    async (answers) => {
      for (const families of await meshExpositions(answers, 4)) checkVerdicts(families)
    },
  ),

  property(
    { name: 'range answers are joined, cut and written again without losing a value', runs: 2_000 },
    fc.tuple(rangeAnswers, spans),
    ([parts, cuts]) => {
      const count = (answer: RangeAnswer): number => answer.result.reduce((sum, { values }) => sum + values.length, 0)
      const joined = joinedAnswer(parts)
      assert.equal(
        count(joined),
        parts.reduce((sum, part) => sum + count(part), 0),
      )
      const sets = new Set(
        parts.flatMap(({ result }) => result.map(({ metric }) => JSON.stringify(Object.entries(metric).sort()))),
      )
      assert.equal(joined.result.length, sets.size)
      const cut = withoutSpans(joined, cuts)
      const kept = joined.result
        .flatMap(({ values }) => values)
        .filter(([time]) => !cuts.some(({ fromSeconds, toSeconds }) => time >= fromSeconds && time <= toSeconds))
      assert.equal(count(cut), kept.length)
      for (const { values } of cut.result) for (const [time] of values) assert.ok(!inSpans(cuts, time))
      const text = JSON.stringify(documentOf(joined))
      assert.deepEqual(JSON.parse(resultText(text)), JSON.parse(JSON.stringify(joined.result)))
      const again = shaped(() => rangeAnswerOf(JSON.parse(text)))
      if (again !== undefined) assert.equal(count(again), count(joined))
    },
  ),
]
