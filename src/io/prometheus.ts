import { oneLine } from '../core/plain-text.js'
import type { PollOutcome } from '../core/reading.js'
import { isObject, type Matrix, parseAnswer, ShapeError, type Vector } from '../core/series.js'
import { exchange, hostOf, type HttpResponse } from './exchange.js'
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

/**
 * An instant query whose expression is a range, for example a subquery. Never rejects.
 *
 * @param request.atSeconds - where the expression ends, unix seconds, for one that says so itself: VictoriaMetrics heeds no `@`
 *   after a subquery; null: Prometheus's own now
 */
export async function queryInstantMatrix(
  runtime: Runtime,
  request: Request & { readonly atSeconds?: number | null },
): Promise<Answer<Matrix>> {
  const { atSeconds = null } = request
  const time: Readonly<Record<string, string>> = atSeconds === null ? {} : { time: String(atSeconds) }
  return parsed(await ask(runtime, request, '/api/v1/query', time, MAX_RANGE_ANSWER_BYTES), (document) =>
    parseAnswer(document, 'matrix'),
  )
}

/** Never rejects. */
export async function queryRange(runtime: Runtime, request: RangeRequest): Promise<Answer<Matrix>> {
  return parsed(await queryRangeText(runtime, request, MAX_RANGE_ANSWER_BYTES), (document) =>
    parseAnswer(document, 'matrix'),
  )
}

function rangeParameters({ startSeconds, endSeconds, stepSeconds }: RangeRequest): Readonly<Record<string, string>> {
  return { start: String(startSeconds), end: String(endSeconds), step: String(stepSeconds) }
}

/** As queryInstant, for an answer that is too large to be read in one go: its text. Never rejects. */
export function queryInstantText(runtime: Runtime, request: Request, maxAnswerBytes: number): Promise<Body> {
  return ask(runtime, request, '/api/v1/query', {}, maxAnswerBytes)
}

/** As queryRange, with nothing of the answer read. Never rejects. */
export function queryRangeText(runtime: Runtime, request: RangeRequest, maxAnswerBytes: number): Promise<Body> {
  return ask(runtime, request, '/api/v1/query_range', rangeParameters(request), maxAnswerBytes)
}

export type Failure = Extract<Answer<never>, { kind: 'failure' }>
export type Body = { readonly kind: 'body'; readonly text: string } | Failure

function failure(outcome: FailureOutcome, detail: string): Failure {
  return { kind: 'failure', outcome, detail: oneLine(detail) }
}

function parsed<T>(body: Body, parse: (document: unknown) => T): Answer<T> {
  if (body.kind === 'failure') return body
  try {
    return { kind: 'answer', data: parse(JSON.parse(body.text)), text: body.text }
  } catch (error) {
    return unreadable(error, body.text)
  }
}

/**
 * What reading an answer came to that is no JSON, or not of the shape promised.
 *
 * @throws what is neither
 */
export function unreadable(error: unknown, text: string): Failure {
  if (error instanceof SyntaxError) {
    return failure('bad_json', `the answer is not JSON: ${JSON.stringify(text.slice(0, 80))}`)
  }
  if (error instanceof ShapeError) return failure(error.kind, error.message)
  throw error
}

async function ask(
  runtime: Runtime,
  { prometheusUrl, query, deadlineMs }: Request,
  path: string,
  parameters: Readonly<Record<string, string>>,
  maxContentLength?: number,
): Promise<Body> {
  const form = new URLSearchParams({ query, ...parameters })
  const answer = await exchange(runtime, deadlineMs, {
    url: `${prometheusUrl}${path}`,
    ...(query.length > MAX_QUERY_IN_URL ? { method: 'post', data: form } : { method: 'get', params: form }),
    ...(maxContentLength === undefined ? {} : { maxContentLength }),
  })
  return answer.kind === 'failure' ? answer : bodyOf(answer)
}

function bodyOf({ status, text, location }: HttpResponse): Body {
  if (status === 200) return { kind: 'body', text }
  const said = errorIn(text)
  const detail = `HTTP ${status}${said === '' ? '' : `: ${said}`}`
  if (status >= 300 && status < 400) {
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
