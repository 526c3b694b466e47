import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { Agent, request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { after, type TestContext } from 'node:test'
import { connect, type ConnectionOptions, TLSSocket } from 'node:tls'

import { compareSync, hashSync } from 'bcryptjs'

import { UsageError } from '../src/core/errors.js'
import { createBasicAuth, type Users } from '../src/io/basic-auth.js'
import { type HttpServer, listen, type Response, type Routes, text } from '../src/io/http-server.js'
import { readWebConfigFile } from '../src/io/web-config.js'
import { createAuthority } from './helpers/certificates.js'
import { fakeRuntime, type FakeRuntime } from './helpers/fake-runtime.js'
import { eventually } from './helpers/live-mesh.js'
import { temporaryFolder } from './helpers/temporary-folder.js'

const certificates = mkdtempSync(join(tmpdir(), 'meshfever-test-'))
after(() => rmSync(certificates, { recursive: true, force: true }))
const authority = createAuthority(certificates, 'ca')
const server = authority.issue('server')
const renewed = authority.issue('renewed')
const client = authority.issue('client')
const stranger = createAuthority(certificates, 'stranger').issue('strange-client')

/** Of the password `open sesame`, at a cost that takes no time. */
const HASH = hashSync('open sesame', 4)
const ALICE = `Basic ${Buffer.from('alice:open sesame').toString('base64')}`

const TLS = `tls_server_config: {cert_file: ${server.certFile}, key_file: ${server.keyFile}}`
const MUTUAL = [
  'tls_server_config:',
  `  cert_file: ${server.certFile}`,
  `  key_file: ${server.keyFile}`,
  '  client_auth_type: RequireAndVerifyClientCert',
  '  client_ca_file: clients.pem',
].join('\n')
const USERS = `basic_auth_users: {alice: "${HASH}"}`

// The file.

function read(t: TestContext, config: string, files: Readonly<Record<string, string>> = {}) {
  const folder = temporaryFolder(t)
  const path = join(folder, 'web-config.yml')
  const write = (name: string, content: string): void => writeFileSync(join(folder, name), content)
  for (const [name, content] of Object.entries(files)) write(name, content)
  writeFileSync(path, config)
  return { path, write, config: readWebConfigFile(path, '--web-config-file') }
}

for (const { config, message } of [
  { config: '', message: ': expected one YAML document' },
  { config: 'tls_config: {}', message: /^, line 1: tls_config must be absent/ },
  { config: 'rate_limit: {interval: 1s}', message: ', line 1: rate_limit is not supported' },
  {
    config: 'http_server_config:\n  http2: true',
    message: ', line 2: http_server_config.http2 must be false or left out: HTTP/1.1 is spoken',
  },
  {
    config: 'http_server_config:\n  headers: {Access-Control-Allow-Origin: "*"}',
    message: /^, line 2: http_server_config\.headers\.Access-Control-Allow-Origin must be absent/,
  },
  {
    config: 'http_server_config: {headers: {X-Frame-Options: allow}}',
    message: /X-Frame-Options must be deny or sameorigin, got a text$/,
  },
  {
    config: 'http_server_config: {headers: {X-XSS-Protection: "0\\r\\nSet-Cookie: x"}}',
    message: /X-XSS-Protection must be one line of plain text, got a text$/,
  },
  { config: 'tls_server_config: {}', message: /tls_server_config\.cert_file must be a text, got nothing$/ },
  {
    config: 'tls_server_config:\n  cert: x\n  key: hunter2',
    message: ', line 2: tls_server_config.cert must not stand in the file: use cert_file',
  },
  {
    config: 'tls_server_config:\n  key: hunter2',
    message: ', line 2: tls_server_config.key must not stand in the file: use key_file',
  },
  {
    config: `tls_server_config: {cert_file: ${server.certFile}, key_file: ${client.keyFile}}`,
    message: /key_file names a key that does not belong to the certificate in /,
  },
  {
    config: 'tls_server_config: {cert_file: nowhere.pem, key_file: x}',
    message: /cert_file names .*nowhere\.pem: no such file$/,
  },
  {
    config: `${TLS.slice(0, -1)}, client_auth_type: RequireAnyClientCert}`,
    message:
      /client_auth_type must be NoClientCert or RequireAndVerifyClientCert, the others do not protect, got a text$/,
  },
  {
    config: `${TLS.slice(0, -1)}, client_auth_type: RequireAndVerifyClientCert}`,
    message: /must have client_auth_type: RequireAndVerifyClientCert and client_ca_file together$/,
  },
  {
    config: `${TLS.slice(0, -1)}, client_ca_file: ${authority.certFile}}`,
    message: /must have client_auth_type: RequireAndVerifyClientCert and client_ca_file together$/,
  },
  { config: `${TLS.slice(0, -1)}, min_version: TLS10}`, message: /min_version must be TLS12 or TLS13, got a text$/ },
  { config: `${TLS.slice(0, -1)}, cipher_suites: [x]}`, message: /cipher_suites is not supported: Node's own list/ },
  { config: `${TLS.slice(0, -1)}, curve_preferences: [x]}`, message: /curve_preferences is not supported/ },
  { config: `${TLS.slice(0, -1)}, client_allowed_sans: [x]}`, message: /client_allowed_sans is not supported/ },
  {
    config: 'basic_auth_users:\n  alice: hunter2',
    message:
      ', line 2: basic_auth_users.alice must be a bcrypt hash with a cost of at most 15, as of htpasswd -nBC 10, got a text',
  },
  { config: `basic_auth_users: {alice: "${HASH.replace('$04$', '$31$')}"}`, message: /must be a bcrypt hash/ },
  { config: `basic_auth_users: {alice: "${HASH.slice(0, -1)}"}`, message: /must be a bcrypt hash/ },
  { config: `basic_auth_users: {"a:b": "${HASH}"}`, message: /\? is no name of a user/ },
  { config: `basic_auth_users: {alice: [hunter2]}`, message: /alice must be a text, got an array of 1$/ },
]) {
  test(`web config: ${JSON.stringify(config).slice(0, 70)} is refused, by name and line`, (t) => {
    let path = ''
    assert.throws(
      () => {
        const folder = temporaryFolder(t)
        path = join(folder, 'web-config.yml')
        writeFileSync(path, config)
        return readWebConfigFile(path, '--web-config-file')
      },
      (error: unknown) => {
        assert.ok(error instanceof UsageError, String(error))
        const what = `--web-config-file: ${path}`
        assert.ok(error.message.startsWith(what), error.message)
        const rest = error.message.slice(what.length)
        if (typeof message === 'string') assert.equal(rest, message)
        else assert.match(rest, message)
        assert.doesNotMatch(rest, /hunter2/)
        return true
      },
    )
  })
}

test("web config: the ecosystem's own example is taken, but for its rate limit", (t) => {
  // prometheus/exporter-toolkit, docs/web-config.yml, with our certificate.
  const { config } = read(
    t,
    [
      'tls_server_config:',
      '  cert_file: server.crt',
      '  key_file: server.key',
      'basic_auth_users:',
      '  alice: $2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze',
      '  bob: $2y$10$hLqFl9jSjoAAy95Z/zw8Ye8wkdMBM8c5Bn1ptYqP/AXyV0.oy0S8m',
    ].join('\n'),
    { 'server.crt': server.cert, 'server.key': server.key },
  )
  const { tls, users, headers } = config.current(undefined as never)
  assert.deepEqual(tls, {
    cert: server.cert,
    key: server.key,
    clientCa: null,
    minVersion: 'TLSv1.2',
    maxVersion: 'TLSv1.3',
  })
  assert.deepEqual([...users.keys()], ['alice', 'bob'])
  assert.deepEqual(headers, {})
})

// The listener.

interface Guarded {
  readonly url: string
  readonly port: number
  readonly logged: FakeRuntime['logged']
  readonly write: (name: string, content: string) => void
  readonly get: (path: string, options?: Asking) => Promise<Got>
}

interface Asking {
  readonly authorization?: string
  readonly shows?: { readonly cert: string; readonly key: string }
  readonly agent?: Agent
  readonly method?: string
}

interface Got {
  readonly status: number
  readonly body: string
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly servedBy: string
}

async function startGuarded(
  t: TestContext,
  config: string,
  { files = {}, routes = {} }: { files?: Readonly<Record<string, string>>; routes?: Routes } = {},
): Promise<Guarded> {
  const { write, config: web } = read(t, config, files)
  const { logger, logged } = fakeRuntime([])
  const listening: HttpServer = await listen({
    address: '127.0.0.1',
    port: 0,
    openPaths: ['/healthz', '/readyz'],
    lookEveryMs: 20,
    web: () => web.current(logger),
    routes: { '/healthz': () => text(200, 'ok\n'), '/metrics': () => text(200, 'x 1\n'), ...routes },
  })
  t.after(() => listening.close(0))
  const get = async (path: string, options: Asking = {}): Promise<Got> => {
    const headers = options.authorization === undefined ? {} : { authorization: options.authorization }
    if (listening.url.startsWith('http:')) {
      const response = await fetch(listening.url + path, { headers, method: options.method ?? 'GET' })
      const body = await response.text()
      return { status: response.status, body, headers: Object.fromEntries(response.headers), servedBy: '' }
    }
    return getByTls(listening.url + path, { ...options, headers })
  }
  return { url: listening.url, port: listening.port, logged, write, get }
}

function getByTls(url: string, options: Asking & { readonly headers: Readonly<Record<string, string>> }): Promise<Got> {
  const { headers, shows, agent = new Agent({ maxCachedSessions: 0 }), method = 'GET' } = options
  return new Promise((resolve, reject) => {
    const sent = request(url, { ca: authority.cert, headers, agent, method, ...shows }, (response) => {
      const { socket } = response
      assert.ok(socket instanceof TLSSocket)
      const servedBy = String(socket.getPeerCertificate().subject.CN)
      let body = ''
      response.on('data', (data: Buffer) => (body += data.toString()))
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body, headers: response.headers, servedBy }))
    })
    sent.on('error', reject)
    sent.end()
  })
}

for (const { name, config, files, good } of [
  { name: 'basic authentication over plain HTTP', config: USERS, files: {}, good: { authorization: ALICE } },
  { name: 'basic authentication over TLS', config: `${TLS}\n${USERS}`, files: {}, good: { authorization: ALICE } },
  {
    name: 'client certificates and basic authentication',
    config: `${MUTUAL}\n${USERS}`,
    files: { 'clients.pem': authority.cert },
    good: { authorization: ALICE, shows: client },
  },
]) {
  test(`web config: with ${name} only the health endpoints are open`, async (t) => {
    const { get } = await startGuarded(t, config, { files })
    assert.deepEqual(
      [(await get('/metrics', good)).body, (await get('/metrics', { ...good, method: 'HEAD' })).status],
      ['x 1\n', 200],
    )
    assert.equal((await get('/healthz')).status, 200)
    assert.equal((await get('/healthz?x')).status, 200)
    // Names of other paths, and other methods, are nobody's business either.
    for (const path of ['/metrics', '/', '/nope', '/metrics?/healthz', '//healthz', '/healthz/', '/api/state']) {
      const { status, body } = await get(path)
      assert.ok(status === 401 || status === 403, `${path}: ${status}`)
      assert.doesNotMatch(body, /x 1/)
    }
    assert.ok([401, 403].includes((await get('/metrics', { method: 'POST' })).status))
    assert.equal((await get('/healthz', { method: 'POST' })).status, 405)
  })
}

test('web config: who is refused is told how to come in', async (t) => {
  const { get } = await startGuarded(t, USERS)
  const { status, body, headers } = await get('/metrics')
  assert.deepEqual(
    [
      status,
      body,
      headers['www-authenticate'],
      headers['x-content-type-options'],
      headers['access-control-allow-origin'],
    ],
    [401, 'unauthorized\n', 'Basic realm="meshfever", charset="UTF-8"', 'nosniff', undefined],
  )
})

const basic = (credentials: string): string => `Basic ${Buffer.from(credentials).toString('base64')}`

for (const { name, authorization } of [
  { name: 'a wrong password', authorization: basic('alice:open sesam') },
  { name: 'an empty password', authorization: basic('alice:') },
  { name: 'an unknown user with the password of another', authorization: basic('mallory:open sesame') },
  { name: 'a name of an object', authorization: basic('constructor:open sesame') },
  { name: 'no colon', authorization: basic('alice') },
  { name: 'no user', authorization: basic(':open sesame') },
  { name: 'the hash in place of the password', authorization: basic(`alice:${HASH}`) },
  { name: 'another scheme', authorization: ALICE.replace('Basic', 'Bearer') },
  { name: 'no scheme', authorization: ALICE.slice('Basic '.length) },
  { name: 'what is not base64', authorization: 'Basic alice:open sesame' },
  { name: 'two of them', authorization: `${ALICE}, ${ALICE}` },
  { name: 'a scheme and nothing', authorization: 'Basic' },
]) {
  test(`basic auth: ${name} does not come in`, async () => {
    const { decide } = createBasicAuth((password, hash) => Promise.resolve(compareSync(password, hash)))
    const users: Users = new Map([['alice', HASH]])
    assert.equal(await decide(authorization, users, () => false), 'refused')
    assert.equal(await decide(ALICE, users, () => false), 'allowed', 'nor does it keep others out')
    assert.equal(await decide(authorization, users, () => false), 'refused', 'not later, either')
  })
}

test('web config: headers of the file are in every answer, and the page keeps its own', async (t) => {
  const config = [
    'http_server_config:',
    '  http2: false',
    '  headers:',
    '    X-Frame-Options: deny',
    '    Content-Security-Policy: default-src *',
    '    Strict-Transport-Security: max-age=60',
    USERS,
  ].join('\n')
  const page = (): Response => ({ ...text(200, ''), headers: { 'content-security-policy': "default-src 'none'" } })
  const { get } = await startGuarded(t, config, { routes: { '/page': page } })
  const seen = async (path: string, options?: Asking): Promise<unknown> => {
    const { headers } = await get(path, options)
    return [headers['x-frame-options'], headers['content-security-policy'], headers['strict-transport-security']]
  }
  assert.deepEqual(await seen('/healthz'), ['deny', 'default-src *', 'max-age=60'])
  assert.deepEqual(await seen('/metrics'), ['deny', 'default-src *', 'max-age=60'])
  assert.deepEqual(await seen('/page', { authorization: ALICE }), ['deny', "default-src 'none'", 'max-age=60'])
})

for (const { name, options, outcome } of [
  { name: 'the certificate of the right authority', options: client, outcome: 200 },
  { name: 'none', options: undefined, outcome: 403 },
  { name: 'one of a stranger', options: stranger, outcome: 403 },
  { name: 'an expired one', options: authority.issue('expired-client', { days: -1 }), outcome: 403 },
]) {
  test(`web config: where client certificates are asked for, ${name} is answered ${outcome}`, async (t) => {
    const { get } = await startGuarded(t, MUTUAL, { files: { 'clients.pem': authority.cert } })
    const asking = options === undefined ? {} : { shows: { cert: options.cert, key: options.key } }
    assert.equal((await get('/metrics', asking)).status, outcome)
    assert.equal((await get('/healthz', asking)).status, 200)
  })
}

/** The answer to `GET /metrics` over a connection of one's own, and the session that it leaves. */
function overTls(
  port: number,
  options: ConnectionOptions,
): Promise<{ readonly status: string; readonly reused: boolean; readonly sessions: readonly Buffer[] }> {
  return new Promise((resolve, reject) => {
    let answer = ''
    let reused = false
    const sessions: Buffer[] = []
    const socket = connect({ port, host: '127.0.0.1', ca: authority.cert, ...options }, () => {
      reused = socket.isSessionReused()
      socket.write('GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n')
    })
    socket.on('session', (session) => sessions.push(session))
    socket.on('data', (data: Buffer) => (answer += data.toString()))
    socket.on('error', reject)
    socket.on('close', () => resolve({ status: answer.slice(9, 12), reused, sessions }))
  })
}

for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
  test(`web config: a session of ${version} without a certificate does not come in when it is resumed`, async (t) => {
    const { port } = await startGuarded(t, MUTUAL, { files: { 'clients.pem': authority.cert } })
    const options = { minVersion: version, maxVersion: version }
    const first = await overTls(port, options)
    assert.equal(first.status, '403')
    for (const session of first.sessions) {
      const { status, reused } = await overTls(port, { ...options, session })
      assert.deepEqual([status, reused], ['403', false])
    }
    const { cert, key } = client
    assert.equal((await overTls(port, { ...options, cert, key })).status, '200')
  })
}

test('web config: TLS 1.1 is not spoken, and 1.2 is not where 1.3 is asked for', async (t) => {
  const { port } = await startGuarded(t, TLS)
  const old = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' } as const
  await assert.rejects(overTls(port, old), /protocol version|unsupported protocol/)
  assert.equal((await overTls(port, { maxVersion: 'TLSv1.2' })).status, '200')
  const strict = await startGuarded(t, `${TLS.slice(0, -1)}, min_version: TLS13}`)
  await assert.rejects(overTls(strict.port, { maxVersion: 'TLSv1.2' }), /protocol version/)
  assert.equal((await overTls(strict.port, {})).status, '200')
})

test('web config: plain HTTP on the port for TLS gets no answer, and the server lives', async (t) => {
  const { port, get } = await startGuarded(t, TLS)
  await assert.rejects(fetch(`http://127.0.0.1:${port}/metrics`))
  assert.equal((await get('/healthz')).status, 200)
})

test('web config: a certificate, its authority and the users are replaced while it runs', async (t) => {
  const files = {
    'server.pem': server.cert,
    'server.key': server.key,
    'clients.pem': authority.cert,
  }
  const own = MUTUAL.replace(server.certFile, 'server.pem').replace(server.keyFile, 'server.key')
  const { get, write, logged } = await startGuarded(t, own, { files })
  const agent = new Agent({ keepAlive: true, maxSockets: 1, maxCachedSessions: 0 })
  t.after(() => agent.destroy())
  const asked = async (authorization: string): Promise<string> => {
    const { status, servedBy } = await get('/metrics', { shows: client, agent, authorization })
    return `${status} by ${servedBy}`
  }
  // What is asked just as the connection is closed fails, and is asked again.
  const becomes = (expected: string, authorization = ''): Promise<true> =>
    eventually(expected, async () => ((await asked(authorization).catch(String)) === expected ? true : undefined))
  const logs = (what: RegExp): Promise<true> =>
    eventually(String(what), () => Promise.resolve(what.test(JSON.stringify(logged)) || undefined))
  await becomes('200 by server')

  write('server.pem', renewed.cert)
  await logs(/names a key that does not belong to the certificate/)
  await becomes('200 by server')
  write('server.key', renewed.key)
  await becomes('200 by renewed')
  // A connection that is kept does not outlive the authority that let it in.
  write('clients.pem', stranger.cert)
  await becomes('403 by renewed')
  write('clients.pem', authority.cert)
  await becomes('200 by renewed')
  write('web-config.yml', `${own}\n${USERS}`)
  await becomes('401 by renewed')
  await becomes('200 by renewed', ALICE)
  write('web-config.yml', `${own}\n${USERS.replace(HASH, hashSync('another', 4))}`)
  await becomes('401 by renewed', ALICE)
  write('web-config.yml', USERS)
  await logs(/TLS is switched on and off by a restart only/)
  await becomes('200 by renewed', basic('alice:another'))
  assert.equal(logged.filter(({ level }) => level === 40).length, 2, 'once for each trouble')
  assert.doesNotMatch(JSON.stringify(logged), /PRIVATE|\$2b\$/)
})

test(
  'web config: connections do not outlive the authority that let them in, whether idle or in use',
  { timeout: 40_000 },
  async (t) => {
    let finish = (): void => undefined
    const finished = new Promise<void>((resolve) => (finish = resolve))
    let asked = (): void => undefined
    const asking = new Promise<void>((resolve) => (asked = resolve))
    const slow = async (): Promise<Response> => {
      asked()
      await finished
      return text(200, 'slow\n')
    }
    const { port, write, logged } = await startGuarded(t, MUTUAL, {
      files: { 'clients.pem': authority.cert },
      routes: { '/slow': slow },
    })
    const open = async (): Promise<{ readonly socket: TLSSocket; readonly closed: Promise<string> }> => {
      let answer = ''
      const { cert, key } = client
      const socket = connect({ port, host: '127.0.0.1', ca: authority.cert, cert, key })
      socket.on('data', (data: Buffer) => (answer += data.toString()))
      const closed = once(socket, 'close').then(() => answer)
      await once(socket, 'secureConnect')
      return { socket, closed }
    }
    const idle = await open()
    idle.socket.write('GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n')
    await once(idle.socket, 'data')
    const busy = await open()
    busy.socket.write('GET /slow HTTP/1.1\r\nhost: x\r\n\r\n')
    await asking
    write('clients.pem', stranger.cert)
    await eventually('the new authority', () =>
      Promise.resolve(logged.some(({ msg }) => String(msg).endsWith('was read again')) || undefined),
    )
    assert.match(await idle.closed, /^HTTP\/1\.1 200 .*ok\n$/s)
    finish()
    busy.socket.write('GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n')
    assert.deepEqual(
      [...(await busy.closed).matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status),
      ['200', '403'],
    )
  },
)

// What bcrypt costs.

test('basic auth: a right password is hashed once, a wrong one once, and an unknown user as much', async () => {
  const hashed: string[] = []
  const auth = createBasicAuth((password, hash) => {
    hashed.push(`${password} ${hash}`)
    return Promise.resolve(hash === `hash of ${password}`)
  })
  const users: Users = new Map([
    ['alice', 'hash of a'],
    ['bob', 'hash of b'],
  ])
  const decide = (credentials: string): Promise<string> => auth.decide(basic(credentials), users, () => false)
  for (let i = 0; i < 3; i++) {
    assert.equal(await decide('alice:a'), 'allowed')
    assert.equal(await decide('bob:a'), 'refused')
    assert.equal(await decide('carol:a'), 'refused')
  }
  assert.deepEqual(hashed, ['a hash of a', 'a hash of b', 'a hash of a'])
  // Who is added later with the same hash is someone else than the unknown one before.
  const more = new Map([...users, ['carol', 'hash of a']])
  assert.equal(await auth.decide(basic('carol:a'), more, () => false), 'allowed')
  assert.equal(await decide('carol:a'), 'refused')
})

test('basic auth: credentials whose parts could be cut otherwise are told apart', async () => {
  // CVE-2022-46146 of exporter-toolkit: one could make the cache take one pair for another.
  const auth = createBasicAuth((password, hash) => Promise.resolve(hash === `hash of ${password}`))
  const users: Users = new Map([['alice', 'hash of b:c']])
  assert.equal(await auth.decide(basic('alice:b:c'), users, () => false), 'allowed')
  assert.equal(await auth.decide(basic('alice:b'), users, () => false), 'refused')
  const others: Users = new Map([['alice', 'hash of b:c","x']])
  assert.equal(await auth.decide(basic('alice:b:c'), others, () => false), 'refused')
})

test('basic auth: one hash at a time, no more than 10 wait, and who went away is not worked for', async () => {
  let running = 0
  let most = 0
  const waiting: (() => void)[] = []
  const auth = createBasicAuth(async () => {
    most = Math.max(most, ++running)
    await new Promise<void>((resolve) => waiting.push(resolve))
    running--
    return false
  })
  const users: Users = new Map([['alice', 'hash']])
  let gone = false
  const decisions = Array.from({ length: 30 }, (_, i) => auth.decide(basic(`alice:${i}`), users, () => gone))
  const settled = Promise.all(decisions)
  while (waiting.length === 0) await new Promise((resolve) => setImmediate(resolve))
  gone = true
  waiting[0]?.()
  const counts = new Map<string, number>()
  for (const decision of await settled) counts.set(decision, (counts.get(decision) ?? 0) + 1)
  assert.deepEqual([...counts].sort(), [
    ['busy', 29],
    ['refused', 1],
  ])
  assert.deepEqual([most, waiting.length], [1, 1])
})

test('basic auth: guessing pushes out nobody, and a failure of the hashing is no decision', async () => {
  let hashed = 0
  let broken = false
  const auth = createBasicAuth((password) => {
    hashed++
    return broken ? Promise.reject(new Error('broken')) : Promise.resolve(password === 'right')
  })
  const users: Users = new Map([['alice', 'hash']])
  const decide = (password: string): Promise<string> => auth.decide(basic(`alice:${password}`), users, () => false)
  assert.equal(await decide('right'), 'allowed')
  for (let i = 0; i < 150; i++) assert.equal(await decide(`guess ${i}`), 'refused')
  assert.equal(hashed, 151)
  assert.equal(await decide('right'), 'allowed')
  assert.equal(await decide('guess 149'), 'refused')
  assert.equal(hashed, 151, 'both were remembered')
  broken = true
  await assert.rejects(decide('guess 0'), /broken/)
  broken = false
  assert.equal(await decide('guess 0'), 'refused')
})

test('basic auth: while passwords are guessed, everyone else is served', async (t) => {
  const { get } = await startGuarded(t, `basic_auth_users: {alice: "${hashSync('open sesame', 10)}"}`)
  assert.equal((await get('/metrics', { authorization: ALICE })).status, 200)
  const statuses: number[] = []
  const guesses = Array.from({ length: 25 }, async (_, i) => {
    const { status } = await get('/metrics', { authorization: basic(`alice:${i}`) })
    statuses.push(status)
  })
  for (let i = 0; i < 5; i++) {
    assert.equal((await get('/metrics', { authorization: ALICE })).status, 200)
    assert.equal((await get('/healthz')).status, 200)
  }
  assert.ok(statuses.length < 25, 'every guess was answered before')
  await Promise.all(guesses)
  assert.deepEqual(
    statuses.sort(),
    Array.from({ length: 25 }, (_, i) => (i < 10 ? 401 : 503)),
  )
})

test('basic auth: hashes are made beside the event loop', async () => {
  const users: Users = new Map([['alice', hashSync('open sesame', 11)]])
  let turns = 0
  const counting = new AbortController()
  const turn = (): void => {
    turns++
    if (!counting.signal.aborted) setImmediate(turn)
  }
  turn()
  const decision = await createBasicAuth().decide(ALICE, users, () => false)
  counting.abort()
  assert.equal(decision, 'allowed')
  assert.ok(turns > 100, `${turns} turns of the event loop`)
})
