import assert from 'node:assert/strict'
import { connect } from 'node:net'
import test, { type TestContext } from 'node:test'

import { StartError } from '../src/core/errors.js'
import { type HttpServer, listen, text } from '../src/io/http-server.js'
import { startTcpServer } from './helpers/local-server.js'

async function serving(t: TestContext): Promise<HttpServer> {
  const server = await listen({
    address: '127.0.0.1',
    port: 0,
    routes: {
      '/healthz': () => text(200, 'ok\n'),
      '/metrics': () => ({ status: 200, contentType: 'text/plain; version=0.0.4', body: Buffer.from('x 1\n') }),
    },
  })
  t.after(() => server.close(0))
  return server
}

/** What comes back for these very bytes, until the server closes. */
function raw({ port }: HttpServer, bytes: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = ''
    const socket = connect(port, '127.0.0.1', () => socket.write(bytes))
    socket.on('data', (data: Buffer) => (answer += data.toString()))
    socket.on('close', () => resolve(answer))
    socket.on('error', reject)
  })
}

for (const { name, method, path, status, body, contentType, allow } of [
  {
    name: 'a route answers',
    method: 'GET',
    path: '/healthz',
    status: 200,
    body: 'ok\n',
    contentType: 'text/plain; charset=utf-8',
    allow: null,
  },
  {
    name: 'a query string is ignored',
    method: 'GET',
    path: '/healthz?x=%zz',
    status: 200,
    body: 'ok\n',
    contentType: 'text/plain; charset=utf-8',
    allow: null,
  },
  {
    name: 'bytes keep their content type',
    method: 'GET',
    path: '/metrics',
    status: 200,
    body: 'x 1\n',
    contentType: 'text/plain; version=0.0.4',
    allow: null,
  },
  {
    name: 'HEAD has no body',
    method: 'HEAD',
    path: '/metrics',
    status: 200,
    body: '',
    contentType: 'text/plain; version=0.0.4',
    allow: null,
  },
  {
    name: 'another path is not found',
    method: 'GET',
    path: '/nope',
    status: 404,
    body: 'not found\n',
    contentType: 'text/plain; charset=utf-8',
    allow: null,
  },
  {
    name: 'a path is exact',
    method: 'GET',
    path: '/healthz/',
    status: 404,
    body: 'not found\n',
    contentType: 'text/plain; charset=utf-8',
    allow: null,
  },
  {
    name: 'names of an object are no routes',
    method: 'GET',
    path: '/constructor',
    status: 404,
    body: 'not found\n',
    contentType: 'text/plain; charset=utf-8',
    allow: null,
  },
  {
    name: 'POST is not allowed',
    method: 'POST',
    path: '/healthz',
    status: 405,
    body: 'method not allowed\n',
    contentType: 'text/plain; charset=utf-8',
    allow: 'GET, HEAD',
  },
  {
    name: 'DELETE is not allowed',
    method: 'DELETE',
    path: '/nope',
    status: 405,
    body: 'method not allowed\n',
    contentType: 'text/plain; charset=utf-8',
    allow: 'GET, HEAD',
  },
]) {
  test(`http server: ${name}`, async (t) => {
    const server = await serving(t)
    const response = await fetch(`${server.url}${path}`, { method })
    assert.deepEqual(
      {
        status: response.status,
        body: await response.text(),
        contentType: response.headers.get('content-type'),
        allow: response.headers.get('allow'),
        nosniff: response.headers.get('x-content-type-options'),
        cors: response.headers.get('access-control-allow-origin'),
      },
      { status, body, contentType, allow, nosniff: 'nosniff', cors: null },
    )
  })
}

test('http server: HEAD tells the length that GET would have', async (t) => {
  const server = await serving(t)
  const response = await fetch(`${server.url}/metrics`, { method: 'HEAD' })
  assert.equal(response.headers.get('content-length'), '4')
})

for (const { line, status } of [
  { line: 'GET //', status: 404 },
  { line: 'GET ///', status: 404 },
  { line: 'GET http://[', status: 404 },
  { line: 'GET http://x/healthz', status: 404 },
  { line: 'GET /%zz', status: 404 },
  { line: 'GET /%2e%2e/etc/passwd', status: 404 },
  { line: 'GET /../../etc/passwd', status: 404 },
  { line: 'GET /healthz\\..\\x', status: 404 },
  { line: 'OPTIONS *', status: 405 },
  { line: 'TRACE /healthz', status: 405 },
  { line: 'FOO /healthz', status: 400 },
  { line: `GET /${'x'.repeat(20_000)}`, status: 431 },
]) {
  test(`http server: ${line.slice(0, 40)} is answered with ${status}, and the server lives`, async (t) => {
    const server = await serving(t)
    const answer = await raw(server, `${line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`)
    assert.match(answer, new RegExp(`^HTTP/1\\.1 ${status} `))
    assert.equal((await fetch(`${server.url}/healthz`)).status, 200)
  })
}

/** The status of each answer in these bytes. */
function statusesIn(answer: string): readonly number[] {
  return [...answer.matchAll(/HTTP\/1\.1 (\d+) /g)].map(([, status]) => Number(status))
}

const GET = 'GET /healthz HTTP/1.1\r\nhost: x\r\n'
const POST = 'POST /healthz HTTP/1.1\r\nhost: x\r\n'
/** What must not be taken for a request of its own. */
const HIDDEN = `${GET}\r\n`

for (const { name, bytes, status } of [
  // Requests that two servers could understand in two ways.
  { name: 'two lengths', bytes: `${GET}content-length: 1\r\ncontent-length: 2\r\n\r\nab`, status: 400 },
  { name: 'the same length twice', bytes: `${GET}content-length: 2\r\ncontent-length: 2\r\n\r\nab`, status: 400 },
  { name: 'a list of lengths', bytes: `${GET}content-length: 2, 2\r\n\r\nab`, status: 400 },
  { name: 'a length with a sign', bytes: `${GET}content-length: +2\r\n\r\nab`, status: 400 },
  { name: 'a negative length', bytes: `${GET}content-length: -1\r\n\r\n${HIDDEN}`, status: 400 },
  { name: 'a length beyond all numbers', bytes: `${GET}content-length: 99999999999999999999\r\n\r\n`, status: 400 },
  {
    name: 'a length and chunks',
    bytes: `${POST}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n${HIDDEN}`,
    status: 400,
  },
  { name: 'chunks that are no chunks', bytes: `${POST}transfer-encoding: xchunked\r\n\r\n${HIDDEN}`, status: 400 },
  { name: 'chunks and then more', bytes: `${POST}transfer-encoding: chunked, identity\r\n\r\n${HIDDEN}`, status: 400 },
  {
    name: 'two transfer encodings',
    bytes: `${POST}transfer-encoding: chunked\r\ntransfer-encoding: x\r\n\r\n${HIDDEN}`,
    status: 400,
  },
  { name: 'a chunk without a size', bytes: `${POST}transfer-encoding: chunked\r\n\r\nzz\r\n`, status: 400 },
  { name: 'a blank before the colon', bytes: 'GET /healthz HTTP/1.1\r\nhost : x\r\n\r\n', status: 400 },
  { name: 'a header over two lines', bytes: `${GET}x: a\r\n b\r\n\r\n`, status: 400 },
  { name: 'a header without a name', bytes: `${GET}: a\r\n\r\n`, status: 400 },
  { name: 'lines that end with LF alone', bytes: 'GET /healthz HTTP/1.1\nhost: x\n\n', status: 400 },
  { name: 'CR alone in a header', bytes: `${GET}x: a\rb\r\n\r\n`, status: 400 },
  { name: 'NUL in a header', bytes: `${GET}x: a\0b\r\n\r\n`, status: 400 },
  { name: 'NUL in the path', bytes: 'GET /\0 HTTP/1.1\r\nhost: x\r\n\r\n', status: 400 },
  { name: 'bytes beyond ASCII in the path', bytes: 'GET /\u00e9 HTTP/1.1\r\nhost: x\r\n\r\n', status: 400 },
  { name: 'no host', bytes: 'GET /healthz HTTP/1.1\r\n\r\n', status: 400 },
  { name: 'a method in small letters', bytes: 'get /healthz HTTP/1.1\r\nhost: x\r\n\r\n', status: 400 },
  { name: 'the preface of HTTP/2', bytes: 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', status: 400 },
  { name: 'a version that never was', bytes: 'GET /healthz HTTP/3.7\r\nhost: x\r\n\r\n', status: 400 },
  { name: 'a greeting of TLS', bytes: '\u0016\u0003\u0001\u0002\0\u0001\0\u0001', status: 400 },
  { name: 'a header of 17 kB', bytes: `${GET}x: ${'y'.repeat(17_000)}\r\n\r\n`, status: 431 },
  { name: 'headers of 30 kB', bytes: `${GET}${`x: ${'y'.repeat(50)}\r\n`.repeat(600)}\r\n`, status: 431 },
  // Bodies: nobody reads them, so what stands in one is no request.
  {
    name: 'a request in the body of a GET',
    bytes: `${GET}content-length: ${HIDDEN.length}\r\n\r\n${HIDDEN}`,
    status: 200,
  },
  {
    name: 'a request after the chunks of a POST',
    bytes: `${POST}transfer-encoding: chunked\r\n\r\n0\r\n\r\n${HIDDEN}`,
    status: 405,
  },
  {
    name: 'a question whether a body may be sent',
    bytes: `${POST}expect: 100-continue\r\ncontent-length: 9\r\n\r\n`,
    status: 405,
  },
  { name: 'another expectation', bytes: `${GET}expect: x\r\nconnection: close\r\n\r\n`, status: 417 },
  // Old and new ways to speak.
  { name: 'HTTP/0.9', bytes: 'GET /healthz\r\n\r\n', status: 200 },
  { name: 'HTTP/1.0', bytes: 'GET /healthz HTTP/1.0\r\n\r\n', status: 200 },
  {
    name: 'the wish for a WebSocket',
    bytes: `${GET}connection: upgrade, close\r\nupgrade: websocket\r\n\r\n`,
    status: 200,
  },
]) {
  test(
    `http server: ${name} is answered with ${status}, once, and the connection ends`,
    { timeout: 30_000 },
    async (t) => {
      const server = await serving(t)
      assert.deepEqual(statusesIn(await raw(server, bytes)), [status])
      assert.equal((await fetch(`${server.url}/healthz`)).status, 200)
    },
  )
}

test('http server: CONNECT is closed without a word', async (t) => {
  assert.equal(await raw(await serving(t), 'CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n'), '')
})

test('http server: a body is not read to its end', { timeout: 60_000 }, async (t) => {
  const { port } = await serving(t)
  const socket = connect(port, '127.0.0.1')
  socket.on('error', () => undefined)
  let answer = ''
  socket.on('data', (data: Buffer) => (answer += data.toString()))
  const closed = new Promise((resolve) => socket.once('close', resolve))
  socket.write(`${POST}content-length: 1000000000\r\n\r\n`)
  const piece = Buffer.alloc(65_536)
  const flood = (): void => {
    while (!socket.destroyed && socket.write(piece));
    socket.once('drain', flood)
  }
  flood()
  await closed
  assert.ok(socket.bytesWritten < 50_000_000, `${socket.bytesWritten} bytes`)
  assert.ok(answer === '' || answer.startsWith('HTTP/1.1 405 '), answer)
})

test('http server: a client that does not finish its headers is cut after 5 s', { timeout: 60_000 }, async (t) => {
  const server = await serving(t)
  const startMs = performance.now()
  const answers = await Promise.all([raw(server, 'GET /healthz HTTP/1.1\r\nhost:'), raw(server, 'G')])
  const tookMs = performance.now() - startMs
  assert.deepEqual(answers.map(statusesIn), [[408], [408]])
  assert.ok(tookMs > 4_500 && tookMs < 20_000, `${tookMs.toFixed(0)} ms`)
})

test('http server: a client that says nothing at all is cut, too', { timeout: 60_000 }, async (t) => {
  const { port } = await servingLarge(t, 500)
  const socket = connect(port, '127.0.0.1')
  await new Promise((resolve) => socket.resume().once('close', resolve))
})

test('http server: a route that fails is answered with 500, and told of; the next request is served', async (t) => {
  const errors: unknown[] = []
  const failure = new Error('a bug')
  const server = await listen({
    address: '127.0.0.1',
    port: 0,
    onError: (error) => errors.push(error),
    routes: {
      '/throws': () => {
        throw failure
      },
      '/rejects': () => Promise.reject(failure),
      '/healthz': () => text(200, 'ok\n'),
    },
  })
  t.after(() => server.close(0))
  for (const path of ['/throws', '/rejects']) {
    const response = await fetch(server.url + path)
    assert.deepEqual([response.status, await response.text()], [500, 'internal error\n'])
  }
  assert.deepEqual(errors, [failure, failure])
  assert.equal((await fetch(`${server.url}/healthz`)).status, 200)
})

const BODY = Buffer.alloc(4_000_000, 'x')

async function servingLarge(t: TestContext, idleTimeoutMs: number): Promise<HttpServer> {
  const server = await listen({
    address: '127.0.0.1',
    port: 0,
    idleTimeoutMs,
    routes: {
      '/large': () => ({
        status: 200,
        contentType: 'text/plain',
        body: BODY,
        etag: '"v1"',
        headers: { 'cache-control': 'no-store' },
      }),
      '/small': () => text(200, 'small\n'),
    },
  })
  t.after(() => server.close(0))
  return server
}

for (const { name, ifNoneMatch, status, length } of [
  { name: 'who has it is told so', ifNoneMatch: '"v1"', status: 304, length: 0 },
  { name: 'a proxy may have made the name a weak one', ifNoneMatch: 'W/"v1"', status: 304, length: 0 },
  { name: 'one of several names is enough', ifNoneMatch: '"v0", "v1"', status: 304, length: 0 },
  { name: 'who has another one is sent it', ifNoneMatch: '"v0"', status: 200, length: BODY.length },
  { name: 'garbage is no name', ifNoneMatch: 'v1,,"', status: 200, length: BODY.length },
]) {
  test(`http server: with an etag, ${name}`, async (t) => {
    const server = await servingLarge(t, 30_000)
    const response = await fetch(`${server.url}/large`, { headers: { 'if-none-match': ifNoneMatch } })
    assert.deepEqual(
      {
        status: response.status,
        length: (await response.arrayBuffer()).byteLength,
        etag: response.headers.get('etag'),
        cache: response.headers.get('cache-control'),
      },
      { status, length, etag: '"v1"', cache: 'no-store' },
    )
  })
}

test(
  'http server: clients that ask and never read cost a connection each, and are cut',
  { timeout: 20_000 },
  async (t) => {
    const server = await servingLarge(t, 1_000)
    const before = process.memoryUsage().arrayBuffers
    const sockets = Array.from({ length: 50 }, () => {
      const socket = connect(server.port, '127.0.0.1')
      t.after(() => socket.destroy())
      socket.on('error', () => undefined)
      // Ten times what it will never read.
      socket.write('GET /large HTTP/1.1\r\nhost: x\r\n\r\n'.repeat(10))
      return socket
    })
    // Others are served meanwhile.
    assert.equal(await (await fetch(`${server.url}/small`)).text(), 'small\n')
    const growth = process.memoryUsage().arrayBuffers - before
    assert.ok(growth < 10 * BODY.length, `${growth} bytes where ${50 * 10 * BODY.length} were asked for`)
    // Who reads again after the server's patience finds what was under way, and the end.
    await new Promise((resolve) => setTimeout(resolve, 3_000))
    const received = await Promise.all(
      sockets.map((socket) => {
        let bytes = 0
        socket.on('data', (data: Buffer) => (bytes += data.length))
        return new Promise<number>((resolve) => socket.once('close', () => resolve(bytes)))
      }),
    )
    assert.ok(
      received.every((bytes) => bytes < 10 * BODY.length),
      `all of it was sent: ${received.join(', ')}`,
    )
  },
)

test(
  'http server: close() ends within its grace though a client hangs, and may be called twice',
  { timeout: 10_000 },
  async (t) => {
    const server = await serving(t)
    const hanging = connect(server.port, '127.0.0.1')
    const cut = new Promise((resolve) => hanging.once('close', resolve))
    hanging.on('error', () => undefined)
    await new Promise<void>((resolve) => hanging.write('GET /healthz HTTP/1.1\r\nhost:', () => resolve()))
    // An answer to someone else proves that the server has seen the half request.
    assert.equal((await fetch(`${server.url}/healthz`)).status, 200)
    await Promise.all([server.close(20), server.close(20)])
    await cut
    await assert.rejects(fetch(`${server.url}/healthz`))
  },
)

test('http server: a port in use is a StartError that names address and reason', async (t) => {
  const { port } = await startTcpServer(t, () => undefined)
  await assert.rejects(listen({ address: '127.0.0.1', port, routes: {} }), (error: unknown) => {
    assert.ok(error instanceof StartError)
    assert.equal(error.message, `cannot listen on 127.0.0.1:${port}: the port is in use`)
    assert.equal((error.cause as NodeJS.ErrnoException).code, 'EADDRINUSE')
    return true
  })
})

test('http server: an address of another host is a StartError, too', async () => {
  await assert.rejects(listen({ address: '192.0.2.1', port: 0, routes: {} }), {
    name: 'StartError',
    message: 'cannot listen on 192.0.2.1:0: not an address of this host',
  })
})

test('http server: an IPv6 address is written with brackets', async (t) => {
  let server: HttpServer
  try {
    server = await listen({ address: '::1', port: 0, routes: { '/': () => text(200, 'six\n') } })
  } catch {
    t.skip('this host has no IPv6')
    return
  }
  t.after(() => server.close(0))
  assert.equal(server.url, `http://[::1]:${server.port}`)
  assert.equal(await (await fetch(`${server.url}/`)).text(), 'six\n')
})
