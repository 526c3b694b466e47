import fc from 'fast-check'

/** Names that were made to be mistaken for something else: by PromQL, JSON, prom-client's keys, the text format, a file system. */
const ODD_NAMES = [
  '',
  ' ',
  'unknown',
  '1,b:2',
  '1',
  'b:2,',
  'a,destination:b',
  ',source:a',
  'a|b',
  '__proto__',
  'constructor',
  'toString',
  'hasOwnProperty',
  'x"}[10s])) or sum(rate(m{destination=~".+',
  '"} 1\nlab7_y{source="forged',
  '"},{"metric":',
  '\\',
  '\\"',
  '\\n',
  '\n',
  '\r\n',
  '\t',
  '\u0000',
  '\u001b[31m',
  '\u0085',
  '\u2028',
  '\u202e',
  '\ufeff',
  '\ufffd',
  '\ufffe',
  '\ud800',
  'a\udc00b',
  '購物車',
  '😀',
  'e\u0301',
  '.*',
  'a.b',
  '$(id)',
  '${x}',
  '../../etc/passwd',
  '..',
  'CON',
  'a'.repeat(253),
  'a'.repeat(254),
]

/** Any text, lone surrogates included, and likelier the ones that matter. */
export const anyName: fc.Arbitrary<string> = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(...ODD_NAMES) },
  { weight: 3, arbitrary: fc.stringMatching(/^[a-z][a-z0-9-]{0,8}$/) },
  { weight: 2, arbitrary: fc.string({ unit: 'binary', maxLength: 12 }) },
  {
    weight: 2,
    arbitrary: fc.string({
      unit: fc.constantFrom('a', ',', ':', '"', '\\', '\n', '{', '}', '=', '|', ' '),
      maxLength: 8,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.string({
      unit: fc.integer({ min: 0, max: 0xffff }).map((code) => String.fromCharCode(code)),
      maxLength: 6,
    }),
  },
)

/** A name that the flags take. */
export const serviceName: fc.Arbitrary<string> = fc.oneof(
  fc.constantFrom(
    'a',
    'b',
    'a.b',
    'a-b',
    'a_b',
    'a:b',
    'a/b',
    'a@b',
    '購物車',
    '__proto__',
    'constructor',
    '0',
    'é',
    '-',
  ),
  fc.stringMatching(/^[a-z][a-z0-9-]{0,12}$/),
  fc.string({
    unit: fc.constantFrom('a', 'B', '9', '_', '.', ':', '/', '@', '-', 'ß', '購', '𝒳', '𐒠'),
    minLength: 1,
    maxLength: 20,
  }),
)

/** Two ends of an edge. */
export const anyEdge = fc.record({ source: anyName, destination: anyName })

/** Any number that a program can hold, and likelier those at which something ends. */
export const anyNumber: fc.Arbitrary<number> = fc.oneof(
  fc.constantFrom(
    0,
    -0,
    1,
    -1,
    0.5,
    NaN,
    Infinity,
    -Infinity,
    5e-324,
    1e-9,
    1e9,
    1e9 + 1,
    3.6e6,
    1e11,
    1e300,
    Number.MAX_VALUE,
  ),
  fc.double(),
  fc.double({ min: 0, max: 10_000, noNaN: true }),
  fc.integer({ min: 0, max: 100 }),
)

/** A latency, milliseconds, as a recording may hold: from 0 to a million seconds. */
export const latencyMs: fc.Arbitrary<number> = fc.oneof(
  { weight: 6, arbitrary: fc.double({ min: 1, max: 500, noNaN: true }) },
  { weight: 1, arbitrary: fc.constantFrom(0, 5e-324, 1e-300, 1e-3, 0.5, 3.6e6, 1e9) },
  { weight: 1, arbitrary: fc.double({ min: 0, max: 1e9, noNaN: true }) },
)

/** What stands where a sample's value should. */
export const valueText: fc.Arbitrary<unknown> = fc.oneof(
  { weight: 6, arbitrary: latencyMs.map(String) },
  {
    weight: 2,
    arbitrary: fc.constantFrom('NaN', '+Inf', '-Inf', 'Inf', '0', '-0', '-1', '1e999', '1e-999', '1e9', '1000000001'),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom<unknown>(
      '',
      ' ',
      '0x10',
      '1_0',
      'null',
      'nan',
      '1,5',
      '１',
      null,
      true,
      1,
      0,
      [],
      {},
      ['1'],
      '1\n',
      'Infinity',
    ),
  },
)

const NOW = 1_700_000_000

export const timeNumber: fc.Arbitrary<unknown> = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: NOW, max: NOW + 600 }) },
  { weight: 2, arbitrary: fc.double({ min: NOW, max: NOW + 600, noNaN: true }) },
  {
    weight: 1,
    arbitrary: fc.constantFrom<unknown>(0, -1, 1e11, 1e11 + 1, NOW * 1000, '1700000000', null, 1e308, 5e-324),
  },
)

/** A document that is almost what it should be: any part of it may be something else, or be missing, or be there besides. */
export function almost(shape: Readonly<Record<string, fc.Arbitrary<unknown>>>): fc.Arbitrary<unknown> {
  const record = fc.record(shape)
  return fc.oneof(
    { weight: 14, arbitrary: record },
    { weight: 1, arbitrary: fc.record(shape, { requiredKeys: [] }) },
    {
      weight: 1,
      arbitrary: fc
        .tuple(record, fc.dictionary(anyName, fc.jsonValue({ maxDepth: 1 })))
        .map(([known, more]) => ({ ...more, ...known })),
    },
    { weight: 1, arbitrary: anyJson },
  )
}

export const anyJson: fc.Arbitrary<unknown> = fc.jsonValue({ maxDepth: 2, stringUnit: 'binary' })

/** Labels of a series in an answer: own properties, whatever their names. */
export const anyLabels: fc.Arbitrary<unknown> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record(
      {
        source_app: anyName,
        destination_app: anyName,
        source: anyName,
        destination: anyName,
        series: fc.constantFrom('requests_per_second', 'sample_timestamp_seconds', 'poll', 'monitors', 'odd'),
        quantile: fc.constantFrom('0.5', '0.99', '0.50', '1', 'NaN', '', ' 0.5', '0x1'),
        __name__: fc.constantFrom('lab7_anomaly_count', 'lab7_sample_timestamp_seconds', 'lab7_verdict', 'up'),
        verdict: fc.constantFrom('ok', 'anomalous', 'low_traffic', 'no_data', 'warming', 'odd'),
      },
      { requiredKeys: [] },
    ),
  },
  {
    weight: 2,
    arbitrary: fc.array(fc.tuple(anyName, anyName), { maxLength: 4 }).map((entries) => Object.fromEntries(entries)),
  },
  { weight: 1, arbitrary: fc.dictionary(anyName, fc.jsonValue({ maxDepth: 0 })) },
)

const sample = fc.oneof({ weight: 20, arbitrary: fc.tuple(timeNumber, valueText) }, { weight: 1, arbitrary: anyJson })

function answerOf(resultType: 'vector' | 'matrix', item: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> {
  const oneIn = (n: number, usual: unknown): fc.Arbitrary<unknown> =>
    fc.oneof({ weight: n - 1, arbitrary: fc.constant(usual) }, { weight: 1, arbitrary: anyJson })
  return fc.oneof(
    {
      weight: 30,
      arbitrary: fc.record(
        {
          status: oneIn(30, 'success'),
          data: fc.oneof(
            {
              weight: 30,
              arbitrary: fc.record({
                resultType: oneIn(30, resultType),
                result: fc.oneof(
                  { weight: 30, arbitrary: fc.array(item, { maxLength: 8 }) },
                  { weight: 1, arbitrary: anyJson },
                ),
              }),
            },
            { weight: 1, arbitrary: anyJson },
          ),
          warnings: fc.oneof(fc.array(anyName, { maxLength: 2 }), anyJson),
          infos: fc.array(anyName, { maxLength: 1 }),
        },
        { requiredKeys: ['status', 'data'] },
      ),
    },
    {
      weight: 2,
      arbitrary: fc.record(
        { status: fc.constant('error'), errorType: fc.oneof(anyName, anyJson), error: fc.oneof(anyName, anyJson) },
        { requiredKeys: ['status'] },
      ),
    },
    { weight: 1, arbitrary: anyJson },
  )
}

/** Almost an answer of the instant query API. */
export const vectorDocument: fc.Arbitrary<unknown> = answerOf(
  'vector',
  fc.oneof(
    { weight: 12, arbitrary: fc.record({ metric: anyLabels, value: sample }) },
    { weight: 1, arbitrary: fc.record({ metric: anyLabels, value: sample, histogram: anyJson }, { requiredKeys: [] }) },
    { weight: 1, arbitrary: anyJson },
  ),
)

/** Almost an answer of the range query API. */
export const matrixDocument: fc.Arbitrary<unknown> = answerOf(
  'matrix',
  fc.oneof(
    { weight: 12, arbitrary: fc.record({ metric: anyLabels, values: fc.array(sample, { maxLength: 12 }) }) },
    {
      weight: 1,
      arbitrary: fc.record({ metric: anyLabels, values: sample, histograms: anyJson }, { requiredKeys: [] }),
    },
    { weight: 1, arbitrary: anyJson },
  ),
)

/** What is put into a text to see who trips over it. */
const INSERTED = [
  '"',
  '\\',
  '{',
  '}',
  '[',
  ']',
  ',',
  ':',
  '\n',
  '\0',
  ' ',
  '#',
  '-',
  '~',
  '&a ',
  '*a',
  '!!',
  '|',
  '>',
  '%',
  'null',
  'true',
  'NaN',
  '"NaN"',
  '"+Inf"',
  '-1',
  '1e999',
  '1e-999',
  '9007199254740993',
  '0x10',
  '""',
  '{}',
  '[]',
  '[[]]',
  '"__proto__":{"a":1},',
  '"metric":{},',
  '},{"metric":',
  '"status":"error",',
  '\\ud800',
  '\ufeff',
  '\u2028',
  '\xff\xfe',
  '\x1f\x8b',
].map((text) => Buffer.from(text, 'latin1'))

type Mutation = (bytes: Buffer, other: Buffer) => Buffer

const mutation: fc.Arbitrary<Mutation> = fc
  .record({
    kind: fc.constantFrom('truncate', 'flip', 'insert', 'delete', 'repeat', 'number', 'splice', 'swap'),
    at: fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
    length: fc.integer({ min: 1, max: 40 }),
    byte: fc.integer({ min: 0, max: 255 }),
    piece: fc.constantFrom(...INSERTED),
  })
  .map(({ kind, at, length, byte, piece }): Mutation => (bytes, other) => {
    const place = Math.floor(at * bytes.length)
    const before = bytes.subarray(0, place)
    const after = bytes.subarray(place)
    switch (kind) {
      case 'truncate':
        return before
      case 'flip':
        return Buffer.concat([before, Buffer.from([byte]), after.subarray(1)])
      case 'insert':
        return Buffer.concat([before, piece, after])
      case 'delete':
        return Buffer.concat([before, after.subarray(length)])
      case 'repeat':
        return Buffer.concat([before, after.subarray(0, length), after])
      case 'number':
        return Buffer.from(replacedNumber(bytes.toString('latin1'), place, piece.toString('latin1')), 'latin1')
      case 'splice':
        return Buffer.concat([before, other.subarray(Math.floor(at * other.length))])
      case 'swap':
        return Buffer.concat([before, after.subarray(length), after.subarray(0, length)])
    }
  })

/** The next number of the text is something else. */
function replacedNumber(text: string, from: number, by: string): string {
  const found = /\d+(\.\d+)?/.exec(text.slice(from))
  if (found === null) return text
  return text.slice(0, from + found.index) + by + text.slice(from + found.index + found[0].length)
}

/** Recorded bytes that something happened to on their way. */
export function damaged(recorded: readonly (string | Buffer)[]): fc.Arbitrary<Buffer> {
  const texts = recorded.map((text): Buffer => Buffer.from(text as string))
  return fc
    .tuple(fc.constantFrom(...texts), fc.constantFrom(...texts), fc.array(mutation, { maxLength: 5 }))
    .map(([bytes, other, mutations]) => mutations.reduce<Buffer>((changed, mutate) => mutate(changed, other), bytes))
}
