import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'

import type { Clock } from '../io/clock.js'
import { bind } from '../io/http-server.js'
import type { Pauses } from './pauses.js'
import { lognormal, type Random } from './random.js'
import { type Sidecar, SOURCE_HEADER } from './sidecar.js'
import type { Call, Service, Step } from './topology.js'

export interface RunningService {
  readonly port: number
  /** Cuts its connections: whoever waits for an answer gets none. */
  readonly close: () => Promise<void>
}

export interface ServiceOptions {
  readonly service: Service
  readonly sidecar: Sidecar
  readonly clock: Clock
  readonly pauses: Pauses
  readonly random: Random
}

/** @throws {StartError} when it cannot listen */
export async function startService({
  service,
  sidecar,
  clock,
  pauses,
  random,
}: ServiceOptions): Promise<RunningService> {
  const work = createWorkers(service, pauses)

  const statusOf = async (endpoint: string): Promise<number> => {
    const steps = service.endpoints.get(endpoint)
    if (steps === undefined) return 404
    if (!(await work(lognormal(random, service.serviceTimeMs)))) return 503
    for (const step of steps) if (!(await makeStep(step))) return 500
    return 200
  }
  const makeStep = async (step: Step): Promise<boolean> => {
    const [only] = step
    if (only !== undefined && step.length === 1) return makeCall(only)
    return (await Promise.all(step.map(makeCall))).every(Boolean)
  }
  const makeCall = async ({ service: callee, endpoint, times, probability, optional }: Call): Promise<boolean> => {
    if (probability < 1 && random() >= probability) return true
    for (let i = 0; i < times; i++) {
      const code = await sidecar.send(callee, endpoint)
      if (code >= 400 && !optional) return false
    }
    return true
  }
  const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const startMs = clock.monotonicMs()
    request.resume()
    const source = request.headers[SOURCE_HEADER]
    const code = await statusOf((request.url ?? '').slice(1))
    sidecar.received(typeof source === 'string' ? source : undefined, code, clock.monotonicMs() - startMs)
    response.writeHead(code, { 'content-length': 3 })
    response.end('ok\n')
  }

  // No idle timeout: a connection that a surge left behind must not be closed just when it is used again.
  const server = createServer({ keepAliveTimeout: 0 }, (request, response) => void handle(request, response))
  const { port } = await bind(server, { address: '127.0.0.1', port: 0 })
  return {
    port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

/**
 * A service's workers and the queue before them, first come first served.
 *
 * @returns work(serviceTimeMs): resolves when a worker has done it; to false, at once, when the queue is full
 */
function createWorkers(
  { concurrency, queueLimit }: Service,
  { pause }: Pauses,
): (serviceTimeMs: number) => Promise<boolean> {
  let free = concurrency
  const queue: (() => void)[] = []
  return async (serviceTimeMs) => {
    if (free > 0) free--
    else if (queue.length >= queueLimit) return false
    else await new Promise<void>((resolve) => queue.push(resolve))
    await pause(serviceTimeMs)
    const next = queue.shift()
    if (next === undefined) free++
    else next() // the worker goes to the next in line without becoming free
    return true
  }
}
