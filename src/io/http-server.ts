import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

import { StartError } from '../core/errors.js'

export interface Response {
  readonly status: number
  readonly contentType: string
  readonly body: string | Buffer
  /** Names the body: who has it already is answered 304. */
  readonly etag?: string
  readonly headers?: Readonly<Record<string, string>>
}

/** Exact paths and nothing else: no URL parsing, no decoding, no files. A query string is ignored. */
export type Routes = Readonly<Record<string, (request: IncomingMessage) => Response>>

export interface HttpServer {
  readonly url: string
  readonly port: number
  /** Stops listening, lets running answers finish for at most `graceMs`, then cuts them. Safe to call twice. */
  close(graceMs?: number): Promise<void>
}

export function text(status: number, body: string): Response {
  return { status, contentType: 'text/plain; charset=utf-8', body }
}

/** @throws {StartError} when the address cannot be listened on (in use, not ours, privileged) */
export async function listen(options: {
  readonly address: string
  readonly port: number
  readonly routes: Routes
  readonly idleTimeoutMs?: number
}): Promise<HttpServer> {
  const { idleTimeoutMs = 30_000 } = options
  const routes = new Map(Object.entries(options.routes))
  const server = createServer(
    { headersTimeout: 5_000, requestTimeout: 10_000, keepAliveTimeout: 65_000, connectionsCheckingInterval: 1_000 },
    (request, response) => {
      request.resume()
      respond(request, response, answerTo(request, routes))
    },
  )
  // A client that takes nothing of its answer for so long is cut; between requests, keepAliveTimeout holds.
  server.timeout = idleTimeoutMs
  const address = await bind(server, options)
  const host = address.family === 'IPv6' ? `[${address.address}]` : address.address
  return {
    url: `http://${host}:${address.port}`,
    port: address.port,
    close: (graceMs = 1_000) => close(server, graceMs),
  }
}

function respond(request: IncomingMessage, response: ServerResponse, answer: Response): void {
  const { etag, contentType, status } = answer
  // One buffer for all who are answered with it: a slow reader holds a reference, not a copy.
  const body = typeof answer.body === 'string' ? Buffer.from(answer.body) : answer.body
  const common = {
    'x-content-type-options': 'nosniff',
    ...answer.headers,
    ...(etag === undefined ? {} : { etag }),
  }
  if (etag !== undefined && names(request.headers['if-none-match'], etag)) {
    response.writeHead(304, common).end()
    return
  }
  response.writeHead(status, {
    'content-type': contentType,
    'content-length': body.length,
    ...common,
    ...(status === 405 ? { allow: 'GET, HEAD' } : {}),
  })
  response.end(request.method === 'HEAD' ? undefined : body)
}

/** Whether an If-None-Match names this body; a proxy that compressed it made the name a weak one (RFC 9110, 13.1.2). */
function names(ifNoneMatch: string | undefined, etag: string): boolean {
  return (ifNoneMatch ?? '').split(',').some((name) => name.trim().replace(/^W\//, '') === etag)
}

function answerTo(
  request: IncomingMessage,
  routes: ReadonlyMap<string, (request: IncomingMessage) => Response>,
): Response {
  if (request.method !== 'GET' && request.method !== 'HEAD') return text(405, 'method not allowed\n')
  const path = (request.url ?? '').split('?', 1)[0] ?? ''
  const route = routes.get(path)
  return route === undefined ? text(404, 'not found\n') : route(request)
}

/** Binds `server`, so that port 0 becomes the port the kernel chose. */
export function bind(
  server: Server,
  { address, port }: { readonly address: string; readonly port: number },
): Promise<AddressInfo> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const reason =
        error.code === 'EADDRINUSE'
          ? 'the port is in use'
          : error.code === 'EACCES'
            ? 'not permitted'
            : error.code === 'EADDRNOTAVAIL'
              ? 'not an address of this host'
              : error.message
      reject(new StartError(`cannot listen on ${address}:${port}: ${reason}`, { cause: error }))
    })
    server.listen(port, address, () => resolve(server.address() as AddressInfo))
  })
}

function close(server: Server, graceMs: number): Promise<void> {
  return new Promise((resolve) => {
    const cut = setTimeout(() => server.closeAllConnections(), graceMs)
    server.close(() => {
      clearTimeout(cut)
      resolve()
    })
    server.closeIdleConnections()
  })
}
