import assert from 'node:assert/strict'
import test from 'node:test'

import { type CommandLine, parseCommandLine } from '../src/commands/command-line.js'
import type { Command, Job } from '../src/commands/command.js'
import { readFlags } from '../src/commands/flags.js'
import { incidentCommand } from '../src/commands/incident.js'
import { monitorCommand } from '../src/commands/monitor.js'
import { recordCommand } from '../src/commands/record.js'
import { replayCommand } from '../src/commands/replay.js'
import { UsageError } from '../src/core/errors.js'
import { runProgram } from './helpers/program.js'
import { CALM_MS, recordingOf } from './helpers/recordings.js'
import { temporaryFile } from './helpers/temporary-folder.js'

type Environment = CommandLine['environment']

const COMMANDS = [monitorCommand, incidentCommand, recordCommand, replayCommand]

const JOB: Job = { run: () => Promise.resolve(0) }

/** What the flags of a command come to, without running its `prepare`. */
function valuesOf(
  command: Command,
  args: readonly string[],
  environment: Environment = {},
): Readonly<Record<string, unknown>> {
  let values: Readonly<Record<string, unknown>> = {}
  const probe: Command = {
    ...command,
    prepare: (given) => {
      values = readFlags(command.flags, given)
      return JOB
    },
  }
  parseCommandLine({ args: [command.name, ...args], environment, commands: [probe], version: '1.2.3' })
  return values
}

function prepare(args: readonly string[], environment: Environment = {}): void {
  parseCommandLine({ args, environment, commands: COMMANDS, version: '1.2.3' })
}

function refuses(action: () => unknown, message: string | RegExp): void {
  assert.throws(action, (error: unknown) => {
    assert.ok(error instanceof UsageError, String(error))
    if (typeof message === 'string') assert.equal(error.message, message)
    else assert.match(error.message, message)
    assert.doesNotMatch(error.message, /\n/, 'one line')
    return true
  })
}

const PROMETHEUS = ['--prometheus-url', 'http://p:9090']
const MONITOR = ['--service1', 'a', '--service2', 'b', '--training-data-file', 'f.json', ...PROMETHEUS]
const INCIDENT = ['--pair', 'a:b', ...PROMETHEUS]
const RECORD = ['--service1', 'a', '--service2', 'b', '--output', 'o.json', ...PROMETHEUS]

/** A text for every flag there is, none of them a default, and what it comes to. */
const FLAGS: Readonly<Record<string, readonly [text: string, value: unknown]>> = {
  service1: ['frontend', 'frontend'],
  service2: ['cart.shop', 'cart.shop'],
  'source-label': ['source_workload', 'source_workload'],
  'destination-label': ['destination_workload', 'destination_workload'],
  'query-window': ['1m30s', { text: '1m30s', seconds: 90 }],
  selector: ['destination_version="v2"', { text: 'destination_version="v2"', choosesReporter: false }],
  'max-edges': ['700', 700],
  'edge-grace-seconds': ['60', 60],
  shard: ['2/5', { ordinal: 2, count: 5 }],
  'train-from': ['7d', { text: '7d', seconds: 604_800 }],
  'train-step': ['5m', { text: '5m', seconds: 300 }],
  'retrain-interval': ['off', null],
  'train-concurrency': ['4', 4],
  'training-data-file': ['training/boutique_training.json', 'training/boutique_training.json'],
  model: ['static-mad', 'static-mad'],
  quantile: ['0.95', [0.95]],
  direction: ['both', 'both'],
  'min-requests-per-second': ['0', 0],
  'min-deviation-ms': ['2.5', 2.5],
  'min-deviation-ratio': ['0.1', 0.1],
  'slo-ms': ['250', 250],
  query: ['up', 'up'],
  'prometheus-url': ['http://prometheus:9090/', 'http://prometheus:9090'],
  'prometheus-http-config-file': ['prometheus.yml', 'prometheus.yml'],
  'alertmanager-http-config-file': ['alertmanager.yml', 'alertmanager.yml'],
  'web-config-file': ['web-config.yml', 'web-config.yml'],
  'poll-interval-seconds': ['2.5', 2.5],
  'listen-address': ['127.0.0.1', '127.0.0.1'],
  'log-format': ['table', 'table'],
  'prometheus-port': ['9999', 9999],
  pair: ['frontend:cart=7', [{ source: 'frontend', destination: 'cart', accumulatorThreshold: 7 }]],
  'incident-threshold': ['12', 12],
  'clear-threshold': ['3', 3],
  'accumulator-threshold': ['6', 6],
  'accumulator-max': ['30', 30],
  'cool-by': ['1.5', 1.5],
  'no-data-timeout-seconds': ['60', 60],
  'stale-after-seconds': ['45', 45],
  'alertmanager-url': ['http://alertmanager:9093/', 'http://alertmanager:9093'],
  maintenance: [
    '1970-01-01T00:01:00Z/1970-01-01T00:02:00Z=upgrade',
    [{ kind: 'once', startSeconds: 60, endSeconds: 120, reason: 'upgrade' }],
  ],
  range: ['2h', { text: '2h', seconds: 7200 }],
  'step-seconds': ['5', 5],
  output: ['out.json', 'out.json'],
  // A threshold is the incident daemon's business.
  'record pair': ['frontend:cart', [{ source: 'frontend', destination: 'cart' }]],
  from: ['2023-11-14T22:13:20Z', 1_700_000_000],
  to: ['1700000000', 1_700_000_000],
}

const REQUIRED: ReadonlyMap<string, readonly string[]> = new Map([
  ['monitor', MONITOR],
  ['incident', INCIDENT],
  ['record', RECORD],
  ['replay', ['training.json', 'series.json']],
])

/** The arguments a command cannot do without, but for one flag. */
function others(command: Command, without: string): readonly string[] {
  const args = REQUIRED.get(command.name) ?? []
  const index = args.indexOf(`--${without}`)
  return index === -1 ? args : [...args.slice(0, index), ...args.slice(index + 2)]
}

/** A time is a function of the current one. */
function settled(value: unknown): unknown {
  return typeof value === 'function' ? (value as (nowSeconds: number) => number)(0) : value
}

for (const command of COMMANDS) {
  for (const [name, flag] of Object.entries(command.flags)) {
    test(`command line: ${command.name} --${name} is read with dashes, with underscores, with = and from the environment`, () => {
      const [text, value] =
        flag.toggle === true
          ? ['true', true]
          : (FLAGS[`${command.name} ${name}`] ?? FLAGS[name] ?? assert.fail(`no text for ${name}`))
      const expected = flag.many === true && !Array.isArray(value) ? [value] : value
      const underscored = `--${name.replaceAll('-', '_')}`
      const variable = `MESHFEVER_${name.replaceAll('-', '_').toUpperCase()}`
      const rest = others(command, name)
      for (const args of [
        [`--${name}=${text}`],
        [`${underscored}=${text}`],
        [`--${name}`, text],
        [underscored, text],
      ]) {
        if (flag.toggle === true && args.length === 2) args.pop()
        assert.deepEqual(settled(valuesOf(command, [...rest, ...args])[name]), expected, args.join(' '))
      }
      assert.deepEqual(settled(valuesOf(command, rest, { [variable]: text })[name]), expected, variable)
    })
  }
}

test('command line: the defaults are those of the contract', () => {
  assert.deepEqual(valuesOf(monitorCommand, MONITOR), {
    service1: 'a',
    service2: 'b',
    'source-label': 'source_app',
    'destination-label': 'destination_app',
    'query-window': { text: '1m', seconds: 60 },
    mesh: false,
    selector: undefined,
    'max-edges': 5000,
    'edge-grace-seconds': 900,
    shard: undefined,
    'train-from': undefined,
    'train-step': undefined,
    'retrain-interval': undefined,
    'train-concurrency': undefined,
    'training-data-file': 'f.json',
    model: 'load-and-season',
    quantile: undefined,
    direction: 'above',
    'min-requests-per-second': 0.1,
    'min-deviation-ms': 0,
    'min-deviation-ratio': 0,
    'slo-ms': undefined,
    query: undefined,
    'prometheus-url': 'http://p:9090',
    'prometheus-http-config-file': undefined,
    'poll-interval-seconds': 5,
    'listen-address': '0.0.0.0',
    'web-config-file': undefined,
    'log-format': undefined,
    check: false,
    'prometheus-port': 8080,
  })
  assert.deepEqual(valuesOf(incidentCommand, INCIDENT), {
    pair: [{ source: 'a', destination: 'b', accumulatorThreshold: undefined }],
    mesh: false,
    selector: undefined,
    'incident-threshold': 10,
    'clear-threshold': 5,
    'accumulator-threshold': 5,
    'accumulator-max': 20,
    'cool-by': 2,
    'no-data-timeout-seconds': 600,
    'stale-after-seconds': 60,
    'prometheus-url': 'http://p:9090',
    'prometheus-http-config-file': undefined,
    'poll-interval-seconds': 5,
    'listen-address': '0.0.0.0',
    'web-config-file': undefined,
    'log-format': undefined,
    check: false,
    'prometheus-port': 8083,
    'alertmanager-url': [],
    'alertmanager-http-config-file': undefined,
    maintenance: [],
    'source-label': 'source_app',
    'destination-label': 'destination_app',
    'query-window': { text: '1m', seconds: 60 },
  })
})

test('command line: a flag wins over the environment, the environment over the default', () => {
  const environment = { MESHFEVER_POLL_INTERVAL_SECONDS: '7' }
  assert.equal(valuesOf(monitorCommand, MONITOR)['poll-interval-seconds'], 5)
  assert.equal(valuesOf(monitorCommand, MONITOR, environment)['poll-interval-seconds'], 7)
  const both = valuesOf(monitorCommand, [...MONITOR, '--poll-interval-seconds', '9'], environment)
  assert.equal(both['poll-interval-seconds'], 9)
})

test('command line: a repeatable flag takes a list from the environment, and the command line replaces it', () => {
  const environment = { MESHFEVER_PAIR: 'a:b,c:d=3' }
  const pairs = [
    { source: 'a', destination: 'b', accumulatorThreshold: undefined },
    { source: 'c', destination: 'd', accumulatorThreshold: 3 },
  ]
  assert.deepEqual(valuesOf(incidentCommand, PROMETHEUS, environment)['pair'], pairs)
  assert.deepEqual(valuesOf(incidentCommand, [...PROMETHEUS, '--pair', 'e:f'], environment)['pair'], [
    { source: 'e', destination: 'f', accumulatorThreshold: undefined },
  ])
})

test('command line: variables that are no flag are ignored, as Kubernetes injects some of its own', () => {
  const environment = {
    MESHFEVER_PORT: 'tcp://10.0.0.1:9090',
    MESHFEVER_SERVICE_HOST: '10.0.0.1',
    MESHFEVER_PORT_8080_TCP_PROTO: 'tcp',
    MESHFEVER_: 'x',
  }
  assert.deepEqual(valuesOf(monitorCommand, MONITOR, environment), valuesOf(monitorCommand, MONITOR))
})

test('command line: an error names the environment variable that is wrong', () => {
  refuses(
    () => valuesOf(monitorCommand, MONITOR, { MESHFEVER_POLL_INTERVAL_SECONDS: 'soon' }),
    'MESHFEVER_POLL_INTERVAL_SECONDS must be a number from 0.1 to 86400, got "soon"',
  )
  refuses(
    () => valuesOf(monitorCommand, MONITOR, { MESHFEVER_CHECK: 'yes' }),
    'MESHFEVER_CHECK must be true or false, got "yes"',
  )
})

const BAD_NUMBERS = ['abc', '', 'NaN', '1e999', '-1', '0x10', ' 5', '5 ', 'Infinity', '1_000', '１']

for (const { name, flag, bad, good } of [
  { name: 'a port', flag: 'prometheus-port', bad: [...BAD_NUMBERS, '80.5', '65536'], good: ['0', '65535', '8080.0'] },
  {
    name: 'a poll interval',
    flag: 'poll-interval-seconds',
    bad: [...BAD_NUMBERS, '0', '0.09', '86400.1', '2147484'],
    good: ['0.1', '80.5', '86400'],
  },
  { name: 'a request rate', flag: 'min-requests-per-second', bad: BAD_NUMBERS, good: ['0', '.5', '1e3', '80.5'] },
  { name: 'a deviation', flag: 'min-deviation-ms', bad: BAD_NUMBERS, good: ['0', '.5', '1e3', '80.5'] },
  { name: 'a deviation', flag: 'min-deviation-ratio', bad: BAD_NUMBERS, good: ['0', '.5', '2'] },
  { name: 'an SLO', flag: 'slo-ms', bad: [...BAD_NUMBERS, '0'], good: ['.5', '250'] },
  {
    name: 'a quantile',
    flag: 'quantile',
    bad: [...BAD_NUMBERS, '0', '1', '1.5', '50'],
    good: ['0.5', '.999', '1e-3'],
  },
]) {
  for (const text of bad) {
    test(`command line: ${JSON.stringify(text)} is not ${name}, and the message says what is`, () => {
      refuses(
        () => valuesOf(monitorCommand, [...MONITOR, `--${flag}=${text}`]),
        // Of a list each item is named as it is without the blanks around it.
        new RegExp(
          `^--${flag} must be an? .*, got ${JSON.stringify(flag === 'quantile' ? text.trim() : text).replace(/[.]/g, '\\.')}$`,
        ),
      )
    })
  }
  test(`command line: ${good.join(', ')} are each ${name}`, () => {
    for (const text of good) {
      const value = valuesOf(monitorCommand, [...MONITOR, `--${flag}=${text}`])[flag]
      assert.deepEqual(value, flag === 'quantile' ? [Number(text)] : Number(text))
    }
  })
}

for (const { name, args, message } of [
  {
    name: 'an unknown flag is refused',
    args: ['monitor', ...MONITOR, '--trainig-data-file', 'x'],
    message: /^Unknown argument: trainig-data-file/,
  },
  {
    name: 'an unknown command is refused',
    args: ['monitr'],
    message: /^(Unknown argument|Unknown command|Did you mean)/,
  },
  { name: 'a command is required', args: [], message: /^a command is required/ },
  { name: 'an extra word is refused', args: ['monitor', ...MONITOR, 'extra'], message: /extra/ },
  {
    name: 'a flag of another command is refused',
    args: ['monitor', ...MONITOR, '--cool-by=1'],
    message: /^Unknown argument: cool-by/,
  },
  {
    name: 'a flag without its value is refused',
    args: ['monitor', ...MONITOR.slice(2), '--service1'],
    message: /^Not enough arguments following: service1/,
  },
  {
    name: 'a flag whose value is another flag is refused',
    args: ['monitor', ...MONITOR.slice(2), '--service1', '--check'],
    message: /^Not enough arguments following: service1/,
  },
  {
    name: 'an empty value is refused',
    args: ['monitor', ...MONITOR.slice(2), '--service1='],
    message: /^--service1 must be a service name .*, got ""$/,
  },
  {
    name: 'a flag given twice is refused',
    args: ['monitor', ...MONITOR, '--service1', 'c'],
    message: '--service1 must be given once, got it 2 times',
  },
  {
    name: 'a flag given twice in two spellings is refused',
    args: ['monitor', ...MONITOR, '--training_data_file', 'g.json'],
    message: '--training-data-file must be given once, got it 2 times',
  },
  {
    name: '--no-x turns nothing off',
    args: ['monitor', ...MONITOR, '--no-service1'],
    message: /^Unknown argument: no-service1/,
  },
  {
    name: '--no-check turns nothing off',
    args: ['monitor', ...MONITOR, '--no-check'],
    message: /^Unknown argument: no-check/,
  },
  {
    name: '--x.y=1 makes no object',
    args: ['monitor', ...MONITOR, '--service1.x=1'],
    message: /^Unknown argument: service1\.x/,
  },
  {
    name: '--constructor.prototype.x=1 is an unknown flag and pollutes nothing',
    args: ['monitor', ...MONITOR, '--constructor.prototype.polluted=1'],
    message: /^Unknown argument: constructor\.prototype\.polluted/,
  },
  {
    name: '--__proto__.x=1 is an unknown flag and pollutes nothing',
    args: ['monitor', ...MONITOR, '--__proto__.polluted=1'],
    message: /^Unknown argument/,
  },
  {
    name: 'a camel-case spelling is refused',
    args: ['monitor', ...MONITOR, '--queryWindow=1m'],
    message: /^Unknown argument: queryWindow/,
  },
  {
    name: 'the service is required',
    args: ['monitor', ...MONITOR.slice(2)],
    message: '--service1 is required: source service, the caller',
  },
  { name: 'a pair is required', args: ['incident', ...PROMETHEUS], message: /^--pair is required at least once: / },
  {
    name: 'replay needs two files',
    args: ['replay', 'one.json'],
    message: /^Not enough non-option arguments: got 1, need at least 2/,
  },
  {
    name: 'an unknown model is refused',
    args: ['monitor', ...MONITOR, '--model=crystal-ball'],
    message: /^--model must be one of load-and-season, static-sigma, static-mad\b.*, got "crystal-ball"$/,
  },
  {
    name: 'an unknown direction is refused',
    args: ['monitor', ...MONITOR, '--direction=below'],
    message: '--direction must be one of above, both, got "below"',
  },
  {
    name: 'a label name with a quote is refused',
    args: ['monitor', ...MONITOR, '--source-label=a"b'],
    message: '--source-label must be a Prometheus label name (letters, digits, _), got "a\\"b"',
  },
  {
    name: 'a label name that starts with a digit is refused',
    args: ['monitor', ...MONITOR, '--destination-label=1a'],
    message: '--destination-label must be a Prometheus label name (letters, digits, _), got "1a"',
  },
]) {
  test(`command line: ${name}`, () => {
    refuses(() => prepare(args), message)
    assert.equal(({} as Record<string, unknown>)['polluted'], undefined)
  })
}

for (const { text, reason } of [
  { text: 'localhost:9090', reason: 'no scheme' },
  { text: 'prometheus', reason: 'no scheme' },
  { text: '', reason: 'empty' },
  { text: 'ftp://p:9090', reason: 'not http' },
  { text: 'file:///etc/passwd', reason: 'not http' },
  { text: 'http://p:99999', reason: 'no such port' },
  { text: 'http://a b', reason: 'a blank' },
  { text: 'http://p:9090/?x=1', reason: 'a query string' },
  { text: 'http://p:9090/#x', reason: 'a fragment' },
]) {
  test(`command line: ${JSON.stringify(text)} is not a URL of Prometheus (${reason})`, () => {
    refuses(
      () => valuesOf(incidentCommand, ['--pair', 'a:b', `--prometheus-url=${text}`]),
      // Behind a question mark people put tokens.
      `--prometheus-url must be an http or https URL such as http://prometheus.istio-system:9090, got ${JSON.stringify(text.replace(/[?#].*/, '?...'))}`,
    )
  })
}

for (const url of ['http://user:s3cret@p:9090', 'http://s3cret@p:9090', 'ftp://user:s3cret@p']) {
  test(`command line: credentials in a URL are refused and never repeated (${url.replace('s3cret', '***')})`, () => {
    assert.throws(
      () => valuesOf(incidentCommand, ['--pair', 'a:b', `--prometheus-url=${url}`]),
      (error: unknown) => {
        assert.ok(error instanceof UsageError)
        assert.match(error.message, /^--prometheus-url must be .*, got one with credentials in it$/)
        assert.doesNotMatch(error.message, /s3cret|user:/)
        return true
      },
    )
  })
}

for (const { text, url } of [
  { text: 'http://p:9090', url: 'http://p:9090' },
  { text: 'http://p:9090/', url: 'http://p:9090' },
  { text: 'http://p:9090///', url: 'http://p:9090' },
  { text: 'https://p.example/prometheus/', url: 'https://p.example/prometheus' },
  { text: 'http://[::1]:9090', url: 'http://[::1]:9090' },
]) {
  test(`command line: ${text} is read as ${url}, so that a path can be added`, () => {
    assert.equal(valuesOf(incidentCommand, ['--pair', 'a:b', '--prometheus-url', text])['prometheus-url'], url)
  })
}

for (const text of [
  'x"}[10s])) or sum(rate(m{destination=~".+',
  'a b',
  'a{b}',
  "a'b",
  'a\\',
  'a\nb',
  'a`b',
  '$1',
  'a,b',
  'a|b',
  '# a',
  'a\0',
  '\ud800',
  'x'.repeat(254),
]) {
  test(`command line: ${JSON.stringify(text).slice(0, 50)} is not a service name`, () => {
    refuses(
      () => valuesOf(monitorCommand, [...MONITOR.slice(2), `--service1=${text}`]),
      /^--service1 must be a service name \(1 to 253 letters, digits or any of _ \. : \/ @ -\), got "/,
    )
  })
}

for (const text of [
  'frontend',
  'cart-service.shop.svc',
  'ns/app@v2',
  'spiffe://td/ns/x',
  'einkaufswägen',
  '購物車',
  'x'.repeat(253),
]) {
  test(`command line: ${text.slice(0, 30)} is a service name`, () => {
    assert.equal(valuesOf(monitorCommand, [...MONITOR.slice(2), `--service1=${text}`])['service1'], text)
  })
}

for (const { text, seconds } of [
  { text: '15s', seconds: 15 },
  { text: '1m', seconds: 60 },
  { text: '1h30m', seconds: 5400 },
  { text: '1d', seconds: 86_400 },
  { text: '1w', seconds: 604_800 },
  { text: '500ms', seconds: 0.5 },
  { text: '1m500ms', seconds: 60.5 },
]) {
  test(`command line: the duration ${text} is ${seconds} s`, () => {
    assert.deepEqual(valuesOf(monitorCommand, [...MONITOR, '--query-window', text])['query-window'], { text, seconds })
  })
}

for (const text of ['', '60', '1', 's', '-1m', '1.5m', '0s', '0h0m', '1 m', '1m1m', '30m1h', '1y', '1M', '1m]']) {
  test(`command line: ${JSON.stringify(text)} is not a duration`, () => {
    refuses(
      () => valuesOf(monitorCommand, [...MONITOR, `--query-window=${text}`]),
      `--query-window must be a Prometheus duration such as 15s, 1m or 1h30m, got ${JSON.stringify(text)}`,
    )
  })
}

for (const { name, args, message } of [
  {
    name: 'a clear threshold above the incident threshold',
    args: ['--incident-threshold=10', '--clear-threshold=11'],
    message: '--clear-threshold must be at most --incident-threshold (10), got 11',
  },
  {
    name: 'a maximum that no incident can be reached with',
    args: ['--accumulator-max=10'],
    message:
      '--accumulator-max must be more than --incident-threshold over the number of pairs (10 / 1), or no incident can ever open, got 10',
  },
  { name: 'a pair given twice', args: ['--pair', 'a:b=9'], message: '--pair a:b was given twice' },
  { name: 'cooling by nothing', args: ['--cool-by=0'], message: '--cool-by must be a positive number, got "0"' },
  { name: 'cooling backwards', args: ['--cool-by=-2'], message: '--cool-by must be a positive number, got "-2"' },
  {
    name: 'a timeout of nothing',
    args: ['--no-data-timeout-seconds=0'],
    message: '--no-data-timeout-seconds must be a positive number, got "0"',
  },
]) {
  test(`command line: incident refuses ${name}`, () => {
    refuses(() => prepare(['incident', ...INCIDENT, ...args]), message)
  })
}

test('command line: two pairs may reach together what one could not', () => {
  assert.doesNotThrow(() => prepare(['incident', ...INCIDENT, '--pair', 'c:d', '--accumulator-max=10']))
})

test('command line: a clear threshold as high as the incident threshold is no contradiction', () => {
  assert.doesNotThrow(() => prepare(['incident', ...INCIDENT, '--clear-threshold=10']))
})

for (const text of ['a', 'a:b:c', 'a:b=1=2', '']) {
  test(`command line: ${JSON.stringify(text)} is not a pair`, () => {
    refuses(
      () => prepare(['incident', ...PROMETHEUS, `--pair=${text}`]),
      `--pair must be SOURCE:DESTINATION or SOURCE:DESTINATION=THRESHOLD, got ${JSON.stringify(text)}`,
    )
  })
}

for (const { text, message } of [
  { text: 'a:', message: /^--pair "a:": the destination must be a service name .*, got ""$/ },
  { text: ':b', message: /^--pair ":b": the source must be a service name .*, got ""$/ },
  { text: 'a"}:b', message: /^--pair "a\\"}:b": the source must be a service name/ },
  { text: 'a:b=', message: '--pair "a:b=": the threshold must be a number of at least 0, got ""' },
  { text: 'a:b=hot', message: '--pair "a:b=hot": the threshold must be a number of at least 0, got "hot"' },
  { text: 'a:b=-1', message: '--pair "a:b=-1": the threshold must be a number of at least 0, got "-1"' },
]) {
  test(`command line: --pair ${text} is refused with the part that is wrong`, () => {
    refuses(() => prepare(['incident', ...PROMETHEUS, `--pair=${text}`]), message)
  })
}

test('command line: a query of one series does not go with a recording of two quantiles', (t) => {
  const values = CALM_MS.map((value, i) => [1_700_000_000 + 15 * i, String(value)])
  const result = ['0.5', '0.9'].map((quantile) => ({ metric: { quantile }, values }))
  const file = temporaryFile(t, JSON.stringify({ status: 'success', data: { resultType: 'matrix', result } }))
  const args = ['--service1=a', '--service2=b', ...PROMETHEUS, '--training-data-file', file]
  refuses(
    () => prepare(['monitor', ...args, '--query=up']),
    `--query answers one series, but --training-data-file ${file} holds 2 quantiles (0.5, 0.9)`,
  )
  assert.doesNotThrow(() => prepare(['monitor', ...args]))
})

test('command line: a quantile that the recording does not hold is refused, and so is one named twice', (t) => {
  const values = CALM_MS.map((value, i) => [1_700_000_000 + 15 * i, String(value)])
  const result = ['0.5', '0.9'].map((quantile) => ({ metric: { quantile }, values }))
  const two = temporaryFile(
    t,
    JSON.stringify({ status: 'success', data: { resultType: 'matrix', result } }),
    'two.json',
  )
  const plain = temporaryFile(t, recordingOf(CALM_MS), 'plain.json')
  const check = (file: string, quantiles: string): unknown =>
    prepare([
      'monitor',
      '--service1=a',
      '--service2=b',
      ...PROMETHEUS,
      '--training-data-file',
      file,
      '--quantile',
      quantiles,
    ])
  refuses(
    () => check(two, '0.5,0.95'),
    `--quantile 0.95 is not in --training-data-file: ${two}, which holds the quantiles 0.5, 0.9`,
  )
  refuses(
    () => check(plain, '0.5,0.95'),
    `--quantile 0.95 is not in --training-data-file: ${plain}, which holds one unlabelled quantile`,
  )
  refuses(() => check(two, '0.9,0.90'), '--quantile names a quantile twice, got "0.9,0.90"')
  // A recording that does not say which quantile it holds is taken at the user's word.
  for (const quantiles of ['0.5', '0.99']) assert.doesNotThrow(() => check(plain, quantiles))
  assert.doesNotThrow(() => check(two, '0.9,0.5'))
})

test('command line: a query that does not parse is refused with the place', (t) => {
  const file = temporaryFile(t, recordingOf(CALM_MS))
  refuses(
    () =>
      prepare([
        'monitor',
        '--service1=a',
        '--service2=b',
        ...PROMETHEUS,
        `--training-data-file=${file}`,
        '--query=sum(up',
      ]),
    /^--query must be a PromQL expression, got one that does not parse at character \d+, near "/,
  )
})

test('command line: --help lists every command, and of a command every flag with its default', () => {
  const help = (...args: string[]): string => {
    const parsed = parseCommandLine({ args, environment: {}, commands: COMMANDS, version: '1.2.3' })
    return parsed.kind === 'message' ? parsed.text : assert.fail('a job instead of a text')
  }
  for (const { name } of COMMANDS) assert.match(help('--help'), new RegExp(`meshfever ${name}\\b`))
  for (const command of COMMANDS) {
    for (const [name, { defaultText }] of Object.entries(command.flags)) {
      const line = new RegExp(`--${name} [^\\0]*?${defaultText === undefined ? '' : `\\[default: ${defaultText}\\]`}`)
      assert.match(help(command.name, '--help'), line)
    }
  }
  assert.equal(help('--version'), '1.2.3\n')
})

for (const { name, args, environment, code, stderr } of [
  {
    name: 'a wrong flag value',
    args: ['incident', ...INCIDENT, '--prometheus-port=abc'],
    environment: {},
    code: 2,
    stderr: 'meshfever: --prometheus-port must be a whole number from 0 to 65535, got "abc"\n',
  },
  {
    name: 'an unknown flag, in whatever language the machine speaks',
    args: ['incident', ...INCIDENT, '--colour'],
    environment: { LANG: 'fr_FR.UTF-8', LC_ALL: 'fr_FR.UTF-8' },
    code: 2,
    stderr: 'meshfever: Unknown argument: colour (see meshfever --help)\n',
  },
  {
    name: 'a wrong variable',
    args: ['incident', ...INCIDENT],
    environment: { MESHFEVER_COOL_BY: '0x10' },
    code: 2,
    stderr: 'meshfever: MESHFEVER_COOL_BY must be a positive number, got "0x10"\n',
  },
  {
    name: 'no command',
    args: [],
    environment: {},
    code: 2,
    stderr: 'meshfever: a command is required (see meshfever --help)\n',
  },
]) {
  test(`command line: the program ends with ${code} and one line on stderr for ${name}`, async (t) => {
    const exit = await runProgram(t, args, environment)
    assert.deepEqual(exit, { code, signal: null, stdout: '', stderr })
  })
}

test('command line: the program ends with 2 and one line for a missing training file', async (t) => {
  const exit = await runProgram(t, [
    'monitor',
    ...MONITOR.slice(0, 4),
    ...PROMETHEUS,
    '--training-data-file=/nowhere/x.json',
  ])
  assert.equal(exit.code, 2)
  assert.equal(exit.stdout, '')
  assert.match(
    exit.stderr,
    /^meshfever: --training-data-file: \/nowhere\/x\.json: no such file; record a good one with: .*\n$/,
  )
})
