import { createServer, type IncomingMessage, request, type RequestListener, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'

/** Who asks, as what it asks for says. */
export type Asker = 'monitor' | 'incident' | 'alerts'

export interface Upstream {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly body: string
}

/** One request that came through the proxy. */
export interface Exchange {
  readonly asker: Asker
  readonly request: IncomingMessage
  readonly response: ServerResponse
  /** For bytes that no HTTP library would send. */
  readonly socket: Socket
  /** Of the query API. */
  readonly parameters: URLSearchParams
  /** Asks the real server, with other parameters than were asked for if these are given. */
  readonly forward: (parameters?: Readonly<Record<string, string>>) => Promise<Upstream>
}

/** Answers a request as no good server would. */
export type Fault = (exchange: Exchange) => void | Promise<void>

export interface AskedFor {
  readonly asker: Asker
  /** Unix milliseconds. */
  readonly atMs: number
  /** Request line, headers and parameters, in one text. */
  readonly text: string
}

export interface FaultProxy {
  readonly url: string
  readonly port: number
  /** The server behind it, which may come back under another address. */
  readonly setUpstream: (url: string) => void
  /** All requests so far. */
  readonly asked: readonly AskedFor[]
  /** From now on `askers` are answered so; null: everyone is answered by the server behind. */
  readonly inject: (fault: Fault | null, askers?: ReadonlySet<Asker>) => void
  /** Nobody listens on the port any more, and who is connected is cut off. */
  readonly refuse: () => Promise<void>
  /** Listens again. */
  readonly accept: () => Promise<void>
  readonly cutAll: () => void
  /** With TLS: from now on it shows this certificate. */
  readonly present: (identity: Identity) => void
  readonly close: () => Promise<void>
}

export interface Identity {
  readonly cert: string
  readonly key: string
}

/** An HTTP proxy on a free port of 127.0.0.1 that can misbehave in every way; over TLS when it has an identity. */
export async function startFaultProxy(upstreamUrl: string, identity?: Identity): Promise<FaultProxy> {
  let upstream = upstreamUrl
  let fault: Fault | null = null
  let affected: ReadonlySet<Asker> | undefined
  const asked: AskedFor[] = []
  const sockets = new Set<Socket>()

  const handle: RequestListener = (incoming, response) => {
    void readAll(incoming).then(async (body) => {
      const target = new URL(incoming.url ?? '/', 'http://proxy')
      const isForm = incoming.headers['content-type']?.startsWith('application/x-www-form-urlencoded') === true
      const parameters = isForm ? new URLSearchParams(body) : target.searchParams
      const asker = askerOf(target.pathname, parameters)
      const head = incoming.rawHeaders.map((text, i) => (i % 2 === 0 ? `\n${text}: ` : text)).join('')
      asked.push({
        asker,
        atMs: Date.now(),
        text: `${incoming.method ?? ''} ${incoming.url ?? ''}${head}\n\n${body}`,
      })
      const exchange: Exchange = {
        asker,
        request: incoming,
        response,
        socket: incoming.socket,
        parameters,
        forward: (changed) => forward(upstream, { incoming, target, body: isForm ? '' : body, parameters, changed }),
      }
      const wrong = affected === undefined || affected.has(asker) ? fault : null
      try {
        await (wrong ?? passOn)(exchange)
      } catch {
        incoming.socket.destroy()
      }
    })
  }
  const server = identity === undefined ? createServer(handle) : createTlsServer({ ...identity }, handle)
  const track = (socket: Socket): void => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    socket.once('close', () => sockets.delete(socket))
  }
  server.on('connection', track)
  server.on('clientError', (_error, socket) => socket.destroy())
  const listen = (port: number): Promise<void> =>
    new Promise((resolve, reject) => {
      server.once('error', reject)
      server.listen(port, '127.0.0.1', () => {
        server.off('error', reject)
        resolve()
      })
    })
  const cutAll = (): void => {
    for (const socket of sockets) socket.destroy()
  }
  const refuse = async (): Promise<void> => {
    if (!server.listening) return
    const closed = new Promise((resolve) => server.close(resolve))
    cutAll()
    await closed
  }
  await listen(0)
  const { port } = server.address() as AddressInfo
  return {
    url: `http${identity === undefined ? '' : 's'}://127.0.0.1:${port}`,
    port,
    setUpstream: (url) => {
      upstream = url
    },
    asked,
    inject: (one, askers) => {
      fault = one
      affected = askers
    },
    refuse,
    accept: async () => {
      if (!server.listening) await listen(port)
    },
    cutAll,
    present: (other) => {
      if ('setSecureContext' in server) server.setSecureContext({ ...other })
      cutAll() // who is connected has seen the one before
    },
    close: refuse,
  }
}

export const passOn: Fault = async ({ forward: ask, response }) => {
  const { status, headers, body } = await ask()
  response.writeHead(status, { 'content-type': headers['content-type'] ?? 'text/plain' }).end(body)
}

function askerOf(path: string, parameters: URLSearchParams): Asker {
  if (path.endsWith('/api/v2/alerts')) return 'alerts'
  return (parameters.get('query') ?? '').includes('lab7_') ? 'incident' : 'monitor'
}

async function readAll(stream: IncomingMessage): Promise<string> {
  let text = ''
  for await (const part of stream) text += String(part)
  return text
}

function forward(
  upstream: string,
  asked: {
    readonly incoming: IncomingMessage
    readonly target: URL
    readonly body: string
    readonly parameters: URLSearchParams
    readonly changed: Readonly<Record<string, string>> | undefined
  },
): Promise<Upstream> {
  const { incoming, target, body, parameters, changed = {} } = asked
  const isQuery = target.pathname.includes('/api/v1/')
  const sent = new URLSearchParams({ ...Object.fromEntries(parameters), ...changed })
  // In the path as in the body Prometheus takes the same; a GET is what a person would repeat.
  const url = new URL(`${target.pathname}${isQuery ? `?${sent.toString()}` : target.search}`, upstream)
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': incoming.headers['content-type'] ?? 'application/json', connection: 'close' }
    const outgoing = request(url, { method: isQuery ? 'GET' : (incoming.method ?? 'GET'), headers }, (answer) => {
      readAll(answer).then((text) => {
        resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: text })
      }, reject)
    })
    outgoing.once('error', reject)
    outgoing.end(isQuery ? '' : body)
  })
}
