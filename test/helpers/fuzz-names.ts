import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import fc from 'fast-check'

import { commands } from '../../src/commands/all.js'
import { parseCommandLine } from '../../src/commands/command-line.js'
import {
  anyText,
  duration,
  httpUrl,
  integerFrom,
  intervalSeconds,
  labelName,
  numberAbove,
  numberFrom,
  pairOfServices,
  port,
  quantile,
  quantiles,
  serviceName as serviceNameFlag,
  timeFlag,
} from '../../src/commands/flags.js'
import { pairFlag } from '../../src/commands/incident.js'
import { maintenanceFlag } from '../../src/commands/maintenance-flag.js'
import { sweepFlag } from '../../src/commands/sweep-flag.js'
import { anomalyHistoryQuery } from '../../src/core/anomaly-history.js'
import { UsageError } from '../../src/core/errors.js'
import { edgeHistoryQuery, meshHistoryQuery } from '../../src/core/mesh-history.js'
import { meshQuery, parseSelector } from '../../src/core/mesh-query.js'
import { type Pair, pairKey } from '../../src/core/pair.js'
import { pairFileNames } from '../../src/core/pair-file-names.js'
import { oneLine, plainName } from '../../src/core/plain-text.js'
import {
  checkPromql,
  latencyTrafficAndAge,
  promqlOneOf,
  promqlString,
  requestsByBucket,
} from '../../src/core/promql.js'
import { type FuzzProperty, property } from './fuzz.js'
import { anyEdge, anyName, serviceName } from './fuzz-inputs.js'
import { noPromtool } from './promtool.js'

/** What Prometheus makes of a double-quoted string: Go's rules, as strconv.Unquote has them. */
function unquoted(literal: string): string {
  assert.match(literal, /^"(?:[^"\\\n]|\\.)*"$/s)
  // Its lexer takes the character that stands for bytes that are none for such bytes.
  assert.doesNotMatch(literal, /[\ufffd\p{Surrogate}]/u)
  return literal.slice(1, -1).replace(/\\(u[0-9a-fA-F]{4}|.)/gs, (escape, what: string) => {
    if (what.length === 5) return String.fromCharCode(Number.parseInt(what.slice(1), 16))
    const meant = { n: '\n', '\\': '\\', '"': '"' }[what]
    assert.ok(meant !== undefined, escape)
    return meant
  })
}

/** A name as it stands in Prometheus, which holds nothing but UTF-8. */
const inUtf8 = (name: string): string => name.replace(/\p{Surrogate}/gu, '\ufffd')

interface Matcher {
  readonly label: string
  readonly operator: string
  readonly value: string
}

/** Everything in a query that selects, as Prometheus's grammar reads it, and the query without what they are set to. */
function selectorsOf(query: string): { readonly matchers: readonly Matcher[]; readonly shape: string } {
  const matchers: Matcher[] = []
  let shape = ''
  let at = 0
  checkPromql(query, 'the query').iterate({
    enter: ({ name, node, from, to }) => {
      if (name === 'StringLiteral') {
        shape += `${query.slice(at, from)}""`
        at = to
      }
      if (name !== 'UnquotedLabelMatcher') return
      const [label, operator, value] = [node.firstChild, node.firstChild?.nextSibling, node.lastChild].map((part) =>
        query.slice(part?.from, part?.to),
      )
      matchers.push({ label: label!, operator: operator!, value: unquoted(value!) })
    },
  })
  return { matchers, shape: shape + query.slice(at) }
}

/** The query with these ends selects exactly them, and is otherwise the one with harmless names. */
function checkQuery(make: (pair: Pair) => string, pair: Pair, labels: readonly [string, string]): void {
  const { matchers, shape } = selectorsOf(make(pair))
  assert.equal(shape, selectorsOf(make({ source: 'a', destination: 'b' })).shape)
  for (const [label, name] of [
    [labels[0], pair.source],
    [labels[1], pair.destination],
  ] as const) {
    const own = matchers.filter((matcher) => matcher.label === label)
    assert.ok(own.length > 0)
    for (const { operator, value } of own) assert.deepEqual([operator, value], ['=', name])
  }
}

/** A regular expression as Prometheus applies it: to all of a text, `.` matching line ends. */
const anchored = (pattern: string): RegExp => new RegExp(`^(?:${pattern})$`, 'us')

const folder = mkdtempSync(join(tmpdir(), 'meshfever-fuzz-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))

const BATCH = 250
let batch: string[] = []

/** Prometheus's own parser, which takes less than the grammar; asked for many at once. */
function checkWithPrometheus(query: string): void {
  if (noTool) return
  batch.push(query)
  if (batch.length < BATCH) return
  const rules = batch.map((query, i) => `  - {record: "fuzz:q${i}", expr: ${inYaml(query)}}\n`)
  batch = []
  const path = join(folder, 'rules.yml')
  writeFileSync(path, `groups:\n- name: fuzz\n  rules:\n${rules.join('')}`)
  const { status, stdout, stderr } = spawnSync('promtool', ['check', 'rules', '--lint=none', path], {
    encoding: 'utf8',
  })
  assert.equal(status, 0, `${stdout}${stderr}`.slice(0, 2_000))
}
/** All but plain ASCII as escapes, whatever it is. */
function inYaml(text: string): string {
  const escape = (mark: string): string => `\\U${mark.codePointAt(0)!.toString(16).padStart(8, '0')}`
  return `"${text.replace(/[^ -~]|["\\]/gu, escape)}"`
}

const noTool = noPromtool() !== false

const RANGE = { rangeMs: 60_000, stepMs: 5_000, atSeconds: null } as const
const PAIR_QUERY = {
  sourceLabel: 'source_app',
  destinationLabel: 'destination_app',
  reporter: 'source',
  window: '1m',
  quantiles: [0.5],
} as const

/** Texts such as are typed, and such as are not. */
const flagText: fc.Arbitrary<string> = fc.oneof(
  anyName,
  fc.constantFrom(
    '0',
    '-1',
    '1e3',
    '1e999',
    '0x10',
    '.5',
    '5.',
    '١',
    '1_000',
    ' 1',
    '1 ',
    '1s',
    '1m30s',
    '1ms',
    '99999999999w',
    '0s',
    'now',
    '-7d',
    '-',
    '2026-02-30T00:00:00Z',
  ),
  fc.constantFrom(
    '2026-01-31T12:00:00Z',
    '1700000000',
    '1700000000000',
    'http://p:9090',
    'http://a:b@p',
    'https://p/?q',
    'http://[::1]:0/',
    'http://',
    'ftp://p',
    '//p',
    'a:b',
    'a:b=7',
    'a:b=-1',
    'a:b:c',
    ':',
    'a:',
  ),
  fc.constantFrom(
    'cool-by=1..3',
    'cool-by=1..3:0',
    'cool-by=1..1e9',
    'cool-by=0..9999:0.000001',
    'cool-by=1,1',
    'cool-by=',
    'cool_by=..',
    '--cool-by=1',
    '0.5,0.99',
    '0.5,0.5',
    '1/2',
    '1/0',
    '0.5,',
  ),
  fc.constantFrom(
    '2026-11-21T22:00:00Z/2026-11-22T02:00:00Z=upgrade',
    '0 2 * * 6 for 2h until 2027-01-01T00:00:00Z=batch',
    '0 0 30 2 * for 1h until 2027-01-01T00:00:00Z=never',
    '=x',
    '/=x',
  ),
  fc.string({
    unit: fc.constantFrom('0', '1', '9', '.', '-', ':', '/', '=', ',', ' ', 'm', 's', 'h', 'e', 'T', 'Z', '*', '+'),
    maxLength: 24,
  }),
)

const FLAGS: Readonly<Record<string, (text: string, name: string) => unknown>> = {
  anyText,
  duration,
  httpUrl,
  integer: integerFrom(1, 9),
  intervalSeconds,
  labelName,
  above: numberAbove(0),
  from: numberFrom(0, 1),
  pairOfServices,
  port,
  quantile,
  quantiles,
  serviceName: serviceNameFlag,
  timeFlag,
  pairFlag,
  maintenanceFlag,
  sweep: sweepFlag(['cool-by']),
  selector: parseSelector,
}

const VERSION = '0.0.0'
const everyFlag = [...new Set(commands.flatMap((command) => Object.keys(command.flags)))]

const argument: fc.Arbitrary<readonly string[]> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.tuple(fc.constantFrom(...everyFlag), flagText).map(([flag, text]) => [`--${flag}`, text]),
  },
  {
    weight: 3,
    arbitrary: fc
      .tuple(fc.constantFrom(...everyFlag), flagText)
      .map(([flag, text]) => [`--${flag.replaceAll('-', '_')}=${text}`]),
  },
  { weight: 1, arbitrary: flagText.map((text) => [text]) },
  { weight: 1, arbitrary: flagText.map((text) => [`--${text}`]) },
  {
    weight: 1,
    arbitrary: fc
      .constantFrom(
        '--',
        '-',
        '--constructor.prototype.x=1',
        '--__proto__.x=1',
        '--no-mesh',
        '-x',
        '--check',
        '--help',
        '--version',
        '--mesh',
      )
      .map((text) => [text]),
  },
)

/** What a UsageError says: one line, and the name of what is wrong. */
function checkUsage(error: unknown, ...names: readonly string[]): void {
  assert.ok(error instanceof UsageError, String(error))
  for (const name of names) assert.ok(error.message.includes(name), error.message)
  assert.doesNotMatch(error.message, /\n/)
  assert.notEqual(error.message.trim(), '')
}

export const properties: readonly FuzzProperty[] = [
  property({ name: 'any text is one PromQL string that means itself', runs: 3_000 }, anyName, (name) => {
    const query = `m{a=${promqlString(name)}}`
    const { matchers, shape } = selectorsOf(query)
    assert.equal(shape, 'm{a=""}')
    assert.deepEqual(matchers, [{ label: 'a', operator: '=', value: inUtf8(name) }])
    checkWithPrometheus(query)
  }),

  property(
    { name: 'a regular expression of names matches these names and no others', runs: 2_000 },
    fc.tuple(fc.array(anyName, { minLength: 1, maxLength: 6 }), fc.array(anyName, { maxLength: 6 })),
    ([names, others]) => {
      const query = `m{a=~${promqlOneOf(names)}}`
      const { matchers, shape } = selectorsOf(query)
      assert.equal(shape, 'm{a=~""}')
      const pattern = anchored(matchers[0]!.value)
      const meant = new Set(names.map(inUtf8))
      for (const name of [...names, ...others].map(inUtf8)) assert.equal(pattern.test(name), meant.has(name), name)
      checkWithPrometheus(query)
    },
  ),

  property(
    { name: 'the queries of a pair select this pair', runs: 1_000 },
    fc.record({ source: serviceName, destination: serviceName }),
    (pair) => {
      checkQuery((other) => latencyTrafficAndAge({ ...PAIR_QUERY, pair: other }), pair, [
        'source_app',
        'destination_app',
      ])
      checkQuery((other) => requestsByBucket({ ...PAIR_QUERY, pair: other }), pair, ['source_app', 'destination_app'])
      checkWithPrometheus(latencyTrafficAndAge({ ...PAIR_QUERY, pair }))
    },
  ),

  property(
    { name: 'the histories of pairs and of a mesh are asked for by name, whatever the names', runs: 1_000 },
    fc.array(anyEdge, { minLength: 1, maxLength: 4 }),
    (pairs) => {
      for (const query of [
        anomalyHistoryQuery(pairs, RANGE),
        meshHistoryQuery(pairs, 'job="x"', RANGE),
        edgeHistoryQuery(pairs, '', RANGE),
      ]) {
        const { matchers } = selectorsOf(query)
        for (const [label, names] of [
          ['source', pairs.map(({ source }) => source)],
          ['destination', pairs.map(({ destination }) => destination)],
        ] as const) {
          const own = matchers.filter((matcher) => matcher.label === label)
          assert.ok(own.length > 0)
          for (const { operator, value } of own) {
            assert.equal(operator, '=~')
            for (const name of names) assert.match(inUtf8(name), anchored(value))
            assert.doesNotMatch('another', anchored(value))
          }
        }
        checkWithPrometheus(query.replace(/\[\d+ms:\d+ms\] offset \d+ms$/, ''))
      }
    },
  ),

  property(
    { name: 'a selector only ever narrows the query of a mesh', runs: 1_500 },
    fc.oneof(
      flagText,
      fc
        .array(
          fc.tuple(
            fc.constantFrom('a', 'reporter', 'le', '__name__', '"x.y"', 'ns'),
            fc.constantFrom('=', '!=', '=~', '!~', '=='),
            fc.constantFrom('"x"', "'y'", '`z`', '"', '"\\', 'x', '".+"', '""'),
          ),
          { maxLength: 3 },
        )
        .chain((parts) =>
          fc
            .constantFrom(', ', ',', '} or {', ' # ', '\n')
            .map((separator) => parts.map((part) => part.join('')).join(separator)),
        ),
    ),
    (text) => {
      let selector
      try {
        selector = parseSelector(text, '--selector')
      } catch (error) {
        checkUsage(error, '--selector')
        return
      }
      const by = { sourceLabel: 'source_app', destinationLabel: 'destination_app', window: '1m', quantiles: [0.5] }
      const reporter = selector.choosesReporter ? '' : 'reporter="source",'
      const plain = meshQuery({ ...by, selector: { text: 'x="y"', choosesReporter: true } })
      assert.equal(meshQuery({ ...by, selector }).replaceAll(`{${reporter}${selector.text}}`, '{x="y"}'), plain)
    },
  ),

  property(
    { name: 'a flag has a value, or one line that names it', runs: 6_000 },
    fc.tuple(fc.constantFrom(...Object.keys(FLAGS)), flagText),
    ([kind, text]) => {
      try {
        const value = FLAGS[kind]!(text, `--${kind}`)
        assert.notEqual(value, undefined)
        if (typeof value === 'number') assert.ok(Number.isFinite(value))
      } catch (error) {
        checkUsage(error, `--${kind}`)
      }
    },
  ),

  property(
    { name: 'a command line is a job, a text to print, or one line that says what is wrong', runs: 500 },
    fc.tuple(
      fc.constantFrom(...commands.map(({ name }) => name), 'monitr', ''),
      fc.array(argument, { maxLength: 5 }),
      fc.dictionary(fc.constantFrom(...everyFlag), flagText, { maxKeys: 2 }),
    ),
    ([command, given, inherited]) => {
      const environment = Object.fromEntries(
        Object.entries(inherited).map(([flag, text]) => [`MESHFEVER_${flag.replaceAll('-', '_').toUpperCase()}`, text]),
      )
      try {
        const parsed = parseCommandLine({ args: [command, ...given.flat()], environment, commands, version: VERSION })
        assert.ok(parsed.kind === 'job' || parsed.text !== '')
      } catch (error) {
        checkUsage(error)
      }
      assert.equal(({} as Record<string, unknown>)['x'], undefined)
    },
  ),

  property(
    { name: 'pairs have file names of their own that no file system mistakes', runs: 1_000 },
    fc.uniqueArray(anyEdge, { maxLength: 8, selector: pairKey }),
    (pairs) => {
      const names = pairFileNames(pairs)
      assert.equal(names.size, pairs.length)
      assert.equal(new Set([...names.values()].map((name) => name.toLowerCase())).size, pairs.length)
      for (const name of names.values()) {
        assert.match(name, /^[\w.%~-]+\.json$/)
        assert.doesNotMatch(name, /^\./)
        assert.ok(Buffer.byteLength(name) <= 255)
      }
    },
  ),

  property({ name: 'a name in a line of text breaks no line and is bounded', runs: 1_000 }, anyName, (name) => {
    for (const text of [plainName(name), oneLine(name)]) assert.doesNotMatch(text, /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u)
    assert.ok(plainName(name.repeat(9)).length <= 254)
  }),
]
