/*
 * How long the daemons take to start and to stop, and what they take of the machine while they do nothing but poll.
 *
 *   npm run bench:lifecycle [-- ROUNDS [SECONDS]]     10 starts, 60 seconds of polls unless given
 *
 * - start: from the start of the process until /healthz answers, and the CPU time until then;
 * - idle stop: from SIGTERM to the end of the process, between two polls;
 * - worst stop: the same while Prometheus answers nothing, 100 scrapers hold their connections, 20 more never read what they asked
 *   for, 50 hold half a request, and nobody reads the log;
 * - load: the duration of scrapes, and how late polls come, while 500 clients scrape 10,000 times.
 *
 * All but the CPU is wall time, so nothing else should run on the machine.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from 'node:net'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { max, median, quantile } from 'simple-statistics'

import { eventOf, type LogEvent } from '../src/testbed/child-process.js'
import { readSelf, rounded, type SelfReading } from './daemon-metrics.js'
import { cpuMsOf } from './mesh-fleet.js'
import { benchRuntime } from './runtime.js'

const runtime = benchRuntime()
const { clock, signal, program } = runtime
const rounds = Number(process.argv[2] ?? 10)
const pollingSeconds = Number(process.argv[3] ?? 60)

const RECORDING = fileURLToPath(new URL('../../training/frontend-cartservice_training.json', import.meta.url))
const DAEMONS = {
  monitor: [
    ...['monitor', '--service1', 'frontend', '--service2', 'cartservice'],
    ...['--training-data-file', RECORDING],
  ],
  incident: ['incident', '--pair', 'frontend:cartservice'],
}
type Daemon = keyof typeof DAEMONS

const GOALS = { startMs: 1_000, idleStopMs: 1_000, worstStopMs: 5_000, cpuMsPerPoll: 20, rssMiB: 90 }

interface Started {
  readonly child: ChildProcess
  readonly url: string
  readonly port: number
  readonly startMs: number
}

/** A port that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = createTcpServer()
  const port = await listening(server)
  await new Promise((resolve) => server.close(resolve))
  return port
}

function listening(server: Server | ReturnType<typeof createTcpServer>): Promise<number> {
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port))
  })
}

/** @param log - the descriptor that it logs to */
async function start(daemon: Daemon, prometheusUrl: string, log: number | 'pipe' | 'ignore'): Promise<Started> {
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  const fromMs = clock.monotonicMs()
  const child = spawn(
    program.nodePath,
    [
      ...[program.scriptPath, ...DAEMONS[daemon], '--prometheus-url', prometheusUrl, '--poll-interval-seconds', '1'],
      ...['--listen-address', '127.0.0.1', '--prometheus-port', String(port), '--log-format', 'json'],
    ],
    { stdio: ['ignore', log, 'inherit'] },
  )
  const kill = (): void => void child.kill('SIGKILL')
  signal.addEventListener('abort', kill, { once: true })
  child.once('exit', () => signal.removeEventListener('abort', kill))
  for (;;) {
    if (child.exitCode !== null) throw new Error(`${daemon} ended with ${child.exitCode}`)
    if (await answers(port)) return { child, url, port, startMs: clock.monotonicMs() - fromMs }
    await clock.sleep(5, signal)
  }
}

/** Whether somebody answers there; asked bluntly, so that asking takes next to no time of the machine. */
function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write('GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n'))
    socket.once('data', () => {
      resolve(true)
      socket.destroy()
    })
    socket.once('error', () => resolve(false))
  })
}

async function stop(child: ChildProcess): Promise<{ readonly stopMs: number; readonly code: number | null }> {
  const fromMs = clock.monotonicMs()
  const exited = once(child, 'exit') as Promise<[number | null]>
  child.kill('SIGTERM')
  const [code] = await exited
  return { stopMs: clock.monotonicMs() - fromMs, code }
}

const good = createServer((request, response) => {
  const query = new URL(request.url ?? '', 'http://x').searchParams.get('query') ?? ''
  response.end(query.includes('lab7_anomaly_count') ? historyNow(query) : latencyNow())
})
const never = createTcpServer((socket) => socket.on('error', () => undefined))

function latencyNow(): string {
  const seconds = Date.now() / 1000
  const element = (metric: object, value: number): object => ({ metric, value: [seconds, String(value)] })
  return JSON.stringify({
    status: 'success',
    data: {
      resultType: 'vector',
      result: [
        element({ quantile: '0.5' }, 6 + Math.random() / 10),
        element({ series: 'requests_per_second' }, 12),
        element({ series: 'sample_timestamp_seconds' }, seconds - 1),
      ],
    },
  })
}

function historyNow(query: string): string {
  const [, range, step] = /\[(\d+)ms:(\d+)ms\]/.exec(query)?.map(Number) ?? []
  const stepSeconds = (step ?? 1_000) / 1000
  const last = Math.floor((Date.now() / 1000 - 1) / stepSeconds)
  const times = Array.from(
    { length: Math.floor((range ?? 0) / 1000 / stepSeconds) },
    (_, i) => (last - i) * stepSeconds,
  )
  times.reverse()
  const series = (metric: object, value: (time: number) => number): object => ({
    metric,
    values: times.map((time) => [time, String(value(time))]),
  })
  const pair = { source: 'frontend', destination: 'cartservice' }
  return JSON.stringify({
    status: 'success',
    data: {
      resultType: 'matrix',
      result: [
        series({ series: 'poll' }, () => 1),
        series({ __name__: 'lab7_anomaly_count', ...pair }, () => 0),
        series({ __name__: 'lab7_sample_timestamp_seconds', ...pair }, (time) => time - 1),
        series({ __name__: 'lab7_verdict', verdict: 'ok', ...pair }, () => 1),
      ],
    },
  })
}

function urlOf(port: number): string {
  return `http://127.0.0.1:${port}`
}

interface Spread {
  readonly median: number
  readonly max: number
}

function spread(values: readonly number[]): Spread {
  return { median: rounded(median([...values])), max: rounded(max([...values])) }
}

async function startsAndIdleStops(daemon: Daemon, prometheusUrl: string): Promise<object> {
  const starts: number[] = []
  const cpu: number[] = []
  const stops: number[] = []
  const codes = new Set<number | null>()
  for (let i = 0; i < rounds; i++) {
    const { child, startMs } = await start(daemon, prometheusUrl, 'ignore')
    starts.push(startMs)
    cpu.push(cpuMsOf(child.pid ?? NaN))
    // Anywhere between two polls.
    await clock.sleep(300 + (700 * i) / rounds, signal)
    const { stopMs, code } = await stop(child)
    stops.push(stopMs)
    codes.add(code)
  }
  return {
    startMs: spread(starts),
    startCpuMs: spread(cpu),
    idleStopMs: spread(stops),
    idleExitCodes: [...codes],
  }
}

/** A pipe that is full, with nobody at its other end who would read. @returns a descriptor to log to, and how to end it */
function fullPipe(folder: string): { readonly fd: number; readonly close: () => void } {
  const path = join(folder, `log-${process.hrtime.bigint()}`)
  execFileSync('mkfifo', [path])
  const holder = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
  const fd = openSync(path, constants.O_WRONLY)
  for (const size of [4_096, 1]) {
    try {
      for (;;) writeSync(holder, Buffer.alloc(size, '\n'))
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
    }
  }
  return {
    fd,
    close: () => {
      closeSync(fd)
      closeSync(holder)
    },
  }
}

async function worstStops(daemon: Daemon, prometheusUrl: string, folder: string): Promise<object> {
  const stops: number[] = []
  const codes = new Set<number | null>()
  for (let i = 0; i < Math.ceil(rounds / 2); i++) {
    const log = fullPipe(folder)
    const { child, port } = await start(daemon, prometheusUrl, log.fd)
    const get = 'GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n'
    const clients: Socket[] = []
    const connected: Promise<unknown>[] = []
    for (const [count, bytes, reads] of [
      [100, get, true],
      [20, get.repeat(1_000), false],
      [50, get.slice(0, 30), true],
    ] as const) {
      for (let k = 0; k < count; k++) {
        const socket = connect(port, '127.0.0.1')
        socket.on('error', () => undefined)
        connected.push(once(socket, 'connect').then(() => socket.write(bytes)))
        if (reads) socket.resume()
        else socket.pause()
        clients.push(socket)
      }
    }
    await Promise.all(connected)
    await clock.sleep(1_500, signal)
    const { stopMs, code } = await stop(child)
    stops.push(stopMs)
    codes.add(code)
    for (const socket of clients) socket.destroy()
    log.close()
  }
  return { worstStopMs: spread(stops), worstExitCodes: [...codes] }
}

async function polling(daemon: Daemon, prometheusUrl: string): Promise<object> {
  const { child, url } = await start(daemon, prometheusUrl, 'ignore')
  const pid = child.pid ?? NaN
  await clock.sleep(10_000, signal)
  const rss: number[] = []
  const from = { polls: pollsIn(await readSelf(runtime, url)), cpuMs: cpuMsOf(pid) }
  for (let i = 0; i * 5 < pollingSeconds; i++) {
    await clock.sleep(5_000, signal)
    rss.push((await readSelf(runtime, url)).rssMiB)
  }
  const cpuMsPerPoll = (cpuMsOf(pid) - from.cpuMs) / (pollsIn(await readSelf(runtime, url)) - from.polls)
  await stop(child)
  return { cpuMsPerPoll: rounded(cpuMsPerPoll), rssMiB: spread(rss) }
}

function pollsIn({ polls }: SelfReading): number {
  return Object.values(polls).reduce((a, b) => a + b, 0)
}

const CLIENTS = 500
const SCRAPES = 10_000

async function underLoad(daemon: Daemon, prometheusUrl: string): Promise<object> {
  const { child, port, url } = await start(daemon, prometheusUrl, 'pipe')
  let text = ''
  child.stdout?.on('data', (data: Buffer) => (text += data.toString()))
  await clock.sleep(3_000, signal)
  const fromMs = Date.now()
  const results = await Promise.all(Array.from({ length: CLIENTS }, () => scrapes(port, SCRAPES / CLIENTS)))
  const toMs = Date.now()
  await clock.sleep(1_500, signal)
  const { skippedPolls } = await readSelf(runtime, url)
  await stop(child)
  const durations = results.flatMap(({ durationsMs }) => durationsMs)
  const ends = text.split('\n').flatMap((line) => pollEndMs(eventOf(line)))
  const [firstMs = NaN] = ends
  const late = ends.filter((at) => at >= fromMs && at <= toMs + 1_000).map((at) => remainder(at - firstMs))
  return {
    scrapes: durations.length,
    failures: SCRAPES - durations.length,
    seconds: rounded((toMs - fromMs) / 1000),
    scrapeMs: {
      median: rounded(median(durations)),
      p99: rounded(quantile(durations, 0.99)),
      max: rounded(max(durations)),
    },
    polls: late.length,
    skippedPolls,
    pollLatenessMs: late.length === 0 ? null : spread(late),
  }
}

/** When a poll was logged, by the log's own time. */
function pollEndMs(event: LogEvent | undefined): readonly number[] {
  const polled = /^evaluated$|^No incident detected$/.test(String(event?.['msg']))
  return polled ? [Date.parse(String(event?.['time']))] : []
}

/** By how much a poll is off the slots of one second, in milliseconds. */
function remainder(ms: number): number {
  return Math.abs(ms - 1000 * Math.round(ms / 1000))
}

/** Of one client on one connection; those that were not answered in whole are left out. */
function scrapes(port: number, count: number): Promise<{ readonly durationsMs: readonly number[] }> {
  return new Promise((resolve) => {
    const durationsMs: number[] = []
    const socket = connect(port, '127.0.0.1')
    let left = 0
    let fromMs = 0
    const ask = (): void => {
      fromMs = clock.monotonicMs()
      left = -1
      socket.write('GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n')
    }
    socket.on('connect', ask)
    socket.on('error', () => undefined)
    socket.on('close', () => resolve({ durationsMs }))
    socket.on('data', (data: Buffer) => {
      if (left === -1) {
        const head = data.toString('latin1')
        const end = head.indexOf('\r\n\r\n')
        left = end + 4 + Number(/\r\ncontent-length: (\d+)/i.exec(head.slice(0, end))?.[1])
        if (!head.startsWith('HTTP/1.1 200 ') || end === -1) return void socket.destroy()
      }
      left -= data.length
      if (left > 0) return
      durationsMs.push(clock.monotonicMs() - fromMs)
      if (durationsMs.length < count) ask()
      else socket.destroy()
    })
  })
}

const folder = mkdtempSync(join(tmpdir(), 'meshfever-lifecycle-'))
try {
  const goodUrl = urlOf(await listening(good))
  const neverUrl = urlOf(await listening(never))
  const results: Record<string, object> = {}
  for (const daemon of Object.keys(DAEMONS) as Daemon[]) {
    results[daemon] = {
      ...(await startsAndIdleStops(daemon, goodUrl)),
      ...(await worstStops(daemon, neverUrl, folder)),
      ...(await polling(daemon, goodUrl)),
      load: await underLoad(daemon, goodUrl),
    }
  }
  console.log(
    JSON.stringify({ node: process.version, processors: availableParallelism(), goals: GOALS, ...results }, null, 2),
  )
} finally {
  good.closeAllConnections()
  good.close()
  never.close()
  rmSync(folder, { recursive: true, force: true })
}
process.exit()
