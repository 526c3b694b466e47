import assert from 'node:assert/strict'
import { mkdirSync, renameSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import type { RequestListener } from 'node:http'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { promisify } from 'node:util'
import { brotliCompress, constants, deflateSync, gzipSync } from 'node:zlib'

import { createHttp, withAccess } from '../src/io/http-client.js'
import { fakeRuntime, type FakeRuntime } from './helpers/fake-runtime.js'
import { clientFor, GOOD, said } from './helpers/http-config.js'
import { startHttpServer, startTcpServer } from './helpers/local-server.js'

/** A Prometheus that lets in whoever has the right header, and what it was sent. */
async function startGuarded(
  t: TestContext,
): Promise<{ readonly url: string; expected: string; readonly seen: (string | undefined)[] }> {
  const seen: (string | undefined)[] = []
  const { url } = await startHttpServer(t, ({ headers }, response) => {
    seen.push(headers.authorization)
    if (headers.authorization === guarded.expected) response.end(GOOD)
    else response.writeHead(401, { 'www-authenticate': 'Bearer' }).end('Unauthorized\n')
  })
  const guarded = { url, expected: '', seen }
  return guarded
}

const TOKEN_CONFIG = 'authorization: {credentials_file: token}'

for (const { name, config, files, header } of [
  {
    name: 'a user and a password, whatever stands around it in the file',
    config: 'basic_auth: {username: alice, password_file: password}',
    files: { password: ' open sesame\n' },
    header: `Basic ${Buffer.from('alice:open sesame').toString('base64')}`,
  },
  {
    name: 'a user from a file, and a password that is not ASCII',
    config: 'basic_auth: {username_file: user, password_file: password}',
    files: { user: 'zoë\n', password: 'pässwörd:1\n' },
    header: `Basic ${Buffer.from('zoë:pässwörd:1', 'utf8').toString('base64')}`,
  },
  { name: 'a token', config: TOKEN_CONFIG, files: { token: 'abc.def-123\n' }, header: 'Bearer abc.def-123' },
  {
    name: 'a token of another type',
    config: 'authorization: {type: Token, credentials_file: token}\nfollow_redirects: false\nenable_http2: false',
    files: { token: 'abc' },
    header: 'Token abc',
  },
]) {
  test(`http client: ${name} is sent`, async (t) => {
    const server = await startGuarded(t)
    server.expected = header
    assert.equal(said(await clientFor(t, server.url, config, files).ask()), 'ok')
    assert.deepEqual(server.seen, [header])
  })
}

test('http client: without a configuration file no header is sent, and the runtime is the same', () => {
  const runtime = fakeRuntime([])
  assert.equal(withAccess(runtime, undefined), runtime)
})

test('http client: the credentials of one server are not those of the process', async (t) => {
  const server = await startGuarded(t)
  const fake: FakeRuntime = { ...fakeRuntime([]), http: createHttp() }
  const current = { agent: null, authorization: 'Bearer a-secret', headers: [], secrets: ['a-secret'], warnings: [] }
  await withAccess(fake, { current: () => current }).http.get(server.url)
  await fake.http.get(server.url)
  assert.deepEqual(server.seen, ['Bearer a-secret', undefined])
})

test('http client: a token that is rotated is sent with the next request', async (t) => {
  const server = await startGuarded(t)
  server.expected = 'Bearer token-1'
  const { ask, write, logged } = clientFor(t, server.url, TOKEN_CONFIG, { token: 'token-1' })
  assert.equal(said(await ask()), 'ok')
  server.expected = 'Bearer token-2'
  assert.equal(said(await ask()), 'auth: HTTP 401')
  write('token', 'token-2')
  assert.equal(said(await ask()), 'ok')
  assert.deepEqual(
    logged.map(({ msg }) => String(msg).replace(/^--prometheus-http-config-file: .*http\.yml /, '')),
    [`credentials go to ${server.url} unencrypted`, 'was read again', `credentials go to ${server.url} unencrypted`],
  )
})

test('http client: a token that is rotated in place shows, though size and times stay the same', async (t) => {
  const server = await startGuarded(t)
  const { ask, write, folder } = clientFor(t, server.url, TOKEN_CONFIG, { token: 'token-1' })
  const { atime, mtime } = statSync(join(folder, 'token'))
  await ask()
  write('token', 'token-2')
  utimesSync(join(folder, 'token'), atime, mtime)
  await ask()
  assert.deepEqual(server.seen, ['Bearer token-1', 'Bearer token-2'])
})

test("http client: a Kubernetes Secret's links that are turned round show", async (t) => {
  const server = await startGuarded(t)
  // As the kubelet does it: the files are links into ..data, which is a link to a folder of this version.
  const publish = (folder: string, version: string): void => {
    mkdirSync(join(folder, version))
    writeFileSync(join(folder, version, 'token'), version)
    symlinkSync(version, join(folder, '..data_tmp'))
    renameSync(join(folder, '..data_tmp'), join(folder, '..data'))
  }
  const first = clientFor(t, server.url, TOKEN_CONFIG, { token: 'unused' })
  publish(first.folder, 'version-1')
  rmSync(join(first.folder, 'token'))
  symlinkSync('..data/token', join(first.folder, 'token'))
  await first.ask()
  publish(first.folder, 'version-2')
  await first.ask()
  assert.deepEqual(server.seen, ['Bearer version-1', 'Bearer version-2'])
})

for (const { name, spoil, mend, problem, healed } of [
  {
    name: 'a token that is gone',
    spoil: (folder: string) => rmSync(join(folder, 'token')),
    mend: (folder: string) => writeFileSync(join(folder, 'token'), 'token-1'),
    problem: /token: no such file$/,
    healed: 'is again as it was',
  },
  {
    name: 'an empty token',
    spoil: (folder: string) => writeFileSync(join(folder, 'token'), '\n'),
    mend: (folder: string) => writeFileSync(join(folder, 'token'), 'token-2'),
    problem: /line 1: authorization\.credentials_file names an empty file$/,
    healed: 'was read again',
  },
  {
    name: 'a configuration that is no YAML',
    spoil: (folder: string) => writeFileSync(join(folder, 'http.yml'), 'authorization: {credentials_file: s3cret'),
    mend: (folder: string) => writeFileSync(join(folder, 'http.yml'), `${TOKEN_CONFIG}\n`),
    problem: /http\.yml, line 1: not YAML \(BAD_INDENT\)$/,
    healed: 'was read again',
  },
]) {
  test(`http client: ${name} leaves what was read before in use, and the log says so once`, async (t) => {
    const server = await startGuarded(t)
    const { ask, folder, logged } = clientFor(t, server.url, TOKEN_CONFIG, { token: 'token-1' })
    await ask()
    spoil(folder)
    for (let i = 0; i < 3; i++) await ask()
    assert.deepEqual(server.seen, Array<string>(4).fill('Bearer token-1'))
    mend(folder)
    await ask()
    const lines = logged.filter(({ msg }) => String(msg).startsWith('--prometheus-http-config-file'))
    assert.deepEqual(
      lines.map(({ level, msg }) => [level, String(msg).replace(/^.*http\.yml /, '')]),
      [
        [40, 'cannot be used as it is now: what was read before stays in use'],
        [30, healed],
      ],
    )
    assert.match(String(lines[0]?.['detail']), problem)
    assert.doesNotMatch(JSON.stringify(logged), /s3cret/)
  })
}

test('http client: the same trouble after it was mended is said again', async (t) => {
  const server = await startGuarded(t)
  const { ask, folder, write, logged } = clientFor(t, server.url, TOKEN_CONFIG, { token: 'token-1' })
  for (let i = 0; i < 2; i++) {
    rmSync(join(folder, 'token'))
    await ask()
    write('token', 'token-1')
    await ask()
  }
  assert.equal(logged.filter(({ msg }) => String(msg).includes('cannot be used')).length, 2)
})

const SECRET = 'correct-horse-battery'

for (const { name, answer } of [
  { name: 'as a page', answer: (sent: string) => ({ status: 200, body: `<p>you sent ${sent}</p>` }) },
  {
    name: 'as an error of its API',
    answer: (sent: string) => ({
      status: 400,
      body: JSON.stringify({ status: 'error', errorType: 'bad_data', error: `bad header ${sent}` }),
    }),
  },
  { name: 'cut off', answer: (sent: string) => ({ status: 200, body: `${' '.repeat(60)}"${sent}` }) },
  {
    name: 'as a redirect',
    answer: (sent: string) => ({ status: 302, body: '', location: `http://x.example/?${encodeURIComponent(sent)}` }),
  },
]) {
  test(`http client: a server that repeats the credentials ${name} does not get them into our words`, async (t) => {
    const { url } = await startHttpServer(t, ({ headers }, response) => {
      const { status, body, ...more } = answer(headers.authorization ?? 'nothing')
      response.writeHead(status, more).end(body)
    })
    const basic = 'basic_auth: {username: alice, password_file: secret}'
    for (const config of ['authorization: {credentials_file: secret}', basic]) {
      const { ask } = clientFor(t, url, config, { secret: SECRET })
      const words = JSON.stringify(await ask())
      assert.match(words, /"kind":"failure"/)
      for (const secret of [SECRET, Buffer.from(`alice:${SECRET}`).toString('base64')]) {
        assert.ok(!words.includes(secret.slice(0, 12)), words)
      }
    }
  })
}

test('http client: a tenant that a Mimir asks for is sent with each request, and a secret header does not get into our words', async (t) => {
  const { url } = await startHttpServer(t, ({ headers }, response) => {
    if (headers['x-scope-orgid'] === 'shop' && headers['x-key'] === SECRET) response.end(GOOD)
    else response.writeHead(401).end(`no org id for ${String(headers['x-key'])}`)
  })
  const headers = 'http_headers: {X-Scope-OrgID: {values: [shop]}, X-Key: {files: [secret]}}'
  assert.equal(said(await clientFor(t, url, headers, { secret: SECRET }).ask()), 'ok')
  const { ask, logged } = clientFor(t, url, 'http_headers: {X-Key: {files: [secret]}}', { secret: SECRET })
  assert.match(said(await ask()), /^auth: HTTP 401/)
  assert.ok(!JSON.stringify(logged).includes(SECRET))
  assert.deepEqual(
    logged.map(({ msg }) => msg),
    [`credentials go to ${url} unencrypted`],
  )
})

test('http client: what a server says gets into our words without control characters', async (t) => {
  const { url } = await startHttpServer(t, (_request, response) => {
    const error = 'bad\u001b[31m\nquery\u202e'
    response.writeHead(400).end(JSON.stringify({ status: 'error', errorType: 'bad_data', error }))
  })
  const { ask } = clientFor(t, url, TOKEN_CONFIG, { token: SECRET })
  assert.equal(said(await ask()), 'api_error: HTTP 400: bad_data: bad [31m query ')
})

test('http client: with credentials, too, no redirect is followed and no proxy of the environment is used', async (t) => {
  const seen: (string | undefined)[] = []
  const trap = await startHttpServer(t, ({ headers }, response) => {
    seen.push(headers.authorization)
    response.end(GOOD)
  })
  const environment = process.env
  t.after(() => (process.env = environment))
  const proxies = ['HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY', 'http_proxy', 'https_proxy', 'all_proxy']
  process.env = { ...environment, ...Object.fromEntries(proxies.map((name) => [name, trap.url])) }
  for (const status of [301, 302, 303, 307, 308]) {
    const { url } = await startHttpServer(t, (_request, response) =>
      response.writeHead(status, { location: `${trap.url}/api/v1/query` }).end(),
    )
    const { ask } = clientFor(t, url, TOKEN_CONFIG, { token: SECRET })
    assert.match(said(await ask()), new RegExp(`^redirect: HTTP ${status}, to 127.0.0.1:${trap.port};`))
  }
  const { ask } = clientFor(t, 'http://prometheus.invalid:9090', TOKEN_CONFIG, { token: SECRET })
  assert.match(said(await ask()), /^dns: /)
  assert.deepEqual(seen, [])
})

const MIB = 2 ** 20

for (const { coding, bomb } of [
  // A gzip file may have many members.
  { coding: 'gzip', bomb: () => Buffer.concat(Array<Buffer>(400).fill(gzipSync(Buffer.alloc(MIB)))) },
  { coding: 'deflate', bomb: () => deflateSync(Buffer.alloc(64 * MIB)) },
  {
    coding: 'br',
    bomb: () => promisify(brotliCompress)(Buffer.alloc(64 * MIB), { params: { [constants.BROTLI_PARAM_QUALITY]: 1 } }),
  },
]) {
  test(`http client: a ${coding} bomb is too_large, and leaves no mark on the memory`, async (t) => {
    const body = await bomb()
    assert.ok(body.length < 0.5 * MIB, `${body.length} bytes`)
    const { url } = await startHttpServer(t, send(body, { 'content-encoding': coding }))
    const { ask } = clientFor(t, url, TOKEN_CONFIG, { token: SECRET })
    const before = process.memoryUsage.rss()
    for (let i = 0; i < 3; i++) {
      assert.equal(said(await ask()), `too_large: maxContentLength size of ${8 * MIB} exceeded`)
    }
    const grownMiB = (process.memoryUsage.rss() - before) / MIB
    assert.ok(grownMiB < 60, `${grownMiB.toFixed(0)} MiB`)
  })
}

function send(body: Buffer, headers: Readonly<Record<string, string>>): RequestListener {
  return (_request, response) => response.writeHead(200, headers).end(body)
}

const ZIPPED = gzipSync(GOOD)

for (const { name, bytes, outcome } of [
  {
    name: 'gzip that ends early',
    bytes: answerBytes(ZIPPED.subarray(0, 40), 40),
    outcome: /^bad_json: the answer is not JSON/,
  },
  {
    name: 'gzip with a wrong checksum',
    bytes: answerBytes(Buffer.concat([ZIPPED.subarray(0, -8), Buffer.alloc(8)]), ZIPPED.length),
    outcome: /^bad_json: .*Z_DATA_ERROR$/,
  },
  {
    name: 'a Content-Length beyond the body',
    bytes: answerBytes(ZIPPED, ZIPPED.length + 1),
    outcome: /^(conn|bad_json): /,
  },
  { name: 'a Content-Length within the body', bytes: answerBytes(ZIPPED, 30), outcome: /^(conn|bad_json): / },
  {
    name: 'a coding that nobody asked for',
    bytes: answerBytes(Buffer.from('???'), 3, 'x-unknown'),
    outcome: /^bad_json: the answer is not JSON: "\?\?\?"$/,
  },
]) {
  test(`http client: ${name} is no answer`, async (t) => {
    const { url } = await startTcpServer(t, (socket) => socket.once('data', () => socket.end(bytes)))
    assert.match(said(await clientFor(t, url, TOKEN_CONFIG, { token: SECRET }).ask()), outcome)
  })
}

function answerBytes(body: Buffer, length: number, coding = 'gzip'): Buffer {
  const head = `HTTP/1.1 200 OK\r\ncontent-encoding: ${coding}\r\ncontent-length: ${length}\r\n\r\n`
  return Buffer.concat([Buffer.from(head), body])
}

test('http client: a body that drips is cut at the deadline', { timeout: 40_000 }, async (t) => {
  let asked = (): void => undefined
  const request = new Promise<void>((resolve) => (asked = resolve))
  const { url } = await startHttpServer(t, (_request, response) => {
    response.write(GOOD.slice(0, 20))
    const drip = setInterval(() => response.write(' '), 5)
    response.once('close', () => clearInterval(drip))
    asked()
  })
  const { ask, advance } = clientFor(t, url, TOKEN_CONFIG, { token: SECRET })
  const answer = ask()
  await request
  await advance(4_000)
  assert.equal(said(await answer), 'timeout: no complete answer within 4 s')
})
