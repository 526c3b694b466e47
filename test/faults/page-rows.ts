/* What is done to our own listener. */
import assert from 'node:assert/strict'
import { Agent, get as httpGet } from 'node:http'
import { connect, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

import { CALM_MS, T0 } from '../helpers/recordings.js'
import { type Bench, commonFlags, isCalm, monitorArgs, stopSurely } from './bench.js'
import { fileIn } from './commands.js'
import { type Daemon, startDaemon, until, within } from './daemon.js'
import { startFaultProxy } from './fault-proxy.js'
import { assertNoSecret, risen } from './judge.js'
import { HANG, reshaped } from './misbehaviour.js'
import { inParallel } from './suite.js'
import type { Row } from './row.js'

/** Says bytes to a listener and hears what it says until it closes, or says nothing more. */
async function say(url: string, text: string | Buffer, quietMs = 1_500): Promise<string> {
  const { hostname, port } = new URL(url)
  const socket = connect({ host: hostname, port: Number(port) })
  let heard = ''
  socket.on('error', () => undefined)
  socket.on('data', (data) => (heard += data.toString('latin1')))
  socket.write(text)
  await new Promise<void>((resolve) => {
    socket.setTimeout(quietMs, resolve)
    socket.once('close', () => resolve())
  })
  socket.destroy()
  return heard
}

/** One monitor is enough for all that is said to its listener. */
const monitors = new WeakMap<Bench, Promise<Daemon>>()

function sharedMonitor(bench: Bench): Promise<Daemon> {
  let monitor = monitors.get(bench)
  if (monitor === undefined) {
    const args = [...monitorArgs(bench, bench.prometheus.url), ...bench.prometheusAccess]
    monitor = startDaemon({ args, started: bench.owns }).then(async (daemon) => {
      await isCalm(daemon)
      return daemon
    })
    monitors.set(bench, monitor)
  }
  return monitor
}

/** Does something to a monitor's listener, and looks whether it serves and polls as before. */
async function unharmed(bench: Bench, work: (monitor: Daemon) => Promise<string>): Promise<string> {
  const monitor = await sharedMonitor(bench)
  const before = await monitor.metrics()
  const seen = await work(monitor)
  const after = await until('a good poll', async () => {
    const now = await monitor.metrics()
    return (risen(before, now)['ok'] ?? 0) >= 1 ? now : undefined
  })
  assert.deepEqual(Object.keys(risen(before, after)), ['ok'], 'polls meanwhile')
  await assertNoSecret(monitor)
  return seen
}

const request = (line: string, more = ''): string => `${line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${more}\r\n`

/** What is said, and the status that is answered. */
function listener(
  id: string,
  fault: string,
  said: readonly (readonly [text: string | Buffer, status: RegExp])[],
  gate?: 'gate',
): Row {
  return {
    id,
    fault,
    ...(gate === undefined ? {} : { gate: true }),
    run: (bench) =>
      unharmed(bench, async ({ url }) => {
        const statuses: string[] = []
        for (const [text, status] of said) {
          const heard = await say(url, text)
          const what = JSON.stringify(text.toString().slice(0, 60))
          const answers = heard.match(/HTTP\/1\.1 \d{3}/g) ?? []
          assert.ok(answers.length <= 1, `${answers.length} answers to ${what}`)
          assert.match(answers[0]?.slice(9) ?? 'closed', status, what)
          assert.doesNotMatch(heard, /root:|at .*\(node:|\.js:\d+/, `what is said to ${what}`)
          statuses.push(answers[0]?.slice(9) ?? 'closed')
        }
        return `${[...new Set(statuses)].join(', ')}; serves and polls as before`
      }),
  }
}

const odd = (paths: readonly string[]): readonly (readonly [string, RegExp])[] =>
  paths.map((path) => [request(`GET ${path}`), /^4\d\d$/] as const)

/** Scrapes by so many at once. @returns the longest, in milliseconds */
async function scrapes(
  url: string,
  { clients, each, path = '/metrics' }: { readonly clients: number; readonly each: number; readonly path?: string },
): Promise<number> {
  const agent = new Agent({ keepAlive: true, maxSockets: clients })
  let longestMs = 0
  try {
    await inParallel(
      clients,
      Array.from({ length: clients * each }, (_, i) => i),
      async () => {
        const startMs = performance.now()
        const status = await new Promise<number>((resolve, reject) => {
          httpGet(`${url}${path}`, { agent }, (response) => {
            response.resume()
            response.once('end', () => resolve(response.statusCode ?? 0))
            response.once('error', reject)
          }).once('error', reject)
        })
        assert.equal(status, 200)
        longestMs = Math.max(longestMs, performance.now() - startMs)
      },
    )
  } finally {
    agent.destroy()
  }
  return longestMs
}

/** Edges of a mesh, made of the one that the real server knows. */
const EDGES = 450

async function meshMonitor(bench: Bench): Promise<{ readonly monitor: Daemon; readonly close: () => Promise<void> }> {
  const proxy = await startFaultProxy(bench.prometheus.url)
  proxy.inject(
    reshaped(({ data }) => {
      const own = data.result.filter(({ metric }) => metric['destination_app'] === 'cart')
      data.result = Array.from({ length: EDGES }, (_, i) =>
        own.map((one) => ({ ...one, metric: { ...one.metric, destination_app: `cart-${i}` } })),
      ).flat()
    }),
  )
  const result = Array.from({ length: EDGES }, (_, i) => ({
    metric: { source_app: 'frontend', destination_app: `cart-${i}` },
    values: CALM_MS.map((value, k) => [T0 + 15 * k, String(value)]),
  }))
  const file = fileIn(
    bench.newFolder(),
    'mesh.json',
    JSON.stringify({ status: 'success', data: { resultType: 'matrix', result } }),
  )
  const args = [
    'monitor',
    '--mesh',
    '--training-data-file',
    file,
    '--query-window',
    '6s',
    ...commonFlags(proxy.url),
    ...bench.prometheusAccess,
  ]
  const monitor = await startDaemon({ args, started: bench.owns })
  return {
    monitor,
    close: async () => {
      await stopSurely(monitor.child)
      await proxy.close()
    },
  }
}

const headers = (count: number, length: number): string =>
  Array.from({ length: count }, (_, i) => `X-${i}: ${'y'.repeat(length)}\r\n`).join('')

export const PAGE_ROWS: readonly Row[] = [
  {
    id: 'M2',
    fault: '100 scrapers at once, 3,000 series',
    gate: true,
    run: async (bench) => {
      const { monitor, close } = await meshMonitor(bench)
      try {
        const series = await until(
          'a mesh',
          async () => {
            const all = await monitor.metrics()
            return all.size >= 3_000 ? all.size : undefined
          },
          { patienceMs: 60_000, told: () => monitor.lines.slice(-3).join('\n').slice(0, 600) },
        )
        const before = await monitor.metrics()
        const longestMs = await scrapes(monitor.url, { clients: 100, each: 10 })
        const after = await monitor.metrics()
        assert.deepEqual(
          Object.keys(risen(before, after)).filter((one) => one !== 'ok' && one !== 'timeout'),
          [],
        )
        return `${series} series, 1,000 scrapes, no failure, the longest ${Math.round(longestMs)} ms`
      } finally {
        await close()
      }
    },
  },
  {
    id: 'M1',
    fault: '200 scrapers at once, 30 series',
    run: (bench) =>
      unharmed(
        bench,
        async ({ url }) =>
          `2,000 scrapes, no failure, the longest ${Math.round(await scrapes(url, { clients: 200, each: 10 }))} ms`,
      ),
  },
  {
    id: 'M3',
    fault: 'scrapers that do not read',
    run: (bench) =>
      unharmed(bench, async (monitor) => {
        const { hostname, port } = new URL(monitor.url)
        const sockets = Array.from({ length: 20 }, (): Socket => {
          const socket = connect({ host: hostname, port: Number(port) })
          socket.on('error', () => undefined)
          socket.pause()
          for (let i = 0; i < 100; i++) socket.write('GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n')
          return socket
        })
        await delay(1_000)
        const longestMs = await scrapes(monitor.url, { clients: 1, each: 10 })
        const mib = ((await monitor.metrics()).get('process_resident_memory_bytes') ?? NaN) / 2 ** 20
        for (const socket of sockets) socket.destroy()
        assert.ok(longestMs < 2_000, `a scrape took ${longestMs.toFixed(0)} ms`)
        assert.ok(mib < 200, `${mib.toFixed(0)} MiB`)
        return `others are answered within ${Math.round(longestMs)} ms`
      }),
  },
  {
    id: 'M4',
    fault: '300 connections that send half a request',
    run: (bench) =>
      unharmed(bench, async ({ url }) => {
        const { hostname, port } = new URL(url)
        const sockets = Array.from({ length: 300 }, (): Socket => {
          const socket = connect({ host: hostname, port: Number(port) })
          socket.on('error', () => undefined)
          socket.write('GET /metrics HTTP/1.1\r\nX: ')
          return socket
        })
        await delay(300)
        const longestMs = await scrapes(url, { clients: 1, each: 5 })
        const cut = within(
          'the end of a half request',
          new Promise((resolve) => sockets[0]!.once('close', resolve).resume()),
        )
        await cut
        for (const socket of sockets) socket.destroy()
        assert.ok(longestMs < 2_000, `a scrape took ${longestMs.toFixed(0)} ms`)
        return `others are answered within ${Math.round(longestMs)} ms; half requests are cut off`
      }),
  },
  listener('M6', 'a header of 20 kB, 3,000 headers, a URL of 20 kB', [
    [request('GET /metrics', headers(1, 20_000)), /^431$/],
    [request('GET /metrics', headers(3_000, 4)), /^(431|200)$/],
    [request(`GET /${'x'.repeat(20_000)}`), /^(431|414|404)$/],
  ]),
  listener('M7', 'request smuggling: two lengths, length and chunks, bare LF, blank before the colon, NUL', [
    [request('GET /metrics', 'Content-Length: 5\r\nContent-Length: 6\r\n'), /^400$/],
    [
      request('POST /metrics', 'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n') +
        '0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n',
      /^4\d\d$/,
    ],
    ['GET /metrics HTTP/1.1\nHost: x\n\n', /^(400|closed|200)$/],
    [request('GET /metrics', 'Host : y\r\n'), /^400$/],
    [request('GET /metrics', 'X: a\0b\r\n'), /^400$/],
    [request('Foo /metrics'), /^400$/],
  ]),
  listener('M8', 'HTTP/0.9, and bytes that are no HTTP', [
    ['GET /\r\n\r\n', /^(400|closed|200)$/],
    ['\x16\x03\x01\x02\x00\x01\x00', /^(400|closed)$/],
    [Buffer.from([0, 1, 2, 255, 254]), /^(400|closed)$/],
  ]),
  listener(
    'M9',
    'odd URLs: //, ///, http://[, %zz, OPTIONS *',
    [
      ...odd(['//', '///', 'http://[', '/%zz', '/%', '/metrics/', '/metrics%00', '/\\', '/metrics/../metrics']),
      [request('OPTIONS *'), /^4\d\d$/],
    ],
    'gate',
  ),
  listener(
    'M10',
    'paths to files',
    odd([
      '/../../etc/passwd',
      '/%2e%2e/%2e%2e/etc/passwd',
      '/..\\..\\etc\\passwd',
      '/....//etc/passwd',
      '/api/../../../etc/passwd',
      '/page/%2fetc%2fpasswd',
    ]),
  ),
  listener('M11', 'POST, PUT, DELETE, CONNECT, TRACE, an upgrade', [
    [request('POST /metrics', 'Content-Length: 0\r\n'), /^405$/],
    [request('PUT /metrics', 'Content-Length: 0\r\n'), /^405$/],
    [request('DELETE /api/state'), /^405$/],
    [request('TRACE /'), /^4\d\d$/],
    [request('CONNECT h:443'), /^(4\d\d|closed)$/],
  ]),
  {
    id: 'M12',
    fault: 'a scrape while a poll hangs',
    gate: true,
    run: async (bench) => {
      const proxy = await startFaultProxy(bench.prometheus.url)
      const monitor = await startDaemon({
        args: [...monitorArgs(bench, proxy.url), ...bench.prometheusAccess],
        started: bench.owns,
      })
      try {
        await isCalm(monitor)
        proxy.inject(HANG)
        const from = proxy.asked.length
        await until('a poll that hangs', () => proxy.asked[from])
        const longestMs = await scrapes(monitor.url, { clients: 5, each: 10 })
        assert.ok(longestMs < 1_500, `a scrape took ${longestMs.toFixed(0)} ms`)
        return `50 scrapes, the longest ${Math.round(longestMs)} ms`
      } finally {
        await stopSurely(monitor.child)
        await proxy.close()
      }
    },
  },
  {
    id: 'M20',
    fault: 'an exposition cut in two: its length is said, and all of it is there',
    run: (bench) =>
      unharmed(bench, async ({ url }) => {
        const heard = await say(url, request('GET /metrics'))
        const [head = '', body = ''] = heard.split('\r\n\r\n', 2)
        assert.equal(Number(/content-length: (\d+)/i.exec(head)?.[1]), Buffer.byteLength(body, 'latin1'))
        return `Content-Length ${Buffer.byteLength(body, 'latin1') > 0 ? 'as long as the body' : '0'}`
      }),
  },
  {
    id: 'M22',
    fault: 'HEAD, OpenMetrics, gzip, a query string',
    run: (bench) =>
      unharmed(bench, async ({ url }) => {
        const answers = await Promise.all(
          [
            fetch(`${url}/metrics`, { method: 'HEAD' }),
            fetch(`${url}/metrics`, { headers: { accept: 'application/openmetrics-text' } }),
            fetch(`${url}/metrics`, { headers: { 'accept-encoding': 'gzip' } }),
            fetch(`${url}/metrics?x=1`),
          ].map(async (answer) => {
            const response = await answer
            return {
              status: response.status,
              type: response.headers.get('content-type') ?? '',
              body: await response.text(),
            }
          }),
        )
        assert.deepEqual(
          answers.map(({ status }) => status),
          [200, 200, 200, 200],
        )
        assert.ok(answers.every(({ type }) => type.startsWith('text/plain; version=0.0.4')))
        assert.deepEqual(
          answers.map(({ body }) => body.includes('lab7_anomaly_count')),
          [false, true, true, true],
        )
        return '200 four times, text 0.0.4, HEAD without a body'
      }),
  },
  {
    id: 'M24',
    fault: 'a page of someone else that reads /metrics',
    run: (bench) =>
      unharmed(bench, async ({ url }) => {
        for (const path of ['/metrics', '/', '/api/state']) {
          const response = await fetch(`${url}${path}`, { headers: { origin: 'http://elsewhere.test' } })
          await response.arrayBuffer()
          assert.equal(response.headers.get('access-control-allow-origin'), null, path)
          assert.equal(response.headers.get('x-content-type-options'), 'nosniff', path)
        }
        return 'no CORS, nosniff'
      }),
  },
]
