import assert from 'node:assert/strict'
import type { RequestListener, ServerResponse } from 'node:http'
import test, { type TestContext } from 'node:test'
import { gzipSync } from 'node:zlib'

import type { PollOutcome } from '../src/core/reading.js'
import { createHttp } from '../src/io/http-client.js'
import { type Answer, queryInstant, queryInstantMatrix, queryRange } from '../src/io/prometheus.js'
import { type FakeAnswer, type FakeRuntime, fakeRuntime, matrixAnswer, vectorAnswer } from './helpers/fake-runtime.js'
import { closedUrl, startHttpServer, startTcpServer } from './helpers/local-server.js'

const GOOD = vectorAnswer([{ metric: { quantile: '0.5' }, value: '8.19' }])
const DEADLINE_MS = 4_000

/** Virtual time over the process's real HTTP client. */
function realHttp(): FakeRuntime {
  return { ...fakeRuntime([]), http: createHttp() }
}

function ask(runtime: FakeRuntime, prometheusUrl = 'http://prometheus:9090', query = 'up'): Promise<Answer<unknown>> {
  return queryInstant(runtime, { prometheusUrl, query, deadlineMs: DEADLINE_MS })
}

async function answering(t: TestContext, handler: RequestListener): Promise<Answer<unknown>> {
  const { url } = await startHttpServer(t, handler)
  return ask(realHttp(), url)
}

function send(status: number, body: string | Buffer, headers: Readonly<Record<string, string>> = {}): RequestListener {
  return (_request, response) => response.writeHead(status, headers).end(body)
}

function deferred(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  let resolve = (): void => undefined
  const promise = new Promise<void>((settle) => (resolve = settle))
  return { promise, resolve }
}

function refusal(answer: Answer<unknown>): { readonly outcome: PollOutcome; readonly detail: string } {
  if (answer.kind !== 'failure') assert.fail('an answer where none was to be had')
  return { outcome: answer.outcome, detail: answer.detail }
}

function apiError(errorType: string, error: string): string {
  return JSON.stringify({ status: 'error', errorType, error })
}

test('prometheus: a good answer is parsed, and kept as it came', async (t) => {
  assert.deepEqual(await answering(t, send(200, GOOD)), {
    kind: 'answer',
    text: GOOD,
    data: {
      resultType: 'vector',
      warnings: 0,
      result: [{ labels: new Map([['quantile', '0.5']]), evaluatedSeconds: 1_700_000_000, value: 8.19 }],
    },
  })
})

test('prometheus: gzip, a byte order mark in front and any content type are read', async (t) => {
  for (const handler of [
    send(200, gzipSync(GOOD), { 'content-encoding': 'gzip' }),
    send(200, GOOD, { 'content-type': 'text/plain' }),
    send(200, `\ufeff${GOOD}`),
  ]) {
    assert.equal((await answering(t, handler)).kind, 'answer')
  }
})

for (const { name, handler, outcome, detail } of [
  {
    name: 'an HTML login page',
    handler: send(200, '<html>Sign in</html>'),
    outcome: 'bad_json',
    detail: /not JSON: "<html>Sign in/,
  },
  { name: 'an empty body', handler: send(200, ''), outcome: 'bad_json', detail: /not JSON: ""/ },
  { name: 'a truncated answer', handler: send(200, GOOD.slice(0, 60)), outcome: 'bad_json', detail: /not JSON/ },
  { name: 'NaN outside a string', handler: send(200, '{"status":NaN}'), outcome: 'bad_json', detail: /not JSON/ },
  {
    name: 'a body in UTF-16',
    handler: send(200, Buffer.from(GOOD, 'utf16le')),
    outcome: 'bad_json',
    detail: /not JSON/,
  },
  { name: '204', handler: send(204, ''), outcome: 'bad_json', detail: /^HTTP 204 without a body$/ },
  {
    name: 'gzip that does not unpack',
    handler: send(200, Buffer.from('no gzip at all'), { 'content-encoding': 'gzip' }),
    outcome: 'bad_json',
    detail: /does not decompress: Z_DATA_ERROR/,
  },
  {
    name: 'another shape',
    handler: send(200, '{"status":"success","data":null}'),
    outcome: 'bad_shape',
    detail: /^data: expected an object/,
  },
  { name: 'an array', handler: send(200, '[]'), outcome: 'bad_shape', detail: /^expected an object/ },
  {
    name: 'a matrix for a vector',
    handler: send(200, matrixAnswer([])),
    outcome: 'wrong_type',
    detail: /expected "vector", got "matrix"/,
  },
  {
    name: 'an error with status 200',
    handler: send(200, apiError('bad_data', 'no')),
    outcome: 'api_error',
    detail: /status is "error": "bad_data" no/,
  },
  {
    name: '400',
    handler: send(400, apiError('bad_data', '1:27: parse error: unclosed left parenthesis')),
    outcome: 'api_error',
    detail: /^HTTP 400: bad_data: 1:27: parse error: unclosed left parenthesis$/,
  },
  {
    name: '422',
    handler: send(422, apiError('execution', 'query processing would load too many samples')),
    outcome: 'api_error',
    detail: /^HTTP 422: execution: query processing/,
  },
  {
    name: '503 for a query that took too long',
    handler: send(503, apiError('timeout', 'query timed out in expression evaluation')),
    outcome: 'timeout',
    detail: /^HTTP 503: timeout: query timed out/,
  },
  { name: '503 while it loads', handler: send(503, 'Service Unavailable'), outcome: 'http_5xx', detail: /^HTTP 503$/ },
  {
    name: '502 of a gateway',
    handler: send(502, '<html>s3cret page</html>'),
    outcome: 'http_5xx',
    detail: /^HTTP 502$/,
  },
  { name: '401', handler: send(401, 'Unauthorized\n'), outcome: 'auth', detail: /^HTTP 401$/ },
  { name: '403', handler: send(403, 'Forbidden'), outcome: 'auth', detail: /^HTTP 403$/ },
  {
    name: '404',
    handler: send(404, '404 page not found'),
    outcome: 'http_4xx',
    detail: /^HTTP 404; is the path of --prometheus-url right\?$/,
  },
  {
    name: '429',
    handler: send(429, 'slow down', { 'retry-after': '3600' }),
    outcome: 'http_4xx',
    detail: /^HTTP 429$/,
  },
  { name: '431', handler: send(431, ''), outcome: 'http_4xx', detail: /^HTTP 431$/ },
  {
    name: 'a body beyond the limit',
    handler: send(200, Buffer.alloc(9 * 2 ** 20, 'x')),
    outcome: 'too_large',
    detail: /maxContentLength/,
  },
] as const) {
  test(`prometheus: ${name} is ${outcome}`, async (t) => {
    const refused = refusal(await answering(t, handler))
    assert.equal(refused.outcome, outcome, refused.detail)
    assert.match(refused.detail, detail)
  })
}

test('prometheus: the words of an error are bounded', async (t) => {
  const { detail } = refusal(await answering(t, send(400, apiError('bad_data', 'x'.repeat(100_000)))))
  assert.ok(detail.length < 400, String(detail.length))
})

test('prometheus: a gzip bomb of 256 MiB is too_large and leaves no mark on the memory', async (t) => {
  // A gzip file may have many members: one of 1 MiB of zeros, 256 times.
  const bomb = Buffer.concat(Array.from({ length: 256 }, () => gzipSync(Buffer.alloc(2 ** 20))))
  const before = process.memoryUsage.rss()
  const { outcome } = refusal(await answering(t, send(200, bomb, { 'content-encoding': 'gzip' })))
  const grownMiB = (process.memoryUsage.rss() - before) / 2 ** 20
  assert.equal(outcome, 'too_large')
  assert.ok(grownMiB < 100, `${grownMiB.toFixed(0)} MiB`)
})

for (const { name, location, said } of [
  { name: 'to another host', location: 'http://169.254.169.254/latest/meta-data', said: 'to 169.254.169.254;' },
  { name: 'to itself', location: '/api/v1/query', said: 'to another path of the same host;' },
  { name: 'to a file', location: 'file:///etc/passwd', said: 'to nowhere;' },
]) {
  test(`prometheus: a redirect ${name} is not followed`, async (t) => {
    const { url, connections } = await startHttpServer(t, send(302, '', { location }))
    const refused = refusal(await ask(realHttp(), url))
    assert.deepEqual(refused, {
      outcome: 'redirect',
      detail: `HTTP 302, ${said} redirects are not followed, give the final URL`,
    })
    assert.equal(connections(), 1)
  })
}

test('prometheus: the target of a redirect is never asked', async (t) => {
  let hits = 0
  const target = await startHttpServer(t, (_request, response) => {
    hits++
    response.end(GOOD)
  })
  for (const status of [301, 302, 303, 307, 308]) {
    const { outcome } = refusal(await answering(t, send(status, '', { location: `${target.url}/secret?token=1` })))
    assert.equal(outcome, 'redirect')
  }
  assert.equal(hits, 0)
})

test('prometheus: nobody listening is conn', async () => {
  const { outcome, detail } = refusal(await ask(realHttp(), await closedUrl()))
  assert.equal(outcome, 'conn')
  assert.match(detail, /ECONNREFUSED/)
})

for (const { name, bytes } of [
  { name: 'a connection closed without an answer', bytes: '' },
  { name: 'garbage instead of HTTP', bytes: '\0\0\0 not http\r\n\r\n' },
  { name: 'a body shorter than promised', bytes: `HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n${GOOD}` },
  { name: 'a chunked body cut off', bytes: 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\n{"status"' },
  {
    name: 'two lengths',
    bytes: `HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}}`,
  },
  { name: 'a header of 20 kB', bytes: `HTTP/1.1 200 OK\r\nx: ${'y'.repeat(20_000)}\r\n\r\n` },
]) {
  test(`prometheus: ${name} is conn`, async (t) => {
    const { url } = await startTcpServer(t, (socket) => socket.once('data', () => socket.end(bytes)))
    assert.equal(refusal(await ask(realHttp(), url)).outcome, 'conn')
  })
}

test('prometheus: a reset is conn, and is not tried again on a connection of its own', async (t) => {
  const { url, connections } = await startTcpServer(t, (socket) => socket.once('data', () => socket.resetAndDestroy()))
  assert.equal(refusal(await ask(realHttp(), url)).outcome, 'conn')
  assert.equal(connections(), 1)
})

test('prometheus: a kept connection that dies just as it is used again is tried once more', async (t) => {
  const response = `HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-length: ${GOOD.length}\r\n\r\n${GOOD}`
  const { url, connections } = await startTcpServer(t, (socket) => {
    let requests = 0
    socket.on('data', () => {
      if (++requests === 1) socket.write(response)
      else socket.resetAndDestroy()
    })
  })
  const runtime = realHttp()
  assert.equal((await ask(runtime, url)).kind, 'answer')
  assert.equal((await ask(runtime, url)).kind, 'answer')
  assert.equal(connections(), 2)
})

for (const { name, begin } of [
  { name: 'no answer at all', begin: (): void => undefined },
  { name: 'headers and no body', begin: (response: ServerResponse): void => response.writeHead(200).flushHeaders() },
  {
    name: 'a body that never ends (slow loris)',
    begin: (response: ServerResponse): void => {
      response.writeHead(200)
      response.write(GOOD.slice(0, -1))
    },
  },
]) {
  test(`prometheus: ${name} is cut at the deadline and is timeout`, { timeout: 20_000 }, async (t) => {
    const runtime = realHttp()
    const { promise: asked, resolve: onAsked } = deferred()
    const { promise: cut, resolve: onCut } = deferred()
    const { url } = await startHttpServer(t, (request, response) => {
      request.socket.once('close', onCut)
      begin(response)
      onAsked()
    })
    const answer = ask(runtime, url)
    await asked
    await runtime.clock.advance(DEADLINE_MS - 1)
    let settled = false
    void answer.then(() => (settled = true))
    await runtime.clock.advance(0)
    assert.equal(settled, false, 'a millisecond early')
    await runtime.clock.advance(1)
    assert.deepEqual(await answer, { kind: 'failure', outcome: 'timeout', detail: 'no complete answer within 4 s' })
    await cut
  })
}

test('prometheus: a stop cuts a query short', { timeout: 20_000 }, async (t) => {
  const runtime = realHttp()
  const { url } = await startHttpServer(t, () => {
    runtime.stop()
  })
  assert.deepEqual(await ask(runtime, url), { kind: 'failure', outcome: 'conn', detail: 'stopped while asking' })
})

for (const { code, outcome } of [
  { code: 'ENOTFOUND', outcome: 'dns' },
  { code: 'EAI_AGAIN', outcome: 'dns' },
  { code: 'ECONNREFUSED', outcome: 'conn' },
  { code: 'ECONNRESET', outcome: 'conn' },
  { code: 'EHOSTUNREACH', outcome: 'conn' },
  { code: 'EMFILE', outcome: 'conn' },
  { code: 'CERT_HAS_EXPIRED', outcome: 'tls' },
  { code: 'CERT_NOT_YET_VALID', outcome: 'tls' },
  { code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE', outcome: 'tls' },
  { code: 'DEPTH_ZERO_SELF_SIGNED_CERT', outcome: 'tls' },
  { code: 'ERR_TLS_CERT_ALTNAME_INVALID', outcome: 'tls' },
  { code: 'EPROTO', outcome: 'tls' },
  { code: 'ERR_SSL_WRONG_VERSION_NUMBER', outcome: 'tls' },
  { code: 'Z_DATA_ERROR', outcome: 'bad_json' },
] as const) {
  test(`prometheus: ${code} is ${outcome}`, async () => {
    const runtime = fakeRuntime([{ code, message: `connect ${code} 127.0.0.1:9090` }])
    assert.equal(refusal(await ask(runtime)).outcome, outcome)
    assert.equal(runtime.queries.length, 1)
  })
}

test('prometheus: https to a port that speaks plain HTTP is tls', async (t) => {
  const { port } = await startHttpServer(t, send(200, GOOD))
  assert.equal(refusal(await ask(realHttp(), `https://127.0.0.1:${port}`)).outcome, 'tls')
})

interface Seen {
  method: string | undefined
  url: string | undefined
  contentType: string | undefined
  body: string
}

async function seenBy(t: TestContext, answer: string, call: (url: string) => Promise<Answer<unknown>>): Promise<Seen> {
  let seen: Seen | undefined
  const { url } = await startHttpServer(t, (request, response) => {
    let body = ''
    request.on('data', (data: Buffer) => (body += data.toString()))
    request.on('end', () => {
      seen = { method: request.method, url: request.url, contentType: request.headers['content-type'], body }
      response.end(answer)
    })
  })
  assert.equal((await call(url)).kind, 'answer')
  return seen ?? assert.fail('nobody asked')
}

test('prometheus: a short query goes in the URL, escaped, and no time is sent', async (t) => {
  const seen = await seenBy(t, GOOD, (url) => ask(realHttp(), `${url}/prefix`, 'a{b="c d&e=f+g%"}\nor h'))
  assert.equal(seen.method, 'GET')
  const { pathname, searchParams } = new URL(seen.url ?? '', 'http://x')
  assert.equal(pathname, '/prefix/api/v1/query')
  assert.deepEqual([...searchParams], [['query', 'a{b="c d&e=f+g%"}\nor h']])
})

test('prometheus: a query of more than 4 kB goes in the body, as a form', async (t) => {
  const long = `up or ${'x'.repeat(5_000)}{a="b&c"}`
  const seen = await seenBy(t, GOOD, (url) => ask(realHttp(), url, long))
  assert.deepEqual([seen.method, seen.url], ['POST', '/api/v1/query'])
  assert.match(seen.contentType ?? '', /^application\/x-www-form-urlencoded/)
  assert.deepEqual([...new URLSearchParams(seen.body)], [['query', long]])
})

test('prometheus: a range query says from when to when and how often', async (t) => {
  const answer = matrixAnswer([{ values: [[100, '1']] }])
  const seen = await seenBy(t, answer, (url) =>
    queryRange(realHttp(), {
      prometheusUrl: url,
      query: 'up',
      startSeconds: 100,
      endSeconds: 160.5,
      stepSeconds: 15,
      deadlineMs: DEADLINE_MS,
    }),
  )
  const { pathname, searchParams } = new URL(seen.url ?? '', 'http://x')
  assert.equal(pathname, '/api/v1/query_range')
  assert.deepEqual(Object.fromEntries(searchParams), { query: 'up', start: '100', end: '160.5', step: '15' })
})

test('prometheus: an answer of many megabytes is read where history is asked for, and only there', async (t) => {
  const padding = { metric: { padding: 'x'.repeat(10 * 2 ** 20) }, values: [[100, '1']] as const }
  const { url } = await startHttpServer(t, send(200, matrixAnswer([padding])))
  const request = { prometheusUrl: url, query: 'up', deadlineMs: DEADLINE_MS }
  assert.equal((await queryInstantMatrix(realHttp(), request)).kind, 'answer')
  assert.equal(refusal(await queryInstant(realHttp(), request)).outcome, 'too_large')
})

test('prometheus: secrets in a foreign error do not get into the detail', async () => {
  const failing: FakeAnswer = { status: 500, body: 'password=s3cret', headers: { 'x-token': 's3cret' } }
  assert.doesNotMatch(JSON.stringify(await ask(fakeRuntime([failing]))), /s3cret/)
})

test('prometheus: a finished query leaves nothing behind on the signal', async () => {
  const runtime = fakeRuntime([GOOD])
  let listeners = 0
  const { signal } = runtime
  const add = signal.addEventListener.bind(signal)
  const remove = signal.removeEventListener.bind(signal)
  signal.addEventListener = (...args: Parameters<typeof add>) => {
    listeners++
    add(...args)
  }
  signal.removeEventListener = (...args: Parameters<typeof remove>) => {
    listeners--
    remove(...args)
  }
  for (let i = 0; i < 20; i++) await ask(runtime)
  assert.equal(listeners, 0)
})
