/** A Prometheus time series: equally long arrays, times strictly rising (unix seconds), values finite or NaN for missing. */
export interface Series {
  readonly labels: ReadonlyMap<string, string>
  readonly timesSeconds: readonly number[]
  readonly values: readonly number[]
}

/** A place in a document that is not what Prometheus's API promises. */
export class ShapeError extends Error {
  override readonly name = 'ShapeError'
  readonly kind: 'bad_shape' | 'wrong_type' | 'histogram' | 'api_error'
  constructor(kind: ShapeError['kind'], message: string) {
    super(message)
    this.kind = kind
  }
}

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i

/**
 * A sample value as Prometheus writes it: a string holding a number, NaN, +Inf or -Inf. Anything else, an empty string
 * included, is undefined: `Number('')` would be a latency of 0.
 */
export function parseValue(value: unknown): number | undefined {
  if (typeof value !== 'string') return undefined
  if (NUMBER.test(value)) return Number(value)
  switch (value) {
    case 'NaN':
      return NaN
    case '+Inf':
    case 'Inf':
      return Infinity
    case '-Inf':
      return -Infinity
    default:
      return undefined
  }
}

export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** A short, safe rendering of something unexpected, for messages. Never walks into it. */
export function glimpse(value: unknown): string {
  if (value === undefined) return 'nothing'
  if (Array.isArray(value)) return `an array of ${value.length}`
  if (typeof value === 'object' && value !== null) return 'an object'
  return JSON.stringify(value).slice(0, 40)
}

export interface Vector {
  readonly resultType: 'vector'
  readonly result: readonly InstantSample[]
  readonly warnings: number
}

export interface InstantSample {
  readonly labels: ReadonlyMap<string, string>
  /** When the query was evaluated, unix seconds; says nothing of the sample's own age. */
  readonly evaluatedSeconds: number
  /** Undefined for a native histogram. */
  readonly value: number | undefined
}

export interface Matrix {
  readonly resultType: 'matrix'
  readonly result: readonly Series[]
  readonly warnings: number
  /** Samples that stood out of order, or twice: of two values for one time the later in the file holds. Never silent. */
  readonly reordered: number
}

/** What is around the results of a successful answer. */
export interface Envelope {
  readonly result: readonly unknown[]
  readonly warnings: number
}

/**
 * Checks all of an answer but its results.
 *
 * @param expected - the result type asked for
 * @throws {ShapeError} with the path of the first thing that is not as promised
 */
export function parseEnvelope(document: unknown, expected: 'vector' | 'matrix'): Envelope {
  if (!isObject(document)) throw new ShapeError('bad_shape', `expected an object, got ${glimpse(document)}`)
  if (document['status'] === 'error') {
    const { errorType, error } = document
    // Only of a text: an object may come with a toString of its own that is no function.
    const said = typeof error === 'string' ? error.slice(0, 200) : glimpse(error)
    throw new ShapeError('api_error', `status is "error": ${glimpse(errorType)} ${said}`)
  }
  if (document['status'] !== 'success') {
    throw new ShapeError('bad_shape', `status: expected "success", got ${glimpse(document['status'])}`)
  }
  const data = document['data']
  if (!isObject(data)) throw new ShapeError('bad_shape', `data: expected an object, got ${glimpse(data)}`)
  if (data['resultType'] !== expected) {
    throw new ShapeError('wrong_type', `data.resultType: expected "${expected}", got ${glimpse(data['resultType'])}`)
  }
  const result = data['result']
  if (!Array.isArray(result))
    throw new ShapeError('bad_shape', `data.result: expected an array, got ${glimpse(result)}`)
  return { result, warnings: Array.isArray(document['warnings']) ? document['warnings'].length : 0 }
}

/**
 * The `data` of a successful answer of Prometheus's query API, checked.
 *
 * @param expected - the result type asked for
 * @throws {ShapeError} with the path of the first thing that is not as promised
 */
export function parseAnswer(document: unknown, expected: 'vector'): Vector
export function parseAnswer(document: unknown, expected: 'matrix'): Matrix
export function parseAnswer(document: unknown, expected: 'vector' | 'matrix'): Vector | Matrix {
  const { result, warnings } = parseEnvelope(document, expected)
  if (expected === 'vector') {
    return { resultType: 'vector', warnings, result: result.map((item, i) => parseInstant(item, `data.result[${i}]`)) }
  }
  let reordered = 0
  const series = result.map((item, i) => {
    const parsed = parseSeries(item, `data.result[${i}]`)
    reordered += parsed.reordered
    return parsed.series
  })
  return { resultType: 'matrix', warnings, result: series, reordered }
}

function parseLabels(item: unknown, path: string): ReadonlyMap<string, string> {
  if (!isObject(item)) throw new ShapeError('bad_shape', `${path}: expected an object, got ${glimpse(item)}`)
  const metric = item['metric']
  if (!isObject(metric)) throw new ShapeError('bad_shape', `${path}.metric: expected an object, got ${glimpse(metric)}`)
  const labels = new Map<string, string>()
  for (const [name, value] of Object.entries(metric)) {
    if (typeof value !== 'string') {
      throw new ShapeError(
        'bad_shape',
        `${path}.metric: expected texts, got ${glimpse(value)} for ${JSON.stringify(name)}`,
      )
    }
    labels.set(name, value)
  }
  return labels
}

function parseSample(sample: unknown, path: string): readonly [timeSeconds: number, value: number] {
  if (!Array.isArray(sample) || sample.length !== 2) {
    throw new ShapeError('bad_shape', `${path}: expected [time, "value"], got ${glimpse(sample)}`)
  }
  const [time, text] = sample as readonly unknown[]
  if (typeof time !== 'number' || !Number.isFinite(time)) {
    throw new ShapeError('bad_shape', `${path}[0]: expected a unix time in seconds, got ${glimpse(time)}`)
  }
  if (time > 1e11 || time < 0) {
    const hint = time > 1e11 ? ' (milliseconds? Prometheus gives seconds)' : ''
    throw new ShapeError('bad_shape', `${path}[0]: expected a unix time in seconds, got ${time}${hint}`)
  }
  const value = parseValue(text)
  if (value === undefined) {
    throw new ShapeError(
      'bad_shape',
      `${path}[1]: expected a number in a string such as "8.19" or "NaN", got ${glimpse(text)}`,
    )
  }
  return [time, value]
}

function parseInstant(item: unknown, path: string): InstantSample {
  const labels = parseLabels(item, path)
  return { labels, ...parseInstantValue(item as object, path) }
}

/**
 * What an element of an instant vector holds besides its labels.
 *
 * @throws {ShapeError} when that is no sample
 */
export function parseInstantValue(item: object, path: string): Omit<InstantSample, 'labels'> {
  const { value, histogram } = item as { readonly value?: unknown; readonly histogram?: unknown }
  if (value === undefined && Array.isArray(histogram)) {
    const [time] = histogram as readonly unknown[]
    return { evaluatedSeconds: typeof time === 'number' ? time : NaN, value: undefined }
  }
  const [evaluatedSeconds, number] = parseSample(value, `${path}.value`)
  return { evaluatedSeconds, value: number }
}

function parseSeries(item: unknown, path: string): { readonly series: Series; readonly reordered: number } {
  const labels = parseLabels(item, path)
  const { values, histograms } = item as { readonly values?: unknown; readonly histograms?: unknown }
  if (values === undefined && histograms !== undefined) {
    throw new ShapeError(
      'histogram',
      `${path}.histograms: expected float samples under "values", got native histograms`,
    )
  }
  if (!Array.isArray(values))
    throw new ShapeError('bad_shape', `${path}.values: expected an array, got ${glimpse(values)}`)
  const samples = values.map((sample, i) => ({ i, sample: parseSample(sample, `${path}.values[${i}]`) }))
  const sorted = samples.every(({ i, sample }) => i === 0 || sample[0] > (samples[i - 1]?.sample[0] ?? -Infinity))
  let reordered = 0
  if (!sorted) {
    const before = samples.map(({ i }) => i)
    samples.sort((a, b) => a.sample[0] - b.sample[0] || a.i - b.i)
    reordered = samples.filter(({ i }, k) => i !== before[k]).length
  }
  const timesSeconds: number[] = []
  const kept: number[] = []
  for (const {
    sample: [time, value],
  } of samples) {
    if (time === timesSeconds.at(-1)) {
      kept[kept.length - 1] = value
      reordered++
      continue
    }
    timesSeconds.push(time)
    kept.push(value)
  }
  return { series: { labels, timesSeconds, values: kept }, reordered }
}
