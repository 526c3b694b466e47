import type { IncomingMessage } from 'node:http'

import type { Pair } from '../core/pair.js'
import { PAGE_HEADERS } from '../page/assets.js'
import type { EdgeMatches } from '../page/edge-list.js'
import type { Clock } from './clock.js'
import type { Response, Routes } from './http-server.js'

/** Where a daemon's edges are looked up, for its page. */
export interface EdgeSource {
  /** The hottest of the edges whose names hold each word of a text; bounded. */
  readonly find: (text: string) => EdgeMatches<Pair>
  /** Everything of one edge, as JSON. */
  readonly look: (edge: Pair) => Promise<Looked>
}

export type Looked =
  | { readonly kind: 'found'; readonly edge: Pair }
  | { readonly kind: 'unknown' }
  | { readonly kind: 'unanswered'; readonly detail: string }

export interface EdgeRoutes {
  readonly routes: Routes
  /** What was answered until now is of the poll before. */
  readonly polled: () => void
}

/** A longer text is the name of no edge. */
const MAX_TEXT = 253
/** What can be asked anew in a second, and all at once after some seconds of silence; what was answered already is free. */
const PER_SECOND = 10
const AT_ONCE = 20
/** Questions to Prometheus under way. */
const MAX_UNDER_WAY = 4
/** Answers that are kept until the next poll. */
const MAX_KEPT = 64

/** GET api/edges?search=TEXT and GET api/edge?source=NAME&destination=NAME. */
export function createEdgeRoutes({ find, look }: EdgeSource, clock: Pick<Clock, 'monotonicMs'>): EdgeRoutes {
  const kept = new Map<string, Promise<Response>>()
  const isFree = createBucket(clock)
  let underWay = 0

  /** The same question is worked on once a poll, however many ask it. */
  const shared = (key: string, make: () => Promise<Response>): Promise<Response> => {
    const known = kept.get(key)
    if (known !== undefined) return known
    if (underWay >= MAX_UNDER_WAY || !isFree()) return Promise.resolve(BUSY)
    underWay++
    const answer = make().finally(() => underWay--)
    kept.set(key, answer)
    const [oldest] = kept.keys()
    if (kept.size > MAX_KEPT && oldest !== undefined) kept.delete(oldest)
    return answer
  }
  const lookUp = async (edge: Pair): Promise<Response> => {
    const looked = await look(edge)
    switch (looked.kind) {
      case 'found':
        return json(200, looked.edge)
      case 'unknown':
        return json(404, { error: 'this daemon knows of no such edge now' })
      case 'unanswered':
        return json(502, { error: looked.detail })
    }
  }
  return {
    routes: {
      '/api/edges': (request) => {
        const [search] = texts(request, ['search']) ?? []
        if (search === undefined) return json(400, { error: `expected search=TEXT, of at most ${MAX_TEXT} characters` })
        return shared(JSON.stringify([search]), () => Promise.resolve(json(200, find(search))))
      },
      '/api/edge': (request) => {
        const [source, destination] = texts(request, ['source', 'destination']) ?? []
        if (source === undefined || destination === undefined) {
          return json(400, {
            error: `expected source=NAME&destination=NAME, of at most ${MAX_TEXT} characters each`,
          })
        }
        return shared(JSON.stringify([source, destination]), () => lookUp({ source, destination }))
      },
    },
    polled: () => kept.clear(),
  }
}

const BUSY: Response = {
  ...json(429, { error: 'too many questions at once: try again' }),
  headers: { ...PAGE_HEADERS, 'cache-control': 'no-store', 'retry-after': '1' },
}

function json(status: number, value: unknown): Response {
  const body = Buffer.from(JSON.stringify(value))
  const headers = { ...PAGE_HEADERS, 'cache-control': 'no-store' }
  return { status, contentType: 'application/json; charset=utf-8', body, headers }
}

/** The values of a query string that holds each of these names once and no other; undefined for any other. */
function texts({ url = '' }: IncomingMessage, names: readonly string[]): readonly string[] | undefined {
  const query = url.slice(url.indexOf('?') + 1 || url.length)
  // Every character may be nine as it is sent.
  if (query.length > names.length * (12 * MAX_TEXT + 20)) return undefined
  const given = [...new URLSearchParams(query)]
  const values = names.flatMap((name) => given.filter(([key]) => key === name).map(([, value]) => value))
  const isExpected = given.length === names.length && values.length === names.length
  return isExpected && values.every((value) => value.length <= MAX_TEXT) ? values : undefined
}

/** Lets so many through a second. */
function createBucket(clock: Pick<Clock, 'monotonicMs'>): () => boolean {
  let left = AT_ONCE
  let lastMs = clock.monotonicMs()
  return () => {
    const nowMs = clock.monotonicMs()
    left = Math.min(AT_ONCE, left + (PER_SECOND * (nowMs - lastMs)) / 1000)
    lastMs = nowMs
    if (left < 1) return false
    left--
    return true
  }
}
