import assert from 'node:assert/strict'
import { test } from 'node:test'

import { StartError } from '../src/core/errors.js'
import { createGuard } from '../src/experiment/guard.js'
import { awaitTraffic } from '../src/experiment/traffic.js'
import { type FakeAnswer, type FakeRuntime, fakeRuntime, vectorAnswer } from './helpers/fake-runtime.js'

const OPTIONS = {
  pairs: [
    { source: 'a', destination: 'b' },
    { source: 'a', destination: 'c' },
  ],
  source: { prometheusUrl: 'http://prometheus:9090', sourceLabel: 'source_app', destinationLabel: 'destination_app' },
  windowSeconds: 60,
  scrapeIntervalSeconds: 15,
}
const NOTHING = vectorAnswer([])
const SOME = vectorAnswer([{ metric: { series: 'requests_per_second' }, value: '2.5' }])

/** Waits in virtual time. Resolves with the seconds it took, or with what it was refused with. */
async function waited(
  answers: readonly FakeAnswer[],
  during: (runtime: FakeRuntime, seconds: number) => void = () => undefined,
): Promise<{ readonly seconds: number; readonly error: unknown; readonly queries: readonly string[] }> {
  const runtime = fakeRuntime(answers)
  let ended = false
  let error: unknown = null
  const waiting = awaitTraffic(runtime, createGuard(runtime), OPTIONS)
    .catch((reason: unknown) => {
      error = reason
    })
    .finally(() => {
      ended = true
    })
  let seconds = 0
  for (;;) {
    await Promise.race([runtime.clock.asleep(), waiting])
    // eslint-disable-next-line @typescript-eslint/no-unnecessary-condition -- it ends meanwhile
    if (ended) return { seconds, error, queries: runtime.queries }
    during(runtime, seconds)
    await Promise.race([runtime.clock.advance(1_000), waiting])
    seconds++
  }
}

test('experiment traffic: it is there when each pair has requests, and a window later it is whole', async () => {
  const { seconds, error, queries } = await waited([NOTHING, NOTHING, SOME, NOTHING, SOME])
  assert.deepEqual([seconds, error], [3 + 60, null])
  assert.equal(queries.length, 5)
  assert.match(queries[4] ?? '', /reporter="source",source_app="a",destination_app="c"\}\[60000ms\]/)
})

for (const { name, answer, message } of [
  {
    name: 'a Prometheus without the metric',
    answer: NOTHING,
    message:
      'Prometheus at http://prometheus:9090 has no istio_request_duration_milliseconds of requests a -> b; meshfever doctor tells why (waited 240 s)',
  },
  {
    name: 'a pair without requests',
    answer: vectorAnswer([{ metric: {}, value: '0' }]),
    message:
      'Prometheus at http://prometheus:9090 has no istio_request_duration_milliseconds of requests a -> b; meshfever doctor tells why (waited 240 s)',
  },
  {
    name: 'a Prometheus that does not answer',
    answer: { status: 503, body: 'no' },
    message: 'Prometheus at http://prometheus:9090 does not answer: HTTP 503 (waited 240 s)',
  },
]) {
  test(`experiment traffic: ${name} is named after a while`, async () => {
    const { seconds, error } = await waited([answer])
    assert.deepEqual(error, new StartError(message))
    assert.equal(seconds, 241)
  })
}

test('experiment traffic: a stop ends the waiting', async () => {
  const { seconds, error } = await waited([NOTHING], (runtime, at) => {
    if (at === 5) runtime.stop()
  })
  assert.deepEqual(error, new StartError('stopped'))
  assert.ok(seconds <= 6)
})
