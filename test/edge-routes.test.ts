import assert from 'node:assert/strict'
import { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'
import test from 'node:test'

import type { Pair } from '../src/core/pair.js'
import { createEdgeRoutes, type EdgeSource, type Looked } from '../src/io/edge-routes.js'
import type { Response } from '../src/io/http-server.js'
import { HOSTILE_NAMES } from './helpers/mesh-answers.js'
import { manualClock } from './helpers/manual-clock.js'

interface Asked {
  readonly get: (
    path: string,
    query: string,
  ) => Promise<{ readonly status: number; readonly json: unknown; readonly answer: Response }>
  readonly polled: () => void
  readonly clock: ReturnType<typeof manualClock>
  readonly looked: readonly Pair[]
  readonly found: readonly string[]
}

function routes(look: (edge: Pair) => Promise<Looked> = (edge) => Promise.resolve({ kind: 'found', edge })): Asked {
  const looked: Pair[] = []
  const found: string[] = []
  const clock = manualClock()
  const source: EdgeSource = {
    find: (text) => {
      found.push(text)
      return { edges: [], leftOut: found.length }
    },
    look: (edge) => {
      looked.push(edge)
      return look(edge)
    },
  }
  const { routes: made, polled } = createEdgeRoutes(source, clock)
  return {
    get: async (path, query) => {
      const request = new IncomingMessage(new Socket())
      request.url = `${path}?${query}`
      const answer = await made[path]!(request)
      return { status: answer.status, json: JSON.parse(String(answer.body)) as unknown, answer }
    },
    polled,
    clock,
    looked,
    found,
  }
}

const edgeQuery = (source: string, destination: string): string =>
  new URLSearchParams({ source, destination }).toString()

test('edge routes: an edge is looked up by the very names it is asked by, and the answer may not be stored or framed', async () => {
  const { get, looked, polled } = routes()
  for (const name of HOSTILE_NAMES) {
    polled()
    const { status, json, answer } = await get('/api/edge', edgeQuery(name, `to ${name}`))
    assert.deepEqual([status, json], [200, { source: name, destination: `to ${name}` }])
    assert.equal(answer.headers?.['cache-control'], 'no-store')
    assert.match(answer.headers['content-security-policy'] ?? '', /default-src 'none'/)
  }
  assert.equal(looked.length, HOSTILE_NAMES.length)
})

for (const { name, path, query } of [
  { name: 'nothing', path: '/api/edge', query: '' },
  { name: 'one end', path: '/api/edge', query: 'source=a' },
  { name: 'an end twice', path: '/api/edge', query: 'source=a&source=b&destination=c' },
  { name: 'something else besides', path: '/api/edge', query: 'source=a&destination=b&query=up' },
  { name: 'a name that is too long', path: '/api/edge', query: edgeQuery('x'.repeat(254), 'b') },
  { name: 'a query that is far too long', path: '/api/edge', query: `source=${'%41'.repeat(5_000)}&destination=b` },
  { name: 'no text', path: '/api/edges', query: '' },
  { name: 'two texts', path: '/api/edges', query: 'search=a&search=b' },
  { name: 'a text that is too long', path: '/api/edges', query: `search=${'x'.repeat(254)}` },
]) {
  test(`edge routes: ${path} with ${name} is refused, and nobody is asked`, async () => {
    const { get, looked, found } = routes()
    const { status, json } = await get(path, query)
    assert.equal(status, 400)
    assert.match(
      (json as { readonly error: string }).error,
      /^expected (search=TEXT|source=NAME&destination=NAME), of at most 253/,
    )
    assert.deepEqual([looked, found], [[], []])
  })
}

test('edge routes: the longest names there are get through as they are sent', async () => {
  const { get } = routes()
  const { status } = await get('/api/edge', edgeQuery('購'.repeat(253), '😀'.repeat(126)))
  assert.equal(status, 200)
})

test('edge routes: an edge that is not known, and a Prometheus that does not answer, are told apart', async () => {
  const unknown = await routes(() => Promise.resolve({ kind: 'unknown' })).get('/api/edge', edgeQuery('a', 'b'))
  assert.deepEqual([unknown.status, unknown.json], [404, { error: 'this daemon knows of no such edge now' }])
  const failing = await routes(() => Promise.resolve({ kind: 'unanswered', detail: 'timeout: late' })).get(
    '/api/edge',
    edgeQuery('a', 'b'),
  )
  assert.deepEqual([failing.status, failing.json], [502, { error: 'timeout: late' }])
})

test('edge routes: the same question is asked once a poll, however many ask it', async () => {
  const { get, looked, found, polled } = routes()
  await Promise.all(Array.from({ length: 100 }, () => get('/api/edge', edgeQuery('a', 'b'))))
  await Promise.all(Array.from({ length: 100 }, () => get('/api/edges', 'search=x')))
  assert.deepEqual([looked.length, found], [1, ['x']])
  polled()
  await get('/api/edge', edgeQuery('a', 'b'))
  assert.deepEqual((await get('/api/edges', 'search=x')).json, { edges: [], leftOut: 2 })
  assert.equal(looked.length, 2)
})

test('edge routes: few questions are under way at once, few are asked in a second, and who comes too late is told so', async () => {
  const answers: (() => void)[] = []
  const slow = routes((edge) => new Promise((resolve) => answers.push(() => resolve({ kind: 'found', edge }))))
  const waiting = ['a', 'b', 'c', 'd'].map((name) => slow.get('/api/edge', edgeQuery(name, 'z')))
  const late = await slow.get('/api/edge', edgeQuery('e', 'z'))
  assert.deepEqual([late.status, late.answer.headers?.['retry-after']], [429, '1'])
  assert.equal(slow.looked.length, 4)
  for (const answer of answers) answer()
  assert.deepEqual(
    (await Promise.all(waiting)).map(({ status }) => status),
    [200, 200, 200, 200],
  )
  assert.equal((await slow.get('/api/edge', edgeQuery('a', 'z'))).status, 200, 'what is known is free')

  const { get, clock, found } = routes()
  const ask = async (count: number, from: number): Promise<number> => {
    const answered: number[] = []
    for (let i = 0; i < count; i++) answered.push((await get('/api/edges', `search=${from + i}`)).status)
    return answered.filter((status) => status === 200).length
  }
  assert.equal(await ask(100, 0), 20)
  assert.equal(found.length, 20)
  await clock.advance(1_000)
  assert.equal(await ask(100, 1_000), 10)
})
