import assert from 'node:assert/strict'
import { connect } from 'node:net'
import test, { type TestContext } from 'node:test'

import { StartError } from '../src/core/errors.js'
import { type HttpServer, listen, text } from '../src/io/http-server.js'
import { startTcpServer } from './helpers/local-server.js'
import { ODD_REQUESTS, POST, raw, statusesIn } from './helpers/odd-requests.js'

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

for (const { name, bytes, statuses } of ODD_REQUESTS) {
  test(
    `http server: ${name} is answered with ${statuses.join() || 'nothing'}, once, and the connection ends`,
    { timeout: 30_000 },
    async (t) => {
      const server = await serving(t)
      assert.deepEqual(statusesIn(await raw(server, bytes)), statuses)
      assert.equal((await fetch(`${server.url}/healthz`)).status, 200)
    },
  )
}

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

test('http server: when there is no room left, those who do nothing make it', { timeout: 20_000 }, async (t) => {
  const server = await listen({
    address: '127.0.0.1',
    port: 0,
    maxConnections: 3,
    routes: { '/healthz': () => text(200, 'ok\n') },
  })
  t.after(() => server.close(0))
  const idle = Array.from({ length: 3 }, () => connect(server.port, '127.0.0.1'))
  const cut = idle.map((socket) => new Promise((resolve) => socket.once('close', resolve)))
  const answered = idle.map((socket) => new Promise((resolve) => socket.once('data', resolve)))
  for (const socket of idle) socket.write('GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n')
  await Promise.all(answered)
  await assert.rejects(fetch(`${server.url}/healthz`))
  await Promise.all(cut)
  assert.equal((await fetch(`${server.url}/healthz`)).status, 200)
})

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
