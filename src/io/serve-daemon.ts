import { Registry } from 'prom-client'

import type { IncidentHistoryJson } from '../core/incident-history.js'
import type { PollOutcome } from '../core/reading.js'
import { etagOf, PAGE_HEADERS, readAssets } from '../page/assets.js'
import type { LastPoll, PageState } from '../page/page-state.js'
import { runDaemon } from './daemon.js'
import { createEdgeRoutes, type EdgeSource } from './edge-routes.js'
import { createExposition, createSelfGauges, type Exposition } from './gauges.js'
import { listen, type Response, type Routes, text } from './http-server.js'
import type { Runtime } from './runtime.js'
import type { FromFiles } from './secret-file.js'
import { createTroubleLog } from './trouble-log.js'
import type { WebConfig } from './web-config.js'

export interface ServeOptions {
  readonly command: string
  readonly listenAddress: string
  /** 0 lets the system choose; the log says which. */
  readonly port: number
  readonly pollIntervalMs: number
  /** How the listener is guarded; not given or undefined: plain HTTP for anyone. */
  readonly web?: FromFiles<WebConfig> | undefined
}

/** What a poll came to. `answered`: Prometheus gave something that could be read, if only that there is nothing. */
export interface PollResult {
  readonly outcome: PollOutcome
  readonly detail: string
}

export interface Poller {
  /** One poll; sets the gauges. Expected trouble is an outcome, what is thrown is a bug. */
  readonly poll: () => Promise<PollResult>
  /** Whether a baseline is fitted; not given by who needs none. */
  readonly ready?: () => boolean
  /** What the page shows of it, as JSON. */
  readonly view?: () => PageState['view']
  /** Where the page looks up single edges of a mesh. */
  readonly edges?: EdgeSource
  /** Hands over, once after each poll, what /metrics holds besides the registry. */
  readonly exposition?: () => readonly Uint8Array[]
  /** What is known of incidents, as JSON. */
  readonly history?: () => IncidentHistoryJson
}

/** Outcomes that say something of the pair, as against those that say something of Prometheus or the way to it. */
const ANSWERED: ReadonlySet<PollOutcome> = new Set(['ok', 'warnings', 'empty', 'nonfinite', 'out_of_domain', 'stale'])

/** How long a poll may take: less than its slot, so that polls never overlap. */
export function pollDeadlineMs(pollIntervalMs: number): number {
  return Math.min(10_000, 0.8 * pollIntervalMs)
}

/**
 * Serves the page, /metrics, /healthz and /readyz while it polls, until the runtime's signal aborts.
 *
 * @returns the exit code
 * @throws {StartError} when the port cannot be listened on
 */
export async function serveDaemon(
  runtime: Runtime,
  options: ServeOptions,
  createPoller: (registry: Registry) => Poller,
): Promise<number> {
  const { clock, signal, logger, program } = runtime
  const registry = new Registry()
  const self = createSelfGauges(registry, { ...program, command: options.command })
  const poller = createPoller(registry)
  const exposition = await createExposition(runtime, registry, poller.exposition)
  const trouble = createTroubleLog(runtime, { subject: 'polls' })
  const page = createPage(poller, clock, {
    version: program.version,
    startedSeconds: clock.nowMs() / 1000,
    pollIntervalSeconds: options.pollIntervalMs / 1000,
  })
  let ready = false
  const { web } = options
  const server = await listen({
    address: options.listenAddress,
    port: options.port,
    openPaths: ['/healthz', '/readyz'],
    ...(web === undefined ? {} : { web: () => web.current(logger) }),
    onError: logOnce(runtime),
    routes: {
      ...page.routes,
      '/metrics': (request) => serveExposition(exposition, request.headers['accept-encoding']),
      '/healthz': () => text(200, 'ok\n'),
      '/readyz': () =>
        ready && !signal.aborted
          ? text(200, 'ready\n')
          : text(503, 'no poll was answered yet, or no baseline is fitted\n'),
    },
  })
  logger.info({ command: options.command, url: server.url, version: program.version }, 'listening')
  try {
    await runDaemon({
      intervalMs: options.pollIntervalMs,
      clock,
      signal,
      onSkipped: (polls) => {
        self.skipped(polls)
      },
      tick: async () => {
        const startMs = clock.monotonicMs()
        const result = await poller.poll()
        if (signal.aborted) return
        trouble.note(result)
        ready ||= ANSWERED.has(result.outcome) && (poller.ready?.() ?? true)
        if (result.outcome === 'ok' || result.outcome === 'warnings') self.succeeded(clock.nowMs() / 1000)
        self.polled(result.outcome, (clock.monotonicMs() - startMs) / 1000)
        await exposition.render()
        page.polled(result, clock.nowMs() / 1000)
      },
    })
  } finally {
    await server.close()
  }
  logger.info({ command: options.command }, 'stopped')
  return 0
}

/** The same error again and again, which clients may bring about, makes one line. */
function logOnce({ logger }: Runtime): (error: unknown) => void {
  let logged = ''
  return (error) => {
    const { message = String(error) } = error as Partial<Error>
    if (message !== logged) logger.error({ detail: message }, 'the listener failed')
    logged = message
  }
}

function serveExposition(exposition: Exposition, acceptEncoding: string | undefined): Response | Promise<Response> {
  const answer = { status: 200, contentType: exposition.contentType }
  const headers = { vary: 'accept-encoding' }
  if (!acceptsGzip(acceptEncoding)) return { ...answer, headers, body: exposition.read() }
  return exposition
    .readGzipped()
    .then((body) => ({ ...answer, headers: { ...headers, 'content-encoding': 'gzip' }, body }))
}

/** Whether a request names gzip, and not with a weight of 0, which forbids it (RFC 9110, 12.5.3). */
function acceptsGzip(acceptEncoding = ''): boolean {
  return acceptEncoding.split(',').some((coding) => {
    const [name = '', ...parameters] = coding.split(';').map((part) => part.trim().toLowerCase())
    return name === 'gzip' && !parameters.some((parameter) => /^q=0(\.0*)?$/.test(parameter))
  })
}

interface Page {
  readonly routes: Routes
  /** Takes over what the poll left. */
  polled(result: PollResult, nowSeconds: number): void
}

function createPage(
  { view, history, edges }: Poller,
  clock: Runtime['clock'],
  facts: Pick<PageState, 'version' | 'startedSeconds' | 'pollIntervalSeconds'>,
): Page {
  let poll: LastPoll | null = null
  const state = createDocument()
  const incidents = createDocument()
  const lookUps = edges === undefined ? null : createEdgeRoutes(edges, clock)
  const take = (): void => {
    state.set((): PageState => ({ ...facts, poll, view: view?.() ?? null }))
    if (history !== undefined) incidents.set(history)
  }
  take()
  const assets = readAssets().map(({ path, contentType, body, etag }) => {
    const headers = { ...PAGE_HEADERS, 'cache-control': 'no-cache' }
    return [path, (): Response => ({ status: 200, contentType, body, etag, headers })] as const
  })
  return {
    routes: {
      ...Object.fromEntries(assets),
      '/api/state': state.read,
      ...(history === undefined ? {} : { '/api/incidents': incidents.read }),
      ...lookUps?.routes,
    },
    polled: ({ outcome, detail }, nowSeconds) => {
      const answered = ANSWERED.has(outcome)
      const sinceSeconds = poll?.answered === answered ? poll.sinceSeconds : nowSeconds
      poll = { endedSeconds: nowSeconds, outcome, detail, answered, sinceSeconds }
      take()
      lookUps?.polled()
    },
  }
}

/** A JSON document, made when the first client asks for it after a poll, and shared by those that follow. */
function createDocument(): { set(make: () => unknown): void; readonly read: () => Response } {
  let make: () => unknown = () => null
  let written: { readonly body: Buffer; readonly etag: string } | null = null
  const headers = { ...PAGE_HEADERS, 'cache-control': 'no-store' }
  return {
    set: (next) => {
      make = next
      written = null
    },
    read: () => {
      if (written === null) {
        const body = Buffer.from(JSON.stringify(make()))
        written = { body, etag: etagOf(body) }
      }
      return { status: 200, contentType: 'application/json; charset=utf-8', ...written, headers }
    },
  }
}
