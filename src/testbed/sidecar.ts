import { Agent, request as httpRequest } from 'node:http'

import type { Clock } from '../io/clock.js'
import { type HttpServer, listen, text } from '../io/http-server.js'
import type { Faults } from './faults.js'
import { createRequestMetrics, EXPOSITION_CONTENT_TYPE, UNKNOWN } from './istio-metrics.js'
import type { Pauses } from './pauses.js'
import type { Random } from './random.js'
import { decide, qualifiedHost, shortHost } from './virtual-service.js'

/** Tells the receiving sidecar who calls, as Istio's metadata exchange does with x-envoy-peer-metadata. */
export const SOURCE_HEADER = 'x-source-workload'

/** The caller's or callee's proxy: measures what goes out and comes in, and injects faults into what goes out. */
export interface Sidecar {
  /** Sends a request of the service's own. @returns the status that the service sees; 503 when nobody answers */
  readonly send: (destination: string, endpoint: string) => Promise<number>
  /** Notes a request that the service has answered. @param source - undefined for a caller without a sidecar */
  readonly received: (source: string | undefined, code: number, durationMs: number) => void
  /** Where Prometheus scrapes it. */
  readonly port: number
  readonly close: () => Promise<void>
}

export interface SidecarOptions {
  readonly service: string
  readonly namespace: string
  readonly clock: Clock
  readonly pauses: Pauses
  readonly faults: Faults
  readonly random: Random
  /** The port a service listens on; undefined when the mesh has no such service. */
  readonly portOf: (service: string) => number | undefined
}

/** @throws {StartError} when it cannot listen */
export async function startSidecar(options: SidecarOptions): Promise<Sidecar> {
  const { service, namespace, clock, pauses, faults, random, portOf } = options
  const metrics = createRequestMetrics()
  const agent = new Agent({ keepAlive: true })
  const headers = { [SOURCE_HEADER]: service }
  const own = { name: service, namespace }
  const sourceLabels = { app: service, name: service }
  const server: HttpServer = await listen({
    address: '127.0.0.1',
    port: 0,
    routes: {
      '/stats/prometheus': () => ({ status: 200, contentType: EXPOSITION_CONTENT_TYPE, body: metrics.render() }),
      '/healthz': () => text(200, 'ok\n'),
    },
  })

  const answer = async (destination: string, endpoint: string): Promise<Answer & { readonly destination: string }> => {
    const virtualServices = faults.current()
    if (virtualServices.length === 0) return { ...(await get(destination, endpoint)), destination }
    const decision = decide(
      virtualServices,
      { sourceLabels, host: qualifiedHost(destination, namespace), path: `/${endpoint}` },
      random,
    )
    if (!decision.routed) return { code: 404, flags: 'NR', destination }
    if (decision.delayMs > 0) await pauses.pause(decision.delayMs)
    const delayed = decision.delayMs > 0 ? ['DI'] : []
    const target = shortHost(decision.destinationHost)
    if (decision.abortStatus !== null) {
      return { code: decision.abortStatus, flags: [...delayed, 'FI'].join(','), destination: target }
    }
    const { code, flags } = await get(target, endpoint)
    return { code, flags: delayed.length === 0 ? flags : flags === '-' ? 'DI' : `DI,${flags}`, destination: target }
  }
  const get = async (destination: string, endpoint: string): Promise<Answer> => {
    const port = portOf(destination)
    if (port === undefined) return { code: 503, flags: 'NC' }
    const code = await requestStatus({ agent, port, path: `/${endpoint}`, headers })
    return code === null ? { code: 503, flags: 'UF' } : { code, flags: '-' }
  }

  return {
    send: async (to, endpoint) => {
      const startMs = clock.monotonicMs()
      const { code, flags, destination } = await answer(to, endpoint)
      const edge = { reporter: 'source', source: own, destination: { name: destination, namespace } } as const
      metrics.record(edge, { code, flags }, clock.monotonicMs() - startMs)
      return code
    },
    received: (source, code, durationMs) => {
      const caller = source === undefined ? UNKNOWN : { name: source, namespace }
      metrics.record({ reporter: 'destination', source: caller, destination: own }, { code, flags: '-' }, durationMs)
    },
    port: server.port,
    close: async () => {
      agent.destroy()
      await server.close(100)
    },
  }
}

/** A response's code, and Envoy's flags for it. */
interface Answer {
  readonly code: number
  readonly flags: string
}

export interface StatusRequest {
  readonly agent: Agent
  readonly port: number
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
}

/** GET on loopback. node:http and not axios: this is the mesh's hot path. @returns null when nobody answered */
export function requestStatus({ agent, port, path, headers = {} }: StatusRequest): Promise<number | null> {
  return new Promise((resolve) => {
    const request = httpRequest({ agent, host: '127.0.0.1', port, path, headers }, (response) => {
      response.resume()
      response.once('end', () => resolve(response.statusCode ?? null))
      response.once('error', () => resolve(null))
    })
    request.once('error', () => resolve(null))
    request.end()
  })
}
