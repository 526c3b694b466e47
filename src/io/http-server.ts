import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'

import { StartError } from '../core/errors.js'

export interface Response {
  readonly status: number
  readonly contentType: string
  readonly body: string | Buffer
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
}): Promise<HttpServer> {
  const routes = new Map(Object.entries(options.routes))
  const server = createServer(
    { headersTimeout: 5_000, requestTimeout: 10_000, keepAliveTimeout: 65_000, connectionsCheckingInterval: 1_000 },
    (request, response) => {
      request.resume()
      const answer = answerTo(request, routes)
      const body = Buffer.from(answer.body)
      response.writeHead(answer.status, {
        'content-type': answer.contentType,
        'content-length': body.length,
        'x-content-type-options': 'nosniff',
        ...(answer.status === 405 ? { allow: 'GET, HEAD' } : {}),
      })
      response.end(request.method === 'HEAD' ? undefined : body)
    },
  )
  const address = await bind(server, options)
  const host = address.family === 'IPv6' ? `[${address.address}]` : address.address
  return {
    url: `http://${host}:${address.port}`,
    port: address.port,
    close: (graceMs = 1_000) => close(server, graceMs),
  }
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
