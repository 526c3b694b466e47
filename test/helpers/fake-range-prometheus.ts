import type { ServerResponse } from 'node:http'
import type { TestContext } from 'node:test'

import type { Clock } from '../../src/io/clock.js'
import { createHttp } from '../../src/io/http-client.js'
import { type FakeRuntime, fakeRuntime, matrixAnswer, vectorAnswer } from './fake-runtime.js'
import { startHttpServer } from './local-server.js'

/** A range query as it came. */
export interface RangeAsked {
  readonly query: string
  readonly start: string
  readonly end: string
  readonly step: string
}

/** A series by its labels: the text of its value at a time, or undefined where it has none. */
export interface MadeSeries {
  readonly metric: Readonly<Record<string, string>>
  readonly at: (timeSeconds: number) => string | undefined
}

/** What Prometheus answers when these are its series. */
export function evaluated(series: readonly MadeSeries[], { start, end, step }: RangeAsked): string {
  const [startMs, endMs, stepMs] = [start, end, step].map((text) => Math.round(Number(text) * 1000))
  const result = series.map(({ metric, at }) => {
    const values: [number, string][] = []
    for (let ms = startMs!; ms <= endMs!; ms += stepMs!) {
      const value = at(ms / 1000)
      if (value !== undefined) values.push([ms / 1000, value])
    }
    return { metric, values }
  })
  return matrixAnswer(result.filter(({ values }) => values.length > 0))
}

/** How Prometheus refuses, with status and body. */
export function apiError(
  status: number,
  errorType: string,
  error: string,
): { readonly status: number; readonly body: string } {
  return { status, body: JSON.stringify({ status: 'error', errorType, error }) }
}

type Answered = string | { readonly status: number; readonly body: string } | ((response: ServerResponse) => void)

export interface RangePrometheus {
  readonly url: string
  /** The range queries so far, those for incidents apart. */
  readonly asked: readonly RangeAsked[]
  readonly incidentsAsked: readonly RangeAsked[]
}

/**
 * A Prometheus that is a function, over real HTTP.
 *
 * @param options.hotNow - whether an incident is open now
 * @param options.hot - the times of the range at which there was heat
 */
export async function startRangePrometheus(
  t: TestContext,
  answer: (asked: RangeAsked, index: number) => Answered,
  options: { readonly hotNow?: () => boolean; readonly hot?: (timeSeconds: number) => boolean } = {},
): Promise<RangePrometheus> {
  const asked: RangeAsked[] = []
  const incidentsAsked: RangeAsked[] = []
  const { url } = await startHttpServer(t, (request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://prometheus')
    if (pathname === '/api/v1/query') {
      response.end(vectorAnswer(options.hotNow?.() === true ? [{ metric: {}, value: '7' }] : []))
      return
    }
    const { query = '', start = '', end = '', step = '' } = Object.fromEntries(searchParams)
    const range = { query, start, end, step }
    if (query.includes('lab7_incident')) {
      incidentsAsked.push(range)
      response.end(evaluated([{ metric: {}, at: (time) => (options.hot?.(time) === true ? '1' : undefined) }], range))
      return
    }
    asked.push(range)
    const answered = answer(range, asked.length - 1)
    if (typeof answered === 'function') answered(response)
    else if (typeof answered === 'string') response.end(answered)
    else response.writeHead(answered.status).end(answered.body)
  })
  return { url, asked, incidentsAsked }
}

/** A runtime with real HTTP and a clock that stands still but for pauses, which take no time and are written down. */
export function impatientRuntime(nowMs?: number): FakeRuntime & { readonly pausesMs: readonly number[] } {
  const runtime = fakeRuntime([])
  const pausesMs: number[] = []
  const clock: Clock = {
    ...runtime.clock,
    nowMs: () => nowMs ?? runtime.clock.nowMs(),
    // The deadlines of requests, a minute and more, never pass.
    sleep: (ms, signal) => {
      if (ms >= 60_000) return runtime.clock.sleep(ms, signal)
      pausesMs.push(ms)
      return Promise.resolve()
    },
  }
  return { ...runtime, http: createHttp(), clock: { ...runtime.clock, ...clock }, pausesMs }
}
