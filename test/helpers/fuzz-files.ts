import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import fc from 'fast-check'
import { Registry } from 'prom-client'
import { stringify } from 'yaml'

import { maintenanceFlag } from '../../src/commands/maintenance-flag.js'
import { UsageError } from '../../src/core/errors.js'
import { groundTruthJson, parseGroundTruth } from '../../src/core/ground-truth.js'
import { coldState, type IncidentRules } from '../../src/core/incident.js'
import { maintenanceAt } from '../../src/core/maintenance.js'
import { parseExperiment } from '../../src/experiment/experiment-file.js'
import { createNotifier } from '../../src/io/alertmanager.js'
import { readHttpConfigFile } from '../../src/io/http-config.js'
import { readWebConfigFile } from '../../src/io/web-config.js'
import { fakeRuntime, type FakeAnswer } from './fake-runtime.js'
import { type FuzzProperty, property } from './fuzz.js'
import { checkedExposition } from './fuzz-exposition-checks.js'
import { almost, anyJson, anyName, damaged, serviceName } from './fuzz-inputs.js'
import { packageRoot } from './package-root.js'

const T0 = 1_700_000_000
const SECRET = 'correct horse battery staple'

const folder = mkdtempSync(join(tmpdir(), 'meshfever-fuzz-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
writeFileSync(join(folder, 'password'), SECRET)
writeFileSync(join(folder, 'empty'), '')

/** What a UsageError says: one line that begins with the name of the file, and no secret. */
function checkUsage(error: unknown, file: string): void {
  assert.ok(error instanceof UsageError, error instanceof Error ? (error.stack ?? '') : String(error))
  assert.ok(error.message.startsWith(file), error.message)
  assert.doesNotMatch(error.message, /\n/)
  assert.ok(!error.message.includes(SECRET), error.message)
  assert.ok(error.message.length <= 2_000, `${error.message.length} characters`)
}

function read<T>(file: string, reader: () => T): T | undefined {
  try {
    return reader()
  } catch (error) {
    checkUsage(error, file)
    return undefined
  }
}

const experimentFolder = join(packageRoot(), 'experiments')
const EXPERIMENTS = readdirSync(experimentFolder)
  .filter((name) => name.endsWith('.yaml'))
  .map((name) => readFileSync(join(experimentFolder, name)))

const MODELS = ['load-and-season', 'static-mad']

const scalar: fc.Arbitrary<unknown> = fc.oneof(
  anyJson,
  anyName,
  fc.constantFrom<unknown>(
    -1,
    0,
    0.001,
    1,
    15,
    1e6,
    1e9,
    1e308,
    NaN,
    Infinity,
    null,
    true,
    '',
    'testbed',
    'kubernetes',
    'online-boutique',
    'sock-shop',
    [],
    {},
    '1-10',
    'frontend:cartservice',
  ),
)

/** The keys of an experiment with anything behind them. */
const experimentDocument: fc.Arbitrary<unknown> = almost({
  name: fc.oneof(fc.constant('x'), scalar),
  target: fc.oneof(fc.constant('testbed'), scalar, fc.record({ kubernetes: scalar })),
  application: fc.oneof(fc.constant('online-boutique'), scalar),
  seed: scalar,
  pairs: fc.oneof(fc.constant(['frontend:cartservice']), fc.array(scalar, { maxLength: 3 }), scalar),
  training: fc.oneof(fc.constant({ seconds: 1_860 }), scalar, fc.record({ seconds: scalar })),
  observe: fc.oneof(fc.constant({ seconds: 600 }), scalar, fc.record({ seconds: scalar })),
  load: fc.oneof(
    fc.constant({ users: [10], stepSeconds: 60, spawnRate: 10, waitSeconds: '1-10' }),
    scalar,
    fc.record(
      {
        users: fc.oneof(scalar, fc.array(scalar, { maxLength: 3 })),
        stepSeconds: scalar,
        spawnRate: scalar,
        waitSeconds: scalar,
        transients: scalar,
      },
      { requiredKeys: [] },
    ),
  ),
  faults: fc.oneof(
    fc.constant([]),
    scalar,
    fc.array(
      fc.record(
        { from: scalar, to: scalar, delay: scalar, service: scalar, pair: scalar, kind: scalar },
        { requiredKeys: [] },
      ),
      { maxLength: 2 },
    ),
  ),
  timing: fc.oneof(
    fc.constant({}),
    scalar,
    fc.dictionary(fc.constantFrom('scrapeSeconds', 'windowSeconds', 'pollSeconds', 'recordSeconds'), scalar),
  ),
  model: fc.oneof(fc.constant('static-mad'), scalar),
  incident: fc.oneof(
    fc.constant({}),
    scalar,
    fc.dictionary(fc.constantFrom('incidentThreshold', 'clearThreshold', 'coolBy', 'accumulatorMax'), scalar),
  ),
  expect: fc.oneof(fc.constant({ severity: 'none' }), scalar),
})

const yamlText = (document: fc.Arbitrary<unknown>): fc.Arbitrary<string> =>
  document.map((value) => stringify(value, { aliasDuplicateObjects: false }))

/** What people write into such files, and what they should not. */
const WEB_CONFIGS = [
  'basic_auth_users:\n  alice: $2b$10$abcdefghijklmnopqrstuuJcXZ1Y5cWZ8cJ5n1cXZ1Y5cWZ8cJ5n2\n',
  `basic_auth_users: {alice: ${SECRET}}\nhttp_server_config: {http2: false, headers: {X-Frame-Options: deny, X-Content-Type-Options: nosniff}}\n`,
  'tls_server_config:\n  cert_file: empty\n  key_file: password\n  min_version: TLS13\n  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: empty\n',
  `{${SECRET}: [${SECRET}, &a {b: *a}], <<: *a}`,
]

const HTTP_CONFIGS = [
  'basic_auth:\n  username: alice\n  password_file: password\n',
  'authorization:\n  type: Bearer\n  credentials_file: password\nfollow_redirects: false\nenable_http2: false\n',
  'tls_config:\n  ca_file: empty\n  server_name: p\n  insecure_skip_verify: true\n  min_version: TLS12\n',
  `basic_auth: {username: alice, password: ${SECRET}}`,
  `? ${SECRET}\n: {${SECRET}: "${SECRET}"}\n---\n${SECRET}`,
]

const sectionKey = fc.constantFrom(
  'basic_auth',
  'authorization',
  'tls_config',
  'tls_server_config',
  'http_server_config',
  'basic_auth_users',
  'headers',
  'username',
  'password_file',
  'credentials_file',
  'type',
  'cert_file',
  'key_file',
  'ca_file',
  'min_version',
  'client_auth_type',
  'follow_redirects',
  '__proto__',
  'constructor',
  SECRET,
)
const sectionValue = fc.oneof(
  scalar,
  fc.constantFrom<unknown>('password', 'empty', '.', 'nowhere', '/dev/null', SECRET, 'a\0b', 'TLS12', false),
)
const sections = fc.dictionary(
  sectionKey,
  fc.oneof(
    sectionValue,
    fc.dictionary(sectionKey, fc.oneof(sectionValue, fc.dictionary(sectionKey, sectionValue, { maxKeys: 2 })), {
      maxKeys: 4,
    }),
  ),
  { maxKeys: 3 },
)

const window = almost({
  name: fc.oneof(fc.constant('delay'), anyName),
  from: fc.oneof(fc.integer({ min: T0, max: T0 + 100 }), scalar),
  to: fc.oneof(fc.integer({ min: T0 + 50, max: T0 + 200 }), scalar),
})
const fault = fc
  .tuple(
    window,
    fc.oneof(
      fc.array(almost({ source: fc.oneof(serviceName, anyName), destination: fc.oneof(serviceName, anyName) }), {
        maxLength: 2,
      }),
      scalar,
    ),
  )
  .map(([one, pairs]) => (typeof one === 'object' && one !== null && !Array.isArray(one) ? { ...one, pairs } : one))
const truth = almost({
  faults: fc.oneof(fc.array(fault, { maxLength: 3 }), scalar),
  transients: fc.oneof(fc.array(window, { maxLength: 3 }), scalar),
})

const cronField = (min: number, max: number): fc.Arbitrary<string> =>
  fc.oneof(
    fc.constant('*'),
    fc.integer({ min, max }).map(String),
    fc.tuple(fc.integer({ min, max }), fc.integer({ min, max })).map(([a, b]) => `${Math.min(a, b)}-${Math.max(a, b)}`),
    fc.integer({ min: 1, max: 9 }).map((step) => `*/${step}`),
    fc.array(fc.integer({ min, max }), { minLength: 1, maxLength: 3 }).map((values) => values.join(',')),
    fc.constantFrom('', '99', '-1', 'L', '?', 'W', '#', 'MON', '1#6', '0-0', '*/0', '31', '30'),
  )
const cron = fc
  .tuple(cronField(0, 59), cronField(0, 23), cronField(1, 31), cronField(1, 12), cronField(0, 7))
  .map((fields) => fields.join(' '))

const notified = fc.record({
  level: fc.constantFrom(0, 12, 20),
  severity: fc.constantFrom<1 | 2 | null>(1, 2, null),
  elapsed: fc.constantFrom(0, 5, 5, 30, 600),
  answer: fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        status: fc.constantFrom(200, 200, 202, 301, 400, 401, 403, 404, 408, 415, 422, 429, 500, 503),
        body: fc.oneof(
          anyName,
          fc.constantFrom(
            '',
            '{"code":601,"message":"0.generatorURL in body must be of type uri"}',
            `"${'x'.repeat(5_000)}"`,
          ),
        ),
        headers: fc.dictionary(fc.constantFrom('location', 'retry-after'), anyName),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.constantFrom<FakeAnswer>(
        { code: 'ECONNREFUSED' },
        { code: 'ECONNRESET' },
        { code: 'ENOTFOUND' },
        { code: 'CERT_HAS_EXPIRED' },
      ),
    },
  ),
})

export const properties: readonly FuzzProperty[] = [
  property(
    { name: 'an experiment file is an experiment, or one line that names the file', runs: 1_500 },
    fc.oneof(damaged(EXPERIMENTS).map(String), yamlText(experimentDocument)),
    (text) => {
      const experiment = read('experiment.yaml', () => parseExperiment(text, 'experiment.yaml', MODELS))
      if (experiment === undefined) return
      assert.doesNotMatch(JSON.stringify(experiment), /:null,"(incidentThreshold|coolBy|seconds)"/)
      assert.ok(MODELS.includes(experiment.model))
    },
  ),

  property(
    { name: 'a file of ground truth is read and written alike, or refused with its name', runs: 2_500 },
    truth,
    (document) => {
      const found = read('truth.json', () => parseGroundTruth(JSON.parse(JSON.stringify(document)), 'truth.json'))
      if (found === undefined) return
      assert.deepEqual(parseGroundTruth(JSON.parse(JSON.stringify(groundTruthJson(found))), 'again'), found)
      for (const { fromSeconds, toSeconds } of [...found.faults, ...found.transients])
        assert.ok(fromSeconds < toSeconds)
    },
  ),

  property(
    { name: 'a web configuration is one, or one line that names the file and no secret', runs: 1_500 },
    fc.oneof(
      damaged(WEB_CONFIGS),
      yamlText(sections).map((text) => Buffer.from(text)),
    ),
    (bytes) => {
      const path = join(folder, 'web.yml')
      writeFileSync(path, bytes)
      read(`--web-config-file: ${path}`, () => readWebConfigFile(path, '--web-config-file'))
    },
  ),

  property(
    { name: 'an HTTP configuration is one, or one line that names the file and no secret', runs: 1_500 },
    fc.oneof(
      damaged(HTTP_CONFIGS),
      yamlText(sections).map((text) => Buffer.from(text)),
    ),
    (bytes) => {
      const path = join(folder, 'http.yml')
      writeFileSync(path, bytes)
      const options = { flag: '--http', urls: ['https://p:9090'] }
      const access = read(`--http: ${path}`, () => readHttpConfigFile(path, options))?.current(fakeRuntime([]).logger)
      if (access?.authorization == null) return
      // Node would refuse to send anything else.
      assert.match(access.authorization, /^[\x20-\x7e]+$/)
      assert.ok(access.secrets.length > 0)
    },
  ),

  property(
    { name: 'a maintenance window that recurs holds at the times its schedule says', runs: 1_500 },
    fc.tuple(
      cron,
      fc.constantFrom('1m', '30m', '2h', '36h', '45d'),
      fc.array(fc.integer({ min: T0, max: T0 + 40_000_000 }), { minLength: 1, maxLength: 3 }),
    ),
    ([text, span, times]) => {
      const found = read('--maintenance', () =>
        maintenanceFlag(`${text} for ${span} until 2026-01-01T00:00:00Z=batch`, '--maintenance'),
      )
      if (found?.kind !== 'recurring') return
      for (const time of times) {
        const held: boolean = maintenanceAt([found], time) !== null
        const start: number | null = found.schedule.firstAfter(time - found.durationSeconds)
        assert.ok(start === null || start > time - found.durationSeconds)
        assert.equal(held, time < found.untilSeconds && start !== null && start <= time)
        if (start === null) continue
        // The schedule's own fields, read once more.
        const at: Date = new Date(start * 1_000)
        const [minute, hour] = text.split(' ')
        if (/^\d+$/.test(minute!)) assert.equal(at.getUTCMinutes(), Number(minute))
        if (/^\d+$/.test(hour!)) assert.equal(at.getUTCHours(), Number(hour))
        assert.equal(at.getUTCSeconds(), 0)
        if (start >= found.untilSeconds) continue
        assert.equal(maintenanceAt([found], start), 'batch')
      }
    },
  ),

  property(
    { name: 'whatever Alertmanager answers, it is logged in bounded lines and counted', runs: 1_000 },
    fc.array(notified, { minLength: 1, maxLength: 8 }),
    async (polls) => {
      const registry = new Registry()
      let posts = 0
      const runtime = fakeRuntime(() => polls[Math.min(polls.length - 1, posts++)]!.answer)
      const rules: IncidentRules = {
        pairs: [{ source: '"a\n', destination: 'b', accumulatorThreshold: 5 }],
        incidentThreshold: 10,
        clearThreshold: 5,
        coolBy: 2,
        accumulatorMax: 20,
        noDataTimeoutSeconds: 600,
      }
      const notifier = createNotifier(
        {
          alertmanagerUrls: ['http://am:9093'],
          maintenance: [],
          labels: { daemon: 'a"b' },
          noDataTimeoutSeconds: 600,
          pollIntervalMs: 5_000,
          random: () => 0.5,
        },
        runtime,
        registry,
      )
      let timestampSeconds = T0
      for (const { level, severity, elapsed } of polls) {
        timestampSeconds += elapsed
        const open = severity === null ? null : { startedSeconds: T0, severity }
        notifier.update({
          rules,
          state: { ...coldState(rules), accumulators: [level], open },
          evidence: [],
          timestampSeconds,
          live: true,
        })
        for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve))
      }
      runtime.stop()
      await notifier.idle()
      const families = checkedExposition(await registry.metrics())
      const counted = families.get('meshfever_notifications_total')!.samples.reduce((sum, { value }) => sum + value, 0)
      assert.ok(counted <= posts, `${counted} of ${posts}`)
      for (const line of runtime.logged) assert.ok(JSON.stringify(line).length <= 2_000)
    },
  ),

  property(
    { name: 'answers and files of any depth end in words, not in a stack', runs: 60 },
    fc.tuple(
      fc.integer({ min: 1, max: 3_000 }),
      fc.constantFrom('[', '{"faults":[', '{"a":', '- '),
      fc.constantFrom('truth', 'experiment', 'web'),
    ),
    ([depth, opening, kind]) => {
      const text = opening.repeat(depth)
      if (kind === 'truth') {
        const closing = { '[': ']', '{"faults":[': ']}', '{"a":': '}', '- ': '' }[opening]
        let document: unknown
        try {
          document = JSON.parse(`${text}1${closing.repeat(depth)}`)
        } catch {
          return
        }
        read('truth.json', () => parseGroundTruth(document, 'truth.json'))
      } else if (kind === 'experiment') read('experiment.yaml', () => parseExperiment(text, 'experiment.yaml', MODELS))
      else {
        const path = join(folder, 'deep.yml')
        writeFileSync(path, text)
        read(`--web: ${path}`, () => readWebConfigFile(path, '--web'))
      }
    },
  ),
]
