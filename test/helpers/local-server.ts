import { createServer as createHttpServer, type RequestListener, type Server as HttpServer } from 'node:http'
import { createServer as createTcpServer, type AddressInfo, type Server, type Socket } from 'node:net'
import type { TestContext } from 'node:test'

export interface LocalServer {
  /** http://127.0.0.1:PORT */
  readonly url: string
  readonly port: number
  /** How many connections were made so far. */
  readonly connections: () => number
}

/** A real HTTP server on a free port of this host, gone when the test ends. */
export async function startHttpServer(t: TestContext, handler: RequestListener): Promise<LocalServer> {
  const server = createHttpServer(handler)
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return started(server)
}

/** A server that speaks bytes: for answers that no HTTP library would send. */
export async function startTcpServer(t: TestContext, onConnection: (socket: Socket) => void): Promise<LocalServer> {
  const sockets = new Set<Socket>()
  const server = createTcpServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    onConnection(socket)
  })
  t.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return started(server)
}

/** An address at which nobody listens: a port that was free a moment ago. */
export async function closedUrl(): Promise<string> {
  const server = createTcpServer()
  const { port } = await bound(server)
  await new Promise((resolve) => server.close(resolve))
  return `http://127.0.0.1:${port}`
}

async function started(server: Server | HttpServer): Promise<LocalServer> {
  let connections = 0
  server.on('connection', () => connections++)
  const { port } = await bound(server)
  return { url: `http://127.0.0.1:${port}`, port, connections: () => connections }
}

function bound(server: Server | HttpServer): Promise<AddressInfo> {
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve(server.address() as AddressInfo))
  })
}
