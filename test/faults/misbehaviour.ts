/* What a server, or something in front of it, can do to a request. */
import { setTimeout as delay } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'

import type { Exchange, Fault } from './fault-proxy.js'

export const HANG: Fault = () => undefined
export const RESET: Fault = ({ socket }) => void socket.resetAndDestroy()
export const END_WITHOUT_ANSWER: Fault = ({ socket }) => void socket.destroy()

/** Bytes, and then the end of the connection unless `open`. */
export function bytes(text: string | Buffer, { open = false }: { readonly open?: boolean } = {}): Fault {
  return ({ socket }) => {
    if (open) socket.write(text)
    else socket.end(text)
  }
}

export function answer(
  status: number,
  body: string | Buffer = '',
  headers: Readonly<Record<string, string>> = {},
): Fault {
  return ({ response }) => {
    response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', ...headers }).end(body)
  }
}

export function json(status: number, document: unknown): Fault {
  return answer(status, JSON.stringify(document), { 'content-type': 'application/json' })
}

export function apiError(status: number, errorType: string, error: string): Fault {
  return json(status, { status: 'error', errorType, error })
}

/** One byte at a time, with pauses. */
export function drip(pauseMs: number): Fault {
  return async ({ forward, socket }) => {
    const { body } = await forward()
    socket.write(
      `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n`,
    )
    for (const character of body) {
      if (socket.destroyed) return
      socket.write(character)
      await delay(pauseMs)
    }
  }
}

/** The head of an answer, byte by byte, and it does not end. */
export const DRIP_HEADERS: Fault = async ({ socket }) => {
  socket.write('HTTP/1.1 200 OK\r\n')
  while (!socket.destroyed) {
    socket.write('x: y\r\n')
    await delay(20)
  }
}

/** What the real server says, changed as a text. */
export function rewritten(
  change: (body: string) => string | Buffer,
  headers: Readonly<Record<string, string>> = {},
): Fault {
  return async ({ forward, response }) => {
    const { status, body } = await forward()
    const changed = change(body)
    response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(changed)
  }
}

export interface PromDocument {
  status: string
  warnings?: unknown
  data: { resultType: string; result: PromSeries[] }
}
export interface PromSeries {
  metric: Record<string, string>
  value?: unknown
  values?: [number, string][]
  histogram?: unknown
}

/** What the real server says, changed as a document. */
export function reshaped(change: (document: PromDocument) => unknown): Fault {
  return rewritten((body) => {
    const document = JSON.parse(body) as PromDocument
    return JSON.stringify(change(document) ?? document)
  })
}

/** Every latency, or every value of a matrix, in place of what it is. */
export function valued(text: unknown): Fault {
  return reshaped(({ data: { result } }) => {
    for (const series of result) {
      if (series.metric['series'] !== undefined) continue
      if (Array.isArray(series.value)) series.value = [series.value[0], text]
      if (series.values !== undefined && series.metric['__name__'] === 'lab7_anomaly_count')
        series.values = series.values.map(([time]) => [time, text as string])
    }
    return undefined
  })
}

/** Every time in the answer, moved. */
export function moved(bySeconds: number): Fault {
  return reshaped(({ data: { result } }) => {
    for (const series of result) {
      if (Array.isArray(series.value)) series.value = [Number(series.value[0]) + bySeconds, series.value[1] as unknown]
      if (series.values !== undefined) series.values = series.values.map(([time, value]) => [time + bySeconds, value])
    }
    return undefined
  })
}

/** The real server is asked something else, and answers. */
export function asked(change: (query: string) => string, more: Readonly<Record<string, string>> = {}): Fault {
  return async ({ forward, parameters, response }: Exchange) => {
    const { status, body, headers } = await forward({ query: change(parameters.get('query') ?? ''), ...more })
    response.writeHead(status, { 'content-type': headers['content-type'] ?? 'text/plain' }).end(body)
  }
}

/** The first answer of the real server, again and again. */
export function replayed(): Fault {
  const first = new Map<string, string>()
  return async ({ asker, forward, response }) => {
    const body = first.get(asker) ?? (await forward()).body
    first.set(asker, body)
    response.writeHead(200, { 'content-type': 'application/json' }).end(body)
  }
}

/** A small body that becomes 100 MiB when it is decompressed. */
export function gzipBomb(): Fault {
  return answer(200, BOMB, { 'content-encoding': 'gzip', 'content-type': 'application/json' })
}

/** Ten parts of 10 MiB: a gzip may consist of several, and one is soon made. */
const BOMB = Buffer.concat(Array<Buffer>(10).fill(gzipSync(Buffer.alloc(10 * 2 ** 20, ' '), { level: 1 })))

/** A body without end, as fast as it is taken. */
export const ENDLESS: Fault = async ({ response }) => {
  response.writeHead(200, { 'content-type': 'application/json' })
  const part = Buffer.alloc(2 ** 16, ' ')
  while (!response.destroyed && !response.socket?.destroyed) {
    if (!response.write(part))
      await Promise.race([new Promise((resolve) => response.once('drain', resolve)), delay(50)])
  }
}

/** A text nested so deep that a walk through it would overflow the stack. */
export const DEEP = `${'['.repeat(200_000)}${']'.repeat(200_000)}`

/** Two answers, sent so that the second stands in the place of the next one. */
export function twice(first: Fault, second: Fault): Fault {
  let count = 0
  return (exchange) => (count++ % 2 === 0 ? first : second)(exchange)
}
