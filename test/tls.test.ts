import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type ServerOptions } from 'node:https'
import type { AddressInfo } from 'node:net'
import test, { after, type TestContext } from 'node:test'
import type { TLSSocket } from 'node:tls'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { createHttp } from '../src/io/http-client.js'
import { queryInstant } from '../src/io/prometheus.js'
import { createAuthority, selfSignedCertificate } from './helpers/certificates.js'
import { fakeRuntime } from './helpers/fake-runtime.js'
import { clientFor, GOOD, said } from './helpers/http-config.js'
import { startHttpServer, startTcpServer } from './helpers/local-server.js'

const folder = mkdtempSync(join(tmpdir(), 'meshfever-test-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const authority = createAuthority(folder, 'authority')
const stranger = createAuthority(folder, 'stranger')
const server = authority.issue('server')
const client = authority.issue('client')
const otherHost = authority.issue('other-host', { names: 'DNS:prometheus.example' })
const self = selfSignedCertificate(folder, 'self')

const CA_FILE = `tls_config: {ca_file: ${authority.certFile}}`

/** A Prometheus behind TLS, and the requests that got through to it. */
async function startTls(
  t: TestContext,
  options: ServerOptions,
): Promise<{
  readonly url: string
  readonly requests: () => number
  /** Resolves when a connection has ended. */
  readonly closed: Promise<unknown>
  readonly replace: (options: ServerOptions) => void
}> {
  let requests = 0
  const https = createServer(options, (_request, response) => {
    requests++
    response.end(GOOD)
  })
  https.keepAliveTimeout = 60_000
  const closed = once(https, 'secureConnection').then(([socket]) => once(socket as TLSSocket, 'close'))
  closed.catch(() => undefined)
  await new Promise<void>((resolve) => https.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    https.closeAllConnections()
    https.close()
  })
  return {
    url: `https://127.0.0.1:${(https.address() as AddressInfo).port}`,
    requests: () => requests,
    closed,
    replace: (next) => {
      https.setSecureContext(next)
      https.closeAllConnections()
    },
  }
}

const ONLY_1_1: ServerOptions = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' }

for (const { name, served, config, answer } of [
  { name: 'a certificate of the given authority', served: server, config: CA_FILE, answer: /^ok$/ },
  {
    name: 'an authority that nobody named',
    served: server,
    config: 'tls_config: {min_version: TLS12}',
    answer:
      /^tls: unable to verify the first certificate \(UNABLE_TO_VERIFY_LEAF_SIGNATURE\); tls_config.ca_file names/,
  },
  {
    name: 'another authority than the given one',
    served: server,
    config: `tls_config: {ca_file: ${stranger.certFile}}`,
    answer:
      /^tls: unable to verify the first certificate \(UNABLE_TO_VERIFY_LEAF_SIGNATURE\); tls_config.ca_file names/,
  },
  {
    name: 'an expired certificate',
    served: authority.issue('expired', { days: -1 }),
    config: CA_FILE,
    answer: /^tls: certificate has expired \(CERT_HAS_EXPIRED\)$/,
  },
  {
    name: 'the certificate of another host',
    served: otherHost,
    config: CA_FILE,
    answer: /^tls: Hostname\/IP does not match certificate's altnames: .* \(ERR_TLS_CERT_ALTNAME_INVALID\)$/,
  },
  {
    name: 'the certificate of the host that server_name says',
    served: otherHost,
    config: `tls_config: {ca_file: ${authority.certFile}, server_name: prometheus.example}`,
    answer: /^ok$/,
  },
  {
    name: 'a certificate that vouches for itself',
    served: self,
    config: CA_FILE,
    answer: /^tls: self-signed certificate \(DEPTH_ZERO_SELF_SIGNED_CERT\); tls_config.ca_file names/,
  },
  {
    name: 'one that vouches for itself and was named',
    served: self,
    config: `tls_config: {ca_file: ${self.certFile}}`,
    answer: /^ok$/,
  },
  {
    name: 'TLS 1.1 and no better',
    served: { ...server, ...ONLY_1_1 },
    config: CA_FILE,
    answer: /^tls: .*(protocol version|unsupported protocol) \((EPROTO|ERR_SSL_\w+)\)$/,
  },
  {
    name: 'TLS 1.2 where 1.3 is asked for',
    served: { ...server, maxVersion: 'TLSv1.2' as const },
    config: `tls_config: {ca_file: ${authority.certFile}, min_version: TLS13}`,
    answer: /^tls: .*protocol version \((EPROTO|ERR_SSL_\w+)\)$/,
  },
  {
    name: 'TLS 1.3 where 1.2 is asked for at most',
    served: { ...server, minVersion: 'TLSv1.3' as const },
    config: `tls_config: {ca_file: ${authority.certFile}, max_version: TLS12}`,
    answer: /^tls: .*protocol version \((EPROTO|ERR_SSL_\w+)\)$/,
  },
]) {
  test(`tls: ${name} is ${answer.source === '^ok$' ? 'taken' : 'refused'}`, async (t) => {
    const { cert, key, ...rest } = served
    const { url, requests } = await startTls(t, { ...rest, cert, key })
    assert.match(said(await clientFor(t, url, config).ask()), answer)
    assert.equal(requests(), answer.source === '^ok$' ? 1 : 0)
  })
}

test('tls: insecure_skip_verify takes any certificate, and the log says so once', async (t) => {
  const { url } = await startTls(t, self)
  const { ask, logged } = clientFor(t, url, 'tls_config: {insecure_skip_verify: true}')
  assert.equal(said(await ask()), 'ok')
  assert.equal(said(await ask()), 'ok')
  assert.deepEqual(
    logged.map(({ level, msg }) => [level, msg]),
    [[40, 'insecure_skip_verify: whoever answers is taken for the server, and is sent the credentials']],
  )
})

test('tls: NODE_TLS_REJECT_UNAUTHORIZED=0 in the environment switches nothing off', async (t) => {
  const { url, requests } = await startTls(t, self)
  process.env['NODE_TLS_REJECT_UNAUTHORIZED'] = '0'
  t.after(() => delete process.env['NODE_TLS_REJECT_UNAUTHORIZED'])
  const withoutConfig = { ...fakeRuntime([]), http: createHttp() }
  assert.match(
    said(await queryInstant(withoutConfig, { prometheusUrl: url, query: 'up', deadlineMs: 4_000 })),
    /^tls: self-signed certificate/,
  )
  assert.match(said(await clientFor(t, url, CA_FILE).ask()), /^tls: self-signed certificate/)
  assert.equal(requests(), 0)
})

const CLIENT_CONFIG = 'tls_config: {ca_file: ca.pem, cert_file: client.pem, key_file: client.key}'

test('tls: a client certificate is shown to a server that asks for one, and replaced without a restart', async (t) => {
  const { url, requests } = await startTls(t, { ...server, ca: authority.cert, requestCert: true })
  const wrong = stranger.issue('wrong-client')
  const files = { 'ca.pem': authority.cert, 'client.pem': wrong.cert, 'client.key': wrong.key }
  const { ask, write, logged } = clientFor(t, url, CLIENT_CONFIG, files)
  assert.match(said(await ask()), /^(tls|conn): /)
  assert.match(said(await clientFor(t, url, CA_FILE).ask()), /^(tls|conn): /, 'no certificate at all')
  write('client.pem', client.cert)
  assert.match(said(await ask()), /^(tls|conn): /, 'a key that does not belong to it')
  assert.equal(requests(), 0)
  write('client.key', client.key)
  assert.equal(said(await ask()), 'ok')
  assert.deepEqual(
    logged.map(({ msg }) => String(msg).replace(/^.*http\.yml/, '')),
    [' cannot be used as it is now: what was read before stays in use', ' was read again'],
  )
})

test('tls: a new authority is trusted as soon as it is in the file, and the old one no longer', async (t) => {
  const { url, replace } = await startTls(t, server)
  const { ask, write } = clientFor(t, url, 'tls_config: {ca_file: ca.pem}', { 'ca.pem': authority.cert })
  assert.equal(said(await ask()), 'ok')
  const renewed = stranger.issue('renewed')
  replace(renewed)
  assert.match(said(await ask()), /^tls: unable to verify/)
  write('ca.pem', `${authority.cert}${stranger.cert}`)
  assert.equal(said(await ask()), 'ok', 'two authorities in one file')
  write('ca.pem', authority.cert)
  assert.match(said(await ask()), /^tls: unable to verify/, 'and not over the connection that was kept')
})

test(
  'tls: a connection that was made with a certificate that was replaced is closed',
  { timeout: 40_000 },
  async (t) => {
    const { url, closed } = await startTls(t, server)
    const files = { 'ca.pem': authority.cert, 'client.pem': client.cert, 'client.key': client.key }
    const { ask, write } = clientFor(t, url, CLIENT_CONFIG, files)
    assert.equal(said(await ask()), 'ok')
    const next = authority.issue('next-client')
    write('client.pem', next.cert)
    write('client.key', next.key)
    assert.equal(said(await ask()), 'ok')
    await closed
  },
)

test('tls: https to a port for plain HTTP is refused with a hint', async (t) => {
  const { port } = await startHttpServer(t, (_request, response) => response.end(GOOD))
  assert.equal(
    said(await clientFor(t, `https://127.0.0.1:${port}`, CA_FILE).ask()),
    'tls: wrong version number: does the server speak TLS there? Else its URL begins with http',
  )
})

test('tls: a server that never answers the handshake is cut at the deadline', { timeout: 40_000 }, async (t) => {
  let greeted = (): void => undefined
  const hello = new Promise<void>((resolve) => (greeted = resolve))
  const { port } = await startTcpServer(t, (socket) => socket.once('data', () => greeted()))
  const { ask, advance } = clientFor(t, `https://127.0.0.1:${port}`, CA_FILE)
  const answer = ask()
  await hello
  await advance(4_000)
  assert.equal(said(await answer), 'timeout: no complete answer within 4 s')
})
