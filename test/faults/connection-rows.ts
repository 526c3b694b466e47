import assert from 'node:assert/strict'
import { gzipSync } from 'node:zlib'

import type { Lane } from './bench.js'
import { type ConnectionFault, type Expected } from './judge.js'
import {
  answer,
  apiError,
  asked,
  bytes,
  DEEP,
  drip,
  DRIP_HEADERS,
  END_WITHOUT_ANSWER,
  ENDLESS,
  gzipBomb,
  HANG,
  json,
  moved,
  replayed,
  RESET,
  reshaped,
  rewritten,
  valued,
} from './misbehaviour.js'
import { PASSWORD, TOKEN } from './bench.js'

export interface ConnectionRow extends ConnectionFault {
  readonly id: string
  readonly title: string
  readonly gate?: true
}

/** What both daemons meet, and make the same of. */
function both(
  outcome: Expected['outcome'],
  detail?: RegExp,
): { readonly monitor: Expected; readonly incident: Expected } {
  const expected = detail === undefined ? { outcome } : { outcome, detail }
  return { monitor: expected, incident: expected }
}

const OK = 'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n'
const EMPTY_VECTOR = '{"status":"success","data":{"resultType":"vector","result":[]}}'
const PAGE = '<html><body><form action="/login">Sign in</form></body></html>'

/** RSS in MiB, as the daemon says itself every few seconds at most. */
async function rssMib({ monitor }: Lane): Promise<number> {
  return ((await monitor.metrics()).get('process_resident_memory_bytes') ?? NaN) / 2 ** 20
}

async function staysSmall(lane: Lane): Promise<void> {
  const mib = await rssMib(lane)
  assert.ok(mib < 200, `resident memory of the monitor: ${mib.toFixed(0)} MiB`)
}

const quantile = (from: RegExp, to: string) => asked((query) => query.replace(from, to))

/** A query of the monitor's about nothing but a latency that it is told. */
const latency = (expression: string) =>
  asked((query) =>
    query.replace(/^label_replace\(histogram_quantile.*$/m, `label_replace(${expression}, "quantile", "0.5", "", "")`),
  )

export const CONNECTION_ROWS: readonly ConnectionRow[] = [
  { id: 'T1', title: 'connection refused', gate: true, fault: 'refuse', ...both('conn', /ECONNREFUSED/) },
  {
    id: 'T5',
    title: 'head of an answer, and no body ever',
    gate: true,
    fault: bytes(`${OK}Content-Length: 100\r\n\r\n`, { open: true }),
    ...both('timeout', /no complete answer within 1.2 s/),
  },
  { id: 'T5 nothing', title: 'the request is taken, nothing ever comes', fault: HANG, ...both('timeout') },
  { id: 'T5 head', title: 'a head that does not end, line by line', fault: DRIP_HEADERS, ...both('timeout') },
  { id: 'T6', title: 'body byte by byte, with pauses', gate: true, fault: drip(40), ...both('timeout') },
  { id: 'T7', title: 'reset in the middle of a request', gate: true, fault: RESET, ...both('conn') },
  { id: 'T7 end', title: 'closed without an answer', fault: END_WITHOUT_ANSWER, ...both('conn') },
  {
    id: 'T8',
    title: 'body cut short of its Content-Length',
    gate: true,
    fault: bytes(`${OK}Content-Length: 500\r\n\r\n${EMPTY_VECTOR}`),
    ...both('conn'),
  },
  {
    id: 'T9',
    title: 'chunked body cut short',
    gate: true,
    fault: bytes(`${OK}Transfer-Encoding: chunked\r\n\r\n40\r\n${EMPTY_VECTOR.slice(0, 40)}`),
    ...both('conn'),
  },
  { id: 'T10', title: 'garbage in place of HTTP', fault: bytes('\x00\x01SSH-2.0-OpenSSH_9.2\r\n'), ...both('conn') },
  {
    id: 'T11',
    title: 'two Content-Lengths',
    fault: bytes(`${OK}Content-Length: 5\r\nContent-Length: 63\r\n\r\n${EMPTY_VECTOR}`),
    ...both('conn'),
  },
  {
    id: 'T11 both',
    title: 'Content-Length and Transfer-Encoding',
    fault: bytes(`${OK}Content-Length: 63\r\nTransfer-Encoding: chunked\r\n\r\n3f\r\n${EMPTY_VECTOR}\r\n0\r\n\r\n`),
    ...both('conn'),
  },
  {
    id: 'T12',
    title: 'a header of 20 kB',
    fault: answer(200, EMPTY_VECTOR, { 'x-long': 'x'.repeat(20_000) }),
    ...both('conn'),
  },
  { id: 'T12 many', title: '1,500 small headers around a good answer', fault: manyHeaders(), ...both('ok') },
  {
    id: 'T13',
    title: 'redirect to itself',
    gate: true,
    fault: ({ request, response }) => void response.writeHead(302, { location: request.url ?? '/' }).end(),
    ...both('redirect', /redirects are not followed/),
  },
  redirectElsewhere(),
  {
    id: 'T15',
    title: 'redirect to file:',
    fault: answer(302, '', { location: `file:///etc/passwd?${TOKEN}` }),
    ...both('redirect'),
  },
  {
    id: 'T15 data',
    title: 'redirect to data:',
    fault: answer(307, '', { location: `data:application/json,${EMPTY_VECTOR}` }),
    ...both('redirect'),
  },
  {
    id: 'T18 http',
    title: 'plain HTTP to a port for TLS',
    fault: answer(400, 'Client sent an HTTP request to an HTTPS server.\n'),
    ...both('tls', /begin the URL so/),
  },
  {
    id: 'T20',
    title: 'every kept-alive connection closed just as it is used again',
    fault: closesReused(),
    ...both('ok'),
  },
  {
    id: 'T20 always',
    title: 'every answer followed by the end of the connection',
    fault: async (exchange) => {
      exchange.response.setHeader('connection', 'close')
      const { body } = await exchange.forward()
      exchange.response.end(body)
    },
    ...both('ok'),
  },
  {
    id: 'T7 half',
    title: 'the server ends its side, the answer never comes',
    fault: ({ socket }) => void socket.end('HTTP/1.1 200 OK\r\nContent-Le'),
    ...both('conn'),
  },

  {
    id: 'H1',
    title: '401, which repeats the credentials',
    gate: true,
    fault: repeatsCredentials(401),
    ...both('auth', /^HTTP 401/),
  },
  { id: 'H2', title: '403', gate: true, fault: answer(403, 'Forbidden'), ...both('auth', /^HTTP 403/) },
  {
    id: 'H2 404',
    title: '404 of a wrong prefix',
    fault: answer(404, '404 page not found\n'),
    ...both('http_4xx', /is the path of --prometheus-url right/),
  },
  {
    id: 'H3',
    title: '400 bad_data of the real server',
    gate: true,
    fault: asked((query) => `${query})`),
    ...both('api_error', /bad_data/),
  },
  {
    id: 'H4',
    title: '422 execution of the real server',
    gate: true,
    fault: asked(() => 'up * on() group_left() {__name__=~"lab7_verdict|up"}'),
    ...both('api_error', /execution/),
  },
  {
    id: 'H5',
    title: '503 while the real server is not ready',
    gate: true,
    fault: answer(503, 'Service Unavailable'),
    ...both('http_5xx'),
  },
  {
    id: 'H6',
    title: '503 timeout of the real server',
    gate: true,
    fault: asked((query) => query, { timeout: '0' }),
    ...both('timeout', /timed out/),
  },
  {
    id: 'H7',
    title: '429 with Retry-After 3600',
    fault: answer(429, PAGE, { 'retry-after': '3600' }),
    ...both('http_4xx'),
  },
  {
    id: 'H7 502',
    title: '502 of a gateway, in HTML',
    fault: answer(502, PAGE, { 'content-type': 'text/html' }),
    ...both('http_5xx'),
  },
  { id: 'H7 500', title: '500 with plain text', fault: answer(500, `panic: ${TOKEN}`), ...both('http_5xx') },
  { id: 'H8', title: '431 of a proxy for long URLs', fault: answer(431), ...both('http_4xx') },
  { id: 'H9', title: '405 of a read-only proxy', fault: answer(405, 'Method Not Allowed'), ...both('http_4xx') },
  {
    id: 'H10',
    title: '200 with status "error"',
    gate: true,
    fault: apiError(200, 'execution', 'something broke'),
    ...both('api_error'),
  },
  {
    id: 'H11',
    title: '200 with a login page',
    gate: true,
    fault: answer(200, PAGE, { 'content-type': 'text/html' }),
    ...both('bad_json'),
  },
  { id: 'H12', title: '204', gate: true, fault: answer(204), ...both('bad_json') },
  { id: 'H12 empty', title: '200 with an empty body', fault: answer(200), ...both('bad_json') },
  {
    id: 'H13',
    title: 'JSON cut in the middle, of the length promised',
    gate: true,
    fault: rewritten((body) => body.slice(0, body.length / 2)),
    ...both('bad_json'),
  },
  {
    id: 'H14',
    title: 'NaN as a JSON literal',
    fault: rewritten((body) => body.replace(/,"[^"]*"\]/, ',NaN]')),
    ...both('bad_json'),
  },
  { id: 'H15', title: 'UTF-16', fault: rewritten((body) => Buffer.from(body, 'utf16le')), ...both('bad_json') },
  {
    id: 'H15 BOM',
    title: 'a byte order mark before good JSON',
    fault: rewritten((body) => `\ufeff${body}`),
    ...both('ok'),
  },
  {
    id: 'H15 UTF-8',
    title: 'bytes that are no UTF-8',
    fault: rewritten((body) => Buffer.concat([Buffer.from([0xff, 0xfe, 0xc0]), Buffer.from(body)])),
    ...both('bad_json'),
  },
  {
    id: 'H16',
    title: 'gzip bomb of 100 MiB',
    gate: true,
    fault: gzipBomb(),
    ...both('too_large'),
    tolerated: ['timeout'],
    also: staysSmall,
  },
  {
    id: 'H17',
    title: 'body without end',
    gate: true,
    fault: ENDLESS,
    ...both('too_large'),
    tolerated: ['timeout'],
    also: staysSmall,
  },
  {
    id: 'H18',
    title: 'gzip that is none',
    fault: answer(200, 'not gzip', { 'content-encoding': 'gzip' }),
    ...both('bad_json', /does not decompress/),
  },
  {
    id: 'H18 cut',
    title: 'gzip cut in the middle',
    fault: rewritten(
      (body) => {
        const packed = gzipSync(body)
        return packed.subarray(0, packed.length / 2)
      },
      { 'content-encoding': 'gzip' },
    ),
    ...both('bad_json'),
  },
  {
    id: 'H18 good',
    title: 'good gzip',
    fault: rewritten((body) => gzipSync(body), { 'content-encoding': 'gzip' }),
    ...both('ok'),
  },
  { id: 'H19', title: 'JSON nested 200,000 deep', fault: answer(200, DEEP), ...both('bad_shape') },
  {
    id: 'H19 inside',
    title: 'a label nested 200,000 deep',
    fault: rewritten((body) => body.replace(/"metric":\{/, `"metric":{"x":${DEEP},`)),
    ...both('bad_shape'),
  },
  { id: 'H20', title: 'data: null', fault: json(200, { status: 'success', data: null }), ...both('bad_shape') },
  {
    id: 'H20 result',
    title: 'result: an object',
    fault: reshaped((document) => ({ ...document, data: { ...document.data, result: {} } })),
    ...both('bad_shape'),
  },
  {
    id: 'H20 value',
    title: 'value: []',
    fault: reshaped(({ data: { result } }) => {
      for (const one of result) {
        if (one.value !== undefined) one.value = []
        if (one.values !== undefined) one.values = [[] as never]
      }
    }),
    ...both('bad_shape'),
  },
  {
    id: 'H20 number',
    title: 'values as numbers, not texts',
    fault: rewritten((body) => body.replace(/(\[\d+(?:\.\d+)?),"([\d.]+)"\]/g, '$1,$2]')),
    ...both('bad_shape'),
  },
  {
    id: 'H20 null',
    title: 'a value that is null',
    fault: rewritten((body) => body.replace(/(\[\d+(?:\.\d+)?),"[^"]*"\]/, '$1,null]')),
    ...both('bad_shape'),
  },
  {
    id: 'H20 text',
    title: 'an empty text as value',
    fault: rewritten((body) => body.replace(/(\[\d+(?:\.\d+)?),"[^"]*"\]/, '$1,""]')),
    ...both('bad_shape'),
  },
  {
    id: 'H21',
    title: 'good JSON as text/plain',
    fault: rewritten((body) => body, { 'content-type': 'text/plain' }),
    ...both('ok'),
  },

  {
    id: 'S1',
    title: 'no such series',
    gate: true,
    fault: asked((query) => query.replaceAll('"cart"', '"nobody"')),
    monitor: { outcome: 'empty' },
  },
  {
    id: 'S1 incident',
    title: 'a Prometheus that knows no monitor',
    fault: asked((query) => query.replaceAll('lab7_', 'nobody_')),
    incident: { outcome: 'empty', detail: /no_data/ },
  },
  {
    id: 'S2',
    title: 'no traffic: NaN of the real server',
    gate: true,
    fault: asked((query) => query.replaceAll('"cart"', '"idle"')),
    monitor: { outcome: 'nonfinite', verdict: 'low_traffic' },
  },
  {
    id: 'S3',
    title: 'a window shorter than two scrapes',
    fault: asked((query) => query.replaceAll('[6s]', '[500ms]')),
    monitor: { outcome: 'empty' },
  },
  {
    id: 'S5',
    title: 'no +Inf bucket',
    fault: asked((query) => query.replaceAll('_bucket{', '_bucket{le!="+Inf",')),
    monitor: { outcome: 'nonfinite' },
  },
  {
    id: 'S6',
    title: 'a quantile above 1: +Inf',
    fault: quantile(/histogram_quantile\(0\.5/, 'histogram_quantile(1.5'),
    monitor: { outcome: 'nonfinite' },
  },
  {
    id: 'S7',
    title: 'x/0: +Inf of the real server',
    gate: true,
    fault: latency('vector(1) / 0'),
    monitor: { outcome: 'nonfinite' },
  },
  {
    id: 'S7 -Inf',
    title: '-x/0: -Inf of the real server',
    fault: latency('vector(-1) / 0'),
    monitor: { outcome: 'nonfinite' },
  },
  { id: 'S7 incident', title: 'anomaly counts of +Inf', fault: valued('+Inf'), incident: { outcome: 'empty' } },
  { id: 'S2 incident', title: 'anomaly counts of NaN', fault: valued('NaN'), incident: { outcome: 'empty' } },
  { id: 'S8', title: 'negative latency', fault: latency('vector(-5)'), monitor: { outcome: 'out_of_domain' } },
  { id: 'S9', title: 'latency of 1e308 ms', fault: latency('vector(1e308)'), monitor: { outcome: 'out_of_domain' } },
  {
    id: 'S10',
    title: 'a latency of 9.0000000000000001e0 ms',
    fault: valued('9.0000000000000001e0'),
    monitor: { outcome: 'ok' },
  },
  { id: 'S11', title: 'a scalar', fault: asked(() => 'scalar(vector(1))'), ...both('wrong_type') },
  { id: 'S11 string', title: 'a string', fault: asked(() => '"abc"'), ...both('wrong_type') },
  {
    id: 'S12',
    title: 'a matrix where a vector was asked for',
    fault: asked(() => 'up[3s]'),
    monitor: { outcome: 'wrong_type' },
  },
  {
    id: 'S12 incident',
    title: 'a vector where a matrix was asked for',
    fault: asked(() => 'up'),
    incident: { outcome: 'wrong_type' },
  },
  {
    id: 'S13',
    title: 'several series',
    gate: true,
    fault: asked((query) =>
      query.replaceAll(
        /sum by \(le\) \((rate\(istio_request_duration_milliseconds_bucket\{)[^}]*/g,
        'sum by (le, destination_app) ($1destination_app=~"cart|saturated"',
      ),
    ),
    monitor: { outcome: 'multi' },
  },
  {
    id: 'S14',
    title: 'a native histogram',
    gate: true,
    fault: reshaped(({ data: { result } }) => {
      for (const one of result) {
        if (one.metric['series'] !== undefined) continue
        one.histogram = [(one.value as [number])[0], { count: '5', sum: '3.5' }]
        delete one.value
      }
    }),
    monitor: { outcome: 'histogram' },
  },
  {
    id: 'S14 incident',
    title: 'native histograms in a matrix',
    fault: reshaped(({ data: { result } }) => {
      for (const one of result) {
        ;(one as { histograms?: unknown }).histograms = []
        delete one.values
      }
    }),
    incident: { outcome: 'histogram' },
  },
  {
    id: 'S15',
    title: 'floats and native histograms in one answer',
    fault: reshaped(({ data: { result } }) => {
      const [first] = result
      if (first !== undefined) result.push({ metric: { quantile: '0.9' }, histogram: [0, {}] })
    }),
    monitor: { outcome: 'histogram' },
  },
  {
    id: 'S16',
    title: 'warnings with data',
    fault: reshaped((document) => ({ ...document, warnings: ['remote_read: error sending request'] })),
    monitor: { outcome: 'warnings' },
  },
  {
    id: 'S16 empty',
    title: 'warnings without data',
    fault: json(200, {
      status: 'success',
      data: { resultType: 'vector', result: [] },
      warnings: ['remote_read: connection refused'],
    }),
    monitor: { outcome: 'empty' },
  },
  {
    id: 'S17',
    title: 'infos and fields that nobody knows',
    fault: reshaped((document) => ({
      infos: ['metric might not be a counter'],
      next: {},
      ...document,
      data: { ...document.data, stats: {} },
    })),
    ...both('ok'),
  },
  {
    id: 'S24',
    title: 'an old answer, again and again',
    gate: true,
    fault: replayed(),
    monitor: { outcome: 'stale' },
    incident: { outcome: 'stale', detail: /same times again and again/ },
  },
  {
    id: 'S24 past',
    title: 'times 60 s in the past',
    fault: moved(-60),
    monitor: { outcome: 'stale' },
    incident: { outcome: 'stale' },
  },
  {
    id: 'S26',
    title: 'labels of quotes, line ends, ANSI and bidi',
    fault: reshaped(({ data: { result } }) => {
      for (const one of result) one.metric['k'] = '\u001b[31m"\\\n\u202e{"level":60}'
    }),
    ...both('ok'),
  },
  {
    id: 'S27',
    title: 'labels __proto__, constructor, toString',
    gate: true,
    fault: rewritten((body) =>
      body
        .replaceAll(
          '"metric":{',
          '"metric":{"__proto__":"polluted","constructor":"x","toString":"y","hasOwnProperty":"z",',
        )
        .replaceAll(',}', '}'),
    ),
    ...both('ok'),
  },
  { id: 'S28', title: 'anomaly counts of -3', fault: valued('-3'), incident: { outcome: 'empty' } },
  {
    id: 'S30',
    title: 'success with nothing in it, as of a server that has just begun',
    fault: reshaped(({ data }) => {
      data.result = []
    }),
    monitor: { outcome: 'empty' },
    incident: { outcome: 'stale' },
  },
  {
    id: 'L1',
    title: 'an error text that forges log lines',
    gate: true,
    fault: apiError(400, 'x\n{"level":60,"msg":"forged"}', '\u001b[2J\u202e\n{"level":60,"msg":"forged"}'),
    ...both('api_error'),
    also: noForgedLine,
  },
  {
    id: 'L5',
    title: 'answers that repeat the credentials, in a body and in a reset',
    gate: true,
    fault: repeatsCredentials(500),
    ...both('api_error', /<secret>/),
  },
  {
    id: 'L6',
    title: 'a status "error" with a password in it',
    fault: apiError(200, 'execution', `cannot log in with ${PASSWORD}`),
    ...both('api_error'),
  },
]

function manyHeaders(): ConnectionFault['fault'] {
  return async ({ forward, socket }) => {
    const { body } = await forward()
    const headers = Array.from({ length: 1_500 }, (_, i) => `x${i}: y\r\n`).join('')
    socket.end(`${OK}${headers}Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`)
  }
}

/** Hits of the place to which a redirect leads; there is nobody there but us. */
function redirectElsewhere(): ConnectionRow {
  let hits = 0
  return {
    id: 'T14',
    title: 'redirect to another host',
    gate: true,
    fault: ({ request, response }) => {
      if (request.url?.startsWith('/latest/meta-data') === true) hits++
      const { port } = request.socket.address() as { readonly port: number }
      const host = `localhost:${port}`
      response.writeHead(302, { location: `http://u:${PASSWORD}@${host}/latest/meta-data?query=lab7_${TOKEN}` }).end()
    },
    ...both('redirect', /to localhost:\d+; redirects are not followed/),
    also: () => assert.equal(hits, 0, 'requests that followed the redirect'),
  }
}

/** Serves the first request of a connection and resets it at the second. */
function closesReused(): ConnectionFault['fault'] {
  const used = new WeakSet<object>()
  return async ({ socket, forward, response }) => {
    if (used.has(socket)) {
      socket.resetAndDestroy()
      return
    }
    used.add(socket)
    response.end((await forward()).body)
  }
}

function repeatsCredentials(status: number): ConnectionFault['fault'] {
  return (exchange) => {
    const { authorization = '' } = exchange.request.headers
    return json(status, {
      status: 'error',
      errorType: 'server_error',
      error: `you sent ${authorization} (${PASSWORD})`,
    })(exchange)
  }
}

function noForgedLine({ monitor, incident }: Lane): void {
  for (const { lines } of [monitor, incident]) {
    for (const line of lines) {
      // eslint-disable-next-line no-control-regex -- these are what must not be there
      assert.doesNotMatch(line, /[\u0000-\u001f\u202a-\u202e\u2066-\u2069]/, 'control characters in the log')
      const event = JSON.parse(line) as { readonly msg: string }
      assert.notEqual(event.msg, 'forged')
    }
  }
}
