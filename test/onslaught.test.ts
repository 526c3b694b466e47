import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import { closeSync, constants, openSync, writeSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'

import { samplesOf } from './helpers/exposition.js'
import { historyAnswer } from './helpers/fake-history.js'
import { matrixAnswer, vectorAnswer } from './helpers/fake-runtime.js'
import { startHttpServer } from './helpers/local-server.js'
import { meshAnswer, meshElements } from './helpers/mesh-answers.js'
import { ODD_REQUESTS, raw, statusesIn } from './helpers/odd-requests.js'
import { PROGRAM, type RunningProgram, startProgram } from './helpers/program.js'
import { CALM_MS, recordingOf, times } from './helpers/recordings.js'
import { temporaryFile, temporaryFolder } from './helpers/temporary-folder.js'

const SCRAPES = 10_000
const CLIENTS = 500
const POLL_SECONDS = 1
const POLLED = /^evaluated$|^No incident detected$|^evaluated mesh$/
const BUILD_INFO = '\nmeshfever_build_info{'

const PAIR = { source: 'a', destination: 'b' }
const EDGES = Array.from({ length: 60 }, (_, i) => ({
  source: `service-${i % 12}`,
  destination: `callee-${Math.floor(i / 12)}`,
}))

/** A Prometheus in which all is well. */
async function startPrometheus(t: TestContext): Promise<string> {
  const { url } = await startHttpServer(t, (request, response) => {
    const query = new URL(request.url ?? '', 'http://x').searchParams.get('query') ?? ''
    const nowMs = Date.now()
    const seconds = nowMs / 1000
    if (query.includes('lab7_anomaly_count')) {
      // Asked of a whole mesh for a time of its own.
      const [, atSeconds] = / @ (\d+)$/.exec(query) ?? []
      const settled = query.replace(/ @ \d+$/, ' offset 0ms')
      const atMs = atSeconds === undefined ? nowMs : Number(atSeconds) * 1000
      response.end(historyAnswer(settled, { pairs: [PAIR], nowMs: atMs, history: () => 0 }))
    } else if (query.includes('by (le, source_app, destination_app)')) {
      response.end(meshAnswer(EDGES.flatMap((edge) => meshElements(edge, seconds, { '0.5': '9.5' }))))
    } else {
      const newest = { metric: { series: 'sample_timestamp_seconds' }, value: String(seconds) }
      response.end(vectorAnswer([{ metric: { quantile: '0.5' }, value: '9.5' }, newest], seconds))
    }
  })
  return url
}

function meshTraining(t: TestContext): string {
  const at = times(CALM_MS.length)
  const series = EDGES.map(({ source, destination }) => ({
    metric: { source_app: source, destination_app: destination, quantile: '0.5' },
    values: CALM_MS.map((latencyMs, i) => [at[i] ?? 0, String(latencyMs)] as const),
  }))
  return temporaryFile(t, matrixAnswer(series))
}

interface Daemon {
  readonly name: string
  readonly flags: (t: TestContext) => readonly string[]
  /** A series that every scrape has to hold. */
  readonly holds: string
}

const DAEMONS: readonly Daemon[] = [
  {
    name: 'monitor',
    flags: (t) => [
      ...['monitor', '--service1=a', '--service2=b'],
      `--training-data-file=${temporaryFile(t, recordingOf(CALM_MS))}`,
    ],
    holds: 'lab7_y{source="a",destination="b",quantile="0.5"} 9.5',
  },
  { name: 'incident daemon', flags: () => ['incident', '--pair=a:b'], holds: 'lab7_incident_temperature 0' },
  {
    name: 'monitor of a mesh',
    flags: (t) => ['monitor', '--mesh', `--training-data-file=${meshTraining(t)}`],
    holds: 'lab7_y{source="service-11",destination="callee-4",quantile="0.5"} 9.5',
  },
  {
    name: 'incident daemon of a mesh',
    flags: () => ['incident', '--mesh'],
    holds: 'lab7_incident_temperature 0',
  },
]

interface Running {
  readonly program: RunningProgram
  readonly url: string
  readonly port: number
}

async function start(t: TestContext, { flags, holds }: Daemon): Promise<Running> {
  const program = startProgram(t, [
    ...flags(t),
    ...[`--prometheus-url=${await startPrometheus(t)}`, `--poll-interval-seconds=${POLL_SECONDS}`],
    ...['--listen-address=127.0.0.1', '--prometheus-port=0', '--log-format=json'],
  ])
  const url = String((await program.logged('where it listens', ({ msg }) => msg === 'listening'))['url'])
  while (!(await (await fetch(`${url}/metrics`)).text()).includes(`${holds}\n`)) {
    await program.logged('a poll', ({ msg }) => msg !== 'listening')
  }
  return { program, url, port: Number(new URL(url).port) }
}

/** A client that keeps its connection, and asks when it has been answered. @returns how often it was, in whole */
function scraper(port: number, scrapes: number, encoding: 'gzip' | 'identity'): Promise<number> {
  return new Promise((resolve, reject) => {
    const request = `GET /metrics HTTP/1.1\r\nhost: x\r\naccept-encoding: ${encoding}\r\n\r\n`
    const socket = connect(port, '127.0.0.1')
    let chunks: Buffer[] = []
    let length = 0
    /** Of the whole answer; null as long as its headers are not there. */
    let whole: number | null = null
    let done = 0
    const ask = (): void => void socket.write(request)
    socket.on('connect', ask)
    socket.on('error', reject)
    socket.on('close', () => reject(new Error(`cut after ${done} of ${scrapes} scrapes`)))
    socket.on('data', (chunk: Buffer) => {
      chunks.push(chunk)
      length += chunk.length
      if (whole === null) {
        const head = Buffer.concat(chunks).toString('latin1')
        const end = head.indexOf('\r\n\r\n')
        if (end === -1) return
        const [, status, body] = /^HTTP\/1\.1 (\d+) [\s\S]*\r\ncontent-length: (\d+)\r\n/i.exec(head) ?? []
        if (status !== '200') return void socket.destroy(new Error(head.slice(0, end)))
        whole = end + 4 + Number(body)
      }
      if (length < whole) return
      if (length > whole) return void socket.destroy(new Error(`${length} bytes where ${whole} were announced`))
      const text = encoding === 'gzip' ? null : Buffer.concat(chunks).toString()
      if (text !== null && !(text.includes(BUILD_INFO) && text.endsWith('\n')))
        return void socket.destroy(new Error(text))
      chunks = []
      length = 0
      whole = null
      if (++done < scrapes) {
        ask()
        return
      }
      socket.removeAllListeners('close')
      socket.end()
      resolve(done)
    })
  })
}

interface Polls {
  readonly count: number
  readonly skipped: number
}

async function pollsOf(url: string): Promise<Polls> {
  const samples = samplesOf(await (await fetch(`${url}/metrics`)).text())
  const polls = [...samples].filter(([series]) => series.startsWith('meshfever_polls_total{'))
  return {
    count: polls.reduce((sum, [, value]) => sum + value, 0),
    skipped: samples.get('meshfever_polls_skipped_total') ?? NaN,
  }
}

/** Clients that connect, say something, and then neither read nor say another word. */
function hold(t: TestContext, port: number, { clients, bytes }: { clients: number; bytes: string }): void {
  for (let i = 0; i < clients; i++) {
    const socket = connect(port, '127.0.0.1', () => socket.write(bytes))
    socket.on('error', () => undefined)
    t.after(() => socket.destroy())
  }
}

for (const daemon of DAEMONS) {
  test(`onslaught: ${daemon.name} answers ${SCRAPES} scrapes of ${CLIENTS} clients and polls on time, whoever else is there`, async (t) => {
    const { program, url, port } = await start(t, daemon)
    // Half a request, a body that is announced and does not come, nothing at all, and more answers than anyone will take.
    hold(t, port, { clients: 100, bytes: 'GET /metrics HTTP/1.1\r\nhost:' })
    hold(t, port, { clients: 100, bytes: 'POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n' })
    hold(t, port, { clients: 50, bytes: '' })
    hold(t, port, { clients: 20, bytes: 'GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n'.repeat(1_000) })

    for (const { name, bytes, statuses } of ODD_REQUESTS) {
      assert.deepEqual(statusesIn(await raw({ port }, bytes)), statuses, name)
    }

    const before = await pollsOf(url)
    const done = await Promise.all(
      Array.from({ length: CLIENTS }, (_, i) => scraper(port, SCRAPES / CLIENTS, i % 2 === 0 ? 'gzip' : 'identity')),
    )
    await program.logged('the next poll', ({ msg }) => POLLED.test(String(msg)))
    const after = await pollsOf(url)
    assert.deepEqual(done, Array(CLIENTS).fill(SCRAPES / CLIENTS))
    // All of them on a machine that has nothing else to do.
    const polls = after.count - before.count
    const skipped = after.skipped - before.skipped
    assert.ok(polls > 0 && skipped <= polls, `${polls} polls, ${skipped} skipped`)

    program.kill('SIGTERM')
    const { code, stdout, stderr } = await program.exit
    assert.deepEqual([code, stderr], [0, ''])
    assert.deepEqual(stdout.match(/"level":[56]0.*/g), null)
  })
}

/** A descriptor to write to, into which nothing goes: nobody reads at the other end. */
function fullPipe(t: TestContext): number {
  const path = join(temporaryFolder(t), 'pipe')
  execFileSync('mkfifo', [path])
  const filling = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
  t.after(() => closeSync(filling))
  const fill = (): void => {
    for (;;) writeSync(filling, Buffer.alloc(4_096, '\n'))
  }
  assert.throws(fill, { code: 'EAGAIN' })
  return openSync(path, constants.O_WRONLY)
}

for (const signals of [['SIGTERM'], ['SIGINT', 'SIGINT']] as const) {
  test(
    `onslaught: ${signals.join(' and then ')} ends a monitor whose log nobody reads`,
    { timeout: 60_000 },
    async (t) => {
      const asked = new EventEmitter()
      const { url } = await startHttpServer(t, (_request, response) => {
        asked.emit('poll')
        response.writeHead(503).end()
      })
      const polled = once(asked, 'poll')
      const log = fullPipe(t)
      const child = spawn(
        process.execPath,
        [
          ...[PROGRAM, ...(DAEMONS[0]?.flags(t) ?? []), `--prometheus-url=${url}`],
          ...['--listen-address=127.0.0.1', '--prometheus-port=0', '--log-format=json'],
        ],
        { stdio: ['ignore', log, 'pipe'] },
      )
      t.after(() => child.kill('SIGKILL'))
      closeSync(log)
      const exited = once(child, 'exit')
      await polled
      for (const signal of signals) {
        child.kill(signal)
        await new Promise((resolve) => setTimeout(resolve, 100))
      }
      assert.deepEqual(await exited, [signals.length === 1 ? 0 : 130, null])
    },
  )
}
