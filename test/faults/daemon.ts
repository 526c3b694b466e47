import { StartError } from '../../src/core/errors.js'
import { type Child, eventOf, listeningUrl, type LogEvent, startChild } from '../../src/testbed/child-process.js'
import { samplesOf } from '../helpers/exposition.js'
import { PROGRAM } from '../helpers/program.js'

/** Patience with what should happen at once, on a machine that is busy with other things. */
export const PATIENCE_MS = 30_000

/** One of our daemons, as a process, with all that it said. */
export interface Daemon {
  readonly child: Child
  readonly url: string
  readonly lines: readonly string[]
  /** Of the lines since `from`. */
  readonly events: (from?: number) => readonly LogEvent[]
  /** The next line from `from` on for which `matches` holds. @throws when it does not come */
  readonly logged: (what: string, from: number, matches: (event: LogEvent) => boolean) => Promise<LogEvent>
  readonly get: (path: string) => Promise<{ readonly status: number; readonly body: string }>
  readonly metrics: () => Promise<ReadonlyMap<string, number>>
}

export interface DaemonOptions {
  readonly args: readonly string[]
  readonly environment?: Readonly<Record<string, string>>
  /** A program that starts node, with its arguments: `unshare`, `sh`. */
  readonly through?: readonly string[]
  /** Told of the process at once, so that it can be ended whatever happens. */
  readonly started?: (child: Child) => void
}

export function daemonEnvironment(more: Readonly<Record<string, string>> = {}): Readonly<Record<string, string>> {
  return { PATH: process.env['PATH'] ?? '', ...more }
}

/** @throws {StartError} when it ends before it listens */
export async function startDaemon({ args, environment, through = [], started }: DaemonOptions): Promise<Daemon> {
  const lines: string[] = []
  const [command = process.execPath, ...rest] = [...through, process.execPath, PROGRAM, ...args]
  const child = startChild({
    name: args[0] ?? '',
    command,
    args: rest,
    environment: daemonEnvironment(environment),
    onLine: (line) => lines.push(line),
  })
  started?.(child)
  const url = await within('listening', child.waitForLine(listeningUrl), 60_000)
  const get: Daemon['get'] = async (path) => {
    const response = await fetch(`${url}${path}`, { signal: AbortSignal.timeout(PATIENCE_MS) })
    return { status: response.status, body: await response.text() }
  }
  const events: Daemon['events'] = (from = 0) =>
    lines.slice(from).flatMap((line) => {
      const event = eventOf(line)
      return event === undefined ? [] : [event]
    })
  return {
    child,
    url,
    lines,
    events,
    get,
    metrics: async () => samplesOf((await get('/metrics')).body),
    logged: (what, from, matches) =>
      until(`a line that says ${what}`, () => events(from).find(matches), {
        told: () => lines.slice(Math.max(from, lines.length - 5)).join('\n'),
      }),
  }
}

/** Looks until there is something. @throws when there is nothing within the time */
export async function until<T>(
  what: string,
  look: () => T | undefined | Promise<T | undefined>,
  { patienceMs = PATIENCE_MS, told = () => '' }: { readonly patienceMs?: number; readonly told?: () => string } = {},
): Promise<T> {
  const endMs = performance.now() + patienceMs
  for (;;) {
    const found = await look()
    if (found !== undefined) return found
    if (performance.now() > endMs) throw new Error(`${what}: not within ${patienceMs / 1000} s ${told()}`.trim())
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

export async function within<T>(what: string, promise: Promise<T>, patienceMs = PATIENCE_MS): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new StartError(`${what}: not within ${patienceMs / 1000} s`)), patienceMs)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}
