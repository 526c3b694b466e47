/*
 * Whether the daemons last: three days of polls at one a second, on a clock that jumps, with faults mixed in; or in real time.
 *
 *   npm run soak [-- --polls 259200 --daemons monitor,incident,mesh-monitor,mesh-incident --edges 200 --seed 1]
 *   npm run soak -- --real --minutes 60
 *
 * Accelerated, each daemon is the real program but for its clock: real flags, log, HTTP client, HTTP server. It asks a server
 * on 127.0.0.1 that misbehaves in one of about sixteen answers and throughout outages, while others ask the daemon. It fails when
 * the heap grows by more than 140 bytes a poll, half a mebibyte an hour at one poll a second. 15 minutes for each of a pair's daemons, an
 * hour for the monitor of a mesh. With fewer than 20,000 polls the slope is that of V8 warming up.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

import { type Child, listeningUrl, logged, startChild } from '../src/testbed/child-process.js'
import { readSelf, rounded, slopeOfSecondHalf } from './daemon-metrics.js'
import { benchRuntime } from './runtime.js'
import { type HeapReading, SOAK_OVER } from './soak-reading.js'
import { soakInRealTime } from './soak-real.js'
import { lastingEdges, startWorld } from './soak-world.js'

const GOAL_BYTES_PER_POLL = 140
const ASK_EVERY_MS = 50

const { values } = parseArgs({
  options: {
    real: { type: 'boolean', default: false },
    minutes: { type: 'string', default: '60' },
    polls: { type: 'string', default: '259200' },
    daemons: { type: 'string', default: 'monitor,incident,mesh-monitor,mesh-incident' },
    edges: { type: 'string', default: '200' },
    seed: { type: 'string', default: '1' },
  },
})
const runtime = benchRuntime()
const { clock, signal, program } = runtime

const RECORDING = fileURLToPath(new URL('../../training/frontend-cartservice_training.json', import.meta.url))
const PAIRS = [
  { source: 'frontend', destination: 'cartservice' },
  { source: 'checkoutservice', destination: 'paymentservice' },
]
const LISTEN = ['--prometheus-port', '0', '--listen-address', '127.0.0.1', '--log-format', 'json']

/** The recording under the names of every lasting edge. */
function meshTraining(edges: number): string {
  const { data } = JSON.parse(readFileSync(RECORDING, 'utf8')) as {
    data: { resultType: string; result: { metric: object; values: unknown }[] }
  }
  const result = lastingEdges(edges).flatMap(({ source, destination }) =>
    data.result.map((series) => ({
      metric: { ...series.metric, source_app: source, destination_app: destination },
      values: series.values,
    })),
  )
  return JSON.stringify({ status: 'success', data: { ...data, result } })
}

function flagsOf(daemon: string, url: string, training: string): readonly string[] {
  const polling = ['--prometheus-url', url, '--poll-interval-seconds', '1', ...LISTEN]
  const [pair = { source: '', destination: '' }] = PAIRS
  const telling = ['--alertmanager-url', url, '--stale-after-seconds', '20']
  switch (daemon) {
    case 'monitor':
      return [
        ...['monitor', '--service1', pair.source, '--service2', pair.destination],
        ...['--training-data-file', RECORDING, ...polling],
      ]
    case 'incident':
      return [
        'incident',
        ...PAIRS.flatMap(({ source, destination }) => ['--pair', `${source}:${destination}`]),
        ...telling,
        ...polling,
      ]
    case 'mesh-monitor':
      return ['monitor', '--mesh', '--training-data-file', training, '--edge-grace-seconds', '60', ...polling]
    case 'mesh-incident':
      return ['incident', '--mesh', ...telling, ...polling]
    default:
      throw new Error(`--daemons: expected some of monitor, incident, mesh-monitor and mesh-incident, got ${daemon}`)
  }
}

/** Others who ask the daemon all the while, most of them decently. @returns how many answers there were */
async function visit(url: string, over: AbortSignal): Promise<number> {
  const { port } = new URL(url)
  let answers = 0
  for (let i = 0; !over.aborted; i++) {
    const path = ['/metrics', '/api/state', '/metrics', '/api/incidents', '/', '/nowhere'][i % 6] ?? ''
    const encoding = i % 4 === 0 ? 'gzip' : 'identity'
    await runtime.http.get(url + path, { headers: { 'accept-encoding': encoding } })
    answers++
    if (i % 10 === 0) {
      // One that leaves in the middle of the answer, one that says half of what it has to say, one that makes no sense.
      for (const bytes of ['GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n', 'GET /metr', '\0\r\n\r\n']) {
        const socket = connect(Number(port), '127.0.0.1', () => socket.write(bytes, () => socket.destroy()))
        socket.on('error', () => undefined)
      }
    }
    await clock.sleep(ASK_EVERY_MS, over)
  }
  return answers
}

async function soak(daemon: string, polls: number, folder: string, children: Child[]): Promise<object> {
  const edges = Number(values.edges)
  const training = join(folder, 'mesh.json')
  writeFileSync(training, meshTraining(edges))
  const world = await startWorld({ seed: Number(values.seed), recording: RECORDING, pairs: PAIRS, edges })
  const startMs = clock.monotonicMs()
  const over = new AbortController()
  try {
    const script = fileURLToPath(new URL('soak-daemon.js', import.meta.url))
    const child = startChild({
      name: daemon,
      command: program.nodePath,
      args: ['--expose-gc', script, String(polls), ...flagsOf(daemon, world.url, training)],
    })
    children.push(child)
    const url = await child.waitForLine(listeningUrl)
    const visiting = visit(url, over.signal)
    const event = await Promise.race([
      child.waitForLine((line) => (line.includes(SOAK_OVER) ? logged(line, SOAK_OVER) : undefined)),
      visiting.then(() => undefined),
    ])
    if (event === undefined) throw new Error('stopped')
    over.abort()
    const answersGiven = await visiting
    const { polls: outcomes, skippedPolls, openFileDescriptors } = await readSelf(runtime, url)
    const exitCode = await child.stop()
    const { readings, cpuSeconds, maxRssBytes } = event as unknown as {
      readonly readings: readonly HeapReading[]
      readonly cpuSeconds: number
      readonly maxRssBytes: number
    }
    const pollsBetween = polls / (readings.length - 1)
    const heap = readings.map(({ heapBytes }) => heapBytes)
    const rss = readings.map(({ rssBytes }) => rssBytes)
    const mib = (bytes: number | undefined): number => rounded((bytes ?? NaN) / 2 ** 20)
    const heapBytesPerPoll = slopeOfSecondHalf(heap) / pollsBetween
    return {
      polls,
      wallMinutes: rounded((clock.monotonicMs() - startMs) / 60_000),
      cpuMsPerPoll: rounded((1000 * cpuSeconds) / polls),
      heapMiB: { first: mib(heap[1]), middle: mib(heap[Math.floor(heap.length / 2)]), last: mib(heap.at(-1)) },
      heapSlopeBytesPerPoll: rounded(heapBytesPerPoll),
      heapSlopeMiBPerHourAtOneHz: rounded((heapBytesPerPoll * 3600) / 2 ** 20),
      heapHolds: heapBytesPerPoll <= GOAL_BYTES_PER_POLL,
      rssMiB: { first: mib(rss[1]), middle: mib(rss[Math.floor(rss.length / 2)]), last: mib(rss.at(-1)) },
      rssMaxMiB: mib(maxRssBytes),
      openFileDescriptors,
      outcomes,
      skippedPolls,
      troublesMet: world.troubles(),
      answersGiven,
      exitCode,
    }
  } finally {
    over.abort()
    await world.close()
  }
}

async function accelerated(): Promise<object> {
  const folder = mkdtempSync(join(tmpdir(), 'meshfever-soak-'))
  const children: Child[] = []
  const stopAll = (): Promise<unknown> => Promise.allSettled(children.map((child) => child.stop()))
  signal.addEventListener('abort', () => void stopAll())
  try {
    const results: Record<string, object> = {}
    for (const daemon of values.daemons.split(',')) {
      results[daemon] = await soak(daemon, Number(values.polls), folder, children)
    }
    return { seed: Number(values.seed), meshEdges: Number(values.edges), node: process.version, ...results }
  } finally {
    await stopAll()
    rmSync(folder, { recursive: true, force: true })
  }
}

const result = await (values.real ? soakInRealTime(runtime, Number(values.minutes)) : accelerated())
console.log(JSON.stringify(result, null, 2))
if (JSON.stringify(result).includes('"heapHolds":false')) process.exitCode = 1
