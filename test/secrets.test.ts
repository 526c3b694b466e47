import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, request } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'

import { hashSync } from 'bcryptjs'

import { commands } from '../src/commands/all.js'
import { parseCommandLine } from '../src/commands/command-line.js'
import { StartError, UsageError } from '../src/core/errors.js'
import type { Pair } from '../src/core/pair.js'
import { systemClock } from '../src/io/clock.js'
import { createHttp } from '../src/io/http-client.js'
import { createAuthority } from './helpers/certificates.js'
import { historyAnswer } from './helpers/fake-history.js'
import { fakeRuntime, vectorAnswer } from './helpers/fake-runtime.js'
import { runProgram, startProgram } from './helpers/program.js'
import { CALM_MS, recordingOf } from './helpers/recordings.js'
import { temporaryFolder } from './helpers/temporary-folder.js'

/*
 * Secrets are planted wherever secrets can be, the programs are put through everything that goes wrong, and then all that they
 * wrote and served is searched for them.
 */

const PASSWORD = 'planted-password-51f0'
const TOKEN = 'planted-token-9c3e'
const OWN_PASSWORD = 'planted-own-password-a77d'
const IN_URL = 'planted-userinfo-30bb'
const IN_QUERY = 'planted-query-parameter-e2c8'
const IN_FILE = 'planted-in-the-file-64d9'

function basic(user: string, password: string): string {
  return Buffer.from(`${user}:${password}`).toString('base64')
}

interface Planted {
  readonly folder: string
  readonly file: (name: string) => string
  readonly write: (name: string, content: string) => string
  /** Everything that must not be found. */
  readonly secrets: readonly string[]
}

/** A folder with credentials of every kind, and what of them must never be seen. */
function plant(t: TestContext): Planted {
  const folder = temporaryFolder(t)
  const certificates = join(folder, 'certificates')
  mkdirSync(certificates)
  const authority = createAuthority(certificates, 'ca')
  authority.issue('server')
  authority.issue('client')
  const hash = hashSync(OWN_PASSWORD, 4)
  const file = (name: string): string => join(folder, name)
  const write = (name: string, content: string): string => {
    writeFileSync(file(name), content)
    return file(name)
  }
  const tls =
    'tls_config: {ca_file: certificates/ca.pem, cert_file: certificates/client.pem, key_file: certificates/client.key}'
  write('password', `${PASSWORD}\n`)
  write('token', `${TOKEN}\n`)
  write('prometheus.yml', `basic_auth: {username: alice, password_file: password}\n${tls}\n`)
  write('alertmanager.yml', `authorization: {credentials_file: token}\n${tls}\n`)
  write(
    'web.yml',
    `tls_server_config: {cert_file: certificates/server.pem, key_file: certificates/server.key}\nbasic_auth_users: {carol: "${hash}"}\n`,
  )
  write('training.json', recordingOf(CALM_MS))
  const keyLines = ['ca', 'server', 'client'].flatMap((name) =>
    readFileSync(join(certificates, `${name}.key`), 'utf8')
      .split('\n')
      .filter((line) => line.length > 20 && !line.startsWith('-----')),
  )
  assert.ok(keyLines.length >= 6)
  const encoded = [basic('alice', PASSWORD), basic('carol', OWN_PASSWORD)]
  return {
    folder,
    file,
    write,
    secrets: [PASSWORD, TOKEN, OWN_PASSWORD, IN_URL, IN_QUERY, IN_FILE, hash, hash.slice(7), ...encoded, ...keyLines],
  }
}

function assertClean(what: string, text: string, { secrets }: Planted): void {
  // Half a secret is one, too: a text that is cut off must not end in the middle of it.
  for (const secret of secrets) {
    const part = secret.slice(0, Math.min(secret.length, 20))
    const at = text.indexOf(part)
    assert.equal(at, -1, `${what} has a secret: ...${text.slice(Math.max(0, at - 200), at + 100)}...`)
  }
}

/** What a server can do wrong, while it repeats what it was sent wherever that can stand. */
const BEHAVIOURS: Readonly<Record<string, (sent: string, response: ServerResponse, request: IncomingMessage) => void>> =
  {
    auth: (sent, response) => response.writeHead(401, { 'www-authenticate': sent }).end(`wrong: ${sent}`),
    http_5xx: (sent, response) => response.writeHead(500, { 'x-sent': sent }).end(`failed with ${sent}`),
    http_4xx: (sent, response) => response.writeHead(404).end(sent),
    api_error: (sent, response) =>
      response
        .writeHead(400)
        .end(JSON.stringify({ status: 'error', errorType: 'bad_data', error: `you sent ${sent}` })),
    bad_json: (sent, response) => response.end(`<p>${sent}</p>`),
    bad_shape: (sent, response) => response.end(JSON.stringify({ status: sent, data: sent })),
    wrong_type: (sent, response) =>
      response.end(JSON.stringify({ status: 'success', data: { resultType: sent, result: [] } })),
    redirect: (sent, response) =>
      response
        .writeHead(302, { location: `https://${IN_URL}:${IN_URL}@x.example/?token=${encodeURIComponent(sent)}` })
        .end(sent),
    conn: (_sent, _response, { socket }) => void socket.destroy(),
    timeout: (sent, response) => void response.write(sent),
  }

interface Hostile {
  readonly url: string
  /** The outcome that it makes; undefined: it answers well. */
  behave: string | undefined
  /** Authorization headers that came. */
  readonly sent: Set<string>
}

async function startHostile(t: TestContext, { file }: Planted): Promise<Hostile> {
  const pair: Pair = { source: 'a', destination: 'b' }
  const beganSeconds = Date.now() / 1000 - 5
  const good = (query: string): string => {
    const nowMs = Date.now()
    const history = (_pair: Pair, seconds: number): number => (seconds > beganSeconds ? 1 : 0)
    if (query.includes('lab7_anomaly_count')) return historyAnswer(query, { pairs: [pair], nowMs, history })
    const newest = { metric: { series: 'sample_timestamp_seconds' }, value: String(nowMs / 1000) }
    return vectorAnswer([{ metric: { quantile: '0.5' }, value: '9.5' }, newest], nowMs / 1000)
  }
  const sent = new Set<string>()
  const options = {
    cert: readFileSync(file('certificates/server.pem')),
    key: readFileSync(file('certificates/server.key')),
  }
  const server = createServer(options, (asked, response) => {
    const { authorization = '' } = asked.headers
    sent.add(authorization)
    const behave = BEHAVIOURS[hostile.behave ?? '']
    if (behave !== undefined) behave(authorization.replace(/^\w+ /, ''), response, asked)
    else response.end(good(new URL(asked.url ?? '', 'http://x').searchParams.get('query') ?? ''))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  const hostile: Hostile = {
    url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    behave: undefined,
    sent,
  }
  return hostile
}

/** Everything that a daemon serves, with and without credentials, headers included. */
async function served(url: string, { file }: Planted): Promise<string> {
  const ca = readFileSync(file('certificates/ca.pem'))
  const get = (path: string, headers: Readonly<Record<string, string>>): Promise<string> =>
    new Promise((resolve, reject) => {
      const asked = request(url + path, { ca, headers, agent: false }, (response) => {
        let text = `${response.statusCode ?? 0} ${JSON.stringify(response.headers)}\n`
        response.on('data', (data: Buffer) => (text += data.toString()))
        response.on('end', () => resolve(text))
      })
      asked.on('error', reject)
      asked.end()
    })
  const own = { authorization: `Basic ${basic('carol', OWN_PASSWORD)}` }
  const open = await get('/metrics', own)
  assert.match(open, /^200 /)
  const paths = ['/', '/api/state', '/api/incidents', '/healthz', '/readyz', '/nope']
  return (
    await Promise.all([
      Promise.resolve(open),
      ...paths.map((path) => get(path, own)),
      get('/metrics', {}),
      get('/metrics', { authorization: `Basic ${basic('carol', PASSWORD)}` }),
      get(`/metrics?token=${IN_QUERY}`, {}),
    ])
  ).join('\n')
}

const COMMON = [
  ...['--listen-address=127.0.0.1', '--prometheus-port=0', '--poll-interval-seconds=0.4'],
  ...['--source-label=source_app'],
]

const MONITOR = ['--service1=a', '--service2=b']
const INCIDENT = ['--pair=a:b', '--incident-threshold=1', '--clear-threshold=0']

for (const command of ['monitor', 'incident'] as const) {
  test(`secrets: ${command} shows none of its own, whatever goes wrong`, { timeout: 120_000 }, async (t) => {
    const planted = plant(t)
    const { file, write } = planted
    const [prometheus, alertmanager] = [await startHostile(t, planted), await startHostile(t, planted)]
    alertmanager.behave = 'api_error' // with status 400, which is logged with the body's words
    const program = startProgram(
      t,
      [
        command,
        ...COMMON,
        ...(command === 'monitor'
          ? [...MONITOR, `--training-data-file=${file('training.json')}`]
          : [
              ...INCIDENT,
              `--alertmanager-url=${alertmanager.url}`,
              `--alertmanager-http-config-file=${file('alertmanager.yml')}`,
            ]),
        `--prometheus-url=${prometheus.url}`,
        `--prometheus-http-config-file=${file('prometheus.yml')}`,
        `--web-config-file=${file('web.yml')}`,
      ],
      { HTTP_PROXY: `http://u:${IN_URL}@127.0.0.1:1`, HTTPS_PROXY: `http://u:${IN_URL}@127.0.0.1:1` },
    )
    const url = String((await program.logged('where it listens', ({ msg }) => msg === 'listening'))['url'])
    const pages = [await served(url, planted)]
    if (command === 'incident') {
      await program.logged('a refused alert', ({ msg }) => String(msg).startsWith('an alert was refused'))
    }
    for (const outcome of Object.keys(BEHAVIOURS)) {
      prometheus.behave = outcome
      await program.logged(outcome, (line) => line['msg'] === 'polls fail' && line['outcome'] === outcome)
      pages.push(await served(url, planted))
    }
    prometheus.behave = undefined
    await program.logged('that it recovered', ({ msg }) => msg === 'polls succeed again')

    const broken = (what: string): Promise<unknown> =>
      program.logged(what, ({ detail }) => String(detail).includes(what))
    write('prometheus.yml', `basic_auth: {username: alice, password: ${IN_FILE}}\n`)
    await broken('must not stand in the file')
    write('prometheus.yml', `authorization: {credentials_file: token}\ntls_config: {ca_file: ${IN_FILE}`)
    await broken('not YAML')
    write('web.yml', `basic_auth_users: {carol: ${IN_FILE}}\n`)
    await broken('must be a bcrypt hash')
    rmSync(file('certificates/server.key'))
    write('web.yml', 'tls_server_config: {cert_file: certificates/server.pem, key_file: certificates/client.key}\n')
    await broken('does not belong')
    pages.push(await served(url, planted))

    program.kill('SIGTERM')
    const { code, stdout, stderr } = await program.exit
    assert.deepEqual([code, stderr], [0, ''])
    assert.deepEqual([...prometheus.sent], [`Basic ${basic('alice', PASSWORD)}`])
    if (command === 'incident') assert.deepEqual([...alertmanager.sent], [`Bearer ${TOKEN}`])
    assertClean('the log', stdout, planted)
    assertClean('what it serves', pages.join('\n'), planted)
  })
}

/** What a command says in all, run to its end within this process, as main.ts would run it. */
async function said(args: readonly string[], environment: Readonly<Record<string, string>> = {}): Promise<string> {
  const runtime = fakeRuntime([])
  let error: unknown
  try {
    const parsed = parseCommandLine({ args, environment, commands, version: '0.0.0' })
    if (parsed.kind === 'job') await parsed.job.run({ ...runtime, clock: systemClock, http: createHttp() })
  } catch (thrown) {
    if (!(thrown instanceof UsageError || thrown instanceof StartError)) throw thrown
    error = thrown
  }
  const message = error instanceof Error ? `${error.name}: ${error.message}\n` : ''
  return `${message}${runtime.written()}${JSON.stringify(runtime.logged)}`
}

test('secrets: commands that fail say nothing of them', { timeout: 120_000 }, async (t) => {
  const planted = plant(t)
  const { file, write } = planted
  const hostile = await startHostile(t, planted)
  const record = ['record', ...MONITOR, `--output=${join(planted.folder, 'out.json')}`, '--range=1m']
  const doctor = ['doctor', ...MONITOR]
  const monitor = ['monitor', '--check', ...MONITOR, `--training-data-file=${file('training.json')}`]
  const incident = ['incident', '--check', '--pair=a:b']
  const here = `--prometheus-url=${hostile.url}`
  const config = (path: string): string => `--prometheus-http-config-file=${path}`
  const access = [here, config(file('prometheus.yml'))]
  const clean = (args: readonly string[], output: string): void =>
    assertClean(args.join(' ').replaceAll(/planted[\w-]+/g, '...'), output, planted)

  for (const { args, environment } of [
    // Addresses with secrets in them, well-formed and not.
    { args: [...monitor, `--prometheus-url=http://alice:${IN_URL}@p:9090`] },
    { args: [...monitor, `--prometheus-url=http://alice:${IN_URL}@p:99999`] },
    { args: [...monitor, `--prometheus-url=alice:${IN_URL}@p:9090`] },
    { args: [...monitor, `--prometheus-url=http://alice:x/${IN_URL}@p:9090`] },
    { args: [...record, `--prometheus-url=https://p:9090/?token=${IN_QUERY}`] },
    { args: [...doctor, `--prometheus-url=http://p:x/#${IN_QUERY}`] },
    { args: [...incident, here, `--alertmanager-url=http://${IN_URL}@a:9093`] },
    { args: monitor, environment: { MESHFEVER_PROMETHEUS_URL: `http://alice:${IN_URL}@p` } },
    // Files that are not what they should be.
    { args: [...monitor, here, config(write('a.yml', `basic_auth: {username: a, password: ${IN_FILE}}`))] },
    { args: [...doctor, here, config(write('b.yml', `authorization: {credentials: ${IN_FILE}}`))] },
    { args: [...record, here, config(write('c.yml', `basic_auth: {username: a, pasword_file: ${IN_FILE}}`))] },
    { args: [...monitor, here, config(write('d.yml', `tls_config: [${IN_FILE}`))] },
    { args: [...monitor, here, config(file('password'))] },
    { args: [...monitor, here, config(file('certificates/client.key'))] },
    { args: [...monitor, here, `--web-config-file=${file('certificates/server.key')}`] },
    { args: [...incident, here, `--web-config-file=${write('e.yml', `basic_auth_users: {a: ${IN_FILE}}`)}`] },
    { args: ['replay', file('certificates/client.key'), file('training.json')] },
  ]) {
    const output = await said(args, environment)
    assert.match(output, /^(UsageError|RecordingError): ./)
    clean(args, output)
  }
  // Servers that repeat what they were sent.
  for (const behave of ['auth', 'http_5xx', 'bad_json', 'api_error', 'wrong_type', 'redirect', 'conn']) {
    hostile.behave = behave
    const output = await said([...record, ...access])
    assert.match(output, /^StartError: nothing recorded/, behave)
    clean([behave, ...record], output)
    for (const args of [
      [...doctor, ...access],
      [...doctor, ...access, '--json'],
    ]) {
      const findings = await said(args)
      assert.match(findings, /prometheus/i)
      clean([behave, ...args], findings)
    }
  }
  assert.deepEqual([...hostile.sent], [`Basic ${basic('alice', PASSWORD)}`])

  // The same through the real program.
  hostile.behave = 'auth'
  for (const { args, code } of [
    { args: [...record, ...access], code: 1 },
    { args: [...monitor, here, config(file('a.yml'))], code: 2 },
    { args: [...monitor, ...access, `--web-config-file=${file('web.yml')}`], code: 0 },
  ]) {
    const exit = await runProgram(t, args)
    assert.equal(exit.code, code, exit.stderr)
    assert.notEqual(exit.stdout + exit.stderr, '')
    clean(args, exit.stdout + exit.stderr)
  }
})
