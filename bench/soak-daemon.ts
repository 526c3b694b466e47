/*
 * One of the daemons on a clock that jumps: it sleeps in no time at all, but waits for every answer. For bench/soak.ts.
 *
 *   node --expose-gc soak-daemon.js SECONDS COMMAND [FLAGS]
 *
 * When so many seconds are over by its clock, it stands still, logs what the heap was meanwhile, and waits for SIGTERM.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

import { commands } from '../src/commands/all.js'
import { parseCommandLine } from '../src/commands/command-line.js'
import type { Clock } from '../src/io/clock.js'
import { createHttp } from '../src/io/http-client.js'
import { createLogger } from '../src/io/log.js'
import { streamOutput } from '../src/io/output.js'
import { type HeapReading, SOAK_OVER } from './soak-reading.js'
import { NOW_HEADER } from './soak-world.js'

/** Readings of the heap, evenly spread over the run. */
const READINGS = 80
/** A request that nothing was heard of for so long is taken for one that nobody answers. */
const HUNG_MS = 150

declare const gc: (() => void) | undefined
if (gc === undefined) throw new Error('run with node --expose-gc')
const collect = gc

const soakMs = Number(process.argv[2]) * 1000
const stop = new AbortController()
process.once('SIGTERM', () => stop.abort())

interface Sleeper {
  readonly wakeMs: number
  readonly wake: () => void
}

const startMs = Date.now()
let nowMs = startMs
const sleepers = new Set<Sleeper>()
const readings: HeapReading[] = []
let requests = 0
let heardMs = performance.now()
let looking = false
let over = false

const clock: Clock = {
  nowMs: () => nowMs,
  monotonicMs: () => nowMs - startMs,
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      if (signal.aborted) {
        resolve()
        return
      }
      const sleeper: Sleeper = {
        wakeMs: nowMs + Math.max(0, ms),
        wake: () => {
          sleepers.delete(sleeper)
          signal.removeEventListener('abort', sleeper.wake)
          resolve()
        },
      }
      sleepers.add(sleeper)
      signal.addEventListener('abort', sleeper.wake, { once: true })
      look()
    }),
}

/** Jumps as soon as nobody has anything to do but to sleep. */
function look(): void {
  if (looking) return
  looking = true
  void (async () => {
    await nextTurn()
    await nextTurn()
    looking = false
    if (requests === 0) jump()
  })()
}

function jump(): void {
  if (over || stop.signal.aborted) return
  let first: Sleeper | undefined
  for (const sleeper of sleepers) if (first === undefined || sleeper.wakeMs < first.wakeMs) first = sleeper
  if (first === undefined) return
  nowMs = Math.max(nowMs, first.wakeMs)
  heardMs = performance.now()
  while ((nowMs - startMs) * READINGS >= readings.length * soakMs) readings.push(read())
  if (nowMs - startMs >= soakMs) {
    over = true
    const { user, system } = process.cpuUsage()
    const cpuSeconds = (user + system) / 1e6
    logger.info({ readings, cpuSeconds, maxRssBytes: process.resourceUsage().maxRSS * 1024 }, SOAK_OVER)
    return
  }
  first.wake()
  look()
}

function read(): HeapReading {
  collect()
  collect()
  const { heapUsed, rss } = process.memoryUsage()
  return { heapBytes: heapUsed, rssBytes: rss }
}

setInterval(() => {
  if (requests > 0 && performance.now() - heardMs > HUNG_MS) jump()
}, HUNG_MS / 3).unref()

const http = createHttp()
http.interceptors.request.use((config) => {
  requests++
  heardMs = performance.now()
  config.headers.set(NOW_HEADER, String(nowMs))
  return config
})
function heard(): void {
  requests--
  heardMs = performance.now()
  look()
}
http.interceptors.response.use(
  (response) => {
    heard()
    return response
  },
  (error: unknown) => {
    heard()
    return Promise.reject(error instanceof Error ? error : new Error(String(error)))
  },
)

const { logger, end } = createLogger({ format: 'json', fileDescriptor: 1 })
const parsed = parseCommandLine({ args: process.argv.slice(3), environment: {}, commands, version: 'soak' })
if (parsed.kind === 'message') throw new Error(parsed.text)
process.exitCode = await parsed.job.run({
  clock,
  http,
  logger,
  stdout: streamOutput(process.stdout),
  signal: stop.signal,
  program: {
    version: 'soak',
    nodeVersion: process.version,
    nodePath: process.execPath,
    scriptPath: fileURLToPath(new URL('../src/main.js', import.meta.url)),
    environment: {},
    isRoot: false,
  },
})
await end()
