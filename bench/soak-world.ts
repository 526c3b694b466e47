/**
 * What a Prometheus and an Alertmanager say to the soaked daemons: a real server on 127.0.0.1 whose time is its clients', with
 * latencies that were recorded, incidents, edges that come and go, and every kind of misbehaviour. All of it by chance from a seed.
 */
import { readFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { gzipSync } from 'node:zlib'

import { type Pair, pairName } from '../src/core/pair.js'
import { parseAnswer } from '../src/core/series.js'
import { lognormal, pickWeighted, type Random, seededRandom, seedFor } from '../src/testbed/random.js'
import { fleetEdges } from './mesh-fleet.js'

/** Of a request: the client's time of day, unix milliseconds. */
export const NOW_HEADER = 'x-soak-now-ms'

const EPOCH_SECONDS = 300
/** One in so many requests is answered wrong, besides those during an outage. */
const TROUBLE_EVERY = 16
const OUTAGE_CHANCE = 0.12
const INCIDENT_CHANCE = 0.3

export interface WorldOptions {
  readonly seed: number
  /** A saved query_range answer with one quantile and the request rate. */
  readonly recording: string
  readonly pairs: readonly Pair[]
  /** Edges of the mesh, three quarters of which are always there. */
  readonly edges: number
}

export interface World {
  readonly url: string
  /** How often each misbehaviour was met. */
  readonly troubles: () => Readonly<Record<string, number>>
  readonly close: () => Promise<void>
}

/** The edges of the mesh that are always there. */
export function lastingEdges(edges: number): readonly Pair[] {
  return fleetEdges(Math.ceil((edges * 3) / 4))
}

interface Answer {
  readonly status: number
  readonly body: Buffer
  readonly headers?: Readonly<Record<string, string>>
}

type Misbehave = (answer: Answer, response: ServerResponse, request: IncomingMessage) => void

const wrong =
  (body: string, status = 200, headers: Readonly<Record<string, string>> = {}): Misbehave =>
  (_, response) => {
    response.writeHead(status, headers).end(body)
  }

const result = (resultType: string, elements: string): string =>
  `{"status":"success","data":{"resultType":"${resultType}","result":${elements}}}`

const TROUBLES: readonly { readonly name: string; readonly weight: number; readonly misbehave: Misbehave }[] = [
  { name: 'status 503', weight: 10, misbehave: wrong('unavailable\n', 503) },
  { name: 'status 500 with an error of Prometheus', weight: 6, misbehave: wrong(apiError('internal', 'x'), 500) },
  { name: 'query timed out', weight: 6, misbehave: wrong(apiError('timeout', 'query timed out in x'), 503) },
  { name: 'status 422', weight: 4, misbehave: wrong(apiError('execution', 'many-to-many'), 422) },
  { name: 'status 401', weight: 4, misbehave: wrong('no', 401) },
  { name: 'a redirect', weight: 4, misbehave: wrong('', 302, { location: 'http://127.0.0.1:9/elsewhere' }) },
  { name: 'a page of HTML', weight: 4, misbehave: wrong('<html><body>Please log in</body></html>') },
  { name: 'nothing', weight: 4, misbehave: wrong('') },
  { name: 'no series', weight: 10, misbehave: wrong(result('vector', '[]')) },
  { name: 'another type', weight: 4, misbehave: wrong(result('scalar', '[1,"1"]')) },
  { name: 'a value that is none', weight: 4, misbehave: wrong(result('vector', '[{"metric":{},"value":[1,2]}]')) },
  { name: 'gzip that is none', weight: 4, misbehave: wrong('garbage', 200, { 'content-encoding': 'gzip' }) },
  {
    name: 'half of the body',
    weight: 10,
    misbehave: ({ body }, response) => {
      response.writeHead(200, { 'content-length': body.length + 100 }).write(body)
      setImmediate(() => response.destroy())
    },
  },
  { name: 'reset', weight: 10, misbehave: (_, __, { socket }) => void socket.resetAndDestroy() },
  { name: 'no answer', weight: 2, misbehave: () => undefined },
  {
    name: 'a body that never ends',
    weight: 1,
    misbehave: ({ body }, response) => void response.writeHead(200).write(body.subarray(0, 20)),
  },
  {
    name: 'too much',
    weight: 0.5,
    misbehave: (_, response) => void response.writeHead(200).end(Buffer.alloc(70 * 2 ** 20, ' ')),
  },
  {
    name: 'too much when decompressed',
    weight: 0.5,
    misbehave: (_, response) => void response.writeHead(200, { 'content-encoding': 'gzip' }).end(bomb()),
  },
  {
    name: 'a warning',
    weight: 10,
    misbehave: ({ status, body }, response) => {
      response.writeHead(status).end(body.toString().replace(/\}$/, ',"warnings":["one store did not answer"]}'))
    },
  },
]

let packed: Buffer | null = null
function bomb(): Buffer {
  return (packed ??= gzipSync(Buffer.alloc(80 * 2 ** 20)))
}

function apiError(errorType: string, error: string): string {
  return JSON.stringify({ status: 'error', errorType, error })
}

export async function startWorld(options: WorldOptions): Promise<World> {
  const { seed } = options
  const answers = createAnswers(options)
  const random = seededRandom(seedFor(seed, 'troubles'))
  const met = new Map<string, number>()

  const troubleAt = (nowSeconds: number): (typeof TROUBLES)[number] | null => {
    const epoch = Math.floor(nowSeconds / EPOCH_SECONDS)
    const chance = seededRandom(seedFor(seed, `outage ${epoch}`))
    if (chance() < OUTAGE_CHANCE) {
      const from = epoch * EPOCH_SECONDS + chance() * EPOCH_SECONDS
      const lasts = chance() * 60
      const kind = pickWeighted(
        chance,
        TROUBLES.filter(({ weight }) => weight >= 4),
      )
      if (nowSeconds >= from && nowSeconds < from + lasts) return kind
    }
    return random() * TROUBLE_EVERY < 1 ? pickWeighted(random, TROUBLES) : null
  }

  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('error', () => undefined)
    response.on('error', () => undefined)
    request.on('end', () => {
      const nowSeconds = Number(request.headers[NOW_HEADER]) / 1000
      const [path = '', search = ''] = (request.url ?? '').split('?')
      const form = new URLSearchParams(request.method === 'POST' ? Buffer.concat(chunks).toString() : search)
      const right: Answer = path.endsWith('/alerts')
        ? { status: 200, body: Buffer.alloc(0) }
        : { status: 200, body: Buffer.from(answers(form.get('query') ?? '', nowSeconds)) }
      const trouble = troubleAt(nowSeconds)
      if (trouble === null) {
        response.writeHead(200, { 'content-type': 'application/json', 'content-length': right.body.length })
        response.end(right.body)
        return
      }
      met.set(trouble.name, (met.get(trouble.name) ?? 0) + 1)
      trouble.misbehave(right, response, request)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    troubles: () => Object.fromEntries([...met].sort(([, a], [, b]) => b - a)),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

interface Span {
  readonly fromSeconds: number
  readonly toSeconds: number
}

/** What happens to an edge within an epoch. */
interface Fate {
  readonly anomalous: Span | null
  /** When its monitor is gone. */
  readonly silent: Span | null
  /** When nobody uses it. */
  readonly idle: Span | null
}

function within(span: Span | null, seconds: number): boolean {
  return span !== null && seconds >= span.fromSeconds && seconds < span.toSeconds
}

/** A function of the query and the time alone. */
function createAnswers({ seed, recording, pairs, edges }: WorldOptions): (query: string, nowSeconds: number) => string {
  const recorded = recordedValues(recording)
  const lasting = lastingEdges(edges)
  const fates = new WeakMap<Pair, { readonly epoch: number; readonly fate: Fate }>()

  const span = (random: Random, epoch: number, chance: number, longest: number): Span | null => {
    const drawn = [random(), random(), random()] as const
    if (drawn[0] >= chance) return null
    const fromSeconds = (epoch + drawn[1] / 2) * EPOCH_SECONDS
    return { fromSeconds, toSeconds: fromSeconds + 2 + drawn[2] * longest }
  }
  const fateOf = (pair: Pair, seconds: number): Fate => {
    const epoch = Math.floor(seconds / EPOCH_SECONDS)
    const known = fates.get(pair)
    if (known?.epoch === epoch) return known.fate
    // The mesh's edges would make incidents all the time otherwise.
    const share = pairs.some(({ source }) => source === pair.source) ? 1 : 5 / edges
    const random = seededRandom(seedFor(seed, `${pairName(pair)} ${epoch}`))
    const fate = {
      anomalous: span(random, epoch, INCIDENT_CHANCE * share, 120),
      silent: span(random, epoch, 0.05, 40),
      idle: span(random, epoch, 0.05, 40),
    }
    fates.set(pair, { epoch, fate })
    return fate
  }
  /** The lasting edges, and some of others whose names are new every few epochs. */
  let mesh: { readonly epoch: number; readonly pairs: readonly Pair[] } = { epoch: -1, pairs: [] }
  const meshAt = (seconds: number): readonly Pair[] => {
    const epoch = Math.floor(seconds / EPOCH_SECONDS)
    if (mesh.epoch === epoch) return mesh.pairs
    const passing = Array.from({ length: edges - lasting.length }, (_, i) => {
      const generation = Math.floor((epoch + i) / 4)
      return { source: `job-${i}-${generation}`, destination: `service-${i % 7}-0` }
    })
    const present = passing.filter((edge) => seededRandom(seedFor(seed, `${edge.source} ${epoch}`))() < 0.7)
    mesh = { epoch, pairs: [...lasting, ...present] }
    return mesh.pairs
  }

  const sampleAt = (pair: Pair, seconds: number): { readonly latency: string; readonly rate: string } => {
    const [latencyMs = 1, rate = 1] = recorded[Math.floor(seconds / 15) % recorded.length] ?? []
    const random = seededRandom(seedFor(Math.floor(seconds), pair.destination))
    const fate = fateOf(pair, seconds)
    if (within(fate.idle, seconds)) return { latency: 'NaN', rate: '0' }
    const factor = within(fate.anomalous, seconds) ? 4 : 1
    return {
      latency: String(lognormal(random, { median: latencyMs * factor, sigma: 0.02 })),
      rate: String(lognormal(random, { median: rate, sigma: 0.02 })),
    }
  }

  const vector = (asked: readonly Pair[], labelled: (pair: Pair) => string, seconds: number): string => {
    const time = seconds.toFixed(3)
    const parts: string[] = []
    for (const pair of asked) {
      if (within(fateOf(pair, seconds).silent, seconds)) continue
      const { latency, rate } = sampleAt(pair, seconds)
      const names = labelled(pair)
      const element = (label: string, value: string): string =>
        `{"metric":{${names}${label}},"value":[${time},"${value}"]}`
      parts.push(
        element('"quantile":"0.5"', latency),
        element('"series":"requests_per_second"', rate),
        element('"series":"sample_timestamp_seconds"', (seconds - 2.5).toFixed(3)),
      )
    }
    return result('vector', `[${parts.join(',')}]`)
  }

  /** What the monitors exported, at each step of a subquery. */
  const history = (query: string, nowSeconds: number): string => {
    const [, rangeMs = '', stepMs = '', atSeconds] = /\[(\d+)ms:(\d+)ms\] (?:offset \d+ms|@ (\S+))/.exec(query) ?? []
    const stepSeconds = Number(stepMs) / 1000
    const endSeconds = atSeconds === undefined ? nowSeconds - 1 : Number(atSeconds)
    const times: number[] = []
    for (
      let k = Math.floor((endSeconds - Number(rangeMs) / 1000) / stepSeconds) + 1;
      k * stepSeconds <= endSeconds;
      k++
    ) {
      times.push(k * stepSeconds)
    }
    const named = namedIn(query)
    const all = query.includes('label_replace(count(')
    const monitor = '"instance":"10.0.0.1:8080","job":"meshfever"'
    const series = new Map<string, string[]>()
    const add = (metric: string, time: number, value: string | number): void => {
      const values = series.get(metric)
      if (values === undefined) series.set(metric, [`[${time},"${value}"]`])
      else values.push(`[${time},"${value}"]`)
    }
    for (const time of times) {
      add('"series":"poll"', time, 1)
      if (all) add('"series":"monitors"', time, 1)
      for (const pair of all ? meshAt(time) : pairs) {
        const whole = named(pair)
        const fate = fateOf(pair, time)
        if ((!whole && !all) || within(fate.silent, time)) continue
        const labels = `"source":"${pair.source}","destination":"${pair.destination}",${monitor}`
        const anomalous = within(fate.anomalous, time)
        const idle = within(fate.idle, time)
        if (!idle && (anomalous || whole)) add(`"__name__":"lab7_anomaly_count",${labels}`, time, anomalous ? 1 : 0)
        if (!whole) continue
        add(`"__name__":"lab7_sample_timestamp_seconds",${labels}`, time, time - 0.5)
        const verdict = idle ? 'low_traffic' : anomalous ? 'anomalous' : 'ok'
        add(`"__name__":"lab7_verdict","verdict":"${verdict}",${labels}`, time, 1)
      }
    }
    const elements = [...series].map(([metric, values]) => `{"metric":{${metric}},"values":[${values.join(',')}]}`)
    return result('matrix', `[${elements.join(',')}]`)
  }

  /** For evidence: what the monitors exported of the named pairs at a time. */
  const gauges = (query: string, nowSeconds: number): string => {
    const named = namedIn(query)
    const elements = [...pairs, ...meshAt(nowSeconds)].filter(named).flatMap(({ source, destination }) =>
      ['lab7_y', 'lab7_yhat', 'lab7_y_min', 'lab7_y_max'].map((name, i) => {
        const value = [40, 10, 8, 12][i]
        return `{"metric":{"__name__":"${name}","source":"${source}","destination":"${destination}","quantile":"0.5"},"value":[${nowSeconds.toFixed(3)},"${value}"]}`
      }),
    )
    return result('vector', `[${elements.join(',')}]`)
  }

  return (query, nowSeconds) => {
    if (/\[\d+ms:\d+ms\]/.test(query)) return history(query, nowSeconds)
    if (query.includes('__name__=~"lab7_y|')) return gauges(query, nowSeconds)
    if (query.includes('by (le, source_app, destination_app)')) {
      const labelled = ({ source, destination }: Pair): string =>
        `"source_app":"${source}","destination_app":"${destination}",`
      return vector(meshAt(nowSeconds), labelled, nowSeconds)
    }
    if (query.startsWith('label_replace(histogram_quantile(')) return vector(pairs.slice(0, 1), () => '', nowSeconds)
    return result('vector', '[]')
  }
}

/** Which pairs a query names as `source=~"a|b",destination=~"c|d"`. */
function namedIn(query: string): (pair: Pair) => boolean {
  const names = (label: string): ReadonlySet<string> =>
    new Set(new RegExp(`[{,]${label}=~"([^"]*)"`).exec(query)?.[1]?.split('|') ?? [])
  const [sources, destinations] = [names('source'), names('destination')]
  return ({ source, destination }) => sources.has(source) && destinations.has(destination)
}

function recordedValues(path: string): readonly (readonly [latencyMs: number, requestsPerSecond: number])[] {
  const { result: series } = parseAnswer(JSON.parse(readFileSync(path, 'utf8')), 'matrix')
  const [latency, rate] = [
    series.find(({ labels }) => labels.has('quantile')),
    series.find(({ labels }) => labels.has('series')),
  ]
  return (latency?.values ?? []).map((value, i) => [value, rate?.values[i] ?? 0] as const)
}
