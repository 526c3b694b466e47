import axios, { AxiosError, type AxiosResponse, type InternalAxiosRequestConfig } from 'axios'
import pino from 'pino'

import { createHttp } from '../../src/io/http-client.js'
import type { Runtime } from '../../src/io/runtime.js'
import { manualClock, type ManualClock } from './manual-clock.js'

/** What a faked Prometheus says: a body with status 200, a status with a body, or an error's code. */
export type FakeAnswer =
  | string
  | { readonly status: number; readonly body: string; readonly headers?: Readonly<Record<string, string>> }
  | { readonly code: string; readonly message?: string }
  | { readonly never: true }

export interface FakeRuntime extends Runtime {
  readonly clock: ManualClock
  readonly stop: () => void
  /** Every line logged, parsed. */
  readonly logged: readonly Readonly<Record<string, unknown>>[]
  /** Every query asked. */
  readonly queries: readonly string[]
  readonly written: () => string
}

/**
 * A runtime on virtual time whose HTTP is an axios adapter: URL building and error classes are the real ones.
 *
 * @param answers - one for each request, in order; the last holds for all that follow
 */
export function fakeRuntime(answers: readonly FakeAnswer[] | ((query: string) => FakeAnswer)): FakeRuntime {
  const clock = manualClock()
  const stop = new AbortController()
  const logged: Readonly<Record<string, unknown>>[] = []
  const queries: string[] = []
  let output = ''
  const http = axios.create({
    ...createHttp().defaults,
    adapter: (config) => {
      const query = queryOf(config)
      queries.push(query)
      const answer = typeof answers === 'function' ? answers(query) : (answers[queries.length - 1] ?? answers.at(-1))
      return respond(config, answer ?? { never: true })
    },
  } as Parameters<typeof axios.create>[0])
  const logger = pino(
    { base: null },
    { write: (line: string) => logged.push(JSON.parse(line) as Readonly<Record<string, unknown>>) },
  )
  return {
    clock,
    http,
    logger,
    signal: stop.signal,
    stdout: {
      isTerminal: false,
      write: (text) => {
        output += text
        return Promise.resolve()
      },
    },
    program: {
      version: '0.0.0',
      nodeVersion: 'v20.19.0',
      nodePath: process.execPath,
      scriptPath: '',
      environment: {},
      isRoot: false,
    },
    stop: () => {
      stop.abort()
    },
    logged,
    queries,
    written: () => output,
  }
}

function queryOf(config: InternalAxiosRequestConfig): string {
  const form: unknown = config.method === 'post' ? config.data : config.params
  return new URLSearchParams(form as URLSearchParams | string).get('query') ?? ''
}

function respond(config: InternalAxiosRequestConfig, answer: FakeAnswer): Promise<AxiosResponse<unknown>> {
  if (typeof answer === 'object' && 'never' in answer) {
    return new Promise((_, reject) => {
      const cut = (): void => reject(new AxiosError('canceled', 'ERR_CANCELED', config))
      if (config.signal?.aborted === true) cut()
      else config.signal?.addEventListener?.('abort', cut)
    })
  }
  if (typeof answer === 'object' && 'code' in answer) {
    return Promise.reject(new AxiosError(answer.message ?? answer.code, answer.code, config))
  }
  const { status, body, headers = {} } = typeof answer === 'string' ? { status: 200, body: answer } : answer
  return Promise.resolve({ data: body, status, statusText: '', headers, config })
}

/** An answer of the instant query API. */
export function vectorAnswer(
  result: readonly { readonly metric: Readonly<Record<string, string>>; readonly value: string }[],
  timeSeconds = 1_700_000_000,
): string {
  return JSON.stringify({
    status: 'success',
    data: {
      resultType: 'vector',
      result: result.map(({ metric, value }) => ({ metric, value: [timeSeconds, value] })),
    },
  })
}

/** An answer of the range query API. */
export function matrixAnswer(
  result: readonly {
    readonly metric?: Readonly<Record<string, string>>
    readonly values: readonly (readonly [number, string])[]
  }[],
): string {
  return JSON.stringify({
    status: 'success',
    data: { resultType: 'matrix', result: result.map(({ metric = {}, values }) => ({ metric, values })) },
  })
}

/** A logged line without the fields that are not the test's business. */
export function without(
  line: Readonly<Record<string, unknown>> | undefined,
  ...fields: readonly string[]
): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(line ?? {}).filter(([field]) => !fields.includes(field)))
}
