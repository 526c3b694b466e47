import { type AxiosRequestConfig, type AxiosResponse, isAxiosError } from 'axios'

import { oneLine } from '../core/plain-text.js'
import type { Runtime } from './runtime.js'

/** Any status: what it means is the caller's to say. */
export interface HttpResponse {
  readonly kind: 'response'
  readonly status: number
  readonly text: string
  /** Where a redirect leads; redirects are not followed. */
  readonly location: unknown
}

export interface HttpFailure {
  readonly kind: 'failure'
  readonly outcome: 'timeout' | 'conn' | 'dns' | 'tls' | 'too_large' | 'bad_json'
  readonly detail: string
}

/**
 * One HTTP exchange, bounded by a deadline as a whole, the last byte of the body included, and cut when the process is asked
 * to stop. Never rejects. Safe for requests that may be sent twice, and only for those.
 */
export async function exchange(
  { http, signal, clock }: Runtime,
  deadlineMs: number,
  request: AxiosRequestConfig,
): Promise<HttpResponse | HttpFailure> {
  // Axios's own timeout does not bound a body that drips; this one bounds the whole exchange.
  const controller = new AbortController()
  const timer = new AbortController()
  const deadline = { passed: false }
  void clock.sleep(deadlineMs, timer.signal).then(() => {
    deadline.passed = !timer.signal.aborted
    controller.abort()
  })
  const stop = (): void => controller.abort()
  signal.addEventListener('abort', stop, { once: true })
  const send = (): Promise<AxiosResponse<unknown>> => http.request<unknown>({ ...request, signal: controller.signal })
  try {
    return responseOf(
      await send().catch((error: unknown) => (diedIdle(error) ? send() : Promise.reject(asError(error)))),
    )
  } catch (error) {
    if (deadline.passed) return failure('timeout', `no complete answer within ${deadlineMs / 1000} s`)
    if (signal.aborted) return failure('conn', 'stopped while asking')
    return transportFailure(error)
  } finally {
    timer.abort()
    signal.removeEventListener('abort', stop)
  }
}

function responseOf({ status, data, headers }: AxiosResponse<unknown>): HttpResponse | HttpFailure {
  const { location } = headers as Readonly<Record<string, unknown>>
  const text = typeof data === 'string' ? data : ''
  if (status === 400 && text.startsWith(GO_WANTS_TLS))
    return failure('tls', 'the server speaks https: begin the URL so')
  return { kind: 'response', status, text, location }
}

/** What every server written in Go says to plain HTTP on a port for TLS. */
const GO_WANTS_TLS = 'Client sent an HTTP request to an HTTPS server'

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error))
}

/** A kept-alive connection that the server closed just as it was used again: the one case worth a second try. */
function diedIdle(error: unknown): boolean {
  if (!isAxiosError(error) || error.code !== 'ECONNRESET') return false
  const request: unknown = error.request
  return typeof request === 'object' && request !== null && 'reusedSocket' in request && request.reusedSocket === true
}

/** Only code and message leave this function: the error itself carries the request with its credentials. */
function transportFailure(error: unknown): HttpFailure {
  const { code = '', message } = error as { readonly code?: string; readonly message: string }
  const detail = oneLine(message.slice(0, 200)).trim()
  if (message.includes('maxContentLength')) return failure('too_large', detail)
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return failure('dns', detail)
  if (/CERT|UNABLE_TO|ERR_TLS|EPROTO|ERR_SSL|SELF_SIGNED/.test(code)) return failure('tls', tlsDetail(code, detail))
  if (code.startsWith('Z_')) return failure('bad_json', `the answer does not decompress: ${code}`)
  return failure('conn', detail === '' ? code : detail)
}

const UNKNOWN_AUTHORITY = /^(SELF_SIGNED|DEPTH_ZERO|UNABLE_TO_(VERIFY|GET_ISSUER))/

function tlsDetail(code: string, message: string): string {
  // As in `write EPROTO 40B7:error:0A00010B:SSL routines:ssl3_get_record:wrong version number:../ssl3_record.c:355:`.
  const [, reason = message] = /:SSL routines:[^:]*:([^:]+)/.exec(message) ?? []
  if (reason === 'wrong version number')
    return `${reason}: does the server speak TLS there? Else its URL begins with http`
  return `${reason} (${code})${UNKNOWN_AUTHORITY.test(code) ? '; tls_config.ca_file names authorities to trust' : ''}`
}

function failure(outcome: HttpFailure['outcome'], detail: string): HttpFailure {
  return { kind: 'failure', outcome, detail }
}

/** Where a redirect would have led, for a message. */
export function hostOf(location: unknown): string {
  try {
    return new URL(String(location)).host || 'nowhere'
  } catch {
    return 'another path of the same host'
  }
}
