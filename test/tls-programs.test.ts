import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { after, type TestContext } from 'node:test'

import { hashSync } from 'bcryptjs'

import type { Pair } from '../src/core/pair.js'
import { findAlertmanager } from '../src/testbed/alertmanager-server.js'
import { startChild } from '../src/testbed/child-process.js'
import { findPrometheus, writeTargets } from '../src/testbed/prometheus-server.js'
import { createAuthority } from './helpers/certificates.js'
import { historyAnswer } from './helpers/fake-history.js'
import { fakeRuntime } from './helpers/fake-runtime.js'
import { clientFor, said } from './helpers/http-config.js'
import { eventually } from './helpers/live-mesh.js'
import { startHttpServer } from './helpers/local-server.js'
import { startProgram } from './helpers/program.js'
import { CALM_MS, recordingOf } from './helpers/recordings.js'
import { temporaryFolder } from './helpers/temporary-folder.js'

const certificates = mkdtempSync(join(tmpdir(), 'meshfever-test-'))
after(() => rmSync(certificates, { recursive: true, force: true }))
const authority = createAuthority(certificates, 'ca')
const server = authority.issue('server')
const client = authority.issue('client')
const stranger = createAuthority(certificates, 'stranger').issue('strange-client')

const TIMEOUT = { timeout: 90_000 }
const PATIENCE = ['--poll-interval-seconds=0.5', '--listen-address=127.0.0.1', '--prometheus-port=0']

function machine() {
  const { program, logger } = fakeRuntime([])
  return { program: { ...program, environment: process.env, isRoot: process.getuid?.() === 0 }, logger }
}

/** @param more - further keys of tls_server_config */
function webConfig(password: string, more = ''): string {
  const tls = [`cert_file: ${server.certFile}`, `key_file: ${server.keyFile}`, ...(more === '' ? [] : [more])]
  return `tls_server_config: {${tls.join(', ')}}\nbasic_auth_users: {meshfever: "${hashSync(password, 4)}"}\n`
}

/** One of the ecosystem's own servers, with TLS and users, on a free port. */
async function startSecured(
  t: TestContext,
  options: { readonly binary: string; readonly folder: string; readonly args: readonly string[] },
): Promise<string> {
  const { binary, folder, args } = options
  const child = startChild({
    name: binary,
    command: binary,
    args: [...args, `--web.config.file=${join(folder, 'web.yml')}`, '--web.listen-address=127.0.0.1:0'],
  })
  t.after(() => child.stop())
  const address = await child.waitForLine((line) => /"?Listening on"? address=(\S+)/.exec(line)?.[1])
  return `https://${address}`
}

test(
  'tls: a real Prometheus behind TLS, client certificates and users, and a monitor that is guarded itself',
  TIMEOUT,
  async (t) => {
    const folder = temporaryFolder(t)
    const file = (name: string, content = ''): string => {
      const path = join(folder, name)
      if (content !== '') writeFileSync(path, content)
      return path
    }
    const mutual = `client_auth_type: RequireAndVerifyClientCert, client_ca_file: ${authority.certFile}`
    file('web.yml', webConfig('first', mutual))
    file('password', 'first\n')
    file('scrape-password', 'scrape me\n')
    file('training.json', recordingOf(CALM_MS))
    const access = [
      'basic_auth: {username: meshfever, password_file: password}',
      `tls_config: {ca_file: ${authority.certFile}, cert_file: ${client.certFile}, key_file: ${client.keyFile}}`,
    ].join('\n')
    file('http.yml', access)
    file('monitor-web.yml', webConfig('scrape me'))
    writeTargets(file('monitors.json'), [])
    file(
      'prometheus.yml',
      [
        'global: {scrape_interval: 1s, scrape_timeout: 1s}',
        'scrape_configs:',
        '- job_name: meshfever',
        '  scheme: https',
        `  tls_config: {ca_file: ${authority.certFile}}`,
        '  basic_auth: {username: meshfever, password_file: scrape-password}',
        '  file_sd_configs: [{files: [monitors.json]}]',
      ].join('\n'),
    )
    const url = await startSecured(t, {
      binary: await findPrometheus(machine()),
      folder,
      args: [`--config.file=${file('prometheus.yml')}`, `--storage.tsdb.path=${file('data')}`],
    })

    const monitor = startProgram(t, [
      ...['monitor', '--service1=a', '--service2=b', `--training-data-file=${file('training.json')}`],
      ...['--query=vector(9.5)', ...PATIENCE, `--prometheus-url=${url}`],
      `--prometheus-http-config-file=${file('http.yml')}`,
      `--web-config-file=${file('monitor-web.yml')}`,
    ])
    const own = String((await monitor.logged('where it listens', ({ msg }) => msg === 'listening'))['url'])
    assert.match(own, /^https:\/\/127\.0\.0\.1:\d+$/)
    await monitor.logged('an answer', ({ msg, verdict }) => msg === 'evaluated' && verdict === 'ok')

    // Prometheus scrapes it in turn.
    const { host } = new URL(own)
    writeTargets(file('monitors.json'), [{ targets: [host] }])
    const files = { password: 'first' }
    const asking = clientFor(t, url, access, files)
    const scraped = await eventually('Prometheus has scraped the monitor', async () => {
      const answer = await asking.ask(url, `lab7_a_to_b_y{instance="${host}"}`)
      return answer.kind === 'answer' && answer.data.result.length > 0 ? answer.data.result[0] : undefined
    })
    assert.equal(scraped.value, 9.5)

    // Who lacks something does not get in, and is told what.
    const tls = access.split('\n')[1] ?? ''
    const withoutCertificate = access.replace(/, cert_file.*\}$/, '}')
    assert.match(
      said(await clientFor(t, url, withoutCertificate, files).ask()),
      /^tls: .*certificate required|^tls: .*bad certificate/,
    )
    const strange = access.replaceAll(client.certFile, stranger.certFile).replaceAll(client.keyFile, stranger.keyFile)
    assert.match(
      said(await clientFor(t, url, strange, files).ask()),
      /^tls: .*(bad certificate|unknown ca|unknown certificate authority)/,
    )
    assert.equal(said(await clientFor(t, url, tls).ask()), 'auth: HTTP 401')
    assert.equal(said(await clientFor(t, url, access, { password: 'wrong' }).ask()), 'auth: HTTP 401')
    const plain = url.replace('https', 'http')
    assert.equal(
      said(await clientFor(t, plain, 'basic_auth: {username: meshfever, password_file: password}', files).ask()),
      'tls: the server speaks https: begin the URL so',
    )

    // The password is changed while both run.
    file('web.yml', webConfig('second', mutual))
    await monitor.logged('that it is refused', ({ msg, outcome }) => msg === 'polls fail' && outcome === 'auth')
    file('password', 'second\n')
    const recovered = await monitor.logged('that it is let in', ({ msg }) => msg === 'polls succeed again')
    assert.equal(recovered['outcome'], 'auth')
    monitor.kill('SIGTERM')
    const { code, stdout, stderr } = await monitor.exit
    assert.deepEqual([code, stderr], [0, ''])
    assert.doesNotMatch(stdout, /first|second|scrape me|PRIVATE|\$2b\$/)
  },
)

test('tls: a real Alertmanager behind TLS and users is told by the incident daemon', TIMEOUT, async (t) => {
  const folder = temporaryFolder(t)
  const file = (name: string, content: string): string => {
    writeFileSync(join(folder, name), content)
    return join(folder, name)
  }
  file('web.yml', webConfig('pager'))
  const url = await startSecured(t, {
    binary: await findAlertmanager(machine()),
    folder,
    args: [
      `--config.file=${file('alertmanager.yml', 'route: {receiver: nobody}\nreceivers: [{name: nobody}]\n')}`,
      `--storage.path=${join(folder, 'data')}`,
      '--cluster.listen-address=',
    ],
  })
  const beganSeconds = Date.now() / 1000 - 5
  const history = (_pair: Pair, seconds: number): number => (seconds > beganSeconds ? 1 : 0)
  const prometheus = await startHttpServer(t, (request, response) => {
    const query = new URL(request.url ?? '', 'http://x').searchParams.get('query') ?? ''
    const pairs = [{ source: 'a', destination: 'b' }]
    if (query.includes('lab7_anomaly_count')) response.end(historyAnswer(query, { pairs, nowMs: Date.now(), history }))
    else response.writeHead(404).end()
  })
  file('password', 'wrong')
  const access = `basic_auth: {username: meshfever, password_file: password}\ntls_config: {ca_file: ${authority.certFile}}\n`
  const incident = startProgram(t, [
    ...['incident', '--pair=a:b', ...PATIENCE, '--incident-threshold=1', '--clear-threshold=0'],
    ...[`--prometheus-url=${prometheus.url}`, `--alertmanager-url=${url}`],
    `--alertmanager-http-config-file=${file('http.yml', access)}`,
  ])
  await incident.logged('that it is refused', ({ msg, outcome }) => msg === 'notifications fail' && outcome === 'auth')
  incident.kill('SIGTERM')
  assert.doesNotMatch((await incident.exit).stdout, /wrong/)

  file('password', 'pager')
  const again = startProgram(t, [
    ...['incident', '--pair=a:b', ...PATIENCE, '--incident-threshold=1', '--clear-threshold=0'],
    ...[`--prometheus-url=${prometheus.url}`, `--alertmanager-url=${url}`],
    `--alertmanager-http-config-file=${file('http.yml', access)}`,
  ])
  await again.logged('that it notified', ({ msg }) => msg === 'notified')
  again.kill('SIGTERM')
  const { code, stdout, stderr } = await again.exit
  assert.deepEqual([code, stderr], [0, ''])
  assert.doesNotMatch(stdout, /"pager"/)
})
