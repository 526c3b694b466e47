/* Wrong command lines and training files: the program ends before it serves anything, and says why in one line. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, symlinkSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'

import { CALM_MS, recordingOf, T0 } from '../helpers/recordings.js'
import { type Bench, PASSWORD, TOKEN } from './bench.js'
import { fileIn, longFile, runCommand, type RunOptions } from './commands.js'
import { assertWithoutSecrets } from './judge.js'
import { DEEP } from './misbehaviour.js'
import type { Row } from './row.js'

interface Attempt extends RunOptions {
  readonly args: readonly string[]
  /** Of the one line on stderr. Undefined: the command is fine. */
  readonly says?: RegExp
  readonly code?: number
}

const INCIDENT = ['incident', '--pair', 'a:b', '--prometheus-url', 'http://127.0.0.1:9', '--check']

async function attempt({ args, says, code = says === undefined ? 0 : 2, ...options }: Attempt): Promise<void> {
  const ended = await runCommand(args, options)
  const what = JSON.stringify(args).slice(0, 300)
  assertWithoutSecrets([ended.stdout, ended.stderr])
  assert.equal(ended.code, code, `exit code of ${what}: ${ended.stderr.slice(0, 300)}`)
  if (says === undefined) return
  const line = ended.stderr.trimEnd()
  assert.match(line, /^meshfever: [^\n]*$/, `one line on stderr from ${what}`)
  assert.match(line, says, `what stderr says of ${what}`)
  assert.doesNotMatch(ended.stdout, /"msg":"listening"/)
}

/** Each of the attempts. */
function row(
  id: string,
  fault: string,
  attempts: (bench: Bench) => readonly Attempt[] | Promise<readonly Attempt[]>,
  gate?: 'gate',
): Row {
  return {
    id,
    fault,
    ...(gate === undefined ? {} : { gate: true }),
    run: async (bench) => {
      const all = await attempts(bench)
      for (const one of all) await attempt(one)
      const codes = [...new Set(all.map(({ says, code = says === undefined ? 0 : 2 }) => code))]
      return `${all.length === 1 ? 'exit code' : `${all.length} tries, exit code`} ${codes.join(' or ')}${all.some(({ says }) => says !== undefined) ? ', one line' : ''}`
    },
  }
}

const wrongFlags = (
  id: string,
  fault: string,
  says: RegExp,
  flags: readonly (readonly string[])[],
  gate?: 'gate',
): Row => row(id, fault, () => flags.map((more) => ({ args: [...INCIDENT, ...more], says })), gate)

const monitorOf = (file: string, more: readonly string[] = []): readonly string[] => [
  ...['monitor', '--service1', 'a', '--service2', 'b', '--training-data-file', file],
  ...['--prometheus-url', 'http://127.0.0.1:9', '--check', ...more],
]

const services = (id: string, fault: string, names: readonly string[], gate?: 'gate'): Row =>
  row(
    id,
    fault,
    ({ trainingFile }) =>
      names.map((name) => ({
        args: [
          'monitor',
          `--service1=a`,
          `--service2=${name}`,
          '--training-data-file',
          trainingFile,
          '--prometheus-url',
          'http://127.0.0.1:9',
          '--check',
        ],
        says: /^meshfever: --service2 /,
      })),
    gate,
  )

/** A training file of this content. */
const training = (
  id: string,
  fault: string,
  contents: readonly (string | Buffer)[],
  says?: RegExp,
  gate?: 'gate',
): Row =>
  row(
    id,
    fault,
    (bench) =>
      contents.map((content) => ({
        args: monitorOf(fileIn(bench.newFolder(), 'training.json', content)),
        ...(says === undefined ? {} : { says }),
      })),
    gate,
  )

const GOOD = recordingOf(CALM_MS)
const values = (pairs: readonly unknown[], metric: unknown = {}): string =>
  JSON.stringify({ status: 'success', data: { resultType: 'matrix', result: [{ metric, values: pairs }] } })
const calm = (change: (i: number, value: string) => unknown): string =>
  values(CALM_MS.map((value, i) => [T0 + i * 15, change(i, String(value))]))
const SHAPE = /training-data-file/

export const COMMAND_ROWS: readonly Row[] = [
  row('C1', 'a flag that is missing, unknown, or too many words', () => [
    { args: ['incident', '--pair', 'a:b', '--check'], says: /--prometheus-url/ },
    { args: [...INCIDENT, '--prometheus-ulr', 'x'], says: /prometheus-ulr/ },
    { args: [...INCIDENT, 'more'], says: /more/ },
  ]),
  wrongFlags(
    'C2',
    '--prometheus-port abc, empty, 1e999, -1, 80.5, twice',
    /prometheus-port/,
    [
      ['--prometheus-port', 'abc'],
      ['--prometheus-port='],
      ['--prometheus-port', '1e999'],
      ['--prometheus-port=-1'],
      ['--prometheus-port', '80.5'],
      ['--no-prometheus-port'],
      ['--prometheus-port', '1', '--prometheus-port', '2'],
    ],
    'gate',
  ),
  row(
    'C3',
    '--service1 empty, without a value, twice, negated, with a dot',
    ({ trainingFile }) => {
      const rest = [
        '--service2',
        'b',
        '--training-data-file',
        trainingFile,
        '--prometheus-url',
        'http://127.0.0.1:9',
        '--check',
      ]
      return [
        { args: ['monitor', '--service1=', ...rest], says: /service1/ },
        { args: ['monitor', ...rest, '--service1'], says: /service1/ },
        { args: ['monitor', '--service1', 'a', '--service1', 'c', ...rest], says: /service1/ },
        { args: ['monitor', '--no-service1', ...rest], says: /service1/ },
        { args: ['monitor', '--service1.x=1', ...rest], says: /service1/ },
      ]
    },
    'gate',
  ),
  services('C4', 'a service name that would watch every edge', ['x"}[10s])) or sum(rate(m{destination=~".+'], 'gate'),
  services('C5', 'a backslash, a line end, a #, a backtick, 5,000 characters as a name', [
    'a\\',
    'a\nb',
    'a # b',
    '`',
    'x'.repeat(5_000),
  ]),
  services('C6', 'half a surrogate pair as a name', ['\ud800']),
  row('C7', 'a name that as a regular expression would match others', ({ trainingFile }) => [
    {
      args: [
        'monitor',
        '--service1',
        'a.b',
        '--service2',
        'b',
        '--training-data-file',
        trainingFile,
        '--prometheus-url',
        'http://127.0.0.1:9',
        '--check',
      ],
    },
  ]),
  row(
    'C8',
    'names with dash, dot and letters beyond ASCII, which no metric name holds',
    ({ trainingFile }) => [
      {
        args: [
          'monitor',
          '--service1',
          'front-end.v2',
          '--service2',
          'größe',
          '--training-data-file',
          trainingFile,
          '--prometheus-url',
          'http://127.0.0.1:9',
          '--check',
        ],
      },
    ],
    'gate',
  ),
  row('C10', 'URLs without a scheme, of ftp, with a port of 99999, with blanks', () =>
    ['localhost:9090', 'ftp://prometheus', 'http://h:99999', 'http://a b'].map((url) => ({
      args: ['incident', '--pair', 'a:b', '--check', '--prometheus-url', url],
      says: /--prometheus-url must be/,
    })),
  ),
  row('C11', 'credentials in a URL', () => [
    {
      args: ['incident', '--pair', 'a:b', '--check', '--prometheus-url', `http://user:${PASSWORD}@h:9090`],
      says: /credentials/,
    },
    {
      args: ['incident', '--pair', 'a:b', '--check', '--prometheus-url', `http://h:9090/?token=${TOKEN}`],
      says: /prometheus-url/,
    },
    { args: [...INCIDENT, '--alertmanager-url', `http://user:${PASSWORD}@h:9093`], says: /credentials/ },
  ]),
  wrongFlags('C12', 'an interval of 0, negative, longer than a timer can wait', /poll-interval-seconds/, [
    ['--poll-interval-seconds', '0'],
    ['--poll-interval-seconds=-5'],
    ['--poll-interval-seconds', '3000000'],
    ['--poll-interval-seconds', 'NaN'],
  ]),
  wrongFlags('C13', '--constructor.prototype.x=1, --__proto__.x=1', /unknown|Unknown|constructor|proto/, [
    ['--constructor.prototype.x=1'],
    ['--__proto__.x=1'],
  ]),
  row('C14', 'a French locale', () => [
    {
      args: ['incident', '--pair', 'a:b', '--check'],
      says: /--prometheus-url is required/,
      environment: { LANG: 'fr_FR.UTF-8', LC_ALL: 'fr_FR.UTF-8' },
    },
  ]),
  {
    id: 'C15',
    fault: 'a port in use, an address that is not ours',
    gate: true,
    run: async () => {
      const server = createServer()
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      const { port } = server.address() as AddressInfo
      const args = INCIDENT.filter((arg) => arg !== '--check')
      try {
        await attempt({
          args: [...args, '--listen-address', '127.0.0.1', '--prometheus-port', String(port)],
          code: 1,
          says: new RegExp(`cannot listen on 127.0.0.1:${port}: the port is in use`),
        })
        await attempt({
          args: [...args, '--listen-address', '192.0.2.1', '--prometheus-port', '0'],
          code: 1,
          says: /cannot listen on 192.0.2.1/,
        })
      } finally {
        server.close()
      }
      return '2 tries, exit code 1, one line with the address'
    },
  },
  row('C16', "Kubernetes's own variables of a service called meshfever", () => [
    {
      args: INCIDENT,
      environment: {
        MESHFEVER_PORT: 'tcp://10.0.0.1:9090',
        MESHFEVER_SERVICE_HOST: '10.0.0.1',
        MESHFEVER_PORT_9090_TCP: 'tcp://10.0.0.1:9090',
      },
    },
    { args: ['incident', '--pair', 'a:b', '--check'], environment: { MESHFEVER_PROMETHEUS_URL: 'http://127.0.0.1:9' } },
  ]),
  wrongFlags('C17', 'secrets on the command line', /password|token/, [
    ['--prometheus-password', PASSWORD],
    ['--alertmanager-token', TOKEN],
  ]),
  row(
    'C18',
    'a credentials file that is missing, a folder, a pipe, empty, not YAML, with the secret in it',
    (bench) => {
      const folder = bench.newFolder()
      const pipe = join(folder, 'pipe')
      spawnSync('mkfifo', [pipe])
      return [
        join(folder, 'none'),
        folder,
        pipe,
        fileIn(folder, 'empty.yml', ''),
        fileIn(folder, 'bad.yml', '{ ['),
        fileIn(folder, 'inline.yml', `basic_auth: {username: u, password: ${PASSWORD}}\n`),
        fileIn(folder, 'gone.yml', `authorization: {credentials_file: none}\n`),
      ].map((path) => ({
        args: [...INCIDENT, '--prometheus-http-config-file', path],
        says: /prometheus-http-config-file/,
        deadlineMs: 40_000,
      }))
    },
  ),
  row('C19', 'an Alertmanager at file:, data:, unix:', () =>
    ['file:///etc/passwd', 'data:text/plain,x', 'unix:/run/am.sock'].map((url) => ({
      args: [...INCIDENT, '--alertmanager-url', url],
      says: /alertmanager-url/,
    })),
  ),

  row(
    'F1',
    'a training file that is missing, a folder, not readable',
    (bench) => {
      const folder = bench.newFolder()
      const locked = fileIn(folder, 'locked.json', GOOD)
      chmodSync(locked, 0)
      const isRoot = process.getuid?.() === 0
      return [
        { args: monitorOf(join(folder, 'none.json')), says: /none\.json/ },
        { args: monitorOf(folder), says: SHAPE },
        // Root reads everything.
        ...(isRoot ? [] : [{ args: monitorOf(locked), says: /locked\.json/ }]),
      ]
    },
    'gate',
  ),
  training('F2', 'empty, and only blanks', ['', ' \n\t '], SHAPE, 'gate'),
  training(
    'F3',
    'JSON cut in the middle, something after it, two documents',
    [GOOD.slice(0, 300), `${GOOD}x`, `${GOOD}${GOOD}`],
    SHAPE,
    'gate',
  ),
  row(
    'F4',
    '200 MB',
    (bench) => [
      {
        args: monitorOf(longFile(bench.newFolder(), 200e6)),
        says: SHAPE,
        environment: { NODE_OPTIONS: '--max-old-space-size=128' },
      },
    ],
    'gate',
  ),
  row('F5', '600 MB', (bench) => [
    {
      args: monitorOf(longFile(bench.newFolder(), 600e6)),
      says: SHAPE,
      environment: { NODE_OPTIONS: '--max-old-space-size=128' },
    },
  ]),
  row('F6', '200,000 points', (bench) => [
    {
      args: monitorOf(
        fileIn(bench.newFolder(), 'many.json', recordingOf(Array.from({ length: 200_000 }, (_, i) => 8 + (i % 5)))),
      ),
    },
  ]),
  training(
    'F7',
    'a login page, and a saved error',
    ['<html>Sign in</html>', JSON.stringify({ status: 'error', errorType: 'bad_data', error: 'parse error' })],
    SHAPE,
  ),
  training(
    'F8',
    'a vector, a scalar, a string',
    ['vector', 'scalar', 'string'].map((resultType) =>
      JSON.stringify({ status: 'success', data: { resultType, result: [] } }),
    ),
    /matrix/,
  ),
  training(
    'F9',
    'no series, several of one kind',
    [
      JSON.stringify({ status: 'success', data: { resultType: 'matrix', result: [] } }),
      JSON.stringify({
        status: 'success',
        data: {
          resultType: 'matrix',
          result: [1, 2].map((n) => ({
            metric: { pod: String(n) },
            values: CALM_MS.map((value, i) => [T0 + 15 * i, String(value)]),
          })),
        },
      }),
    ],
    SHAPE,
  ),
  training(
    'F10',
    'native histograms',
    [JSON.stringify({ status: 'success', data: { resultType: 'matrix', result: [{ metric: {}, histograms: [] }] } })],
    /histogram/,
  ),
  training('F11', 'nothing but NaN, nothing but +Inf', [calm(() => 'NaN'), calm(() => '+Inf')], SHAPE, 'gate'),
  training('F11 some', 'some values of NaN', [calm((i, value) => (i % 10 === 0 ? 'NaN' : value))]),
  training('F12', 'a constant series', [calm(() => '5')], undefined, 'gate'),
  training(
    'F13',
    'one point, two points',
    [
      values([[T0, '9']]),
      values([
        [T0, '9'],
        [T0 + 15, '9'],
      ]),
    ],
    SHAPE,
    'gate',
  ),
  training('F14', 'unsorted', [values(CALM_MS.map((value, i) => [T0 + 15 * ((i * 7) % 40), String(value)]))]),
  training('F15', 'times that come twice', [
    values([...CALM_MS, ...CALM_MS].map((value, i) => [T0 + 15 * (i % 40), String(value)])),
  ]),
  training('F16', 'gaps and steps of any length', [
    values(CALM_MS.map((value, i) => [T0 + 15 * i + (i > 20 ? 9_000 : 0) + (i % 3), String(value)])),
  ]),
  training(
    'F17',
    'values of "", null, true, [], "5ms", "0x10"',
    ['', null, true, [], '5ms', '0x10'].map((wrong) => calm((i, value) => (i === 7 ? wrong : value))),
    SHAPE,
  ),
  training('F18', 'values below 0 and of 1e308, which are left out', [
    calm((i, value) => (i === 7 ? '-5' : value)),
    calm((i, value) => (i === 7 ? '1e308' : value)),
  ]),
  training(
    'F19',
    'times in milliseconds, below 0, as texts',
    [
      values(CALM_MS.map((value, i) => [(T0 + 15 * i) * 1000, String(value)])),
      values(CALM_MS.map((value, i) => [-15 * i - 1, String(value)])),
      values(CALM_MS.map((value, i) => [String(T0 + 15 * i), String(value)])),
    ],
    SHAPE,
  ),
  training('F20', 'labels __proto__', [
    GOOD.replace('"metric":{', '"metric":{"__proto__":"polluted","constructor":"x"'),
  ]),
  training('F20 deep', 'nested 200,000 deep', [DEEP, GOOD.replace('"metric":{', `"metric":{"x":${DEEP}`)], SHAPE),
  training('F22', 'a byte order mark and line ends of Windows', [`\ufeff${GOOD.replaceAll(',', ',\r\n')}`]),
  training('F22 gzip', 'packed with gzip', [gzipSync(GOOD)], SHAPE),
  training(
    'D5',
    'random bytes where a saved file was',
    [Buffer.from(Array.from({ length: 4_000 }, (_, i) => (i * 7919) % 256)), `${GOOD.slice(0, 500)}\0\0\0\0`],
    SHAPE,
    'gate',
  ),
  row('D11', 'a saved file that is a link to something else, a pipe, 1 GB', (bench) => {
    const folder = bench.newFolder()
    const [link, pipe] = [join(folder, 'link.json'), join(folder, 'pipe.json')]
    symlinkSync('/etc/passwd', link)
    spawnSync('mkfifo', [pipe])
    return [link, pipe, longFile(folder, 2 ** 30)].map((path) => ({
      args: monitorOf(path),
      says: SHAPE,
      deadlineMs: 40_000,
    }))
  }),
  row('D10', 'record into a folder that is not there', (bench) => [
    {
      args: [
        'record',
        '--service1',
        'frontend',
        '--service2',
        'cart',
        '--prometheus-url',
        bench.prometheus.url,
        '--range',
        '10s',
        '--step-seconds',
        '1',
        '--query-window',
        '6s',
        '--output',
        join(bench.newFolder(), 'none', 'x.json'),
      ],
      says: /x\.json/,
      code: 1,
    },
  ]),
  row('E6', 'a shard that is 0, more than there are, negative, no number, or not in the name of the pod', (bench) => {
    const file = fileIn(
      bench.newFolder(),
      'mesh.json',
      GOOD.replace('"metric":{', '"metric":{"source_app":"a","destination_app":"b"'),
    )
    const mesh = [
      'monitor',
      '--mesh',
      '--training-data-file',
      file,
      '--prometheus-url',
      'http://127.0.0.1:9',
      '--check',
    ]
    return [
      ...['0/3', '4/3', '-1/3', 'x/3', '1/0'].map((shard) => ({
        args: [...mesh, `--shard=${shard}`],
        says: /--shard/,
      })),
      { args: [...mesh, '--shard=auto/3'], says: /POD_NAME/ },
      { args: [...mesh, '--shard=auto/3'], says: /POD_NAME/, environment: { POD_NAME: 'meshfever-monitor' } },
    ]
  }),
]
