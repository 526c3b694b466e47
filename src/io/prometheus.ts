import { type AxiosResponse, isAxiosError } from 'axios'

import type { PollOutcome } from '../core/reading.js'
import { isObject, type Matrix, parseAnswer, ShapeError, type Vector } from '../core/series.js'
import type { Runtime } from './runtime.js'

export type Answer<T> =
  | { readonly kind: 'answer'; readonly data: T; readonly text: string }
  | { readonly kind: 'failure'; readonly outcome: FailureOutcome; readonly detail: string }

export type FailureOutcome = Exclude<
  PollOutcome,
  'ok' | 'warnings' | 'empty' | 'nonfinite' | 'out_of_domain' | 'stale' | 'multi'
>

export interface Request {
  /** Base URL of Prometheus, without a trailing slash. */
  readonly prometheusUrl: string
  readonly query: string
  /** For the whole exchange, the last byte of the body included. */
  readonly deadlineMs: number
}

export interface RangeRequest extends Request {
  /** Unix seconds. */
  readonly startSeconds: number
  readonly endSeconds: number
  readonly stepSeconds: number
}

/** A longer query goes in the body: proxies and Prometheus itself limit the URL. */
const MAX_QUERY_IN_URL = 4_096

const MAX_RANGE_ANSWER_BYTES = 64 * 2 ** 20

/** Evaluates `query` at Prometheus's own now: no time is sent, so a wrong clock here does no harm. Never rejects. */
export async function queryInstant(runtime: Runtime, request: Request): Promise<Answer<Vector>> {
  return parsed(await ask(runtime, request, '/api/v1/query', {}), (document) => parseAnswer(document, 'vector'))
}

/** An instant query whose expression is a range, for example a subquery. Never rejects. */
export async function queryInstantMatrix(runtime: Runtime, request: Request): Promise<Answer<Matrix>> {
  return parsed(await ask(runtime, request, '/api/v1/query', {}, MAX_RANGE_ANSWER_BYTES), (document) =>
    parseAnswer(document, 'matrix'),
  )
}

/** Never rejects. */
export async function queryRange(runtime: Runtime, request: RangeRequest): Promise<Answer<Matrix>> {
  const { startSeconds, endSeconds, stepSeconds } = request
  const range = { start: String(startSeconds), end: String(endSeconds), step: String(stepSeconds) }
  return parsed(await ask(runtime, request, '/api/v1/query_range', range, MAX_RANGE_ANSWER_BYTES), (document) =>
    parseAnswer(document, 'matrix'),
  )
}

type Body = { readonly kind: 'body'; readonly text: string } | Extract<Answer<never>, { kind: 'failure' }>

function failure(outcome: FailureOutcome, detail: string): Extract<Answer<never>, { kind: 'failure' }> {
  return { kind: 'failure', outcome, detail }
}

function parsed<T>(body: Body, parse: (document: unknown) => T): Answer<T> {
  if (body.kind === 'failure') return body
  let document: unknown
  try {
    document = JSON.parse(body.text)
  } catch {
    return failure('bad_json', `the answer is not JSON: ${JSON.stringify(body.text.slice(0, 80))}`)
  }
  try {
    return { kind: 'answer', data: parse(document), text: body.text }
  } catch (error) {
    if (error instanceof ShapeError) return failure(error.kind, error.message)
    throw error
  }
}

async function ask(
  { http, signal, clock }: Runtime,
  { prometheusUrl, query, deadlineMs }: Request,
  path: string,
  parameters: Readonly<Record<string, string>>,
  maxContentLength?: number,
): Promise<Body> {
  const form = new URLSearchParams({ query, ...parameters })
  // Axios's own timeout does not bound a body that drips; this one bounds the whole exchange.
  const exchange = new AbortController()
  const timer = new AbortController()
  const deadline = { passed: false }
  void clock.sleep(deadlineMs, timer.signal).then(() => {
    deadline.passed = !timer.signal.aborted
    exchange.abort()
  })
  const stop = (): void => exchange.abort()
  signal.addEventListener('abort', stop, { once: true })
  const send = (): Promise<AxiosResponse<unknown>> =>
    http.request<unknown>({
      url: `${prometheusUrl}${path}`,
      ...(query.length > MAX_QUERY_IN_URL ? { method: 'post', data: form } : { method: 'get', params: form }),
      signal: exchange.signal,
      ...(maxContentLength === undefined ? {} : { maxContentLength }),
    })
  try {
    return bodyOf(await send().catch((error: unknown) => (diedIdle(error) ? send() : Promise.reject(asError(error)))))
  } catch (error) {
    if (deadline.passed) return failure('timeout', `no complete answer within ${deadlineMs / 1000} s`)
    if (signal.aborted) return failure('conn', 'stopped while asking')
    return transportFailure(error)
  } finally {
    timer.abort()
    signal.removeEventListener('abort', stop)
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error))
}

/** A kept-alive connection that the server closed just as it was used again: the one case worth a second try. */
function diedIdle(error: unknown): boolean {
  if (!isAxiosError(error) || error.code !== 'ECONNRESET') return false
  const request: unknown = error.request
  return typeof request === 'object' && request !== null && 'reusedSocket' in request && request.reusedSocket === true
}

function bodyOf({ status, data, headers }: AxiosResponse<unknown>): Body {
  const text = typeof data === 'string' ? data : ''
  if (status === 200) return { kind: 'body', text }
  const said = errorIn(text)
  const detail = `HTTP ${status}${said === '' ? '' : `: ${said}`}`
  if (status >= 300 && status < 400) {
    const { location } = headers as Readonly<Record<string, unknown>>
    return failure('redirect', `${detail}, to ${hostOf(location)}; redirects are not followed, give the final URL`)
  }
  if (status === 401 || status === 403) return failure('auth', detail)
  if (said.startsWith('timeout')) return failure('timeout', detail)
  if (isApiError(text)) return failure('api_error', detail)
  if (status >= 500) return failure('http_5xx', detail)
  if (status >= 400)
    return failure('http_4xx', status === 404 ? `${detail}; is the path of --prometheus-url right?` : detail)
  return failure('bad_json', `${detail} without a body`)
}

/** Prometheus's own words about an error, bounded; the body of anyone else is not repeated. */
function errorIn(text: string): string {
  try {
    const document: unknown = JSON.parse(text)
    if (!isObject(document) || document['status'] !== 'error') return ''
    return `${String(document['errorType'])}: ${String(document['error'])}`.slice(0, 300)
  } catch {
    return ''
  }
}

function isApiError(text: string): boolean {
  return errorIn(text) !== ''
}

function hostOf(location: unknown): string {
  try {
    return new URL(String(location)).host || 'nowhere'
  } catch {
    return 'another path of the same host'
  }
}

/** Only code and message leave this function: the error itself carries the request with its credentials. */
function transportFailure(error: unknown): Extract<Answer<never>, { kind: 'failure' }> {
  const { code = '', message } = error as { readonly code?: string; readonly message: string }
  const detail = message.slice(0, 200)
  if (message.includes('maxContentLength')) return failure('too_large', detail)
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return failure('dns', detail)
  if (/CERT|UNABLE_TO|ERR_TLS|EPROTO|ERR_SSL|SELF_SIGNED/.test(code)) return failure('tls', detail)
  if (code.startsWith('Z_')) return failure('bad_json', `the answer does not decompress: ${code}`)
  return failure('conn', detail === '' ? code : detail)
}
