import {
  type EdgeNames,
  LATENCY_BUCKETS,
  LATENCY_COUNT,
  LATENCY_NATIVE,
  latencyQueryWith,
  REQUESTS,
  TCP_CONNECTIONS,
} from './examination-queries.js'
import type { Pair } from './pair.js'
import type { PollOutcome } from './reading.js'
import {
  type DeclaredVirtualService,
  faultsOn,
  sameHosts,
  sameNames,
  virtualServiceName,
} from './virtual-service-objects.js'

/** What was asked of Prometheus, and what came of it. */
export type Asked<T> =
  | { readonly kind: 'known'; readonly value: T }
  | { readonly kind: 'unanswered'; readonly outcome: PollOutcome; readonly detail: string }
  | { readonly kind: 'not-asked' }

/** What is examined, and how it would be watched. */
export interface Subject extends EdgeNames {
  readonly prometheusUrl: string
  readonly window: { readonly text: string; readonly seconds: number }
  /** Those that are scored: the training data's, else the one asked for. At least one. */
  readonly quantiles: readonly number[]
  readonly minRequestsPerSecond: number
  readonly pollIntervalSeconds: number
  /** When the monitor gives up on an answer. */
  readonly pollDeadlineSeconds: number
}

export interface ClockReading {
  readonly prometheusSeconds: number
  /** Ours, in the middle of the exchange. */
  readonly ourSeconds: number
  readonly roundTripSeconds: number
}

/** What the monitor's own query answers. */
export interface PollAnswer {
  /** Those that are a number. */
  readonly latencies: readonly { readonly quantile: number; readonly latencyMs: number }[]
  readonly requestsPerSecond: number | null
  readonly evaluatedSeconds: number
  /** The newest sample's own time. */
  readonly newestSeconds: number | null
}

export interface Presence {
  readonly metric: string
  /** Empty where the metric has no such label. */
  readonly reporter: string
}

export interface BucketCount {
  /** Infinity for the last. */
  readonly upperMs: number
  /** Empty where the histogram has no such label. */
  readonly protocol: string
  readonly code: string
  /** Requests up to `upperMs`. */
  readonly requests: number
}

export interface ScrapedSeries {
  readonly labels: ReadonlyMap<string, string>
  readonly timesSeconds: readonly number[]
}

/** Asked only when the pair is not to be found. */
export interface Elsewhere {
  readonly metrics: Asked<readonly string[]>
  /** A name is empty where the metric has no such label. */
  readonly edges: Asked<readonly Pair[]>
  readonly otherLabels: Asked<readonly { readonly sourceLabel: string; readonly destinationLabel: string }[]>
  /** Null: not within hours. */
  readonly lastSeenSeconds: Asked<number | null>
}

export interface TrainingFacts {
  readonly file: string
  readonly series: readonly {
    readonly quantile: number
    readonly samples: number
    readonly medianMs: number
    /** Nearly all of the recording lies in [lowMs, highMs]. */
    readonly lowMs: number
    readonly highMs: number
  }[]
  /** Pairs that the file says it was recorded of. */
  readonly pairs: readonly Partial<Pair>[]
  /** Rate window of its query, when the file tells. */
  readonly window: string | null
}

export interface Facts {
  readonly subject: Subject
  readonly clock: Asked<ClockReading>
  /** How long the built-in query took, each time it was answered. */
  readonly pollSeconds: readonly number[]
  readonly poll: Asked<PollAnswer>
  readonly presence: Asked<readonly Presence[]>
  readonly requestsByReporter: Asked<ReadonlyMap<string, number>>
  readonly distribution: Asked<readonly BucketCount[]>
  readonly scrapes: Asked<readonly ScrapedSeries[]>
  readonly elsewhere: Elsewhere | null
  readonly destinationHosts: Asked<readonly string[]>
  /** Null when no files were given. */
  readonly virtualServices: readonly DeclaredVirtualService[] | null
  readonly training: TrainingFacts | null
}

export interface Finding {
  readonly id: string
  readonly level: 'ok' | 'warning' | 'fatal'
  /** One line, in plain words, with the numbers. */
  readonly what: string
  /** Null when there is nothing to do. */
  readonly todo: string | null
}

const MAX_SKEW_SECONDS = 2
const SLOW_QUERY_SECONDS = 1
const SLOW_SHARE_OF_INTERVAL = 0.2
const MIN_SCRAPES_IN_WINDOW = 4
/** The monitor's own limit for a sample's age, as a share of the window. */
const MAX_AGE_OF_WINDOW = 0.75
const ONE_BUCKET_SHARE = 0.9
/** Of the requests: more of a kind that is no ordinary request moves a quantile. */
const STREAM_SHARE = 0.01
const LONG_REQUEST_MS = 60_000
const REPORTERS_RATIO = 1.25
/** Fewer requests say nothing about shares. */
const MIN_REQUESTS_FOR_SHARES = 20
/** Requests that should lie beyond a quantile within a window, or it is a matter of luck. */
const MIN_REQUESTS_BEYOND = 5
const NAMED_AT_MOST = 3

/** What is good, bad and hopeless about watching a pair, in the order in which one would look. */
export function diagnose(facts: Facts): readonly Finding[] {
  const { clock } = facts
  const window = windowFindings(facts)
  // A window without a rate tells nothing of the traffic.
  const traffic = window.some(({ level }) => level === 'fatal') ? [] : trafficFindings(facts)
  const findings =
    clock.kind === 'unanswered'
      ? [unreachable(facts.subject, clock), ...virtualServiceFindings(facts)]
      : [
          ...clockFindings(facts),
          ...queryTimeFindings(facts),
          ...presenceFindings(facts),
          ...reporterFindings(facts),
          ...window,
          ...traffic,
          ...bucketFindings(facts),
          ...streamFindings(facts),
          ...trainingFindings(facts),
          ...virtualServiceFindings(facts),
          ...unansweredFindings(facts),
        ]
  return findings.map(({ id, level, what, todo }) => ({
    id,
    level,
    what: printable(what),
    todo: todo === null ? null : printable(todo),
  }))
}

/** 0: good. 1: warnings. 2: cannot work. */
export function exitCodeOf(findings: readonly Finding[]): 0 | 1 | 2 {
  if (findings.some(({ level }) => level === 'fatal')) return 2
  return findings.some(({ level }) => level === 'warning') ? 1 : 0
}

/** Label values and error texts come from outside: nothing in them may steer a terminal. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (character) => {
    const code = character.codePointAt(0) ?? 0
    return `\\u{${code.toString(16)}}`
  })
}

function ok(id: string, what: string): Finding {
  return { id, level: 'ok', what, todo: null }
}

function warning(id: string, what: string, todo: string): Finding {
  return { id, level: 'warning', what, todo }
}

function fatal(id: string, what: string, todo: string): Finding {
  return { id, level: 'fatal', what, todo }
}

function known<T>(asked: Asked<T>): T | undefined {
  return asked.kind === 'known' ? asked.value : undefined
}

const HOW_TO_REACH: Partial<Record<PollOutcome, string>> = {
  conn: 'start Prometheus, or bring it here: kubectl port-forward -n istio-system svc/prometheus 9090, then --prometheus-url http://localhost:9090',
  dns: 'correct the host of --prometheus-url; names such as prometheus.istio-system resolve only inside of the cluster',
  tls: 'give the scheme that Prometheus speaks, and its certificate to Node with NODE_EXTRA_CA_CERTS',
  auth: 'give an address behind the login, such as that of a kubectl port-forward: meshfever sends no credentials',
  http_4xx: 'correct the path of --prometheus-url: /api/v1/query is added to it',
  redirect: 'give the final URL as --prometheus-url',
  timeout: 'see whether Prometheus is overloaded (its /metrics, its CPU) or something on the way swallows the request',
  http_5xx: 'see what the proxy or Prometheus itself says: it is still starting, or its backend is down',
}

function unreachable(
  { prometheusUrl }: Subject,
  { outcome, detail }: { readonly outcome: PollOutcome; readonly detail: string },
): Finding {
  return fatal(
    'prometheus-unreachable',
    `Prometheus at ${prometheusUrl} does not answer (${outcome}): ${detail}`,
    HOW_TO_REACH[outcome] ?? 'check that --prometheus-url is that of a Prometheus and of nothing else',
  )
}

function clockFindings({ clock }: Facts): Finding[] {
  const reading = known(clock)
  if (reading === undefined) return []
  const skew = reading.prometheusSeconds - reading.ourSeconds
  const uncertain = reading.roundTripSeconds / 2
  if (Math.abs(skew) - uncertain > MAX_SKEW_SECONDS) {
    return [
      warning(
        'clock-skew',
        `Prometheus's clock is ${seconds(Math.abs(skew))} ${skew > 0 ? 'ahead of' : 'behind'} this machine's`,
        'set both clocks by NTP (timedatectl set-ntp true): record ends its range by this one, and times in logs and alerts do not fit together',
      ),
    ]
  }
  return [
    ok('clock', `Prometheus answers, and its clock agrees with this machine's (${seconds(Math.abs(skew))} apart)`),
  ]
}

function queryTimeFindings({ subject, poll, pollSeconds }: Facts): Finding[] {
  const { pollIntervalSeconds, pollDeadlineSeconds } = subject
  if (poll.kind === 'unanswered') {
    const slow = poll.outcome === 'timeout'
    return [
      fatal(
        slow ? 'query-slow' : 'query-fails',
        `the monitor's query fails (${poll.outcome}): ${poll.detail}`,
        slow
          ? `poll less often (--poll-interval-seconds), relieve Prometheus, or give it a recording rule and the monitor a --query of it: the monitor gives up after ${seconds(pollDeadlineSeconds)}`
          : 'run the query in Prometheus itself; too many series or samples call for a higher --query.max-samples there or a recording rule',
      ),
    ]
  }
  if (pollSeconds.length === 0) return []
  const took = middle(pollSeconds)
  const limit = Math.min(SLOW_QUERY_SECONDS, SLOW_SHARE_OF_INTERVAL * pollIntervalSeconds)
  const numbers = `the monitor's query takes ${duration(took)} (median of ${pollSeconds.length})`
  if (took > pollDeadlineSeconds) {
    return [
      fatal(
        'query-slow',
        `${numbers}, and the monitor gives up after ${seconds(pollDeadlineSeconds)}`,
        `poll less often: --poll-interval-seconds ${Math.ceil(took / SLOW_SHARE_OF_INTERVAL)}; or relieve Prometheus with a recording rule and give the monitor a --query of it`,
      ),
    ]
  }
  if (took > limit) {
    return [
      warning(
        'query-slow',
        `${numbers}, more than ${duration(limit)} with a poll every ${seconds(pollIntervalSeconds)}`,
        `poll less often: --poll-interval-seconds ${Math.ceil(took / SLOW_SHARE_OF_INTERVAL)}; or relieve Prometheus with a recording rule and give the monitor a --query of it`,
      ),
    ]
  }
  return [ok('query-time', numbers)]
}

function edgeText({ pair, sourceLabel, destinationLabel }: EdgeNames): string {
  return `${sourceLabel}="${pair.source}", ${destinationLabel}="${pair.destination}"`
}

function presenceFindings({ subject, presence, elsewhere, clock }: Facts): Finding[] {
  const present = known(presence)
  if (present === undefined) return []
  const has = (metric: string): boolean => present.some((found) => found.metric === metric)
  const edge = edgeText(subject)
  if (has(LATENCY_BUCKETS)) return [ok('metric', `${LATENCY_BUCKETS} has the pair: ${edge}`)]
  if (has(LATENCY_NATIVE)) {
    return [
      fatal(
        'native-histogram',
        `the pair's latency is a native histogram, without the classic buckets that meshfever reads`,
        'have Prometheus keep the classic ones, too: always_scrape_classic_histograms: true in the scrape job (scrape_classic_histograms before Prometheus 3)',
      ),
    ]
  }
  if (has(LATENCY_COUNT)) {
    return [
      fatal(
        'buckets-missing',
        `the pair has ${LATENCY_COUNT}, but no ${LATENCY_BUCKETS}: somebody drops the buckets`,
        `look for ${LATENCY_BUCKETS} or _bucket in metric_relabel_configs of the scrape job, and let the pair's through`,
      ),
    ]
  }
  if (has(REQUESTS)) {
    return [
      fatal(
        'latency-missing',
        `the pair has ${REQUESTS}, but no ${LATENCY_BUCKETS}`,
        'let it through in metric_relabel_configs of the scrape job, and look for a Telemetry resource that disables REQUEST_DURATION: kubectl get telemetry -A -o yaml',
      ),
    ]
  }
  if (has(TCP_CONNECTIONS)) {
    return [
      fatal(
        'only-tcp',
        `the pair has TCP metrics only (${TCP_CONNECTIONS}): a ztunnel or a port that is not HTTP; connections have no request latency`,
        'in an ambient mesh, give the destination a waypoint (istioctl waypoint apply --enroll-namespace); otherwise name the port http or set appProtocol: http',
      ),
    ]
  }
  return elsewhere === null ? [] : [missingPair(subject, elsewhere, known(clock))]
}

function missingPair(subject: Subject, elsewhere: Elsewhere, clock: ClockReading | undefined): Finding {
  const { pair, sourceLabel, destinationLabel } = subject
  const edge = edgeText(subject)
  const metrics = known(elsewhere.metrics)
  if (metrics !== undefined && !metrics.includes(LATENCY_COUNT)) {
    const others = metrics.length === 0 ? '' : ` (it has ${metrics.join(', ')})`
    return fatal(
      'metric-missing',
      `this Prometheus has no ${LATENCY_BUCKETS} of any pair${others}`,
      metrics.includes(LATENCY_NATIVE)
        ? 'its latency is in native histograms: set always_scrape_classic_histograms: true in the scrape job'
        : "have it scrape the sidecars' :15020/stats/prometheus (istio.io: Prometheus, configuration), or give --prometheus-url of the one that does",
    )
  }
  const [labels] = known(elsewhere.otherLabels) ?? []
  if (labels !== undefined) {
    return fatal(
      'other-labels',
      `no series has ${edge}, but the pair is there as ${labels.sourceLabel}="${pair.source}", ${labels.destinationLabel}="${pair.destination}"`,
      `set --source-label ${labels.sourceLabel} --destination-label ${labels.destinationLabel}`,
    )
  }
  const edges = known(elsewhere.edges) ?? []
  if (edges.some(({ source, destination }) => source === pair.destination && destination === pair.source)) {
    return fatal(
      'pair-reversed',
      `nothing is measured from ${pair.source} to ${pair.destination}, but ${pair.destination} calls ${pair.source}`,
      `swap them: --service1 ${pair.destination} --service2 ${pair.source}`,
    )
  }
  const lastSeen = known(elsewhere.lastSeenSeconds) ?? null
  if (lastSeen !== null) {
    const ago = clock === undefined ? '' : ` ${seconds(clock.prometheusSeconds - lastSeen)} ago`
    return fatal(
      'pair-gone',
      `the pair was last measured${ago}: nothing scrapes it any more, or ${pair.source} was restarted and has not called since`,
      `see whether ${pair.source} runs and its sidecar is scraped: up == 0 in Prometheus, kubectl get pods`,
    )
  }
  const missingLabels = [
    ...(edges.every(({ source }) => source === '') ? [sourceLabel] : []),
    ...(edges.every(({ destination }) => destination === '') ? [destinationLabel] : []),
  ]
  if (edges.length > 0 && missingLabels.length > 0) {
    return fatal(
      'labels-missing',
      `${LATENCY_BUCKETS} has no label ${missingLabels.join(' and no ')} on any series`,
      'name the labels that it has with --source-label and --destination-label (source_workload, source_canonical_service, destination_service_name), and look for a labeldrop in metric_relabel_configs',
    )
  }
  return fatal(
    'pair-unknown',
    `no series has ${edge}; ${neighbours(pair, edges)}`,
    `correct --service1 and --service2, or send a request from ${pair.source} to ${pair.destination} (an edge is there after its first one), and see that ${pair.source} has a sidecar`,
  )
}

/** What there is near a pair that is not there. */
function neighbours(pair: Pair, edges: readonly Pair[]): string {
  if (edges.length === 0) return 'no other edge is known either'
  const called = edges.filter(({ source }) => source === pair.source).map(({ destination }) => destination)
  const callers = edges.filter(({ destination }) => destination === pair.destination).map(({ source }) => source)
  const all = (names: readonly string[]): readonly string[] =>
    [...new Set(names)].filter((name) => name !== '' && name !== 'unknown')
  return [
    called.length > 0
      ? `${pair.source} calls ${nearest(pair.destination, all(called)).join(', ')}`
      : `sources named nearly so: ${nearest(pair.source, all(edges.map(({ source }) => source))).join(', ')}`,
    callers.length > 0
      ? `${pair.destination} is called by ${nearest(pair.source, all(callers)).join(', ')}`
      : `destinations named nearly so: ${nearest(pair.destination, all(edges.map(({ destination }) => destination))).join(', ')}`,
  ].join('; ')
}

function nearest(wanted: string, names: readonly string[]): readonly string[] {
  const distance = (name: string): number =>
    name.includes(wanted) || wanted.includes(name) ? 0 : editDistance(name.toLowerCase(), wanted.toLowerCase())
  return names
    .map((name) => ({ name, distance: distance(name) }))
    .sort((a, b) => a.distance - b.distance || (a.name < b.name ? -1 : 1))
    .slice(0, NAMED_AT_MOST)
    .map(({ name }) => name)
}

/** Levenshtein's: how many characters to add, drop or change. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const change = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(change, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1))
    }
    row = next
  }
  return row[b.length] ?? 0
}

function reporterFindings({ subject, presence, requestsByReporter, scrapes }: Facts): Finding[] {
  const { pair, window, quantiles } = subject
  const reporters = (known(presence) ?? []).filter(({ metric }) => metric === LATENCY_BUCKETS)
  const has = (name: string): boolean => reporters.some(({ reporter }) => reporter === name)
  if (reporters.length === 0) return []
  const queryOf = (reporter: string): string =>
    `--query '${latencyQueryWith(subject, { quantile: quantiles[0] ?? 0.5, window: window.text, matchers: [`reporter="${reporter}"`] })}'`
  if (!has('source')) {
    if (has('waypoint')) {
      return [
        fatal(
          'waypoint-only',
          'only a waypoint reports the pair (ambient mesh); the built-in query reads reporter="source", which sidecars report',
          `give the monitor ${queryOf('waypoint')}`,
        ),
      ]
    }
    if (!has('destination')) {
      const names = [...new Set(reporters.map(({ reporter }) => (reporter === '' ? '(no label)' : reporter)))]
      return [
        fatal(
          'no-source-reporter',
          `the pair's reporter is ${names.join(', ')}; the built-in query reads reporter="source"`,
          'look for what drops or rewrites the label reporter in metric_relabel_configs',
        ),
      ]
    }
    return [
      fatal(
        'no-source-reporter',
        `only ${pair.destination} reports the pair (reporter="destination"); the built-in query reads reporter="source"`,
        `give ${pair.source} a sidecar and have it scraped; or give the monitor ${queryOf('destination')}, which shows neither network nor injected faults`,
      ),
    ]
  }
  const findings: Finding[] = []
  if (!has('destination') && !has('waypoint')) {
    findings.push(
      warning(
        'one-reporter',
        `only ${pair.source} reports the pair (reporter="source"); nothing comes from ${pair.destination}'s side`,
        `the monitor works; give ${pair.destination} a sidecar and have it scraped, to tell a slow service from a slow network`,
      ),
    )
  }
  const counts = known(requestsByReporter)
  const [source, destination] = [counts?.get('source') ?? 0, counts?.get('destination') ?? 0]
  const [less, more] = [Math.min(source, destination), Math.max(source, destination)]
  // The two sides are scraped at different moments, so either count may lack a scrape's share of the window.
  const scrapeSeconds = Math.max(
    0,
    ...(known(scrapes) ?? []).flatMap(({ timesSeconds }) => intervalOf(timesSeconds) ?? []),
  )
  const unscraped = Math.min(1, scrapeSeconds / subject.window.seconds) * more
  if (has('destination') && more >= MIN_REQUESTS_FOR_SHARES && more - unscraped > REPORTERS_RATIO * less) {
    findings.push(
      warning(
        'reporters-differ',
        `${pair.source} counted ${count(source)} requests and ${pair.destination} ${count(destination)}`,
        source > destination
          ? `requests fail or are answered on the way (response_flags of ${REQUESTS}), or some pods of ${pair.destination} are not scraped: up == 0`
          : `some pods of ${pair.source} are not scraped: up == 0 in Prometheus`,
      ),
    )
  }
  return findings.length > 0
    ? findings
    : [
        ok(
          'reporters',
          `${pair.source} reports the pair, and the other side agrees (${[...new Set(reporters.map(({ reporter }) => reporter))].sort().join(', ')})`,
        ),
      ]
}

function windowFindings({ subject, scrapes }: Facts): Finding[] {
  const { window } = subject
  const series = known(scrapes) ?? []
  const intervals = series.flatMap(({ timesSeconds }) => intervalOf(timesSeconds) ?? [])
  if (intervals.length === 0) return []
  const [fastest, slowest] = [Math.min(...intervals), Math.max(...intervals)]
  const findings: Finding[] = []
  const wanted = `--query-window ${niceDuration(MIN_SCRAPES_IN_WINDOW * slowest)}`
  if (window.seconds <= fastest) {
    findings.push(
      fatal(
        'window-short',
        `the window of ${window.text} never holds two scrapes, which are ${seconds(fastest)} apart: no rate can be taken`,
        `set ${wanted} or more`,
      ),
    )
  } else if (window.seconds < MIN_SCRAPES_IN_WINDOW * slowest * 0.99) {
    findings.push(
      warning(
        'window-short',
        `the window of ${window.text} holds ${(window.seconds / slowest).toFixed(1)} scrapes, which are ${seconds(slowest)} apart; a missed one leaves gaps and jumps`,
        `set ${wanted} or more (${MIN_SCRAPES_IN_WINDOW} scrapes)`,
      ),
    )
  } else {
    findings.push(
      ok(
        'window',
        `the window of ${window.text} holds ${Math.floor(window.seconds / slowest + 0.01)} scrapes, which are ${seconds(slowest)} apart`,
      ),
    )
  }
  if (slowest > 1.5 * fastest) {
    findings.push(
      warning(
        'scrape-intervals-differ',
        `the pair's series are scraped at different intervals, from ${seconds(fastest)} to ${seconds(slowest)}`,
        'give all of its scrape jobs one scrape_interval; until then the slowest one decides how short a window may be',
      ),
    )
  }
  const twice = scrapedTwice(series)
  if (twice !== null) {
    findings.push(
      warning(
        'scraped-twice',
        `pod ${twice.pod} is scraped by ${twice.jobs.length} jobs (${twice.jobs.join(', ')}): each of its requests counts ${twice.jobs.length} times`,
        'drop the sidecar from all but one scrape job',
      ),
    )
  }
  return findings
}

/** Rounded to what people configure: the scrapes themselves jitter by milliseconds. */
function intervalOf(timesSeconds: readonly number[]): number | undefined {
  const gaps = timesSeconds.flatMap((time, i) => (i === 0 ? [] : [time - (timesSeconds[i - 1] ?? NaN)]))
  return gaps.length === 0 ? undefined : Math.max(0.1, Math.round(middle(gaps) * 10) / 10)
}

function scrapedTwice(series: readonly ScrapedSeries[]): { readonly pod: string; readonly jobs: string[] } | null {
  const jobsOf = new Map<string, Set<string>>()
  for (const { labels } of series) {
    const pod = labels.get('pod') ?? labels.get('kubernetes_pod_name') ?? labels.get('pod_name')
    const job = labels.get('job')
    if (pod === undefined || job === undefined) continue
    jobsOf.set(pod, (jobsOf.get(pod) ?? new Set()).add(job))
  }
  for (const [pod, jobs] of jobsOf) if (jobs.size > 1) return { pod, jobs: [...jobs].sort() }
  return null
}

function trafficFindings({ subject, poll, presence }: Facts): Finding[] {
  const { window, quantiles, minRequestsPerSecond, pair } = subject
  const answer = known(poll)
  const measured = known(presence)?.some(({ metric, reporter }) => metric === LATENCY_BUCKETS && reporter === 'source')
  if (answer === undefined || measured !== true) return []
  const findings: Finding[] = []
  const { newestSeconds, requestsPerSecond } = answer
  if (newestSeconds !== null) {
    const age = answer.evaluatedSeconds - newestSeconds
    const maxAge = MAX_AGE_OF_WINDOW * window.seconds
    findings.push(
      age > maxAge
        ? warning(
            'sample-old',
            `the newest sample is ${seconds(age)} old; beyond ${seconds(maxAge)} the monitor says no_data`,
            `see whether ${pair.source}'s sidecars are still scraped (up == 0), or set a longer --query-window`,
          )
        : ok('sample-age', `the newest sample is ${seconds(age)} old`),
    )
  }
  if (requestsPerSecond === null || requestsPerSecond === 0) {
    findings.push(
      warning(
        'low-traffic',
        `no request in the last ${window.text}: there is no latency to score`,
        'watch a busier pair, send some requests of your own, or set a longer --query-window',
      ),
    )
    return findings
  }
  const inWindow = requestsPerSecond * window.seconds
  const highest = Math.max(...quantiles)
  const needed = MIN_REQUESTS_BEYOND / (1 - highest)
  const numbers = `${rate(requestsPerSecond)} requests a second, ${count(inWindow)} in a window of ${window.text}`
  const longer = (requests: number): string => `--query-window ${niceDuration(requests / requestsPerSecond)}`
  if (requestsPerSecond < minRequestsPerSecond) {
    findings.push(
      warning(
        'low-traffic',
        `${numbers}: below ${minRequestsPerSecond} a second the verdict is low_traffic and nothing is scored`,
        `watch a busier pair, or lower --min-requests-per-second and set ${longer(needed)}, knowing that one slow request then weighs much`,
      ),
    )
  } else if (inWindow < needed * 0.99) {
    findings.push(
      warning(
        'low-traffic',
        `${numbers}: p${percentile(highest)} is then a matter of ${inWindow * (1 - highest) < 1 ? 'the one slowest request' : 'a few requests'}`,
        `set ${longer(needed)} or more, or a lower --quantile`,
      ),
    )
  } else {
    findings.push(ok('traffic', numbers))
  }
  return findings
}

interface BucketShare {
  readonly lowerMs: number
  readonly upperMs: number
  readonly share: number
}

/** The bucket in which a quantile lies, and its share of all requests. */
function bucketOfQuantile(distribution: readonly BucketCount[], quantile: number): BucketShare | null {
  const upTo = new Map<number, number>()
  for (const { upperMs, requests } of distribution) upTo.set(upperMs, (upTo.get(upperMs) ?? 0) + requests)
  const bounds = [...upTo.keys()].sort((a, b) => a - b)
  const total = upTo.get(Infinity) ?? 0
  if (!(total >= MIN_REQUESTS_FOR_SHARES)) return null
  const i = bounds.findIndex((bound) => (upTo.get(bound) ?? 0) >= quantile * total)
  const upperMs = bounds[i] ?? Infinity
  const lowerMs = bounds[i - 1] ?? 0
  return { lowerMs, upperMs, share: ((upTo.get(upperMs) ?? 0) - (upTo.get(lowerMs) ?? 0)) / total }
}

function bucketFindings({ subject, distribution, poll }: Facts): Finding[] {
  const { quantiles, pair } = subject
  const buckets = known(distribution)
  if (buckets === undefined) return []
  const shares = quantiles.flatMap((quantile) => {
    const bucket = bucketOfQuantile(buckets, quantile)
    return bucket === null ? [] : [{ quantile, ...bucket }]
  })
  const [first] = shares
  if (first === undefined) return []
  const beyond = shares.find(({ upperMs }) => upperMs === Infinity)
  if (beyond !== undefined) {
    return [
      warning(
        'saturated',
        `p${percentile(beyond.quantile)} lies beyond the histogram's last bound of ${ms(beyond.lowerMs)}, which is all that can be measured; ${share(beyond.share)} of the requests do`,
        'keep streams out of the query (see below), or give the histogram higher bounds with the annotation sidecar.istio.io/statsHistogramBuckets',
      ),
    ]
  }
  const latencies = (known(poll)?.latencies ?? [])
    .map(({ quantile, latencyMs }) => `p${percentile(quantile)} is ${ms(latencyMs)}`)
    .join(', ')
  const numbers = `${share(first.share)} of the requests lie in the histogram bucket from ${ms(first.lowerMs)} to ${ms(first.upperMs)}`
  const oneBucket = shares.every(({ upperMs }) => upperMs === first.upperMs)
  if (oneBucket && first.share >= ONE_BUCKET_SHARE) {
    const other = [0.9, 0.95, 0.99].find((quantile) => {
      const bucket = bucketOfQuantile(buckets, quantile)
      return bucket !== null && bucket.upperMs !== first.upperMs && Number.isFinite(bucket.upperMs)
    })
    const second =
      other === undefined
        ? ''
        : `record a second quantile that lies elsewhere: meshfever record --service1 ${pair.source} --service2 ${pair.destination} --quantile ${first.quantile} --quantile ${other} ...; or `
    return [
      warning(
        'one-bucket',
        `${numbers}${latencies === '' ? '' : ` (${latencies})`}: the quantile is interpolated inside of it and moves only when requests change buckets`,
        `${second}give ${pair.source}'s pods finer bounds around it with the annotation sidecar.istio.io/statsHistogramBuckets; a slowdown inside of the bucket stays unseen`,
      ),
    ]
  }
  return [ok('buckets', `${latencies === '' ? '' : `${latencies}; `}${numbers}`)]
}

function streamFindings({ subject, distribution }: Facts): Finding[] {
  const { quantiles, window } = subject
  const buckets = known(distribution) ?? []
  const sum = (test: (bucket: BucketCount) => boolean): number =>
    buckets.filter(test).reduce((total, { requests }) => total + requests, 0)
  const total = sum(({ upperMs }) => upperMs === Infinity)
  if (total < MIN_REQUESTS_FOR_SHARES) return []
  const findings: Finding[] = []
  const upgraded = sum(({ upperMs, code }) => upperMs === Infinity && code === '101') / total
  if (upgraded >= STREAM_SHARE) {
    const query = latencyQueryWith(subject, {
      quantile: quantiles[0] ?? 0.5,
      window: window.text,
      matchers: ['reporter="source"', 'response_code!="101"'],
    })
    findings.push(
      warning(
        'streams-101',
        `${share(upgraded)} of the requests are upgraded connections (response_code="101", WebSockets): each counts once, with its whole life as its latency`,
        `give the monitor --query '${query}' and training data of the same query, or drop response_code 101 in metric_relabel_configs`,
      ),
    )
  }
  const protocols = [...new Set(buckets.map(({ protocol }) => protocol))]
  const bounded = buckets.some(({ upperMs }) => upperMs === LONG_REQUEST_MS)
  const long = protocols.map((protocol) => {
    const own = (bound: number): number =>
      sum((bucket) => bucket.upperMs === bound && bucket.protocol === protocol && bucket.code !== '101')
    return { protocol, share: bounded ? (own(Infinity) - own(LONG_REQUEST_MS)) / total : 0 }
  })
  for (const { protocol, share: part } of long) {
    if (part < STREAM_SHARE) continue
    const grpc = protocol === 'grpc'
    findings.push(
      warning(
        grpc ? 'grpc-streams' : 'long-requests',
        `${share(part)} of the requests are${protocol === '' ? '' : ` ${protocol} and`} longer than a minute: ${grpc ? 'gRPC streams, which count once, at their end' : 'long polls, downloads or streams'}`,
        grpc
          ? "watch the calls without the streams: serve them under a service of their own, or tag the method with Istio's Telemetry API (tagOverrides) and leave the streams out with --query"
          : 'serve them under a service of their own, or tag their path with the Telemetry API (tagOverrides) and leave them out with --query',
      ),
    )
  }
  const labelled = buckets.some(({ code }) => code !== '')
  if (findings.length === 0 && labelled)
    findings.push(ok('streams', 'no streams among the requests (code 101, or longer than a minute)'))
  return findings
}

function trainingFindings({ subject, training, poll }: Facts): Finding[] {
  if (training === null) return []
  const { pair, quantiles, window } = subject
  const { file, series, pairs } = training
  const findings: Finding[] = []
  const again = `record again: meshfever record --service1 ${pair.source} --service2 ${pair.destination} --query-window ${window.text} --output ${file} ...`
  const other = pairs.find(
    ({ source = pair.source, destination = pair.destination }) =>
      source !== pair.source || destination !== pair.destination,
  )
  if (other !== undefined) {
    findings.push(
      warning(
        'training-other-pair',
        `${file} was recorded of ${other.source ?? '?'} -> ${other.destination ?? '?'}`,
        `give the pair's own recording, or ${again}`,
      ),
    )
  }
  if (training.window !== null && training.window !== window.text) {
    findings.push(
      warning(
        'training-window',
        `${file} was recorded over a window of ${training.window}, and the monitor would look over ${window.text}`,
        `set --query-window ${training.window}, or ${again}`,
      ),
    )
  }
  const absent = quantiles.filter((quantile) => !series.some((held) => held.quantile === quantile))
  if (absent.length > 0) {
    findings.push(
      fatal(
        'training-quantile',
        `${file} holds no quantile ${absent.join(', ')}, only ${series.map(({ quantile }) => quantile).join(', ')}`,
        `leave --quantile out, or ${again.replace(' ...', '')}${quantiles.map((quantile) => ` --quantile ${quantile}`).join('')}`,
      ),
    )
  }
  const live = known(poll)?.latencies ?? []
  for (const { quantile, lowMs, highMs, medianMs } of series) {
    const now = live.find((latency) => latency.quantile === quantile)?.latencyMs
    if (now === undefined || (now >= lowMs && now <= highMs)) continue
    findings.push(
      warning(
        'training-level',
        `p${percentile(quantile)} is ${ms(now)} now, and ${file} holds ${ms(lowMs)} to ${ms(highMs)} (median ${ms(medianMs)})`,
        `if this is an incident, good: it will be seen; if it is normal, ${again}`,
      ),
    )
  }
  const samples = Math.min(...series.map(({ samples: own }) => own))
  return findings.length > 0 ? findings : [ok('training', `${file} fits the pair (${count(samples)} samples)`)]
}

function virtualServiceFindings({ subject, virtualServices, destinationHosts }: Facts): Finding[] {
  if (virtualServices === null) return []
  const { pair, sourceLabel } = subject
  if (virtualServices.length === 0) {
    return [
      warning(
        'virtual-services-none',
        'no VirtualService in the files given with --virtual-services',
        'kubectl get virtualservices -A -o yaml > vs.yaml, then --virtual-services vs.yaml',
      ),
    ]
  }
  const findings: Finding[] = []
  const places = (group: readonly DeclaredVirtualService[]): string => group.map(({ where }) => where).join(' and ')
  for (const group of sameNames(virtualServices).slice(0, NAMED_AT_MOST)) {
    const name = group[0] === undefined ? '' : virtualServiceName(group[0])
    findings.push(
      warning(
        'virtual-service-name-twice',
        `VirtualService ${name} is there ${group.length} times with different content: ${places(group)}; the one applied last replaces the others`,
        'give each a name of its own (metadata.name), or put their routes into one',
      ),
    )
  }
  for (const group of sameHosts(virtualServices).slice(0, NAMED_AT_MOST)) {
    findings.push(
      warning(
        'virtual-service-host-twice',
        `VirtualServices ${group.map(virtualServiceName).join(' and ')} are for one host (${group[0]?.hosts.join(', ') ?? ''}); sidecars follow only the oldest`,
        'put their routes into one VirtualService',
      ),
    )
  }
  const hosts = known(destinationHosts)?.filter((host) => host !== '' && host !== 'unknown') ?? []
  const faults = faultsOn(unique(virtualServices), {
    hosts: hosts.length === 0 ? [pair.destination] : hosts,
    app: sourceLabel === 'source_app' ? pair.source : null,
  })
  for (const { virtualService, faults: own, everyRequest } of faults.slice(0, NAMED_AT_MOST)) {
    const namespace = virtualService.namespace === null ? '' : ` -n ${virtualService.namespace}`
    findings.push(
      warning(
        'fault-in-force',
        `VirtualService ${virtualServiceName(virtualService)} injects a fault into ${pair.source} -> ${pair.destination}: ${own.join(' and ')}${everyRequest ? '' : ', where its other conditions hold'} (${virtualService.where})`,
        `record no training data while it is in force; remove it with kubectl delete virtualservice ${virtualService.name}${namespace}`,
      ),
    )
  }
  return findings.length > 0
    ? findings
    : [
        ok(
          'virtual-services',
          `${unique(virtualServices).length} VirtualService${unique(virtualServices).length === 1 ? '' : 's'}: names and hosts are unique, no fault is in force on the pair`,
        ),
      ]
}

/** An object that several files have is one object. */
function unique(all: readonly DeclaredVirtualService[]): readonly DeclaredVirtualService[] {
  return [...new Map(all.map((one) => [`${virtualServiceName(one)} ${one.fingerprint}`, one])).values()]
}

/** A question that was not answered is no finding about the pair, but what it would have told is not known. */
function unansweredFindings(facts: Facts): Finding[] {
  const questions: readonly (readonly [string, Asked<unknown> | undefined])[] = [
    ['which metrics the pair has', facts.presence],
    ['how many requests each side counted', facts.requestsByReporter],
    ['how latency is distributed', facts.distribution],
    ['how often the pair is scraped', facts.scrapes],
    ["what the destination's hosts are", facts.destinationHosts],
    ['which metrics there are', facts.elsewhere?.metrics],
    ['which edges there are', facts.elsewhere?.edges],
    ['whether the pair has other labels', facts.elsewhere?.otherLabels],
    ['when the pair was last seen', facts.elsewhere?.lastSeenSeconds],
  ]
  return questions.flatMap(([question, asked]) =>
    asked?.kind === 'unanswered'
      ? [
          warning(
            'question-unanswered',
            `Prometheus did not tell ${question} (${asked.outcome}): ${asked.detail}`,
            'run doctor again when Prometheus is less busy, or raise its --query.max-samples and --query.timeout',
          ),
        ]
      : [],
  )
}

function middle(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor((sorted.length - 1) / 2)] ?? NaN
}

/** Rounded for reading: 0.06 s, 1.5 s, 40 s, 12 min. */
function seconds(value: number): string {
  if (value >= 7_200) return `${(value / 3600).toFixed(1)} h`
  if (value >= 120) return `${(value / 60).toFixed(1)} min`
  return `${Number(value.toFixed(value < 1 ? 2 : 1))} s`
}

function duration(value: number): string {
  return value < 1 ? `${Math.max(1, Math.round(value * 1000))} ms` : seconds(value)
}

/** A Prometheus duration of at least so many seconds. */
function niceDuration(value: number): string {
  const whole = Math.max(1, Math.ceil(value - 0.01))
  return whole > 90 ? `${Math.ceil(whole / 60)}m` : `${whole}s`
}

function ms(value: number): string {
  return `${Number(value.toPrecision(3))} ms`
}

function share(value: number): string {
  return `${Number((value * 100).toFixed(value < 0.1 ? 1 : 0))} %`
}

function count(value: number): string {
  return String(Number(value < 10 ? value.toFixed(1) : value.toFixed(0)))
}

function rate(value: number): string {
  return String(Number(value.toPrecision(2)))
}

function percentile(quantile: number): string {
  return String(Number((quantile * 100).toFixed(4)))
}
