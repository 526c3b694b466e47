import type { Asked, Elsewhere, Facts, PollAnswer, Subject } from '../core/diagnosis.js'
import {
  distributionQuery,
  type EdgeNames,
  edgesQuery,
  FOUND_DESTINATION_LABEL,
  FOUND_SOURCE_LABEL,
  hostsQuery,
  lastSeenQuery,
  METRICS_QUERY,
  NOW,
  otherLabelsQuery,
  presenceQuery,
  requestsQuery,
  scrapesQuery,
} from '../core/examination-queries.js'
import {
  latencyTrafficAndAge,
  QUANTILE_LABEL,
  REQUESTS_PER_SECOND,
  SAMPLE_TIMESTAMP_SECONDS,
  SERIES_LABEL,
} from '../core/promql.js'
import { isRate } from '../core/reading.js'
import type { InstantSample, Vector } from '../core/series.js'
import { type Answer, queryInstant, queryInstantMatrix } from './prometheus.js'
import type { Runtime } from './runtime.js'

/** Patient: a slow answer is a finding, too. */
const DEADLINE_MS = 15_000

/** How often the monitor's query is timed. */
const TIMED_POLLS = 5

/** Shares and scrape intervals are taken over so many seconds, or over the window if that is longer. */
const LOOK_BACK_SECONDS = 300

export type Examined = Omit<Facts, 'virtualServices' | 'training'>

/**
 * Asks Prometheus what `diagnose` wants to know of a pair. Never rejects: an answer that does not come is a fact.
 *
 * @param options.hosts - whether the destination's hosts are of interest
 */
export async function examine(
  runtime: Runtime,
  subject: Subject,
  options: { readonly hosts: boolean },
): Promise<Examined> {
  const { prometheusUrl, window } = subject
  const request = (query: string) => ({ prometheusUrl, query, deadlineMs: DEADLINE_MS })
  const vector = async <T>(query: string, read: (vector: Vector) => T): Promise<Asked<T>> =>
    asked(await queryInstant(runtime, request(query)), read)

  const clock = await askClock(runtime, subject)
  const nothing = { kind: 'not-asked' } as const
  if (clock.kind !== 'known') {
    return {
      subject,
      clock,
      pollSeconds: [],
      poll: nothing,
      presence: nothing,
      requestsByReporter: nothing,
      distribution: nothing,
      scrapes: nothing,
      elsewhere: null,
      destinationHosts: nothing,
    }
  }
  const { poll, pollSeconds } = await timePolls(runtime, subject)
  const lookBack = Math.max(LOOK_BACK_SECONDS, Math.ceil(window.seconds))
  const [presence, requestsByReporter, distribution, scrapes, destinationHosts] = await Promise.all([
    vector(presenceQuery(subject), ({ result }) =>
      result.map(({ labels }) => ({ metric: text(labels, '__name__'), reporter: text(labels, 'reporter') })),
    ),
    vector(
      requestsQuery(subject, lookBack),
      ({ result }) => new Map(result.map(({ labels, value }) => [text(labels, 'reporter'), value ?? NaN])),
    ),
    vector(distributionQuery(subject, lookBack), ({ result }) =>
      result.flatMap(({ labels, value }) => {
        const bound = text(labels, 'le')
        const upperMs = bound === '+Inf' ? Infinity : Number(bound)
        const broken = bound === '' || Number.isNaN(upperMs) || !isRate(value)
        const [protocol, code] = [text(labels, 'request_protocol'), text(labels, 'response_code')]
        return broken ? [] : [{ upperMs, protocol, code, requests: value }]
      }),
    ),
    queryInstantMatrix(runtime, request(scrapesQuery(subject, lookBack))).then((answer) =>
      asked(answer, ({ result }) => result.map(({ labels, timesSeconds }) => ({ labels, timesSeconds }))),
    ),
    options.hosts
      ? vector(hostsQuery(subject), ({ result }) => result.map(({ labels }) => text(labels, 'destination_service')))
      : nothing,
  ])
  const lost = presence.kind === 'known' && presence.value.length === 0
  const elsewhere = lost ? await lookElsewhere(subject, vector) : null
  return {
    subject,
    clock,
    pollSeconds,
    poll,
    presence,
    requestsByReporter,
    distribution,
    scrapes,
    elsewhere,
    destinationHosts,
  }
}

async function askClock(runtime: Runtime, { prometheusUrl }: Subject): Promise<Examined['clock']> {
  const { clock } = runtime
  const startMs = clock.nowMs()
  const answer = await queryInstant(runtime, { prometheusUrl, query: NOW, deadlineMs: DEADLINE_MS })
  const endMs = clock.nowMs()
  const read = asked(answer, ({ result }) => result[0]?.value)
  if (read.kind !== 'known') return read
  if (read.value === undefined) {
    return { kind: 'unanswered', outcome: 'bad_shape', detail: `${NOW} has no value there` }
  }
  return {
    kind: 'known',
    value: {
      prometheusSeconds: read.value,
      ourSeconds: (startMs + endMs) / 2 / 1000,
      roundTripSeconds: (endMs - startMs) / 1000,
    },
  }
}

/** Asks the monitor's own query several times, one after the other; a failure ends it. */
async function timePolls(runtime: Runtime, subject: Subject): Promise<Pick<Examined, 'poll' | 'pollSeconds'>> {
  const { prometheusUrl, window } = subject
  const query = latencyTrafficAndAge({ ...subject, reporter: 'source', window: window.text })
  const pollSeconds: number[] = []
  let poll: Asked<PollAnswer> = { kind: 'not-asked' }
  for (let i = 0; i < TIMED_POLLS; i++) {
    const startMs = runtime.clock.monotonicMs()
    const answer = await queryInstant(runtime, { prometheusUrl, query, deadlineMs: DEADLINE_MS })
    poll = asked(answer, pollAnswerOf)
    if (poll.kind === 'unanswered') break
    pollSeconds.push((runtime.clock.monotonicMs() - startMs) / 1000)
  }
  return { poll, pollSeconds }
}

function pollAnswerOf({ result }: Vector): PollAnswer {
  const single = (series: string): number | null => {
    const value = result.find(({ labels }) => labels.get(SERIES_LABEL) === series)?.value
    return isRate(value) ? value : null
  }
  return {
    latencies: result.flatMap(({ labels, value }) =>
      labels.has(QUANTILE_LABEL) && value !== undefined && Number.isFinite(value)
        ? [{ quantile: Number(labels.get(QUANTILE_LABEL)), latencyMs: value }]
        : [],
    ),
    requestsPerSecond: single(REQUESTS_PER_SECOND),
    evaluatedSeconds: result[0]?.evaluatedSeconds ?? NaN,
    newestSeconds: single(SAMPLE_TIMESTAMP_SECONDS),
  }
}

async function lookElsewhere(
  edge: EdgeNames,
  vector: <T>(query: string, read: (vector: Vector) => T) => Promise<Asked<T>>,
): Promise<Elsewhere> {
  const { sourceLabel, destinationLabel } = edge
  const [metrics, edges, otherLabels, lastSeenSeconds] = await Promise.all([
    vector(METRICS_QUERY, ({ result }) => result.map(({ labels }) => text(labels, '__name__'))),
    vector(edgesQuery(edge), ({ result }) =>
      result.map(({ labels }) => ({ source: text(labels, sourceLabel), destination: text(labels, destinationLabel) })),
    ),
    vector(otherLabelsQuery(edge), ({ result }) =>
      result.map(({ labels }) => ({
        sourceLabel: text(labels, FOUND_SOURCE_LABEL),
        destinationLabel: text(labels, FOUND_DESTINATION_LABEL),
      })),
    ),
    vector(lastSeenQuery(edge), ({ result }) => result[0]?.value ?? null),
  ])
  return { metrics, edges, otherLabels, lastSeenSeconds }
}

function asked<T, U>(answer: Answer<T>, read: (data: T) => U): Asked<U> {
  return answer.kind === 'answer'
    ? { kind: 'known', value: read(answer.data) }
    : { kind: 'unanswered', outcome: answer.outcome, detail: answer.detail }
}

/** Empty where there is no such label, as Prometheus itself has it. */
function text(labels: InstantSample['labels'], name: string): string {
  return labels.get(name) ?? ''
}
