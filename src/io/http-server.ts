import { constants } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createTlsServer, type Server as TlsServer } from 'node:https'
import type { AddressInfo, Server as TcpServer, Socket } from 'node:net'
import { type SecureContextOptions, TLSSocket } from 'node:tls'

import { StartError } from '../core/errors.js'
import { createBasicAuth } from './basic-auth.js'
import type { ListenerTls, WebConfig } from './web-config.js'

export interface Response {
  readonly status: number
  readonly contentType: string
  readonly body: string | Buffer
  /** Names the body: who has it already is answered 304. */
  readonly etag?: string
  readonly headers?: Readonly<Record<string, string>>
}

/** Exact paths and nothing else: no URL parsing, no decoding, no files. A query string is ignored. */
export type Routes = Readonly<Record<string, Route>>
type Route = (request: IncomingMessage) => Response | Promise<Response>

export interface HttpServer {
  readonly url: string
  readonly port: number
  /** Stops listening, lets running answers finish for at most `graceMs`, then cuts them. Safe to call twice. */
  close(graceMs?: number): Promise<void>
}

export function text(status: number, body: string): Response {
  return { status, contentType: 'text/plain; charset=utf-8', body }
}

export interface ListenOptions {
  readonly address: string
  readonly port: number
  readonly routes: Routes
  /** Paths that anyone may ask for, whatever the web configuration says. */
  readonly openPaths?: readonly string[]
  /** How the listener is guarded, as of now; the same object as long as nothing changes. Not given: plain HTTP for anyone. */
  readonly web?: () => WebConfig
  /** How often `web` is asked. */
  readonly lookEveryMs?: number
  readonly idleTimeoutMs?: number
  readonly maxConnections?: number
  /** Is told of answers that could not be made; the client has got a 500. */
  readonly onError?: (error: unknown) => void
}

const LIMITS = {
  headersTimeout: 5_000,
  requestTimeout: 10_000,
  keepAliveTimeout: 65_000,
  connectionsCheckingInterval: 1_000,
  insecureHTTPParser: false,
} as const

/** At seven kilobytes each, more than any crowd of scrapers, and less than what would be the end of us. */
const MAX_CONNECTIONS = 5_000

/** For the handshake of TLS. */
const HANDSHAKE_TIMEOUT_MS = 5_000

/** @throws {StartError} when the address cannot be listened on (in use, not ours, privileged) */
export async function listen(options: ListenOptions): Promise<HttpServer> {
  const { idleTimeoutMs = 30_000, maxConnections = MAX_CONNECTIONS, lookEveryMs = 1_000 } = options
  const { web, openPaths = [], onError = () => undefined } = options
  const routes = new Map(Object.entries(options.routes))
  const first = web?.()
  const tls = first?.tls ?? null
  const server = tls === null ? createServer(LIMITS) : createTlsServer({ ...LIMITS, ...listenerOptions(tls) })
  const guard = web === undefined ? null : createGuard(server, { web, openPaths, lookEveryMs })

  const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    try {
      const refusal = (await guard?.refusalOf(request)) ?? null
      // A body is not read, so that nothing in it can be taken for a request.
      const last = hasBody(request) || guard?.isOutdated(request) === true
      const headers = { ...guard?.headers(), ...(last ? { connection: 'close' } : {}) }
      respond(request, response, refusal ?? (await answerTo(request, routes)), headers)
    } catch (error) {
      // Once more would be a crash that any client can bring about.
      if (!response.headersSent) respond(request, response, text(500, 'internal error\n'), { connection: 'close' })
      onError(error)
    }
  }
  const onRequest = (request: IncomingMessage, response: ServerResponse): void => void handle(request, response)
  server.on('request', onRequest)
  // Nobody is asked to send the body that is not read.
  server.on('checkContinue', onRequest)
  // A client that takes nothing of its answer for so long is cut; between requests, keepAliveTimeout holds.
  server.timeout = idleTimeoutMs
  // Who does nothing makes room: the one that is turned away finds it when it comes again.
  server.maxConnections = maxConnections
  server.on('drop', () => server.closeIdleConnections())
  const address = await bind(server, options)
  // A connection that cannot be accepted, for want of file descriptors, say, is no reason to end.
  server.on('error', onError)
  const host = address.family === 'IPv6' ? `[${address.address}]` : address.address
  return {
    url: `${tls === null ? 'http' : 'https'}://${host}:${address.port}`,
    port: address.port,
    close: (graceMs = 1_000) => {
      guard?.stop()
      return close(server, graceMs)
    },
  }
}

interface Guard {
  /** What to answer a request that is not let in; null for one that is. */
  readonly refusalOf: (request: IncomingMessage) => Promise<Response | null>
  /** Whether a request comes over a connection that was made under an earlier configuration. */
  readonly isOutdated: (request: IncomingMessage) => boolean
  readonly headers: () => WebConfig['headers']
  readonly stop: () => void
}

function createGuard(
  server: Server | TlsServer,
  { web, openPaths, lookEveryMs }: Required<Pick<ListenOptions, 'web' | 'openPaths' | 'lookEveryMs'>>,
): Guard {
  const auth = createBasicAuth()
  let config = web()
  /** Connections made under the configuration that holds. */
  let fresh = new WeakSet<Socket>()
  server.on(config.tls === null ? 'connection' : 'secureConnection', (socket: Socket) => fresh.add(socket))
  const look = setInterval(() => {
    const now = web()
    if (now === config) return
    config = now
    if (config.tls === null || !('setSecureContext' in server)) return
    server.setSecureContext(secureContext(config.tls))
    // Who was let in by an authority or a certificate that is gone comes again.
    fresh = new WeakSet()
    server.closeIdleConnections()
  }, lookEveryMs).unref()
  return {
    refusalOf: async (request) => {
      if (openPaths.includes(pathOf(request))) return null
      const { socket } = request
      if (config.tls?.clientCa != null && !(fresh.has(socket) && showsCertificate(socket))) {
        return text(403, 'a client certificate is required\n')
      }
      if (config.users.size === 0) return null
      const decision = await auth.decide(request.headers.authorization, config.users, () => socket.destroyed)
      if (decision === 'allowed') return null
      if (decision === 'busy') return { ...text(503, 'busy\n'), headers: { 'retry-after': '1' } }
      return {
        ...text(401, 'unauthorized\n'),
        headers: { 'www-authenticate': 'Basic realm="meshfever", charset="UTF-8"' },
      }
    },
    isOutdated: ({ socket }) => !fresh.has(socket),
    headers: () => config.headers,
    stop: () => clearInterval(look),
  }
}

/** `authorized` alone does not say it: of a resumed session it holds without any certificate. */
function showsCertificate(socket: Socket): boolean {
  return socket instanceof TLSSocket && socket.authorized && socket.getPeerX509Certificate() !== undefined
}

function listenerOptions(tls: ListenerTls) {
  return {
    ...secureContext(tls),
    handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
    requestCert: tls.clientCa !== null,
    // Told apart by the request: probes have no certificate, and the paths for them are open.
    rejectUnauthorized: false,
  }
}

function secureContext({ cert, key, clientCa, minVersion, maxVersion }: ListenerTls): SecureContextOptions {
  return {
    cert,
    key,
    minVersion,
    maxVersion,
    ...(clientCa === null ? {} : { ca: clientCa }),
    // No sessions are resumed: who has lost its permission does not come in by an old ticket.
    secureOptions: constants.SSL_OP_NO_TICKET,
  }
}

function respond(
  request: IncomingMessage,
  response: ServerResponse,
  answer: Response,
  headers: Readonly<Record<string, string>>,
): void {
  const { etag, contentType, status } = answer
  // One buffer for all who are answered with it: a slow reader holds a reference, not a copy.
  const body = typeof answer.body === 'string' ? Buffer.from(answer.body) : answer.body
  const common = {
    'x-content-type-options': 'nosniff',
    ...headers,
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

function answerTo(request: IncomingMessage, routes: ReadonlyMap<string, Route>): ReturnType<Route> {
  if (request.method !== 'GET' && request.method !== 'HEAD') return text(405, 'method not allowed\n')
  const route = routes.get(pathOf(request))
  return route === undefined ? text(404, 'not found\n') : route(request)
}

/** As it was sent: nothing is decoded. */
function pathOf({ url = '' }: IncomingMessage): string {
  return url.split('?', 1)[0] ?? ''
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0'
}

/** Binds `server`, so that port 0 becomes the port the kernel chose. */
export function bind(
  server: TcpServer,
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

function close(server: Server | TlsServer, graceMs: number): Promise<void> {
  return new Promise((resolve) => {
    const cut = setTimeout(() => server.closeAllConnections(), graceMs)
    server.close(() => {
      clearTimeout(cut)
      resolve()
    })
    server.closeIdleConnections()
  })
}
